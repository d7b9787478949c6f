//! Where time and randomness enter: the pure crates get both from here.

use ring::rand::{SecureRandom, SystemRandom};
use std::time::{SystemTime, UNIX_EPOCH};
use warren_types::{Id128, Timestamp};

/// The wall clock.
#[must_use]
pub fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    Timestamp(since.map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX)))
}

/// `N` bytes from the operating system.
///
/// # Panics
/// When the system has no randomness to give; no key or id may be made then.
#[must_use]
#[allow(
    clippy::expect_used,
    reason = "without randomness nothing safe can be done"
)]
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0_u8; N];
    SystemRandom::new()
        .fill(&mut bytes)
        .expect("the operating system gives random bytes");
    bytes
}

/// A new id of the present time.
#[must_use]
pub fn new_id() -> Id128 {
    Id128::from_parts(now().0, u128::from_le_bytes(random::<16>()))
}
