//! Errors: what, where, and what to do.

use crate::home::Owner;
use warren_state::Rejection;
use warren_storage::StorageError;
use warren_types::NodeId;

/// Why the engine could not be started, or why a request of another manager could not be served.
#[derive(Debug, thiserror::Error)]
pub enum RaftError {
    /// The disk.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// What is stored cannot be understood although it is undamaged.
    #[error(
        "{what} in {place} cannot be read ({reason}); it was written by another release: start that one, or restore a backup"
    )]
    Unreadable {
        /// What ("snapshot", "log entry", …).
        what: &'static str,
        /// Where.
        place: String,
        /// Why.
        reason: String,
    },
    /// The directory is another node's, or another cluster's.
    #[error(
        "the log and snapshots in {place} are those of {found}, this is {own}: put the right directory back, or remove what this node holds with `warren node reset` and let it join again"
    )]
    OtherOwner {
        /// The directory.
        place: String,
        /// Whose it is.
        found: Owner,
        /// Who this is.
        own: Owner,
    },
    /// The settings contradict each other.
    #[error("raft settings: {0}")]
    Config(String),
    /// The node is part of a cluster already.
    #[error(
        "this node is a member of a cluster already; reset it first (`warren node reset`) to begin a new one"
    )]
    AlreadyInitialized,
    /// The members to begin with do not contain this node.
    #[error("the first members of a cluster must contain this node ({0})")]
    NotAMember(NodeId),
    /// A change of the members is refused.
    #[error("members cannot be changed: {0}")]
    Membership(String),
    /// This node does not lead.
    #[error("this node is not the leader{}", leader_text(*.leader, .address))]
    NotLeader {
        /// The leader, when known.
        leader: Option<NodeId>,
        /// Its address, when known.
        address: String,
    },
    /// The sender is no member of the cluster any more.
    #[error(
        "manager {node} was removed from this cluster; reset it (`warren node reset`) and join again with a new token"
    )]
    Removed {
        /// The sender.
        node: NodeId,
    },
    /// The quorum did not confirm in time.
    #[error(
        "no quorum of managers answered in time; bring managers back, or see `warren cluster recover`; the change may still take effect"
    )]
    NoQuorum,
    /// This node's log was damaged and has not been fetched anew as a whole: the cluster cannot go on from it.
    #[error(
        "what this manager holds is incomplete: its files were damaged and it was still fetching them anew; recover on another manager, or restore a backup (`warren cluster restore`)"
    )]
    Incomplete,
    /// This node's log was damaged and is being fetched anew; it cannot take part in elections yet.
    #[error(
        "this manager is fetching its log anew after damage and does not vote yet; it joins in by itself"
    )]
    Healing,
    /// A message of another manager makes no sense.
    #[error(
        "malformed {0} message from another manager; check that all managers run compatible releases"
    )]
    BadMessage(&'static str),
    /// The engine has stopped.
    #[error("consensus has stopped on this node: {reason}; restart the daemon")]
    Stopped {
        /// Why.
        reason: String,
    },
}

/// Why a proposal was not applied.
#[derive(Debug, thiserror::Error)]
pub enum ProposeError {
    /// The state refuses it; nothing has changed.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// Another node leads; nothing has changed.
    #[error("this node is not the leader{}", leader_text(*.leader, .address))]
    NotLeader {
        /// The leader, when known.
        leader: Option<NodeId>,
        /// Its address, when known.
        address: String,
    },
    /// The quorum did not answer in time. The command may still be applied later.
    #[error(
        "no quorum of managers answered in time; bring managers back, or see `warren cluster recover`; the change may still take effect"
    )]
    NoQuorum,
    /// This node leads but has not heard a quorum for a while; nothing has changed.
    #[error(
        "this manager hears no quorum of managers, so changes are refused; bring managers back, or see `warren cluster recover`"
    )]
    NoContact,
    /// Leadership was lost while the command was under way. It may have been applied or not.
    #[error(
        "leadership changed while the change was under way; look whether it took effect before repeating it"
    )]
    Uncertain,
    /// The disk of this node is full.
    #[error("the disk of this manager is full, changes are refused until there is space; reading goes on{}", if *.maybe { "; this change may still take effect" } else { "" })]
    DiskFull {
        /// Whether the command was written before the disk was found full, so that it may still be applied later.
        maybe: bool,
    },
    /// The command is over the limit.
    #[error("the change has {bytes} bytes, the limit is {limit}; split it")]
    TooLarge {
        /// Size of the encoded command.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// Too many proposals wait already.
    #[error("too many changes at once ({limit} are waiting); try again in a moment")]
    Overloaded {
        /// How many may wait.
        limit: usize,
    },
    /// The engine has stopped.
    #[error("consensus has stopped on this node: {reason}; restart the daemon")]
    Stopped {
        /// Why.
        reason: String,
    },
}

impl ProposeError {
    /// Whether it is certain that the command was not and will not be applied.
    #[must_use]
    pub fn certainly_not_applied(&self) -> bool {
        match self {
            Self::Rejected(_)
            | Self::NotLeader { .. }
            | Self::NoContact
            | Self::TooLarge { .. }
            | Self::Overloaded { .. } => true,
            Self::DiskFull { maybe } => !maybe,
            Self::NoQuorum | Self::Uncertain | Self::Stopped { .. } => false,
        }
    }
}

/// Why a linearizable read is not possible here and now.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Another node leads: ask it, or read what this node has (it may be old).
    #[error("this node is not the leader{}", leader_text(*.leader, .address))]
    NotLeader {
        /// The leader, when known.
        leader: Option<NodeId>,
        /// Its address, when known.
        address: String,
    },
    /// This node has not applied what it was asked to wait for.
    #[error(
        "this manager has applied changes up to {applied:?} only, {wanted} is asked for; ask the leader, or try again"
    )]
    Behind {
        /// Index that was waited for.
        wanted: u64,
        /// Index of the last entry applied here.
        applied: Option<u64>,
    },
    /// The quorum does not answer.
    #[error(
        "no quorum of managers answers, so what this node has may be old; bring managers back, or see `warren cluster recover`"
    )]
    NoQuorum,
    /// The engine has stopped.
    #[error("consensus has stopped on this node: {reason}; restart the daemon")]
    Stopped {
        /// Why.
        reason: String,
    },
}

fn leader_text(leader: Option<NodeId>, address: &str) -> String {
    match leader {
        Some(leader) if address.is_empty() => format!(", node {leader} is"),
        Some(leader) => format!(", node {leader} at {address} is"),
        None => ", and none is known; wait for an election".to_owned(),
    }
}
