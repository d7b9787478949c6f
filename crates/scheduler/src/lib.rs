//! Placement only: which node a pending container goes to, and why one waits.
//!
//! Pure: snapshot, time and seed in, operations out. It never makes containers and never talks to
//! nodes. What it plans is checked again by `apply` (R18), so a plan made on an old snapshot can be
//! refused but never over-commits.
//!
//! Containers of one service revision are placed as a group. As long as nodes without the service are
//! among the least loaded, they are taken from an order of all nodes by load, without looking at
//! every node; else the filters that do not change while the group is placed run once per node, and
//! a heap gives the best node for each container.

#![forbid(unsafe_code)]

mod agenda;
mod batch;
mod filter;
mod group;
mod place;

pub use agenda::{Agenda, LOOKED_AT_MAX, Turn, WAITING_PER_MS};

use agenda::is_pending;
use batch::Batch;
use warren_state::{ClusterState, Op};
use warren_types::limits::{OPS_PER_COMMAND_MAX, REASON_BYTES_MAX};
use warren_types::{Container, ContainerId};

/// What is to be done now.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// Operations for one command of actor `Scheduler`; at most `OPS_PER_COMMAND_MAX`.
    pub ops: Vec<Op>,
    /// Containers that were placed.
    pub placed: usize,
    /// Containers that wait, with their reason told.
    pub waiting: usize,
    /// There is more to do than fits into one command: plan again after this one was applied.
    pub truncated: bool,
}

/// Places every pending container of the state. `seed` breaks ties; the same state and seed give the
/// same plan.
#[must_use]
pub fn plan(state: &ClusterState, seed: u64) -> Plan {
    plan_of(state, state.containers().map(AsRef::as_ref), seed)
}

/// Like [`plan`], but looks only at these containers (those that the change feed named): for large
/// clusters, where looking at all of them takes longer than placing a few. Nodes that became free
/// need the full [`plan`].
#[must_use]
pub fn plan_pending(state: &ClusterState, ids: &[ContainerId], seed: u64) -> Plan {
    let mut ids = ids.to_vec();
    ids.sort_unstable();
    ids.dedup();
    let containers = ids
        .iter()
        .filter_map(|id| state.container(*id))
        .map(AsRef::as_ref);
    plan_of(state, containers, seed)
}

fn plan_of<'s>(
    state: &'s ClusterState,
    containers: impl Iterator<Item = &'s Container>,
    seed: u64,
) -> Plan {
    let pending = containers.filter(|c| is_pending(c));
    let groups = group::groups(state, pending);
    if groups.is_empty() {
        return Plan::default();
    }
    let mut out = Out::default();
    let mut batch = Batch::new(state, seed);
    let mut waiting = Vec::new();
    for group in &groups {
        let left = place::place(&mut batch, group, &mut out);
        if !left.is_empty() {
            waiting.push((group, left));
        }
    }
    // Reasons come last: what one group waits for may have been given to another by this very plan.
    for (group, left) in waiting {
        if out.plan.truncated {
            break;
        }
        let reason = place::reason(&batch, group);
        for container in left {
            out.wait(container, &reason);
        }
    }
    out.plan
}

/// Collects the plan and keeps it within one command.
#[derive(Default)]
struct Out {
    plan: Plan,
}

impl Out {
    fn assign(&mut self, container: &Container, node: warren_types::NodeId) {
        self.plan.placed += 1;
        self.plan.ops.push(Op::ContainerAssign {
            id: container.id,
            expect: Some(container.version),
            node,
        });
        self.count();
    }

    fn wait(&mut self, container: &Container, reason: &str) {
        self.plan.waiting += 1;
        let reason = &reason[..reason.floor_char_boundary(REASON_BYTES_MAX)];
        if container.status.reason == reason || self.plan.truncated {
            return;
        }
        self.plan.ops.push(Op::ContainerSetReason {
            id: container.id,
            expect: Some(container.version),
            reason: reason.to_owned(),
        });
        self.count();
    }

    fn count(&mut self) {
        self.plan.truncated = self.plan.ops.len() >= OPS_PER_COMMAND_MAX;
    }
}
