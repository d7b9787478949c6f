//! Every step is whole or not there, and each form of the keyring is read back.

use super::*;
use std::sync::Arc;
use warren_storage::RealDisk;

fn keyring(dir: &tempfile::TempDir) -> KeyFile {
    KeyFile::open(Arc::new(RealDisk::open(dir.path()).unwrap()), "keyring").unwrap()
}

fn founded(dir: &tempfile::TempDir) -> (KeyFile, LocalIdentity) {
    let mut keyring = keyring(dir);
    let new = NewNode {
        name: "n1".to_owned(),
        api_names: vec!["127.0.0.1".to_owned()],
    };
    let identity = create(&mut keyring, &new).unwrap();
    (keyring, identity)
}

fn authority() -> CertificateAuthority {
    CertificateAuthority::generate(ClusterId(edge::new_id()), edge::now(), CA_VALIDITY).unwrap()
}

fn certificate(ca: &CertificateAuthority, csr: &str, node: NodeId, role: Role) -> String {
    let identity = Identity {
        cluster: ca.cluster(),
        role,
        node: Some(node),
        name: "n2".to_owned(),
    };
    ca.issue(csr, &identity, &[], edge::now(), CERTIFICATE_VALIDITY)
        .unwrap()
}

#[test]
fn a_founder_is_read_back_whole() {
    let dir = tempfile::tempdir().unwrap();
    let (_, made) = founded(&dir);
    let read = load(&keyring(&dir)).unwrap();
    assert_eq!((read.node, read.role), (made.node, Role::Manager));
    assert_eq!(read.roots_pem, made.roots_pem);
    assert_eq!(read.roots_pem.len(), 1);
    assert!(read.admin.is_some() && read.founding_ca.is_some());
    assert_eq!(read.node_key(), made.node_key());
    assert!(read.is_founder());
    super::founded(&mut keyring(&dir)).unwrap();
    let read = reload(&keyring(&dir), made.node_key()).unwrap();
    assert!(!read.is_founder() && read.admin.is_some());
}

#[test]
fn joining_is_repeated_with_the_same_key_until_it_is_done() {
    let dir = tempfile::tempdir().unwrap();
    let first = begin_join(&mut keyring(&dir)).unwrap();
    let again = begin_join(&mut keyring(&dir)).unwrap();
    assert_eq!(first.csr_pem, again.csr_pem);
    assert!(!has_node(&keyring(&dir)));
    let ca = authority();
    let node = NodeId(edge::new_id());
    let joined = Joined {
        cert_pem: certificate(&ca, &again.csr_pem, node, Role::Worker),
        roots_pem: vec![ca.cert_pem().to_owned(), authority().cert_pem().to_owned()],
    };
    let identity = join(&mut keyring(&dir), &joined).unwrap();
    assert_eq!((identity.node, identity.role), (node, Role::Worker));
    assert_eq!(identity.roots_pem.len(), 2);
    assert!(identity.admin.is_none());
    let keyring = keyring(&dir);
    assert_eq!(load(&keyring).unwrap().name, "n2");
    assert!(keyring.get(JOIN_KEY).is_none());
}

#[test]
fn a_renewal_for_another_node_is_not_taken() {
    let dir = tempfile::tempdir().unwrap();
    let mut keyring = keyring(&dir);
    let ca = authority();
    let node = NodeId(edge::new_id());
    let request = begin_join(&mut keyring).unwrap();
    let joined = Joined {
        cert_pem: certificate(&ca, &request.csr_pem, node, Role::Worker),
        roots_pem: vec![ca.cert_pem().to_owned()],
    };
    let key = *join(&mut keyring, &joined).unwrap().node_key();
    let fresh = generate_key_and_csr().unwrap();
    let renewed = |node, role| Renewed {
        cert_pem: certificate(&ca, &fresh.csr_pem, node, role),
        key_pem: fresh.key_pem.clone(),
        roots_pem: vec![ca.cert_pem().to_owned()],
    };
    let other = renewed(NodeId(edge::new_id()), Role::Manager);
    let refused = store_renewed(&mut keyring, &key, &other);
    assert!(matches!(refused, Err(InitError::NotOurs { .. })));
    store_renewed(&mut keyring, &key, &renewed(node, Role::Manager)).unwrap();
    let read = load(&keyring).unwrap();
    assert_eq!(read.role, Role::Manager);
    assert_eq!(*read.key_pem, *fresh.key_pem);
}

#[test]
fn a_worker_keeps_nothing_of_a_manager() {
    let dir = tempfile::tempdir().unwrap();
    let (mut keyring, identity) = founded(&dir);
    store_data_keys(
        &mut keyring,
        identity.node_key(),
        &[(2, vec![7; KEY_BYTES])],
    )
    .unwrap();
    become_worker(&mut keyring).unwrap();
    let left: Vec<&str> = keyring.names().collect();
    let secret = |n: &&str| n.starts_with(DATA_KEY) || n.starts_with("admin") || *n == CA_KEY;
    assert!(!left.iter().any(secret), "{left:?}");
    assert!(load(&keyring).unwrap().admin.is_none());
}

#[test]
fn a_locked_node_needs_its_key_and_keeps_no_private_key_in_the_clear() {
    let dir = tempfile::tempdir().unwrap();
    let (mut keyring, identity) = founded(&dir);
    let unlock = WrapKey::new([1; KEY_BYTES]);
    lock(&mut keyring, identity.node_key(), &unlock).unwrap();
    assert!(is_locked(&keyring));
    assert!(matches!(load(&keyring), Err(InitError::Locked)));
    let wrong = load_locked(&keyring, &WrapKey::new([2; KEY_BYTES]));
    assert!(matches!(wrong, Err(InitError::WrongUnlockKey)));
    for entry in [WRAP_KEY, NODE_KEY, ADMIN_KEY] {
        assert!(keyring.get(entry).is_none(), "{entry}");
    }
    assert_eq!(who(&keyring).unwrap().node, identity.node);
    let opened = load_locked(&keyring, &unlock).unwrap();
    assert_eq!(*opened.key_pem, *identity.key_pem);
    assert_eq!(
        opened.admin.as_ref().map(|a| &*a.1),
        identity.admin.as_ref().map(|a| &*a.1)
    );
    // A renewal of a locked node stays sealed; another unlock key replaces the first.
    let renewed = Renewed {
        cert_pem: opened.cert_pem.clone(),
        key_pem: Zeroizing::new("another key".to_owned()),
        roots_pem: opened.roots_pem.clone(),
    };
    store_renewed(&mut keyring, opened.node_key(), &renewed).unwrap();
    assert!(keyring.get(NODE_KEY).is_none());
    let second = WrapKey::new([3; KEY_BYTES]);
    lock(&mut keyring, opened.node_key(), &second).unwrap();
    assert!(load_locked(&keyring, &unlock).is_err());
    assert_eq!(
        *load_locked(&keyring, &second).unwrap().key_pem,
        "another key"
    );
    unlock_for_good(&mut keyring, opened.node_key()).unwrap();
    assert_eq!(*load(&keyring).unwrap().key_pem, "another key");
    assert!(load(&keyring).unwrap().admin.is_some());
}

#[test]
fn data_keys_are_added() {
    let dir = tempfile::tempdir().unwrap();
    let (mut keyring, identity) = founded(&dir);
    let key = *identity.node_key();
    store_data_keys(&mut keyring, &key, &[(2, vec![7; KEY_BYTES])]).unwrap();
    let entries = keyring.names().filter(|n| n.starts_with(DATA_KEY)).count();
    assert_eq!(entries, 2);
    assert!(load(&keyring).is_ok());
    assert!(store_data_keys(&mut keyring, &key, &[(3, vec![7; 5])]).is_err());
}

#[test]
fn pem_texts_are_split_and_joined() {
    let (a, b) = (authority(), authority());
    let both = [a.cert_pem().trim_end().to_owned(), b.cert_pem().to_owned()];
    let split = split_pem(&join_pem(&both));
    assert_eq!(split.len(), 2);
    assert_eq!(split[0].trim_end(), both[0]);
    assert_eq!(join_pem(&split), join_pem(&both));
    assert!(split_pem("nothing").is_empty());
}
