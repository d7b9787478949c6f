//! One error type for the crate: what, where, and what to do.

use std::io;

/// Result of everything in this crate.
pub type Result<T> = std::result::Result<T, StorageError>;

/// Why something could not be stored or read back.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The operating system refused an operation.
    #[error("cannot {op} {file}: {source}")]
    Io {
        /// The operation, as an imperative ("write", "sync").
        op: &'static str,
        /// The file or directory.
        file: String,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// No room is left on the disk. Nothing was acknowledged and what was stored before can be read.
    #[error("disk full: cannot {op} {file}; free some space, the node goes on by itself then")]
    Full {
        /// The operation, as an imperative.
        op: &'static str,
        /// The file.
        file: String,
    },
    /// Stored bytes are not what was written.
    #[error("{file} is damaged at byte {offset}: {what}; {remedy}")]
    Corrupt {
        /// The file.
        file: String,
        /// Offset of the first damaged byte known, in bytes.
        offset: u64,
        /// What is wrong there.
        what: String,
        /// What to do.
        remedy: &'static str,
    },
    /// The data was written by a newer release. Nothing was changed.
    #[error(
        "{file} has format version {found}, this release knows up to {supported}; start the newer release, or restore a backup made by this one"
    )]
    Newer {
        /// The file.
        file: String,
        /// Version found.
        found: u32,
        /// Newest version this release reads.
        supported: u32,
    },
    /// Another process uses the directory.
    #[error("{file} is in use by another daemon{}; stop that one first, or give this one another data directory", pid_text(*.pid))]
    Locked {
        /// The lock file.
        file: String,
        /// Process id of the holder, when it could be read.
        pid: Option<u32>,
    },
    /// A file that must be there is not.
    #[error("{file} does not exist")]
    NotFound {
        /// The file.
        file: String,
    },
    /// An earlier write or sync failed, so that it is unknown what the disk holds.
    #[error(
        "{file} cannot be written any more because an earlier write failed ({reason}); check the disk and restart the daemon"
    )]
    Failed {
        /// The file or directory.
        file: String,
        /// The earlier failure.
        reason: String,
    },
    /// A value is over its limit.
    #[error("{what} has {found} bytes, the limit is {limit}")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// Its size, in bytes.
        found: u64,
        /// The limit, in bytes.
        limit: u64,
    },
    /// The caller asked for entries that the log does not hold, or appended with a gap.
    #[error("log index {index} is outside of what can be {op}: the log holds {first}..{next}")]
    OutOfRange {
        /// What was asked for ("read", "appended", "cut").
        op: &'static str,
        /// The index asked for.
        index: u64,
        /// First index held.
        first: u64,
        /// Index after the last one held.
        next: u64,
    },
    /// The worker's local store could not do it.
    #[error("local store {file}: {reason}; {remedy}")]
    Local {
        /// The file.
        file: String,
        /// What the store said.
        reason: String,
        /// What to do.
        remedy: &'static str,
    },
    /// The simulated machine lost power; only the faulty disk says this.
    #[error("the simulated machine is down")]
    PowerLost,
}

impl StorageError {
    /// Wraps an error of the operating system; "no space" and quota errors become [`StorageError::Full`].
    #[must_use]
    pub fn io(op: &'static str, file: &str, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full {
                op,
                file: file.to_owned(),
            },
            io::ErrorKind::NotFound => Self::NotFound {
                file: file.to_owned(),
            },
            _ => Self::Io {
                op,
                file: file.to_owned(),
                source,
            },
        }
    }

    /// Whether the disk was full: the operation may succeed later.
    #[must_use]
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Full { .. })
    }

    /// Whether stored bytes were found damaged.
    #[must_use]
    pub fn is_corrupt(&self) -> bool {
        matches!(self, Self::Corrupt { .. })
    }

    /// The same error as an `io::Error`, for traits that want one.
    #[must_use]
    pub fn into_io(self) -> io::Error {
        let kind = match &self {
            Self::Full { .. } => io::ErrorKind::StorageFull,
            Self::NotFound { .. } => io::ErrorKind::NotFound,
            Self::Corrupt { .. } | Self::Newer { .. } => io::ErrorKind::InvalidData,
            Self::Io { source, .. } => source.kind(),
            _ => io::ErrorKind::Other,
        };
        io::Error::new(kind, self)
    }
}

fn pid_text(pid: Option<u32>) -> String {
    pid.map_or_else(String::new, |pid| format!(" (pid {pid})"))
}
