//! What can go wrong between a caller and a container, with the place and the remedy in the text.

use std::path::{Path, PathBuf};
use warren_types::ContainerId;

/// An error of a runtime driver.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// No such container on this node.
    #[error("container {id} is not known to the runtime of this node; `list` shows those that are")]
    NotFound {
        /// The container asked for.
        id: ContainerId,
    },
    /// The id is taken.
    #[error(
        "container {id} exists already (attempt {attempt}); delete it, or wait for its end and create it with a higher attempt"
    )]
    Exists {
        /// The container asked for.
        id: ContainerId,
        /// The attempt that exists.
        attempt: u32,
    },
    /// The state does not allow the action.
    #[error(
        "container {id} is {state}, so the runtime cannot {action} it; look at its state first"
    )]
    WrongState {
        /// The container asked for.
        id: ContainerId,
        /// State it is in.
        state: &'static str,
        /// What was asked.
        action: &'static str,
    },
    /// A field of the request can never work.
    #[error("container {id}: {field} is not usable: {reason}")]
    Invalid {
        /// The container asked for.
        id: ContainerId,
        /// Field of the request.
        field: &'static str,
        /// Why, and what would be accepted.
        reason: String,
    },
    /// The container could not be set up; nothing of it is left.
    #[error("container {id} could not be made: {reason}")]
    Create {
        /// The container asked for.
        id: ContainerId,
        /// What failed.
        reason: String,
    },
    /// The program could not be executed.
    #[error("container {id} could not be started: {reason}")]
    Start {
        /// The container asked for.
        id: ContainerId,
        /// What failed.
        reason: String,
    },
    /// A command inside a running container could not be executed.
    #[error("a command could not be run in container {id}: {reason}")]
    Exec {
        /// The container asked for.
        id: ContainerId,
        /// What failed.
        reason: String,
    },
    /// The supervising process does not answer.
    #[error(
        "the shim of container {id} failed to {action}: {source}; if this stays, delete the container: that ends it by its cgroup"
    )]
    Shim {
        /// The container asked for.
        id: ContainerId,
        /// What was asked of the shim.
        action: &'static str,
        /// The failure on its socket.
        source: std::io::Error,
    },
    /// Another process uses the same state directory.
    #[error("{} is in use by another process; stop the other daemon, or use another directory", path.display())]
    Busy {
        /// The directory.
        path: PathBuf,
    },
    /// A file operation of the driver failed.
    #[error("cannot {action} {}: {source}; check space, permissions and that the path is writable", path.display())]
    Io {
        /// What was attempted.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
}

impl RuntimeError {
    /// A file error with its place.
    pub(crate) fn io(action: &'static str, path: &Path, source: std::io::Error) -> Self {
        Self::Io {
            action,
            path: path.to_owned(),
            source,
        }
    }

    /// The request itself is at fault (bad user, missing program, …): trying again unchanged cannot help.
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::Invalid { .. } => true,
            Self::Create { reason, .. }
            | Self::Start { reason, .. }
            | Self::Exec { reason, .. } => {
                reason.contains(NOT_FOUND_MARK) || reason.contains(NOT_EXECUTABLE_MARK)
            }
            _ => false,
        }
    }
}

/// Part of the reason when the program is not in the image.
pub(crate) const NOT_FOUND_MARK: &str = "no such program in the image";
/// Part of the reason when the program cannot be executed.
pub(crate) const NOT_EXECUTABLE_MARK: &str = "cannot be executed";

/// Result of a driver call.
pub type Result<T, E = RuntimeError> = std::result::Result<T, E>;

/// The error and all its sources in one line, without repeating what a parent says already.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let part = source.to_string();
        if !text.contains(&part) {
            text.push_str(": ");
            text.push_str(&part);
        }
        next = source.source();
    }
    text
}
