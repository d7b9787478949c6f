//! The window of remembered idempotency keys.

use crate::command::{Actor, OpResult};
use crate::hash::hash_of;
use imbl::{OrdMap, OrdSet};
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

#[derive(Debug, PartialEq)]
struct Entry {
    key: Box<str>,
    remembered: Remembered,
}

/// The newest keys with their answers.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Window {
    /// Each command makes its own revision, so that this is the order of age.
    by_age: OrdMap<u64, Arc<Entry>>,
    /// Hash of a key, and its revision. Keys come in no order, so that nearly each is in a part of the tree of its own, which
    /// is copied when it changes: plain numbers are copied fast, shared texts are not. Keys with the same hash stand side by side.
    by_hash: OrdSet<(u64, u64)>,
    sum: u64,
}

/// Keys of different actors are different keys.
pub(crate) fn scoped(actor: &Actor, key: &str) -> String {
    format!("{actor}/{key}")
}

impl Window {
    pub(crate) fn get(&self, scoped: &str) -> Option<&Remembered> {
        let place = place(scoped);
        let mut from = (place, 0);
        while let Some((hash, revision)) = self.by_hash.get_next(&from).copied() {
            if hash != place {
                break;
            }
            let entry = self.by_age.get(&revision)?;
            if *entry.key == *scoped {
                return Some(&entry.remembered);
            }
            from = (place, revision + 1);
        }
        None
    }

    /// Remembers an answer to a key that is not known yet.
    pub(crate) fn insert(&mut self, scoped: &str, remembered: Remembered) {
        let revision = remembered.revision.0;
        self.sum = self.sum.wrapping_add(entry_hash(scoped, revision));
        self.by_hash.insert((place(scoped), revision));
        let key = Box::from(scoped);
        self.by_age
            .insert(revision, Arc::new(Entry { key, remembered }));
        while self.by_age.len() > limits::IDEMPOTENCY_KEYS_KEPT {
            let Some((oldest, entry)) = self.by_age.get_min().cloned() else {
                break;
            };
            self.by_age.remove(&oldest);
            self.by_hash.remove(&(place(&entry.key), oldest));
            self.sum = self.sum.wrapping_sub(entry_hash(&entry.key, oldest));
        }
    }

    pub(crate) const fn sum(&self) -> u64 {
        self.sum
    }

    /// Is every key found, and is the sum theirs? For the invariants.
    pub(crate) fn is_sound(&self) -> bool {
        let sum = self.by_age.iter().fold(0_u64, |sum, (revision, entry)| {
            sum.wrapping_add(entry_hash(&entry.key, *revision))
        });
        sum == self.sum
            && self.by_hash.len() == self.by_age.len()
            && self
                .by_age
                .iter()
                .all(|(revision, entry)| self.by_hash.contains(&(place(&entry.key), *revision)))
    }

    /// Oldest first.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (&str, &Remembered)> {
        self.by_age
            .values()
            .map(|entry| (&*entry.key, &entry.remembered))
    }

    pub(crate) fn len(&self) -> usize {
        self.by_age.len()
    }
}

/// Where a key stands among the others.
fn place(key: &str) -> u64 {
    hash_of(HASH_TAG, key)
}

fn entry_hash(key: &str, revision: u64) -> u64 {
    hash_of(HASH_TAG, &(key, revision))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remembered(revision: u64) -> Remembered {
        Remembered {
            revision: Revision(revision),
            results: Vec::new(),
        }
    }

    #[test]
    fn the_newest_keys_are_known_and_no_others() {
        let kept = limits::IDEMPOTENCY_KEYS_KEPT as u64;
        let mut window = Window::default();
        for revision in 1..=kept + 10 {
            window.insert(&format!("key-{revision}"), remembered(revision));
        }
        assert!(window.is_sound());
        assert_eq!(window.len() as u64, kept);
        for revision in 1..=kept + 10 {
            let found = window.get(&format!("key-{revision}")).map(|r| r.revision.0);
            assert_eq!(found, (revision > 10).then_some(revision));
        }
    }

    /// Two keys whose hashes are the same are two keys all the same.
    #[test]
    fn keys_with_the_same_hash_are_told_apart() {
        let mut window = Window::default();
        window.insert("one", remembered(1));
        // As if "one" had the hash of "two".
        window.by_hash.insert((place("two"), 1));
        assert_eq!(window.get("two"), None);
        window.insert("two", remembered(2));
        assert_eq!(window.get("two").map(|r| r.revision.0), Some(2));
        assert!(!window.is_sound());
    }
}
