//! The engine as others use it.

use crate::batches::Batches;
use crate::config::{IoMode, Profile, RaftConfig};
use crate::error::RaftError;
use crate::hashes::Hashes;
use crate::home::Home;
use crate::log_store::LogStore;
use crate::machine::Machine;
use crate::metrics::{Meter, RaftMetrics};
use crate::pulse::Pulse;
use crate::reads::SuspendWatch;
use crate::snapshots::{Snapshots, Thresholds};
use crate::status::{Leadership, PeerStatus, RaftStatus};
use crate::transport::Transport;
use crate::types::{Member, Types};
use crate::view::{Subscription, View};
use crate::wire::SnapshotHeader;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{ForwardToLeader, InitializeError, RaftError as EngineError};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use warren_state::{ChangeSet, ClusterState, Lagged};
use warren_storage::{DirGuard, Disk, SnapshotWriter};
use warren_types::{NodeId, Revision};

pub(crate) type Engine = openraft::Raft<Types, Machine>;

/// A snapshot of which a part has come.
type Partial = Option<(SnapshotHeader, SnapshotWriter)>;

/// What the engine tells of itself after each turn.
pub(crate) type Figures = openraft::RaftMetrics<Types>;

pub(crate) struct Inner {
    pub(crate) id: NodeId,
    pub(crate) engine: Engine,
    /// Kept, because asking for them anew takes a lock that all share.
    pub(crate) figures: crate::fair::Receiver<Figures>,
    pub(crate) view: Arc<View>,
    pub(crate) log: LogStore,
    pub(crate) snapshots: Arc<Snapshots>,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) home: Arc<Home>,
    pub(crate) pulse: Arc<Pulse>,
    pub(crate) hashes: Arc<Hashes>,
    pub(crate) meter: Arc<Meter>,
    pub(crate) leadership: watch::Receiver<Leadership>,
    pub(crate) permits: Semaphore,
    pub(crate) batches: Arc<Batches>,
    pub(crate) propose_timeout: Duration,
    pub(crate) lease_reads: bool,
    pub(crate) io: IoMode,
    pub(crate) suspend: SuspendWatch,
    pub(crate) partial: Mutex<Partial>,
    #[cfg(any(test, feature = "testing"))]
    pub(crate) bugs: crate::Bugs,
    pub(crate) stop: watch::Sender<bool>,
    pub(crate) running: Mutex<Option<Running>>,
}

impl Inner {
    pub(crate) fn partial(&self) -> MutexGuard<'_, Partial> {
        self.partial.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What ends with the engine.
pub(crate) struct Running {
    pub(crate) guard: DirGuard,
    pub(crate) tasks: Vec<JoinHandle<()>>,
    pub(crate) writer: Option<std::thread::JoinHandle<()>>,
}

/// The engine of this node. Clones are the same engine.
#[derive(Clone)]
pub struct RaftHandle {
    pub(crate) inner: Arc<Inner>,
}

impl fmt::Debug for RaftHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "RaftHandle({}, {:?})",
            self.inner.id,
            *self.inner.leadership.borrow()
        )
    }
}

impl RaftHandle {
    /// Starts the engine on what is on the disk. A directory that another process uses or of a newer release is an error
    /// and left as it was. Damaged files are set aside and fetched from the other managers; when there are none, they are
    /// an error. A single manager makes itself leader at once; see [`RaftHandle::wait_ready`].
    pub async fn start(
        config: RaftConfig,
        disk: Arc<dyn Disk>,
        transport: Arc<dyn Transport>,
    ) -> Result<Self, RaftError> {
        let inner = crate::start::start(config, disk, transport).await?;
        let handle = Self {
            inner: Arc::new(inner),
        };
        handle.elect_if_alone().await?;
        Ok(handle)
    }

    /// A manager that is alone need not wait for an election timeout.
    async fn elect_if_alone(&self) -> Result<(), RaftError> {
        // An answer means that what was found on the disk is known to the metrics, too.
        self.is_initialized().await?;
        let (voters, _) = self.members();
        if voters.len() == 1 && voters.contains_key(&self.inner.id) {
            self.inner
                .engine
                .trigger()
                .elect(false)
                .await
                .map_err(|_| self.stopped())?;
        }
        Ok(())
    }

    /// Begins a cluster with these managers. To be called once, on one of them, before anything else.
    pub async fn initialize(&self, members: BTreeMap<NodeId, Member>) -> Result<(), RaftError> {
        if self.inner.pulse.is_healing() {
            return Err(RaftError::AlreadyInitialized);
        }
        self.inner
            .engine
            .initialize(members)
            .await
            .map_err(|error| match error {
                EngineError::APIError(InitializeError::NotAllowed(_)) => {
                    RaftError::AlreadyInitialized
                }
                EngineError::APIError(InitializeError::NotInMembers(_)) => {
                    RaftError::NotAMember(self.inner.id)
                }
                EngineError::Fatal(_) => self.stopped(),
            })
    }

    /// Whether the node is part of a cluster.
    pub async fn is_initialized(&self) -> Result<bool, RaftError> {
        self.inner
            .engine
            .is_initialized()
            .await
            .map_err(|_| self.stopped())
    }

    /// The newest state applied on this node, in O(1). On the leader after [`RaftHandle::read_barrier`] that is linearizable.
    #[must_use]
    pub fn state(&self) -> Arc<ClusterState> {
        self.inner.view.state()
    }

    /// Woken with each new revision of the state.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<Revision> {
        self.inner.view.changes()
    }

    /// The changes after a revision that are still kept.
    pub fn changes_since(&self, revision: Revision) -> Result<Vec<Arc<ChangeSet>>, Lagged> {
        self.inner.view.since(revision)
    }

    /// A snapshot of the state and then every change.
    #[must_use]
    pub fn subscribe(&self) -> Subscription {
        Subscription::new(&self.inner.view)
    }

    /// Who leads, and whether this node may act as leader.
    #[must_use]
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.inner.leadership.clone()
    }

    /// Returns when this node leads and is ready; an error when the engine stops or the time is over.
    pub async fn wait_ready(&self, limit: Duration) -> Result<Leadership, RaftError> {
        let mut leadership = self.leadership();
        let ready =
            tokio::time::timeout(limit, leadership.wait_for(|leadership| leadership.ready)).await;
        match ready {
            Ok(Ok(leadership)) => Ok(leadership.clone()),
            Ok(Err(_)) => Err(self.stopped()),
            Err(_) if self.failure().is_some() => Err(self.stopped()),
            Err(_) => {
                let leadership = self.inner.leadership.borrow().clone();
                Err(RaftError::NotLeader {
                    leader: leadership.leader,
                    address: String::new(),
                })
            }
        }
    }

    /// Becomes true when this node learns that it is no member any more: from the log, or because a member said so.
    #[must_use]
    pub fn removed(&self) -> watch::Receiver<bool> {
        self.inner.pulse.removed()
    }

    /// Counters and times since the engine was started.
    #[must_use]
    pub fn metrics(&self) -> RaftMetrics {
        let pulse = &self.inner.pulse;
        self.inner.meter.read(
            pulse.leader_changes.load(Ordering::Relaxed),
            pulse.elections.load(Ordering::Relaxed),
        )
    }

    /// The other members as this leader sees them; empty when it does not lead.
    #[must_use]
    pub fn peers(&self) -> BTreeMap<NodeId, PeerStatus> {
        let metrics = self.inner.figures.borrow_watched();
        let (Some(replication), Some(heartbeat)) = (&metrics.replication, &metrics.heartbeat)
        else {
            return BTreeMap::new();
        };
        let membership = metrics.membership_config.membership();
        let last = metrics.last_log_index.map_or(0, |last| last + 1);
        let others = replication.iter().filter(|(id, _)| **id != self.inner.id);
        others
            .map(|(id, matched)| {
                let matched = matched.map(|matched| matched.index);
                let acknowledged = heartbeat.get(id).and_then(Option::as_deref);
                let peer = PeerStatus {
                    matched,
                    lag: last.saturating_sub(matched.map_or(0, |matched| matched + 1)),
                    last_contact: acknowledged.map(openraft::Instant::elapsed),
                    voter: membership.voter_ids().any(|voter| voter == *id),
                    profile: self.inner.pulse.profile_of(*id),
                };
                (*id, peer)
            })
            .collect()
    }

    /// Figures.
    #[must_use]
    pub fn status(&self) -> RaftStatus {
        let inner = &*self.inner;
        let (voters, learners) = self.members();
        let peers = self.peers();
        let metrics = inner.figures.borrow_watched();
        let newest = inner.snapshots.newest();
        let shared = &inner.log.shared;
        let (last, purged) = (shared.last_index(), shared.purged_index());
        RaftStatus {
            id: inner.id,
            profile: inner.pulse.profile,
            leadership: inner.leadership.borrow().clone(),
            last_index: last,
            committed_index: metrics.local_committed.map(|id| id.index),
            applied_index: inner.view.applied_index(),
            snapshot_index: newest
                .as_ref()
                .and_then(|stored| stored.meta.last_log_id)
                .map(|id| id.index),
            purged_index: purged,
            log_entries: last
                .map_or(0, |last| last + 1)
                .saturating_sub(purged.map_or(0, |purged| purged + 1)),
            log_bytes: shared.log_bytes(),
            snapshot_bytes: newest.map_or(0, |stored| stored.info.bytes),
            voters,
            learners,
            peers,
            healing: inner.pulse.is_healing(),
            leader_changes: inner.pulse.leader_changes.load(Ordering::Relaxed),
            last_election: inner.pulse.since_change(),
            disk_full: !shared.has_room(),
            snapshot_error: inner.snapshots.error(),
            stopped: self.failure().or_else(|| {
                metrics
                    .running_state
                    .as_ref()
                    .err()
                    .map(ToString::to_string)
            }),
            disk: inner.disk.stats(),
        }
    }

    /// Changes when snapshots are taken (TR-04, PE-03): after so many applied entries, after so many bytes of them, and
    /// before the log on disk exceeds `log_bytes_max`.
    pub fn set_thresholds(&self, entries: u64, bytes: u64, log_bytes_max: u64) {
        self.inner.snapshots.set_thresholds(Thresholds {
            entries,
            bytes,
            log_bytes_max,
        });
    }

    /// The times that the engine runs with. They stay as long as it runs.
    #[must_use]
    pub fn profile(&self) -> Profile {
        self.inner.pulse.profile
    }

    /// Leaves the times for the next start on this directory; nothing is written when they are those that were left before.
    /// Managers may run different ones meanwhile: the leader counts on the shortest lease that a follower grants, and is heard
    /// as often as that one needs.
    pub fn keep_profile(&self, profile: Profile) -> Result<(), RaftError> {
        Ok(self
            .inner
            .home
            .change(|record| record.profile = Some(profile))?)
    }

    /// Has a snapshot written soon, whatever the thresholds.
    pub fn request_snapshot(&self) {
        self.inner.snapshots.request();
    }

    /// Stops the engine cleanly and gives the directory free. Afterwards everything answers "stopped".
    pub async fn shutdown(&self) {
        let running = self
            .inner
            .running
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let Some(running) = running else { return };
        self.inner.view.fail("it was shut down");
        self.inner
            .log
            .shared
            .stopping
            .store(true, Ordering::Release);
        self.inner.stop.send_replace(true);
        // Errors here mean that a part has ended already, which is what is wanted.
        let _ = self.inner.engine.shutdown().await;
        self.inner.log.close().await;
        for task in running.tasks {
            let _ = task.await;
        }
        if let Some(writer) = running.writer {
            // It has answered the close request, so this is only the end of the thread.
            let _ = writer.join();
        }
        drop(running.guard);
    }

    pub(crate) fn failure(&self) -> Option<String> {
        self.inner.view.failure()
    }

    pub(crate) fn stopped(&self) -> RaftError {
        RaftError::Stopped {
            reason: self
                .failure()
                .unwrap_or_else(|| "for an unknown reason, see the log of the daemon".to_owned()),
        }
    }
}

pub(crate) fn target(forward: ForwardToLeader<Types>) -> (Option<NodeId>, String) {
    (
        forward.leader_id,
        forward
            .leader_node
            .map_or_else(String::new, |member| member.address),
    )
}
