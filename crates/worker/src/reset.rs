//! Taking everything off the machine that a node has made.

use crate::Places;
use std::path::{Path, PathBuf};
use warren_image::{ImageError, ImageStore};
use warren_network::{HostNetwork, NetworkError};
use warren_runtime::{Driver, EmbeddedDriver, RuntimeError};

/// What a reset removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ResetReport {
    /// Containers that were known to the runtime.
    pub containers: usize,
    /// Root file systems.
    pub rootfs: usize,
}

/// What a reset could not remove; calling it again goes on.
#[derive(Debug, thiserror::Error)]
pub enum ResetError {
    /// The runtime.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// The image store.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The network.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// A directory.
    #[error("{} cannot be removed: {source}; remove it by hand", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

/// Stops and removes every container, mount, network, control group and file of the node. What is
/// gone already is no error. The daemon must not run.
///
/// # Errors
/// [`ResetError`] names what stands in the way.
pub async fn reset(places: &Places, shim: PathBuf) -> Result<ResetReport, ResetError> {
    let mut report = ResetReport::default();
    if places.run_dir.exists() || places.data_dir.exists() {
        let driver = EmbeddedDriver::open(places.runtime(shim)).await?;
        for info in driver.list().await? {
            driver.delete(info.id).await?;
            report.containers += 1;
        }
    }
    HostNetwork::open(places.network())?.teardown().await?;
    if places.images().exists() {
        let images = ImageStore::open(places.images())?;
        for rootfs in images.prepared()? {
            images.release(rootfs.container)?;
            report.rootfs += 1;
        }
    }
    remove_cgroups(&places.cgroup_root);
    remove(&places.run_dir)?;
    remove(&places.data_dir)?;
    Ok(report)
}

/// Control groups of the node: empty directories by now, in every hierarchy there is.
fn remove_cgroups(root: &str) {
    let name = root.trim_start_matches('/');
    let mut bases = vec![PathBuf::from("/sys/fs/cgroup")];
    for entry in std::fs::read_dir("/sys/fs/cgroup")
        .into_iter()
        .flatten()
        .flatten()
    {
        bases.push(entry.path());
    }
    for base in bases {
        remove_group(&base.join(name));
        // The parent is shared by all nodes of the machine; it goes with the last of them.
        if let Some(parent) = base.join(name).parent().filter(|p| *p != base) {
            let _ = std::fs::remove_dir(parent);
        }
    }
}

fn remove_group(path: &Path) {
    for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            remove_group(&entry.path());
        }
    }
    // A hierarchy that never had the group has nothing to remove.
    let _ = std::fs::remove_dir(path);
}

fn remove(path: &Path) -> Result<(), ResetError> {
    match std::fs::remove_dir_all(path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(ResetError::Directory {
                path: path.to_path_buf(),
                source,
            })
        }
        _ => Ok(()),
    }
}
