//! The loop that every planner runs in: snapshot → pure plan → one batched command → propose.
//!
//! It wakes on changes and deadlines, never by polling; a full sweep every [`SWEEP`] is the safety net.

use crate::edge;
use std::time::Duration;
use tokio::time::Instant;
use warren_raft::{ProposeError, RaftHandle};
use warren_state::{Actor, ClusterState, Command, Op};
use warren_types::{Timestamp, limits};

/// Time between two sweeps when nothing changes.
pub(crate) const SWEEP: Duration = Duration::from_secs(30);
/// Wait after a refused or failed proposal, doubled each time up to [`RETRY_MAX`].
const RETRY_MIN: Duration = Duration::from_millis(20);
/// Longest wait after a failed proposal.
const RETRY_MAX: Duration = Duration::from_secs(2);

/// What a planner wants.
pub(crate) struct Wanted {
    /// Operations, possibly none.
    pub(crate) ops: Vec<Op>,
    /// When to look again even if nothing changes.
    pub(crate) wake_at: Option<Timestamp>,
}

/// Runs one planner until it is dropped.
pub(crate) async fn run(
    name: &'static str,
    actor: Actor,
    raft: RaftHandle,
    mut plan: impl FnMut(&ClusterState, Timestamp) -> Wanted + Send,
) {
    let mut revisions = raft.changes();
    let mut retry = RETRY_MIN;
    loop {
        revisions.mark_unchanged();
        let state = raft.state();
        let now = edge::now();
        let wanted = plan(&state, now);
        if wanted.ops.is_empty() {
            retry = RETRY_MIN;
            let wake = wanted
                .wake_at
                .map_or(SWEEP, |at| at.since(now).to_std().min(SWEEP));
            tokio::select! {
                changed = revisions.changed() => if changed.is_err() { return },
                () = tokio::time::sleep_until(Instant::now() + wake) => {}
            }
            continue;
        }
        match propose(&raft, &actor, wanted.ops).await {
            Ok(()) => retry = RETRY_MIN,
            Err(problem) => {
                // Rejected because the state moved on: plan again on the newer one. Anything else
                // waits a little longer each time.
                tracing::debug!(planner = name, %problem, "plan not taken");
                tokio::select! {
                    changed = revisions.changed() => if changed.is_err() { return },
                    () = tokio::time::sleep(retry) => {}
                }
                retry = (retry * 2).min(RETRY_MAX);
            }
        }
    }
}

async fn propose(raft: &RaftHandle, actor: &Actor, mut ops: Vec<Op>) -> Result<(), ProposeError> {
    while !ops.is_empty() {
        let rest = ops.split_off(ops.len().min(limits::OPS_PER_COMMAND_MAX));
        raft.propose(&Command::new(actor.clone(), edge::now(), ops))
            .await?;
        ops = rest;
    }
    Ok(())
}
