//! Why a command was refused: what, where, and what to do.

use crate::change::ObjectKind;
use crate::command::Actor;
use std::fmt;
use warren_types::{
    ContainerId, NodeId, Protocol, Revision, Timestamp, TransitionError, ValidationError,
};

/// Something that a service names and that does not exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingReference {
    /// Kind of object.
    pub kind: ObjectKind,
    /// Its name.
    pub name: String,
}

impl fmt::Display for MissingReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, name) = (self.kind, &self.name);
        write!(
            f,
            "{kind} {name:?} (make it with `warren {kind} create {name}`)"
        )
    }
}

/// A refused command; it changed nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// The object does not exist.
    #[error("no {kind} {id}; list what exists with `warren {kind} list`")]
    NotFound {
        /// Kind of object.
        kind: ObjectKind,
        /// Id or name.
        id: String,
    },
    /// The name or id is taken.
    #[error(
        "{kind} {name:?} already exists{note}; choose another name, or change the existing one"
    )]
    AlreadyExists {
        /// Kind of object.
        kind: ObjectKind,
        /// Name or id.
        name: String,
        /// More about it, such as ", and is being deleted"; may be empty.
        note: String,
    },
    /// Something else needs the object.
    #[error("{kind} {name:?} is in use by {}; remove it there first", by.join(", "))]
    InUse {
        /// Kind of object.
        kind: ObjectKind,
        /// Its name.
        name: String,
        /// Who uses it, such as `service "web"`.
        by: Vec<String>,
    },
    /// The object has changed since the decision was made.
    #[error(
        "{kind} {id} has changed meanwhile (expected version {expected}, found {found}); read it again and repeat"
    )]
    Conflict {
        /// Kind of object.
        kind: ObjectKind,
        /// Id or name.
        id: String,
        /// Version that the command expected.
        expected: Revision,
        /// Version that the object has.
        found: Revision,
    },
    /// The content breaks the rules.
    #[error(transparent)]
    Invalid(#[from] ValidationError),
    /// The life cycle forbids the step.
    #[error("container {container}: {source}")]
    Transition {
        /// The container.
        container: ContainerId,
        /// Which step.
        source: TransitionError,
    },
    /// A limit is reached.
    #[error("the limit of {limit} {what} is reached; {remedy}")]
    Limit {
        /// What is limited, in the plural.
        what: &'static str,
        /// The limit.
        limit: u64,
        /// What to do.
        remedy: &'static str,
    },
    /// An object names others that do not exist.
    #[error("{kind} {name:?} needs {}", list(missing))]
    Missing {
        /// Kind of the object that names them.
        kind: ObjectKind,
        /// Its name.
        name: String,
        /// What is missing; never empty.
        missing: Vec<MissingReference>,
    },
    /// Another service publishes the port.
    #[error(
        "port {port}/{protocol} is published by service {by:?}; choose another host port, or remove it there",
        protocol = protocol_name(*protocol)
    )]
    PortTaken {
        /// Port on the nodes.
        port: u16,
        /// Protocol.
        protocol: Protocol,
        /// Name of the service that has it.
        by: String,
    },
    /// The container cannot be placed on that node.
    #[error("container {container} cannot be placed on node {node}: {reason}")]
    Placement {
        /// The container.
        container: ContainerId,
        /// Name or id of the node.
        node: String,
        /// Why.
        reason: String,
    },
    /// The object is in a state in which this cannot be done.
    #[error("{kind} {id}: {reason}; {remedy}")]
    NotNow {
        /// Kind of object.
        kind: ObjectKind,
        /// Id or name.
        id: String,
        /// Why not.
        reason: String,
        /// What to do.
        remedy: &'static str,
    },
    /// The node was removed from the cluster, and not so long ago that it is forgotten.
    #[error(
        "node {id} was removed from this cluster at {at}; run `warren node reset` on it and join again as a new node"
    )]
    NodeRemoved {
        /// Id of the node.
        id: NodeId,
        /// When it was removed.
        at: Timestamp,
    },
    /// The actor does not own this operation.
    #[error("{actor} may not do {op}; this is a defect of the program, please report it")]
    NotOwner {
        /// Who asked.
        actor: Actor,
        /// Name of the operation.
        op: &'static str,
    },
    /// The join token is over, used up or revoked.
    #[error("join token {id} {reason}; make a new one with `warren cluster join-token`")]
    TokenRefused {
        /// Public part of the token.
        id: String,
        /// Why.
        reason: &'static str,
    },
    /// The command was written by a newer program.
    #[error(
        "command format {found} is newer than {supported}, the newest this program knows; upgrade this node"
    )]
    UnsupportedVersion {
        /// Version of the command.
        found: u32,
        /// Newest version that can be applied.
        supported: u32,
    },
}

fn list(missing: &[MissingReference]) -> String {
    let parts: Vec<String> = missing.iter().map(ToString::to_string).collect();
    parts.join(", ")
}

const fn protocol_name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    }
}
