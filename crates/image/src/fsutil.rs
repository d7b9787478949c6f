//! Small file-system helpers: atomic durable writes, temporary names that clean up after themselves.

use crate::error::{IoContext, Result};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Makes a directory entry durable.
pub(crate) fn sync_dir(dir: &Path) -> Result<()> {
    File::open(dir)
        .and_then(|d| d.sync_all())
        .at("cannot sync directory", dir)
}

/// Replaces `path` by `bytes` so that after a crash either the old or the new content is there.
pub(crate) fn write_durably(tmp: &TempDirs, path: &Path, bytes: &[u8]) -> Result<()> {
    let temp = tmp.file()?;
    temp.write(bytes, true)?;
    temp.rename_to(path)?;
    path.parent().map_or(Ok(()), sync_dir)
}

/// Like [`write_durably`] for what a power cut may take: atomic, but not synced.
pub(crate) fn write_atomically(tmp: &TempDirs, path: &Path, bytes: &[u8]) -> Result<()> {
    let temp = tmp.file()?;
    temp.write(bytes, false)?;
    temp.rename_to(path)
}

/// Removes a file or a whole tree; that it is not there is fine. Never follows symbolic links.
pub(crate) fn remove_any(path: &Path) -> io::Result<()> {
    let result = match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(e) => Err(e),
    };
    match result {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Gives out names under the store's `tmp` directory. One process owns the store, so a counter does.
pub(crate) struct TempDirs {
    root: PathBuf,
    next: AtomicU64,
}

impl TempDirs {
    pub(crate) fn new(root: PathBuf) -> Self {
        Self {
            root,
            next: AtomicU64::new(1),
        }
    }

    fn path(&self) -> PathBuf {
        self.root
            .join(format!("t{}", self.next.fetch_add(1, Ordering::Relaxed)))
    }

    /// A new empty directory, removed on drop unless it was renamed away.
    pub(crate) fn dir(&self) -> Result<Temp> {
        let path = self.path();
        fs::create_dir(&path).at("cannot create directory", &path)?;
        Ok(Temp { path })
    }

    /// A name for a new file, removed on drop unless it was renamed away.
    pub(crate) fn file(&self) -> Result<Temp> {
        Ok(Temp { path: self.path() })
    }

    /// Moves `path` here, which is atomic, and then deletes it.
    pub(crate) fn discard(&self, path: &Path) -> Result<()> {
        self.set_aside(path).map(drop)
    }

    /// Moves `path` here; it is deleted when the returned value is dropped.
    pub(crate) fn set_aside(&self, path: &Path) -> Result<Option<Temp>> {
        let temp = Temp { path: self.path() };
        match fs::rename(path, &temp.path) {
            Ok(()) => Ok(Some(temp)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e).at("cannot remove", path),
        }
    }

    /// Deletes everything left over from an earlier process.
    pub(crate) fn sweep(&self) -> Result<usize> {
        let mut count = 0;
        for entry in fs::read_dir(&self.root).at("cannot list", &self.root)? {
            let path = entry.at("cannot list", &self.root)?.path();
            remove_any(&path).at("cannot remove leftover", &path)?;
            count += 1;
        }
        Ok(count)
    }
}

/// A temporary file or tree.
pub(crate) struct Temp {
    path: PathBuf,
}

impl Temp {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    fn write(&self, bytes: &[u8], sync: bool) -> Result<()> {
        let write = || -> io::Result<()> {
            let mut file = File::create_new(&self.path)?;
            file.write_all(bytes)?;
            if sync { file.sync_all() } else { Ok(()) }
        };
        write().at("cannot write", &self.path)
    }

    fn rename_to(&self, to: &Path) -> Result<()> {
        fs::rename(&self.path, to).at("cannot rename to", to)
    }
}

impl Drop for Temp {
    fn drop(&mut self) {
        if let Err(error) = remove_any(&self.path) {
            // Not lost: the next open of the store sweeps the directory.
            tracing::warn!(path = %self.path.display(), %error, "cannot remove temporary file now");
        }
    }
}
