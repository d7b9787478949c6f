//! Calls of other managers: size and order are checked here, the rest is the manager's.

use super::Handlers;
use crate::caller::Caller;
use crate::control::{ApiResult, ApiStream};
use crate::error::ApiError;
use crate::generated::peer::peer_server::Peer;
use crate::quorum::PeerPlane;
use bytes::Bytes;
use futures::stream::{self, StreamExt as _};
use std::sync::Arc;
use tonic::{Request, Response, Status, Streaming};
use warren_proto::headers::SNAPSHOT_PIECE_BYTES_MAX;
use warren_proto::peer;
use warren_types::NodeId;

/// Longest description of a snapshot, in bytes.
const SNAPSHOT_HEADER_BYTES_MAX: usize = 64 * 1024;

impl Handlers {
    fn plane(&self) -> ApiResult<&Arc<dyn PeerPlane>> {
        self.peers.as_ref().ok_or(ApiError::Unimplemented {
            what: "the service between managers",
            remedy: "this node is not a manager; see `warren node list` for those that are",
        })
    }
}

/// The node that calls; the table lets nobody but managers in, and their certificates name their nodes.
fn from<T>(request: &Request<T>) -> ApiResult<NodeId> {
    request
        .extensions()
        .get::<Caller>()
        .and_then(|caller| caller.node)
        .ok_or_else(|| ApiError::internal("a manager without a node"))
}

#[tonic::async_trait]
impl Peer for Handlers {
    async fn call(
        &self,
        request: Request<peer::CallRequest>,
    ) -> Result<Response<peer::CallResponse>, Status> {
        let (plane, from) = (self.plane()?, from(&request)?);
        let call = request.into_inner();
        let message = plane.call(from, call.kind, call.message.into()).await?;
        Ok(Response::new(peer::CallResponse {
            message: message.into(),
        }))
    }

    async fn snapshot_begin(
        &self,
        request: Request<peer::SnapshotBeginRequest>,
    ) -> Result<Response<peer::SnapshotBeginResponse>, Status> {
        let (plane, from) = (self.plane()?, from(&request)?);
        let header = snapshot_header(request.into_inner().header)?;
        let have_bytes = plane.snapshot_begin(from, header).await?;
        Ok(Response::new(peer::SnapshotBeginResponse { have_bytes }))
    }

    async fn snapshot_send(
        &self,
        request: Request<Streaming<peer::SnapshotChunk>>,
    ) -> Result<Response<peer::SnapshotSendResponse>, Status> {
        let (plane, from) = (self.plane()?, from(&request)?);
        let mut chunks = request.into_inner();
        let mut first = chunks.message().await?.ok_or_else(broken)?;
        let header = snapshot_header(std::mem::take(&mut first.header))?;
        let offset = first.offset;
        let pieces = pieces(first, chunks);
        let message = plane.snapshot_send(from, header, offset, pieces).await?;
        Ok(Response::new(peer::SnapshotSendResponse {
            message: message.into(),
        }))
    }

    async fn read_index(
        &self,
        request: Request<peer::ReadIndexRequest>,
    ) -> Result<Response<peer::ReadIndexResponse>, Status> {
        let index = self.plane()?.read_index(from(&request)?).await?;
        Ok(Response::new(peer::ReadIndexResponse { index }))
    }

    async fn data_keys(
        &self,
        request: Request<peer::DataKeysRequest>,
    ) -> Result<Response<peer::DataKeysResponse>, Status> {
        let caller = super::caller_of(request.extensions())?;
        let from = from(&request);
        let offered = request.into_inner().offered;
        let result = match (self.plane(), from) {
            (Ok(plane), Ok(from)) => {
                let offered = offered.into_iter().map(|k| (k.epoch, k.key)).collect();
                plane.data_keys(from, offered).await
            }
            (Err(error), _) | (_, Err(error)) => Err(error),
        };
        // Nothing changes, but who was given the keys of all secrets is worth a record.
        super::audit("DataKeys", &caller, "", &result);
        let keys = result?
            .into_iter()
            .map(|(epoch, key)| peer::DataKeyMaterial { epoch, key })
            .collect();
        Ok(Response::new(peer::DataKeysResponse { keys }))
    }
}

fn snapshot_header(header: Vec<u8>) -> ApiResult<Bytes> {
    if header.is_empty() || header.len() > SNAPSHOT_HEADER_BYTES_MAX {
        return Err(ApiError::field(
            "header",
            format!("has {} bytes", header.len()),
            format!("1 to {SNAPSHOT_HEADER_BYTES_MAX} are allowed, in the first message"),
        ));
    }
    Ok(header.into())
}

/// The other manager went away, or sent something that cannot follow what came before.
fn broken() -> ApiError {
    ApiError::unavailable(
        "the transfer of a snapshot ended before its end",
        "send it again; what has arrived is kept",
    )
}

/// The data of the chunks, each checked to follow the one before; an error when the stream ends without saying so.
fn pieces(first: peer::SnapshotChunk, chunks: Streaming<peer::SnapshotChunk>) -> ApiStream<Bytes> {
    let expected = first.offset;
    let chunks = stream::once(async move { Ok(first) }).chain(chunks);
    stream::unfold(Some((chunks.boxed(), expected)), |state| async move {
        let (mut chunks, expected) = state?;
        let chunk = match chunks.next().await {
            Some(Ok(chunk)) => chunk,
            Some(Err(_)) | None => return Some((Err(broken()), None)),
        };
        if chunk.offset != expected || chunk.data.len() > SNAPSHOT_PIECE_BYTES_MAX {
            let wrong = ApiError::field(
                "offset",
                format!("{} bytes at {}", chunk.data.len(), chunk.offset),
                format!("at most {SNAPSHOT_PIECE_BYTES_MAX} at {expected} can follow"),
            );
            return Some((Err(wrong), None));
        }
        let next = expected + chunk.data.len() as u64;
        let rest = (!chunk.last).then_some((chunks, next));
        Some((Ok(chunk.data.into()), rest))
    })
    .boxed()
}
