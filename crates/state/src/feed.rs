//! The change feed: a bounded ring of change sets without gap or overlap.

use crate::change::ChangeSet;
use std::collections::VecDeque;
use std::sync::Arc;
use warren_types::Revision;

/// Change sets kept at most.
pub const FEED_SETS_MAX: usize = 4096;
/// Changed objects kept at most, over all sets; the newest set stays however large it is.
pub const FEED_CHANGES_MAX: usize = 100_000;

/// The subscriber is too far behind (or ahead, after a restore): it starts again from a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "changes after revision {asked} are no longer kept (oldest: {oldest}); start again from a snapshot"
)]
pub struct Lagged {
    /// Revision that was asked for.
    pub asked: Revision,
    /// Oldest revision that can be asked for.
    pub oldest: Revision,
}

/// Ring of the newest change sets. Synchronous; the owner wakes subscribers itself.
///
/// A subscriber takes a snapshot of the state at revision r, then asks `since(r)` again and again
/// with the revision of the last set it got: it sees each change exactly once, in order.
#[derive(Debug, Clone)]
pub struct Feed {
    /// Revision before the oldest kept set.
    start: Revision,
    sets: VecDeque<Arc<ChangeSet>>,
    changes: usize,
    sets_max: usize,
    changes_max: usize,
}

impl Feed {
    /// A feed that begins after `revision` (that of the state at hand), with the usual limits.
    #[must_use]
    pub fn new(revision: Revision) -> Self {
        Self::with_limits(revision, FEED_SETS_MAX, FEED_CHANGES_MAX)
    }

    /// A feed with other limits; at least one set is always kept.
    #[must_use]
    pub fn with_limits(revision: Revision, sets_max: usize, changes_max: usize) -> Self {
        Self {
            start: revision,
            sets: VecDeque::new(),
            changes: 0,
            sets_max: sets_max.max(1),
            changes_max,
        }
    }

    /// Revision of the newest set (or where the feed began).
    #[must_use]
    pub fn latest(&self) -> Revision {
        self.sets.back().map_or(self.start, |s| s.revision)
    }

    /// Adds the next set. A set that does not follow the newest one (the state was replaced by a
    /// snapshot) makes the feed begin anew with it, so that subscribers are told to start again.
    pub fn publish(&mut self, set: Arc<ChangeSet>) {
        if set.revision != self.latest().next() {
            self.reset(Revision(set.revision.0.saturating_sub(1)));
        }
        self.changes += set.changes.len();
        self.sets.push_back(set);
        while self.sets.len() > self.sets_max
            || (self.changes > self.changes_max && self.sets.len() > 1)
        {
            let Some(old) = self.sets.pop_front() else {
                break;
            };
            self.changes -= old.changes.len();
            self.start = old.revision;
        }
    }

    /// Forgets everything and begins after `revision`: the state was replaced by a snapshot.
    pub fn reset(&mut self, revision: Revision) {
        self.start = revision;
        self.sets.clear();
        self.changes = 0;
    }

    /// Every set after `revision`, oldest first; empty when there is nothing new.
    ///
    /// # Errors
    /// [`Lagged`] when some of them are no longer kept, or when `revision` lies in the future.
    pub fn since(&self, revision: Revision) -> Result<Vec<Arc<ChangeSet>>, Lagged> {
        if revision < self.start || revision > self.latest() {
            return Err(Lagged {
                asked: revision,
                oldest: self.start,
            });
        }
        // Sets are consecutive, so the position is a subtraction.
        let skip = usize::try_from(revision.0 - self.start.0).unwrap_or(usize::MAX);
        Ok(self.sets.iter().skip(skip).cloned().collect())
    }
}
