//! How commands and snapshots are written down.
//!
//! The messages of objects are those of the crate `proto` (decision record 0004); the ones here are
//! those that only the log and the snapshot know. Field numbers never change their meaning; a
//! change that an older program would misread raises `COMMAND_VERSION` or [`SNAPSHOT_FORMAT`].

mod message;
mod op;
mod snapshot;

pub use snapshot::SNAPSHOT_FORMAT;

use crate::command::{COMMAND_VERSION, Command, Op};
use message as pb;
use prost::Message;
use warren_proto::ConvertError;
use warren_types::Timestamp;

/// Bytes that are not what they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Cut short, damaged, or something else altogether.
    #[error("these bytes are no {what}: {problem}; restore them from another manager or a backup")]
    Malformed {
        /// What was expected.
        what: &'static str,
        /// What is wrong.
        problem: String,
    },
    /// Written by a newer program.
    #[error(
        "this {what} has format {found}, the newest that this program knows is {supported}; upgrade this node"
    )]
    NewerVersion {
        /// What was read.
        what: &'static str,
        /// Format of the bytes.
        found: u32,
        /// Newest format that can be read.
        supported: u32,
    },
    /// An operation that this program does not know. The node must stop: going on without it would
    /// make its state differ from that of the others.
    #[error(
        "operation {position} of this command is unknown to this program; upgrade this node, it cannot go on without"
    )]
    UnknownOp {
        /// Position in the command, from 0.
        position: usize,
    },
    /// A known operation holds fields that this program does not know. The node must stop.
    #[error(
        "this command holds fields unknown to this program; upgrade this node, it cannot go on without"
    )]
    UnknownContent,
    /// A field holds what its type cannot.
    #[error("this {what} is damaged: {source}; restore it from another manager or a backup")]
    Content {
        /// What was read.
        what: &'static str,
        /// Which field.
        source: ConvertError,
    },
}

const COMMAND: &str = "command";

impl From<ConvertError> for DecodeError {
    fn from(source: ConvertError) -> Self {
        Self::Content {
            what: COMMAND,
            source,
        }
    }
}

pub(crate) fn malformed(what: &'static str, problem: impl ToString) -> DecodeError {
    DecodeError::Malformed {
        what,
        problem: problem.to_string(),
    }
}

impl Command {
    /// The command as bytes for the log; the same command always gives the same bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let (actor, actor_name, actor_node) = pb::actor(&self.actor);
        pb::Command {
            version: self.version,
            actor,
            actor_name,
            actor_node,
            time_ms: self.time.0,
            ops: self.ops.iter().map(Op::to_message).collect(),
            idempotency_key: self.idempotency_key.clone(),
        }
        .encode_to_vec()
    }

    /// The command out of the log.
    ///
    /// # Errors
    /// [`DecodeError`]; `NewerVersion`, `UnknownOp` and `UnknownContent` mean that the node must stop
    /// and be upgraded, the others that the bytes are damaged.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let message = pb::Command::decode(bytes).map_err(|e| malformed(COMMAND, e))?;
        if message.version > COMMAND_VERSION {
            return Err(DecodeError::NewerVersion {
                what: COMMAND,
                found: message.version,
                supported: COMMAND_VERSION,
            });
        }
        // Unknown fields are dropped while reading; what is left is then shorter than what was read.
        let known = message.encoded_len() == bytes.len();
        let actor = pb::read_actor(message.actor, message.actor_name, &message.actor_node)?;
        let mut ops = Vec::with_capacity(message.ops.len());
        for (position, op) in message.ops.into_iter().enumerate() {
            let kind = op.kind.ok_or(DecodeError::UnknownOp { position })?;
            ops.push(Op::from_message(kind).map_err(|e| e.within(&format!("ops[{position}]")))?);
        }
        if !known {
            return Err(DecodeError::UnknownContent);
        }
        Ok(Self {
            version: message.version,
            actor,
            time: Timestamp(message.time_ms),
            ops,
            idempotency_key: message.idempotency_key,
        })
    }
}
