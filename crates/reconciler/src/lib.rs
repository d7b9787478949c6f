//! What shall be becomes containers: replicas, global services, rollouts, drain, node loss, reaping.
//!
//! Pure: snapshot and time in, operations out; fresh ids are handed in. It never picks a node. Each
//! plan is one step; after it was applied (or a node reported something, or `wake_at` came) the next
//! plan goes on. All that it remembers stands in the state, so a new leader goes on in the middle.
//!
//! Every operation carries the version of what was read. A command that is refused because something
//! changed meanwhile is planned anew. Should it be refused for one service's sake, plan and propose
//! service by service ([`plan_service`]): one odd service must not stop the others.

#![forbid(unsafe_code)]

mod agenda;
mod drain;
mod reap;
mod replace;
mod rollout;
mod service;
mod view;

pub use agenda::{Agenda, LOOKED_AT_MAX, Turn};
pub use drain::DRAIN_DEADLINE;
pub use reap::RETIRED_KEPT;
pub use replace::{REPLACE_FIRST, REPLACE_MAX, STABLE_AFTER};
pub use rollout::PROGRESS_DEADLINE;

use warren_state::{ClusterState, Op};
use warren_types::limits::OPS_PER_COMMAND_MAX;
use warren_types::{ContainerId, ServiceId, Slot, Timestamp};

/// Gives fresh ids. The one who calls has the clock and the random numbers.
pub trait IdSource {
    /// An id that no container has or had and that sorts after those of all containers there are:
    /// the age of two containers in one place is told by their ids. (A manager whose clock is behind
    /// takes the time of the newest id instead of its own.)
    fn container(&mut self) -> ContainerId;
}

impl<F: FnMut() -> ContainerId> IdSource for F {
    fn container(&mut self) -> ContainerId {
        self()
    }
}

/// A container that is not there because its last ones failed; the next one comes later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wait {
    /// Its service.
    pub service: ServiceId,
    /// Its place.
    pub slot: Slot,
    /// When the next one is made.
    pub until: Timestamp,
    /// Why, in words.
    pub reason: String,
}

/// What is to be done now.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// Operations for one command of actor `Reconciler`; at most `OPS_PER_COMMAND_MAX`.
    pub ops: Vec<Op>,
    /// When to plan again even if nothing changes.
    pub wake_at: Option<Timestamp>,
    /// Who waits for a replacement, and why.
    pub waits: Vec<Wait>,
    /// There is more to do than fits into one command: plan again after this one was applied.
    pub truncated: bool,
}

/// Plans for every service, whatever has changed. A planner that goes on for long keeps an [`Agenda`] instead.
#[must_use]
pub fn plan(state: &ClusterState, now: Timestamp, ids: &mut dyn IdSource) -> Plan {
    let mut plan = Plan::default();
    for service in state.services() {
        if plan.truncated {
            break;
        }
        service::plan(state, service, now, ids, &mut plan);
        plan.truncate();
    }
    plan
}

/// Plans for one service: what to do when a command for all was refused, and after a change that
/// concerns only this one.
#[must_use]
pub fn plan_service(
    state: &ClusterState,
    id: ServiceId,
    now: Timestamp,
    ids: &mut dyn IdSource,
) -> Plan {
    let mut plan = Plan::default();
    if let Some(service) = state.service(id) {
        service::plan(state, service, now, ids, &mut plan);
        plan.truncate();
    }
    plan
}

impl Plan {
    /// Every prefix of the operations is valid by itself, so the rest can wait.
    fn truncate(&mut self) {
        if self.ops.len() > OPS_PER_COMMAND_MAX {
            self.ops.truncate(OPS_PER_COMMAND_MAX);
            self.truncated = true;
        }
    }

    fn wake(&mut self, at: Timestamp) {
        self.wake_at = Some(self.wake_at.map_or(at, |known| known.min(at)));
    }
}
