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
    /// Operations, possibly none. Each group is proposed as a command of its own.
    pub(crate) groups: Vec<Vec<Op>>,
    /// When to look again even if nothing changes.
    pub(crate) wake_at: Option<Timestamp>,
}

/// Runs one planner until it is dropped. The planner is told whether its last command was refused:
/// then it should ask for smaller ones, so that one object cannot block the rest.
pub(crate) async fn run(
    name: &'static str,
    actor: Actor,
    raft: RaftHandle,
    mut plan: impl FnMut(&ClusterState, Timestamp, bool) -> Wanted + Send,
) {
    let mut revisions = raft.changes();
    let mut retry = RETRY_MIN;
    let mut refused = false;
    loop {
        revisions.mark_unchanged();
        let state = raft.state();
        let now = edge::now();
        let wanted = plan(&state, now, refused);
        if wanted.groups.iter().all(Vec::is_empty) {
            (retry, refused) = (RETRY_MIN, false);
            let wake = wanted
                .wake_at
                .map_or(SWEEP, |at| at.since(now).to_std().min(SWEEP));
            tokio::select! {
                changed = revisions.changed() => if changed.is_err() { return },
                () = tokio::time::sleep_until(Instant::now() + wake) => {}
            }
            continue;
        }
        match propose(&raft, &actor, wanted.groups).await {
            Ok(()) => (retry, refused) = (RETRY_MIN, false),
            Err(problem) => {
                // Rejected because the state moved on: plan again on the newer one. Anything else
                // waits a little longer each time.
                tracing::debug!(planner = name, %problem, "plan not taken");
                refused = matches!(problem, ProposeError::Rejected(_));
                tokio::select! {
                    changed = revisions.changed() => if changed.is_err() { return },
                    () = tokio::time::sleep(retry) => {}
                }
                retry = (retry * 2).min(RETRY_MAX);
            }
        }
    }
}

/// A refused group does not keep the others from being proposed; the first refusal is returned.
async fn propose(
    raft: &RaftHandle,
    actor: &Actor,
    groups: Vec<Vec<Op>>,
) -> Result<(), ProposeError> {
    let mut refusal = Ok(());
    for mut ops in groups {
        while !ops.is_empty() {
            let rest = ops.split_off(ops.len().min(limits::OPS_PER_COMMAND_MAX));
            let command = Command::new(actor.clone(), edge::now(), ops);
            match raft.propose(&command).await {
                Ok(_) => ops = rest,
                Err(ProposeError::Rejected(rejection)) => {
                    refusal = refusal.and(Err(ProposeError::Rejected(rejection)));
                    break;
                }
                Err(other) => return Err(other),
            }
        }
    }
    refusal
}
