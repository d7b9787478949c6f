//! Named sealed blobs of this node: its key, the CA, data keys.
//!
//! What is in them, and how it is sealed, is the business of `security`; here they are bytes that must
//! not be lost, mixed up or readable by others.

use crate::atomic::AtomicFile;
use crate::disk::Disk;
use crate::sector::{Cursor, put_prefixed};
use crate::{Result, StorageError};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Most blobs in one keyring.
pub const MAX_KEYRING_ENTRIES: usize = 1_024;

const REMEDY: &str =
    "restore the keyring from a backup, or remove the node from the cluster and join it again";

/// The keyring: one file of mode 0600, replaced as a whole at each change.
#[derive(Debug)]
pub struct Keyring {
    file: AtomicFile,
    entries: BTreeMap<String, Vec<u8>>,
}

impl Keyring {
    /// Reads the keyring; one that does not exist is empty and made at the first change.
    pub fn open(disk: Arc<dyn Disk>, path: &str) -> Result<Self> {
        let name = disk.describe(path);
        let file = AtomicFile::new(disk, path, REMEDY).secret();
        let Some(content) = file.read()? else {
            return Ok(Self {
                file,
                entries: BTreeMap::new(),
            });
        };
        let entries = parse(&content).ok_or(StorageError::Corrupt {
            file: name,
            offset: 0,
            what: "the entries do not add up".to_owned(),
            remedy: REMEDY,
        })?;
        Ok(Self { file, entries })
    }

    /// A blob.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.entries.get(name).map(Vec::as_slice)
    }

    /// The names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// Stores blobs durably, all or none; `None` removes one.
    pub fn update(&mut self, changes: &[(&str, Option<&[u8]>)]) -> Result<()> {
        let mut entries = self.entries.clone();
        for (name, blob) in changes {
            match blob {
                Some(blob) => entries.insert((*name).to_owned(), blob.to_vec()),
                None => entries.remove(*name),
            };
        }
        if entries.len() > MAX_KEYRING_ENTRIES {
            return Err(StorageError::TooLarge {
                what: "keyring (entries)",
                found: entries.len() as u64,
                limit: MAX_KEYRING_ENTRIES as u64,
            });
        }
        let mut content = Vec::new();
        for (name, blob) in &entries {
            put_prefixed(&mut content, name.as_bytes());
            put_prefixed(&mut content, blob);
        }
        self.file.write(&content)?;
        self.entries = entries;
        Ok(())
    }

    /// Stores one blob durably.
    pub fn set(&mut self, name: &str, blob: &[u8]) -> Result<()> {
        self.update(&[(name, Some(blob))])
    }

    /// Removes one blob durably.
    pub fn remove(&mut self, name: &str) -> Result<()> {
        self.update(&[(name, None)])
    }
}

fn parse(content: &[u8]) -> Option<BTreeMap<String, Vec<u8>>> {
    let mut cursor = Cursor(content);
    let mut entries = BTreeMap::new();
    while !cursor.0.is_empty() {
        let name = String::from_utf8(cursor.prefixed()?.to_vec()).ok()?;
        entries.insert(name, cursor.prefixed()?.to_vec());
    }
    Some(entries)
}
