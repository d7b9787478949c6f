//! Where time and randomness enter: the pure crates get both from here.

use ring::rand::{SecureRandom, SystemRandom};
use std::cell::RefCell;
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

/// Bytes drawn from the operating system at once, for what is needed with each write.
const DRAWN: usize = 512;

/// Bytes that were drawn and not given out yet; given out, they are forgotten here.
struct Drawn {
    bytes: [u8; DRAWN],
    left: usize,
}

thread_local! {
    static DRAWN_HERE: RefCell<Drawn> = const {
        RefCell::new(Drawn {
            bytes: [0; DRAWN],
            left: 0,
        })
    };
}

/// `N` bytes from the operating system that need not be secret before they are used: ids and nonces. They are drawn many at a
/// time, for asking costs more than they do. Keys come from [`random`].
#[must_use]
pub fn random_public<const N: usize>() -> [u8; N] {
    const { assert!(N <= DRAWN) };
    DRAWN_HERE.with_borrow_mut(|drawn| {
        if drawn.left < N {
            drawn.bytes = random();
            drawn.left = DRAWN;
        }
        let (_, unused) = drawn.bytes.split_at_mut(DRAWN - drawn.left);
        let mut bytes = [0; N];
        for (to, from) in bytes.iter_mut().zip(unused) {
            *to = std::mem::take(from);
        }
        drawn.left -= N;
        bytes
    })
}

/// A new id of the present time.
#[must_use]
pub fn new_id() -> Id128 {
    Id128::from_parts(now().0, u128::from_le_bytes(random_public::<16>()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// A nonce that is used twice with one key betrays both secrets.
    #[test]
    fn bytes_are_given_out_once() {
        let threads: Vec<_> = (0..4)
            .map(|_| {
                std::thread::spawn(|| {
                    let nonces = (0..1_000).map(|_| random_public::<12>());
                    let ids = (0..1_000).map(|_| random_public::<16>());
                    (nonces.collect::<Vec<_>>(), ids.collect::<Vec<_>>())
                })
            })
            .collect();
        let (mut nonces, mut ids) = (BTreeSet::new(), BTreeSet::new());
        for thread in threads {
            let (more_nonces, more_ids) = thread.join().unwrap();
            nonces.extend(more_nonces);
            ids.extend(more_ids);
        }
        assert_eq!((nonces.len(), ids.len()), (4_000, 4_000));
    }
}
