//! Settings.

use crate::home::Owner;
use std::time::Duration;
use warren_types::{ClusterId, NodeId, RaftProfile};

/// Times that fit the network between managers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Profile {
    /// Managers in one place: heartbeat 100 ms, a follower elects 450 to 600 ms after it last heard its leader.
    Lan,
    /// Managers far apart: ten times that.
    Wan,
}

impl From<RaftProfile> for Profile {
    fn from(setting: RaftProfile) -> Self {
        match setting {
            RaftProfile::Lan => Self::Lan,
            RaftProfile::Wan => Self::Wan,
        }
    }
}

impl From<Profile> for RaftProfile {
    fn from(profile: Profile) -> Self {
        match profile {
            Profile::Lan => Self::Lan,
            Profile::Wan => Self::Wan,
        }
    }
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

    /// How long a follower that heard its leader votes for nobody else, in milliseconds.
    #[must_use]
    pub const fn lease_ms(self) -> u64 {
        300 * self.factor()
    }

    /// What a follower waits beyond the lease before it campaigns, at least, in milliseconds. At most it is the lease once more.
    const fn patience_ms(self) -> u64 {
        150 * self.factor()
    }

    /// Shortest and longest time from the last word of a leader to an election, in milliseconds.
    #[must_use]
    pub const fn election_ms(self) -> (u64, u64) {
        (self.lease_ms() + self.patience_ms(), 2 * self.lease_ms())
    }

    /// The longest time from the last word of a leader to an election.
    pub(crate) const fn election_max(self) -> Duration {
        Duration::from_millis(self.election_ms().1)
    }

    /// [`Profile::lease_ms`] as a duration.
    pub(crate) const fn lease(self) -> Duration {
        Duration::from_millis(self.lease_ms())
    }

    /// [`Profile::heartbeat_ms`] as a duration.
    pub(crate) const fn heartbeat(self) -> Duration {
        Duration::from_millis(self.heartbeat_ms())
    }

    /// Heartbeats within a lease.
    pub(crate) const fn heartbeats_per_lease(self) -> u64 {
        self.lease_ms() / self.heartbeat_ms()
    }

    /// The profile with a lease of so many milliseconds, or the shortest longer one.
    pub(crate) const fn with_lease_ms(lease_ms: u64) -> Self {
        if lease_ms <= Self::Lan.lease_ms() {
            Self::Lan
        } else {
            Self::Wan
        }
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
    /// The cluster that this node's certificate names: a directory with the data of another one is refused. None checks nothing.
    pub cluster_id: Option<ClusterId>,
    /// Directory on the disk that holds log and snapshots; it is locked while the engine runs.
    pub dir: String,
    /// Times, unless [`crate::RaftHandle::keep_profile`] has left others for this directory.
    pub profile: Profile,
    /// A snapshot is taken after so many applied entries.
    pub snapshot_entries: u64,
    /// … or after so many bytes of applied entries.
    pub snapshot_bytes: u64,
    /// The log on disk shall not grow beyond this, in bytes: a snapshot is taken early. At least four segments.
    pub log_bytes_max: u64,
    /// Whether the leader answers linearizable reads without asking the others while its lease lasts. Assumes that no
    /// machine's clock stands still for part of a second while its processes run (a suspended machine is noticed, a
    /// virtual machine stopped from outside, clock included, is not); without it each read costs a round of heartbeats.
    pub lease_reads: bool,
    /// Size of a log segment, in bytes. The node takes up to two of them in advance.
    pub segment_bytes: u64,
    /// How long a proposal may wait for a quorum.
    pub propose_timeout: Duration,
    /// Who writes the log.
    pub io: IoMode,
    /// Bugs switched on by tests.
    #[cfg(any(test, feature = "testing"))]
    pub bugs: crate::Bugs,
    /// Is told what happens inside.
    #[cfg(any(test, feature = "testing"))]
    pub observer: Option<std::sync::Arc<dyn crate::testing::Observer>>,
    /// How long each request to the log takes, in milliseconds ([`IoMode::Task`] only).
    #[cfg(any(test, feature = "testing"))]
    pub slow_disk_ms: std::sync::Arc<std::sync::atomic::AtomicU64>,
}

impl RaftConfig {
    /// The defaults for a node: LAN, snapshots at 10,000 entries or 64 MiB, segments of 8 MiB, a log of at most
    /// 1 GiB, lease reads, 5 s for a proposal.
    #[must_use]
    pub fn new(id: NodeId) -> Self {
        Self {
            id,
            cluster: "warren".to_owned(),
            cluster_id: None,
            dir: "raft".to_owned(),
            profile: Profile::Lan,
            snapshot_entries: 10_000,
            snapshot_bytes: 64 * 1024 * 1024,
            log_bytes_max: 1024 * 1024 * 1024,
            lease_reads: true,
            segment_bytes: 8 * 1024 * 1024,
            propose_timeout: Duration::from_secs(5),
            io: IoMode::Thread,
            #[cfg(any(test, feature = "testing"))]
            bugs: crate::Bugs::default(),
            #[cfg(any(test, feature = "testing"))]
            observer: None,
            #[cfg(any(test, feature = "testing"))]
            slow_disk_ms: std::sync::Arc::default(),
        }
    }

    /// Whose directory it has to be.
    pub(crate) fn owner(&self) -> Option<Owner> {
        let node = self.id;
        self.cluster_id.map(|cluster| Owner { cluster, node })
    }

    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn lab(&self) -> crate::testing::Lab {
        crate::testing::Lab {
            bugs: self.bugs,
            observer: self.observer.clone(),
            slow_disk_ms: std::sync::Arc::clone(&self.slow_disk_ms),
        }
    }

    /// What openraft is told. Its `election_timeout_max` is also the lease: a follower that hears its leader at `t`
    /// refuses votes until `t + lease` and campaigns at `t + lease +` a random part of `min..max`
    /// (openraft 0.10 `engine_config.rs`, `raft_core.rs: handle_tick_election`).
    pub(crate) fn openraft(&self) -> openraft::Config {
        openraft::Config {
            cluster_name: self.cluster.clone(),
            heartbeat_interval: self.profile.heartbeat_ms(),
            election_timeout_min: self.profile.patience_ms(),
            election_timeout_max: self.profile.lease_ms(),
            install_snapshot_timeout: 60_000,
            // Entries of one message; `log_store` also limits its bytes.
            max_payload_entries: 4096,
            // Snapshots are written by us in the background; openraft is told when one is finished.
            snapshot_policy: openraft::SnapshotPolicy::Never,
            // How far back the log really goes is decided by `log_store`: to the older snapshot kept.
            max_in_snapshot_log_to_keep: 0,
            purge_batch_size: 1,
            // A restarted leader takes a new term, so that whatever it had begun before is fenced off.
            enable_leader_restore: Some(false),
            enable_pre_vote: Some(true),
            // Switched on by `handle` once the lease is over that this node may have granted before it restarted.
            enable_elect: false,
            // A manager whose damaged log was set aside begins again with an empty one (see `healing`).
            allow_log_reversion: Some(true),
            backoff: "50ms 100ms 200ms ...1s".to_owned(),
            ..openraft::Config::default()
        }
    }
}
