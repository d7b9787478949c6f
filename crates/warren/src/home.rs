//! Where a node keeps its things, and how it was told to be.

use crate::failure::Failure;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use warren_cli::args::GlobalArgs;
use warren_cli::{CliError, Exit};
use warren_client::DEFAULT_SOCKET;
use warren_storage::{AtomicFile, DirGuard, Disk, Keyring, RealDisk};

/// Directory that a reboot empties; `WARREN_RUN_DIR` names another.
const RUN_DIR_DEFAULT: &str = "/run/warren";
/// Lock, format, keyring and settings.
const NODE_DIR: &str = "node";
const KEYRING: &str = "node/keyring";
const SETTINGS: &str = "node/settings";
const SETTINGS_REMEDY: &str = "remove the node with `warren node reset` and make it again";

/// The places of one node.
#[derive(Debug, Clone)]
pub(crate) struct Home {
    pub(crate) data_dir: PathBuf,
    pub(crate) run_dir: PathBuf,
    pub(crate) socket: PathBuf,
}

/// How the node was told to be when it was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NodeSettings {
    pub(crate) name: String,
    pub(crate) cluster_name: String,
    pub(crate) api_addr: SocketAddr,
    pub(crate) manager_only: bool,
}

/// An opened home: nobody else uses it while this lives.
pub(crate) struct Opened {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) keyring: Keyring,
    pub(crate) guard: DirGuard,
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
            keyring,
            guard,
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
        format!(
            "name={}\ncluster={}\napi-addr={}\nmanager-only={}\n",
            self.name, self.cluster_name, self.api_addr, self.manager_only
        )
    }

    fn from_text(text: &str) -> Option<Self> {
        let value = |key: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
        };
        Some(Self {
            name: value("name")?.to_owned(),
            cluster_name: value("cluster")?.to_owned(),
            api_addr: value("api-addr")?.parse().ok()?,
            manager_only: value("manager-only")?.parse().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_round_trip() {
        let settings = NodeSettings {
            name: "n1".to_owned(),
            cluster_name: "warren".to_owned(),
            api_addr: "127.0.0.1:8080".parse().unwrap(),
            manager_only: true,
        };
        assert_eq!(NodeSettings::from_text(&settings.to_text()), Some(settings));
        assert_eq!(NodeSettings::from_text("name=x\n"), None);
    }
}
