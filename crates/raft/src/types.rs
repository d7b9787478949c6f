//! The types that openraft is instantiated with.

use crate::runtime::Rt;
use bytes::Bytes;
use openraft::impls::leader_id_std;
use openraft::vote::RaftLeaderId;
use std::fmt;
use warren_state::{Applied, Rejection};
use warren_types::NodeId;

/// Where a manager can be found. A hint: identity is the node id, proven by its certificate.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Member {
    /// Name of the node, for people.
    pub name: String,
    /// Address of its API port, `host:port`.
    pub address: String,
}

/// An encoded command. Kept encoded, so that the leader applies exactly what replays and followers apply.
#[derive(Clone)]
pub(crate) struct CommandBytes {
    pub(crate) bytes: Bytes,
    /// When it was proposed on this node, for the metrics; neither stored nor sent.
    pub(crate) proposed: Option<tokio::time::Instant>,
}

impl CommandBytes {
    pub(crate) fn stored(bytes: Bytes) -> Self {
        Self {
            bytes,
            proposed: None,
        }
    }
}

impl PartialEq for CommandBytes {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl Eq for CommandBytes {}

impl fmt::Debug for CommandBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "command of {} bytes", self.bytes.len())
    }
}

impl fmt::Display for CommandBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What applying an entry gave.
#[derive(Debug, Clone)]
pub(crate) enum Outcome {
    /// The command changed the state.
    Applied(Applied),
    /// The command was refused and changed nothing.
    Rejected(Rejection),
    /// The entry was not a command.
    Nothing,
}

openraft::declare_raft_types!(
    /// The configuration of openraft.
    pub(crate) Types:
        D = CommandBytes,
        R = Outcome,
        NodeId = NodeId,
        Node = Member,
        Term = u64,
        LeaderId = leader_id_std::LeaderId<u64, NodeId>,
        AsyncRuntime = Rt,
);

pub(crate) type LeaderId = leader_id_std::LeaderId<u64, NodeId>;
pub(crate) type CommittedLeaderId = <LeaderId as RaftLeaderId>::Committed;
pub(crate) type LogId = openraft::LogId<CommittedLeaderId>;
pub(crate) type Vote = openraft::Vote<LeaderId>;
pub(crate) type Payload = openraft::EntryPayload<CommandBytes, NodeId, Member>;
pub(crate) type Entry = openraft::Entry<CommittedLeaderId, Payload>;
pub(crate) type Membership = openraft::Membership<NodeId, Member>;
pub(crate) type StoredMembership = openraft::StoredMembership<CommittedLeaderId, NodeId, Member>;
pub(crate) type SnapshotMeta = openraft::SnapshotMeta<CommittedLeaderId, NodeId, Member>;

pub(crate) fn log_id(term: u64, index: u64) -> LogId {
    LogId {
        leader_id: LeaderId {
            term,
            voted_for: NodeId::default(),
        }
        .to_committed(),
        index,
    }
}
