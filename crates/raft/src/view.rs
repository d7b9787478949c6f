//! What readers see: the newest state, in O(1), and the change feed.

use crate::types::LogId;
use arc_swap::ArcSwap;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;
use warren_state::{ChangeSet, ClusterState, Feed, Lagged};
use warren_types::Revision;

/// The published state. Readers never wait for each other or for the engine.
pub(crate) struct View {
    state: ArcSwap<ClusterState>,
    feed: Mutex<Feed>,
    revision: watch::Sender<Revision>,
    applied_term: AtomicU64,
    /// Index of the last applied entry plus one; 0 for none.
    applied_next: crate::fair::Sender<u64>,
    failure: Mutex<Option<String>>,
}

impl View {
    pub(crate) fn new(state: ClusterState, applied: Option<LogId>) -> Self {
        let revision = state.revision();
        let view = Self {
            state: ArcSwap::from_pointee(state),
            feed: Mutex::new(Feed::new(revision)),
            revision: watch::Sender::new(revision),
            applied_term: AtomicU64::new(0),
            applied_next: crate::fair::Sender::new(0),
            failure: Mutex::new(None),
        };
        view.set_applied(applied);
        view
    }

    fn feed(&self) -> MutexGuard<'_, Feed> {
        self.feed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_applied(&self, applied: Option<LogId>) {
        if let Some(applied) = applied {
            self.applied_term
                .store(applied.leader_id.term, Ordering::Release);
            self.applied_next.send_replace(applied.index + 1);
        }
    }

    /// Publishes what a batch of entries made of the state.
    pub(crate) fn publish(
        &self,
        state: &ClusterState,
        sets: Vec<Arc<ChangeSet>>,
        applied: Option<LogId>,
    ) {
        let changed = !sets.is_empty();
        if changed {
            // The feed first: whoever reads the new state must find the feed at least as far.
            let mut feed = self.feed();
            for set in sets {
                feed.publish(set);
            }
            drop(feed);
            self.state.store(Arc::new(state.clone()));
        }
        self.set_applied(applied);
        if changed {
            self.revision.send_replace(state.revision());
        }
    }

    /// Replaces the state as a whole: all subscribers start again.
    pub(crate) fn replace(&self, state: &ClusterState, applied: Option<LogId>) {
        self.feed().reset(state.revision());
        self.state.store(Arc::new(state.clone()));
        self.set_applied(applied);
        self.revision.send_replace(state.revision());
    }

    pub(crate) fn state(&self) -> Arc<ClusterState> {
        self.state.load_full()
    }

    pub(crate) fn changes(&self) -> watch::Receiver<Revision> {
        self.revision.subscribe()
    }

    pub(crate) fn since(&self, revision: Revision) -> Result<Vec<Arc<ChangeSet>>, Lagged> {
        self.feed().since(revision)
    }

    /// Term of the last applied entry.
    pub(crate) fn applied_term(&self) -> u64 {
        self.applied_term.load(Ordering::Acquire)
    }

    /// Index of the last applied entry.
    pub(crate) fn applied_index(&self) -> Option<u64> {
        self.applied_next.borrow().checked_sub(1)
    }

    /// Index of the last applied entry plus one, as it grows.
    pub(crate) fn applied(&self) -> crate::fair::Receiver<u64> {
        self.applied_next.subscribe()
    }

    /// Notes why the engine stops; the first reason counts.
    pub(crate) fn fail(&self, reason: &str) {
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        failure.get_or_insert_with(|| reason.to_owned());
    }

    pub(crate) fn failure(&self) -> Option<String> {
        self.failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// A snapshot of the state, and then every change after it, without gap or overlap.
pub struct Subscription {
    view: Arc<View>,
    snapshot: Arc<ClusterState>,
    seen: Revision,
    waiting: VecDeque<Arc<ChangeSet>>,
    wake: watch::Receiver<Revision>,
}

impl std::fmt::Debug for Subscription {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Subscription(at {})", self.seen)
    }
}

impl Subscription {
    pub(crate) fn new(view: &Arc<View>) -> Self {
        let wake = view.changes();
        let snapshot = view.state();
        Self {
            view: Arc::clone(view),
            seen: snapshot.revision(),
            snapshot,
            waiting: VecDeque::new(),
            wake,
        }
    }

    /// The state that the changes follow on.
    #[must_use]
    pub fn snapshot(&self) -> &Arc<ClusterState> {
        &self.snapshot
    }

    /// Begins after an older revision instead (a client that comes back).
    #[must_use]
    pub fn from_revision(mut self, revision: Revision) -> Self {
        self.seen = revision;
        self
    }

    /// The next change set; waits for it. After [`Lagged`] a new subscription has to be made. `None` when the engine
    /// is gone. May be dropped at any await without losing a change.
    pub async fn next(&mut self) -> Option<Result<Arc<ChangeSet>, Lagged>> {
        loop {
            if let Some(set) = self.waiting.pop_front() {
                self.seen = set.revision;
                return Some(Ok(set));
            }
            self.wake.mark_unchanged();
            match self.view.since(self.seen) {
                Ok(sets) if sets.is_empty() => {}
                Ok(sets) => {
                    self.waiting.extend(sets);
                    continue;
                }
                Err(lagged) => return Some(Err(lagged)),
            }
            if self.view.failure().is_some() || self.wake.changed().await.is_err() {
                return None;
            }
        }
    }
}
