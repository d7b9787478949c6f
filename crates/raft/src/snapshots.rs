//! Snapshots: written in the background, the newest two kept.

use crate::config::IoMode;
use crate::error::RaftError;
use crate::machine::Machine;
use crate::metrics::Meter;
use crate::types::{LogId, SnapshotMeta, Types};
use crate::wire::Wire;
use std::io::BufReader;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use warren_state::ClusterState;
use warren_storage::{
    SNAPSHOTS_KEPT, SnapshotInfo, SnapshotReader, SnapshotSeal, SnapshotStore, SnapshotWriter,
    StorageError,
};

/// Time until a snapshot that failed is tried again.
const RETRY: Duration = Duration::from_secs(30);

/// A snapshot on this node's disk.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    pub(crate) meta: SnapshotMeta,
    pub(crate) info: SnapshotInfo,
}

/// A state that could be made a snapshot of.
#[derive(Debug, Clone)]
pub(crate) struct Candidate {
    pub(crate) state: ClusterState,
    pub(crate) meta: SnapshotMeta,
}

#[derive(Debug, Default)]
struct Inner {
    /// Newest first.
    kept: Vec<Stored>,
    candidate: Option<Candidate>,
    entries: u64,
    bytes: u64,
    error: Option<String>,
}

/// The snapshots of this node.
#[derive(Debug)]
pub(crate) struct Snapshots {
    store: SnapshotStore,
    inner: Mutex<Inner>,
    wanted: Notify,
    thresholds: Mutex<Thresholds>,
    mode: IoMode,
}

/// When a snapshot is due.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Thresholds {
    /// After so many applied entries …
    pub(crate) entries: u64,
    /// … or so many bytes of them …
    pub(crate) bytes: u64,
    /// … or when the log on disk comes near this size, in bytes.
    pub(crate) log_bytes_max: u64,
}

/// The share of the bound of the log, in percent, at which a snapshot is taken early.
const LOG_FULL_PERCENT: u64 = 60;
/// Fewest applied entries between snapshots that are taken because the log is large: a log of few huge segments cannot
/// shrink below them.
const EARLY_ENTRIES: u64 = 16;

impl Snapshots {
    pub(crate) fn new(store: SnapshotStore, thresholds: Thresholds, mode: IoMode) -> Self {
        Self {
            store,
            inner: Mutex::default(),
            wanted: Notify::new(),
            thresholds: Mutex::new(thresholds),
            mode,
        }
    }

    /// Changes when snapshots are due, from now on.
    pub(crate) fn set_thresholds(&self, thresholds: Thresholds) {
        *self
            .thresholds
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = thresholds;
    }

    fn due(&self, entries: u64, bytes: u64, log_bytes: u64) -> bool {
        let limits = *self
            .thresholds
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let log_full = limits.log_bytes_max / 100 * LOG_FULL_PERCENT;
        entries >= limits.entries.max(1)
            || bytes >= limits.bytes.max(1)
            || (log_bytes >= log_full && entries >= EARLY_ENTRIES)
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Finds the snapshot to start from; damaged newer ones are reported in the log.
    pub(crate) fn load(&self, log_first: u64) -> Result<Option<Candidate>, RaftError> {
        let (newest, damaged) = self.store.newest_sound(log_first)?;
        for error in damaged {
            tracing::warn!(%error, "a damaged snapshot is skipped, the log reaches back to before it");
        }
        let (mut kept, mut damaged) = (Vec::new(), Vec::new());
        for (index, info) in self.store.list()? {
            match info {
                Ok(info) if newest.as_ref().is_some_and(|newest| index <= newest.index) => {
                    kept.push(Stored {
                        meta: decode_meta(&info)?,
                        info,
                    });
                }
                Err(error) if !error.is_corrupt() => return Err(error.into()),
                _ => damaged.push(index),
            }
        }
        let candidate = match kept.first() {
            Some(stored) => Some(Candidate {
                state: self.decode(stored)?,
                meta: stored.meta.clone(),
            }),
            None => None,
        };
        self.inner().kept = kept;
        self.store.sweep()?;
        // Nobody needs them, and they must not be counted among the newest two that are kept.
        for index in damaged {
            tracing::warn!(index, "a damaged snapshot is removed");
            self.store.discard(index)?;
        }
        Ok(candidate)
    }

    /// Reads the state of a snapshot without holding others up.
    pub(crate) async fn decode_apart(
        self: &Arc<Self>,
        stored: &Stored,
    ) -> Result<ClusterState, RaftError> {
        if self.mode == IoMode::Task {
            return self.decode(stored);
        }
        let (this, stored) = (Arc::clone(self), stored.clone());
        let decoding = tokio::task::spawn_blocking(move || this.decode(&stored));
        decoding.await.unwrap_or_else(|error| {
            Err(RaftError::Stopped {
                reason: format!("reading a snapshot failed: {error}"),
            })
        })
    }

    /// Reads the state of a snapshot.
    pub(crate) fn decode(&self, stored: &Stored) -> Result<ClusterState, RaftError> {
        let reader = BufReader::new(self.store.read(&stored.info)?);
        ClusterState::read_snapshot(reader).map_err(|error| RaftError::Unreadable {
            what: "state",
            place: format!("snapshot {}", stored.info.index),
            reason: error.to_string(),
        })
    }

    /// The newest snapshot.
    pub(crate) fn newest(&self) -> Option<Stored> {
        self.inner().kept.first().cloned()
    }

    /// Last entry of the older snapshot: the log is kept from behind it on, so that a damaged newest one costs nothing.
    pub(crate) fn log_not_needed_upto(&self) -> Option<LogId> {
        self.inner()
            .kept
            .get(SNAPSHOTS_KEPT - 1)
            .and_then(|stored| stored.meta.last_log_id)
    }

    /// What went wrong with the last snapshot.
    pub(crate) fn error(&self) -> Option<String> {
        self.inner().error.clone()
    }

    /// Notes what was applied, and wakes the writer when a snapshot is due.
    /// `log_bytes` is what the log takes on disk.
    pub(crate) fn note(&self, candidate: Candidate, entries: u64, bytes: u64, log_bytes: u64) {
        let mut inner = self.inner();
        inner.candidate = Some(candidate);
        inner.entries += entries;
        inner.bytes += bytes;
        if self.due(inner.entries, inner.bytes, log_bytes) {
            self.wanted.notify_one();
        }
    }

    /// Has a snapshot written soon, whatever the thresholds.
    pub(crate) fn request(&self) {
        self.wanted.notify_one();
    }

    /// Writes a snapshot of the newest state; none when there is nothing new.
    fn write(&self) -> Result<Option<SnapshotMeta>, StorageError> {
        let (candidate, entries, bytes) = {
            let mut inner = self.inner();
            let Some(candidate) = inner.candidate.clone() else {
                return Ok(None);
            };
            if inner
                .kept
                .first()
                .is_some_and(|newest| newest.meta.last_log_id >= candidate.meta.last_log_id)
            {
                return Ok(None);
            }
            (
                candidate,
                std::mem::take(&mut inner.entries),
                std::mem::take(&mut inner.bytes),
            )
        };
        match self.store_candidate(&candidate) {
            Ok(stored) => Ok(Some(stored.meta)),
            Err(error) => {
                let mut inner = self.inner();
                inner.entries += entries;
                inner.bytes += bytes;
                inner.error = Some(error.to_string());
                Err(error)
            }
        }
    }

    /// Writes a snapshot of a state.
    pub(crate) fn store_candidate(&self, candidate: &Candidate) -> Result<Stored, StorageError> {
        let mut writer = self.begin(&candidate.meta)?;
        candidate
            .state
            .write_snapshot(&mut writer)
            .map_err(|error| {
                // The writer's own error comes back through the encoder.
                error
                    .downcast::<StorageError>()
                    .unwrap_or_else(|error| StorageError::io("write", "snapshot", error))
            })?;
        let stored = Stored {
            meta: candidate.meta.clone(),
            info: writer.finish()?,
        };
        self.keep(stored.clone());
        Ok(stored)
    }

    /// Begins to store a snapshot, made here or received.
    pub(crate) fn begin(&self, meta: &SnapshotMeta) -> Result<SnapshotWriter, StorageError> {
        let index = meta.last_log_id.map_or(0, |id| id.index);
        self.store.begin(index, &meta.encode())
    }

    /// Remembers a snapshot that was stored.
    pub(crate) fn keep(&self, stored: Stored) {
        let mut inner = self.inner();
        inner
            .kept
            .retain(|other| other.info.index != stored.info.index);
        inner.kept.push(stored);
        inner
            .kept
            .sort_by_key(|stored| std::cmp::Reverse(stored.info.index));
        inner.kept.truncate(SNAPSHOTS_KEPT);
        inner.error = None;
    }

    pub(crate) fn seal(&self, stored: &Stored) -> Result<SnapshotSeal, StorageError> {
        self.store.seal(&stored.info)
    }

    pub(crate) fn read(&self, stored: &Stored) -> Result<SnapshotReader, StorageError> {
        self.store.read(&stored.info)
    }
}

fn decode_meta(info: &SnapshotInfo) -> Result<SnapshotMeta, RaftError> {
    SnapshotMeta::decode(info.meta.clone().into()).map_err(|_| RaftError::Unreadable {
        what: "description",
        place: format!("snapshot {}", info.index),
        reason: "it is not a message of this release".to_owned(),
    })
}

/// Writes snapshots when they are due, until told to stop.
pub(crate) async fn run(
    snapshots: Arc<Snapshots>,
    raft: openraft::Raft<Types, Machine>,
    meter: Arc<Meter>,
    mut stop: watch::Receiver<bool>,
) {
    loop {
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => return,
            () = snapshots.wanted.notified() => {}
        }
        let begin = Instant::now();
        let result = match snapshots.mode {
            IoMode::Task => snapshots.write(),
            IoMode::Thread => {
                let snapshots = Arc::clone(&snapshots);
                match tokio::task::spawn_blocking(move || snapshots.write()).await {
                    Ok(result) => result,
                    Err(_) => return,
                }
            }
        };
        match result {
            Ok(None) => {}
            // openraft takes the finished one over and purges the log; it only fails when the engine has stopped.
            Ok(Some(_)) => {
                meter.snapshot.observe(begin.elapsed());
                drop(raft.trigger().snapshot().await);
            }
            Err(error) => {
                tracing::warn!(%error, "cannot write a snapshot, trying again in 30 s; the log grows meanwhile");
                tokio::select! {
                    biased;
                    _ = stop.wait_for(|stop| *stop) => return,
                    () = tokio::time::sleep(RETRY) => snapshots.request(),
                }
            }
        }
    }
}
