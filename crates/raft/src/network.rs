//! openraft's view of the transport.

use crate::snapshots::{Snapshots, Stored};
use crate::transport::{RpcKind, SnapshotBody, Transport, TransportError};
use crate::types::{CommittedLeaderId, Member, Types, Vote};
use crate::wire::{SnapshotHeader, Transfer, Wire};
use futures::future::{Either, select};
use openraft::OptionalSend;
use openraft::errors::{
    NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable,
};
use openraft::network::{RPCOption, RPCTypes, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::storage::Snapshot;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use warren_types::NodeId;

/// Makes connections to other managers.
pub(crate) struct Network {
    pub(crate) id: NodeId,
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) snapshots: Arc<Snapshots>,
}

/// A connection to one manager.
pub(crate) struct Peer {
    id: NodeId,
    to: NodeId,
    member: Member,
    transport: Arc<dyn Transport>,
    snapshots: Arc<Snapshots>,
}

impl RaftNetworkFactory<Types> for Network {
    type Network = Peer;

    async fn new_client(&mut self, target: NodeId, node: &Member) -> Peer {
        Peer {
            id: self.id,
            to: target,
            member: node.clone(),
            transport: Arc::clone(&self.transport),
            snapshots: Arc::clone(&self.snapshots),
        }
    }
}

type RpcResult<T> = Result<T, RPCError<Types>>;

impl Peer {
    fn timeout(&self, action: RPCTypes, after: std::time::Duration) -> Timeout<Types> {
        Timeout {
            action,
            id: self.id,
            target: self.to,
            timeout: after,
        }
    }

    async fn call<A: Wire, B: Wire>(
        &self,
        kind: RpcKind,
        request: &A,
        option: &RPCOption,
    ) -> RpcResult<B> {
        let answer = self
            .transport
            .call(
                self.to,
                &self.member,
                kind,
                request.encode().into(),
                option.hard_ttl(),
            )
            .await;
        let action = match kind {
            RpcKind::Append => RPCTypes::AppendEntries,
            RpcKind::Vote | RpcKind::PreVote => RPCTypes::Vote,
            RpcKind::Transfer => RPCTypes::TransferLeader,
        };
        let bytes = answer.map_err(|error| match &error {
            TransportError::Unreachable { .. } => RPCError::Unreachable(Unreachable::new(&error)),
            TransportError::Timeout { after, .. } => {
                RPCError::Timeout(self.timeout(action, *after))
            }
            TransportError::Refused { .. } => RPCError::Network(NetworkError::new(&error)),
        })?;
        B::decode(bytes).map_err(|_| {
            RPCError::Network(NetworkError::from_string(format!(
                "malformed answer to {}",
                kind.name()
            )))
        })
    }
}

impl RaftNetworkV2<Types> for Peer {
    type SnapshotData = Stored;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> RpcResult<AppendEntriesResponse<Types>> {
        self.call(RpcKind::Append, &rpc, &option).await
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<Types>,
        option: RPCOption,
    ) -> RpcResult<VoteResponse<Types>> {
        self.call(RpcKind::Vote, &rpc, &option).await
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<Types>,
        option: RPCOption,
    ) -> RpcResult<VoteResponse<Types>> {
        self.call(RpcKind::PreVote, &rpc, &option).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot<CommittedLeaderId, NodeId, Member, Stored>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let header = SnapshotHeader {
            vote,
            meta: snapshot.meta,
        };
        let body = self
            .snapshots
            .read(&snapshot.snapshot)
            .map_err(|error| StreamingError::Network(NetworkError::new(&error)))?;
        let send = self.transport.send_snapshot(
            self.to,
            &self.member,
            header.encode().into(),
            SnapshotBody(Box::new(body)),
            option.hard_ttl(),
        );
        let answer = match select(send, pin!(cancel)).await {
            Either::Left((answer, _)) => answer,
            Either::Right((closed, _)) => return Err(closed.into()),
        };
        let bytes = answer.map_err(|error| match &error {
            TransportError::Unreachable { .. } => {
                StreamingError::Unreachable(Unreachable::new(&error))
            }
            TransportError::Timeout { after, .. } => {
                StreamingError::Timeout(self.timeout(RPCTypes::InstallSnapshot, *after))
            }
            TransportError::Refused { .. } => StreamingError::Network(NetworkError::new(&error)),
        })?;
        SnapshotResponse::decode(bytes).map_err(|_| {
            StreamingError::Network(NetworkError::from_string("malformed answer to a snapshot"))
        })
    }

    async fn transfer_leader(
        &mut self,
        req: TransferLeaderRequest<Types>,
        option: RPCOption,
    ) -> RpcResult<TransferLeaderResponse<Types>> {
        let transfer = Transfer {
            from: *req.from_leader(),
            to: *req.to_node_id(),
            last: req.last_log_id().copied(),
        };
        let accepted: TransferAnswer = self.call(RpcKind::Transfer, &transfer, &option).await?;
        match accepted.0 {
            None => Ok(Ok(())),
            Some(reason) => Err(RPCError::Network(NetworkError::from_string(reason))),
        }
    }
}

/// The answer to a transfer: nothing, or why not.
pub(crate) struct TransferAnswer(pub(crate) Option<String>);

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct TransferAnswerMessage {
    #[prost(string, optional, tag = "1")]
    refused: Option<String>,
}

impl Wire for TransferAnswer {
    type Message = TransferAnswerMessage;

    fn to_message(&self) -> TransferAnswerMessage {
        TransferAnswerMessage {
            refused: self.0.clone(),
        }
    }

    fn from_message(message: TransferAnswerMessage) -> Result<Self, crate::wire::Malformed> {
        Ok(Self(message.refused))
    }
}
