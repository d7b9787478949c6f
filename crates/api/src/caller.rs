//! Who calls: worked out once per connection from the certificate or the socket's peer.

use std::fmt;
use warren_types::{NodeId, Role};

/// Whoever makes a call, as authentication found out. Handlers trust nothing else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// What they may do.
    pub role: Role,
    /// Name for audit records and revisions: that in the certificate, or `uid:<n>` on the socket.
    pub name: String,
    /// The node, for nodes. A worker may act only as this one.
    pub node: Option<NodeId>,
    /// How they are connected.
    pub transport: Transport,
}

/// How a caller is connected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transport {
    /// The local socket, with the peer's user id and process id as the kernel says.
    Unix {
        /// User id.
        uid: u32,
        /// Process id, when the kernel knows it.
        pid: Option<i32>,
    },
    /// TLS from this address.
    Tls {
        /// `address:port`.
        peer: String,
    },
    /// Inside the same process.
    InProcess,
    /// Through another manager, which has authenticated them.
    Forwarded {
        /// That manager.
        by: NodeId,
        /// How they are connected to it, in its words.
        via: String,
    },
}

impl Caller {
    /// The node's own part of the same process.
    #[must_use]
    pub fn in_process(role: Role, name: impl Into<String>, node: Option<NodeId>) -> Self {
        Self {
            role,
            name: name.into(),
            node,
            transport: Transport::InProcess,
        }
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.role.name())
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix {
                uid,
                pid: Some(pid),
            } => write!(f, "unix uid {uid} pid {pid}"),
            Self::Unix { uid, pid: None } => write!(f, "unix uid {uid}"),
            Self::Tls { peer } => write!(f, "tls {peer}"),
            Self::InProcess => f.write_str("in process"),
            Self::Forwarded { by, via } => write!(f, "{via} by manager {by}"),
        }
    }
}
