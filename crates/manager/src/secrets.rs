//! Sealing and opening with the cluster's data keys.
//!
//! What is sealed is bound to its object and to the time of the write (`updated_at`), which the
//! proposer chooses and `apply` stamps: a sealed value cannot be moved to another object or version.

use crate::edge;
use warren_security::{Keyring, SealContext, SealError, SealKind};
use warren_types::{CaMaterial, ClusterSettings, Id128, SealedData, Secret, Timestamp};

/// The data keys of this manager, behind what they are for.
pub(crate) struct SecretBox {
    keys: Keyring,
}

impl SecretBox {
    pub(crate) const fn new(keys: Keyring) -> Self {
        Self { keys }
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
        self.keys.open(context, &secret.data)
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

    /// Opens the CA's private key; it is bound to the cluster and the number of roots so far.
    pub(crate) fn open_ca_key(
        &self,
        settings: &ClusterSettings,
    ) -> Result<impl std::ops::Deref<Target = Vec<u8>> + use<>, SealError> {
        let CaMaterial { roots_pem, key, .. } = &settings.ca;
        self.keys.open(
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
        self.keys
            .seal(edge::random::<12>(), context(kind, id, version), value)
    }
}

fn context(kind: SealKind, id: Id128, version: u64) -> SealContext {
    SealContext {
        kind,
        id: id.0,
        version,
    }
}
