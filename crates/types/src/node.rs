//! Nodes: the machines of the cluster.

use crate::id::NodeId;
use crate::quantity::{Bytes, MilliCpu, Revision, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// What a node does.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum NodeRole {
    /// Takes part in the quorum, runs no containers.
    Manager,
    /// Runs containers.
    #[default]
    Worker,
    /// Both.
    Hybrid,
}

impl NodeRole {
    /// Runs containers.
    #[must_use]
    pub const fn runs_containers(self) -> bool {
        matches!(self, Self::Worker | Self::Hybrid)
    }
    /// Takes part in the quorum.
    #[must_use]
    pub const fn is_manager(self) -> bool {
        matches!(self, Self::Manager | Self::Hybrid)
    }
    /// Name in lower case.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Manager => "manager",
            Self::Worker => "worker",
            Self::Hybrid => "hybrid",
        }
    }
}

/// What the operator wants of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Availability {
    /// Takes containers.
    #[default]
    Active,
    /// Keeps its containers, takes no new ones.
    Pause,
    /// Its containers move away.
    Drain,
}

/// Whether a node answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Liveness {
    /// Never heard of since the leader took office.
    #[default]
    Unknown,
    /// Its session is open.
    Ready,
    /// Silent for longer than the limit.
    Down,
}

/// Operating system and processor, in the words of the OCI image specification (`linux`, `amd64`).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Platform {
    /// Operating system.
    pub os: String,
    /// Processor architecture.
    pub arch: String,
}

/// What a node has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeResources {
    /// Processors.
    pub cpu: MilliCpu,
    /// Memory.
    pub memory: Bytes,
    /// Disk of the data directory.
    pub disk: Bytes,
}

/// A node of the replicated state.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Node {
    /// Id.
    pub id: NodeId,
    /// Unique name, by default the host name.
    pub name: String,
    /// What it does.
    pub role: NodeRole,
    /// Where its API answers, `host:port`; empty for a node that only dials out.
    pub address: String,
    /// Host name.
    pub hostname: String,
    /// Labels that placement can ask for.
    pub labels: BTreeMap<String, String>,
    /// Operating system and processor.
    pub platform: Platform,
    /// What it has.
    pub resources: NodeResources,
    /// What the operator wants of it.
    pub availability: Availability,
    /// Whether it answers.
    pub liveness: Liveness,
    /// Why it is down, in words; empty when it is not.
    pub reason: String,
    /// Subnet of its containers in CIDR form, such as `10.89.1.0/24`; empty until one was given.
    pub subnet: String,
    /// Version of its program.
    pub version_text: String,
    /// SHA-256 (64 hex digits) of the root that signed its present certificate; empty while unknown.
    /// A rotation of the CA is over when every node names the new root.
    #[serde(default)]
    pub certificate_root: String,
    /// When it joined. (The revision of the assignment it last acknowledged is kept in memory, not
    /// here.)
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
    /// State revision of the last change; the version precondition of updates.
    pub version: Revision,
}

impl Node {
    /// May new containers be placed on it?
    #[must_use]
    pub fn takes_containers(&self) -> bool {
        self.role.runs_containers()
            && self.availability == Availability::Active
            && self.liveness == Liveness::Ready
    }

    /// The yardstick's status word: ready, down, draining, unknown.
    #[must_use]
    pub const fn legacy_status(&self) -> &'static str {
        match (self.liveness, self.availability) {
            (Liveness::Down, _) => "down",
            (_, Availability::Drain) => "draining",
            (Liveness::Ready, _) => "ready",
            (Liveness::Unknown, _) => "unknown",
        }
    }
}

impl fmt::Display for NodeRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
