//! Starting and stopping a manager.

use crate::control::{Control, JoinGate, Local};
use crate::dispatcher::Dispatcher;
use crate::edge;
use crate::identity::LocalIdentity;
use crate::init::{self, InitError, NodeFacts};
use crate::keys::KeyStore;
use crate::leader::LeaderScope;
use crate::planner;
use crate::planners::{Reconcile, Schedule};
use crate::quorum::{autopilot, keeper::Keeper, peers::Peers, plane::Plane, router, waiting};
use crate::secrets::SecretBox;
use crate::sessions::Acceptor;
use crate::telemetry::Told;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use warren_api::metrics_http::Telemetry;
use warren_api::{ControlPlane, Planes};
use warren_client::{Client, IdentitySource, SessionAcceptor, Target};
use warren_raft::{Leadership, Member, ProposeError, RaftConfig, RaftError, RaftHandle};
use warren_state::{Actor, ClusterState};
use warren_storage::{Disk, Keyring as KeyFile};
use warren_types::{NodeId, RaftProfile};

/// How long the first election of a single manager may take.
const LEADER_WITHIN: Duration = Duration::from_secs(30);
/// How long giving leadership away may take when the daemon stops.
const HAND_OVER_LIMIT: Duration = Duration::from_secs(2);
/// How long the cluster is asked which times it uses; without an answer they are taken up at the next start.
const PROFILE_LIMIT: Duration = Duration::from_secs(3);
/// Directory of the log and snapshots, on the manager's disk.
pub const RAFT_DIR: &str = "raft";

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
    /// The keyring file: data keys that the cluster hands out are kept in it.
    pub keyring: Arc<Mutex<KeyFile>>,
    /// Certificate and roots for talking to the other managers; exchanged when they are renewed.
    pub source: IdentitySource,
    /// API addresses of managers, for a node that has joined and does not know the cluster's state yet.
    pub managers: Vec<String>,
    /// Times of the consensus protocol of a cluster that is founded. Every other manager takes the cluster's.
    pub raft_profile: RaftProfile,
}

/// What a manager tells the daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ManagerEvent {
    /// Somebody asked over the API that the daemon stops; the time for open calls.
    StopAsked(warren_types::Duration),
    /// The node is a worker now: it goes on without the manager's part.
    Demoted,
    /// The cluster has removed this node.
    Removed,
    /// The operator wants this manager to go on alone ([`crate::recovery::recover`]).
    Recover,
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
    peers: Arc<Peers>,
    waiting: Arc<waiting::Waiting>,
    tasks: Vec<JoinHandle<()>>,
    events: mpsc::Receiver<ManagerEvent>,
}

impl Manager {
    /// Opens the log. The founder of a cluster makes its first records; every other manager becomes a member as soon as
    /// the others can reach it, so its API has to be served ([`Manager::planes`]) without waiting for that.
    ///
    /// # Errors
    /// [`ManagerError`].
    pub async fn start(config: ManagerConfig) -> Result<Self, ManagerError> {
        let peers = Arc::new(Peers::new(config.source.clone()));
        let mut settings = RaftConfig::new(config.identity.node);
        RAFT_DIR.clone_into(&mut settings.dir);
        settings.cluster_id = Some(config.identity.cluster);
        settings.profile = first_profile(&config).await.into();
        let raft = RaftHandle::start(settings, config.disk.clone(), peers.clone()).await?;
        if let Err(error) = found(&raft, &config).await {
            raft.shutdown().await;
            return Err(error);
        }
        Ok(Self::assemble(raft, peers, config))
    }

    fn assemble(raft: RaftHandle, peers: Arc<Peers>, config: ManagerConfig) -> Self {
        let (dispatcher, present) = watch::channel(None);
        let (events, told) = mpsc::channel(4);
        let local = Local {
            node: config.identity.node,
            name: config.identity.name.clone(),
            version: config.facts.version.clone(),
            data_dir: config.data_dir,
            api_address: config.facts.address.clone(),
            started_at: edge::now(),
            facts: Arc::new(config.facts),
        };
        let keys = Arc::new(KeyStore::new(config.keyring, *config.identity.node_key()));
        let secrets = Arc::new(config.identity.secrets);
        let control = Arc::new(Control {
            raft: raft.clone(),
            secrets: secrets.clone(),
            keys,
            peers: peers.clone(),
            joins: JoinGate::default(),
            dispatcher: present,
            local: local.clone(),
            events: events.clone(),
        });
        let leading = follow_leadership(raft.clone(), secrets, local, dispatcher);
        let waiting = Arc::<waiting::Waiting>::default();
        let (asked, managers) = (waiting.clone(), raft.clone());
        let ending = waiting::watch(raft.clone(), peers.clone(), asked, move |node| {
            router::address(&managers, node)
        });
        let keeper = Keeper {
            control: control.clone(),
            peers: peers.clone(),
            managers: config.managers,
            events,
        };
        Self {
            raft,
            control,
            peers,
            waiting,
            tasks: vec![
                tokio::spawn(leading),
                tokio::spawn(keeper.run()),
                tokio::spawn(ending),
            ],
            events: told,
        }
    }

    /// What the API server serves.
    #[must_use]
    pub fn planes(&self) -> Planes {
        let routes = router::Routes {
            control: self.control.clone(),
            peers: self.peers.clone(),
            waiting: self.waiting.clone(),
        };
        Planes {
            control: self.control.clone() as Arc<dyn ControlPlane>,
            router: Some(Arc::new(routes)),
            peers: Some(Arc::new(Plane::new(self.control.clone()))),
        }
    }

    /// Where the worker of the same process opens its session: here when this manager leads, else at the leader.
    #[must_use]
    pub fn acceptor(&self, node: NodeId) -> Arc<dyn SessionAcceptor> {
        Arc::new(Acceptor {
            control: self.control.clone(),
            peers: self.peers.clone(),
            waiting: self.waiting.clone(),
            node,
        })
    }

    /// The next thing that the daemon has to do.
    pub async fn event(&mut self) -> ManagerEvent {
        match self.events.recv().await {
            Some(event) => event,
            None => std::future::pending().await,
        }
    }

    /// API addresses of all managers, as far as this one knows; to be kept for the next start.
    #[must_use]
    pub fn managers(&self) -> Vec<String> {
        let state = self.raft.state();
        let managers = state.nodes().filter(|n| n.role.is_manager());
        managers
            .map(|n| n.address.clone())
            .filter(|address| !address.is_empty())
            .collect()
    }

    /// Metrics (MO-01..MO-10), health and readiness, for the metrics address.
    #[must_use]
    pub fn telemetry(&self) -> Arc<dyn Telemetry> {
        Arc::new(Told(self.control.clone()))
    }

    /// The present state, for what the daemon itself decides (its own record, the trusted roots).
    #[must_use]
    pub fn state(&self) -> Arc<ClusterState> {
        self.raft.state()
    }

    /// Woken with each change of the state.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<warren_types::Revision> {
        self.raft.changes()
    }

    /// Gives leadership to another manager when this one has it. Failing costs an election, nothing else.
    pub async fn hand_over(&self) {
        let leads = self.raft.leadership().borrow().is_leader;
        if leads && self.raft.status().voters.len() > 1 {
            match self.raft.hand_over(HAND_OVER_LIMIT).await {
                Ok(leader) => tracing::info!(%leader, "leadership given away"),
                Err(error) => tracing::warn!(%error, "leadership could not be given away"),
            }
        }
    }

    /// Stops the planners and the engine.
    pub async fn shutdown(self) {
        for task in self.tasks {
            task.abort();
            // The tasks of the scope hold handles of the engine; they are gone before it stops.
            let _ = task.await;
        }
        self.raft.shutdown().await;
    }
}

/// The times to start with where the engine knows none yet: the founder's are told by the operator, everybody else asks the
/// cluster.
async fn first_profile(config: &ManagerConfig) -> RaftProfile {
    // A directory that cannot be read is reported by the engine.
    let fresh = config
        .disk
        .list(RAFT_DIR)
        .is_ok_and(|names| names.is_empty());
    if config.identity.is_founder() || !fresh {
        return config.raft_profile;
    }
    match tokio::time::timeout(PROFILE_LIMIT, profile_of_cluster(config)).await {
        Ok(Ok(profile)) => profile,
        Ok(Err(error)) => {
            tracing::info!(%error, "the cluster's raft profile is not known yet");
            RaftProfile::default()
        }
        Err(_) => RaftProfile::default(),
    }
}

async fn profile_of_cluster(
    config: &ManagerConfig,
) -> Result<RaftProfile, warren_client::ClientError> {
    let client = Client::connect_lazy(Target::Tcp {
        addresses: config.managers.clone(),
        identity: config.source.current(),
    })?;
    let settings = client.cluster_info().await?.settings;
    let name = settings.map_or_else(String::new, |s| s.raft_profile);
    Ok(RaftProfile::from_name(&name).unwrap_or_default())
}

/// On the node that makes the cluster: the only voter, its office, the first records. Each is done once, also when a
/// crash came between.
async fn found(raft: &RaftHandle, config: &ManagerConfig) -> Result<(), ManagerError> {
    let identity = &config.identity;
    if raft.state().settings().is_some() || !identity.is_founder() {
        return Ok(());
    }
    let member = Member {
        name: identity.name.clone(),
        address: config.facts.address.clone(),
    };
    match raft
        .initialize(BTreeMap::from([(identity.node, member)]))
        .await
    {
        Ok(()) | Err(RaftError::AlreadyInitialized) => {}
        Err(other) => return Err(other.into()),
    }
    if raft.status().voters.len() > 1 {
        // An old founder that lost its state: the others have it.
        return Ok(());
    }
    lead(raft).await?;
    if raft.state().settings().is_none() {
        let first = init::first_command(identity, &config.facts, config.raft_profile)?;
        raft.propose(&first).await?;
    }
    Ok(())
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
    scope.spawn(planner::run(
        "reconciler",
        Actor::Reconciler,
        raft.clone(),
        Reconcile::default(),
    ));
    scope.spawn(planner::run(
        "scheduler",
        Actor::Scheduler,
        raft.clone(),
        Schedule::default(),
    ));
    scope.spawn(autopilot::run(raft.clone(), secrets.clone(), local.node));
    Dispatcher::start(raft.clone(), secrets.clone(), local.name.clone(), scope)
}
