//! Who this node is: its certificate and keys, as they lie in the keyring file.
//!
//! Everything random is made once, written to the keyring, and only then put to use. Each step is one
//! durable replacement of the whole file, so that a crash at any point leaves either the node that was or
//! the node that is to be, never half of one. No networking here: what goes over the wire and comes back
//! is handed in.
//!
//! The node's wrap key seals what else lies on its disk. With auto-lock it is not kept in the clear, and
//! neither are the private keys: a thief of the disk must not be able to come back as this manager and ask
//! the others for the data keys.

use crate::edge;
use crate::init::InitError;
use crate::secrets::SecretBox;
use warren_security::ca::{CA_VALIDITY, CERTIFICATE_VALIDITY};
use warren_security::{
    CertificateAuthority, DataKey, Identity, Keyring, SealContext, SealKind, SubjectName, WrapKey,
    WrappedKey, generate_key_and_csr, identity_from_pem,
};
use warren_storage::Keyring as KeyFile;
use warren_types::{ClusterId, NodeId, Role, SealedData};
use zeroize::Zeroizing;

const WRAP_KEY: &str = "node.wrap-key";
const WRAP_KEY_LOCKED: &str = "node.wrap-key.locked";
const CLUSTER_ID: &str = "cluster.id";
const NODE_ID: &str = "node.id";
const NODE_NAME: &str = "node.name";
const NODE_CERT: &str = "node.crt";
const NODE_KEY: &str = "node.key";
const NODE_KEY_SEALED: &str = "node.key.sealed";
const ADMIN_CERT: &str = "admin.crt";
const ADMIN_KEY: &str = "admin.key";
const ADMIN_KEY_SEALED: &str = "admin.key.sealed";
/// The roots of the cluster, one PEM text after the other, oldest first.
const CA_CERT: &str = "ca.crt";
pub(crate) const CA_KEY: &str = "ca.key.sealed";
const DATA_KEY: &str = "data-key.";
const JOIN_KEY: &str = "join.key";
const JOIN_CSR: &str = "join.csr";
const PEM_BEGIN: &str = "-----BEGIN CERTIFICATE-----";
/// Number under which the wrap key itself is wrapped; data keys count from 1.
const WRAP_KEY_EPOCH: u32 = 0;
/// What the private keys are sealed for, so that one cannot stand in for the other.
const SEALED_NODE_KEY: u64 = 1;
const SEALED_ADMIN_KEY: u64 = 2;

/// Length of keys, in bytes.
pub const KEY_BYTES: usize = warren_security::sealing::KEY_BYTES;

/// Who this node is, and its keys.
pub struct LocalIdentity {
    /// The cluster.
    pub cluster: ClusterId,
    /// This node.
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// What its certificate says: manager or worker.
    pub role: Role,
    /// Its certificate, PEM.
    pub cert_pem: String,
    /// Its private key, PEM.
    pub key_pem: Zeroizing<String>,
    /// Roots of the cluster, PEM, oldest first; more than one while the CA is being rotated.
    pub roots_pem: Vec<String>,
    /// Certificate and key of the first administrator, PEM; only on the node that made the cluster.
    pub admin: Option<(String, Zeroizing<String>)>,
    pub(crate) secrets: SecretBox,
    /// The CA's private key as the first command of a new cluster carries it.
    pub(crate) founding_ca: Option<SealedData>,
    wrap_key: Zeroizing<[u8; KEY_BYTES]>,
}

impl LocalIdentity {
    /// The key that the node's own disk is sealed with.
    #[must_use]
    pub fn node_key(&self) -> &[u8; KEY_BYTES] {
        &self.wrap_key
    }

    /// Is this the node that made the cluster, and the cluster's first records may be missing?
    #[must_use]
    pub const fn is_founder(&self) -> bool {
        self.founding_ca.is_some()
    }

    /// All roots in one PEM text.
    #[must_use]
    pub fn roots_text(&self) -> String {
        join_pem(&self.roots_pem)
    }
}

/// Whose keyring it is: what may be known before anything secret is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Who {
    /// The cluster.
    pub cluster: ClusterId,
    /// The node.
    pub node: NodeId,
    /// Its name.
    pub name: String,
}

/// How the first node wants to be.
#[derive(Debug, Clone)]
pub struct NewNode {
    /// Name; unique in the cluster.
    pub name: String,
    /// Names and addresses that its API certificate is valid for.
    pub api_names: Vec<String>,
}

/// What the cluster has given to a node that joins.
#[derive(Debug, Clone)]
pub struct Joined {
    /// Its certificate, PEM; names cluster, node, name and role.
    pub cert_pem: String,
    /// Roots of the cluster in one PEM text or several.
    pub roots_pem: Vec<String>,
}

/// What a renewal has brought.
pub struct Renewed {
    /// The new certificate, PEM.
    pub cert_pem: String,
    /// Its private key, PEM.
    pub key_pem: Zeroizing<String>,
    /// Roots of the cluster in one PEM text or several.
    pub roots_pem: Vec<String>,
}

/// Key and request of a node that joins.
pub struct JoinRequest {
    /// The private key, PEM; it never leaves the node.
    pub key_pem: Zeroizing<String>,
    /// The request, PEM.
    pub csr_pem: String,
}

/// Does the keyring hold a node?
#[must_use]
pub fn has_node(keyring: &KeyFile) -> bool {
    keyring.get(NODE_CERT).is_some()
}

/// Does the keyring wait for the unlock key?
#[must_use]
pub fn is_locked(keyring: &KeyFile) -> bool {
    keyring.get(WRAP_KEY_LOCKED).is_some()
}

/// Whose keyring this is; readable while it is locked, too.
///
/// # Errors
/// [`InitError::Keyring`] names what is missing.
pub fn who(keyring: &KeyFile) -> Result<Who, InitError> {
    Ok(Who {
        cluster: parsed(keyring, CLUSTER_ID)?,
        node: parsed(keyring, NODE_ID)?,
        name: text(keyring, NODE_NAME)?,
    })
}

/// Makes the identity of the first node of a new cluster, durably.
///
/// # Errors
/// [`InitError`] when keys cannot be made or written; nothing is kept then.
pub fn create(keyring: &mut KeyFile, new: &NewNode) -> Result<LocalIdentity, InitError> {
    let cluster = ClusterId(edge::new_id());
    let ca = CertificateAuthority::generate(cluster, edge::now(), CA_VALIDITY)?;
    let mut keys = Keyring::new();
    keys.insert(DataKey::new(1, edge::random::<KEY_BYTES>()));
    let sealed = SecretBox::new(keys.clone()).seal_ca_key(cluster.0, 1, ca.key_pem().as_bytes())?;
    found(
        keyring,
        new,
        &ca,
        &[ca.cert_pem().to_owned()],
        &keys,
        Some(&sealed),
    )
}

/// Makes the identity of the first node of a cluster that exists already (`cluster restore`), durably: signed by
/// the cluster's own CA, with its data keys.
///
/// # Errors
/// [`InitError`] when keys cannot be made or written; nothing is kept then.
pub fn adopt(
    keyring: &mut KeyFile,
    new: &NewNode,
    ca: &CertificateAuthority,
    roots_pem: &[String],
    data_keys: &Keyring,
) -> Result<LocalIdentity, InitError> {
    found(keyring, new, ca, roots_pem, data_keys, None)
}

fn found(
    keyring: &mut KeyFile,
    new: &NewNode,
    ca: &CertificateAuthority,
    roots_pem: &[String],
    data_keys: &Keyring,
    founding_ca: Option<&SealedData>,
) -> Result<LocalIdentity, InitError> {
    let (now, cluster) = (edge::now(), ca.cluster());
    let node = NodeId(edge::new_id());
    let wrap_key = Zeroizing::new(edge::random::<KEY_BYTES>());
    let of = |role: Role, node: Option<NodeId>, name: &str| Identity {
        cluster,
        role,
        node,
        name: name.to_owned(),
    };
    let names: Vec<SubjectName> = new
        .api_names
        .iter()
        .map(|n| SubjectName::from(n.as_str()))
        .collect();
    let own = of(Role::Manager, Some(node), &new.name);
    let (cert, key) = ca.issue_with_key(&own, &names, now, CERTIFICATE_VALIDITY)?;
    let admin = of(Role::Admin, None, "admin");
    let (admin_cert, admin_key) = ca.issue_with_key(&admin, &[], now, CERTIFICATE_VALIDITY)?;
    let mut change = Change::default();
    for data_key in data_keys.keys() {
        change.data_key(&wrap_key, data_key);
    }
    change.put(WRAP_KEY, *wrap_key);
    change.put(CLUSTER_ID, cluster.to_string());
    change.put(NODE_ID, node.to_string());
    change.put(NODE_NAME, &new.name);
    change.put(CA_CERT, join_pem(roots_pem));
    change.put_or_drop(CA_KEY, founding_ca.map(pack));
    change.put(ADMIN_CERT, admin_cert);
    change.put(ADMIN_KEY, admin_key.as_bytes());
    change.put(NODE_CERT, cert);
    change.put(NODE_KEY, key.as_bytes());
    change.write(keyring)?;
    load(keyring)
}

/// Key and request for joining a cluster. They are kept until [`join`], so that a joiner that was
/// interrupted asks again with the same key.
///
/// # Errors
/// [`InitError`] when no key can be made or kept, or when the keyring holds a node already.
pub fn begin_join(keyring: &mut KeyFile) -> Result<JoinRequest, InitError> {
    if let (Ok(key), Ok(csr_pem)) = (text(keyring, JOIN_KEY), text(keyring, JOIN_CSR)) {
        let key_pem = Zeroizing::new(key);
        return Ok(JoinRequest { key_pem, csr_pem });
    }
    let made = generate_key_and_csr()?;
    let mut change = Change::default();
    change.put(JOIN_KEY, made.key_pem.as_bytes());
    change.put(JOIN_CSR, &made.csr_pem);
    change.write(keyring)?;
    Ok(JoinRequest {
        key_pem: made.key_pem,
        csr_pem: made.csr_pem,
    })
}

/// Becomes the node that the cluster's answer names, durably, in one step.
///
/// # Errors
/// [`InitError`] when the answer makes no sense or cannot be kept; the node is none then, and joining
/// again is harmless.
pub fn join(keyring: &mut KeyFile, joined: &Joined) -> Result<LocalIdentity, InitError> {
    let key = Zeroizing::new(text(keyring, JOIN_KEY)?);
    let identity = identity_from_pem(&joined.cert_pem)?;
    let node = identity.node.ok_or_else(|| bad(NODE_CERT))?;
    let mut change = Change::default();
    change.put(WRAP_KEY, edge::random::<KEY_BYTES>());
    change.put(CLUSTER_ID, identity.cluster.to_string());
    change.put(NODE_ID, node.to_string());
    change.put(NODE_NAME, &identity.name);
    change.put(CA_CERT, join_pem(&joined.roots_pem));
    change.put(NODE_CERT, &joined.cert_pem);
    change.put(NODE_KEY, key.as_bytes());
    change.drop(JOIN_KEY);
    change.drop(JOIN_CSR);
    change.write(keyring)?;
    load(keyring)
}

/// Keeps a renewed certificate with its key and the newest roots, durably, in one step.
///
/// # Errors
/// [`InitError`] when the certificate names another node or cannot be kept; the old one stays then.
pub fn store_renewed(
    keyring: &mut KeyFile,
    node_key: &[u8; KEY_BYTES],
    renewed: &Renewed,
) -> Result<(), InitError> {
    let identity = identity_from_pem(&renewed.cert_pem)?;
    let who = who(keyring)?;
    if identity.node != Some(who.node) || identity.cluster != who.cluster {
        return Err(InitError::NotOurs {
            own: who.node,
            found: identity.uri(),
        });
    }
    let mut change = Change::default();
    change.put(NODE_CERT, &renewed.cert_pem);
    change.put(CA_CERT, join_pem(&renewed.roots_pem));
    if is_locked(keyring) {
        let sealed = seal_private(node_key, who.node, SEALED_NODE_KEY, &renewed.key_pem)?;
        change.put(NODE_KEY_SEALED, pack(&sealed));
    } else {
        change.put(NODE_KEY, renewed.key_pem.as_bytes());
    }
    change.write(keyring)
}

/// Keeps the cluster's roots, durably: nodes trust all of them while the CA is being rotated.
///
/// # Errors
/// [`InitError`] when the keyring cannot be written.
pub fn store_roots(keyring: &mut KeyFile, roots_pem: &[String]) -> Result<(), InitError> {
    let mut change = Change::default();
    change.put(CA_CERT, join_pem(roots_pem));
    change.write(keyring)
}

/// Keeps data keys, wrapped by the node's key, durably. Those it has already stay.
///
/// # Errors
/// [`InitError`] when a key has a wrong length or the keyring cannot be written.
pub fn store_data_keys(
    keyring: &mut KeyFile,
    node_key: &[u8; KEY_BYTES],
    keys: &[(u32, Vec<u8>)],
) -> Result<(), InitError> {
    let mut change = Change::default();
    for (epoch, key) in keys {
        let bytes = <[u8; KEY_BYTES]>::try_from(key.as_slice());
        let bytes = bytes.map_err(|_| bad(&data_key_entry(*epoch)))?;
        change.data_key(node_key, &DataKey::new(*epoch, bytes));
    }
    change.write(keyring)
}

/// A manager that becomes a worker forgets what only managers may know: data keys, the CA's key, the
/// administrator's key. Its certificate is renewed apart from this.
///
/// # Errors
/// [`InitError`] when the keyring cannot be written.
pub fn become_worker(keyring: &mut KeyFile) -> Result<(), InitError> {
    let mut change = Change::default();
    for name in keyring.names().filter(|n| n.starts_with(DATA_KEY)) {
        change.drop(name);
    }
    for name in [CA_KEY, ADMIN_CERT, ADMIN_KEY, ADMIN_KEY_SEALED] {
        change.drop(name);
    }
    change.write(keyring)
}

/// The cluster's first records are written: from now on this node is a manager like any other. Without this, one
/// that lost its log would make a second cluster of the same name.
///
/// # Errors
/// [`InitError`] when the keyring cannot be written.
pub fn founded(keyring: &mut KeyFile) -> Result<(), InitError> {
    let mut change = Change::default();
    change.drop(CA_KEY);
    change.write(keyring)
}

/// Switches auto-lock on, or gives it another key: from now on the node starts only with the unlock key. Durable.
///
/// # Errors
/// [`InitError`] when the keyring cannot be read or written.
pub fn lock(
    keyring: &mut KeyFile,
    node_key: &[u8; KEY_BYTES],
    unlock: &WrapKey,
) -> Result<(), InitError> {
    let node = who(keyring)?.node;
    let wrapped = unlock.wrap(
        &DataKey::new(WRAP_KEY_EPOCH, *node_key),
        edge::random::<12>(),
    );
    let mut change = Change::default();
    change.put(WRAP_KEY_LOCKED, wrapped.to_bytes());
    change.drop(WRAP_KEY);
    for (clear, sealed, number) in SEALED_KEYS {
        if let Ok(key) = text(keyring, clear) {
            let key = Zeroizing::new(key);
            change.put(sealed, pack(&seal_private(node_key, node, number, &key)?));
            change.drop(clear);
        }
    }
    change.write(keyring)
}

/// Switches auto-lock off, durably.
///
/// # Errors
/// [`InitError`] when the keyring cannot be read or written.
pub fn unlock_for_good(keyring: &mut KeyFile, node_key: &[u8; KEY_BYTES]) -> Result<(), InitError> {
    let node = who(keyring)?.node;
    let mut change = Change::default();
    change.put(WRAP_KEY, node_key);
    change.drop(WRAP_KEY_LOCKED);
    for (clear, sealed, number) in SEALED_KEYS {
        if keyring.get(sealed).is_some() {
            let key = open_private(keyring, node_key, node, (sealed, number))?;
            change.put(clear, key.as_bytes());
            change.drop(sealed);
        }
    }
    change.write(keyring)
}

/// Private keys: where they lie in the clear, where sealed, and their number.
const SEALED_KEYS: [(&str, &str, u64); 2] = [
    (NODE_KEY, NODE_KEY_SEALED, SEALED_NODE_KEY),
    (ADMIN_KEY, ADMIN_KEY_SEALED, SEALED_ADMIN_KEY),
];

/// Reads the identity.
///
/// # Errors
/// [`InitError::Locked`] when the unlock key is needed; [`InitError::Keyring`] names what is missing.
pub fn load(keyring: &KeyFile) -> Result<LocalIdentity, InitError> {
    if is_locked(keyring) {
        return Err(InitError::Locked);
    }
    let wrap_key = keyring.get(WRAP_KEY).and_then(|b| b.try_into().ok());
    read(
        keyring,
        Zeroizing::new(wrap_key.ok_or_else(|| bad(WRAP_KEY))?),
    )
}

/// Reads the identity again, with the node's key that is known: it may be locked meanwhile.
///
/// # Errors
/// [`InitError::Keyring`] names what is missing.
pub fn reload(keyring: &KeyFile, node_key: &[u8; KEY_BYTES]) -> Result<LocalIdentity, InitError> {
    read(keyring, Zeroizing::new(*node_key))
}

/// Reads the identity of a locked node. Nothing changes on disk: the next start is locked again.
///
/// # Errors
/// [`InitError::WrongUnlockKey`]; [`InitError::Keyring`] names what is missing.
pub fn load_locked(keyring: &KeyFile, unlock: &WrapKey) -> Result<LocalIdentity, InitError> {
    let locked = keyring
        .get(WRAP_KEY_LOCKED)
        .ok_or_else(|| bad(WRAP_KEY_LOCKED))?;
    let wrapped = WrappedKey::from_bytes(locked)?;
    let opened = unlock
        .unwrap(&wrapped)
        .map_err(|_| InitError::WrongUnlockKey)?;
    read(keyring, Zeroizing::new(*opened.expose()))
}

fn read(
    keyring: &KeyFile,
    wrap_key: Zeroizing<[u8; KEY_BYTES]>,
) -> Result<LocalIdentity, InitError> {
    let wrap = WrapKey::new(*wrap_key);
    let mut keys = Keyring::new();
    for name in keyring.names().filter(|n| n.starts_with(DATA_KEY)) {
        let wrapped = keyring.get(name).ok_or_else(|| bad(name))?;
        keys.insert(wrap.unwrap(&WrappedKey::from_bytes(wrapped)?)?);
    }
    let Who {
        cluster,
        node,
        name,
    } = who(keyring)?;
    let private = |(clear, sealed, number): (&str, &str, u64)| match text(keyring, clear) {
        Ok(key) => Ok(Zeroizing::new(key)),
        Err(_) if keyring.get(sealed).is_some() => {
            open_private(keyring, &wrap_key, node, (sealed, number))
        }
        Err(missing) => Err(missing),
    };
    let cert_pem = text(keyring, NODE_CERT)?;
    let admin_cert = text(keyring, ADMIN_CERT).ok();
    let founding_ca = match keyring.get(CA_KEY) {
        Some(bytes) => Some(unpack(bytes).ok_or_else(|| bad(CA_KEY))?),
        None => None,
    };
    let roots_pem = split_pem(&text(keyring, CA_CERT)?);
    Ok(LocalIdentity {
        cluster,
        node,
        name,
        role: identity_from_pem(&cert_pem)?.role,
        cert_pem,
        key_pem: private(SEALED_KEYS[0])?,
        roots_pem,
        admin: admin_cert.and_then(|cert| Some((cert, private(SEALED_KEYS[1]).ok()?))),
        secrets: SecretBox::new(keys),
        founding_ca,
        wrap_key,
    })
}

/// Certificates in one PEM text, one after the other.
#[must_use]
pub fn join_pem(pems: &[String]) -> String {
    let lines = pems.iter().map(|pem| format!("{}\n", pem.trim_end()));
    lines.collect()
}

/// The certificates of a PEM text, one text each.
#[must_use]
pub fn split_pem(text: &str) -> Vec<String> {
    let mut all = Vec::new();
    let mut rest = text;
    while let Some(begin) = rest.find(PEM_BEGIN) {
        let from = &rest[begin..];
        let end = from[PEM_BEGIN.len()..]
            .find(PEM_BEGIN)
            .map_or(from.len(), |at| at + PEM_BEGIN.len());
        all.push(format!("{}\n", from[..end].trim_end()));
        rest = &from[end..];
    }
    all
}

fn bad(entry: &str) -> InitError {
    InitError::Keyring {
        entry: entry.to_owned(),
    }
}

fn text(keyring: &KeyFile, entry: &str) -> Result<String, InitError> {
    let bytes = keyring.get(entry).ok_or_else(|| bad(entry))?;
    String::from_utf8(bytes.to_vec()).map_err(|_| bad(entry))
}

fn parsed<T: std::str::FromStr>(keyring: &KeyFile, entry: &str) -> Result<T, InitError> {
    text(keyring, entry)?.parse().map_err(|_| bad(entry))
}

fn data_key_entry(epoch: u32) -> String {
    format!("{DATA_KEY}{epoch}")
}

const fn private_context(node: NodeId, number: u64) -> SealContext {
    SealContext {
        kind: SealKind::NodeStore,
        id: node.0.0,
        // Far from the numbers of the worker's store, which is sealed with the same key.
        version: u64::MAX - number,
    }
}

fn seal_private(
    node_key: &[u8; KEY_BYTES],
    node: NodeId,
    number: u64,
    pem: &str,
) -> Result<SealedData, InitError> {
    let key = DataKey::new(WRAP_KEY_EPOCH, *node_key);
    Ok(key.seal(
        edge::random::<12>(),
        private_context(node, number),
        pem.as_bytes(),
    )?)
}

fn open_private(
    keyring: &KeyFile,
    node_key: &[u8; KEY_BYTES],
    node: NodeId,
    (entry, number): (&str, u64),
) -> Result<Zeroizing<String>, InitError> {
    let sealed = keyring.get(entry).and_then(unpack);
    let sealed = sealed.ok_or_else(|| bad(entry))?;
    let key = DataKey::new(WRAP_KEY_EPOCH, *node_key);
    let plain = key.open(private_context(node, number), &sealed)?;
    let text = std::str::from_utf8(&plain).map_err(|_| bad(entry))?;
    Ok(Zeroizing::new(text.to_owned()))
}

/// Changes of the keyring that belong together.
#[derive(Default)]
struct Change {
    entries: Vec<(String, Option<Zeroizing<Vec<u8>>>)>,
}

impl Change {
    fn put(&mut self, name: &str, bytes: impl AsRef<[u8]>) {
        let bytes = Zeroizing::new(bytes.as_ref().to_vec());
        self.entries.push((name.to_owned(), Some(bytes)));
    }

    fn drop(&mut self, name: &str) {
        self.entries.push((name.to_owned(), None));
    }

    fn put_or_drop(&mut self, name: &str, bytes: Option<Vec<u8>>) {
        match bytes {
            Some(bytes) => self.put(name, bytes),
            None => self.drop(name),
        }
    }

    fn data_key(&mut self, wrap_key: &[u8; KEY_BYTES], key: &DataKey) {
        let wrapped = WrapKey::new(*wrap_key).wrap(key, edge::random::<12>());
        self.put(&data_key_entry(key.epoch()), wrapped.to_bytes());
    }

    fn write(self, keyring: &mut KeyFile) -> Result<(), InitError> {
        let entries: Vec<(&str, Option<&[u8]>)> = self
            .entries
            .iter()
            .map(|(name, bytes)| (name.as_str(), bytes.as_ref().map(|b| b.as_slice())))
            .collect();
        Ok(keyring.update(&entries)?)
    }
}

/// Sealed data in one blob: epoch, nonce, ciphertext.
fn pack(sealed: &SealedData) -> Vec<u8> {
    let mut bytes = sealed.epoch.to_be_bytes().to_vec();
    bytes.extend_from_slice(&sealed.nonce);
    bytes.extend_from_slice(&sealed.ciphertext);
    bytes
}

fn unpack(bytes: &[u8]) -> Option<SealedData> {
    let (epoch, rest) = bytes.split_first_chunk::<4>()?;
    let (nonce, ciphertext) = rest.split_first_chunk::<12>()?;
    Some(SealedData {
        epoch: u32::from_be_bytes(*epoch),
        nonce: *nonce,
        ciphertext: ciphertext.to_vec(),
    })
}

#[cfg(test)]
mod tests;
