//! Which nodes are down: silent for longer than the cluster's setting.

use super::Dispatcher;
use crate::edge;
use std::time::Duration;
use tokio::time::Instant;
use warren_state::{Actor, Command, Op};
use warren_types::{Liveness, Node};

/// Time between two looks when no node is near its limit.
const LOOK_MAX: Duration = Duration::from_secs(30);
/// Shortest time between two looks.
const LOOK_MIN: Duration = Duration::from_millis(100);
/// Silence that makes a node down while the cluster has no settings yet.
const DOWN_AFTER_DEFAULT: Duration = Duration::from_secs(10);

/// Marks silent nodes as down until it is dropped.
pub(super) async fn run(dispatcher: Dispatcher) {
    loop {
        let state = dispatcher.shared.raft.state();
        let limit = state
            .settings()
            .map_or(DOWN_AFTER_DEFAULT, |s| s.node_down_after.to_std());
        let now = Instant::now();
        let mut next = LOOK_MAX;
        let mut ops = Vec::new();
        for node in state.nodes().filter(|n| may_fall_silent(n)) {
            let silent = now.saturating_duration_since(dispatcher.last_heard(node.id));
            if silent >= limit {
                ops.push(down(node, silent));
            } else {
                next = next.min(limit - silent);
            }
        }
        if !ops.is_empty() {
            let command = Command::new(Actor::System, edge::now(), ops);
            if let Err(problem) = dispatcher.shared.raft.propose(&command).await {
                tracing::warn!(%problem, "node not marked down yet");
            }
        }
        tokio::time::sleep(next.max(LOOK_MIN)).await;
    }
}

fn may_fall_silent(node: &Node) -> bool {
    node.role.runs_containers() && node.liveness != Liveness::Down
}

fn down(node: &Node, silent: Duration) -> Op {
    Op::NodeSetLiveness {
        id: node.id,
        expect: Some(node.version),
        liveness: Liveness::Down,
        reason: format!("not heard for {} s", silent.as_secs()),
    }
}
