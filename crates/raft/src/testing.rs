//! What tests see of the engine, and bugs that they plant in it.

pub use crate::gate::{Gate, Gated};
use crate::types::{Entry, LogId, Membership, Payload, SnapshotMeta, Vote};
use crate::wire::Wire;
use bytes::Bytes;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, VoteRequest, VoteResponse};
use std::collections::BTreeSet;
use std::fmt::Debug;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use warren_state::ClusterState;
use warren_types::NodeId;

/// Term and index of a log entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryId {
    /// Term.
    pub term: u64,
    /// Index.
    pub index: u64,
}

/// A log entry as tests see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryInfo {
    /// Its place.
    pub id: EntryId,
    /// Hash of its content.
    pub content: u64,
    /// The encoded command, when it is one.
    pub command: Option<Bytes>,
    /// The sets of voters (two while they change), when it is a membership.
    pub voters: Option<Vec<BTreeSet<NodeId>>>,
}

/// A vote as it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VoteInfo {
    /// Term.
    pub term: u64,
    /// For whom.
    pub node: NodeId,
    /// Whether that node is known to lead in that term.
    pub committed: bool,
}

/// Is told what happens inside the engine, at once and in order. Must not call the engine.
pub trait Observer: Send + Sync + Debug {
    /// The engine starts with this log, and with this snapshot if there is one. `healing`: it fetches everything anew,
    /// because its files were damaged and set aside now or in an earlier life.
    fn started(
        &self,
        healing: bool,
        purged: Option<EntryId>,
        log: &[EntryInfo],
        vote: Option<VoteInfo>,
        snapshot: Option<(EntryId, &ClusterState)>,
    );
    /// Entries were added to the end of the log; they are not durable yet.
    fn appended(&self, entries: &[EntryInfo]);
    /// The log was cut: entries from this index on are no longer in it.
    fn cut(&self, from: u64);
    /// The log was purged up to this entry.
    fn purged(&self, upto: EntryId);
    /// All entries before this index are reported as durable.
    fn flushed(&self, next: u64);
    /// A vote is to be stored; it is not durable yet.
    fn voted(&self, vote: VoteInfo);
    /// An entry was applied; the state after it.
    fn applied(&self, entry: &EntryInfo, state: &ClusterState);
    /// A snapshot up to this entry is complete and durable.
    fn stored(&self, last: EntryId);
    /// A snapshot replaced the state.
    fn installed(&self, last: EntryId, state: &ClusterState);
}

/// What tests put into the engine.
#[derive(Debug, Clone, Default)]
pub(crate) struct Lab {
    pub(crate) bugs: crate::Bugs,
    pub(crate) observer: Option<Arc<dyn Observer>>,
    pub(crate) slow_disk_ms: Arc<AtomicU64>,
}

impl Lab {
    pub(crate) async fn slow(&self) {
        let ms = self.slow_disk_ms.load(Ordering::Relaxed);
        if ms > 0 {
            tokio::time::sleep(Duration::from_millis(ms)).await;
        }
    }

    pub(crate) fn appended(&self, entries: &[EntryInfo]) {
        if let Some(observer) = &self.observer {
            observer.appended(entries);
        }
    }

    pub(crate) fn cut(&self, from: u64) {
        if let Some(observer) = &self.observer {
            observer.cut(from);
        }
    }

    pub(crate) fn purged(&self, upto: &LogId) {
        if let Some(observer) = &self.observer {
            observer.purged(entry_id(upto));
        }
    }

    pub(crate) fn flushed(&self, next: u64) {
        if let Some(observer) = &self.observer {
            observer.flushed(next);
        }
    }

    pub(crate) fn voted(&self, vote: &Vote) {
        if let Some(observer) = &self.observer {
            observer.voted(vote_info(vote));
        }
    }

    pub(crate) fn applied(&self, entry: &Entry, state: &ClusterState) {
        if let Some(observer) = &self.observer {
            observer.applied(&entry_info(entry), state);
        }
    }

    pub(crate) fn stored(&self, meta: &SnapshotMeta) {
        if let (Some(observer), Some(last)) = (&self.observer, &meta.last_log_id) {
            observer.stored(entry_id(last));
        }
    }

    pub(crate) fn installed(&self, meta: &SnapshotMeta, state: &ClusterState) {
        if let (Some(observer), Some(last)) = (&self.observer, &meta.last_log_id) {
            observer.installed(entry_id(last), state);
        }
    }

    /// What the machine believes to have applied when it starts from a snapshot.
    pub(crate) fn start_meta(&self, mut meta: SnapshotMeta) -> SnapshotMeta {
        if self.bugs.snapshot_applied_again
            && let Some(last) = meta.last_log_id.as_mut().filter(|last| last.index > 0)
        {
            last.index -= 1;
        }
        meta
    }
}

pub(crate) fn entry_id(id: &LogId) -> EntryId {
    EntryId {
        term: id.leader_id.term,
        index: id.index,
    }
}

fn voter_sets(membership: &Membership) -> Vec<BTreeSet<NodeId>> {
    membership.get_joint_config().clone()
}

pub(crate) fn entry_info(entry: &Entry) -> EntryInfo {
    let mut hasher = DefaultHasher::new();
    entry.encode().hash(&mut hasher);
    let (command, voters) = match &entry.payload {
        Payload::Blank => (None, None),
        Payload::Normal(command) => (Some(command.bytes.clone()), None),
        Payload::Membership(membership) => (None, Some(voter_sets(membership))),
    };
    EntryInfo {
        id: entry_id(&entry.log_id),
        content: hasher.finish(),
        command,
        voters,
    }
}

pub(crate) fn vote_info(vote: &Vote) -> VoteInfo {
    VoteInfo {
        term: vote.leader_id.term,
        node: vote.leader_id.voted_for,
        committed: vote.committed,
    }
}

type Append = AppendEntriesRequest<crate::types::Types>;
type AppendAnswer = AppendEntriesResponse<crate::types::Types>;
type VoteAsked = VoteRequest<crate::types::Types>;
type VoteAnswer = VoteResponse<crate::types::Types>;

/// What an append says: the leader's vote, and the entries that it carries.
#[must_use]
pub fn peek_append(request: &Bytes) -> Option<(VoteInfo, Vec<EntryId>)> {
    let request = Append::decode(request.clone()).ok()?;
    let entries = request.entries.iter().map(|entry| entry_id(&entry.log_id));
    Some((vote_info(&request.vote), entries.collect()))
}

/// What a request for a vote says.
#[must_use]
pub fn peek_vote(request: &Bytes) -> Option<VoteInfo> {
    Some(vote_info(&VoteAsked::decode(request.clone()).ok()?.vote))
}

/// Whether a vote was granted.
#[must_use]
pub fn is_granted(answer: &Bytes) -> bool {
    VoteAnswer::decode(answer.clone()).is_ok_and(|answer| answer.vote_granted)
}

/// The answer to an append that was taken.
#[must_use]
pub fn append_success() -> Bytes {
    AppendAnswer::Success.encode().into()
}

/// The planted bug: the request claims that all of its entries are committed.
#[must_use]
pub fn commit_on_receipt(request: &Bytes) -> Bytes {
    let Ok(mut append) = Append::decode(request.clone()) else {
        return request.clone();
    };
    if let Some(last) = append.entries.last() {
        append.leader_commit = Some(last.log_id);
    }
    append.encode().into()
}

/// The planted bug: the candidate claims to have the longest log.
#[must_use]
pub fn longest_log(request: &Bytes) -> Bytes {
    let Ok(vote) = VoteAsked::decode(request.clone()) else {
        return request.clone();
    };
    with_longest_log(vote).encode().into()
}

pub(crate) fn with_longest_log(mut vote: VoteAsked) -> VoteAsked {
    vote.last_log_id = Some(crate::types::log_id(u64::MAX / 2, u64::MAX / 2));
    vote
}

/// The planted bug: a vote is granted, whatever was answered.
#[must_use]
pub fn grant(request: &Bytes, answer: &Bytes) -> Bytes {
    let (Ok(asked), Ok(mut vote)) = (
        VoteAsked::decode(request.clone()),
        VoteAnswer::decode(answer.clone()),
    ) else {
        return answer.clone();
    };
    // In an older term a candidate does not believe it.
    if vote.vote.leader_id.term > asked.vote.leader_id.term {
        return answer.clone();
    }
    vote.vote = asked.vote;
    vote.vote_granted = true;
    vote.encode().into()
}
