//! Data keys on this node's disk: in the keyring file, wrapped by the node's own key.

use crate::identity;
use crate::init::InitError;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use warren_security::WrapKey;
use warren_storage::Keyring as KeyFile;

/// The keyring file with the key that wraps what is kept in it.
pub struct KeyStore {
    file: Arc<Mutex<KeyFile>>,
    node_key: zeroize::Zeroizing<[u8; identity::KEY_BYTES]>,
}

impl KeyStore {
    /// `node_key` is the node's own.
    #[must_use]
    pub fn new(file: Arc<Mutex<KeyFile>>, node_key: [u8; identity::KEY_BYTES]) -> Self {
        Self {
            file,
            node_key: node_key.into(),
        }
    }

    /// Keeps data keys durably.
    ///
    /// # Errors
    /// When the keyring cannot be written.
    pub fn keep(&self, keys: &[(u32, Vec<u8>)]) -> Result<(), InitError> {
        identity::store_data_keys(&mut self.file(), &self.node_key, keys)
    }

    /// Makes the keyring open by `unlock` only, from the next start on; `None` makes it open by itself.
    ///
    /// # Errors
    /// When the keyring cannot be written.
    pub fn lock(&self, unlock: Option<&WrapKey>) -> Result<(), InitError> {
        let mut file = self.file();
        match unlock {
            Some(unlock) => identity::lock(&mut file, &self.node_key, unlock),
            None if identity::is_locked(&file) => {
                identity::unlock_for_good(&mut file, &self.node_key)
            }
            None => Ok(()),
        }
    }

    /// The keyring file.
    pub fn file(&self) -> MutexGuard<'_, KeyFile> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
