//! The record of removed nodes: a removed manager is told so instead of being taken for a stranger,
//! and its id is not given again while a certificate of it may be valid.

use crate::hash::hash_of;
use crate::table::Key;
use imbl::{OrdMap, OrdSet};
use warren_types::{NodeId, Timestamp, limits};

/// Tag of these entries in the state hash; object kinds use small numbers.
const HASH_TAG: u64 = 0x1001;

/// When which node was removed.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Removed {
    by_id: OrdMap<Key, Timestamp>,
    by_age: OrdSet<(u64, Key)>,
    sum: u64,
}

impl Removed {
    pub(crate) fn get(&self, id: NodeId) -> Option<Timestamp> {
        self.by_id.get(&Key::new(id.as_u128())).copied()
    }

    /// Notes a removal; over the limit the oldest is forgotten.
    pub(crate) fn insert(&mut self, id: NodeId, at: Timestamp) {
        let key = Key::new(id.as_u128());
        if let Some(before) = self.by_id.get(&key).copied() {
            self.forget(before.0, key);
        }
        self.by_id.insert(key, at);
        self.by_age.insert((at.0, key));
        self.sum = self.sum.wrapping_add(entry_hash(key, at.0));
        while self.len() > limits::REMOVED_NODES_MAX {
            let Some((at, key)) = self.by_age.get_min().copied() else {
                break;
            };
            self.forget(at, key);
        }
    }

    /// Forgets what is older than `REMOVED_NODE_MS_KEPT`. O(log n) when there is nothing.
    pub(crate) fn prune(&mut self, now: Timestamp) {
        let oldest = now.0.saturating_sub(limits::REMOVED_NODE_MS_KEPT);
        while let Some((at, key)) = self.by_age.get_min().copied()
            && at < oldest
        {
            self.forget(at, key);
        }
    }

    fn forget(&mut self, at: u64, key: Key) {
        self.by_id.remove(&key);
        self.by_age.remove(&(at, key));
        self.sum = self.sum.wrapping_sub(entry_hash(key, at));
    }

    /// By id.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (NodeId, Timestamp)> {
        self.by_id
            .iter()
            .map(|(key, at)| (NodeId::from_u128(key.id()), *at))
    }

    pub(crate) fn len(&self) -> usize {
        self.by_id.len()
    }

    pub(crate) const fn sum(&self) -> u64 {
        self.sum
    }

    /// Does the order of age hold the same entries, and is the sum theirs? For the invariants.
    pub(crate) fn is_sound(&self) -> bool {
        let sum = self.by_id.iter().fold(0_u64, |sum, (key, at)| {
            sum.wrapping_add(entry_hash(*key, at.0))
        });
        sum == self.sum
            && self.by_age.len() == self.by_id.len()
            && self
                .by_id
                .iter()
                .all(|(key, at)| self.by_age.contains(&(at.0, *key)))
    }
}

fn entry_hash(key: Key, at: u64) -> u64 {
    hash_of(HASH_TAG, &(key.id(), at))
}
