//! Container statuses on their way into the state: merged, batched, tried until taken.
//!
//! While one batch is being written the next one gathers, so the batch grows with the load and an
//! idle cluster pays no delay (PE-06).

use crate::edge;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::mpsc;
use warren_raft::{ProposeError, RaftHandle};
use warren_state::{Actor, Command, Op};
use warren_types::{ContainerId, ContainerStatus, NodeId};

/// Reports of nodes that wait to be taken, in messages; a node waits when it is full.
const WAITING_MAX: usize = 1024;
/// Statuses in one command.
const BATCH_MAX: usize = 5000;
/// Wait before a batch is tried again, doubled each time up to [`RETRY_MAX`].
const RETRY_MIN: Duration = Duration::from_millis(20);
/// Longest wait before a batch is tried again.
const RETRY_MAX: Duration = Duration::from_secs(1);

/// One node's report.
pub(crate) type Report = (NodeId, Vec<(ContainerId, ContainerStatus)>);

/// Makes the queue and its reader; the reader is to be run inside the leader's scope.
pub(crate) fn queue() -> (mpsc::Sender<Report>, mpsc::Receiver<Report>) {
    mpsc::channel(WAITING_MAX)
}

/// Newest status of each container, by node.
#[derive(Default)]
struct Batch {
    nodes: BTreeMap<NodeId, BTreeMap<ContainerId, ContainerStatus>>,
    count: usize,
}

impl Batch {
    /// Of two reports on one container the later in its life wins; of equals, the newer.
    fn add(&mut self, (node, statuses): Report) {
        let known = self.nodes.entry(node).or_default();
        for (id, status) in statuses {
            match known.get(&id) {
                Some(old) if (old.attempt, old.state) > (status.attempt, status.state) => {}
                Some(_) => {
                    known.insert(id, status);
                }
                None => {
                    known.insert(id, status);
                    self.count += 1;
                }
            }
        }
    }

    fn ops(&self) -> Vec<Op> {
        let rows = self
            .nodes
            .iter()
            .filter(|(_, statuses)| !statuses.is_empty());
        rows.map(|(node, statuses)| Op::ContainerStatusBatch {
            node: *node,
            statuses: statuses.iter().map(|(id, s)| (*id, s.clone())).collect(),
        })
        .collect()
    }
}

/// Takes reports off the queue until it is closed.
pub(crate) async fn run(raft: RaftHandle, mut reports: mpsc::Receiver<Report>) {
    while let Some(first) = reports.recv().await {
        let mut batch = Batch::default();
        batch.add(first);
        while batch.count < BATCH_MAX {
            match reports.try_recv() {
                Ok(report) => batch.add(report),
                Err(_) => break,
            }
        }
        write(&raft, &batch).await;
    }
}

async fn write(raft: &RaftHandle, batch: &Batch) {
    let mut wait = RETRY_MIN;
    loop {
        let ops = batch.ops();
        if ops.is_empty() {
            return;
        }
        match raft
            .propose(&Command::new(Actor::System, edge::now(), ops))
            .await
        {
            Ok(_) => return,
            Err(ProposeError::Rejected(rejection)) => {
                // A batch says which of its statuses it did not take; a rejection of the whole
                // means that the node itself is gone.
                tracing::warn!(%rejection, "statuses refused");
                return;
            }
            Err(problem) => {
                tracing::warn!(%problem, "statuses not written yet");
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(RETRY_MAX);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use warren_types::ActualState;

    fn status(attempt: u32, state: ActualState) -> ContainerStatus {
        ContainerStatus {
            attempt,
            state,
            ..ContainerStatus::default()
        }
    }

    #[test]
    fn the_later_status_of_a_container_wins() {
        let node = NodeId::from_u128(1);
        let id = ContainerId::from_u128(2);
        let mut batch = Batch::default();
        batch.add((node, vec![(id, status(1, ActualState::Running))]));
        batch.add((node, vec![(id, status(1, ActualState::Starting))]));
        assert_eq!(batch.nodes[&node][&id].state, ActualState::Running);
        batch.add((node, vec![(id, status(2, ActualState::Starting))]));
        assert_eq!(batch.nodes[&node][&id].attempt, 2);
        assert_eq!(batch.count, 1);
        assert_eq!(batch.ops().len(), 1);
    }
}
