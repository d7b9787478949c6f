//! What belongs to the cluster as a whole: settings, CA, key epochs, join tokens.

use crate::id::{ClusterId, TokenId};
use crate::object::SealedData;
use crate::quantity::{Duration, Revision, Timestamp};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Who a caller is, as its certificate or socket says.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// No certificate.
    #[default]
    None,
    /// A worker node.
    Worker,
    /// A manager node.
    Manager,
    /// May read.
    Viewer,
    /// May read and change workloads.
    Operator,
    /// May do everything.
    Admin,
}

impl Role {
    /// Name in lower case, as it stands in certificates.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Worker => "worker",
            Self::Manager => "manager",
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
    /// The role with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [
            Self::None,
            Self::Worker,
            Self::Manager,
            Self::Viewer,
            Self::Operator,
            Self::Admin,
        ]
        .into_iter()
        .find(|r| r.name() == name)
    }
}

/// Times of the consensus protocol that fit the network between the managers.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum RaftProfile {
    /// Managers in one place or region.
    #[default]
    Lan,
    /// Managers far apart: ten times the times.
    Wan,
}

impl RaftProfile {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Lan, Self::Wan];

    /// Name in lower case.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Lan => "lan",
            Self::Wan => "wan",
        }
    }

    /// The profile with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|p| p.name() == name)
    }
}

/// Settings of the cluster; one record.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterSettings {
    /// Id of the cluster.
    pub id: ClusterId,
    /// Name of the cluster.
    pub name: String,
    /// Certificate authority.
    pub ca: CaMaterial,
    /// Data keys, oldest first; the last seals new data.
    pub key_epochs: Vec<KeyEpoch>,
    /// Pool of the nodes' container subnets in CIDR form.
    pub container_pool: String,
    /// Prefix length of one node's subnet.
    pub node_prefix_len: u8,
    /// Time between two heartbeats of a node.
    pub heartbeat: Duration,
    /// Silence after which a node is down.
    pub node_down_after: Duration,
    /// Ended containers kept per slot.
    pub history_per_slot: u32,
    /// Log entries between two snapshots.
    pub snapshot_entries: u64,
    /// Log bytes between two snapshots.
    pub snapshot_bytes: u64,
    /// Most bytes of log kept on disk.
    pub log_bytes_max: u64,
    /// Times of the consensus protocol. A manager takes them up when it is started.
    #[serde(default)]
    pub raft_profile: RaftProfile,
    /// The managers' keyrings are wrapped by the unlock key: after a start each of them waits for
    /// `warren cluster unlock`.
    #[serde(default)]
    pub auto_lock: bool,
    /// The unlock key, sealed with the data key, so that every manager can wrap its keyring with it; empty without
    /// auto-lock.
    #[serde(skip)]
    pub unlock_key: SealedData,
    /// When the cluster was made.
    pub created_at: Timestamp,
    /// State revision of the last change.
    pub version: Revision,
}

/// The cluster's certificate authority.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CaMaterial {
    /// Trusted roots in PEM; during a rotation there are two, the new one last.
    pub roots_pem: Vec<String>,
    /// The last root's key, certified by the root before it (PEM); empty outside a rotation. It goes
    /// out with every certificate that the new root signs, so that whoever knows the old root alone (a
    /// join token, a node that was away) trusts them.
    #[serde(default)]
    pub cross_pem: String,
    /// Private key of the last root, sealed with the data key.
    #[serde(skip)]
    pub key: SealedData,
    /// When the rotation under way began; `None` when there is none. While it is set, all of at least
    /// two roots are trusted and the last one signs.
    #[serde(default)]
    pub rotation_started: Option<Timestamp>,
}

/// One data key. The key itself is in each manager's keyring, not in the replicated state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KeyEpoch {
    /// Number, from 1.
    pub number: u32,
    /// When it was made.
    pub created_at: Timestamp,
}

/// What a join token is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TokenState {
    /// A node may join with it.
    Valid,
    /// Taken back by the operator.
    Revoked,
    /// Its time is over.
    Expired,
    /// No uses left.
    UsedUp,
}

/// A join token; only a hash of its secret is kept.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JoinToken {
    /// Public part.
    pub id: TokenId,
    /// What the joiner becomes.
    pub role: Role,
    /// SHA-256 of the secret part.
    #[serde(skip)]
    pub secret_hash: [u8; 32],
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ends.
    pub expires_at: Timestamp,
    /// Joins left; `None` means no limit.
    pub uses_left: Option<u32>,
    /// Taken back by the operator.
    pub revoked: bool,
    /// State revision of the last change.
    pub version: Revision,
}

impl JoinToken {
    /// What the token is good for at a time. One that is not valid never becomes so again, and its
    /// record may be removed.
    #[must_use]
    pub fn state(&self, now: Timestamp) -> TokenState {
        if self.revoked {
            TokenState::Revoked
        } else if now >= self.expires_at {
            TokenState::Expired
        } else if self.uses_left == Some(0) {
            TokenState::UsedUp
        } else {
            TokenState::Valid
        }
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinToken")
            .field("id", &self.id)
            .field("role", &self.role)
            .finish_non_exhaustive()
    }
}
