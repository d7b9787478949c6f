//! Messages between managers and entries on disk: protobuf, so that releases can be mixed.

use crate::types::{
    CommandBytes, Entry, LeaderId, LogId, Member, Membership, Payload, SnapshotMeta,
    StoredMembership, Types, Vote, log_id,
};
use bytes::Bytes;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
};
use prost::Message;
use std::collections::{BTreeMap, BTreeSet};
use warren_storage::SnapshotSeal;
use warren_types::NodeId;

/// Bytes that are not the message they should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed;

impl From<prost::DecodeError> for Malformed {
    fn from(_: prost::DecodeError) -> Self {
        Self
    }
}

type Result<T> = std::result::Result<T, Malformed>;

/// A domain value that has a message.
pub(crate) trait Wire: Sized {
    type Message: Message + Default;
    fn to_message(&self) -> Self::Message;
    fn from_message(message: Self::Message) -> Result<Self>;

    fn encode(&self) -> Vec<u8> {
        self.to_message().encode_to_vec()
    }

    fn decode(bytes: Bytes) -> Result<Self> {
        Self::from_message(Self::Message::decode(bytes)?)
    }
}

fn required<T: Wire>(message: Option<T::Message>) -> Result<T> {
    T::from_message(message.ok_or(Malformed)?)
}

fn optional<T: Wire>(message: Option<T::Message>) -> Result<Option<T>> {
    message.map(T::from_message).transpose()
}

fn put_node(id: NodeId) -> Vec<u8> {
    id.as_u128().to_be_bytes().to_vec()
}

fn take_node(bytes: &[u8]) -> Result<NodeId> {
    Ok(NodeId::from_u128(u128::from_be_bytes(
        bytes.try_into().map_err(|_| Malformed)?,
    )))
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct LogIdMessage {
    #[prost(uint64, tag = "1")]
    term: u64,
    #[prost(uint64, tag = "2")]
    index: u64,
}

impl Wire for LogId {
    type Message = LogIdMessage;

    fn to_message(&self) -> LogIdMessage {
        LogIdMessage {
            term: self.leader_id.term,
            index: self.index,
        }
    }

    fn from_message(message: LogIdMessage) -> Result<Self> {
        Ok(log_id(message.term, message.index))
    }
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct VoteMessage {
    #[prost(uint64, tag = "1")]
    term: u64,
    #[prost(bytes = "vec", tag = "2")]
    voted_for: Vec<u8>,
    #[prost(bool, tag = "3")]
    committed: bool,
}

impl Wire for Vote {
    type Message = VoteMessage;

    fn to_message(&self) -> VoteMessage {
        VoteMessage {
            term: self.leader_id.term,
            voted_for: put_node(self.leader_id.voted_for),
            committed: self.committed,
        }
    }

    fn from_message(message: VoteMessage) -> Result<Self> {
        let leader_id = LeaderId {
            term: message.term,
            voted_for: take_node(&message.voted_for)?,
        };
        Ok(Self {
            leader_id,
            committed: message.committed,
        })
    }
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct MemberMessage {
    #[prost(bytes = "vec", tag = "1")]
    id: Vec<u8>,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(string, tag = "3")]
    address: String,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct VotersMessage {
    #[prost(bytes = "vec", repeated, tag = "1")]
    ids: Vec<Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct MembershipMessage {
    /// One set of voters, or two while members change.
    #[prost(message, repeated, tag = "1")]
    voters: Vec<VotersMessage>,
    #[prost(message, repeated, tag = "2")]
    members: Vec<MemberMessage>,
}

impl Wire for Membership {
    type Message = MembershipMessage;

    fn to_message(&self) -> MembershipMessage {
        let voters = self.get_joint_config().iter().map(|set| VotersMessage {
            ids: set.iter().map(|id| put_node(*id)).collect(),
        });
        let members = self.nodes().map(|(id, member)| MemberMessage {
            id: put_node(*id),
            name: member.name.clone(),
            address: member.address.clone(),
        });
        MembershipMessage {
            voters: voters.collect(),
            members: members.collect(),
        }
    }

    fn from_message(message: MembershipMessage) -> Result<Self> {
        let mut voters = Vec::new();
        for set in message.voters {
            voters.push(
                set.ids
                    .iter()
                    .map(|id| take_node(id))
                    .collect::<Result<BTreeSet<NodeId>>>()?,
            );
        }
        let mut members = BTreeMap::new();
        for member in message.members {
            members.insert(
                take_node(&member.id)?,
                Member {
                    name: member.name,
                    address: member.address,
                },
            );
        }
        if voters.is_empty() && members.is_empty() {
            return Ok(Self::default());
        }
        Self::new(voters, members).map_err(|_| Malformed)
    }
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct StoredMembershipMessage {
    #[prost(message, optional, tag = "1")]
    log_id: Option<LogIdMessage>,
    #[prost(message, optional, tag = "2")]
    membership: Option<MembershipMessage>,
}

impl Wire for StoredMembership {
    type Message = StoredMembershipMessage;

    fn to_message(&self) -> StoredMembershipMessage {
        StoredMembershipMessage {
            log_id: self.log_id().as_ref().map(Wire::to_message),
            membership: Some(self.membership().to_message()),
        }
    }

    fn from_message(message: StoredMembershipMessage) -> Result<Self> {
        Ok(Self::new(
            optional(message.log_id)?,
            required(message.membership)?,
        ))
    }
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct SnapshotMetaMessage {
    #[prost(message, optional, tag = "1")]
    last: Option<LogIdMessage>,
    #[prost(message, optional, tag = "2")]
    membership: Option<StoredMembershipMessage>,
}

impl Wire for SnapshotMeta {
    type Message = SnapshotMetaMessage;

    fn to_message(&self) -> SnapshotMetaMessage {
        SnapshotMetaMessage {
            last: self.last_log_id.as_ref().map(Wire::to_message),
            membership: Some(self.last_membership.to_message()),
        }
    }

    fn from_message(message: SnapshotMetaMessage) -> Result<Self> {
        Ok(Self {
            last_log_id: optional(message.last)?,
            last_membership: required(message.membership)?,
        })
    }
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct EntryMessage {
    #[prost(uint64, tag = "1")]
    term: u64,
    #[prost(uint64, tag = "2")]
    index: u64,
    #[prost(oneof = "PayloadMessage", tags = "3, 4, 5")]
    payload: Option<PayloadMessage>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(crate) enum PayloadMessage {
    #[prost(bool, tag = "3")]
    Blank(bool),
    #[prost(bytes = "bytes", tag = "4")]
    Command(Bytes),
    #[prost(message, tag = "5")]
    Membership(MembershipMessage),
}

impl Wire for Entry {
    type Message = EntryMessage;

    fn to_message(&self) -> EntryMessage {
        let payload = match &self.payload {
            Payload::Blank => PayloadMessage::Blank(true),
            Payload::Normal(command) => PayloadMessage::Command(command.bytes.clone()),
            Payload::Membership(membership) => PayloadMessage::Membership(membership.to_message()),
        };
        EntryMessage {
            term: self.log_id.leader_id.term,
            index: self.log_id.index,
            payload: Some(payload),
        }
    }

    fn from_message(message: EntryMessage) -> Result<Self> {
        let payload = match message.payload.ok_or(Malformed)? {
            PayloadMessage::Blank(_) => Payload::Blank,
            PayloadMessage::Command(bytes) => Payload::Normal(CommandBytes::stored(bytes)),
            PayloadMessage::Membership(membership) => {
                Payload::Membership(Membership::from_message(membership)?)
            }
        };
        Ok(Self {
            log_id: log_id(message.term, message.index),
            payload,
        })
    }
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct AppendMessage {
    #[prost(message, optional, tag = "1")]
    vote: Option<VoteMessage>,
    #[prost(message, optional, tag = "2")]
    previous: Option<LogIdMessage>,
    #[prost(message, optional, tag = "3")]
    committed: Option<LogIdMessage>,
    #[prost(message, repeated, tag = "4")]
    entries: Vec<EntryMessage>,
    /// The last entry that the leader has applied, and the hash of the state after it.
    #[prost(message, optional, tag = "5")]
    applied: Option<HashMessage>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct HashMessage {
    #[prost(uint64, tag = "1")]
    pub(crate) index: u64,
    #[prost(fixed64, tag = "2")]
    pub(crate) hash: u64,
    /// How the hash is made: others cannot be compared.
    #[prost(uint32, tag = "3")]
    pub(crate) scheme: u32,
}

/// An append with the hash of the leader's state.
pub(crate) fn append_message(
    request: &AppendEntriesRequest<Types>,
    applied: Option<(u64, u64)>,
) -> AppendMessage {
    let mut message = request.to_message();
    message.applied = applied.map(|(index, hash)| HashMessage {
        index,
        hash,
        scheme: warren_state::HASH_SCHEME,
    });
    message
}

/// An append and, when it can be compared, the hash of the leader's state.
pub(crate) fn read_append(
    bytes: Bytes,
) -> Result<(AppendEntriesRequest<Types>, Option<HashMessage>)> {
    let mut message = AppendMessage::decode(bytes)?;
    let applied = message
        .applied
        .take()
        .filter(|applied| applied.scheme == warren_state::HASH_SCHEME);
    Ok((AppendEntriesRequest::from_message(message)?, applied))
}

impl Wire for AppendEntriesRequest<Types> {
    type Message = AppendMessage;

    fn to_message(&self) -> AppendMessage {
        AppendMessage {
            vote: Some(self.vote.to_message()),
            previous: self.prev_log_id.as_ref().map(Wire::to_message),
            committed: self.leader_commit.as_ref().map(Wire::to_message),
            entries: self.entries.iter().map(Wire::to_message).collect(),
            applied: None,
        }
    }

    fn from_message(message: AppendMessage) -> Result<Self> {
        Ok(Self {
            vote: required(message.vote)?,
            prev_log_id: optional(message.previous)?,
            leader_commit: optional(message.committed)?,
            entries: message
                .entries
                .into_iter()
                .map(Entry::from_message)
                .collect::<Result<_>>()?,
        })
    }
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct AppendAnswerMessage {
    #[prost(oneof = "AppendAnswer", tags = "1, 2, 3, 4")]
    answer: Option<AppendAnswer>,
    /// For so many milliseconds from now the follower votes for nobody else.
    #[prost(uint64, optional, tag = "5")]
    lease_ms: Option<u64>,
}

/// An answer to an append, with the lease that it grants; `None` from releases that know one profile only.
pub(crate) struct Granted {
    pub(crate) answer: AppendEntriesResponse<Types>,
    pub(crate) lease_ms: Option<u64>,
}

impl Wire for Granted {
    type Message = AppendAnswerMessage;

    fn to_message(&self) -> AppendAnswerMessage {
        AppendAnswerMessage {
            lease_ms: self.lease_ms,
            ..self.answer.to_message()
        }
    }

    fn from_message(message: AppendAnswerMessage) -> Result<Self> {
        Ok(Self {
            lease_ms: message.lease_ms,
            answer: AppendEntriesResponse::from_message(message)?,
        })
    }
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct PartialMessage {
    #[prost(message, optional, tag = "1")]
    upto: Option<LogIdMessage>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(crate) enum AppendAnswer {
    #[prost(bool, tag = "1")]
    Success(bool),
    #[prost(message, tag = "2")]
    Partial(PartialMessage),
    #[prost(bool, tag = "3")]
    Conflict(bool),
    #[prost(message, tag = "4")]
    HigherVote(VoteMessage),
}

impl Wire for AppendEntriesResponse<Types> {
    type Message = AppendAnswerMessage;

    fn to_message(&self) -> AppendAnswerMessage {
        let answer = match self {
            Self::Success => AppendAnswer::Success(true),
            Self::PartialSuccess(upto) => AppendAnswer::Partial(PartialMessage {
                upto: upto.as_ref().map(Wire::to_message),
            }),
            Self::Conflict => AppendAnswer::Conflict(true),
            Self::HigherVote(vote) => AppendAnswer::HigherVote(vote.to_message()),
        };
        AppendAnswerMessage {
            answer: Some(answer),
            lease_ms: None,
        }
    }

    fn from_message(message: AppendAnswerMessage) -> Result<Self> {
        Ok(match message.answer.ok_or(Malformed)? {
            AppendAnswer::Success(_) => Self::Success,
            AppendAnswer::Partial(partial) => Self::PartialSuccess(optional(partial.upto)?),
            AppendAnswer::Conflict(_) => Self::Conflict,
            AppendAnswer::HigherVote(vote) => Self::HigherVote(Vote::from_message(vote)?),
        })
    }
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct VoteRequestMessage {
    #[prost(message, optional, tag = "1")]
    vote: Option<VoteMessage>,
    #[prost(message, optional, tag = "2")]
    last: Option<LogIdMessage>,
    #[prost(bool, tag = "3")]
    transfer: bool,
}

impl Wire for VoteRequest<Types> {
    type Message = VoteRequestMessage;

    fn to_message(&self) -> VoteRequestMessage {
        VoteRequestMessage {
            vote: Some(self.vote.to_message()),
            last: self.last_log_id.as_ref().map(Wire::to_message),
            transfer: self.leadership_transfer,
        }
    }

    fn from_message(message: VoteRequestMessage) -> Result<Self> {
        let mut request = Self::new(required(message.vote)?, optional(message.last)?);
        request.leadership_transfer = message.transfer;
        Ok(request)
    }
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct VoteAnswerMessage {
    #[prost(message, optional, tag = "1")]
    vote: Option<VoteMessage>,
    #[prost(message, optional, tag = "2")]
    last: Option<LogIdMessage>,
    #[prost(bool, tag = "3")]
    granted: bool,
}

impl Wire for VoteResponse<Types> {
    type Message = VoteAnswerMessage;

    fn to_message(&self) -> VoteAnswerMessage {
        VoteAnswerMessage {
            vote: Some(self.vote.to_message()),
            last: self.last_log_id.as_ref().map(Wire::to_message),
            granted: self.vote_granted,
        }
    }

    fn from_message(message: VoteAnswerMessage) -> Result<Self> {
        Ok(Self::new(
            required::<Vote>(message.vote)?,
            optional(message.last)?,
            message.granted,
        ))
    }
}

/// What goes before the bytes of a snapshot.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SnapshotHeader {
    pub(crate) vote: Vote,
    pub(crate) meta: SnapshotMeta,
    /// What the bytes add up to.
    pub(crate) seal: SnapshotSeal,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct SnapshotHeaderMessage {
    #[prost(message, optional, tag = "1")]
    vote: Option<VoteMessage>,
    #[prost(message, optional, tag = "2")]
    meta: Option<SnapshotMetaMessage>,
    #[prost(uint64, tag = "3")]
    total: u64,
    #[prost(fixed32, tag = "4")]
    sum: u32,
}

impl Wire for SnapshotHeader {
    type Message = SnapshotHeaderMessage;

    fn to_message(&self) -> SnapshotHeaderMessage {
        SnapshotHeaderMessage {
            vote: Some(self.vote.to_message()),
            meta: Some(self.meta.to_message()),
            total: self.seal.total,
            sum: self.seal.sum,
        }
    }

    fn from_message(message: SnapshotHeaderMessage) -> Result<Self> {
        Ok(Self {
            vote: required(message.vote)?,
            meta: required(message.meta)?,
            seal: SnapshotSeal {
                total: message.total,
                sum: message.sum,
            },
        })
    }
}

impl Wire for SnapshotResponse<Types> {
    type Message = VoteMessage;

    fn to_message(&self) -> VoteMessage {
        self.vote.to_message()
    }

    fn from_message(message: VoteMessage) -> Result<Self> {
        Ok(Self::new(Vote::from_message(message)?))
    }
}

/// The request to take over leadership.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Transfer {
    pub(crate) from: Vote,
    pub(crate) to: NodeId,
    pub(crate) last: Option<LogId>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct TransferMessage {
    #[prost(message, optional, tag = "1")]
    from: Option<VoteMessage>,
    #[prost(bytes = "vec", tag = "2")]
    to: Vec<u8>,
    #[prost(message, optional, tag = "3")]
    last: Option<LogIdMessage>,
}

impl Wire for Transfer {
    type Message = TransferMessage;

    fn to_message(&self) -> TransferMessage {
        TransferMessage {
            from: Some(self.from.to_message()),
            to: put_node(self.to),
            last: self.last.as_ref().map(Wire::to_message),
        }
    }

    fn from_message(message: TransferMessage) -> Result<Self> {
        Ok(Self {
            from: required(message.from)?,
            to: take_node(&message.to)?,
            last: optional(message.last)?,
        })
    }
}
