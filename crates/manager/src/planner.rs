//! The loop that every planner runs in: changes → what to look at → pure plan → one batched command → propose.
//!
//! It wakes on changes and deadlines, never by polling, and looks only at what they concern; a sweep over everything each
//! [`SWEEP`] is the safety net. No turn takes longer than a few milliseconds, so that heartbeats and calls go on in between.

use crate::edge;
use std::time::Duration;
use tokio::time::Instant;
use warren_raft::{ProposeError, RaftHandle};
use warren_state::{Actor, ChangeSet, ClusterState, Command, Op};
use warren_types::{Revision, Timestamp, limits};

/// Time between two sweeps when nothing changes.
pub(crate) const SWEEP: Duration = Duration::from_secs(30);
/// Wait after a refused or failed proposal, doubled each time up to [`RETRY_MAX`].
const RETRY_MIN: Duration = Duration::from_millis(20);
/// Longest wait after a failed proposal.
const RETRY_MAX: Duration = Duration::from_secs(2);

/// What a planner wants of one turn.
pub(crate) struct Wanted {
    /// Operations, possibly none. Each group is proposed as a command of its own.
    pub(crate) groups: Vec<Vec<Op>>,
    /// There is more to look at now.
    pub(crate) more: bool,
    /// When to look again even if nothing changes.
    pub(crate) wake_at: Option<Timestamp>,
}

/// Decides what to look at and what to do about it; holds nothing that is not in the state as well.
pub(crate) trait Planner: Send {
    /// Look at everything: at the beginning, when changes were missed, and as the safety net.
    fn sweep(&mut self, state: &ClusterState);
    /// Something has changed; `state` is that after it, or a later one.
    fn note(&mut self, state: &ClusterState, set: &ChangeSet);
    /// Plans the next things to look at.
    fn turn(&mut self, state: &ClusterState, now: Timestamp) -> Wanted;
    /// What became of the last turn's commands. When they were refused, smaller ones should follow, so that one object
    /// cannot block the rest.
    fn outcome(&mut self, outcome: Outcome);
}

/// What became of a turn's commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// All were applied.
    Taken,
    /// The state refused some.
    Refused,
    /// Some did not get that far, or nobody knows.
    Failed,
}

/// Runs one planner until it is dropped.
pub(crate) async fn run(
    name: &'static str,
    actor: Actor,
    raft: RaftHandle,
    mut planner: impl Planner,
) {
    let mut revisions = raft.changes();
    let mut retry = RETRY_MIN;
    let mut seen = None;
    let mut sweep_at = Instant::now();
    loop {
        revisions.mark_unchanged();
        let state = raft.state();
        if Instant::now() >= sweep_at || !follow(&raft, &state, seen, &mut planner) {
            planner.sweep(&state);
            sweep_at = Instant::now() + SWEEP;
        }
        seen = Some(state.revision());
        let now = edge::now();
        let wanted = planner.turn(&state, now);
        if wanted.groups.iter().all(Vec::is_empty) {
            if wanted.more {
                tokio::task::yield_now().await;
                continue;
            }
            let wake = wanted
                .wake_at
                .map(|at| Instant::now() + at.since(now).to_std());
            let wake = wake.map_or(sweep_at, |at| at.min(sweep_at));
            tokio::select! {
                changed = revisions.changed() => if changed.is_err() { return },
                () = tokio::time::sleep_until(wake) => {}
            }
            continue;
        }
        match propose(&raft, &actor, wanted.groups).await {
            Ok(()) => {
                planner.outcome(Outcome::Taken);
                retry = RETRY_MIN;
            }
            Err(problem) => {
                // Rejected because the state moved on: plan again on the newer one. Anything else
                // waits a little longer each time.
                tracing::debug!(planner = name, %problem, "plan not taken");
                planner.outcome(match problem {
                    ProposeError::Rejected(_) => Outcome::Refused,
                    _ => Outcome::Failed,
                });
                tokio::select! {
                    changed = revisions.changed() => if changed.is_err() { return },
                    () = tokio::time::sleep(retry) => {}
                }
                retry = (retry * 2).min(RETRY_MAX);
            }
        }
    }
}

/// Tells the planner what has changed up to this state; false when that is not known any more. Changes after it (the feed
/// is ahead of the state that readers see) are told with the state that holds them.
fn follow(
    raft: &RaftHandle,
    state: &ClusterState,
    seen: Option<Revision>,
    planner: &mut impl Planner,
) -> bool {
    let Some(Ok(sets)) = seen.map(|seen| raft.changes_since(seen)) else {
        return false;
    };
    let up_to = state.revision();
    for set in sets.iter().take_while(|set| set.revision <= up_to) {
        planner.note(state, set);
    }
    true
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
