//! Keeps this manager a member of the quorum, whether it leads or not: joins until the others have taken it, tells a
//! changed address, fetches data keys that it lacks, follows the cluster's settings, and notices when it is no manager any
//! more.

use crate::control::Control;
use crate::manager::ManagerEvent;
use crate::quorum::peers::Peers;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use warren_client::{Client, ClientError, ErrorKind, Target};
use warren_proto::v1;
use warren_types::{NodeId, RaftProfile, SealedData};

/// First wait after a failed try; doubles.
const RETRY_MIN: Duration = Duration::from_millis(100);
/// Longest wait after a failed try.
const RETRY_MAX: Duration = Duration::from_secs(5);
/// Time between two looks when all is well.
const LOOK: Duration = Duration::from_secs(10);
/// Time between two looks of a manager that the others say is none: it hears nothing of a promotion, it has to ask.
const REFUSED_LOOK: Duration = Duration::from_secs(1);

pub(crate) struct Keeper {
    pub(crate) control: Arc<Control>,
    pub(crate) peers: Arc<Peers>,
    /// Managers to ask while the state names none.
    pub(crate) managers: Vec<String>,
    pub(crate) events: mpsc::Sender<ManagerEvent>,
}

/// What is not as it shall be.
enum Lack {
    /// Not a member, or known under another address.
    Membership,
    /// A data key that the cluster uses.
    Key,
}

impl Keeper {
    /// Runs as long as the manager.
    pub(crate) async fn run(self) {
        let mut revisions = self.control.raft.changes();
        let mut removed = self.control.raft.removed();
        let mut retry = RETRY_MIN;
        let mut lock = None;
        let mut profile = None;
        let mut demoted = false;
        loop {
            revisions.mark_unchanged();
            self.follow_settings();
            self.follow_lock(&mut lock);
            self.follow_profile(&mut profile);
            // The others say so: what exactly, they say when they are asked to take this manager back.
            let told = *removed.borrow_and_update();
            match self.dismissed() {
                Some(ManagerEvent::Demoted) => self.tell_demoted(&mut demoted).await,
                Some(event) => {
                    // A closed channel means that the daemon ends anyway.
                    let _ = self.events.send(event).await;
                    return;
                }
                None => demoted = false,
            }
            let wait = match self.lack().or(told.then_some(Lack::Membership)) {
                None => {
                    retry = RETRY_MIN;
                    LOOK
                }
                Some(lack) => match self.mend(&lack).await {
                    Ok(()) if told => LOOK,
                    Ok(()) => {
                        retry = RETRY_MIN;
                        RETRY_MIN
                    }
                    Err(error) if told && error.kind == ErrorKind::PermissionDenied => {
                        self.tell_demoted(&mut demoted).await;
                        REFUSED_LOOK
                    }
                    Err(error) if error.kind == ErrorKind::Removed => {
                        let _ = self.events.send(ManagerEvent::Removed).await;
                        return;
                    }
                    Err(error) => {
                        tracing::info!(%error, "not yet a full member of the quorum; trying again");
                        retry = (retry * 2).min(RETRY_MAX);
                        retry
                    }
                },
            };
            tokio::select! {
                changed = revisions.changed() => if changed.is_err() { return },
                _ = removed.changed() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Once in a row. The daemon asks the cluster for the certificate that the node is worth now, and ends this manager when
    /// that is a worker's. What a joining manager is sent first may be older than its office; it goes on then.
    async fn tell_demoted(&self, told: &mut bool) {
        if !std::mem::replace(told, true) {
            let _ = self.events.send(ManagerEvent::Demoted).await;
        }
    }

    /// TR-04, PE-03: thresholds are the cluster's, changed while it runs.
    fn follow_settings(&self) {
        if let Some(settings) = self.control.raft.state().settings() {
            self.control.raft.set_thresholds(
                settings.snapshot_entries,
                settings.snapshot_bytes,
                settings.log_bytes_max,
            );
            if let Some(epoch) = settings.key_epochs.last() {
                self.control.secrets.activate(epoch.number);
            }
        }
    }

    /// Which times the next start uses; noted once after a start, and after each change.
    fn follow_profile(&self, followed: &mut Option<RaftProfile>) {
        let state = self.control.raft.state();
        let Some(wanted) = state.settings().map(|s| s.raft_profile) else {
            return;
        };
        if *followed == Some(wanted) {
            return;
        }
        match self.control.raft.keep_profile(wanted.into()) {
            Ok(()) => *followed = Some(wanted),
            Err(error) => {
                tracing::error!(%error, "the cluster's raft profile could not be noted for the next start")
            }
        }
    }

    /// The keyring is wrapped as the cluster says; once after a start, and after each change.
    fn follow_lock(&self, followed: &mut Option<SealedData>) {
        let state = self.control.raft.state();
        let Some(settings) = state.settings() else {
            return;
        };
        if followed.as_ref() == Some(&settings.unlock_key) {
            return;
        }
        let key = match settings.auto_lock {
            false => None,
            true => match self.control.secrets.open_unlock_key(settings) {
                Ok(key) => Some(key.wrap_key()),
                // The data key is still on its way.
                Err(_) => return,
            },
        };
        match self.control.keys.lock(key.as_ref()) {
            Ok(()) => *followed = Some(settings.unlock_key.clone()),
            Err(error) => {
                tracing::error!(%error, "the keyring could not be wrapped as the cluster says")
            }
        }
    }

    /// Whether the cluster has taken this node's office away, as far as this node's own state says.
    fn dismissed(&self) -> Option<ManagerEvent> {
        let state = self.control.raft.state();
        let own = self.control.local.node;
        if state.is_removed(own).is_some() {
            return Some(ManagerEvent::Removed);
        }
        let demoted = state.node(own).is_some_and(|n| !n.role.is_manager());
        // It goes when the membership has let it go, so that the quorum never counts on a manager that is off.
        let (voters, learners) = self.control.raft.members();
        let member = voters.contains_key(&own) || learners.contains_key(&own);
        (demoted && !member).then_some(ManagerEvent::Demoted)
    }

    fn lack(&self) -> Option<Lack> {
        let raft = &self.control.raft;
        let own = self.control.local.node;
        let (voters, learners) = raft.members();
        let here = &self.control.local.api_address;
        let member = voters.get(&own).or_else(|| learners.get(&own));
        if member.is_none_or(|member| member.address != *here) {
            return Some(Lack::Membership);
        }
        let state = raft.state();
        // A manager without containers has no session that would tell.
        let version = &self.control.local.version;
        if state.node(own).is_some_and(|n| n.version_text != *version) {
            return Some(Lack::Membership);
        }
        let epochs = state.settings().map(|s| s.key_epochs.as_slice());
        epochs
            .unwrap_or_default()
            .iter()
            .any(|epoch| !self.control.secrets.has(epoch.number))
            .then_some(Lack::Key)
    }

    async fn mend(&self, lack: &Lack) -> Result<(), ClientError> {
        match lack {
            Lack::Membership => self.join().await,
            Lack::Key => self.fetch_keys().await,
        }
    }

    /// Asks any manager to be taken; when this one leads, itself.
    async fn join(&self) -> Result<(), ClientError> {
        let facts = &self.control.local.facts;
        let request = v1::JoinClusterRequest {
            node_id: self.control.local.node.to_string(),
            bind_addr: self.control.local.api_address.clone(),
            token: String::new(),
            resources: Some((&facts.resources).into()),
            platform: Some((&facts.platform).into()),
            hostname: facts.hostname.clone(),
            version: facts.version.clone(),
        };
        if self.control.raft.leadership().borrow().ready {
            let own = warren_api::Caller::in_process(
                warren_types::Role::Manager,
                self.control.local.name.clone(),
                Some(self.control.local.node),
            );
            let joined =
                warren_api::ControlPlane::join_cluster(self.control.as_ref(), &own, request).await;
            return joined.map(drop).map_err(|error| ClientError {
                kind: ErrorKind::Unavailable,
                message: error.to_string(),
                remedy: String::new(),
            });
        }
        let addresses = self.addresses();
        let client = Client::connect_lazy(Target::Tcp {
            addresses,
            identity: self.peers.identity().current(),
        })?;
        let answer = client.join_cluster(request).await?;
        let keys = answer.data_keys.into_iter().map(|key| (key.epoch, key.key));
        self.keep(keys)
    }

    /// Everybody else who may know: from the state, and those that this node was told when it joined.
    fn addresses(&self) -> Vec<String> {
        let state = self.control.raft.state();
        let own = self.control.local.node;
        let listed = state.nodes().filter(|n| n.role.is_manager() && n.id != own);
        let mut addresses: Vec<String> = listed.map(|n| n.address.clone()).collect();
        addresses.extend(self.managers.iter().cloned());
        addresses.retain(|a| !a.is_empty() && *a != self.control.local.api_address);
        let mut seen = std::collections::BTreeSet::new();
        addresses.retain(|a| seen.insert(a.clone()));
        addresses
    }

    async fn fetch_keys(&self) -> Result<(), ClientError> {
        let state = self.control.raft.state();
        let own = self.control.local.node;
        let others: Vec<(NodeId, String)> = state
            .nodes()
            .filter(|n| n.role.is_manager() && n.id != own && !n.address.is_empty())
            .map(|n| (n.id, n.address.clone()))
            .collect();
        let mut last = ClientError {
            kind: ErrorKind::Unavailable,
            message: "no other manager is known that could have the data key".to_owned(),
            remedy: "bring another manager back".to_owned(),
        };
        for (node, address) in others {
            match self.peers.client(node, &address).data_keys(&[]).await {
                Ok(keys) => {
                    let keys = keys.into_iter().map(|(epoch, key)| (epoch, key.to_vec()));
                    return self.keep(keys);
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn keep(&self, keys: impl Iterator<Item = (u32, Vec<u8>)>) -> Result<(), ClientError> {
        self.control
            .keep_keys(keys.collect())
            .map_err(|error| ClientError {
                kind: ErrorKind::Local,
                message: error.to_string(),
                remedy: String::new(),
            })
    }
}
