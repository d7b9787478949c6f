//! What Warren keeps on disk, and in which order it gets there.
//!
//! Everything goes through the small [`Disk`] trait, so that the same code runs on a real directory
//! ([`RealDisk`]) and, in tests, on a disk that loses unsynced bytes, cuts writes, fills up and flips
//! bits (`FaultyDisk`, feature `testing`). On it stand:
//!
//! - [`Log`]: the segmented, preallocated, checksummed log; one `fdatasync` per batch;
//! - [`AtomicFile`]: a small checksummed file replaced as a whole (votes, formats);
//! - [`SnapshotStore`]: streamed, checksummed snapshots, the newest two kept;
//! - [`Keyring`]: named sealed blobs, readable by the owner only;
//! - [`LocalStore`]: the worker's transactional key-value file;
//! - [`DirGuard`]: one daemon per directory, and never data of a newer version.
//!
//! Three rules hold everywhere. *Durable before acknowledged*: a call that returned `Ok` is still there
//! after a power cut. *Never wrong data*: each byte is covered by a checksum; what is damaged is
//! named (file, offset, remedy), and only a write that was never acknowledged is silently dropped.
//! *Opening reads before it writes*: a directory of a newer version, or a damaged one, is left as it was.

#![forbid(unsafe_code)]

mod atomic;
mod disk;
mod error;
#[cfg(any(test, feature = "testing"))]
mod faulty;
mod guard;
mod keyring;
mod local;
mod log;
mod real;
#[cfg(any(test, feature = "testing"))]
mod rng;
mod sector;
mod snapshot;

#[cfg(any(test, feature = "testing"))]
pub mod conformance;
#[cfg(test)]
mod tests;

pub use atomic::{AtomicFile, MAX_ATOMIC_FILE_BYTES};
pub use disk::{Disk, DiskFile, DiskLock, DiskStats, OpenMode};
pub use error::{Result, StorageError};
#[cfg(any(test, feature = "testing"))]
pub use faulty::{CrashLoss, Damage, FaultyDisk};
pub use guard::{DirGuard, FORMAT_VERSION};
pub use keyring::{Keyring, MAX_KEYRING_ENTRIES};
pub use local::{AssignmentSet, LocalBatch, LocalStore, LocalTable};
pub use log::{Log, LogOptions, LogRecovery, MAX_ENTRY_BYTES, Purged, TornTail};
pub use real::RealDisk;
#[cfg(any(test, feature = "testing"))]
pub use rng::Rng;
pub use snapshot::{
    SNAPSHOTS_KEPT, SnapshotInfo, SnapshotReader, SnapshotSeal, SnapshotStore, SnapshotWriter,
};

/// Bugs that tests switch on to prove that they would be found. Never set outside tests.
#[cfg(any(test, feature = "testing"))]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Bugs {
    /// The log reports an append as durable without asking the disk to sync it.
    pub skip_sync: bool,
}
