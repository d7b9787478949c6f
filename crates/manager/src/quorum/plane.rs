//! What other managers ask this one.

use crate::control::Control;
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::OwnedMutexGuard;
use warren_api::{ApiError, ApiResult, ApiStream, PeerPlane};
use warren_raft::{RaftError, ReadError, RpcKind, SnapshotSink};
use warren_types::NodeId;

/// How long a transfer waits for the end of the one before.
const TURN_LIMIT: Duration = Duration::from_secs(10);

/// The manager's side of the peers' service.
pub(crate) struct Plane {
    control: Arc<Control>,
    /// Begun and waiting for their pieces.
    begun: Mutex<BTreeMap<NodeId, Begun>>,
    /// One transfer at a time: pieces of a broken one may still arrive while the next begins.
    transfers: Arc<tokio::sync::Mutex<()>>,
}

/// A snapshot that waits for its pieces.
struct Begun {
    header: Bytes,
    sink: SnapshotSink,
    turn: OwnedMutexGuard<()>,
}

impl Plane {
    pub(crate) fn new(control: Arc<Control>) -> Self {
        Self {
            control,
            begun: Mutex::default(),
            transfers: Arc::default(),
        }
    }
}

fn refused(error: RaftError) -> ApiError {
    match error {
        RaftError::Removed { node } => ApiError::Removed {
            what: format!("node {node} was removed from this cluster"),
        },
        RaftError::BadMessage(_) => ApiError::field(
            "message",
            error.to_string(),
            "let all managers run compatible releases",
        ),
        other => ApiError::unavailable(other.to_string(), "the sender tries again by itself"),
    }
}

#[async_trait]
impl PeerPlane for Plane {
    async fn call(&self, from: NodeId, kind: u32, message: Bytes) -> ApiResult<Bytes> {
        let kind = RpcKind::from_number(kind).ok_or_else(|| {
            ApiError::field(
                "kind",
                format!("{kind} is no message of this release"),
                "upgrade this manager",
            )
        })?;
        let served = self.control.raft.serve_from(from, kind, message).await;
        served.map_err(refused)
    }

    async fn snapshot_begin(&self, from: NodeId, header: Bytes) -> ApiResult<u64> {
        // Dropping an unfinished one keeps its bytes, which the new one then goes on from.
        self.begun().clear();
        let turn = Arc::clone(&self.transfers).lock_owned();
        let turn = tokio::time::timeout(TURN_LIMIT, turn).await.map_err(|_| {
            ApiError::unavailable(
                "another snapshot is being received",
                "the sender tries again by itself",
            )
        })?;
        let received = self.control.raft.receive_snapshot(from, header.clone());
        let sink = received.map_err(refused)?;
        let received = sink.received();
        let begun = Begun { header, sink, turn };
        self.begun().insert(from, begun);
        Ok(received)
    }

    async fn snapshot_send(
        &self,
        from: NodeId,
        header: Bytes,
        offset: u64,
        mut pieces: ApiStream<Bytes>,
    ) -> ApiResult<Bytes> {
        let begun = self.begun().remove(&from);
        let fits = |begun: &Begun| begun.header == header && begun.sink.received() == offset;
        let Some(Begun {
            mut sink,
            turn: _turn,
            ..
        }) = begun.filter(fits)
        else {
            return Err(ApiError::unavailable(
                "this part of the snapshot was not asked for",
                "begin the transfer again",
            ));
        };
        while let Some(piece) = pieces.next().await {
            let piece = piece?;
            sink = tokio::task::spawn_blocking(move || sink.add(&piece).map(|()| sink))
                .await
                .map_err(|e| ApiError::internal(e.to_string()))?
                .map_err(refused)?;
        }
        sink.finish().await.map_err(refused)
    }

    async fn read_index(&self, _from: NodeId) -> ApiResult<u64> {
        self.control.raft.read_index().await.map_err(|error| {
            let leader = match &error {
                ReadError::NotLeader { address, .. } if !address.is_empty() => {
                    Some(address.clone())
                }
                _ => None,
            };
            ApiError::NotTaken {
                what: error.to_string(),
                remedy: "ask the leader".to_owned(),
                leader,
            }
        })
    }

    async fn data_keys(
        &self,
        from: NodeId,
        offered: Vec<(u32, Vec<u8>)>,
    ) -> ApiResult<Vec<(u32, Vec<u8>)>> {
        let state = self.control.raft.state();
        if !state.node(from).is_some_and(|node| node.role.is_manager()) {
            return Err(ApiError::denied(
                format!("node {from} is no manager of this cluster"),
                "promote it first",
            ));
        }
        if !offered.is_empty() {
            let kept = self.control.keep_keys(offered);
            kept.map_err(|e| ApiError::internal(e.to_string()))?;
        }
        let keys = self.control.secrets.export();
        Ok(keys
            .iter()
            .map(|key| (key.epoch(), key.expose().to_vec()))
            .collect())
    }
}

impl Plane {
    fn begun(&self) -> std::sync::MutexGuard<'_, BTreeMap<NodeId, Begun>> {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
