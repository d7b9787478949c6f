//! Sealing of secret data with the cluster's data key, and of the data key with a node-local key.
//!
//! AES-256-GCM. The associated data bind a sealed value to what it belongs to, so that nobody who can
//! write the state can hand one service the secret of another or bring an old value back.

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use std::collections::BTreeMap;
use std::num::NonZeroU32;
use warren_types::SealedData;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// Length of every key, in bytes.
pub const KEY_BYTES: usize = 32;
/// Length of the salt of a passphrase, in bytes.
pub const SALT_BYTES: usize = 16;
/// Rounds of PBKDF2-HMAC-SHA256 over a passphrase (OWASP's figure of 2023).
pub const PASSPHRASE_ROUNDS: u32 = 600_000;
/// Largest plaintext, in bytes.
pub const PLAINTEXT_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Length of a wrapped key, in bytes.
pub const WRAPPED_BYTES: usize = 4 + NONCE_LEN + KEY_BYTES + 16;

/// Sealed data that cannot be opened, or data that cannot be sealed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The key of that epoch is not in the keyring.
    #[error(
        "data key {epoch} is not in this node's keyring: fetch it from another manager or restore a backup"
    )]
    NoKey {
        /// Number of the key.
        epoch: u32,
    },
    /// Wrong key, altered bytes, or data that belong to another object.
    #[error(
        "the sealed data of {what} cannot be opened: wrong key, damaged, or moved from another object; restore it from a backup"
    )]
    Damaged {
        /// What was opened.
        what: &'static str,
    },
    /// Too large.
    #[error("{bytes} bytes are too many to seal: the limit is {PLAINTEXT_BYTES_MAX}")]
    TooLarge {
        /// Length of the plaintext.
        bytes: usize,
    },
    /// The wrapped key has a wrong length.
    #[error(
        "the wrapped data key has {found} bytes instead of {WRAPPED_BYTES}: the keyring file is damaged"
    )]
    BadWrapping {
        /// Length found.
        found: usize,
    },
}

/// What kind of thing is sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SealKind {
    /// Value of a secret.
    Secret,
    /// Private key of an ingress certificate.
    CertificateKey,
    /// Private key of the cluster's CA.
    CaKey,
    /// An assignment kept on a node's disk.
    NodeStore,
    /// The unlock key of the managers' keyrings.
    UnlockKey,
}

impl SealKind {
    const fn name(self) -> &'static str {
        match self {
            Self::Secret => "secret",
            Self::CertificateKey => "certificate key",
            Self::CaKey => "CA key",
            Self::NodeStore => "node store",
            Self::UnlockKey => "unlock key",
        }
    }
}

/// What sealed data belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SealContext {
    /// Kind of the object.
    pub kind: SealKind,
    /// Id of the object.
    pub id: u128,
    /// A number that the object carries and that changes with each value. The state revision of a
    /// write is not known before it is applied, so callers use the time of the write
    /// (`updated_at`, in milliseconds).
    pub version: u64,
}

impl SealContext {
    /// Unambiguous bytes: fixed lengths after a name ended by a zero byte.
    fn associated_data(self, epoch: u32) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(64);
        bytes.extend_from_slice(b"warren-seal-1\0");
        bytes.extend_from_slice(self.kind.name().as_bytes());
        bytes.push(0);
        bytes.extend_from_slice(&self.id.to_be_bytes());
        bytes.extend_from_slice(&self.version.to_be_bytes());
        bytes.extend_from_slice(&epoch.to_be_bytes());
        bytes
    }
}

/// A random 256-bit key of one epoch; wiped from memory when dropped, never printed.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct DataKey {
    #[zeroize(skip)]
    epoch: u32,
    bytes: [u8; KEY_BYTES],
}

impl DataKey {
    /// Takes 32 random bytes as the key of an epoch (from 1).
    #[must_use]
    pub fn new(epoch: u32, random: [u8; KEY_BYTES]) -> Self {
        Self {
            epoch,
            bytes: random,
        }
    }
    /// Number of the key.
    #[must_use]
    pub const fn epoch(&self) -> u32 {
        self.epoch
    }

    /// The key itself, for handing it to another manager or wrapping it once more. Never logged.
    #[must_use]
    pub const fn expose(&self) -> &[u8; KEY_BYTES] {
        &self.bytes
    }

    /// Seals data. `nonce` is 96 random bits, never used twice with the same key.
    ///
    /// # Errors
    /// [`SealError::TooLarge`].
    pub fn seal(
        &self,
        nonce: [u8; NONCE_LEN],
        context: SealContext,
        plaintext: &[u8],
    ) -> Result<SealedData, SealError> {
        let too_large = SealError::TooLarge {
            bytes: plaintext.len(),
        };
        if plaintext.len() > PLAINTEXT_BYTES_MAX {
            return Err(too_large);
        }
        let mut ciphertext = Vec::with_capacity(plaintext.len() + AES_256_GCM.tag_len());
        ciphertext.extend_from_slice(plaintext);
        aead(&self.bytes)
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(context.associated_data(self.epoch)),
                &mut ciphertext,
            )
            .map_err(|_| too_large)?;
        Ok(SealedData {
            epoch: self.epoch,
            nonce,
            ciphertext,
        })
    }

    /// Opens what [`Self::seal`] made for the same context.
    ///
    /// # Errors
    /// [`SealError::NoKey`] when another key sealed it, [`SealError::Damaged`] otherwise.
    pub fn open(
        &self,
        context: SealContext,
        sealed: &SealedData,
    ) -> Result<Zeroizing<Vec<u8>>, SealError> {
        if sealed.epoch != self.epoch {
            return Err(SealError::NoKey {
                epoch: sealed.epoch,
            });
        }
        let damaged = SealError::Damaged {
            what: context.kind.name(),
        };
        let mut buffer = Zeroizing::new(sealed.ciphertext.clone());
        let length = aead(&self.bytes)
            .open_in_place(
                Nonce::assume_unique_for_key(sealed.nonce),
                Aad::from(context.associated_data(self.epoch)),
                &mut buffer,
            )
            .map_err(|_| damaged)?
            .len();
        buffer.truncate(length);
        Ok(buffer)
    }
}

/// The data keys a manager holds, by epoch; the newest seals.
#[derive(Clone, Default)]
pub struct Keyring {
    keys: BTreeMap<u32, DataKey>,
}

impl Keyring {
    /// An empty keyring.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
    /// Adds a key, in the place of one with the same number.
    pub fn insert(&mut self, key: DataKey) {
        self.keys.insert(key.epoch(), key);
    }
    /// The newest key.
    #[must_use]
    pub fn newest(&self) -> Option<&DataKey> {
        self.keys.values().next_back()
    }
    /// The key with this number.
    #[must_use]
    pub fn get(&self, epoch: u32) -> Option<&DataKey> {
        self.keys.get(&epoch)
    }
    /// Every key, oldest first.
    pub fn keys(&self) -> impl Iterator<Item = &DataKey> {
        self.keys.values()
    }

    /// Seals with the newest key.
    ///
    /// # Errors
    /// [`SealError::NoKey`] when the keyring is empty, else as [`DataKey::seal`].
    pub fn seal(
        &self,
        nonce: [u8; NONCE_LEN],
        context: SealContext,
        plaintext: &[u8],
    ) -> Result<SealedData, SealError> {
        self.newest()
            .ok_or(SealError::NoKey { epoch: 1 })?
            .seal(nonce, context, plaintext)
    }

    /// Opens with the key that sealed.
    ///
    /// # Errors
    /// As [`DataKey::open`].
    pub fn open(
        &self,
        context: SealContext,
        sealed: &SealedData,
    ) -> Result<Zeroizing<Vec<u8>>, SealError> {
        self.get(sealed.epoch)
            .ok_or(SealError::NoKey {
                epoch: sealed.epoch,
            })?
            .open(context, sealed)
    }
}

/// A key of one node (or a passphrase) that wraps data keys for its disk.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct WrapKey {
    bytes: [u8; KEY_BYTES],
}

/// A data key as it lies on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrappedKey {
    /// Number of the data key.
    pub epoch: u32,
    /// 96 random bits.
    pub nonce: [u8; NONCE_LEN],
    /// The sealed key with its tag.
    pub ciphertext: Vec<u8>,
}

impl WrapKey {
    /// Takes 32 random bytes as the key of this node.
    #[must_use]
    pub const fn new(random: [u8; KEY_BYTES]) -> Self {
        Self { bytes: random }
    }

    pub(crate) fn derive(passphrase: &str, salt: &[u8; SALT_BYTES], rounds: u32) -> Self {
        let mut bytes = [0; KEY_BYTES];
        let rounds = NonZeroU32::new(rounds).unwrap_or(NonZeroU32::MIN);
        let algorithm = ring::pbkdf2::PBKDF2_HMAC_SHA256;
        ring::pbkdf2::derive(algorithm, rounds, salt, passphrase.as_bytes(), &mut bytes);
        Self { bytes }
    }

    /// Wraps a data key. `nonce` is 96 random bits.
    #[must_use]
    pub fn wrap(&self, key: &DataKey, nonce: [u8; NONCE_LEN]) -> WrappedKey {
        let mut ciphertext = Vec::with_capacity(KEY_BYTES + AES_256_GCM.tag_len());
        ciphertext.extend_from_slice(&key.bytes);
        aead(&self.bytes)
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(wrap_data(key.epoch)),
                &mut ciphertext,
            )
            .expect("32 bytes are far below the limit of AES-GCM");
        WrappedKey {
            epoch: key.epoch,
            nonce,
            ciphertext,
        }
    }

    /// Unwraps a data key.
    ///
    /// # Errors
    /// [`SealError::Damaged`] for a wrong node key, passphrase or damaged bytes.
    pub fn unwrap(&self, wrapped: &WrappedKey) -> Result<DataKey, SealError> {
        let damaged = SealError::Damaged { what: "data key" };
        let mut buffer = Zeroizing::new(wrapped.ciphertext.clone());
        let plain = aead(&self.bytes)
            .open_in_place(
                Nonce::assume_unique_for_key(wrapped.nonce),
                Aad::from(wrap_data(wrapped.epoch)),
                &mut buffer,
            )
            .map_err(|_| damaged.clone())?;
        let bytes = <[u8; KEY_BYTES]>::try_from(&*plain).map_err(|_| damaged)?;
        Ok(DataKey::new(wrapped.epoch, bytes))
    }
}

impl WrappedKey {
    /// The 64 bytes that go to disk: epoch, nonce, ciphertext.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(WRAPPED_BYTES);
        bytes.extend_from_slice(&self.epoch.to_be_bytes());
        bytes.extend_from_slice(&self.nonce);
        bytes.extend_from_slice(&self.ciphertext);
        bytes
    }

    /// Reads what [`Self::to_bytes`] wrote.
    ///
    /// # Errors
    /// [`SealError::BadWrapping`] for any other length.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, SealError> {
        let bad = SealError::BadWrapping { found: bytes.len() };
        if bytes.len() != WRAPPED_BYTES {
            return Err(bad);
        }
        let (epoch, rest) = bytes.split_first_chunk::<4>().ok_or(bad.clone())?;
        let (nonce, ciphertext) = rest.split_first_chunk::<NONCE_LEN>().ok_or(bad)?;
        Ok(Self {
            epoch: u32::from_be_bytes(*epoch),
            nonce: *nonce,
            ciphertext: ciphertext.to_vec(),
        })
    }
}

fn wrap_data(epoch: u32) -> Vec<u8> {
    let mut bytes = b"warren-wrap-1\0".to_vec();
    bytes.extend_from_slice(&epoch.to_be_bytes());
    bytes
}

pub(crate) fn aead(key: &[u8; KEY_BYTES]) -> LessSafeKey {
    let unbound = UnboundKey::new(&AES_256_GCM, key).expect("the key has the length of AES-256");
    LessSafeKey::new(unbound)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn context(id: u128, version: u64) -> SealContext {
        SealContext {
            kind: SealKind::Secret,
            id,
            version,
        }
    }

    #[test]
    fn passphrase_gives_the_same_key_again_and_another_does_not() {
        let wrapped =
            WrapKey::derive("open sesame", &[7; 16], 10).wrap(&DataKey::new(3, [9; 32]), [1; 12]);
        let stored = WrappedKey::from_bytes(&wrapped.to_bytes()).unwrap();
        let key = WrapKey::derive("open sesame", &[7; 16], 10)
            .unwrap(&stored)
            .unwrap();
        assert_eq!((key.epoch(), key.bytes), (3, [9; 32]));
        assert!(
            WrapKey::derive("open sesam", &[7; 16], 10)
                .unwrap(&stored)
                .is_err()
        );
        assert!(
            WrapKey::derive("open sesame", &[8; 16], 10)
                .unwrap(&stored)
                .is_err()
        );
        assert!(WrappedKey::from_bytes(&wrapped.to_bytes()[1..]).is_err());
    }

    #[test]
    fn keyring_opens_old_epochs_and_seals_with_the_newest() {
        let mut ring = Keyring::new();
        assert!(ring.seal([0; 12], context(1, 1), b"x").is_err());
        ring.insert(DataKey::new(1, [1; 32]));
        let old = ring.seal([1; 12], context(1, 1), b"old").unwrap();
        ring.insert(DataKey::new(2, [2; 32]));
        let new = ring.seal([2; 12], context(1, 1), b"new").unwrap();
        assert_eq!((old.epoch, new.epoch), (1, 2));
        assert_eq!(ring.open(context(1, 1), &old).unwrap().as_slice(), b"old");
        assert_eq!(ring.open(context(1, 1), &new).unwrap().as_slice(), b"new");
    }

    proptest! {
        /// A sealed value opens for its own id and version only, and for no altered byte.
        #[test]
        fn sealed_data_are_bound(
            plain in proptest::collection::vec(any::<u8>(), 0..300),
            key in any::<[u8; 32]>(), nonce in any::<[u8; 12]>(),
            id in any::<u128>(), version in any::<u64>(), flip in any::<usize>(),
        ) {
            let data_key = DataKey::new(1, key);
            let sealed = data_key.seal(nonce, context(id, version), &plain).unwrap();
            prop_assert_eq!(data_key.open(context(id, version), &sealed).unwrap().to_vec(), plain.clone());
            prop_assert!(data_key.open(context(id ^ 1, version), &sealed).is_err());
            prop_assert!(data_key.open(context(id, version ^ 1), &sealed).is_err());
            let other = SealContext { kind: SealKind::CaKey, id, version };
            prop_assert!(data_key.open(other, &sealed).is_err());
            let mut altered = sealed.clone();
            let at = flip % altered.ciphertext.len();
            altered.ciphertext[at] ^= 1;
            prop_assert!(data_key.open(context(id, version), &altered).is_err());
            prop_assert!(DataKey::new(2, key).open(context(id, version), &sealed).is_err());
            if plain.len() > 8 {
                prop_assert!(!sealed.ciphertext.windows(plain.len()).any(|w| w == plain));
            }
        }
    }
}
