//! A cluster of one manager without its daemon, for the tests of this crate.

use crate::RAFT_DIR;
use crate::control::{Control, JoinGate, Local};
use crate::identity::LocalIdentity;
use crate::init::{self, NewNode, NodeFacts};
use crate::keys::KeyStore;
use crate::quorum::peers::Peers;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use warren_client::{IdentitySource, TlsIdentity};
use warren_raft::{Member, NoPeers, RaftConfig, RaftHandle};
use warren_state::{Actor, ClusterState, Command, NodePatch, Op};
use warren_storage::{Disk, FaultyDisk, Keyring};
use warren_types::{NodeId, NodeRole, RaftProfile};

pub(crate) const LIMIT: Duration = Duration::from_secs(20);

fn facts() -> NodeFacts {
    NodeFacts {
        cluster_name: "c".to_owned(),
        name: "m1".to_owned(),
        role: NodeRole::Manager,
        address: "10.0.0.1:8080".to_owned(),
        hostname: String::new(),
        platform: warren_types::Platform::default(),
        resources: warren_types::NodeResources::default(),
        version: String::new(),
    }
}

/// Keys and certificates of a new cluster.
pub(crate) fn founder(disk: &Arc<dyn Disk>) -> (Keyring, LocalIdentity) {
    let mut keyring = Keyring::open(Arc::clone(disk), "keyring").unwrap();
    let new = NewNode {
        name: "m1".to_owned(),
        api_names: Vec::new(),
    };
    let identity = init::create(&mut keyring, &new).unwrap();
    (keyring, identity)
}

pub(crate) async fn started(disk: &Arc<dyn Disk>, identity: &LocalIdentity) -> RaftHandle {
    let mut config = RaftConfig::new(identity.node);
    RAFT_DIR.clone_into(&mut config.dir);
    RaftHandle::start(config, Arc::clone(disk), Arc::new(NoPeers))
        .await
        .unwrap()
}

/// The engine of the founder, leading, with the first records.
pub(crate) async fn founded(disk: &Arc<dyn Disk>, identity: &LocalIdentity) -> RaftHandle {
    let raft = started(disk, identity).await;
    let member = Member {
        name: "m1".to_owned(),
        address: String::new(),
    };
    raft.initialize(BTreeMap::from([(identity.node, member)]))
        .await
        .unwrap();
    raft.wait_ready(LIMIT).await.unwrap();
    let first = init::first_command(identity, &facts(), RaftProfile::Lan).unwrap();
    raft.propose(&first).await.unwrap();
    raft
}

/// Id of the manager that [`demotion`] adds.
pub(crate) const OTHER: NodeId = NodeId::from_u128(7);

/// Adds another manager, and makes this one a worker.
pub(crate) fn demotion(state: &ClusterState, node: NodeId) -> Command {
    let mut other = state.node(node).unwrap().as_ref().clone();
    other.id = OTHER;
    other.name = "m2".to_owned();
    let patch = NodePatch {
        role: Some(NodeRole::Worker),
        ..NodePatch::default()
    };
    let ops = vec![
        Op::NodeAdd(Box::new(other)),
        Op::NodeUpdate {
            id: node,
            expect: None,
            patch: Box::new(patch),
        },
    ];
    Command::new(Actor::System, crate::edge::now(), ops)
}

/// The calls of a leading manager, whose own record says that it is a worker; [`OTHER`] is a manager.
pub(crate) async fn demoted() -> Control {
    let disk: Arc<dyn Disk> = Arc::new(FaultyDisk::new(1));
    let (keyring, identity) = founder(&disk);
    let raft = founded(&disk, &identity).await;
    let command = demotion(&raft.state(), identity.node);
    raft.propose(&command).await.unwrap();
    let shown = TlsIdentity {
        ca_pem: identity.roots_pem.clone(),
        own: None,
    };
    let facts = facts();
    Control {
        raft,
        keys: Arc::new(KeyStore::new(
            Arc::new(Mutex::new(keyring)),
            *identity.node_key(),
        )),
        peers: Arc::new(Peers::new(IdentitySource::new(shown).unwrap())),
        joins: JoinGate::default(),
        dispatcher: watch::channel(None).1,
        local: Local {
            node: identity.node,
            name: identity.name.clone(),
            version: String::new(),
            data_dir: PathBuf::new(),
            api_address: facts.address.clone(),
            started_at: crate::edge::now(),
            facts: Arc::new(facts),
        },
        events: mpsc::channel(1).0,
        secrets: Arc::new(identity.secrets),
    }
}
