//! The hash behind [`crate::ClusterState::hash`]: the same on every machine.
//!
//! The standard hasher promises nothing between releases and machines, so this one fixes byte order
//! and width (for lists of numbers, which the standard library hashes as memory, it relies on
//! little-endian machines: the only ones that Warren is built for). It detects divergence and damage; it is no protection against forgers.

use std::hash::{Hash, Hasher};

/// Number of the way in which objects are hashed. Two nodes compare their state hashes only when
/// both use the same one; it rises whenever a hashed type or this file changes.
pub const HASH_SCHEME: u32 = 2;

const SEED: u64 = 0x9e37_79b9_7f4a_7c15;
const FACTOR: u64 = 0xd6e8_feb8_6659_fd93;

/// 64-bit hasher that folds the 128-bit product of each word with a constant.
pub(crate) struct StableHasher {
    state: u64,
}

impl StableHasher {
    pub(crate) const fn new(tag: u64) -> Self {
        Self { state: SEED ^ tag }
    }

    fn word(&mut self, word: u64) {
        let product = u128::from(self.state ^ word) * u128::from(FACTOR);
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the low half is wanted; the high half is folded in beside it"
        )]
        let folded = (product as u64) ^ ((product >> 64) as u64);
        // The rotation keeps a zero word from leaving the state at zero for ever.
        self.state = folded.rotate_left(23).wrapping_add(SEED);
    }
}

impl Hasher for StableHasher {
    fn finish(&self) -> u64 {
        let mut last = Self { state: self.state };
        last.word(0x5bd1_e995);
        last.state
    }
    fn write(&mut self, bytes: &[u8]) {
        self.word(bytes.len() as u64);
        for chunk in bytes.chunks(8) {
            let mut word = [0_u8; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.word(u64::from_le_bytes(word));
        }
    }
    fn write_u8(&mut self, value: u8) {
        self.word(u64::from(value));
    }
    fn write_u16(&mut self, value: u16) {
        self.word(u64::from(value));
    }
    fn write_u32(&mut self, value: u32) {
        self.word(u64::from(value));
    }
    fn write_u64(&mut self, value: u64) {
        self.word(value);
    }
    fn write_u128(&mut self, value: u128) {
        self.write(&value.to_le_bytes());
    }
    fn write_usize(&mut self, value: usize) {
        self.word(value as u64);
    }
    fn write_i32(&mut self, value: i32) {
        self.word(u64::from(value.cast_unsigned()));
    }
    fn write_i64(&mut self, value: i64) {
        self.word(value.cast_unsigned());
    }
    /// Enum discriminants come this way; their width differs between machines, their value does not.
    fn write_isize(&mut self, value: isize) {
        self.word((value as i64).cast_unsigned());
    }
}

/// Hash of one value under a tag.
pub(crate) fn hash_of<T: Hash + ?Sized>(tag: u64, value: &T) -> u64 {
    let mut hasher = StableHasher::new(tag);
    value.hash(&mut hasher);
    hasher.finish()
}
