//! A running node. What it is, manager or worker, may change while it runs: the parts of the old role end, those of
//! the new one begin, in the same process, and the worker with what runs on it goes on all the time.

mod address;
mod admin;
mod begin;
mod dial;
mod locked;
mod manage;
mod office;
mod plain;
mod renew;
mod work;

pub(crate) use begin::Begin;

use crate::failure::Failure;
use crate::home::{Home, NodeSettings, Opened};
use crate::{logfile, machine};
use address::advertised;
use dial::Dial;
use office::Office;
use plain::{Facts, Plain, Session, State};
use renew::Credentials;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use warren_api::{ApiConfig, Limits, Planes, ServeError, Server};
use warren_cli::Build;
use warren_manager::{LocalIdentity, NodeFacts, recovery};
use warren_types::{NodeId, NodeRole, Role};
use warren_worker::{Places, Worker, WorkerConfig};

/// Longest time for open calls to end after a signal.
const SIGNAL_GRACE: Duration = Duration::from_secs(5);
/// Time beyond the caller's grace until the server is left to itself.
const SERVER_EXTRA: Duration = Duration::from_secs(1);
/// Time for open calls to end when only the role changes.
const CHANGE_GRACE: Duration = Duration::from_secs(1);

/// Runs a node until a signal or a call of the API stops it. Containers stay.
pub(crate) async fn run(home: Home, begin: Begin) -> Result<(), Failure> {
    let opened = home.open()?;
    let settings = begin::settle(&home, &opened, begin).await?;
    logfile::watch(home.log_file());
    let mut signals = Signals::new()?;
    if opened.is_removed()? {
        return removed(&home, &opened, &settings, &mut signals).await;
    }
    let identity = match begin::identity(&opened)? {
        Some(identity) => Some(identity),
        None => locked::wait(&home, &opened, &settings, &mut signals).await?,
    };
    let Some(identity) = identity else {
        return Ok(());
    };
    let sealed = warren_manager::init::is_locked(&opened.keyring());
    admin::settle(&home, &identity, sealed)?;
    let mut life = Life::new(home, opened, settings, signals, &identity)?;
    life.run(identity).await
}

/// Why the parts of one role have ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    /// The daemon is to stop.
    Stop,
    /// The node has another role now.
    Changed,
    /// The cluster has given this manager a worker's certificate, which is kept aside.
    Demoted,
    /// The operator wants this manager to go on alone.
    Recover,
    /// The cluster has removed the node.
    Removed,
}

/// How the daemon stops.
#[derive(Debug, Clone, Copy)]
struct Stop {
    /// Time for open calls to end.
    grace: Duration,
}

impl Stop {
    /// The role changes; callers come again.
    const QUICK: Self = Self {
        grace: CHANGE_GRACE,
    };

    const fn within(grace: warren_types::Duration) -> Self {
        Self {
            grace: grace.to_std(),
        }
    }
}

/// Signals that stop the daemon.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> Result<Self, Failure> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn asked(&mut self) -> Stop {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
        Stop {
            grace: SIGNAL_GRACE,
        }
    }
}

/// A server that serves.
struct Serving {
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), ServeError>>,
}

impl Serving {
    fn start(server: Server, planes: Planes) -> Self {
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(server.run(planes, async move {
            // A dropped sender means that the daemon ends: that is a stop, too.
            let _ = stopped.await;
        }));
        Self { stop, task }
    }

    /// On the local socket alone.
    async fn socket_only(home: &Home, planes: Planes) -> Result<Self, Failure> {
        let config = ApiConfig {
            tcp: None,
            unix: Some(home.socket.clone()),
            limits: Limits::default(),
        };
        Ok(Self::start(Server::bind(config).await?, planes))
    }

    /// Resolves when serving has ended by itself, which it should not.
    async fn failed(&mut self) -> Failure {
        match (&mut self.task).await {
            Ok(Err(error)) => error.into(),
            Ok(Ok(())) => Failure::Daemon("the API server has ended".to_owned()),
            Err(error) => Failure::Daemon(format!("the API server has ended: {error}")),
        }
    }

    async fn end(self, stop: Stop) -> Result<(), Failure> {
        drop(self.stop);
        let limit = stop.grace + SERVER_EXTRA;
        let abort = self.task.abort_handle();
        match tokio::time::timeout(limit, self.task).await {
            Ok(Ok(ended)) => Ok(ended?),
            Ok(Err(_)) => Ok(()),
            Err(_) => {
                // Port and socket have to be free for what comes next.
                abort.abort();
                Ok(())
            }
        }
    }
}

/// What stays the same whatever the role is.
struct Life {
    home: Home,
    opened: Opened,
    settings: NodeSettings,
    signals: Signals,
    credentials: Arc<Credentials>,
    /// Addresses of the managers as known last.
    managers: Arc<Mutex<Vec<String>>>,
    dial: Arc<Dial>,
    worker: Option<Worker>,
    node: NodeId,
    facts: Facts,
    /// Whether the administrator's key was put away because of auto-lock.
    admin_sealed: bool,
}

impl Life {
    fn new(
        home: Home,
        opened: Opened,
        settings: NodeSettings,
        signals: Signals,
        identity: &LocalIdentity,
    ) -> Result<Self, Failure> {
        let sealed = warren_manager::init::is_locked(&opened.keyring());
        let credentials = Credentials::new(opened.keyring.clone(), identity)?;
        let managers = opened.managers()?;
        let facts = Facts {
            node: identity.node.to_string(),
            name: identity.name.clone(),
            cluster: identity.cluster.to_string(),
            role: settings.role,
            data_dir: home.data_dir.clone(),
            started_at: warren_manager::edge::now(),
        };
        Ok(Self {
            home,
            opened,
            settings,
            signals,
            credentials: Arc::new(credentials),
            managers: Arc::new(Mutex::new(managers)),
            dial: Arc::default(),
            worker: None,
            node: identity.node,
            facts,
            admin_sealed: sealed,
        })
    }

    async fn run(&mut self, first: LocalIdentity) -> Result<(), Failure> {
        let mut identity = first;
        loop {
            let why = if identity.role == Role::Manager {
                manage::run(self, identity).await?
            } else {
                work::run(self, identity).await?
            };
            match why {
                Why::Stop => break,
                Why::Changed => tracing::info!("the node's role has changed"),
                Why::Demoted => {
                    if self.leave_office().await == Office::Removed {
                        return self.dismissed().await;
                    }
                }
                Why::Recover => self.recover()?,
                Why::Removed => return self.dismissed().await,
            }
            identity = self.credentials.identity()?;
        }
        if let Some(worker) = self.worker.take() {
            worker.shutdown();
        }
        tracing::info!("node stopped; its containers go on running");
        Ok(())
    }

    /// This manager goes on alone with what it has. When that fails it goes on as it was.
    fn recover(&self) -> Result<(), Failure> {
        let identity = self.credentials.identity()?;
        let facts = self.node_facts();
        let done =
            tokio::task::block_in_place(|| recovery::recover(&self.opened.disk, &identity, &facts));
        match done {
            Ok(done) => {
                tracing::warn!(
                    last_entry = done.found_index,
                    others = %done.others.join(","),
                    "this manager goes on alone; the others have to be reset (`warren node reset`) and join again"
                );
                self.set_managers(vec![facts.address]);
            }
            Err(error) => tracing::error!(%error, "this manager cannot go on alone"),
        }
        Ok(())
    }

    /// Becomes a worker when the cluster confirms that its quorum does not count on this node, whose consensus and API have ended
    /// by now. Else everything is as it was, and the node goes on as the manager that it may be again.
    async fn leave_office(&self) -> Office {
        let Some(given) = self.credentials.dismissal() else {
            return Office::Kept("no certificate was given".to_owned());
        };
        let own = self.node_facts().address;
        let mut others = self.managers();
        others.retain(|address| *address != own);
        let office = office::ask(&others, &given, self.node).await;
        match &office {
            Office::Gone => {
                tracing::info!("this node is no manager any more, and the quorum has let it go");
                // When it cannot be kept, it is asked for again, as a manager.
                if let Err(error) = self.credentials.take(given) {
                    tracing::warn!(?error, "the worker's certificate cannot be kept");
                }
            }
            Office::Kept(why) => {
                tracing::info!(%why, "this node goes on as a manager, with its log");
            }
            Office::Removed => {}
        }
        office
    }

    async fn dismissed(&mut self) -> Result<(), Failure> {
        self.opened.set_removed()?;
        if let Some(worker) = self.worker.take() {
            worker.shutdown();
        }
        removed(&self.home, &self.opened, &self.settings, &mut self.signals).await
    }

    /// The managers as known last.
    fn managers(&self) -> Vec<String> {
        let managers = self.managers.lock().unwrap_or_else(PoisonError::into_inner);
        managers.clone()
    }

    /// Keeps the managers for this life and the next start. Returns whether they are others than before.
    fn set_managers(&self, mut fresh: Vec<String>) -> bool {
        fresh.sort();
        fresh.dedup();
        let mut managers = self.managers.lock().unwrap_or_else(PoisonError::into_inner);
        // None at all is what a node that knows nothing yet would say.
        if fresh.is_empty() || *managers == fresh {
            return false;
        }
        if let Err(error) = self.opened.set_managers(&fresh) {
            tracing::warn!(?error, "the managers' addresses cannot be kept");
        }
        *managers = fresh;
        true
    }

    /// Keeps what the node is now.
    fn set_role(&mut self, role: NodeRole) -> Result<(), Failure> {
        if self.settings.role != role {
            tracing::info!(
                role = role.name(),
                "the node's role in the cluster's records"
            );
            self.settings.role = role;
            self.facts.role = role;
            self.opened.set_settings(&self.settings)?;
        }
        Ok(())
    }

    fn node_facts(&self) -> NodeFacts {
        node_facts(&self.home, &self.settings)
    }

    /// Starts the worker unless it runs. It stays for the life of the process.
    async fn ensure_worker(&mut self, identity: &LocalIdentity) -> Result<(), Failure> {
        if self.worker.is_some() {
            return Ok(());
        }
        let facts = self.node_facts();
        let shim = std::env::current_exe()?;
        let config = WorkerConfig {
            facts: warren_worker::NodeFacts {
                node: identity.node,
                name: identity.name.clone(),
                role: facts.role,
                hostname: facts.hostname,
                // A worker dials out only; this is where it will be found when it is made a manager.
                address: facts.address,
                platform: facts.platform,
                resources: facts.resources,
                version: facts.version,
            },
            places: Places::new(
                self.home.data_dir.clone(),
                self.home.run_dir.clone(),
                identity.node,
            ),
            shim: shim.clone(),
            node_key: *identity.node_key(),
            transport: self.dial.clone(),
            hello: Some(shim),
        };
        self.worker = Some(Worker::start(config).await?);
        Ok(())
    }

    /// Does the node run containers, or are there some of the time when it did?
    fn has_containers(&self) -> bool {
        self.settings.role.runs_containers() || self.home.data_dir.join("worker").exists()
    }
}

/// What this machine is, for the node's record.
fn node_facts(home: &Home, settings: &NodeSettings) -> NodeFacts {
    NodeFacts {
        cluster_name: settings.cluster_name.clone(),
        role: settings.role,
        address: advertised(settings),
        hostname: machine::hostname(),
        platform: machine::platform(),
        resources: machine::resources(&home.data_dir),
        version: Build::CURRENT.version.to_owned(),
        name: settings.name.clone(),
    }
}

/// A node that the cluster has removed: it says so on its socket until it is stopped. Its containers are left to
/// `warren node reset`.
async fn removed(
    home: &Home,
    opened: &Opened,
    settings: &NodeSettings,
    signals: &mut Signals,
) -> Result<(), Failure> {
    let who = warren_manager::init::who(&opened.keyring())?;
    let (stop, mut stopping) = mpsc::channel(1);
    let plain = Arc::new(Plain {
        facts: Facts {
            node: who.node.to_string(),
            name: who.name,
            cluster: who.cluster.to_string(),
            role: settings.role,
            data_dir: home.data_dir.clone(),
            started_at: warren_manager::edge::now(),
        },
        state: Mutex::new(State::Removed),
        standing: Box::new(Session::default),
        unlock: None,
        stop,
    });
    tracing::error!(
        "the cluster has removed this node; nothing of it works any more: `warren node reset` removes its containers and data, then it can join again"
    );
    let serving = Serving::socket_only(home, plain.planes()).await?;
    let stop = tokio::select! {
        stop = signals.asked() => stop,
        grace = stopping.recv() => Stop::within(grace.unwrap_or_default()),
    };
    serving.end(stop).await
}
