//! What the faulty disk holds: contents, names, and what of both is not durable yet.

use crate::disk::{DiskStats, parent};
use crate::rng::Rng;
use crate::sector::SECTOR_BYTES;
use crate::{Result, StorageError};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug)]
pub(super) struct State {
    pub(super) rng: Rng,
    pub(super) down: bool,
    pub(super) life: u64,
    pub(super) ops: u64,
    pub(super) crash_at: Option<u64>,
    pub(super) fail_sync_in: Option<u64>,
    pub(super) capacity: Option<u64>,
    pub(super) inodes: BTreeMap<u64, Inode>,
    pub(super) next_inode: u64,
    pub(super) names: BTreeMap<String, u64>,
    pub(super) durable_names: BTreeMap<String, u64>,
    pub(super) name_ops: Vec<NameOp>,
    pub(super) locks: BTreeSet<String>,
    pub(super) stats: DiskStats,
}

#[derive(Debug, Default, Clone)]
pub(super) struct Inode {
    pub(super) data: Vec<u8>,
    pub(super) durable: Vec<u8>,
    pub(super) pending: Vec<DataOp>,
}

#[derive(Debug, Clone)]
pub(super) enum DataOp {
    Write { offset: usize, bytes: Vec<u8> },
    SetLen(usize),
}

#[derive(Debug, Clone)]
pub(super) enum NameOp {
    Set { path: String, inode: u64 },
    Unset { path: String },
    Rename { from: String, to: String },
}

impl NameOp {
    pub(super) fn dir(&self) -> &str {
        match self {
            Self::Set { path, .. } | Self::Unset { path } => parent(path),
            Self::Rename { to, .. } => parent(to),
        }
    }

    pub(super) fn apply(&self, names: &mut BTreeMap<String, u64>) {
        match self {
            Self::Set { path, inode } => {
                names.insert(path.clone(), *inode);
            }
            Self::Unset { path } => {
                names.remove(path);
            }
            Self::Rename { from, to } => {
                if let Some(inode) = names.remove(from) {
                    names.insert(to.clone(), inode);
                }
            }
        }
    }
}

impl DataOp {
    pub(super) fn apply(&self, data: &mut Vec<u8>) {
        match self {
            Self::Write { offset, bytes } => {
                let end = offset + bytes.len();
                if data.len() < end {
                    data.resize(end, 0);
                }
                data[*offset..end].copy_from_slice(bytes);
            }
            Self::SetLen(len) => data.resize(*len, 0),
        }
    }
}

impl Inode {
    pub(super) fn run(&mut self, op: DataOp) {
        op.apply(&mut self.data);
        self.pending.push(op);
    }

    pub(super) fn sync(&mut self) {
        for op in self.pending.drain(..) {
            op.apply(&mut self.durable);
        }
    }

    /// Loses an arbitrary part of what was not synced; returns how many operations were hurt.
    pub(super) fn crash(&mut self, rng: &mut Rng) -> u64 {
        let pending = std::mem::take(&mut self.pending);
        let count = pending.len() as u64;
        let mut lost = 0;
        let mode = rng.below(4);
        let keep = rng.below(count + 1);
        for (at, op) in pending.iter().enumerate() {
            match mode {
                0 => lost += 1,
                1 => op.apply(&mut self.durable),
                2 if (at as u64) < keep => op.apply(&mut self.durable),
                2 => {
                    lost += 1;
                    if at as u64 == keep {
                        tear(op, rng, &mut self.durable);
                    }
                }
                _ if rng.chance(50) => op.apply(&mut self.durable),
                _ => {
                    lost += 1;
                    tear(op, rng, &mut self.durable);
                }
            }
        }
        self.data = self.durable.clone();
        lost
    }
}

/// Applies some of the sectors of a write.
fn tear(op: &DataOp, rng: &mut Rng, data: &mut Vec<u8>) {
    let DataOp::Write { offset, bytes } = op else {
        return;
    };
    let mut at = 0;
    while at < bytes.len() {
        let to_boundary = SECTOR_BYTES - (offset + at) % SECTOR_BYTES;
        let end = (at + to_boundary).min(bytes.len());
        if rng.chance(50) {
            DataOp::Write {
                offset: offset + at,
                bytes: bytes[at..end].to_vec(),
            }
            .apply(data);
        }
        at = end;
    }
}

impl State {
    pub(super) fn used(&self) -> u64 {
        self.names
            .values()
            .filter_map(|inode| self.inodes.get(inode))
            .map(|inode| inode.data.len() as u64)
            .sum()
    }

    /// Counts a changing operation; true when the power goes with it.
    pub(super) fn tick(&mut self) -> Result<bool> {
        if self.down {
            return Err(StorageError::PowerLost);
        }
        self.ops += 1;
        if self.crash_at.is_some_and(|at| self.ops >= at) {
            self.down = true;
            self.crash_at = None;
            return Ok(true);
        }
        Ok(false)
    }

    pub(super) fn name_op(&mut self, op: NameOp) -> Result<()> {
        let dying = self.tick()?;
        op.apply(&mut self.names);
        self.name_ops.push(op);
        if dying {
            Err(StorageError::PowerLost)
        } else {
            Ok(())
        }
    }
}
