//! openraft's view of the transport.

use crate::hashes::Hashes;
use crate::pulse::Pulse;
use crate::runtime::PATIENCE;
use crate::snapshots::{Snapshots, Stored};
use crate::transport::{RpcKind, SnapshotBody, Transport, TransportError};
use crate::types::{CommittedLeaderId, Member, Types, Vote};
use crate::wire::{Granted, SnapshotHeader, Transfer, Wire, append_message};
use bytes::Bytes;
use futures::future::{Either, select};
use futures::stream::{self, FuturesUnordered};
use futures::{Stream, StreamExt};
use openraft::OptionalSend;
use openraft::base::{BoxFuture, BoxStream};
use openraft::errors::{
    NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable,
};
use openraft::network::{
    RPCOption, RPCTypes, RaftNetworkFactory, RaftNetworkV2, stream_append_sequential,
};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendResult,
    TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::storage::Snapshot;
use prost::Message;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use warren_types::NodeId;

/// Heartbeat intervals that an append with entries may take, besides its bytes.
const APPEND_HEARTBEATS: u32 = 10;
/// The slowest line that is reckoned with, in bytes per millisecond.
const SLOWEST_LINE: u64 = 1024;
/// How long the news that entries are committed waits for the next entries, to go in one message with them.
const COMMIT_LINGER: Duration = Duration::from_millis(2);

/// Makes connections to other managers.
pub(crate) struct Network {
    pub(crate) id: NodeId,
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) snapshots: Arc<Snapshots>,
    pub(crate) pulse: Arc<Pulse>,
    pub(crate) hashes: Arc<Hashes>,
}

/// A connection to one manager.
pub(crate) struct Peer {
    id: NodeId,
    to: NodeId,
    member: Member,
    transport: Arc<dyn Transport>,
    snapshots: Arc<Snapshots>,
    pulse: Arc<Pulse>,
    hashes: Arc<Hashes>,
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
            pulse: Arc::clone(&self.pulse),
            hashes: Arc::clone(&self.hashes),
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

    /// Where the peer is now: addresses change, this connection may be older than the change.
    fn member(&self) -> Member {
        self.pulse
            .member(self.to)
            .unwrap_or_else(|| self.member.clone())
    }

    async fn call<A: Wire, B: Wire>(
        &self,
        kind: RpcKind,
        request: &A,
        deadline: Duration,
    ) -> RpcResult<B> {
        self.send(kind, request.encode().into(), deadline).await
    }

    async fn send<B: Wire>(
        &self,
        kind: RpcKind,
        request: Bytes,
        deadline: Duration,
    ) -> RpcResult<B> {
        let member = self.member();
        let answer = self
            .transport
            .call(self.to, &member, kind, request, deadline)
            .await;
        let action = match kind {
            RpcKind::Append | RpcKind::Probe => RPCTypes::AppendEntries,
            RpcKind::Vote | RpcKind::PreVote => RPCTypes::Vote,
            RpcKind::Transfer => RPCTypes::TransferLeader,
        };
        let bytes = answer.map_err(|error| match &error {
            TransportError::Unreachable { .. } => RPCError::Unreachable(Unreachable::new(&error)),
            TransportError::Timeout { after, .. } => {
                RPCError::Timeout(self.timeout(action, *after))
            }
            TransportError::Removed { .. } => {
                self.pulse.set_removed();
                RPCError::Unreachable(Unreachable::new(&error))
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

    /// A heartbeat is sent again every interval until one is answered, so that the follower hears its leader at the
    /// usual pace although answers take longer than an interval or some are lost. That is safe: it carries no entries,
    /// and openraft dates the answer back to the first sending.
    async fn beat<B: Wire>(&self, request: Bytes) -> RpcResult<B> {
        let every = self.pulse.profile.heartbeat();
        let begin = Instant::now();
        let mut again = begin + every;
        let mut calls = FuturesUnordered::new();
        calls.push(self.send(RpcKind::Append, request.clone(), every * PATIENCE));
        loop {
            tokio::select! {
                biased;
                Some(answer) = calls.next() => {
                    if answer.is_ok() && begin.elapsed() > every {
                        // The next heartbeat was dated while this one was on its way. It is replaced by a fresh one,
                        // else on a slow line the lease would be over before its renewal arrives.
                        self.pulse.beat.notify_one();
                        tokio::time::sleep(every / 20).await;
                    }
                    if answer.is_ok() || calls.is_empty() {
                        return answer;
                    }
                }
                () = tokio::time::sleep_until(again), if again < begin + every * PATIENCE => {
                    again += every;
                    calls.push(self.send(RpcKind::Append, request.clone(), every * PATIENCE));
                }
            }
        }
    }
}

/// Requests of which none carries nothing but news of a commit while the next one can carry it too. Without this every
/// write would cost each follower two messages, and the next write would wait for the second.
fn merged(
    requests: impl Stream<Item = AppendEntriesRequest<Types>> + Send + Unpin + 'static,
) -> impl Stream<Item = AppendEntriesRequest<Types>> + Send + 'static {
    stream::unfold(requests.fuse(), |mut requests| async move {
        let mut request = requests.next().await?;
        if request.entries.is_empty() {
            let later = tokio::time::sleep(COMMIT_LINGER);
            tokio::pin!(later);
            while request.entries.is_empty() {
                tokio::select! {
                    biased;
                    next = requests.next() => match next {
                        Some(next) => request = next,
                        // A heartbeat or a probe, which nothing follows.
                        None => break,
                    },
                    () = &mut later => break,
                }
            }
        }
        Some((request, requests))
    })
}

impl RaftNetworkV2<Types> for Peer {
    type SnapshotData = Stored;

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> BoxFuture<'s, RpcResult<BoxStream<'s, RpcResult<StreamAppendResult<Types>>>>>
    where
        S: Stream<Item = AppendEntriesRequest<Types>> + OptionalSend + Unpin + 'static,
    {
        stream_append_sequential(self, Box::pin(merged(input)), option)
    }

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types>,
        _: RPCOption,
    ) -> RpcResult<AppendEntriesResponse<Types>> {
        let request = Bytes::from(append_message(&rpc, self.hashes.latest()).encode_to_vec());
        let granted: Granted = if rpc.entries.is_empty() {
            self.beat(request).await?
        } else {
            let bytes = request.len() as u64;
            let deadline = self.pulse.profile.heartbeat() * APPEND_HEARTBEATS
                + Duration::from_millis(bytes / SLOWEST_LINE);
            self.send(RpcKind::Append, request, deadline).await?
        };
        let term = rpc.vote.leader_id.term;
        self.pulse.granted(term, self.to, granted.lease_ms);
        Ok(granted.answer)
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<Types>,
        option: RPCOption,
    ) -> RpcResult<VoteResponse<Types>> {
        let deadline = option.hard_ttl() * PATIENCE;
        self.call(RpcKind::Vote, &rpc, deadline).await
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<Types>,
        option: RPCOption,
    ) -> RpcResult<VoteResponse<Types>> {
        let deadline = option.hard_ttl() * PATIENCE;
        self.call(RpcKind::PreVote, &rpc, deadline).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot<CommittedLeaderId, NodeId, Member, Stored>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let seal = self
            .snapshots
            .seal(&snapshot.snapshot)
            .map_err(|error| StreamingError::Network(NetworkError::new(&error)))?;
        let header = SnapshotHeader {
            vote,
            meta: snapshot.meta,
            seal,
        };
        let body = self
            .snapshots
            .read(&snapshot.snapshot)
            .map_err(|error| StreamingError::Network(NetworkError::new(&error)))?;
        let member = self.member();
        let send = self.transport.send_snapshot(
            self.to,
            &member,
            header.encode().into(),
            SnapshotBody::new(body),
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
            TransportError::Removed { .. } => {
                self.pulse.set_removed();
                StreamingError::Unreachable(Unreachable::new(&error))
            }
            TransportError::Refused { .. } => StreamingError::Network(NetworkError::new(&error)),
        })?;
        self.pulse.granted_nothing(vote.leader_id.term, self.to);
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
        let accepted: TransferAnswer = self
            .call(RpcKind::Transfer, &transfer, option.hard_ttl() * PATIENCE)
            .await?;
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
