//! Making a cluster: its first settings and its first node. Identity and keys come from [`crate::identity`]: all
//! that is random was written to the keyring before it is put to use here, so that a crash at any point is
//! continued at the next start instead of leaving half a cluster.

use crate::edge;
use crate::identity::CA_KEY;
pub use crate::identity::*;
use warren_security::{CaError, IdentityError, SealError};
use warren_state::{Actor, Command, Op};
use warren_storage::StorageError;
use warren_types::{
    Availability, CaMaterial, ClusterSettings, Duration, KeyEpoch, Liveness, Node, NodeId,
    NodeResources, NodeRole, Platform, RaftProfile, Revision, SealedData, Timestamp, limits,
};

/// Pool of the nodes' container subnets.
pub const CONTAINER_POOL: &str = "10.89.0.0/16";
/// Prefix length of one node's subnet.
pub const NODE_PREFIX_LEN: u8 = 24;
/// Log entries between two snapshots (PE-02).
const SNAPSHOT_ENTRIES: u64 = 10_000;
/// Log bytes between two snapshots.
const SNAPSHOT_BYTES: u64 = 64 * 1024 * 1024;
/// Most bytes of log kept on disk (PE-03).
const LOG_BYTES_MAX: u64 = 1 << 30;
/// Time between two heartbeats of a node.
const HEARTBEAT: Duration = Duration::from_secs(2);
/// Silence after which a node is down.
const NODE_DOWN_AFTER: Duration = Duration::from_secs(10);

/// A cluster that cannot be made or a node identity that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// The keyring file.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The certificate authority.
    #[error(transparent)]
    Ca(#[from] CaError),
    /// Sealing or opening.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// A certificate that names nobody of a cluster.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// An entry of the keyring is not what it should be.
    #[error(
        "keyring entry {entry} is missing or unreadable: restore the keyring from a backup, or remove everything with `warren node reset`"
    )]
    Keyring {
        /// Name of the entry.
        entry: String,
    },
    /// The directory holds no node.
    #[error("{directory} holds no node: make one with `warren up` or `warren cluster init`")]
    NoNode {
        /// The data directory.
        directory: String,
    },
    /// Auto-lock is on.
    #[error("this manager is locked: give it the unlock key with `warren cluster unlock`")]
    Locked,
    /// The unlock key is not the one that the node was locked with.
    #[error(
        "this is not the unlock key of this manager: use the one that `warren cluster auto-lock` showed last"
    )]
    WrongUnlockKey,
    /// A certificate for somebody else.
    #[error(
        "the cluster answered with the certificate of {found}, this is node {own}: look at the managers' logs"
    )]
    NotOurs {
        /// This node.
        own: NodeId,
        /// Whom the certificate names.
        found: String,
    },
}

/// What the first node is, for its record.
#[derive(Debug, Clone)]
pub struct NodeFacts {
    /// Name of the cluster.
    pub cluster_name: String,
    /// Name of the node.
    pub name: String,
    /// What it does.
    pub role: NodeRole,
    /// Where its API answers.
    pub address: String,
    /// Host name.
    pub hostname: String,
    /// Operating system and processor.
    pub platform: Platform,
    /// What it has.
    pub resources: NodeResources,
    /// Version of its program.
    pub version: String,
}

/// The command that gives an empty state its settings and its first node.
pub(crate) fn first_command(
    identity: &LocalIdentity,
    facts: &NodeFacts,
    raft_profile: RaftProfile,
) -> Result<Command, InitError> {
    let now = edge::now();
    let key = identity.founding_ca.clone().ok_or(InitError::Keyring {
        entry: CA_KEY.to_owned(),
    })?;
    let settings = ClusterSettings {
        id: identity.cluster,
        name: facts.cluster_name.clone(),
        ca: CaMaterial {
            roots_pem: identity.roots_pem.clone(),
            key,
            ..CaMaterial::default()
        },
        key_epochs: vec![KeyEpoch {
            number: 1,
            created_at: now,
        }],
        container_pool: CONTAINER_POOL.to_owned(),
        node_prefix_len: NODE_PREFIX_LEN,
        heartbeat: HEARTBEAT,
        node_down_after: NODE_DOWN_AFTER,
        history_per_slot: limits::HISTORY_PER_SLOT_DEFAULT,
        snapshot_entries: SNAPSHOT_ENTRIES,
        snapshot_bytes: SNAPSHOT_BYTES,
        log_bytes_max: LOG_BYTES_MAX,
        raft_profile,
        auto_lock: false,
        unlock_key: SealedData::default(),
        created_at: now,
        version: Revision(0),
    };
    let node = node_record(identity, facts, now);
    let ops = vec![
        Op::SettingsInit(Box::new(settings)),
        Op::NodeAdd(Box::new(node)),
    ];
    Ok(Command::new(Actor::System, now, ops))
}

pub(crate) fn node_record(identity: &LocalIdentity, facts: &NodeFacts, now: Timestamp) -> Node {
    Node {
        id: identity.node,
        name: identity.name.clone(),
        role: facts.role,
        address: facts.address.clone(),
        hostname: facts.hostname.clone(),
        labels: std::collections::BTreeMap::new(),
        platform: facts.platform.clone(),
        resources: facts.resources,
        availability: Availability::Active,
        liveness: Liveness::Unknown,
        reason: String::new(),
        subnet: String::new(),
        version_text: facts.version.clone(),
        certificate_root: String::new(),
        created_at: now,
        updated_at: now,
        version: Revision(0),
    }
}
