//! Sealing and opening with the cluster's data keys.
//!
//! What is sealed is bound to its object and to the time of the write (`updated_at`), which the
//! proposer chooses and `apply` stamps: a sealed value cannot be moved to another object or version.

use crate::edge;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};
use warren_security::{DataKey, Keyring, SealContext, SealError, SealKind, UnlockError, UnlockKey};
use warren_types::{CaMaterial, ClusterSettings, Id128, SealedData, Secret, Timestamp};

/// The data keys of this manager, behind what they are for. Keys are added while it runs, never taken away.
pub struct SecretBox {
    keys: RwLock<Keyring>,
    /// Epoch that seals; 0 = the newest here. A key that the cluster does not use yet opens nothing and seals nothing.
    active: AtomicU32,
}

impl SecretBox {
    pub(crate) const fn new(keys: Keyring) -> Self {
        Self {
            keys: RwLock::new(keys),
            active: AtomicU32::new(0),
        }
    }

    fn keys(&self) -> RwLockReadGuard<'_, Keyring> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a data key.
    pub(crate) fn add(&self, key: DataKey) {
        self.keys
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(key);
    }

    /// From now on the key of this epoch seals.
    pub(crate) fn activate(&self, epoch: u32) {
        self.active.store(epoch, Ordering::Release);
    }

    /// Whether the key of this epoch is here.
    pub(crate) fn has(&self, epoch: u32) -> bool {
        self.keys().get(epoch).is_some()
    }

    /// The keys themselves, oldest first; for another manager and for a backup.
    pub(crate) fn export(&self) -> Vec<DataKey> {
        self.keys().keys().cloned().collect()
    }

    /// Seals the value of a secret that will be written at `time`.
    pub(crate) fn seal_secret(
        &self,
        id: Id128,
        time: Timestamp,
        value: &[u8],
    ) -> Result<SealedData, SealError> {
        self.seal(SealKind::Secret, id, time.0, value)
    }

    /// Opens a secret's value.
    pub(crate) fn open(
        &self,
        secret: &Secret,
    ) -> Result<impl std::ops::Deref<Target = Vec<u8>> + use<>, SealError> {
        let context = context(SealKind::Secret, secret.id.0, secret.updated_at.0);
        self.keys().open(context, &secret.data)
    }

    /// Seals the CA's private key.
    pub(crate) fn seal_ca_key(
        &self,
        cluster: Id128,
        roots: u64,
        pem: &[u8],
    ) -> Result<SealedData, SealError> {
        self.seal(SealKind::CaKey, cluster, roots, pem)
    }

    /// Seals the unlock key of the managers' keyrings.
    pub(crate) fn seal_unlock_key(
        &self,
        cluster: Id128,
        text: &str,
    ) -> Result<SealedData, SealError> {
        self.seal(SealKind::UnlockKey, cluster, 0, text.as_bytes())
    }

    /// Opens the unlock key.
    pub(crate) fn open_unlock_key(
        &self,
        settings: &ClusterSettings,
    ) -> Result<UnlockKey, UnlockKeyError> {
        let context = context(SealKind::UnlockKey, settings.id.0, 0);
        let text = self.keys().open(context, &settings.unlock_key)?;
        Ok(String::from_utf8_lossy(&text).parse()?)
    }

    /// Opens the CA's private key; it is bound to the cluster and the number of roots so far.
    pub(crate) fn open_ca_key(
        &self,
        settings: &ClusterSettings,
    ) -> Result<impl std::ops::Deref<Target = Vec<u8>> + use<>, SealError> {
        let CaMaterial { roots_pem, key, .. } = &settings.ca;
        self.keys().open(
            context(SealKind::CaKey, settings.id.0, roots_pem.len() as u64),
            key,
        )
    }

    fn seal(
        &self,
        kind: SealKind,
        id: Id128,
        version: u64,
        value: &[u8],
    ) -> Result<SealedData, SealError> {
        let (nonce, context) = (edge::random_public::<12>(), context(kind, id, version));
        match self.active.load(Ordering::Acquire) {
            0 => self.keys().seal(nonce, context, value),
            epoch => {
                let keys = self.keys();
                let key = keys.get(epoch).ok_or(SealError::NoKey { epoch })?;
                key.seal(nonce, context, value)
            }
        }
    }
}

/// Why the unlock key cannot be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UnlockKeyError {
    /// It cannot be opened.
    #[error(transparent)]
    Sealed(#[from] SealError),
    /// What was opened is none.
    #[error(transparent)]
    Malformed(#[from] UnlockError),
}

fn context(kind: SealKind, id: Id128, version: u64) -> SealContext {
    SealContext {
        kind,
        id: id.0,
        version,
    }
}
