//! Starting and stopping a manager.

use crate::control::{Control, Local};
use crate::dispatcher::Dispatcher;
use crate::edge;
use crate::init::{self, InitError, LocalIdentity, NodeFacts};
use crate::leader::LeaderScope;
use crate::planner::{self, Wanted};
use crate::secrets::SecretBox;
use async_trait::async_trait;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use warren_api::ControlPlane;
use warren_client::{ClientError, ErrorKind, SessionAcceptor};
use warren_proto::session::{ManagerMessage, WorkerMessage};
use warren_raft::{Leadership, Member, NoPeers, ProposeError, RaftConfig, RaftError, RaftHandle};
use warren_state::{Actor, ClusterState};
use warren_storage::Disk;
use warren_types::{ContainerId, NodeId, Timestamp};

/// How long the first election of a single manager may take.
const LEADER_WITHIN: Duration = Duration::from_secs(30);

/// Settings of a manager.
pub struct ManagerConfig {
    /// Who this node is.
    pub identity: LocalIdentity,
    /// What it is, for its record.
    pub facts: NodeFacts,
    /// Disk of its data directory.
    pub disk: Arc<dyn Disk>,
    /// The data directory, for people.
    pub data_dir: PathBuf,
}

/// Why a manager cannot start.
#[derive(Debug, thiserror::Error)]
pub enum ManagerError {
    /// The consensus engine.
    #[error(transparent)]
    Raft(#[from] RaftError),
    /// Identity and keys.
    #[error(transparent)]
    Init(#[from] InitError),
    /// The first settings could not be written.
    #[error("the cluster could not be made: {0}")]
    First(#[from] ProposeError),
    /// No leader in time.
    #[error("no leader within {} s: look at the log of this and the other managers", LEADER_WITHIN.as_secs())]
    NoLeader,
}

/// A running manager.
pub struct Manager {
    raft: RaftHandle,
    control: Arc<Control>,
    leading: JoinHandle<()>,
    stop: Option<mpsc::Receiver<warren_types::Duration>>,
}

impl Manager {
    /// Opens the log, takes office when alone, and makes the cluster's first records if there are none.
    ///
    /// # Errors
    /// [`ManagerError`].
    pub async fn start(config: ManagerConfig) -> Result<Self, ManagerError> {
        let ManagerConfig {
            identity,
            facts,
            disk,
            data_dir,
        } = config;
        let raft =
            RaftHandle::start(RaftConfig::new(identity.node), disk, Arc::new(NoPeers)).await?;
        let member = Member {
            name: identity.name.clone(),
            address: facts.address.clone(),
        };
        match raft
            .initialize(BTreeMap::from([(identity.node, member)]))
            .await
        {
            Ok(()) | Err(RaftError::AlreadyInitialized) => {}
            Err(other) => return Err(other.into()),
        }
        lead(&raft).await?;
        if raft.state().settings().is_none() {
            raft.propose(&init::first_command(&identity, &facts)?)
                .await?;
        }
        let local = Local {
            node: identity.node,
            name: identity.name.clone(),
            version: facts.version.clone(),
            data_dir,
            api_address: facts.address.clone(),
            started_at: edge::now(),
        };
        Ok(Self::assemble(raft, Arc::new(identity.secrets), local))
    }

    fn assemble(raft: RaftHandle, secrets: Arc<SecretBox>, local: Local) -> Self {
        let (dispatcher, present) = watch::channel(None);
        let (stop, stopping) = mpsc::channel(1);
        let leading = tokio::spawn(follow_leadership(
            raft.clone(),
            secrets.clone(),
            local.clone(),
            dispatcher,
        ));
        let control = Arc::new(Control {
            raft: raft.clone(),
            secrets,
            dispatcher: present,
            local,
            stop,
        });
        Self {
            raft,
            control,
            leading,
            stop: Some(stopping),
        }
    }

    /// What the API server serves.
    #[must_use]
    pub fn control_plane(&self) -> Arc<dyn ControlPlane> {
        self.control.clone()
    }

    /// Where the worker of the same process opens its session.
    #[must_use]
    pub fn acceptor(&self, node: NodeId) -> Arc<dyn SessionAcceptor> {
        Arc::new(Acceptor {
            dispatcher: self.control.dispatcher.clone(),
            node,
        })
    }

    /// Resolves when somebody asks over the API that the daemon stops; gives the time for open calls.
    pub async fn stop_asked(&mut self) -> warren_types::Duration {
        match self.stop.as_mut() {
            Some(stop) => match stop.recv().await {
                Some(grace) => grace,
                None => std::future::pending().await,
            },
            None => std::future::pending().await,
        }
    }

    /// Stops the planners and the engine.
    pub async fn shutdown(self) {
        self.leading.abort();
        // The tasks of the scope hold handles of the engine; they are gone before it stops.
        let _ = self.leading.await;
        self.raft.shutdown().await;
    }
}

/// Waits until this node leads.
async fn lead(raft: &RaftHandle) -> Result<(), ManagerError> {
    let mut leadership = raft.leadership();
    let leads = |l: &Leadership| l.ready;
    let waited = tokio::time::timeout(LEADER_WITHIN, leadership.wait_for(leads)).await;
    match waited {
        Ok(Ok(_)) => Ok(()),
        _ => Err(ManagerError::NoLeader),
    }
}

/// Opens a scope when this node takes office and drops it when the office is gone.
async fn follow_leadership(
    raft: RaftHandle,
    secrets: Arc<SecretBox>,
    local: Local,
    dispatcher: watch::Sender<Option<Dispatcher>>,
) {
    let mut leadership = raft.leadership();
    let mut scope: Option<(u64, LeaderScope)> = None;
    loop {
        let now = leadership.borrow_and_update().clone();
        let leads = now.ready;
        let same = scope.as_ref().is_some_and(|(term, _)| *term == now.term);
        if !leads && scope.is_some() || leads && !same && scope.is_some() {
            dispatcher.send_replace(None);
            scope = None;
            tracing::info!(term = now.term, "no longer leading");
        }
        if leads && scope.is_none() {
            tracing::info!(term = now.term, "leading");
            let mut fresh = LeaderScope::default();
            dispatcher.send_replace(Some(begin(&raft, &secrets, &local, &mut fresh)));
            scope = Some((now.term, fresh));
        }
        if leadership.changed().await.is_err() {
            return;
        }
    }
}

/// Everything that a leader does (design §6).
fn begin(
    raft: &RaftHandle,
    secrets: &Arc<SecretBox>,
    local: &Local,
    scope: &mut LeaderScope,
) -> Dispatcher {
    let mut last = ContainerId::default();
    let reconcile = move |state: &ClusterState, now: Timestamp, refused: bool| {
        let mut ids = || rising(state, &mut last);
        if !refused {
            let plan = warren_reconciler::plan(state, now, &mut ids);
            return Wanted {
                groups: vec![plan.ops],
                wake_at: plan.wake_at,
            };
        }
        let services: Vec<_> = state.services().map(|s| s.id).collect();
        let plans = services
            .into_iter()
            .map(|id| warren_reconciler::plan_service(state, id, now, &mut ids).ops);
        Wanted {
            groups: plans.collect(),
            wake_at: None,
        }
    };
    scope.spawn(planner::run(
        "reconciler",
        Actor::Reconciler,
        raft.clone(),
        reconcile,
    ));
    let schedule = |state: &ClusterState, _: Timestamp, _: bool| {
        let seed = u64::from_le_bytes(edge::random::<8>());
        let plan = warren_scheduler::plan(state, seed);
        Wanted {
            groups: vec![plan.ops],
            wake_at: None,
        }
    };
    scope.spawn(planner::run(
        "scheduler",
        Actor::Scheduler,
        raft.clone(),
        schedule,
    ));
    Dispatcher::start(raft.clone(), secrets.clone(), local.name.clone(), scope)
}

/// An id above those of all containers, also when two are made in one millisecond or the clock went back:
/// of two containers in one place the younger is told by its id.
fn rising(state: &ClusterState, last: &mut ContainerId) -> ContainerId {
    let newest = state.newest_container().map_or(*last, |id| id.max(*last));
    let fresh = ContainerId(edge::new_id());
    *last = if fresh > newest {
        fresh
    } else {
        ContainerId::from_u128(newest.as_u128() + 1)
    };
    *last
}

/// Takes the session of the worker in the same process.
struct Acceptor {
    dispatcher: watch::Receiver<Option<Dispatcher>>,
    node: NodeId,
}

#[async_trait]
impl SessionAcceptor for Acceptor {
    async fn accept(
        &self,
        inbound: mpsc::Receiver<WorkerMessage>,
        outbound: mpsc::Sender<ManagerMessage>,
    ) -> Result<(), ClientError> {
        let dispatcher = self
            .dispatcher
            .borrow()
            .clone()
            .ok_or_else(|| ClientError {
                kind: ErrorKind::Unavailable,
                message: "this manager does not lead now".to_owned(),
                remedy: "the session is opened again by itself".to_owned(),
            })?;
        let node = self.node;
        tokio::spawn(async move { dispatcher.serve(Some(node), inbound, outbound).await });
        Ok(())
    }
}
