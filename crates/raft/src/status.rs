//! What the engine tells about itself.

use crate::config::Profile;
use crate::types::Member;
use std::collections::BTreeMap;
use std::time::Duration;
use warren_storage::DiskStats;
use warren_types::NodeId;

/// Who leads.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Leadership {
    /// The leader, as far as this node knows.
    pub leader: Option<NodeId>,
    /// The term.
    pub term: u64,
    /// Whether this node leads.
    pub is_leader: bool,
    /// Whether this node leads and has applied everything that earlier leaders had acknowledged. Only then may what a
    /// leader runs be started.
    pub ready: bool,
}

/// How another member stands, as its leader sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerStatus {
    /// Last entry that it is known to hold as the leader does.
    pub matched: Option<u64>,
    /// How many entries of the leader's log it lacks.
    pub lag: u64,
    /// Time since a message was sent that it acknowledged.
    pub last_contact: Option<Duration>,
    /// Whether it has a vote.
    pub voter: bool,
    /// The times that it runs with, when it has said so.
    pub profile: Option<Profile>,
}

/// Figures for people and metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RaftStatus {
    /// This node.
    pub id: NodeId,
    /// The times that it runs with.
    pub profile: Profile,
    /// Who leads.
    pub leadership: Leadership,
    /// Index of the last log entry.
    pub last_index: Option<u64>,
    /// Index of the last entry known to be on a quorum.
    pub committed_index: Option<u64>,
    /// Index of the last entry applied here.
    pub applied_index: Option<u64>,
    /// Last entry of the newest snapshot.
    pub snapshot_index: Option<u64>,
    /// Last entry purged from the log.
    pub purged_index: Option<u64>,
    /// Entries in the log.
    pub log_entries: u64,
    /// Disk space of the log, in bytes.
    pub log_bytes: u64,
    /// Size of the newest snapshot, in bytes.
    pub snapshot_bytes: u64,
    /// Managers with a vote.
    pub voters: BTreeMap<NodeId, Member>,
    /// Managers that receive the log but have no vote (yet).
    pub learners: BTreeMap<NodeId, Member>,
    /// The other members; only the leader knows.
    pub peers: BTreeMap<NodeId, PeerStatus>,
    /// Whether this node is fetching its log anew after damage and has no say in elections.
    pub healing: bool,
    /// How often another leader became known since the engine was started.
    pub leader_changes: u64,
    /// Time since the leader changed (to another one or to none).
    pub last_election: Option<Duration>,
    /// Whether proposals are refused because the disk is full.
    pub disk_full: bool,
    /// What went wrong with the last snapshot.
    pub snapshot_error: Option<String>,
    /// Why the engine has stopped, when it has.
    pub stopped: Option<String>,
    /// What was asked of the disk since it was opened.
    pub disk: DiskStats,
}
