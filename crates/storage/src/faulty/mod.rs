//! A disk in memory that behaves as badly as real ones may.
//!
//! Everything is decided by the seed. Per file it keeps what is durable and the list of what was
//! done since the last sync; a crash keeps any part of that list, tearing writes between sectors. The
//! same holds per directory for names, where a prefix of the changes survives (journals are ordered).
//! A sector of 512 bytes is written whole or not at all, as on every disk.

mod damage;
mod state;

use crate::disk::{Disk, DiskFile, DiskLock, DiskStats, OpenMode, parent};
use crate::rng::Rng;
use crate::sector::SECTOR_BYTES;
use crate::{Result, StorageError};
pub use damage::Damage;
use state::{DataOp, Inode, NameOp, State};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What a crash did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CrashLoss {
    /// Writes and resizes that were lost or torn.
    pub data_ops_lost: u64,
    /// Creations, renames and removals that were undone.
    pub names_lost: u64,
}

/// The disk. Clones are the same disk.
#[derive(Debug, Clone)]
pub struct FaultyDisk {
    shared: Arc<Mutex<State>>,
}

impl FaultyDisk {
    /// An empty disk whose faults follow from the seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let state = State {
            rng: Rng::new(seed),
            down: false,
            life: 0,
            ops: 0,
            crash_at: None,
            fail_sync_in: None,
            capacity: None,
            inodes: BTreeMap::new(),
            next_inode: 1,
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            name_ops: Vec::new(),
            locks: BTreeSet::new(),
            stats: DiskStats::default(),
        };
        Self {
            shared: Arc::new(Mutex::new(state)),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Power is lost and comes back: an arbitrary part of what was not synced is gone, open files
    /// stay dead, locks are free.
    pub fn crash(&self) -> CrashLoss {
        let state = &mut *self.state();
        let mut loss = CrashLoss::default();
        let rng = &mut state.rng;
        for inode in state.inodes.values_mut() {
            loss.data_ops_lost += inode.crash(rng);
        }
        let mut kept: BTreeMap<String, u64> = BTreeMap::new();
        let ops = std::mem::take(&mut state.name_ops);
        for op in &ops {
            *kept.entry(op.dir().to_owned()).or_default() += 1;
        }
        for count in kept.values_mut() {
            *count = rng.below(*count + 1);
        }
        for op in &ops {
            let left = kept.entry(op.dir().to_owned()).or_default();
            if *left > 0 {
                *left -= 1;
                op.apply(&mut state.durable_names);
            } else {
                loss.names_lost += 1;
            }
        }
        state.names = state.durable_names.clone();
        let live: BTreeSet<u64> = state.names.values().copied().collect();
        state.inodes.retain(|id, _| live.contains(id));
        state.locks.clear();
        state.life += 1;
        state.down = false;
        state.crash_at = None;
        loss
    }

    /// The process is killed, the machine goes on: what was written stays, synced or not; open files stay dead,
    /// locks are free.
    pub fn kill(&self) {
        let state = &mut *self.state();
        state.locks.clear();
        state.life += 1;
        state.crash_at = None;
    }

    /// Lets the power go at the `ops`-th changing operation from now on (1 = the next one).
    pub fn crash_after(&self, ops: u64) {
        let state = &mut *self.state();
        state.crash_at = Some(state.ops + ops.max(1));
    }

    /// Takes [`FaultyDisk::crash_after`] back.
    pub fn disarm(&self) {
        self.state().crash_at = None;
    }

    /// Whether the power is gone and [`FaultyDisk::crash`] has to be called.
    #[must_use]
    pub fn is_down(&self) -> bool {
        self.state().down
    }

    /// Number of changing operations so far.
    #[must_use]
    pub fn ops(&self) -> u64 {
        self.state().ops
    }

    /// Sets the size of the disk in bytes, `None` for endless.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.state().capacity = bytes;
    }

    /// Bytes in use.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.state().used()
    }

    /// Lets the `nth` sync from now on fail with an IO error (1 = the next one).
    pub fn fail_sync(&self, nth: u64) {
        self.state().fail_sync_in = Some(nth.max(1));
    }

    /// All files with their lengths in bytes.
    #[must_use]
    pub fn files(&self) -> Vec<(String, u64)> {
        let state = self.state();
        state
            .names
            .iter()
            .map(|(path, inode)| {
                (
                    path.clone(),
                    state
                        .inodes
                        .get(inode)
                        .map_or(0, |inode| inode.data.len() as u64),
                )
            })
            .collect()
    }

    /// Changes stored bytes behind the back of everything: `change` gets the content of the file.
    /// Returns whether there is such a file.
    pub fn tamper(&self, path: &str, change: impl FnOnce(&mut Vec<u8>)) -> bool {
        let state = &mut *self.state();
        let Some(inode) = state
            .names
            .get(path)
            .and_then(|id| state.inodes.get_mut(id))
        else {
            return false;
        };
        inode.sync();
        change(&mut inode.data);
        inode.durable = inode.data.clone();
        true
    }

    /// A disk of its own with the same content, nothing open, all of it durable.
    #[must_use]
    pub fn copy(&self, seed: u64) -> Self {
        let copy = Self::new(seed);
        {
            let from = self.state();
            let mut to = copy.state();
            to.names = from.names.clone();
            to.durable_names = from.names.clone();
            to.next_inode = from.next_inode;
            to.inodes = from
                .inodes
                .iter()
                .map(|(id, inode)| {
                    (
                        *id,
                        Inode {
                            data: inode.data.clone(),
                            durable: inode.data.clone(),
                            pending: Vec::new(),
                        },
                    )
                })
                .collect();
        }
        copy
    }
}

#[derive(Debug)]
struct FaultyFile {
    disk: FaultyDisk,
    inode: u64,
    life: u64,
    name: String,
}

impl FaultyFile {
    fn with<T>(&self, run: impl FnOnce(&mut State) -> Result<T>) -> Result<T> {
        let state = &mut *self.disk.state();
        if state.down || state.life != self.life {
            return Err(StorageError::PowerLost);
        }
        state.inodes.entry(self.inode).or_default();
        run(state)
    }

    fn full(&self, op: &'static str) -> StorageError {
        StorageError::Full {
            op,
            file: self.name.clone(),
        }
    }

    /// Runs an operation that may need `new_len` bytes; on a full disk, what fits of it.
    fn grow(
        &self,
        op: &'static str,
        new_len: usize,
        run: impl FnOnce(&mut State, usize) -> Option<DataOp>,
    ) -> Result<()> {
        self.with(|state| {
            let dying = state.tick()?;
            let len = state.inodes[&self.inode].data.len();
            let extra = new_len.saturating_sub(len) as u64;
            let room = state
                .capacity
                .map_or(u64::MAX, |capacity| capacity.saturating_sub(state.used()));
            let missing = usize::try_from(extra.saturating_sub(room)).unwrap_or(usize::MAX);
            if let (Some(op), Some(inode)) =
                (run(state, missing), state.inodes.get_mut(&self.inode))
            {
                inode.run(op);
            }
            match (dying, missing) {
                (true, _) => Err(StorageError::PowerLost),
                (false, 0) => Ok(()),
                (false, _) => Err(self.full(op)),
            }
        })
    }
}

fn to_usize(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

impl DiskFile for FaultyFile {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.with(|state| {
            let data = &state.inodes[&self.inode].data;
            let start = to_usize(offset);
            match start
                .checked_add(buf.len())
                .and_then(|end| data.get(start..end))
            {
                Some(bytes) => {
                    buf.copy_from_slice(bytes);
                    Ok(())
                }
                None => Err(StorageError::io(
                    "read",
                    &self.name,
                    io::ErrorKind::UnexpectedEof.into(),
                )),
            }
        })
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> Result<()> {
        let offset = to_usize(offset);
        self.grow("write", offset + data.len(), |state, missing| {
            state.stats.writes += 1;
            state.stats.written_bytes += data.len() as u64;
            let fits = data.len().saturating_sub(missing);
            // What a full disk still takes ends at a block.
            let fits = if missing == 0 {
                fits
            } else {
                ((offset + fits) / SECTOR_BYTES * SECTOR_BYTES).saturating_sub(offset)
            };
            (fits > 0).then(|| DataOp::Write {
                offset,
                bytes: data[..fits].to_vec(),
            })
        })
    }

    fn len(&self) -> Result<u64> {
        self.with(|state| Ok(state.inodes[&self.inode].data.len() as u64))
    }

    fn set_len(&self, len: u64) -> Result<()> {
        let len = to_usize(len);
        self.grow("resize", len, |_, missing| {
            (missing == 0).then_some(DataOp::SetLen(len))
        })
    }

    fn preallocate(&self, len: u64) -> Result<()> {
        let len = to_usize(len);
        self.grow("take space for", len, |state, missing| {
            let longer = state.inodes[&self.inode].data.len() < len;
            (missing == 0 && longer).then_some(DataOp::SetLen(len))
        })
    }

    fn sync_data(&self) -> Result<()> {
        self.with(|state| {
            let dying = state.tick()?;
            state.stats.syncs += 1;
            if let Some(left) = state.fail_sync_in.as_mut() {
                *left -= 1;
                if *left == 0 {
                    state.fail_sync_in = None;
                    return Err(StorageError::io(
                        "sync",
                        &self.name,
                        io::Error::from_raw_os_error(5),
                    ));
                }
            }
            let reaches_the_disk = !dying || state.rng.chance(50);
            if let Some(inode) = state
                .inodes
                .get_mut(&self.inode)
                .filter(|_| reaches_the_disk)
            {
                inode.sync();
            }
            if dying {
                Err(StorageError::PowerLost)
            } else {
                Ok(())
            }
        })
    }

    fn name(&self) -> &str {
        &self.name
    }
}

#[derive(Debug)]
struct FaultyLock {
    disk: FaultyDisk,
    path: String,
    life: u64,
}

impl DiskLock for FaultyLock {}

impl Drop for FaultyLock {
    fn drop(&mut self) {
        let mut state = self.disk.state();
        if state.life == self.life {
            state.locks.remove(&self.path);
        }
    }
}

impl Disk for FaultyDisk {
    fn open(&self, path: &str, mode: OpenMode) -> Result<Box<dyn DiskFile>> {
        let state = &mut *self.state();
        if state.down {
            return Err(StorageError::PowerLost);
        }
        if mode == OpenMode::CreateSecret && state.names.contains_key(path) {
            state.name_op(NameOp::Unset {
                path: path.to_owned(),
            })?;
        }
        let known = state.names.get(path).copied();
        let inode = match (known, mode) {
            (Some(inode), _) => inode,
            (None, OpenMode::Read | OpenMode::Write) => {
                return Err(StorageError::NotFound {
                    file: path.to_owned(),
                });
            }
            (None, OpenMode::Create | OpenMode::CreateSecret) => {
                let inode = state.next_inode;
                state.next_inode += 1;
                state.inodes.insert(inode, Inode::default());
                state.name_op(NameOp::Set {
                    path: path.to_owned(),
                    inode,
                })?;
                inode
            }
        };
        Ok(Box::new(FaultyFile {
            disk: self.clone(),
            inode,
            life: state.life,
            name: path.to_owned(),
        }))
    }

    fn rename(&self, from: &str, to: &str) -> Result<()> {
        let state = &mut *self.state();
        if !state.names.contains_key(from) {
            return Err(StorageError::NotFound {
                file: from.to_owned(),
            });
        }
        state.name_op(NameOp::Rename {
            from: from.to_owned(),
            to: to.to_owned(),
        })
    }

    fn remove(&self, path: &str) -> Result<()> {
        let state = &mut *self.state();
        if !state.names.contains_key(path) {
            return if state.down {
                Err(StorageError::PowerLost)
            } else {
                Ok(())
            };
        }
        state.name_op(NameOp::Unset {
            path: path.to_owned(),
        })
    }

    fn list(&self, dir: &str) -> Result<Vec<String>> {
        let state = self.state();
        if state.down {
            return Err(StorageError::PowerLost);
        }
        let inside = state.names.keys().filter(|path| parent(path) == dir);
        Ok(inside
            .map(|path| path.rsplit('/').next().unwrap_or(path).to_owned())
            .collect())
    }

    fn create_dir_all(&self, _dir: &str) -> Result<()> {
        // The trait promises directories durably, so there is nothing to lose.
        if self.state().down {
            Err(StorageError::PowerLost)
        } else {
            Ok(())
        }
    }

    fn sync_dir(&self, dir: &str) -> Result<()> {
        let state = &mut *self.state();
        let dying = state.tick()?;
        state.stats.syncs += 1;
        if !dying || state.rng.chance(50) {
            let (ours, others): (Vec<_>, Vec<_>) =
                state.name_ops.drain(..).partition(|op| op.dir() == dir);
            state.name_ops = others;
            for op in ours {
                op.apply(&mut state.durable_names);
            }
        }
        if dying {
            Err(StorageError::PowerLost)
        } else {
            Ok(())
        }
    }

    fn lock(&self, path: &str) -> Result<Box<dyn DiskLock>> {
        let state = &mut *self.state();
        if state.down {
            return Err(StorageError::PowerLost);
        }
        if !state.locks.insert(path.to_owned()) {
            return Err(StorageError::Locked {
                file: path.to_owned(),
                pid: Some(std::process::id()),
            });
        }
        Ok(Box::new(FaultyLock {
            disk: self.clone(),
            path: path.to_owned(),
            life: state.life,
        }))
    }

    fn describe(&self, path: &str) -> String {
        path.to_owned()
    }

    fn stats(&self) -> DiskStats {
        self.state().stats
    }
}
