//! Bugs that are planted to prove that they are found (R25).

use crate::oracle::Answer;
use warren_raft::Bugs;

/// Bugs of what the simulator itself plays: the wire, the API of a manager, its loops, the client.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SimBugs {
    /// A lost append is answered as if it had been taken.
    pub acknowledge_before_quorum: bool,
    /// A follower takes everything that it receives for committed.
    pub commit_on_receipt: bool,
    /// A vote is granted however short the candidate's log is.
    pub vote_ignores_log: bool,
    /// A vote is granted although another candidate had it.
    pub vote_twice: bool,
    /// A follower answers linearizable reads from what it has.
    pub follower_read_without_index: bool,
    /// A follower asks for the read index and does not wait until it has applied so much.
    pub wait_skipped: bool,
    /// Planner commands carry no expectations.
    pub fence_forgotten: bool,
    /// Planner commands carry the versions of when they are proposed, not of when they were decided.
    pub fence_refreshed: bool,
    /// The idempotency key does not travel with a forwarded write.
    pub key_not_forwarded: bool,
    /// A write whose outcome is unknown is repeated without a key.
    pub retry_without_key: bool,
    /// A repeated write that is refused counts as refused, although the first attempt may still take effect.
    pub refusal_believed: bool,
    /// A write whose outcome is unknown is reported as refused.
    pub unknown_called_refused: bool,
    /// What a manager outside the quorum has is given out as the newest.
    pub minority_read_unmarked: bool,
    /// The retried create makes new ids and a new key.
    pub retry_with_new_key: bool,
    /// A watch that fell behind goes on from the newest state.
    pub watch_skips_when_lagged: bool,
    /// A watch begins with a state that is newer than the revision that it goes on from.
    pub watch_picture_too_new: bool,
    /// When a voter does not answer, a learner's answer counts in its stead, for appends and for votes.
    pub learner_counted: bool,
    /// When a voter does not answer, the vote of a manager that is no member counts in its stead.
    pub removed_counted: bool,
}

impl SimBugs {
    /// The answer to a write that was tried several times. When an earlier attempt had an unknown outcome, that this one
    /// was refused says nothing: the earlier one may take effect yet.
    pub(crate) fn certain(&self, answer: Answer, uncertain: bool) -> Answer {
        match answer {
            Answer::Rejected(rejection) if uncertain && !self.refusal_believed => {
                Answer::Unknown(format!("tried before, and now refused: {rejection}"))
            }
            Answer::NotTaken(reason) if uncertain && !self.refusal_believed => {
                Answer::Unknown(reason)
            }
            answer => answer,
        }
    }
}

/// All bugs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ClusterBugs {
    /// Those in the real parts.
    pub raft: Bugs,
    /// Those in what the simulator plays.
    pub sim: SimBugs,
}

/// The planted bugs by name.
#[must_use]
pub fn cluster_bugs() -> Vec<(&'static str, ClusterBugs)> {
    type Plant = fn(&mut ClusterBugs);
    let plants: [(&'static str, Plant); 30] = [
        ("skip-sync", |b| b.raft.storage.skip_sync = true),
        ("acknowledge-before-sync", |b| {
            b.raft.acknowledge_before_sync = true;
        }),
        ("full-disk-drops-writes", |b| {
            b.raft.full_disk_drops_writes = true;
        }),
        ("vote-not-persisted", |b| b.raft.vote_not_persisted = true),
        ("cut-not-persisted", |b| b.raft.cut_not_persisted = true),
        ("snapshot-forgets-last-entry", |b| {
            b.raft.snapshot_forgets_last_entry = true;
        }),
        ("snapshot-applied-again", |b| {
            b.raft.snapshot_applied_again = true;
        }),
        ("install-keeps-old-state", |b| {
            b.raft.install_keeps_old_state = true;
        }),
        ("published-late", |b| b.raft.published_late = true),
        ("stale-read", |b| b.raft.stale_read = true),
        ("acknowledge-before-quorum", |b| {
            b.sim.acknowledge_before_quorum = true;
        }),
        ("commit-on-receipt", |b| b.sim.commit_on_receipt = true),
        ("vote-ignores-log", |b| b.sim.vote_ignores_log = true),
        ("vote-twice", |b| b.sim.vote_twice = true),
        ("follower-read-without-index", |b| {
            b.sim.follower_read_without_index = true;
        }),
        ("wait-skipped", |b| b.sim.wait_skipped = true),
        ("fence-forgotten", |b| b.sim.fence_forgotten = true),
        ("fence-refreshed", |b| b.sim.fence_refreshed = true),
        ("key-not-forwarded", |b| b.sim.key_not_forwarded = true),
        ("retry-without-key", |b| b.sim.retry_without_key = true),
        ("retry-with-new-key", |b| b.sim.retry_with_new_key = true),
        ("refusal-believed", |b| b.sim.refusal_believed = true),
        ("unknown-called-refused", |b| {
            b.sim.unknown_called_refused = true;
        }),
        ("minority-read-unmarked", |b| {
            b.sim.minority_read_unmarked = true;
        }),
        ("watch-skips-when-lagged", |b| {
            b.sim.watch_skips_when_lagged = true;
        }),
        ("watch-picture-too-new", |b| {
            b.sim.watch_picture_too_new = true;
        }),
        ("learner-counted", |b| b.sim.learner_counted = true),
        ("removed-counted", |b| b.sim.removed_counted = true),
        ("removed-elected", |b| b.raft.removed_elected = true),
        ("healing-votes", |b| b.raft.healing_votes = true),
    ];
    plants
        .into_iter()
        .map(|(name, plant)| {
            let mut bugs = ClusterBugs::default();
            plant(&mut bugs);
            (name, bugs)
        })
        .collect()
}
