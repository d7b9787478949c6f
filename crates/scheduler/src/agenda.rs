//! Which pending containers to look at: new ones, and those that wait once something has changed that they may wait for. So
//! planning costs by what changes, however many wait.

use crate::{Plan, plan_pending};
use std::collections::BTreeSet;
use warren_state::{Change, ChangeSet, ClusterState};
use warren_types::{
    ActualState, Container, ContainerId, DesiredState, Duration, NodeId, Timestamp,
};

/// Containers looked at in one turn: a few milliseconds of work, so that the one who calls can do something else in between.
pub const LOOKED_AT_MAX: usize = 5_000;
/// Of a millisecond between two looks at those that wait, so many are there for each of them: however often nodes change,
/// looking takes a few percent of a processor.
pub const WAITING_PER_MS: u64 = 20;

/// What a planner has to look at. Lives as long as the one who plans; another begins with [`Agenda::sweep`].
#[derive(Debug, Default)]
pub struct Agenda {
    /// To be looked at, the oldest first.
    queue: BTreeSet<ContainerId>,
    /// Were looked at and wait.
    waiting: BTreeSet<ContainerId>,
    /// Something has changed that they may wait for.
    stale: bool,
    /// When they may be looked at again.
    not_before: Timestamp,
}

/// What one turn gives.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Turn {
    /// Operations for one command of actor `Scheduler`.
    pub plan: Plan,
    /// The containers that were looked at.
    pub looked_at: Vec<ContainerId>,
    /// There are more to look at now.
    pub more: bool,
    /// When to take the next turn even if nothing changes.
    pub wake_at: Option<Timestamp>,
}

impl Agenda {
    /// Looks at every pending container: at the beginning, when changes were missed, and now and then as the safety net.
    pub fn sweep(&mut self, state: &ClusterState) {
        let pending = state.containers().filter(|c| is_pending(c));
        self.queue = pending.map(|c| c.id).collect();
        self.waiting.clear();
        self.stale = false;
    }

    /// Notes what a command changed.
    pub fn note(&mut self, set: &ChangeSet) {
        for change in &set.changes {
            match change {
                Change::Container(delta) => {
                    self.container(delta.before.as_deref(), delta.after.as_deref());
                }
                Change::Node(_) | Change::Volume(_) => self.stale = true,
                Change::Service(_)
                | Change::Secret(_)
                | Change::Config(_)
                | Change::Network(_)
                | Change::Ingress(_)
                | Change::Certificate(_)
                | Change::Token(_)
                | Change::Settings(_) => {}
            }
        }
    }

    fn container(&mut self, before: Option<&Container>, after: Option<&Container>) {
        match (
            before.is_some_and(is_pending),
            after.filter(|c| is_pending(c)),
        ) {
            (false, Some(new)) => {
                self.queue.insert(new.id);
            }
            // Its reason was told: that changes nothing.
            (true, Some(_)) | (false, None) => {}
            (true, None) => {
                if let Some(gone) = before {
                    self.queue.remove(&gone.id);
                    self.waiting.remove(&gone.id);
                }
            }
        }
        let nothing = (None, false);
        self.stale |= before.map_or(nothing, held) != after.map_or(nothing, held);
    }

    /// What was planned for these was not carried out.
    pub fn again(&mut self, containers: impl IntoIterator<Item = ContainerId>) {
        for id in containers {
            self.waiting.remove(&id);
            self.queue.insert(id);
        }
    }

    /// Plans for the next containers, at most [`LOOKED_AT_MAX`]. `seed` breaks ties.
    #[must_use]
    pub fn turn(&mut self, state: &ClusterState, now: Timestamp, seed: u64) -> Turn {
        self.stale &= !self.waiting.is_empty();
        if self.stale && self.queue.is_empty() && now >= self.not_before {
            self.stale = false;
            self.queue = std::mem::take(&mut self.waiting);
            let pause = Duration(self.queue.len() as u64 / WAITING_PER_MS);
            self.not_before = now.plus(pause);
        }
        let mut looked_at = Vec::new();
        while looked_at.len() < LOOKED_AT_MAX
            && let Some(id) = self.queue.pop_first()
        {
            looked_at.push(id);
        }
        let plan = plan_pending(state, &looked_at, seed);
        let there = |id: &&ContainerId| state.container(**id).is_some_and(|c| is_pending(c));
        self.waiting.extend(looked_at.iter().filter(there));
        let more = !self.queue.is_empty();
        let wake_at = (self.stale && !more).then_some(self.not_before);
        Turn {
            plan,
            looked_at,
            more,
            wake_at,
        }
    }
}

/// Waits for a node.
pub(crate) fn is_pending(container: &Container) -> bool {
    container.status.state == ActualState::Pending && container.desired == DesiredState::Running
}

/// What a container has of a node, and whether it shall stay there.
fn held(container: &Container) -> (Option<NodeId>, bool) {
    let live = !container.status.state.is_final();
    let node = container.node.filter(|_| live);
    (
        node,
        node.is_some() && container.desired == DesiredState::Running,
    )
}
