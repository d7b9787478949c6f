//! The window of remembered idempotency keys.

use crate::command::{Actor, OpResult};
use crate::hash::hash_of;
use imbl::OrdMap;
use std::sync::Arc;
use warren_types::{Revision, limits};

/// Tag of window entries in the state hash; object kinds use small numbers.
const HASH_TAG: u64 = 0x1000;

/// What a key was answered with.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Remembered {
    pub(crate) revision: Revision,
    pub(crate) results: Vec<OpResult>,
}

/// The newest keys with their answers.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Window {
    by_key: OrdMap<Arc<str>, Arc<Remembered>>,
    /// Each command makes its own revision, so that this is the order of age.
    by_age: OrdMap<u64, Arc<str>>,
    sum: u64,
}

/// Keys of different actors are different keys.
pub(crate) fn scoped(actor: &Actor, key: &str) -> String {
    format!("{actor}/{key}")
}

impl Window {
    pub(crate) fn get(&self, scoped: &str) -> Option<&Arc<Remembered>> {
        self.by_key.get(scoped)
    }

    pub(crate) fn insert(&mut self, scoped: &str, remembered: Remembered) {
        let key: Arc<str> = Arc::from(scoped);
        let revision = remembered.revision.0;
        self.sum = self.sum.wrapping_add(entry_hash(&key, revision));
        self.by_age.insert(revision, Arc::clone(&key));
        self.by_key.insert(key, Arc::new(remembered));
        while self.by_age.len() > limits::IDEMPOTENCY_KEYS_KEPT {
            let Some((oldest, key)) = self.by_age.get_min().cloned() else {
                break;
            };
            self.by_age.remove(&oldest);
            self.by_key.remove(&key);
            self.sum = self.sum.wrapping_sub(entry_hash(&key, oldest));
        }
    }

    pub(crate) const fn sum(&self) -> u64 {
        self.sum
    }

    /// The sum computed anew, for the invariants.
    pub(crate) fn computed_sum(&self) -> u64 {
        self.entries().fold(0, |sum, (key, remembered)| {
            sum.wrapping_add(entry_hash(key, remembered.revision.0))
        })
    }

    /// Oldest first.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (&Arc<str>, &Arc<Remembered>)> {
        self.by_age
            .values()
            .filter_map(|key| self.by_key.get(key).map(|r| (key, r)))
    }

    pub(crate) fn len(&self) -> usize {
        self.by_age.len()
    }
}

fn entry_hash(key: &str, revision: u64) -> u64 {
    hash_of(HASH_TAG, &(key, revision))
}
