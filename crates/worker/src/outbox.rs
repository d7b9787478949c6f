//! Statuses on their way to a manager: the newest of each container, kept until a session takes them,
//! and all of them again when a new session opens.

use crate::sets::id_bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use tokio::sync::Notify;
use warren_proto::{session, store};
use warren_types::{ContainerId, ContainerStatus};

/// Statuses in one message.
const BATCH_MAX: usize = 1000;

/// The outbox.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    inner: Mutex<Inner>,
    filled: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    newest: BTreeMap<ContainerId, ContainerStatus>,
    unsent: BTreeSet<ContainerId>,
}

impl Outbox {
    /// Notes a status; an equal one is not sent again.
    pub(crate) fn put(&self, id: ContainerId, status: ContainerStatus) {
        let mut inner = self.lock();
        if inner.newest.get(&id) == Some(&status) {
            return;
        }
        inner.newest.insert(id, status);
        inner.unsent.insert(id);
        drop(inner);
        self.filled.notify_one();
    }

    /// The container is gone from this node.
    pub(crate) fn forget(&self, id: ContainerId) {
        let mut inner = self.lock();
        inner.newest.remove(&id);
        inner.unsent.remove(&id);
    }

    /// The newest status of a container.
    pub(crate) fn newest(&self, id: ContainerId) -> Option<ContainerStatus> {
        self.lock().newest.get(&id).cloned()
    }

    /// A new session knows nothing: everything is to be sent.
    pub(crate) fn all_again(&self) {
        let mut inner = self.lock();
        inner.unsent = inner.newest.keys().copied().collect();
        drop(inner);
        self.filled.notify_one();
    }

    /// Takes what is to be sent, waiting for something if need be.
    pub(crate) async fn next(&self) -> session::StatusBatch {
        loop {
            let filled = self.filled.notified();
            let batch = self.take();
            if !batch.statuses.is_empty() {
                return batch;
            }
            filled.await;
        }
    }

    fn take(&self) -> session::StatusBatch {
        let mut inner = self.lock();
        let ids: Vec<ContainerId> = inner.unsent.iter().take(BATCH_MAX).copied().collect();
        let mut statuses = Vec::with_capacity(ids.len());
        for id in ids {
            inner.unsent.remove(&id);
            if let Some(status) = inner.newest.get(&id) {
                statuses.push(session::StatusReport {
                    container_id: id_bytes(id.0),
                    status: Some(store::ContainerStatus::from(status)),
                });
            }
        }
        session::StatusBatch { statuses }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use warren_types::ActualState;

    #[tokio::test]
    async fn the_newest_is_sent_once_and_all_again_to_a_new_session() {
        let outbox = Outbox::default();
        let id = ContainerId::from_u128(1);
        let running = ContainerStatus {
            state: ActualState::Running,
            attempt: 1,
            ..ContainerStatus::default()
        };
        outbox.put(
            id,
            ContainerStatus {
                state: ActualState::Starting,
                ..running.clone()
            },
        );
        outbox.put(id, running.clone());
        assert_eq!(outbox.next().await.statuses.len(), 1);
        outbox.put(id, running);
        assert!(outbox.take().statuses.is_empty(), "nothing new");
        outbox.all_again();
        assert_eq!(outbox.next().await.statuses.len(), 1);
        outbox.forget(id);
        outbox.all_again();
        assert!(outbox.take().statuses.is_empty());
    }
}
