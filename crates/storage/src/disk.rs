//! The seam between everything durable and the machine.

use crate::Result;
use std::fmt;

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenMode {
    /// It must exist; only read.
    Read,
    /// It must exist; read and write.
    Write,
    /// Made when missing; read and write.
    Create,
    /// Made, empty when it was there; read and write; readable by the owner only (mode 0600).
    CreateSecret,
}

/// What was asked of a disk since it was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DiskStats {
    /// Number of writes.
    pub writes: u64,
    /// Bytes written.
    pub written_bytes: u64,
    /// Number of file and directory syncs.
    pub syncs: u64,
}

/// An open file.
pub trait DiskFile: Send + Sync + fmt::Debug {
    /// Fills `buf` from `offset` on; an error when the file ends before.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()>;
    /// Writes all of `data` at `offset`, making the file longer when needed. Not durable before [`DiskFile::sync_data`].
    fn write_at(&self, offset: u64, data: &[u8]) -> Result<()>;
    /// Length in bytes.
    fn len(&self) -> Result<u64>;
    /// Whether the file holds no byte.
    fn is_empty(&self) -> Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Cuts the file, or makes it longer with zeros, to `len` bytes.
    fn set_len(&self, len: u64) -> Result<()>;
    /// Takes disk space for the first `len` bytes now, zeros, so that later writes there cannot find the disk full.
    fn preallocate(&self, len: u64) -> Result<()>;
    /// Returns when all that was written is durable. After an error nothing is known about it: do not retry.
    fn sync_data(&self) -> Result<()>;
    /// The file's name for error messages.
    fn name(&self) -> &str;
}

/// A held lock; released when dropped or when the process ends.
pub trait DiskLock: Send + Sync + fmt::Debug {}

/// A directory tree that durable things are kept in. Paths are relative, separated by `/`.
///
/// Creating, renaming and removing are durable only after [`Disk::sync_dir`] of the directory.
pub trait Disk: Send + Sync + fmt::Debug {
    /// Opens a file.
    fn open(&self, path: &str, mode: OpenMode) -> Result<Box<dyn DiskFile>>;
    /// Renames within one directory, replacing what has the new name, atomically.
    fn rename(&self, from: &str, to: &str) -> Result<()>;
    /// Removes a file; one that does not exist is no error.
    fn remove(&self, path: &str) -> Result<()>;
    /// Names of the files (not the directories) in a directory, sorted. Empty when there is no such directory.
    fn list(&self, dir: &str) -> Result<Vec<String>>;
    /// Makes a directory and its parents, durably.
    fn create_dir_all(&self, dir: &str) -> Result<()>;
    /// Makes the names in a directory durable.
    fn sync_dir(&self, dir: &str) -> Result<()>;
    /// Takes an exclusive lock on a file, made when missing; [`crate::StorageError::Locked`] when another holds it.
    fn lock(&self, path: &str) -> Result<Box<dyn DiskLock>>;
    /// A path as people know it, for messages.
    fn describe(&self, path: &str) -> String;
    /// What was asked of the disk so far.
    fn stats(&self) -> DiskStats;
}

/// Reads a whole file, refusing one over `limit` bytes; `None` when there is none.
pub(crate) fn read_file(disk: &dyn Disk, path: &str, limit: u64) -> Result<Option<Vec<u8>>> {
    let file = match disk.open(path, OpenMode::Read) {
        Ok(file) => file,
        Err(crate::StorageError::NotFound { .. }) => return Ok(None),
        Err(error) => return Err(error),
    };
    let len = file.len()?;
    if len > limit {
        return Err(crate::StorageError::TooLarge {
            what: "file",
            found: len,
            limit,
        });
    }
    let mut data = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
    file.read_at(0, &mut data)?;
    Ok(Some(data))
}

/// Joins a directory and a name; an empty directory is the root.
pub(crate) fn join(dir: &str, name: &str) -> String {
    if dir.is_empty() {
        name.to_owned()
    } else {
        format!("{dir}/{name}")
    }
}

/// The directory part of a path; empty for the root.
pub(crate) fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(dir, _)| dir)
}
