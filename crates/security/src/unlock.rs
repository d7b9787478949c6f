//! The unlock key of auto-lock: `WRNKEY-1-<key>-<check>`.
//!
//! With auto-lock on, a manager's data keys lie on its disk wrapped by this key, which is nowhere on the
//! disk: whoever steals it has nothing. The operator gives the key after each start (`warren cluster
//! unlock`). It has 128 random bits, so that no slow derivation is needed; a check of 20 bits tells a
//! slip of the pen from a wrong key.

use crate::sealing::{Keyring, WrapKey, WrappedKey};
use std::fmt;
use std::str::FromStr;
use subtle::ConstantTimeEq;
use warren_types::Id128;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// Random bytes of a key.
pub const UNLOCK_KEY_BYTES: usize = 16;
/// Length of the text form, in characters.
pub const UNLOCK_KEY_CHARS: usize = PREFIX.len() + warren_types::id::ID_TEXT_LEN + 1 + CHECK_CHARS;
const PREFIX: &str = "WRNKEY-1-";
const CHECK_CHARS: usize = 4;
const CHECK_LABEL: &[u8] = b"warren-unlock-check-1";
const WRAP_LABEL: &[u8] = b"warren-unlock-wrap-1";

/// A key that is not accepted, or keys that it does not open.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnlockError {
    /// Not the text of a key.
    #[error(
        "this is not an unlock key: give the whole text beginning with WRNKEY-1-, as it was shown when auto-lock was switched on"
    )]
    Malformed,
    /// Its check does not fit.
    #[error("there is a typing error in the unlock key: compare it with the one you kept")]
    Mistyped,
    /// A key of a newer format.
    #[error(
        "this unlock key has a newer format: install the version of warren that the cluster runs"
    )]
    NewerFormat,
    /// A key, but not the one that locked this manager.
    #[error(
        "this is not the unlock key of this manager: it may have been rotated since; an unlocked manager makes a new one when auto-lock is switched on with rotation"
    )]
    WrongKey,
    /// The key is right, but one of the wrapped keys is damaged.
    #[error(
        "data key {epoch} in this manager's keyring is damaged: remove this manager and let it join again"
    )]
    Damaged {
        /// Number of the data key.
        epoch: u32,
    },
}

/// The key itself; wiped from memory when dropped, never printed but by [`UnlockKey::reveal`].
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct UnlockKey {
    bytes: [u8; UNLOCK_KEY_BYTES],
}

impl UnlockKey {
    /// Takes 16 random bytes as a key.
    #[must_use]
    pub const fn new(random: [u8; UNLOCK_KEY_BYTES]) -> Self {
        Self { bytes: random }
    }

    /// The text form: only for the operator, once.
    #[must_use]
    pub fn reveal(&self) -> Zeroizing<String> {
        let key = Id128(u128::from_be_bytes(self.bytes));
        Zeroizing::new(format!("{PREFIX}{key}-{}", self.check().as_str()))
    }

    /// The key that wraps data keys.
    #[must_use]
    pub fn wrap_key(&self) -> WrapKey {
        WrapKey::new(self.derive(WRAP_LABEL))
    }

    /// Opens a locked keyring.
    ///
    /// # Errors
    /// [`UnlockError::WrongKey`] when nothing opens, [`UnlockError::Damaged`] when some of it does.
    pub fn open(&self, wrapped: &[WrappedKey]) -> Result<Keyring, UnlockError> {
        let wrap_key = self.wrap_key();
        let mut ring = Keyring::new();
        let mut damaged = None;
        for key in wrapped {
            match wrap_key.unwrap(key) {
                Ok(opened) => ring.insert(opened),
                Err(_) => damaged = damaged.or(Some(key.epoch)),
            }
        }
        match damaged {
            None => Ok(ring),
            Some(_) if ring.newest().is_none() => Err(UnlockError::WrongKey),
            Some(epoch) => Err(UnlockError::Damaged { epoch }),
        }
    }

    fn derive(&self, label: &[u8]) -> [u8; 32] {
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &self.bytes);
        let mut bytes = [0; 32];
        bytes.copy_from_slice(ring::hmac::sign(&key, label).as_ref());
        bytes
    }

    /// Four characters that depend on all of the key.
    fn check(&self) -> Zeroizing<String> {
        let mut derived = Zeroizing::new(self.derive(CHECK_LABEL));
        let mut head = [0; 16];
        head.copy_from_slice(&derived[..16]);
        derived.zeroize();
        let mut text = Id128(u128::from_be_bytes(head)).text();
        // The last characters of an id carry five full bits each.
        let check = text.split_off(text.len() - CHECK_CHARS);
        text.zeroize();
        Zeroizing::new(check)
    }
}

impl fmt::Debug for UnlockKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UnlockKey")
    }
}

impl FromStr for UnlockKey {
    type Err = UnlockError;

    fn from_str(text: &str) -> Result<Self, UnlockError> {
        let text = text.trim();
        let Some(rest) = text.strip_prefix(PREFIX) else {
            let newer = text
                .strip_prefix("WRNKEY-")
                .and_then(|r| r.split_once('-'))
                .is_some_and(|(version, _)| {
                    version.len() < 4 && version.parse::<u16>().is_ok_and(|v| v > 1)
                });
            return Err(if newer {
                UnlockError::NewerFormat
            } else {
                UnlockError::Malformed
            });
        };
        let (key, check) = rest.split_once('-').ok_or(UnlockError::Malformed)?;
        if check.len() != CHECK_CHARS {
            return Err(UnlockError::Malformed);
        }
        let id: Id128 = key.parse().map_err(|_| UnlockError::Malformed)?;
        let key = Self::new(id.0.to_be_bytes());
        let given = check.to_ascii_lowercase();
        if bool::from(key.check().as_bytes().ct_eq(given.as_bytes())) {
            Ok(key)
        } else {
            Err(UnlockError::Mistyped)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sealing::DataKey;
    use proptest::prelude::*;

    fn wrapped(key: &UnlockKey) -> Vec<WrappedKey> {
        let wrap = |epoch: u32| {
            let nonce = [u8::try_from(epoch).unwrap(); 12];
            key.wrap_key().wrap(&DataKey::new(epoch, [9; 32]), nonce)
        };
        vec![wrap(1), wrap(2)]
    }

    #[test]
    fn the_right_key_opens_and_every_other_is_told_apart() {
        let key = UnlockKey::new([5; 16]);
        let locked = wrapped(&key);
        let ring = key.open(&locked).unwrap();
        assert_eq!(ring.keys().count(), 2);
        let wrong = UnlockKey::new([6; 16]).open(&locked).err();
        assert_eq!(wrong, Some(UnlockError::WrongKey));
        let mut damaged = locked;
        damaged[1].ciphertext[3] ^= 1;
        let told = key.open(&damaged).err();
        assert_eq!(told, Some(UnlockError::Damaged { epoch: 2 }));
        assert_eq!(key.open(&[]).unwrap().keys().count(), 0);
    }

    #[test]
    fn neither_debug_nor_an_error_shows_the_key() {
        let key = UnlockKey::new([0xab; 16]);
        let text = key.reveal();
        assert_eq!(text.len(), UNLOCK_KEY_CHARS);
        assert!(!format!("{key:?}").contains(&text[9..20]));
        let newer = "WRNKEY-2-abc".parse::<UnlockKey>().err();
        assert_eq!(newer, Some(UnlockError::NewerFormat));
    }

    proptest! {
        #[test]
        fn text_round_trips(random in any::<[u8; 16]>()) {
            let key = UnlockKey::new(random);
            let text = key.reveal();
            let read: UnlockKey = format!(" {}\n", text.to_uppercase()).parse().unwrap();
            prop_assert_eq!(read.bytes, random);
        }

        /// A slip in one place is found in all but one of a million cases; it never opens anything.
        #[test]
        fn a_slip_is_found(random in any::<[u8; 16]>(), at in 9..UNLOCK_KEY_CHARS, to in "[0-9a-z-]") {
            let key = UnlockKey::new(random);
            let mut altered = key.reveal().to_string();
            altered.replace_range(at..=at, &to);
            prop_assume!(altered != key.reveal().as_str());
            if let Ok(other) = altered.parse::<UnlockKey>() {
                prop_assert_eq!(other.open(&wrapped(&key)).err(), Some(UnlockError::WrongKey));
            }
        }

        #[test]
        fn parser_never_panics(text in "(WRNKEY-[12]-)?\\PC{0,60}") {
            let _ = text.parse::<UnlockKey>();
        }
    }
}
