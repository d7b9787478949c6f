//! Messages of other managers.

use crate::config::IoMode;
use crate::error::RaftError;
use crate::handle::RaftHandle;
use crate::healing::Testimony;
use crate::network::TransferAnswer;
use crate::snapshots::Stored;
use crate::transport::RpcKind;
use crate::types::{LogId, Types};
use crate::wire::{Granted, HashMessage, SnapshotHeader, Transfer, Wire, read_append};
use bytes::Bytes;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::raft::{AppendEntriesResponse, TransferLeaderRequest, VoteRequest};
use warren_storage::SnapshotWriter;
use warren_types::NodeId;

impl RaftHandle {
    /// Serves a message of manager `from`; the caller has checked that it is a manager, and this one. A sender that was
    /// removed is told so ([`RaftError::Removed`]); the transport carries that back as
    /// [`crate::TransportError::Removed`].
    pub async fn serve_from(
        &self,
        from: NodeId,
        kind: RpcKind,
        request: Bytes,
    ) -> Result<Bytes, RaftError> {
        let bad = |_| RaftError::BadMessage(kind.name());
        let engine = &self.inner.engine;
        let answer = match kind {
            RpcKind::Append => {
                let (request, theirs) = read_append(request).map_err(bad)?;
                self.trust(request.vote.leader_id.term)?;
                let answer = engine.append_entries(request).await;
                let answer = answer.map_err(|_| self.stopped())?;
                if !matches!(answer, AppendEntriesResponse::HigherVote(_)) {
                    self.inner.pulse.heard();
                    if let Some(theirs) = theirs {
                        self.compare(&theirs)?;
                    }
                }
                let lease_ms = Some(self.inner.pulse.profile.lease_ms());
                Granted { answer, lease_ms }.encode()
            }
            RpcKind::Vote => {
                let request = self.ballot(from, VoteRequest::decode(request).map_err(bad)?)?;
                self.hold_back(request.leadership_transfer).await;
                let answer = engine.vote(request).await;
                answer.map_err(|_| self.stopped())?.encode()
            }
            RpcKind::PreVote => {
                let request = self.ballot(from, VoteRequest::decode(request).map_err(bad)?)?;
                self.hold_back(false).await;
                self.inner.pulse.asked();
                let answer = engine.pre_vote(request).await;
                answer.map_err(|_| self.stopped())?.encode()
            }
            RpcKind::Transfer => {
                let transfer = Transfer::decode(request).map_err(bad)?;
                if self.inner.pulse.is_healing() {
                    return Err(RaftError::Healing);
                }
                let request = TransferLeaderRequest::new(transfer.from, transfer.to, transfer.last);
                let answer = engine.handle_transfer_leader(request).await;
                let answer = answer.map_err(|_| self.stopped())?;
                TransferAnswer(answer.err().map(|error| error.to_string())).encode()
            }
            RpcKind::Probe => {
                // An answer of the engine means that the metrics are as new as the question.
                self.is_initialized().await?;
                Testimony::of(engine, &self.inner.pulse).encode()
            }
        };
        Ok(answer.into())
    }

    /// Compares this node's state with the leader's, and stops when they differ.
    fn compare(&self, theirs: &HashMessage) -> Result<(), RaftError> {
        let Err(diverged) = self.inner.hashes.compare(theirs.index, theirs.hash) else {
            return Ok(());
        };
        tracing::error!("{diverged}");
        self.inner.view.fail(&diverged.to_string());
        let handle = self.clone();
        crate::runtime::spawn(async move { handle.shutdown().await });
        Err(self.stopped())
    }

    /// Checks a request for a vote.
    fn ballot(
        &self,
        from: NodeId,
        request: VoteRequest<Types>,
    ) -> Result<VoteRequest<Types>, RaftError> {
        if self.inner.pulse.is_healing() {
            return Err(RaftError::Healing);
        }
        let admitted = self.admit(from, request.last_log_id.as_ref());
        #[cfg(any(test, feature = "testing"))]
        if self.inner.bugs.removed_elected && admitted.is_err() {
            return Ok(crate::testing::with_longest_log(request));
        }
        admitted.map(|()| request)
    }

    /// A node that was restarted may have promised its leader a moment ago not to vote for anybody else for a lease, and
    /// openraft does not remember that: requests wait until the promise is over. An election that the leader itself
    /// asked for need not.
    async fn hold_back(&self, asked_by_the_leader: bool) {
        if !asked_by_the_leader {
            tokio::time::sleep_until(self.inner.pulse.hold_until).await;
        }
    }

    /// While healing, only leaders of a term that counts may write here.
    fn trust(&self, term: u64) -> Result<(), RaftError> {
        if self.inner.pulse.trusts(term) {
            Ok(())
        } else {
            Err(RaftError::Healing)
        }
    }

    /// Refuses candidates who were removed, and tells them. Not being in the members known here is not enough: this node
    /// may be the one that is behind. So the candidate's log must not reach beyond the entry that made those
    /// members: then it cannot have been added later. All others are judged by the rules of Raft: term, log and lease. (A
    /// removed leader is not refused here: it hears of the newer term, steps down, and asks for votes then.)
    fn admit(&self, from: NodeId, last: Option<&LogId>) -> Result<(), RaftError> {
        let metrics = self.inner.figures.borrow_watched();
        let committed = &metrics.committed_membership_config;
        let members = committed.membership();
        let effective = metrics.membership_config.membership();
        if effective.nodes().next().is_none() {
            // One that knows no members has nothing to lose at the birth of a cluster. Later it is one whose data are
            // gone, or that has only just been added: it must not help anybody to lead who may lack what others have.
            #[cfg(any(test, feature = "testing"))]
            if self.inner.bugs.healing_votes {
                return Ok(());
            }
            return match last {
                Some(last) if last.index > 0 => Err(RaftError::Healing),
                _ => Ok(()),
            };
        }
        let known = members.get_node(&from).is_some() || effective.get_node(&from).is_some();
        let outdated = members.nodes().next().is_some() && last <= committed.log_id().as_ref();
        if outdated && !known {
            Err(RaftError::Removed { node: from })
        } else {
            Ok(())
        }
    }

    /// Begins to receive a snapshot of manager `from`, or goes on where the same one was broken off; the caller has
    /// checked who it is.
    pub fn receive_snapshot(&self, from: NodeId, header: Bytes) -> Result<SnapshotSink, RaftError> {
        let header =
            SnapshotHeader::decode(header).map_err(|_| RaftError::BadMessage("snapshot"))?;
        tracing::debug!(%from, "a snapshot comes");
        self.trust(header.vote.leader_id.term)?;
        let partial = self.inner.partial().take();
        let writer = match partial {
            Some((of, writer)) if of == header => writer,
            _ => self.inner.snapshots.begin(&header.meta)?,
        };
        Ok(SnapshotSink {
            handle: self.clone(),
            header,
            writer: Some(writer),
        })
    }
}

/// A snapshot that is being received. Dropped before [`SnapshotSink::finish`], what has come is kept for another
/// attempt with the same header.
#[derive(Debug)]
pub struct SnapshotSink {
    handle: RaftHandle,
    header: SnapshotHeader,
    /// None only after the end.
    writer: Option<SnapshotWriter>,
}

impl SnapshotSink {
    /// How many bytes of the snapshot are here already: the sender goes on behind them.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.writer.as_ref().map_or(0, SnapshotWriter::total)
    }

    /// Stores the next bytes.
    pub fn add(&mut self, bytes: &[u8]) -> Result<(), RaftError> {
        let result = match &mut self.writer {
            Some(writer) => writer.add(bytes),
            None => Ok(()),
        };
        if result.is_err() {
            // Nobody knows what was written: it is not gone on with.
            self.writer = None;
        }
        self.handle.inner.pulse.heard();
        Ok(result?)
    }

    /// All bytes are there: makes them durable, replaces the state, and gives the answer for the sender.
    pub async fn finish(mut self) -> Result<Bytes, RaftError> {
        let Some(writer) = self.writer.take() else {
            return Err(RaftError::BadMessage("snapshot"));
        };
        if writer.total() < self.header.seal.total {
            // The stream ended early: gone on with later.
            self.writer = Some(writer);
            return Err(RaftError::BadMessage("snapshot"));
        }
        let seal = self.header.seal;
        let info = match self.handle.inner.io {
            IoMode::Task => writer.finish_as(seal)?,
            // Syncing much takes long; heartbeats are to go on meanwhile.
            IoMode::Thread => tokio::task::spawn_blocking(move || writer.finish_as(seal))
                .await
                .map_err(|_| self.handle.stopped())??,
        };
        #[cfg(any(test, feature = "testing"))]
        self.handle.inner.log.shared.lab.stored(&self.header.meta);
        let stored = Stored {
            meta: self.header.meta.clone(),
            info,
        };
        let snapshot = openraft::Snapshot {
            meta: self.header.meta.clone(),
            snapshot: stored,
        };
        let inner = &self.handle.inner;
        let response = inner
            .engine
            .install_full_snapshot(self.header.vote, snapshot)
            .await
            .map_err(|_| self.handle.stopped())?;
        if response.vote == self.header.vote {
            inner.pulse.heard();
        }
        Ok(response.encode().into())
    }
}

impl Drop for SnapshotSink {
    fn drop(&mut self) {
        if let Some(writer) = self.writer.take() {
            *self.handle.inner.partial() = Some((self.header.clone(), writer));
        }
    }
}
