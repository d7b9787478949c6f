//! A leader without a vote gives its office away.
//!
//! Whoever has not heard yet that its removal is committed may stand for election (openraft 0.10
//! `raft_core.rs: handle_tick_election`), and the others may have to vote for it, because it has more of the log than
//! some of them. openraft lets such a leader go only when the removal is committed in its own time of office, and not at all
//! when it stays as a learner. It would lead for ever, and a leader without a vote changes no members.

use crate::handle::{Engine, Figures};
use crate::lease::give_away;
use crate::pulse::Pulse;
use openraft::ServerState;
use openraft::async_runtime::watch::WatchReceiver;
use std::sync::Arc;
use warren_types::NodeId;

/// The voter to hand over to, when this node leads without a vote: the one with most of the log.
fn heir(metrics: &Figures, id: NodeId) -> Option<NodeId> {
    let leads = metrics.running_state.is_ok() && metrics.state == ServerState::Leader;
    let voters = || metrics.membership_config.membership().voter_ids();
    if !leads || voters().any(|voter| voter == id) {
        return None;
    }
    let replication = metrics.replication.as_ref()?;
    voters().max_by_key(|voter| replication.get(voter).copied().flatten())
}

/// Hands over, again after each election time, until this node does not lead any more.
pub(crate) async fn step_aside(engine: Engine, pulse: Arc<Pulse>, id: NodeId) {
    let pause = pulse.profile.election_max();
    loop {
        let heir = heir(&engine.metrics().borrow_watched(), id);
        let Some(to) = heir else { return };
        tracing::info!(%to, "leading without a vote: handing over");
        if give_away(&engine, &pulse, to).await.is_err() {
            return;
        }
        tokio::time::sleep(pause).await;
    }
}
