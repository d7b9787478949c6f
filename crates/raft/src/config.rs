//! Settings.

use std::time::Duration;
use warren_types::NodeId;

/// Times that fit the network between managers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// Managers in one place: heartbeat 100 ms, election after 300 to 600 ms.
    Lan,
    /// Managers far apart: ten times that.
    Wan,
}

impl Profile {
    const fn factor(self) -> u64 {
        match self {
            Self::Lan => 1,
            Self::Wan => 10,
        }
    }

    /// Time between heartbeats, in milliseconds.
    #[must_use]
    pub const fn heartbeat_ms(self) -> u64 {
        100 * self.factor()
    }

    /// Shortest and longest election timeout, in milliseconds.
    #[must_use]
    pub const fn election_ms(self) -> (u64, u64) {
        (300 * self.factor(), 600 * self.factor())
    }
}

/// Who writes the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IoMode {
    /// A thread of its own. What daemons use.
    Thread,
    /// A task of the runtime, which blocks it while it writes: deterministic, for simulation.
    Task,
}

/// Settings of the engine.
#[derive(Debug, Clone)]
pub struct RaftConfig {
    /// This node.
    pub id: NodeId,
    /// Name of the cluster, for messages.
    pub cluster: String,
    /// Directory on the disk that holds log and snapshots; it is locked while the engine runs.
    pub dir: String,
    /// Times.
    pub profile: Profile,
    /// A snapshot is taken after so many applied entries.
    pub snapshot_entries: u64,
    /// … or after so many bytes of applied entries.
    pub snapshot_bytes: u64,
    /// Size of a log segment, in bytes. The node takes up to two of them in advance.
    pub segment_bytes: u64,
    /// How long a proposal may wait for a quorum.
    pub propose_timeout: Duration,
    /// Who writes the log.
    pub io: IoMode,
    /// Bugs switched on by tests.
    #[cfg(any(test, feature = "testing"))]
    pub bugs: crate::Bugs,
}

impl RaftConfig {
    /// The defaults for a node: LAN, snapshots at 10,000 entries or 64 MiB, segments of 8 MiB, 5 s for a proposal.
    #[must_use]
    pub fn new(id: NodeId) -> Self {
        Self {
            id,
            cluster: "warren".to_owned(),
            dir: "raft".to_owned(),
            profile: Profile::Lan,
            snapshot_entries: 10_000,
            snapshot_bytes: 64 * 1024 * 1024,
            segment_bytes: 8 * 1024 * 1024,
            propose_timeout: Duration::from_secs(5),
            io: IoMode::Thread,
            #[cfg(any(test, feature = "testing"))]
            bugs: crate::Bugs::default(),
        }
    }

    pub(crate) fn openraft(&self) -> openraft::Config {
        let (min, max) = self.profile.election_ms();
        openraft::Config {
            cluster_name: self.cluster.clone(),
            heartbeat_interval: self.profile.heartbeat_ms(),
            election_timeout_min: min,
            election_timeout_max: max,
            install_snapshot_timeout: 60_000,
            // Snapshots are written by us in the background; openraft is told when one is finished.
            snapshot_policy: openraft::SnapshotPolicy::Never,
            // How far back the log really goes is decided by `log_store`: to the older snapshot kept.
            max_in_snapshot_log_to_keep: 0,
            purge_batch_size: 1,
            // A restarted leader takes a new term, so that whatever it had begun before is fenced off.
            enable_leader_restore: Some(false),
            enable_pre_vote: Some(true),
            ..openraft::Config::default()
        }
    }
}
