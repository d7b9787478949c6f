//! Where a node keeps its things, and how it was told to be.

use crate::failure::Failure;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use warren_cli::args::{GlobalArgs, METRICS_ADDR_DEFAULT};
use warren_cli::{CliError, Exit};
use warren_client::DEFAULT_SOCKET;
use warren_storage::{AtomicFile, DirGuard, Disk, Keyring, RealDisk};
use warren_types::{NodeRole, RaftProfile};

/// Directory that a reboot empties; `WARREN_RUN_DIR` names another.
const RUN_DIR_DEFAULT: &str = "/run/warren";
/// Lock, format, keyring and settings.
const NODE_DIR: &str = "node";
const KEYRING: &str = "node/keyring";
const SETTINGS: &str = "node/settings";
const SETTINGS_REMEDY: &str = "remove the node with `warren node reset` and make it again";
/// Addresses of the managers as this node knew them last.
const MANAGERS: &str = "node/managers";
const MANAGERS_REMEDY: &str = "remove the file; a worker has to join again then";
/// The cluster has removed this node.
const REMOVED: &str = "node/removed";
/// Value of `metrics-addr` when metrics are not served.
const NOWHERE: &str = "none";
const REMOVED_REMEDY: &str = "run `warren node reset`";

/// The places of one node.
#[derive(Debug, Clone)]
pub(crate) struct Home {
    pub(crate) data_dir: PathBuf,
    pub(crate) run_dir: PathBuf,
    pub(crate) socket: PathBuf,
}

/// How the node was told to be when it was made, and what has been changed since.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NodeSettings {
    pub(crate) name: String,
    pub(crate) cluster_name: String,
    /// Where the API listens while the node is a manager.
    pub(crate) api_addr: SocketAddr,
    /// Where others reach it; `None` = found out from `api_addr` at each start.
    pub(crate) advertise_addr: Option<String>,
    /// Where metrics and health are served; `None` = nowhere.
    pub(crate) metrics_addr: Option<SocketAddr>,
    /// What the node was last, as far as it knows.
    pub(crate) role: NodeRole,
    /// Times of the consensus protocol of the cluster that this node founds; no matter once it is founded.
    pub(crate) raft_profile: RaftProfile,
}

/// An opened home: nobody else uses it while this lives.
pub(crate) struct Opened {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) keyring: Arc<Mutex<Keyring>>,
    _guard: DirGuard,
}

impl Home {
    pub(crate) fn new(data_dir: &Path, global: &GlobalArgs) -> Result<Self, Failure> {
        let data_dir = std::path::absolute(data_dir)?;
        let run_dir = std::env::var_os("WARREN_RUN_DIR")
            .map_or_else(|| PathBuf::from(RUN_DIR_DEFAULT), PathBuf::from);
        // The client reads the variable by itself; here the daemon finds the same place.
        let named = || {
            std::env::var_os("WARREN_SOCKET")
                .filter(|v| !v.is_empty())
                .map(PathBuf::from)
        };
        let socket = global
            .socket
            .clone()
            .or_else(named)
            .unwrap_or_else(|| PathBuf::from(DEFAULT_SOCKET));
        Ok(Self {
            data_dir,
            run_dir: std::path::absolute(run_dir)?,
            socket: std::path::absolute(socket)?,
        })
    }

    /// Does the directory hold a node?
    pub(crate) fn has_node(&self) -> bool {
        self.data_dir.join(SETTINGS).exists()
    }

    /// The daemon's log file when it runs in the background.
    pub(crate) fn log_file(&self) -> PathBuf {
        self.data_dir.join("warren.log")
    }

    /// Takes the directory: refused while another daemon has it, or when its data are of a newer release.
    pub(crate) fn open(&self) -> Result<Opened, Failure> {
        need_root()?;
        std::fs::create_dir_all(&self.data_dir).map_err(|e| {
            Failure::Daemon(format!(
                "{}: {e}; choose another with --data-dir",
                self.data_dir.display()
            ))
        })?;
        let disk: Arc<dyn Disk> = Arc::new(RealDisk::open(&self.data_dir)?);
        let guard = DirGuard::acquire(&disk, NODE_DIR, "node")?;
        let keyring = Keyring::open(disk.clone(), KEYRING)?;
        Ok(Opened {
            disk,
            keyring: Arc::new(Mutex::new(keyring)),
            _guard: guard,
        })
    }
}

/// A daemon makes namespaces, mounts and links.
pub(crate) fn need_root() -> Result<(), Failure> {
    if nix::unistd::Uid::effective().is_root() {
        return Ok(());
    }
    let error = CliError::new(
        Exit::Denied,
        "running a node needs root: it makes namespaces, mounts and network links",
    );
    Err(error.remedy("sudo warren …").into())
}

impl Opened {
    /// The keyring file.
    pub(crate) fn keyring(&self) -> MutexGuard<'_, Keyring> {
        self.keyring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Addresses of the managers, `host:port` each, as known last.
    pub(crate) fn managers(&self) -> Result<Vec<String>, Failure> {
        let file = AtomicFile::new(self.disk.clone(), MANAGERS, MANAGERS_REMEDY);
        let text = file.read()?.unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        Ok(text.lines().map(str::to_owned).collect())
    }

    /// Keeps them for the next start.
    pub(crate) fn set_managers(&self, addresses: &[String]) -> Result<(), Failure> {
        let file = AtomicFile::new(self.disk.clone(), MANAGERS, MANAGERS_REMEDY);
        Ok(file.write(addresses.join("\n").as_bytes())?)
    }

    /// Has the cluster removed this node?
    pub(crate) fn is_removed(&self) -> Result<bool, Failure> {
        let file = AtomicFile::new(self.disk.clone(), REMOVED, REMOVED_REMEDY);
        Ok(file.read()?.is_some())
    }

    /// It has, for good.
    pub(crate) fn set_removed(&self) -> Result<(), Failure> {
        let file = AtomicFile::new(self.disk.clone(), REMOVED, REMOVED_REMEDY);
        Ok(file.write(b"removed")?)
    }

    fn settings_file(&self) -> AtomicFile {
        AtomicFile::new(self.disk.clone(), SETTINGS, SETTINGS_REMEDY)
    }

    /// How the node was told to be.
    pub(crate) fn settings(&self) -> Result<Option<NodeSettings>, Failure> {
        let Some(bytes) = self.settings_file().read()? else {
            return Ok(None);
        };
        let settings = NodeSettings::from_text(&String::from_utf8_lossy(&bytes));
        let unreadable = || {
            Failure::Daemon(format!(
                "{SETTINGS} cannot be understood; {SETTINGS_REMEDY}"
            ))
        };
        settings.map(Some).ok_or_else(unreadable)
    }

    /// Keeps how the node is told to be.
    pub(crate) fn set_settings(&self, settings: &NodeSettings) -> Result<(), Failure> {
        Ok(self.settings_file().write(settings.to_text().as_bytes())?)
    }
}

impl NodeSettings {
    fn to_text(&self) -> String {
        let metrics = self
            .metrics_addr
            .map_or_else(|| NOWHERE.to_owned(), |address| address.to_string());
        let mut text = format!(
            "name={}\ncluster={}\napi-addr={}\nmetrics-addr={metrics}\nrole={}\n",
            self.name,
            self.cluster_name,
            self.api_addr,
            self.role.name()
        );
        if let Some(address) = &self.advertise_addr {
            text.push_str(&format!("advertise-addr={address}\n"));
        }
        if self.raft_profile != RaftProfile::default() {
            text.push_str(&format!("raft-profile={}\n", self.raft_profile.name()));
        }
        text
    }

    fn from_text(text: &str) -> Option<Self> {
        let value = |key: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
        };
        let role = match (value("role"), value("manager-only")) {
            (Some(name), _) => role_of(name)?,
            // As version 0.1.0 wrote it.
            (None, Some("true")) => NodeRole::Manager,
            (None, _) => NodeRole::Hybrid,
        };
        Some(Self {
            name: value("name")?.to_owned(),
            cluster_name: value("cluster")?.to_owned(),
            api_addr: value("api-addr")?.parse().ok()?,
            advertise_addr: value("advertise-addr").map(str::to_owned),
            metrics_addr: match value("metrics-addr") {
                Some(NOWHERE) => None,
                Some(address) => Some(address.parse().ok()?),
                None => METRICS_ADDR_DEFAULT.parse().ok(),
            },
            role,
            raft_profile: value("raft-profile")
                .map_or(Some(RaftProfile::default()), RaftProfile::from_name)?,
        })
    }
}

/// The role of this name.
pub(crate) fn role_of(name: &str) -> Option<NodeRole> {
    [NodeRole::Manager, NodeRole::Worker, NodeRole::Hybrid]
        .into_iter()
        .find(|role| role.name() == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_round_trip() {
        for (advertise, metrics) in [
            (None, None),
            (Some("10.0.0.1:8080"), Some("127.0.0.1:9090")),
        ] {
            let settings = NodeSettings {
                name: "n1".to_owned(),
                cluster_name: "warren".to_owned(),
                api_addr: "127.0.0.1:8080".parse().unwrap(),
                advertise_addr: advertise.map(str::to_owned),
                metrics_addr: metrics.map(|m| m.parse().unwrap()),
                role: NodeRole::Manager,
                raft_profile: RaftProfile::ALL[usize::from(metrics.is_some())],
            };
            assert_eq!(NodeSettings::from_text(&settings.to_text()), Some(settings));
        }
        assert_eq!(NodeSettings::from_text("name=x\n"), None);
    }

    #[test]
    fn settings_of_the_version_before_are_understood() {
        let text = "name=n1\ncluster=c\napi-addr=127.0.0.1:1\nmanager-only=true\n";
        let settings = NodeSettings::from_text(text).unwrap();
        assert_eq!(settings.role, NodeRole::Manager);
        assert_eq!(settings.advertise_addr, None);
    }
}
