//! The engine as others use it.

use crate::config::{IoMode, RaftConfig};
use crate::error::{ProposeError, RaftError, ReadError};
use crate::io::Writer;
use crate::log_store::{LogShared, LogStore};
use crate::machine::Machine;
use crate::network::Network;
use crate::snapshots::{self, Snapshots};
use crate::status::{Leadership, RaftStatus};
use crate::transport::Transport;
use crate::types::{CommandBytes, Member, Outcome, Types};
use crate::view::{Subscription, View};
use openraft::ReadPolicy;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{
    ClientWriteError, ForwardToLeader, InitializeError, LinearizableReadError,
    RaftError as EngineError,
};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use warren_state::{Applied, ChangeSet, ClusterState, Command, Lagged};
use warren_storage::{DirGuard, Disk, Log, LogOptions, SnapshotStore};
use warren_types::{NodeId, Revision};

/// Most proposals under way at a time.
pub const MAX_PROPOSALS_WAITING: usize = 4_096;
/// Largest encoded command, in bytes.
pub const MAX_COMMAND_BYTES: usize = 8 * 1024 * 1024;

type Engine = openraft::Raft<Types, Machine>;

pub(crate) struct Inner {
    id: NodeId,
    pub(crate) engine: Engine,
    view: Arc<View>,
    log: LogStore,
    pub(crate) snapshots: Arc<Snapshots>,
    disk: Arc<dyn Disk>,
    leadership: watch::Receiver<Leadership>,
    permits: Semaphore,
    propose_timeout: Duration,
    stop: watch::Sender<bool>,
    running: Mutex<Option<Running>>,
}

/// What ends with the engine.
struct Running {
    guard: DirGuard,
    tasks: Vec<JoinHandle<()>>,
    writer: Option<std::thread::JoinHandle<()>>,
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
    /// Starts the engine on what is on the disk. A directory that another process uses, of a newer release, or
    /// damaged, is an error and left as it was. A single manager makes itself leader at once; see [`RaftHandle::wait_ready`].
    pub async fn start(
        config: RaftConfig,
        disk: Arc<dyn Disk>,
        transport: Arc<dyn Transport>,
    ) -> Result<Self, RaftError> {
        let settings = config
            .openraft()
            .validate()
            .map_err(|error| RaftError::Config(error.to_string()))?;
        let guard = DirGuard::acquire(&disk, &config.dir, "raft log")?;
        let options = LogOptions::new(config.segment_bytes);
        #[cfg(any(test, feature = "testing"))]
        let options = options.with_bugs(config.bugs.storage);
        let (log, recovery) =
            Log::open(Arc::clone(&disk), &format!("{}/log", config.dir), options)?;
        if let Some(torn) = &recovery.torn {
            tracing::info!(
                ?torn,
                "removed a write that a crash had cut off; it was never acknowledged"
            );
        }
        let store = SnapshotStore::open(Arc::clone(&disk), &format!("{}/snapshots", config.dir))?;
        let snapshots = Arc::new(Snapshots::new(
            store,
            config.snapshot_entries,
            config.snapshot_bytes,
        ));
        let start = snapshots.load(log.first_index())?;
        let (state, applied) = start.as_ref().map_or_else(Default::default, |start| {
            (start.state.clone(), start.meta.last_log_id)
        });
        let view = Arc::new(View::new(state, applied));
        let machine = Machine::new(
            Arc::clone(&view),
            Arc::clone(&snapshots),
            start,
            #[cfg(any(test, feature = "testing"))]
            config.bugs,
        );
        let shared = LogShared::new(
            log,
            Arc::clone(&view),
            #[cfg(any(test, feature = "testing"))]
            config.bugs,
        )?;
        let (log, writer, mut tasks) = start_writer(shared, &snapshots, config.io)?;
        let network = Network {
            id: config.id,
            transport,
            snapshots: Arc::clone(&snapshots),
        };
        let engine = Engine::new(config.id, Arc::new(settings), network, log.clone(), machine)
            .await
            .map_err(|error| RaftError::Stopped {
                reason: view.failure().unwrap_or_else(|| error.to_string()),
            })?;

        let (stop, stopped) = watch::channel(false);
        let (leader_tx, leadership) = watch::channel(Leadership::default());
        tasks.push(tokio::spawn(watch_leadership(
            config.id,
            engine.clone(),
            Arc::clone(&view),
            leader_tx,
            stopped.clone(),
        )));
        tasks.push(tokio::spawn(snapshots::run(
            Arc::clone(&snapshots),
            engine.clone(),
            config.io,
            stopped,
        )));
        let inner = Inner {
            id: config.id,
            engine,
            view,
            log,
            snapshots,
            disk,
            leadership,
            permits: Semaphore::new(MAX_PROPOSALS_WAITING),
            propose_timeout: config.propose_timeout,
            stop,
            running: Mutex::new(Some(Running {
                guard,
                tasks,
                writer,
            })),
        };
        let handle = Self {
            inner: Arc::new(inner),
        };
        handle.elect_if_alone().await?;
        Ok(handle)
    }

    /// A manager that is alone need not wait for an election timeout.
    async fn elect_if_alone(&self) -> Result<(), RaftError> {
        let status = self.status();
        if status.voters.len() == 1 && status.voters.contains_key(&self.inner.id) {
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

    /// Proposes a command. When this returns `Ok` it is durable on a quorum, applied here, and visible in [`RaftHandle::state`].
    /// Proposals made at the same time share one write.
    pub async fn propose(&self, command: &Command) -> Result<Applied, ProposeError> {
        let inner = &*self.inner;
        let bytes = command.encode();
        if bytes.len() > MAX_COMMAND_BYTES {
            return Err(ProposeError::TooLarge {
                bytes: bytes.len(),
                limit: MAX_COMMAND_BYTES,
            });
        }
        let _permit = inner
            .permits
            .try_acquire()
            .map_err(|_| ProposeError::Overloaded {
                limit: MAX_PROPOSALS_WAITING,
            })?;
        let mut held = inner.log.shared.held();
        if !inner.log.shared.has_room() && (*held.borrow() || !inner.log.probe().await) {
            return Err(self
                .failure()
                .map_or(ProposeError::DiskFull { maybe: false }, |reason| {
                    ProposeError::Stopped { reason }
                }));
        }
        let result = tokio::select! {
            biased;
            result = inner.engine.client_write(CommandBytes(bytes.into())) => result,
            Ok(_) = held.wait_for(|held| *held) => return Err(ProposeError::DiskFull { maybe: true }),
            () = tokio::time::sleep(inner.propose_timeout) => return Err(ProposeError::NoQuorum),
        };
        match result {
            Ok(response) => match response.data {
                Outcome::Applied(applied) => Ok(applied),
                Outcome::Rejected(rejection) => Err(ProposeError::Rejected(rejection)),
                // openraft answers a command with what applying that command gave.
                Outcome::Nothing => Err(ProposeError::Uncertain),
            },
            Err(EngineError::APIError(ClientWriteError::ForwardToLeader(forward))) => {
                let (leader, address) = target(forward);
                Err(ProposeError::NotLeader { leader, address })
            }
            Err(EngineError::APIError(_)) => Err(ProposeError::Uncertain),
            Err(EngineError::Fatal(error)) => Err(ProposeError::Stopped {
                reason: self.failure().unwrap_or_else(|| error.to_string()),
            }),
        }
    }

    /// Returns when [`RaftHandle::state`] holds everything that was acknowledged anywhere before the call. Only the leader can.
    pub async fn read_barrier(&self) -> Result<(), ReadError> {
        let barrier = self.inner.engine.ensure_linearizable(ReadPolicy::ReadIndex);
        match tokio::time::timeout(self.inner.propose_timeout, barrier).await {
            Err(_) => Err(ReadError::NoQuorum),
            Ok(Ok(_)) => Ok(()),
            Ok(Err(EngineError::APIError(LinearizableReadError::ForwardToLeader(forward)))) => {
                let (leader, address) = target(forward);
                Err(ReadError::NotLeader { leader, address })
            }
            Ok(Err(EngineError::APIError(_))) => Err(ReadError::NoQuorum),
            Ok(Err(EngineError::Fatal(error))) => Err(ReadError::Stopped {
                reason: self.failure().unwrap_or_else(|| error.to_string()),
            }),
        }
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

    /// Figures.
    #[must_use]
    pub fn status(&self) -> RaftStatus {
        let inner = &*self.inner;
        let metrics = inner.engine.metrics();
        let metrics = metrics.borrow_watched();
        let membership = metrics.membership_config.membership();
        let voters: BTreeSet<NodeId> = membership.voter_ids().collect();
        let (voting, learning) = membership
            .nodes()
            .map(|(id, member)| (*id, member.clone()))
            .partition(|(id, _)| voters.contains(id));
        let newest = inner.snapshots.newest();
        RaftStatus {
            id: inner.id,
            leadership: inner.leadership.borrow().clone(),
            last_index: inner.log.shared.last_index(),
            committed_index: metrics.local_committed.map(|id| id.index),
            applied_index: inner.view.applied_index(),
            snapshot_index: newest
                .as_ref()
                .and_then(|stored| stored.meta.last_log_id)
                .map(|id| id.index),
            purged_index: inner.log.shared.purged_index(),
            log_bytes: inner.log.shared.log_bytes(),
            snapshot_bytes: newest.map_or(0, |stored| stored.info.bytes),
            voters: voting,
            learners: learning,
            disk_full: !inner.log.shared.has_room(),
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

    fn failure(&self) -> Option<String> {
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

type Started = (
    LogStore,
    Option<std::thread::JoinHandle<()>>,
    Vec<JoinHandle<()>>,
);

fn start_writer(
    shared: LogShared,
    snapshots: &Arc<Snapshots>,
    mode: IoMode,
) -> Result<Started, RaftError> {
    let shared = Arc::new(shared);
    // Bounded by the proposals that openraft has under way.
    let (ops, requests) = tokio::sync::mpsc::unbounded_channel();
    let log = LogStore::new(Arc::clone(&shared), Arc::clone(snapshots), ops);
    let writer = Writer::new(shared, requests);
    match mode {
        IoMode::Task => Ok((log, None, vec![tokio::spawn(writer.run_task())])),
        IoMode::Thread => {
            let spawned = std::thread::Builder::new()
                .name("warren-log".to_owned())
                .spawn(move || writer.run_thread());
            let thread = spawned.map_err(|error| RaftError::Stopped {
                reason: format!("no thread for the log: {error}"),
            })?;
            Ok((log, Some(thread), Vec::new()))
        }
    }
}

/// Turns openraft's metrics into [`Leadership`].
async fn watch_leadership(
    id: NodeId,
    engine: Engine,
    view: Arc<View>,
    leadership: watch::Sender<Leadership>,
    mut stop: watch::Receiver<bool>,
) {
    let mut metrics = engine.metrics();
    loop {
        let now = {
            let metrics = metrics.borrow_and_update();
            if let Err(error) = &metrics.running_state {
                view.fail(&error.to_string());
            }
            let alive = metrics.running_state.is_ok();
            let is_leader = alive
                && metrics.current_leader == Some(id)
                && metrics.state == openraft::ServerState::Leader;
            let applied_own_term = metrics
                .last_applied
                .is_some_and(|last| last.leader_id.term == metrics.current_term);
            Leadership {
                leader: metrics.current_leader.filter(|_| alive),
                term: metrics.current_term,
                is_leader,
                // The first entry of a term follows everything that earlier leaders acknowledged.
                ready: is_leader && applied_own_term && view.applied_term() == metrics.current_term,
            }
        };
        leadership.send_if_modified(|before| {
            let news = *before != now;
            *before = now;
            news
        });
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => break,
            changed = metrics.changed() => if changed.is_err() { break },
        }
    }
    leadership.send_modify(|now| {
        *now = Leadership {
            term: now.term,
            ..Leadership::default()
        }
    });
}
