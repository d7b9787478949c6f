//! A small file that is replaced as a whole or not at all.

use crate::disk::{Disk, OpenMode, parent, read_file};
use crate::sector::{Cursor, put_prefixed};
use crate::{Result, StorageError};
use std::sync::Arc;

/// Largest content of an atomic file, in bytes.
pub const MAX_ATOMIC_FILE_BYTES: u64 = 16 * 1024 * 1024;

const MAGIC: &[u8; 8] = b"WARRENAF";
const VERSION: u32 = 1;
const HEAD_BYTES: u64 = 8 + 4 + 4 + 4;

/// A checksummed file written to a temporary name, synced, renamed, and its directory synced.
///
/// Layout: magic, format version, content length, content, CRC-32 of all before.
#[derive(Debug, Clone)]
pub struct AtomicFile {
    disk: Arc<dyn Disk>,
    path: String,
    secret: bool,
    remedy: &'static str,
}

impl AtomicFile {
    /// Names the file; nothing is read or made. `remedy` is told when it turns out damaged.
    pub fn new(disk: Arc<dyn Disk>, path: impl Into<String>, remedy: &'static str) -> Self {
        Self {
            disk,
            path: path.into(),
            secret: false,
            remedy,
        }
    }

    /// The same, readable by the owner only even where the directory is open to others.
    #[must_use]
    pub fn secret(mut self) -> Self {
        self.secret = true;
        self
    }

    /// The content; `None` when it was never written.
    pub fn read(&self) -> Result<Option<Vec<u8>>> {
        let Some(data) = read_file(&*self.disk, &self.path, MAX_ATOMIC_FILE_BYTES + HEAD_BYTES)?
        else {
            return Ok(None);
        };
        let corrupt = |offset: usize, what: &str| StorageError::Corrupt {
            file: self.disk.describe(&self.path),
            offset: offset as u64,
            what: what.to_owned(),
            remedy: self.remedy,
        };
        let Some((content, sum)) = data.split_last_chunk::<4>() else {
            return Err(corrupt(0, "the file is cut short"));
        };
        let mut cursor = Cursor(content);
        if cursor.bytes(8) != Some(MAGIC) {
            return Err(corrupt(0, "the file does not begin with its mark"));
        }
        if crc32fast::hash(content) != u32::from_le_bytes(*sum) {
            return Err(corrupt(0, "the checksum does not match"));
        }
        // The version is read after the checksum, so that a flipped bit there is not taken for a newer release.
        match cursor.u32() {
            Some(VERSION) => {}
            Some(found) => {
                return Err(StorageError::Newer {
                    file: self.disk.describe(&self.path),
                    found,
                    supported: VERSION,
                });
            }
            None => return Err(corrupt(8, "the file is cut short")),
        }
        match cursor.prefixed() {
            Some(bytes) if cursor.0.is_empty() => Ok(Some(bytes.to_vec())),
            _ => Err(corrupt(12, "the length does not match")),
        }
    }

    /// Replaces the content durably: after an error or a crash it is the old or the new one, whole.
    pub fn write(&self, content: &[u8]) -> Result<()> {
        if content.len() as u64 > MAX_ATOMIC_FILE_BYTES {
            return Err(StorageError::TooLarge {
                what: "file content",
                found: content.len() as u64,
                limit: MAX_ATOMIC_FILE_BYTES,
            });
        }
        let mut data = Vec::with_capacity(content.len() + 24);
        data.extend_from_slice(MAGIC);
        data.extend_from_slice(&VERSION.to_le_bytes());
        put_prefixed(&mut data, content);
        let sum = crc32fast::hash(&data);
        data.extend_from_slice(&sum.to_le_bytes());

        let temp = format!("{}.tmp", self.path);
        let written = self.write_temp(&temp, &data);
        if written.is_err() {
            // The first error counts; a temporary file left behind is overwritten next time.
            let _ = self.disk.remove(&temp);
            return written;
        }
        self.disk.rename(&temp, &self.path)?;
        self.disk.sync_dir(parent(&self.path))
    }

    fn write_temp(&self, temp: &str, data: &[u8]) -> Result<()> {
        let mode = if self.secret {
            OpenMode::CreateSecret
        } else {
            OpenMode::Create
        };
        let file = self.disk.open(temp, mode)?;
        file.set_len(0)?;
        file.write_at(0, data)?;
        file.sync_data()
    }

    /// Removes the file durably.
    pub fn remove(&self) -> Result<()> {
        self.disk.remove(&self.path)?;
        self.disk.sync_dir(parent(&self.path))
    }
}
