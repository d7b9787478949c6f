//! The window of remembered idempotency keys.

use crate::command::{Actor, OpResult};
use crate::hash::hash_of;
use std::sync::Arc;
use warren_types::{Revision, limits};

/// Tag of window entries in the state hash; object kinds use small numbers.
const HASH_TAG: u64 = 0x1000;
/// Entries of a part of the window. Only the newest part changes; it is copied when a reader holds it, once for all commands
/// that are applied together.
const PART: usize = 256;
/// Fingerprints that are looked at together.
const LANES: usize = 32;

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

impl Entry {
    /// Each command makes its own revision, so that no two entries of a window have one.
    fn hash(&self) -> u64 {
        hash_of(HASH_TAG, &(&*self.key, self.remembered.revision.0))
    }
}

/// Entries that came one after another, and a fingerprint of each key, in the same order.
#[derive(Debug, Clone, Default)]
struct Part {
    fingerprints: Vec<u32>,
    entries: Vec<Arc<Entry>>,
}

impl Part {
    fn push(&mut self, key: &str, entry: Entry) {
        self.fingerprints.push(fingerprint(key));
        self.entries.push(Arc::new(entry));
    }

    /// The entry with this key, unless it is one of the first `gone`.
    ///
    /// Keys come in no order, so that a tree of them is copied in another place for nearly each. So a few numbers in a row are
    /// looked through instead.
    fn get(&self, fingerprint: u32, key: &str, gone: usize) -> Option<&Arc<Entry>> {
        for (block, lanes) in self.fingerprints.chunks(LANES).enumerate() {
            // Without a branch for each, so that the compiler compares several at once.
            let hits = lanes
                .iter()
                .fold(0_u32, |hits, lane| hits + u32::from(*lane == fingerprint));
            if hits == 0 {
                continue;
            }
            let begin = block * LANES;
            let found = (begin..begin + lanes.len())
                .filter(|at| *at >= gone)
                .filter_map(|at| self.entries.get(at))
                .find(|entry| *entry.key == *key);
            if found.is_some() {
                return found;
            }
        }
        None
    }
}

/// The newest keys with their answers.
#[derive(Debug, Clone, Default)]
pub(crate) struct Window {
    /// Oldest first; all but the last are full.
    parts: Arc<Vec<Arc<Part>>>,
    /// So many at the beginning of the oldest part are forgotten.
    gone: usize,
    len: usize,
    sum: u64,
}

/// However the entries are parted.
impl PartialEq for Window {
    fn eq(&self, other: &Self) -> bool {
        self.sum == other.sum && self.len == other.len && self.all().eq(other.all())
    }
}

/// Keys of different actors are different keys.
pub(crate) fn scoped(actor: &Actor, key: &str) -> String {
    format!("{actor}/{key}")
}

impl Window {
    pub(crate) fn get(&self, scoped: &str) -> Option<&Remembered> {
        let fingerprint = fingerprint(scoped);
        let gone = std::iter::once(self.gone).chain(std::iter::repeat(0));
        self.parts
            .iter()
            .zip(gone)
            .find_map(|(part, gone)| part.get(fingerprint, scoped, gone))
            .map(|entry| &entry.remembered)
    }

    /// Remembers an answer to a key that is not known yet.
    pub(crate) fn insert(&mut self, scoped: &str, remembered: Remembered) {
        let key = Box::from(scoped);
        let entry = Entry { key, remembered };
        self.sum = self.sum.wrapping_add(entry.hash());
        self.len += 1;
        let parts = Arc::make_mut(&mut self.parts);
        match parts.last_mut().filter(|part| part.entries.len() < PART) {
            Some(part) => Arc::make_mut(part).push(scoped, entry),
            None => {
                let mut part = Part::default();
                part.push(scoped, entry);
                parts.push(Arc::new(part));
            }
        }
        if self.len > limits::IDEMPOTENCY_KEYS_KEPT {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        let oldest = self
            .parts
            .first()
            .and_then(|part| part.entries.get(self.gone));
        let Some(hash) = oldest.map(|entry| entry.hash()) else {
            return;
        };
        self.sum = self.sum.wrapping_sub(hash);
        self.len -= 1;
        self.gone += 1;
        if self.gone == PART {
            Arc::make_mut(&mut self.parts).remove(0);
            self.gone = 0;
        }
    }

    pub(crate) const fn sum(&self) -> u64 {
        self.sum
    }

    /// Is every key found, and is the sum theirs? For the invariants.
    pub(crate) fn is_sound(&self) -> bool {
        let sum = self
            .all()
            .fold(0_u64, |sum, entry| sum.wrapping_add(entry.hash()));
        let found = |entry: &Entry| self.get(&entry.key) == Some(&entry.remembered);
        sum == self.sum && self.all().count() == self.len && self.all().all(|entry| found(entry))
    }

    fn all(&self) -> impl Iterator<Item = &Arc<Entry>> {
        let entries = self.parts.iter().flat_map(|part| &part.entries);
        entries.skip(self.gone)
    }

    /// Oldest first.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (&str, &Remembered)> {
        self.all().map(|entry| (&*entry.key, &entry.remembered))
    }

    pub(crate) const fn len(&self) -> usize {
        self.len
    }
}

/// A part of the key's hash; several keys may have the same.
#[expect(
    clippy::cast_possible_truncation,
    reason = "the lower half is as good as the whole to tell most keys apart"
)]
fn fingerprint(key: &str) -> u32 {
    hash_of(HASH_TAG, key) as u32
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
        let mut readers = Vec::new();
        // Beyond the first part that is dropped as a whole.
        let last = kept + PART as u64 + 10;
        for revision in 1..=last {
            window.insert(&format!("key-{revision}"), remembered(revision));
            if revision % 1_000 == 0 {
                readers.push((revision, window.clone()));
            }
        }
        assert!(window.is_sound());
        assert_eq!(window.len() as u64, kept);
        for revision in 1..=last {
            let found = window.get(&format!("key-{revision}")).map(|r| r.revision.0);
            assert_eq!(found, (revision > last - kept).then_some(revision));
        }
        // Whoever holds an older one sees that one.
        for (revision, reader) in readers {
            assert!(reader.is_sound());
            let newest = reader.entries().last().map(|(_, r)| r.revision.0);
            assert_eq!(newest, Some(revision));
        }
    }

    /// A window that was read from a snapshot is parted in another way, and is the same, also later.
    #[test]
    fn equal_windows_stay_equal_however_they_are_parted() {
        let mut one = Window::default();
        let last = limits::IDEMPOTENCY_KEYS_KEPT as u64 + 100;
        for revision in 1..=last {
            one.insert(&format!("key-{revision}"), remembered(revision));
        }
        let mut other = Window::default();
        for (key, remembered) in one.entries() {
            other.insert(key, remembered.clone());
        }
        assert_ne!((one.gone, other.gone), (0, 100));
        for revision in last + 1..last + 1_000 {
            assert_eq!(one, other);
            one.insert(&format!("key-{revision}"), remembered(revision));
            assert_ne!(one, other);
            other.insert(&format!("key-{revision}"), remembered(revision));
        }
        assert_eq!(one, other);
        assert!(other.is_sound());
    }

    /// Two keys whose hashes are the same are two keys all the same.
    #[test]
    fn keys_with_the_same_hash_are_told_apart() {
        let mut window = Window::default();
        window.insert("one", remembered(1));
        // As if "one" had the hash of "two".
        let part = Arc::make_mut(&mut Arc::make_mut(&mut window.parts)[0]);
        part.fingerprints[0] = fingerprint("two");
        assert_eq!(window.get("two"), None);
        window.insert("two", remembered(2));
        assert_eq!(window.get("two").map(|r| r.revision.0), Some(2));
        assert!(!window.is_sound());
    }
}
