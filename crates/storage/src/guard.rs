//! One daemon per directory, and never data of a newer version.

use crate::atomic::AtomicFile;
use crate::disk::{Disk, DiskLock, join};
use crate::{Result, StorageError};
use std::sync::Arc;

/// Version of the layout of data directories that this release writes; older ones are read.
pub const FORMAT_VERSION: u32 = 1;

const LOCK_FILE: &str = "LOCK";
const FORMAT_FILE: &str = "FORMAT";
const FORMAT_REMEDY: &str =
    "restore the data directory from a backup, or move it away and join the cluster again";

/// The right to use a directory; others are refused while it lives.
#[derive(Debug)]
pub struct DirGuard {
    _lock: Box<dyn DiskLock>,
    fresh: bool,
}

impl DirGuard {
    /// Takes the directory, making it when missing: locks it and checks its format. Data of a newer release is
    /// refused before anything is written to it. `kind` ("raft log", …) is remembered: a directory of another kind is refused.
    pub fn acquire(disk: &Arc<dyn Disk>, dir: &str, kind: &str) -> Result<Self> {
        disk.create_dir_all(dir)?;
        let lock = disk.lock(&join(dir, LOCK_FILE))?;
        let path = join(dir, FORMAT_FILE);
        let format = AtomicFile::new(Arc::clone(disk), path.as_str(), FORMAT_REMEDY);
        let corrupt = |what: String| StorageError::Corrupt {
            file: disk.describe(&path),
            offset: 0,
            what,
            remedy: FORMAT_REMEDY,
        };
        let Some(content) = format.read()? else {
            let known = [LOCK_FILE, FORMAT_FILE, "FORMAT.tmp"];
            if let Some(other) = disk
                .list(dir)?
                .iter()
                .find(|name| !known.contains(&name.as_str()))
            {
                return Err(corrupt(format!(
                    "the file is missing although the directory holds {other}"
                )));
            }
            format.write(format!("{FORMAT_VERSION} {kind}").as_bytes())?;
            return Ok(Self {
                _lock: lock,
                fresh: true,
            });
        };
        let text = String::from_utf8_lossy(&content).into_owned();
        let (version, found_kind) = text.split_once(' ').unwrap_or((&text, ""));
        let found: u32 = version
            .parse()
            .map_err(|_| corrupt(format!("{text:?} is no format")))?;
        if found > FORMAT_VERSION {
            return Err(StorageError::Newer {
                file: disk.describe(&path),
                found,
                supported: FORMAT_VERSION,
            });
        }
        if found_kind != kind {
            return Err(corrupt(format!(
                "the directory holds {found_kind:?}, expected {kind:?}"
            )));
        }
        Ok(Self {
            _lock: lock,
            fresh: false,
        })
    }

    /// Whether the directory was made just now.
    #[must_use]
    pub fn is_fresh(&self) -> bool {
        self.fresh
    }
}
