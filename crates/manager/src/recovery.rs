//! After a disaster: a cluster from a backup, and a manager that goes on alone. Both are done on a stopped manager, and
//! both make everything that was handed out before older than what comes after (revision, term, index), so that no worker
//! takes an old assignment for a new one. Containers are not touched: nodes come back and are told anew.

use crate::authority;
use crate::edge;
use crate::identity::{self, LocalIdentity, NewNode};
use crate::init::{InitError, NodeFacts, node_record};
use crate::manager::RAFT_DIR;
use crate::secrets::SecretBox;
use std::io::Read;
use std::sync::Arc;
use warren_raft::{Member, RaftConfig, RaftError, RecoverError};
use warren_security::backup::{BackupError, BackupReader};
use warren_state::{Actor, ClusterState, Command, DecodeError, Op, Rejection};
use warren_storage::{Disk, Keyring as KeyFile};
use warren_types::{NodeId, Timestamp};

/// Why nothing could be restored or recovered. Nothing was changed then, unless the text says otherwise.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    /// The backup.
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// What the backup holds.
    #[error("the backup cannot be understood: {0}; nothing was restored")]
    Content(#[from] DecodeError),
    /// A backup without a cluster.
    #[error("the backup holds no cluster; nothing was restored")]
    Empty,
    /// The key of the CA cannot be opened with the keys of the backup.
    #[error("the certificate authority in the backup cannot be opened: {0}; nothing was restored")]
    Authority(String),
    /// This node cannot be put into the state.
    #[error("this node cannot be made a manager of the restored cluster: {0}")]
    Node(#[from] Rejection),
    /// Identity and keys.
    #[error(transparent)]
    Init(#[from] InitError),
    /// The log's directory.
    #[error(transparent)]
    Raft(#[from] RaftError),
    /// This node's data do not list it.
    #[error(
        "node {0} is not in the state on this disk, so it cannot go on alone; restore a backup with `warren cluster restore`"
    )]
    NotListed(NodeId),
}

/// What was restored.
pub struct Restored {
    /// Who this node is now.
    pub identity: LocalIdentity,
    /// Name of the cluster.
    pub cluster_name: String,
    /// When the backup was made.
    pub backup_of: Timestamp,
    /// Services, and secrets, that are back.
    pub objects: (usize, usize),
}

/// Makes this machine the first manager of the cluster that a backup holds. A node of the same name in the backup is
/// taken to be the one that is replaced.
///
/// # Errors
/// [`RecoveryError`].
pub fn restore(
    disk: &Arc<dyn Disk>,
    keyring: &mut KeyFile,
    new: &NewNode,
    facts: &NodeFacts,
    backup: impl Read,
    passphrase: &str,
) -> Result<Restored, RecoveryError> {
    let mut reader = BackupReader::open(backup, passphrase)?;
    let payload = reader.payload()?;
    let state = ClusterState::decode_snapshot(&payload)?;
    let settings = state.settings().cloned().ok_or(RecoveryError::Empty)?;
    let keys = reader.keys().clone();
    let authority = authority::of(&SecretBox::new(keys.clone()), &settings)
        .map_err(|e| RecoveryError::Authority(e.to_string()))?;
    let now = edge::now();
    let mut state = state.forked(now, None);
    let identity = identity::adopt(keyring, new, &authority, &settings.ca.roots_pem, &keys)?;
    let replaced = state.node_by_name(&identity.name).map(|node| node.id);
    if let Some(id) = replaced {
        let op = Op::NodeRemove {
            id,
            expect: None,
            force: true,
        };
        state.apply(&Command::new(Actor::System, now, vec![op]))?;
    }
    let mut node = node_record(&identity, facts, now);
    node.certificate_root = settings
        .ca
        .roots_pem
        .last()
        .and_then(|pem| warren_security::CaDigest::of_pem(pem).ok())
        .map_or_else(String::new, |digest| digest.hex());
    let add = Op::NodeAdd(Box::new(node));
    state.apply(&Command::new(Actor::System, now, vec![add]))?;
    warren_raft::restore(disk, &config(&identity), member(&identity, facts), &state)?;
    Ok(Restored {
        cluster_name: settings.name.clone(),
        backup_of: reader.info().created_at,
        objects: (state.services().count(), state.secrets().count()),
        identity,
    })
}

/// What a manager goes on with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovered {
    /// Last log entry that this manager had; what others had beyond it is gone.
    pub found_index: Option<u64>,
    /// Managers that were members before; they have to be reset and join again.
    pub others: Vec<String>,
}

/// The quorum is lost for good: this manager goes on alone, with everything that its disk has.
///
/// # Errors
/// [`RecoveryError`].
pub fn recover(
    disk: &Arc<dyn Disk>,
    identity: &LocalIdentity,
    facts: &NodeFacts,
) -> Result<Recovered, RecoveryError> {
    let own = identity.node;
    let edit = |state: ClusterState| {
        if state.node(own).is_none() {
            return Err(RecoveryError::NotListed(own));
        }
        Ok(state.forked(edge::now(), Some(own)))
    };
    let done = warren_raft::recover(disk, &config(identity), member(identity, facts), edit);
    let done = done.map_err(|error| match error {
        RecoverError::Edit(error) => error,
        RecoverError::Raft(error) => RecoveryError::Raft(error),
    })?;
    let others = done.found_members.iter().filter(|(id, _)| **id != own);
    Ok(Recovered {
        found_index: done.found_index,
        others: others.map(|(_, member)| member.name.clone()).collect(),
    })
}

fn config(identity: &LocalIdentity) -> RaftConfig {
    let mut config = RaftConfig::new(identity.node);
    config.cluster_id = Some(identity.cluster);
    RAFT_DIR.clone_into(&mut config.dir);
    config
}

fn member(identity: &LocalIdentity, facts: &NodeFacts) -> Member {
    Member {
        name: identity.name.clone(),
        address: facts.address.clone(),
    }
}
