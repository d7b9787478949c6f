//! Do all managers hold the same? The hash of the state per applied entry travels with every message of the leader.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How many entries back hashes are kept.
const KEPT: usize = 4_096;

/// Two managers applied the same log and hold different things.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the state of this manager differs from the leader's after log entry {index} (a defect, or bad memory): it stops, so that nothing wrong is served; remove it from the cluster (`warren node remove`), reset it (`warren node reset`) and let it join again"
)]
pub(crate) struct Diverged {
    /// The entry.
    pub(crate) index: u64,
}

#[derive(Debug, Default)]
struct Inner {
    /// Index of the first hash kept.
    first: u64,
    kept: VecDeque<u64>,
    /// What the leader had after an entry that is not yet applied here.
    awaited: Option<(u64, u64)>,
}

/// The hashes of the state after the last entries.
#[derive(Debug, Default)]
pub(crate) struct Hashes(Mutex<Inner>);

impl Hashes {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins anew: the state was replaced.
    pub(crate) fn reset(&self, index: u64, hash: u64) -> Result<(), Diverged> {
        let mut inner = self.inner();
        inner.first = index;
        inner.kept.clear();
        inner.kept.push_back(hash);
        inner.meet(index, hash)
    }

    /// Entry `index`, the one after the last, was applied.
    pub(crate) fn applied(&self, index: u64, hash: u64) -> Result<(), Diverged> {
        let mut inner = self.inner();
        if inner.first + inner.kept.len() as u64 != index {
            inner.kept.clear();
            inner.first = index;
        }
        inner.kept.push_back(hash);
        if inner.kept.len() > KEPT {
            inner.kept.pop_front();
            inner.first += 1;
        }
        inner.meet(index, hash)
    }

    /// The last entry applied here, and the hash after it.
    pub(crate) fn latest(&self) -> Option<(u64, u64)> {
        let inner = self.inner();
        let last = inner.kept.back()?;
        Some((inner.first + inner.kept.len() as u64 - 1, *last))
    }

    /// Compares with what the leader had after an entry; later, if it is not yet applied here.
    pub(crate) fn compare(&self, index: u64, hash: u64) -> Result<(), Diverged> {
        let mut inner = self.inner();
        let next = inner.first + inner.kept.len() as u64;
        if index >= next {
            inner.awaited = Some((index, hash));
            return Ok(());
        }
        let at = index.checked_sub(inner.first);
        let mine = at.and_then(|at| inner.kept.get(usize::try_from(at).unwrap_or(usize::MAX)));
        match mine {
            Some(mine) if *mine != hash => Err(Diverged { index }),
            _ => Ok(()),
        }
    }
}

impl Inner {
    fn meet(&mut self, index: u64, hash: u64) -> Result<(), Diverged> {
        let Some((awaited, theirs)) = self.awaited.filter(|(awaited, _)| *awaited <= index) else {
            return Ok(());
        };
        self.awaited = None;
        if awaited == index && theirs != hash {
            Err(Diverged { index })
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_compared_now_or_later() {
        let hashes = Hashes::default();
        assert_eq!(hashes.latest(), None);
        hashes.compare(5, 50).unwrap();
        hashes.applied(4, 40).unwrap();
        assert_eq!(hashes.applied(5, 51), Err(Diverged { index: 5 }));
        assert_eq!(hashes.latest(), Some((5, 51)));
        hashes.compare(4, 40).unwrap();
        assert_eq!(hashes.compare(4, 41), Err(Diverged { index: 4 }));
        for index in 6..10_000 {
            hashes.applied(index, index).unwrap();
        }
        hashes.compare(4, 41).expect("forgotten");
        assert_eq!(hashes.compare(9_000, 1), Err(Diverged { index: 9_000 }));
        hashes.compare(20_000, 1).unwrap();
        hashes.reset(30_000, 7).unwrap();
        hashes.compare(29_999, 1).expect("not known");
        assert_eq!(hashes.compare(30_000, 8), Err(Diverged { index: 30_000 }));
    }
}
