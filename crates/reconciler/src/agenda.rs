//! Which services to look at: those that a change concerns and those whose time has come, so that planning costs by what
//! changes and not by what there is.

use crate::{IdSource, plan_service};
use std::collections::{BTreeMap, BTreeSet};
use warren_state::{Change, ChangeSet, ClusterState, Op};
use warren_types::limits::OPS_PER_COMMAND_MAX;
use warren_types::{Mode, Node, ServiceId, Timestamp};

/// Containers and services looked at in one turn (one service more may pass it): a few milliseconds of work, so that the
/// one who calls can do something else in between.
pub const LOOKED_AT_MAX: usize = 5_000;

/// What a planner has to look at, and when. Lives as long as the one who plans; another begins with [`Agenda::sweep`].
#[derive(Debug, Default)]
pub struct Agenda {
    /// Changed, or their time has come.
    changed: BTreeSet<ServiceId>,
    /// To be looked at when nothing has changed.
    rest: BTreeSet<ServiceId>,
    wake: BTreeMap<ServiceId, Timestamp>,
    by_time: BTreeSet<(Timestamp, ServiceId)>,
}

/// What one turn gives.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Turn {
    /// Operations by service; all of them fit into one command of actor `Reconciler`.
    pub parts: Vec<(ServiceId, Vec<Op>)>,
    /// Services that were looked at.
    pub looked_at: usize,
    /// There are more services to look at now.
    pub more: bool,
    /// When to take the next turn even if nothing changes.
    pub wake_at: Option<Timestamp>,
}

impl Agenda {
    /// Looks at every service, those that have changed first: at the beginning, when changes were missed, and now and
    /// then as the safety net.
    pub fn sweep(&mut self, state: &ClusterState) {
        self.rest.extend(state.services().map(|s| s.id));
    }

    /// Notes what a command changed. `state` is that after it, or a later one.
    pub fn note(&mut self, state: &ClusterState, set: &ChangeSet) {
        for change in &set.changes {
            match change {
                Change::Service(delta) => {
                    self.changed.extend(delta.latest().map(|s| s.id));
                }
                Change::Container(delta) => {
                    self.changed.extend(delta.latest().map(|c| c.service));
                }
                Change::Node(delta) => {
                    if let Some(node) = delta.latest() {
                        self.concerned(state, node);
                    }
                }
                Change::Settings(_) => self.sweep(state),
                Change::Secret(_)
                | Change::Config(_)
                | Change::Volume(_)
                | Change::Network(_)
                | Change::Ingress(_)
                | Change::Certificate(_)
                | Change::Token(_) => {}
            }
        }
    }

    /// What was planned for these was not carried out.
    pub fn again(&mut self, services: impl IntoIterator<Item = ServiceId>) {
        self.changed.extend(services);
    }

    /// Plans for the next services, at most [`LOOKED_AT_MAX`] containers and one command.
    #[must_use]
    pub fn turn(&mut self, state: &ClusterState, now: Timestamp, ids: &mut dyn IdSource) -> Turn {
        self.take_due(now);
        let mut turn = Turn::default();
        let (mut weight, mut ops) = (0, 0);
        while weight < LOOKED_AT_MAX {
            let Some(id) = self.changed.pop_first().or_else(|| self.rest.pop_first()) else {
                break;
            };
            let plan = plan_service(state, id, now, ids);
            if ops > 0 && ops + plan.ops.len() > OPS_PER_COMMAND_MAX {
                self.changed.insert(id);
                break;
            }
            self.wake(id, plan.wake_at);
            turn.looked_at += 1;
            weight += 1 + state.containers_of_service(id).count();
            ops += plan.ops.len();
            if !plan.ops.is_empty() {
                turn.parts.push((id, plan.ops));
            }
        }
        turn.more = !self.changed.is_empty() || !self.rest.is_empty();
        turn.wake_at = self.by_time.first().map(|(at, _)| *at);
        turn
    }

    fn take_due(&mut self, now: Timestamp) {
        while let Some((at, id)) = self.by_time.first().copied().filter(|(at, _)| *at <= now) {
            self.by_time.remove(&(at, id));
            self.wake.remove(&id);
            self.changed.insert(id);
        }
    }

    fn wake(&mut self, id: ServiceId, at: Option<Timestamp>) {
        let before = match at {
            Some(at) => self.wake.insert(id, at),
            None => self.wake.remove(&id),
        };
        if let Some(before) = before {
            self.by_time.remove(&(before, id));
        }
        self.by_time.extend(at.map(|at| (at, id)));
    }

    /// Services with something on the node, and those that want to be on every one.
    fn concerned(&mut self, state: &ClusterState, node: &Node) {
        let there = state.containers_on_node(node.id);
        self.changed.extend(there.map(|c| c.service));
        let global = state.services().filter(|s| s.spec.mode == Mode::Global);
        self.changed.extend(global.map(|s| s.id));
    }
}
