//! The way back when the certificates of all managers have expired: a site that was switched off for longer than they live.
//!
//! None can talk to another then, so there is no leader and nobody to ask. But every manager holds the authority's key, sealed in
//! the records on its own disk, and so signs its own next certificate before it begins. That gives nobody a right that he had
//! not: who has the authority's key can sign whatever he likes. A manager that was removed meanwhile knows nothing of it
//! and signs too; the others refuse it by their records, as they do with a certificate that is not over (decision 0009).

use crate::authority::{self, AuthorityError};
use crate::control::subject_names;
use crate::identity::{LocalIdentity, Renewed, split_pem};
use crate::manager::RAFT_DIR;
use std::sync::Arc;
use warren_raft::{RaftConfig, RaftError};
use warren_security::ca::CERTIFICATE_VALIDITY;
use warren_security::identity::validity;
use warren_security::{CaError, Identity, IdentityError, KeyAndCsr, generate_key_and_csr};
use warren_state::ClusterState;
use warren_storage::Disk;
use warren_types::{NodeId, Role, Timestamp};

/// Why a manager cannot sign its own certificate.
#[derive(Debug, thiserror::Error)]
pub enum ExpiredError {
    /// The log's directory.
    #[error(transparent)]
    Raft(#[from] RaftError),
    /// The authority cannot be opened with the keys of this node.
    #[error("the cluster's certificate authority cannot be opened here: {0}")]
    Authority(String),
    /// The present certificate.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// Signing.
    #[error(transparent)]
    Ca(#[from] CaError),
    /// The records on this disk do not name this node a manager.
    #[error("node {0} is no manager in the records on its disk")]
    NotListed(NodeId),
    /// There are no records yet.
    #[error("there are no records of the cluster on this disk")]
    NoRecords,
}

impl From<AuthorityError> for ExpiredError {
    fn from(error: AuthorityError) -> Self {
        Self::Authority(error.to_string())
    }
}

/// A certificate from this manager's own hand, when the one that it has is over; `None` while it is not. To be called before
/// the manager is started.
///
/// # Errors
/// [`ExpiredError`]: then another manager, or the operator, has to help.
pub fn renew_expired(
    disk: &Arc<dyn Disk>,
    identity: &LocalIdentity,
    now: Timestamp,
) -> Result<Option<Renewed>, ExpiredError> {
    let (_, until) = validity(&identity.cert_pem)?;
    if identity.role != Role::Manager || now <= until {
        return Ok(None);
    }
    sign_own(disk, identity, now).map(Some)
}

/// A certificate for this manager, valid around `now`, from its own hand. The manager must be stopped.
///
/// # Errors
/// [`ExpiredError`].
pub fn sign_own(
    disk: &Arc<dyn Disk>,
    identity: &LocalIdentity,
    now: Timestamp,
) -> Result<Renewed, ExpiredError> {
    let mut config = RaftConfig::new(identity.node);
    RAFT_DIR.clone_into(&mut config.dir);
    let state = warren_raft::stored_state(disk, &config)?.ok_or(ExpiredError::NoRecords)?;
    sign(&state, identity, now)
}

fn sign(
    state: &ClusterState,
    identity: &LocalIdentity,
    now: Timestamp,
) -> Result<Renewed, ExpiredError> {
    let settings = state.settings().ok_or(ExpiredError::NoRecords)?;
    let node = state
        .node(identity.node)
        .filter(|node| node.role.is_manager() && settings.id == identity.cluster)
        .ok_or(ExpiredError::NotListed(identity.node))?;
    let authority = authority::of(&identity.secrets, settings)?;
    let names = Identity {
        cluster: settings.id,
        role: Role::Manager,
        node: Some(node.id),
        name: node.name.clone(),
    };
    let KeyAndCsr { key_pem, csr_pem } = generate_key_and_csr()?;
    let subjects = subject_names(node);
    let cert_pem = authority.issue(&csr_pem, &names, &subjects, now, CERTIFICATE_VALIDITY)?;
    Ok(Renewed {
        cert_pem,
        key_pem,
        roots_pem: split_pem(&settings.ca.roots_pem.concat()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{LIMIT, demotion, founded, founder, started};
    use warren_storage::FaultyDisk;
    use warren_types::Duration;

    fn later() -> Timestamp {
        crate::edge::now().plus(Duration(CERTIFICATE_VALIDITY.0 + 86_400_000))
    }

    #[tokio::test]
    async fn a_manager_whose_certificate_is_over_signs_the_next_one_itself() {
        let disk: Arc<dyn Disk> = Arc::new(FaultyDisk::new(1));
        let (_, identity) = founder(&disk);
        assert!(matches!(
            renew_expired(&disk, &identity, later()),
            Err(ExpiredError::NoRecords)
        ));
        founded(&disk, &identity).await.shutdown().await;

        let now = crate::edge::now();
        assert!(renew_expired(&disk, &identity, now).unwrap().is_none());
        let renewed = renew_expired(&disk, &identity, later()).unwrap();
        let renewed = renewed.expect("it is over");
        let (from, until) = validity(&renewed.cert_pem).unwrap();
        assert!(from < later() && until > later());
        let who = warren_security::identity_from_pem(&renewed.cert_pem).unwrap();
        assert_eq!((who.node, who.role), (Some(identity.node), Role::Manager));
        assert_eq!(renewed.roots_pem, identity.roots_pem, "nobody else's root");

        // One that its own records demote signs nothing.
        let raft = started(&disk, &identity).await;
        raft.wait_ready(LIMIT).await.unwrap();
        let command = demotion(&raft.state(), identity.node);
        raft.propose(&command).await.unwrap();
        raft.shutdown().await;
        assert!(matches!(
            renew_expired(&disk, &identity, later()),
            Err(ExpiredError::NotListed(_))
        ));
    }
}
