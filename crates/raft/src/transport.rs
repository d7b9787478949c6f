//! How managers reach each other. What the messages say is the business of `wire`; here they are bytes.

use crate::types::Member;
use async_trait::async_trait;
use bytes::Bytes;
use std::fmt;
use std::io::Read;
use std::time::Duration;
use warren_types::NodeId;

/// What a message asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RpcKind {
    /// Append entries (or, without any, a heartbeat).
    Append,
    /// Vote in an election.
    Vote,
    /// Would you vote?
    PreVote,
    /// Take over leadership.
    Transfer,
}

impl RpcKind {
    /// Number on the wire.
    #[must_use]
    pub const fn number(self) -> u32 {
        match self {
            Self::Append => 1,
            Self::Vote => 2,
            Self::PreVote => 3,
            Self::Transfer => 4,
        }
    }

    /// The kind with this number.
    #[must_use]
    pub const fn from_number(number: u32) -> Option<Self> {
        match number {
            1 => Some(Self::Append),
            2 => Some(Self::Vote),
            3 => Some(Self::PreVote),
            4 => Some(Self::Transfer),
            _ => None,
        }
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Append => "append",
            Self::Vote => "vote",
            Self::PreVote => "pre-vote",
            Self::Transfer => "transfer",
        }
    }
}

/// Why a manager could not be reached.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransportError {
    /// No connection; it is tried again later and less often.
    #[error("manager {to} cannot be reached: {reason}")]
    Unreachable {
        /// The manager.
        to: NodeId,
        /// Why.
        reason: String,
    },
    /// No answer in time.
    #[error("manager {to} did not answer within {after:?}")]
    Timeout {
        /// The manager.
        to: NodeId,
        /// The time allowed.
        after: Duration,
    },
    /// It answered with an error.
    #[error("manager {to} refused: {reason}")]
    Refused {
        /// The manager.
        to: NodeId,
        /// What it said.
        reason: String,
    },
}

/// A snapshot on its way to another manager: read it in pieces, at the speed of the receiver.
pub struct SnapshotBody(pub(crate) Box<dyn Read + Send>);

impl fmt::Debug for SnapshotBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SnapshotBody")
    }
}

impl Read for SnapshotBody {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        self.0.read(buf)
    }
}

/// Carries messages to other managers. Implementations keep connections; calls to different managers do not wait
/// for each other. At the other end the bytes go to [`crate::RaftHandle::serve`] and
/// [`crate::RaftHandle::receive_snapshot`].
#[async_trait]
pub trait Transport: Send + Sync + 'static {
    /// One request and its answer, within `deadline`. `to` is who it must be (proven by its certificate), `member` says
    /// where it was last found.
    async fn call(
        &self,
        to: NodeId,
        member: &Member,
        kind: RpcKind,
        request: Bytes,
        deadline: Duration,
    ) -> Result<Bytes, TransportError>;

    /// Sends a snapshot. `header` goes first; the answer comes after the last byte was stored.
    async fn send_snapshot(
        &self,
        to: NodeId,
        member: &Member,
        header: Bytes,
        body: SnapshotBody,
        deadline: Duration,
    ) -> Result<Bytes, TransportError>;
}

/// The transport of a manager that is alone.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoPeers;

fn alone(to: NodeId) -> TransportError {
    TransportError::Unreachable {
        to,
        reason: "this manager has no transport to others".to_owned(),
    }
}

#[async_trait]
impl Transport for NoPeers {
    async fn call(
        &self,
        to: NodeId,
        _: &Member,
        _: RpcKind,
        _: Bytes,
        _: Duration,
    ) -> Result<Bytes, TransportError> {
        Err(alone(to))
    }

    async fn send_snapshot(
        &self,
        to: NodeId,
        _: &Member,
        _: Bytes,
        _: SnapshotBody,
        _: Duration,
    ) -> Result<Bytes, TransportError> {
        Err(alone(to))
    }
}
