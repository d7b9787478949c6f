//! What the node keeps on its disk: the last set (secrets sealed), a record of each container, the
//! addresses given, its subnet. It restarts from this with no manager in reach.

use crate::edge;
use crate::sets::{RefusedSet, Wanted, container_id, id_bytes};
use std::net::Ipv4Addr;
use std::sync::Arc;
use warren_lifecycle::Local;
use warren_proto::prost::Message;
use warren_proto::session::Assignments;
use warren_security::{DataKey, SealContext, SealKind};
use warren_storage::{LocalStore, LocalTable, StorageError};
use warren_types::{ContainerId, SealedData};

const SUBNET: &[u8] = b"subnet";
/// The node's own key is its first and only one.
const NODE_KEY_EPOCH: u32 = 1;

/// The node's memory on disk.
#[derive(Clone)]
pub(crate) struct Keep {
    store: Arc<LocalStore>,
    key: DataKey,
}

impl Keep {
    pub(crate) fn new(store: Arc<LocalStore>, node_key: [u8; 32]) -> Self {
        Self {
            store,
            key: DataKey::new(NODE_KEY_EPOCH, node_key),
        }
    }

    /// Writes the set, durably.
    pub(crate) async fn assignments(&self, wanted: Arc<Wanted>) -> Result<(), RefusedSet> {
        let keep = self.clone();
        let written = tokio::task::spawn_blocking(move || {
            let revision = wanted.set.revision.0;
            let message = wanted
                .to_message(|name, data| keep.seal(name, data))
                .map_err(|e| e.to_string())?;
            keep.store
                .set_assignments(revision, &message.encode_to_vec())
                .map_err(|e| e.to_string())
        });
        written
            .await
            .unwrap_or_else(|e| Err(e.to_string()))
            .map_err(RefusedSet::Disk)
    }

    /// Reads the last set; a set that cannot be read is as good as none: the manager sends it again.
    pub(crate) fn last(&self) -> Result<Wanted, StorageError> {
        let Some(kept) = self.store.assignments()? else {
            return Ok(Wanted::default());
        };
        let read = Assignments::decode(kept.bytes.as_slice())
            .map_err(|e| e.to_string())
            .and_then(|mut message| {
                message.secrets = std::mem::take(&mut message.secrets)
                    .into_iter()
                    .map(|mut secret| {
                        secret.data = self.open(&secret.name, &secret.data)?;
                        Ok(secret)
                    })
                    .collect::<Result<_, String>>()?;
                Wanted::default()
                    .after(&message)
                    .map(|(wanted, _)| wanted)
                    .map_err(|e| e.to_string())
            });
        Ok(read.unwrap_or_else(|problem| {
            tracing::error!(
                problem,
                "the kept assignments cannot be read; waiting for a manager"
            );
            Wanted::default()
        }))
    }

    fn seal(&self, name: &str, data: &[u8]) -> Result<Vec<u8>, warren_security::SealError> {
        let sealed = self.key.seal(edge::random::<12>(), context(name), data)?;
        let mut bytes = sealed.nonce.to_vec();
        bytes.extend_from_slice(&sealed.ciphertext);
        Ok(bytes)
    }

    fn open(&self, name: &str, bytes: &[u8]) -> Result<Vec<u8>, String> {
        let (nonce, ciphertext) = bytes
            .split_first_chunk::<12>()
            .ok_or("a sealed secret is cut short")?;
        let sealed = SealedData {
            epoch: NODE_KEY_EPOCH,
            nonce: *nonce,
            ciphertext: ciphertext.to_vec(),
        };
        self.key
            .open(context(name), &sealed)
            .map(|data| data.to_vec())
            .map_err(|e| e.to_string())
    }

    /// Writes the record of a container.
    pub(crate) async fn record(&self, local: Local) {
        let store = self.store.clone();
        let written = tokio::task::spawn_blocking(move || {
            let bytes = encode(&local)?;
            store
                .put(LocalTable::Containers, &id_bytes(local.id.0), &bytes)
                .map_err(|e| e.to_string())
        });
        // The runtime's own state is the truth after a crash; a record that could not be written
        // costs a restart count, not a container.
        if let Err(problem) = written.await.unwrap_or_else(|e| Err(e.to_string())) {
            tracing::error!(problem, "record of a container not written");
        }
    }

    /// Forgets a container: its record and its address.
    pub(crate) async fn forget(&self, id: ContainerId) {
        let store = self.store.clone();
        let done = tokio::task::spawn_blocking(move || {
            let mut batch = warren_storage::LocalBatch::new();
            batch
                .remove(LocalTable::Containers, id_bytes(id.0))
                .remove(LocalTable::Leases, id_bytes(id.0));
            store.write(&batch).map_err(|e| e.to_string())
        });
        if let Err(problem) = done.await.unwrap_or_else(|e| Err(e.to_string())) {
            tracing::error!(problem, container = %id, "record of a container not removed");
        }
    }

    /// Every record; one that cannot be read is left out, and its container is found by the sweep.
    pub(crate) fn records(&self) -> Result<Vec<Local>, StorageError> {
        let rows = self.store.list(LocalTable::Containers)?;
        Ok(rows.iter().filter_map(|(_, bytes)| decode(bytes)).collect())
    }

    /// Notes the address of a container, durably: two containers must never get the same.
    pub(crate) async fn lease(&self, id: ContainerId, address: Ipv4Addr) -> Result<(), String> {
        let store = self.store.clone();
        let written = tokio::task::spawn_blocking(move || {
            store
                .put(LocalTable::Leases, &id_bytes(id.0), &address.octets())
                .map_err(|e| e.to_string())
        });
        written.await.unwrap_or_else(|e| Err(e.to_string()))
    }

    /// Every address given.
    pub(crate) fn leases(&self) -> Result<Vec<(ContainerId, Ipv4Addr)>, StorageError> {
        let rows = self.store.list(LocalTable::Leases)?;
        let read = |(key, value): &(Vec<u8>, Vec<u8>)| {
            let octets: [u8; 4] = value.as_slice().try_into().ok()?;
            Some((container_id(key).ok()?, Ipv4Addr::from(octets)))
        };
        Ok(rows.iter().filter_map(read).collect())
    }

    /// The node's subnet, if it was given one.
    pub(crate) fn subnet(&self) -> Result<Option<String>, StorageError> {
        let bytes = self.store.get(LocalTable::Misc, SUBNET)?;
        Ok(bytes.and_then(|b| String::from_utf8(b).ok()))
    }

    /// Notes the node's subnet.
    pub(crate) fn set_subnet(&self, subnet: &str) -> Result<(), StorageError> {
        self.store.put(LocalTable::Misc, SUBNET, subnet.as_bytes())
    }
}

fn context(name: &str) -> SealContext {
    // The name stands for the object; it is part of what is authenticated through its digest.
    let digest = ring::digest::digest(&ring::digest::SHA256, name.as_bytes());
    let half = digest
        .as_ref()
        .first_chunk::<16>()
        .copied()
        .unwrap_or_default();
    SealContext {
        kind: SealKind::NodeStore,
        id: u128::from_be_bytes(half),
        version: 0,
    }
}

fn encode(local: &Local) -> Result<Vec<u8>, String> {
    serde_json::to_vec(local).map_err(|e| e.to_string())
}

fn decode(bytes: &[u8]) -> Option<Local> {
    serde_json::from_slice(bytes)
        .inspect_err(|problem| tracing::warn!(%problem, "record not understood"))
        .ok()
}
