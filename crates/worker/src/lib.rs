//! The worker: keeps a session to a manager, and what runs on this node in line with what the
//! manager wants. It goes on without a manager, and it outlives neither more nor less than its
//! process: containers are left running and taken over at the next start.

#![forbid(unsafe_code)]
#![allow(
    clippy::result_large_err,
    reason = "errors of the image store carry paths and names; they are rare and not on a hot path"
)]

mod actions;
mod actor;
mod anytls;
mod edge;
mod hello;
mod keep;
mod net;
mod outbox;
mod probes;
mod recover;
mod requests;
mod reset;
mod runspec;
mod session;
mod sets;
mod shared;

pub use hello::{HELLO_IMAGE, HELLO_PORT};
pub use reset::{ResetError, ResetReport, reset};
pub use shared::{News, NodeFacts};

use shared::{Parts, Shared};
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use warren_client::SessionTransport;
use warren_image::{ImageError, ImageStore};
use warren_lifecycle::Observation;
use warren_network::{HostNetwork, NetworkConfig, NetworkError};
use warren_runtime::{
    Driver, EmbeddedConfig, EmbeddedDriver, RuntimeError, RuntimeEvent, RuntimeState,
};
use warren_storage::{Disk, LocalStore, RealDisk, StorageError};

/// Where the worker's things are on this machine.
#[derive(Debug, Clone)]
pub struct Places {
    /// The node's data directory.
    pub data_dir: PathBuf,
    /// Directory that a reboot empties.
    pub run_dir: PathBuf,
    /// Control group below which containers have theirs.
    pub cgroup_root: String,
}

impl Places {
    /// The places of a node.
    #[must_use]
    pub fn new(data_dir: PathBuf, run_dir: PathBuf, node: warren_types::NodeId) -> Self {
        Self {
            data_dir,
            run_dir,
            cgroup_root: format!("/warren/{node}"),
        }
    }

    fn images(&self) -> PathBuf {
        self.data_dir.join("images")
    }

    fn runtime(&self, shim: PathBuf) -> EmbeddedConfig {
        EmbeddedConfig {
            shim_exe: shim,
            state_dir: self.run_dir.join("containers"),
            log_dir: self.data_dir.join("logs"),
            cgroup_root: self.cgroup_root.clone(),
        }
    }

    fn network(&self) -> NetworkConfig {
        NetworkConfig {
            netns_dir: self.run_dir.join("netns"),
            ..NetworkConfig::standard()
        }
    }
}

/// Settings of the worker.
pub struct WorkerConfig {
    /// What the node is.
    pub facts: NodeFacts,
    /// Where its things are.
    pub places: Places,
    /// Program that runs as shim: this very one.
    pub shim: PathBuf,
    /// Key that the node's disk is sealed with.
    pub node_key: [u8; 32],
    /// How a manager is reached.
    pub transport: Arc<dyn SessionTransport>,
    /// Program that the hello image is made of; `None` makes none.
    pub hello: Option<PathBuf>,
}

/// Why the worker cannot start.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The node's disk.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The image store.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The runtime.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// The network.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// A directory.
    #[error("{}: {source}; make it writable for root", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A fault of ours.
    #[error("{0}; this is a fault of Warren, please report it")]
    Internal(String),
}

/// A running worker.
pub struct Worker {
    shared: Arc<Shared>,
    tasks: Vec<JoinHandle<()>>,
}

impl Worker {
    /// Starts: takes over what runs, sweeps what is nobody's, begins from the set on disk, and dials a
    /// manager.
    ///
    /// # Errors
    /// [`WorkerError`] when a part cannot be opened.
    pub async fn start(config: WorkerConfig) -> Result<Self, WorkerError> {
        let shared = Arc::new(open(&config).await?);
        recover::run(&shared).await?;
        let mut tasks = Vec::new();
        let events = shared.driver.events();
        tasks.push(tokio::spawn(forward(shared.clone(), events)));
        let net = shared.clone();
        tasks.push(tokio::spawn(async move { net.network.run().await }));
        if let Some(program) = config.hello {
            // Before the session: the first service must find its image.
            hello::ensure(&shared, program).await?;
        }
        tasks.push(tokio::spawn(session::run(shared.clone(), config.transport)));
        Ok(Self { shared, tasks })
    }

    /// How the worker stands with the cluster; changes with each session.
    #[must_use]
    pub fn news(&self) -> watch::Receiver<News> {
        self.shared.line.news.subscribe()
    }

    /// Ends the present session and opens another one at once: the way to the managers has changed.
    pub fn redial(&self) {
        self.shared.line.redial.notify_one();
    }

    /// Counts the containers that run, at any later time.
    pub fn running(&self) -> impl Fn() -> usize + Send + Sync + use<> {
        let shared = self.shared.clone();
        move || shared.running_attempts().len()
    }

    /// Stops the worker's tasks; containers, their network and mounts stay.
    pub fn shutdown(self) {
        drop(self);
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
        self.shared.actors.stop();
    }
}

async fn open(config: &WorkerConfig) -> Result<Shared, WorkerError> {
    let places = &config.places;
    let worker_dir = places.data_dir.join("worker");
    for directory in [
        &worker_dir,
        &places.run_dir,
        &places.data_dir.join("volumes"),
    ] {
        std::fs::create_dir_all(directory).map_err(|source| WorkerError::Directory {
            path: directory.clone(),
            source,
        })?;
    }
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::open(&worker_dir)?);
    let store = Arc::new(LocalStore::open(&disk, "local.redb")?);
    let keep = keep::Keep::new(store, config.node_key);
    let images_dir = places.images();
    let images = tokio::task::spawn_blocking(move || ImageStore::open(images_dir)).await;
    let images = Arc::new(images.map_err(|e| WorkerError::Internal(e.to_string()))??);
    let driver: Arc<dyn Driver> =
        Arc::new(EmbeddedDriver::open(places.runtime(config.shim.clone())).await?);
    let network_config = places.network();
    let bridge = network_config.bridge.clone();
    let host = Arc::new(HostNetwork::open(network_config)?);
    let network = net::NodeNet::new(host, bridge, keep.leases()?);
    if let Some(subnet) = keep.subnet()?
        && let Err(problem) = network.set_subnet(&subnet)
    {
        tracing::error!(%problem, "kept subnet not usable");
    }
    let wanted = keep.last()?;
    let parts = Parts {
        facts: config.facts.clone(),
        data_dir: places.data_dir.clone(),
        driver,
        images,
        network,
        keep,
    };
    Ok(Shared::new(parts, wanted))
}

/// Hands the runtime's events to the containers' tasks.
async fn forward(shared: Arc<Shared>, mut events: tokio::sync::broadcast::Receiver<RuntimeEvent>) {
    loop {
        match events.recv().await {
            Ok(RuntimeEvent::Exited { id, attempt, exit }) => {
                let observation = Observation::Exited {
                    attempt,
                    exit: exit.info,
                    at: exit.at,
                };
                shared.actors.observe(id, observation).await;
            }
            Ok(RuntimeEvent::Started { .. }) => {}
            Err(RecvError::Lagged(missed)) => {
                tracing::warn!(missed, "runtime events missed; looking at every container");
                look_at_all(&shared).await;
            }
            Err(RecvError::Closed) => return,
        }
    }
}

async fn look_at_all(shared: &Arc<Shared>) {
    for info in shared.driver.list().await.unwrap_or_default() {
        if let RuntimeState::Exited(exit) = info.state {
            let observation = Observation::Exited {
                attempt: info.attempt,
                exit: exit.info,
                at: exit.at,
            };
            shared.actors.observe(info.id, observation).await;
        }
    }
}
