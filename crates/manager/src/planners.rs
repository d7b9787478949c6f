//! The reconciler and the scheduler as the planners' loop drives them.

use crate::edge;
use crate::planner::{Outcome, Planner, Wanted};
use warren_state::{ChangeSet, ClusterState, Op};
use warren_types::{ContainerId, ServiceId, Timestamp};

/// Makes and retires containers.
#[derive(Default)]
pub(crate) struct Reconcile {
    agenda: warren_reconciler::Agenda,
    /// Newest id that was given.
    last: ContainerId,
    /// Services of the turn whose outcome is awaited.
    planned: Vec<ServiceId>,
    /// The last command was refused: one for each service now.
    apart: bool,
}

impl Planner for Reconcile {
    fn sweep(&mut self, state: &ClusterState) {
        self.agenda.sweep(state);
    }

    fn note(&mut self, state: &ClusterState, set: &ChangeSet) {
        self.agenda.note(state, set);
    }

    fn turn(&mut self, state: &ClusterState, now: Timestamp) -> Wanted {
        let last = &mut self.last;
        let turn = self.agenda.turn(state, now, &mut || rising(state, last));
        self.planned = turn.parts.iter().map(|(id, _)| *id).collect();
        let groups = turn.parts.into_iter().map(|(_, ops)| ops);
        Wanted {
            groups: if self.apart {
                groups.collect()
            } else {
                vec![groups.flatten().collect::<Vec<Op>>()]
            },
            more: turn.more,
            wake_at: turn.wake_at,
        }
    }

    fn outcome(&mut self, outcome: Outcome) {
        // What was taken comes back as changes.
        if outcome != Outcome::Taken {
            self.agenda.again(std::mem::take(&mut self.planned));
        }
        self.apart = outcome == Outcome::Refused;
    }
}

/// Places containers.
#[derive(Default)]
pub(crate) struct Schedule {
    agenda: warren_scheduler::Agenda,
    /// Containers of the turn whose outcome is awaited.
    planned: Vec<ContainerId>,
}

impl Planner for Schedule {
    fn sweep(&mut self, state: &ClusterState) {
        self.agenda.sweep(state);
    }

    fn note(&mut self, _: &ClusterState, set: &ChangeSet) {
        self.agenda.note(set);
    }

    fn turn(&mut self, state: &ClusterState, now: Timestamp) -> Wanted {
        let seed = u64::from_le_bytes(edge::random::<8>());
        let turn = self.agenda.turn(state, now, seed);
        self.planned = turn.looked_at;
        Wanted {
            groups: vec![turn.plan.ops],
            more: turn.more,
            wake_at: turn.wake_at,
        }
    }

    fn outcome(&mut self, outcome: Outcome) {
        if outcome != Outcome::Taken {
            self.agenda.again(std::mem::take(&mut self.planned));
        }
    }
}

/// An id above those of all containers, also when two are made in one millisecond or the clock went back:
/// of two containers in one place the younger is told by its id.
fn rising(state: &ClusterState, last: &mut ContainerId) -> ContainerId {
    let newest = state.newest_container().map_or(*last, |id| id.max(*last));
    let fresh = ContainerId(edge::new_id());
    *last = if fresh > newest {
        fresh
    } else {
        ContainerId::from_u128(newest.as_u128() + 1)
    };
    *last
}
