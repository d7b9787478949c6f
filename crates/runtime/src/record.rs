//! What the driver keeps on disk about one container, in one directory per container.
//!
//! | Name | Written by | Meaning |
//! |---|---|---|
//! | `meta.json` | daemon, before the shim starts | id, attempt, name, stop signal |
//! | `lock` | held by the shim | a lock here means that the shim lives |
//! | `shim.json` | shim | its process id |
//! | `shim.sock` | shim | where it listens |
//! | `exit.json` | shim (or a daemon that found it dead) | how the container ended; durable |
//! | `bundle/`, `oci/` | shim | for libcontainer |

use crate::driver::ExitRecord;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use warren_types::{ContainerId, Timestamp};

/// Name of the shim's socket.
pub const SOCKET: &str = "shim.sock";

/// What must be known about a container to take it over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// Id.
    pub id: ContainerId,
    /// Number of the start.
    pub attempt: u32,
    /// Name for people.
    pub name: String,
    /// Signal that asks the program to end.
    pub stop_signal: i32,
}

/// The shim's own record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShimRecord {
    /// Its process id; valid while the lock is held.
    pub pid: u32,
}

/// The directory of one container.
#[derive(Debug, Clone)]
pub struct ContainerDir(pub PathBuf);

impl ContainerDir {
    /// `meta.json`.
    pub fn meta(&self) -> io::Result<Option<Meta>> {
        read_json(&self.0.join("meta.json"))
    }

    /// Writes `meta.json`.
    pub fn set_meta(&self, meta: &Meta) -> io::Result<()> {
        write_json(&self.0, "meta.json", meta, false)
    }

    /// `shim.json`.
    pub fn shim(&self) -> io::Result<Option<ShimRecord>> {
        read_json(&self.0.join("shim.json"))
    }

    /// Writes `shim.json`.
    pub fn set_shim(&self, shim: ShimRecord) -> io::Result<()> {
        write_json(&self.0, "shim.json", &shim, false)
    }

    /// `exit.json`.
    pub fn exit(&self) -> io::Result<Option<ExitRecord>> {
        read_json(&self.0.join("exit.json"))
    }

    /// Writes `exit.json` durably.
    pub fn set_exit(&self, exit: &ExitRecord) -> io::Result<()> {
        write_json(&self.0, "exit.json", exit, true)
    }

    /// Takes the lock that says "the shim lives"; `None` when somebody holds it.
    pub fn lock(&self) -> io::Result<Option<File>> {
        try_lock(&self.0.join("lock"))
    }

    /// Directory of the OCI bundle.
    #[must_use]
    pub fn bundle(&self) -> PathBuf {
        self.0.join("bundle")
    }

    /// Directory of libcontainer's state.
    #[must_use]
    pub fn oci(&self) -> PathBuf {
        self.0.join("oci")
    }
}

/// Takes an exclusive lock on a file, making it if needed; `None` when another process holds it.
pub fn try_lock(path: &Path) -> io::Result<Option<File>> {
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .mode(0o600)
        .open(path)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(fs::TryLockError::WouldBlock) => Ok(None),
        Err(fs::TryLockError::Error(error)) => Err(error),
    }
}

fn read_json<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Replaces a file whole: it is the old or the new after a killed process, never a part. `durable` holds
/// against a power cut too; what only describes running processes need not.
fn write_json(dir: &Path, name: &str, value: &impl Serialize, durable: bool) -> io::Result<()> {
    let temporary = dir.join(format!("{name}.new"));
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(&temporary)?;
    file.write_all(&serde_json::to_vec(value)?)?;
    if durable {
        file.sync_all()?;
    }
    fs::rename(&temporary, dir.join(name))?;
    if durable {
        File::open(dir)?.sync_all()
    } else {
        Ok(())
    }
}

/// Milliseconds since 1970.
pub(crate) fn now() -> Timestamp {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
