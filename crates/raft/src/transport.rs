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
    /// Which term, and how much is committed? Asked by a manager whose log was damaged.
    Probe,
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
            Self::Probe => 5,
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
            5 => Some(Self::Probe),
            _ => None,
        }
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Append => "append",
            Self::Vote => "vote",
            Self::PreVote => "pre-vote",
            Self::Transfer => "transfer",
            Self::Probe => "probe",
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
    /// It answered that this manager is no member any more ([`crate::RaftError::Removed`]).
    #[error("manager {to} says that this manager was removed from the cluster")]
    Removed {
        /// The manager.
        to: NodeId,
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
pub struct SnapshotBody {
    body: Box<dyn Read + Send>,
    at: u64,
}

impl SnapshotBody {
    pub(crate) fn new(body: impl Read + Send + 'static) -> Self {
        Self {
            body: Box::new(body),
            at: 0,
        }
    }

    /// Bytes read or skipped so far.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.at
    }

    /// Skips what the receiver has already (see [`crate::SnapshotSink::received`]); `offset` is in bytes from the
    /// beginning and not before [`SnapshotBody::position`]. Everything skipped is read and checked.
    pub fn resume_from(&mut self, offset: u64) -> std::io::Result<()> {
        let wanted = offset.saturating_sub(self.at);
        let skipped = std::io::copy(&mut self.by_ref().take(wanted), &mut std::io::sink())?;
        if skipped == wanted {
            Ok(())
        } else {
            Err(std::io::ErrorKind::UnexpectedEof.into())
        }
    }
}

impl fmt::Debug for SnapshotBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SnapshotBody(at {})", self.at)
    }
}

impl Read for SnapshotBody {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let read = self.body.read(buf)?;
        self.at += read as u64;
        Ok(read)
    }
}

/// Carries messages to other managers. Implementations keep connections; calls to different managers do not wait
/// for each other. At the other end the bytes go to [`crate::RaftHandle::serve_from`] and
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

    /// Sends a snapshot. `header` goes first; the receiver says how much it has already, which is skipped
    /// ([`SnapshotBody::resume_from`]); the answer comes after the last byte was stored. `deadline` is for each step:
    /// how long the receiver may make no progress.
    async fn send_snapshot(
        &self,
        to: NodeId,
        member: &Member,
        header: Bytes,
        body: SnapshotBody,
        deadline: Duration,
    ) -> Result<Bytes, TransportError>;

    /// Whether the manager's process has ended: its host answers, within `deadline`, that nobody listens at the address. Silence
    /// says nothing, and what cannot be found out is false.
    async fn is_gone(&self, to: NodeId, member: &Member, deadline: Duration) -> bool;
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

    async fn is_gone(&self, _: NodeId, _: &Member, _: Duration) -> bool {
        false
    }
}
