//! Making a cluster: identity and keys of its first node, the CA, the first settings.
//!
//! Everything random is made once, written to the keyring, and only then put to use, so that a crash
//! at any point is continued at the next start instead of leaving half a cluster.

use crate::edge;
use crate::secrets::SecretBox;
use warren_security::ca::{CA_VALIDITY, CERTIFICATE_VALIDITY};
use warren_security::{
    CaError, CertificateAuthority, DataKey, Identity, Keyring, SealError, SubjectName, WrapKey,
    WrappedKey,
};
use warren_state::{Actor, Command, Op};
use warren_storage::{Keyring as KeyFile, StorageError};
use warren_types::{
    Availability, CaMaterial, ClusterId, ClusterSettings, Duration, KeyEpoch, Liveness, Node,
    NodeId, NodeResources, NodeRole, Platform, Revision, Role, Timestamp, limits,
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

const WRAP_KEY: &str = "node.wrap-key";
const CLUSTER_ID: &str = "cluster.id";
const NODE_ID: &str = "node.id";
const NODE_NAME: &str = "node.name";
const NODE_CERT: &str = "node.crt";
const NODE_KEY: &str = "node.key";
const ADMIN_CERT: &str = "admin.crt";
const ADMIN_KEY: &str = "admin.key";
const CA_CERT: &str = "ca.crt";
const CA_KEY: &str = "ca.key.sealed";
const DATA_KEY: &str = "data-key.";

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
}

/// Who this node is, and its keys.
pub struct LocalIdentity {
    /// The cluster.
    pub cluster: ClusterId,
    /// This node.
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// Its certificate, PEM.
    pub cert_pem: String,
    /// Its private key, PEM.
    pub key_pem: String,
    /// Root of the cluster, PEM.
    pub ca_pem: String,
    /// Certificate and key of the first administrator, PEM.
    pub admin: (String, String),
    pub(crate) secrets: SecretBox,
    sealed_ca_key: Vec<u8>,
    wrap_key: [u8; 32],
}

impl LocalIdentity {
    /// The key that the node's own disk is sealed with.
    #[must_use]
    pub const fn node_key(&self) -> &[u8; 32] {
        &self.wrap_key
    }
}

/// How the first node wants to be.
#[derive(Debug, Clone)]
pub struct NewNode {
    /// Name; unique in the cluster.
    pub name: String,
    /// Names and addresses that its API certificate is valid for.
    pub api_names: Vec<String>,
}

/// Does the keyring hold a node?
#[must_use]
pub fn has_node(keyring: &KeyFile) -> bool {
    keyring.get(NODE_KEY).is_some()
}

/// Makes the identity of the first node of a new cluster, durably.
///
/// # Errors
/// [`InitError`] when keys cannot be made or written; nothing is kept then.
pub fn create(keyring: &mut KeyFile, new: &NewNode) -> Result<LocalIdentity, InitError> {
    let now = edge::now();
    let cluster = ClusterId(edge::new_id());
    let node = NodeId(edge::new_id());
    let wrap_bytes = edge::random::<32>();
    let wrap = WrapKey::new(wrap_bytes);
    let data_key = DataKey::new(1, edge::random::<32>());
    let wrapped = wrap.wrap(&data_key, edge::random::<12>()).to_bytes();
    let mut keys = Keyring::new();
    keys.insert(data_key);
    let secrets = SecretBox::new(keys);
    let ca = CertificateAuthority::generate(cluster, now, CA_VALIDITY)?;
    let sealed = secrets.seal_ca_key(cluster.0, 1, ca.key_pem().as_bytes())?;
    let node_identity = Identity {
        cluster,
        role: Role::Manager,
        node: Some(node),
        name: new.name.clone(),
    };
    let names: Vec<SubjectName> = new
        .api_names
        .iter()
        .map(|n| SubjectName::from(n.as_str()))
        .collect();
    let (cert, key) = ca.issue_with_key(&node_identity, &names, now, CERTIFICATE_VALIDITY)?;
    let admin = Identity {
        cluster,
        role: Role::Admin,
        node: None,
        name: "admin".to_owned(),
    };
    let (admin_cert, admin_key) = ca.issue_with_key(&admin, &[], now, CERTIFICATE_VALIDITY)?;
    let sealed = pack(&sealed);
    keyring.update(&[
        (WRAP_KEY, Some(&wrap_bytes)),
        (CLUSTER_ID, Some(cluster.to_string().as_bytes())),
        (NODE_ID, Some(node.to_string().as_bytes())),
        (NODE_NAME, Some(new.name.as_bytes())),
        (&format!("{DATA_KEY}1"), Some(&wrapped)),
        (CA_CERT, Some(ca.cert_pem().as_bytes())),
        (CA_KEY, Some(&sealed)),
        (ADMIN_CERT, Some(admin_cert.as_bytes())),
        (ADMIN_KEY, Some(admin_key.as_bytes())),
        (NODE_CERT, Some(cert.as_bytes())),
        (NODE_KEY, Some(key.as_bytes())),
    ])?;
    load(keyring)
}

/// Reads the identity that [`create`] made.
///
/// # Errors
/// [`InitError::Keyring`] names what is missing.
pub fn load(keyring: &KeyFile) -> Result<LocalIdentity, InitError> {
    let bad = |entry: &str| InitError::Keyring {
        entry: entry.to_owned(),
    };
    let text = |entry: &str| {
        let bytes = keyring.get(entry).ok_or_else(|| bad(entry))?;
        String::from_utf8(bytes.to_vec()).map_err(|_| bad(entry))
    };
    let wrap_key: [u8; 32] = keyring
        .get(WRAP_KEY)
        .and_then(|b| b.try_into().ok())
        .ok_or_else(|| bad(WRAP_KEY))?;
    let wrap = WrapKey::new(wrap_key);
    let mut keys = Keyring::new();
    for name in keyring.names().filter(|n| n.starts_with(DATA_KEY)) {
        let wrapped = keyring.get(name).ok_or_else(|| bad(name))?;
        keys.insert(wrap.unwrap(&WrappedKey::from_bytes(wrapped)?)?);
    }
    Ok(LocalIdentity {
        cluster: text(CLUSTER_ID)?.parse().map_err(|_| bad(CLUSTER_ID))?,
        node: text(NODE_ID)?.parse().map_err(|_| bad(NODE_ID))?,
        name: text(NODE_NAME)?,
        cert_pem: text(NODE_CERT)?,
        key_pem: text(NODE_KEY)?,
        ca_pem: text(CA_CERT)?,
        admin: (text(ADMIN_CERT)?, text(ADMIN_KEY)?),
        secrets: SecretBox::new(keys),
        sealed_ca_key: keyring.get(CA_KEY).ok_or_else(|| bad(CA_KEY))?.to_vec(),
        wrap_key,
    })
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
) -> Result<Command, InitError> {
    let now = edge::now();
    let key = unpack(&identity.sealed_ca_key).ok_or(InitError::Keyring {
        entry: CA_KEY.to_owned(),
    })?;
    let settings = ClusterSettings {
        id: identity.cluster,
        name: facts.cluster_name.clone(),
        ca: CaMaterial {
            roots_pem: vec![identity.ca_pem.clone()],
            key,
            rotation_started: None,
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
        auto_lock: false,
        created_at: now,
        version: Revision(0),
    };
    let node = first_node(identity, facts, now);
    let ops = vec![
        Op::SettingsInit(Box::new(settings)),
        Op::NodeAdd(Box::new(node)),
    ];
    Ok(Command::new(Actor::System, now, ops))
}

fn first_node(identity: &LocalIdentity, facts: &NodeFacts, now: Timestamp) -> Node {
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

/// Sealed data in one blob: epoch, nonce, ciphertext.
fn pack(sealed: &warren_types::SealedData) -> Vec<u8> {
    let mut bytes = sealed.epoch.to_be_bytes().to_vec();
    bytes.extend_from_slice(&sealed.nonce);
    bytes.extend_from_slice(&sealed.ciphertext);
    bytes
}

fn unpack(bytes: &[u8]) -> Option<warren_types::SealedData> {
    let (epoch, rest) = bytes.split_first_chunk::<4>()?;
    let (nonce, ciphertext) = rest.split_first_chunk::<12>()?;
    Some(warren_types::SealedData {
        epoch: u32::from_be_bytes(*epoch),
        nonce: *nonce,
        ciphertext: ciphertext.to_vec(),
    })
}
