//! What concerns other managers: who they are, and their messages.

use crate::error::RaftError;
use crate::handle::{RaftHandle, target};
use crate::network::TransferAnswer;
use crate::snapshots::Stored;
use crate::transport::RpcKind;
use crate::types::{Member, Types};
use crate::wire::{SnapshotHeader, Transfer, Wire};
use bytes::Bytes;
use openraft::ChangeMembers;
use openraft::errors::{ClientWriteError, RaftError as EngineError};
use openraft::raft::{AppendEntriesRequest, TransferLeaderRequest, VoteRequest};
use std::collections::BTreeSet;
use warren_storage::SnapshotWriter;
use warren_types::NodeId;

impl RaftHandle {
    /// Adds a manager that receives the log but has no vote yet. Returns when that is durable; it may lag still.
    pub async fn add_learner(&self, id: NodeId, member: Member) -> Result<(), RaftError> {
        let added = self.inner.engine.add_learner(id, member, false).await;
        added
            .map(drop)
            .map_err(|error| self.membership_error(error))
    }

    /// Makes exactly these managers the voters; each must be a learner or voter already. Others lose their vote and,
    /// unless `keep_others`, their membership.
    pub async fn set_voters(
        &self,
        voters: BTreeSet<NodeId>,
        keep_others: bool,
    ) -> Result<(), RaftError> {
        let changed = self
            .inner
            .engine
            .change_membership(ChangeMembers::ReplaceAllVoters(voters), keep_others)
            .await;
        changed
            .map(drop)
            .map_err(|error| self.membership_error(error))
    }

    /// Asks another voter to take over leadership.
    pub async fn transfer_leadership(&self, to: NodeId) -> Result<(), RaftError> {
        self.inner
            .engine
            .trigger()
            .transfer_leader(to)
            .await
            .map_err(|_| self.stopped())
    }

    /// Serves a message of another manager; the caller has checked who it is.
    pub async fn serve(&self, kind: RpcKind, request: Bytes) -> Result<Bytes, RaftError> {
        let bad = |_| RaftError::BadMessage(kind.name());
        let engine = &self.inner.engine;
        let answer = match kind {
            RpcKind::Append => {
                let request = AppendEntriesRequest::decode(request).map_err(bad)?;
                engine
                    .append_entries(request)
                    .await
                    .map_err(|_| self.stopped())?
                    .encode()
            }
            RpcKind::Vote => engine
                .vote(VoteRequest::decode(request).map_err(bad)?)
                .await
                .map_err(|_| self.stopped())?
                .encode(),
            RpcKind::PreVote => engine
                .pre_vote(VoteRequest::decode(request).map_err(bad)?)
                .await
                .map_err(|_| self.stopped())?
                .encode(),
            RpcKind::Transfer => {
                let transfer = Transfer::decode(request).map_err(bad)?;
                let request = TransferLeaderRequest::new(transfer.from, transfer.to, transfer.last);
                let answer = engine
                    .handle_transfer_leader(request)
                    .await
                    .map_err(|_| self.stopped())?;
                TransferAnswer(answer.err().map(|error| error.to_string())).encode()
            }
        };
        Ok(answer.into())
    }

    /// Begins to receive a snapshot of another manager; the caller has checked who it is.
    pub fn receive_snapshot(&self, header: Bytes) -> Result<SnapshotSink, RaftError> {
        let header =
            SnapshotHeader::decode(header).map_err(|_| RaftError::BadMessage("snapshot"))?;
        let writer = self.inner.snapshots.begin(&header.meta)?;
        Ok(SnapshotSink {
            handle: self.clone(),
            header,
            writer,
        })
    }

    fn membership_error(&self, error: EngineError<Types, ClientWriteError<Types>>) -> RaftError {
        match error {
            EngineError::APIError(ClientWriteError::ForwardToLeader(forward)) => {
                let (leader, address) = target(forward);
                RaftError::NotLeader { leader, address }
            }
            EngineError::APIError(other) => RaftError::Membership(other.to_string()),
            EngineError::Fatal(_) => self.stopped(),
        }
    }
}

/// A snapshot that is being received.
#[derive(Debug)]
pub struct SnapshotSink {
    handle: RaftHandle,
    header: SnapshotHeader,
    writer: SnapshotWriter,
}

impl SnapshotSink {
    /// Stores the next bytes.
    pub fn add(&mut self, bytes: &[u8]) -> Result<(), RaftError> {
        Ok(self.writer.add(bytes)?)
    }

    /// All bytes are there: makes them durable, replaces the state, and gives the answer for the sender.
    pub async fn finish(self) -> Result<Bytes, RaftError> {
        let info = self.writer.finish()?;
        let stored = Stored {
            meta: self.header.meta.clone(),
            info,
        };
        let snapshot = openraft::Snapshot {
            meta: self.header.meta,
            snapshot: stored,
        };
        let response = self
            .handle
            .inner
            .engine
            .install_full_snapshot(self.header.vote, snapshot)
            .await;
        Ok(response.map_err(|_| self.handle.stopped())?.encode().into())
    }
}
