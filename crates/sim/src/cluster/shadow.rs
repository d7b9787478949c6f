//! What a manager's log and vote must be, by what it was seen doing.

use std::collections::BTreeMap;
use warren_raft::testing::{EntryId, VoteInfo};

/// The shadow of one manager. Outlives its lives.
#[derive(Debug, Default)]
pub(super) struct Shadow {
    /// Terms of the entries in the log.
    log: BTreeMap<u64, u64>,
    purged: Option<EntryId>,
    /// Last entry of the newest snapshot that is on disk.
    snapshot: Option<EntryId>,
    applied: Option<EntryId>,
    /// All before it were reported as durable.
    flushed: u64,
    vote: Option<VoteInfo>,
    /// Stored bytes were damaged.
    pub(super) damaged: bool,
    /// What it had acknowledged before it lost everything, until it has all of that again.
    before: Option<Box<Self>>,
}

type Checked = Result<(), String>;

impl Shadow {
    /// Whether the entry is in the log, or behind what was purged or installed.
    pub(super) fn holds(&self, id: EntryId) -> bool {
        self.covered(id.index) || self.log.get(&id.index) == Some(&id.term)
    }

    /// … and was reported as durable.
    pub(super) fn holds_durably(&self, id: EntryId) -> bool {
        self.covered(id.index)
            || (id.index < self.flushed && self.log.get(&id.index) == Some(&id.term))
            || self
                .before
                .as_ref()
                .is_some_and(|before| before.holds_durably(id))
    }

    /// It says that its files are damaged and begins with nothing. False when nobody had damaged them since it last
    /// did so: then it must have all that it had.
    pub(super) fn begin_anew(&mut self) -> bool {
        if !std::mem::take(&mut self.damaged) {
            return false;
        }
        let before = std::mem::take(self);
        self.before = Some(Box::new(before));
        true
    }

    /// It has all that it had.
    pub(super) fn well(&mut self) {
        self.before = None;
        self.damaged = false;
    }

    /// Whether a snapshot stands for the entry.
    fn covered(&self, index: u64) -> bool {
        let behind = |id: Option<EntryId>| id.is_some_and(|id| index <= id.index);
        behind(self.purged) || behind(self.snapshot)
    }

    /// Term of the entry before this one, if known.
    pub(super) fn term_before(&self, index: u64) -> Option<u64> {
        let before = index.checked_sub(1)?;
        let purged = self.purged.filter(|purged| purged.index == before);
        self.log
            .get(&before)
            .copied()
            .or(purged.map(|purged| purged.term))
    }

    /// The manager starts with this on its disk. An entry that was durable and is gone is returned.
    pub(super) fn restart(
        &mut self,
        purged: Option<EntryId>,
        log: &[EntryId],
        vote: Option<VoteInfo>,
        snapshot: Option<EntryId>,
    ) -> Option<EntryId> {
        let found: BTreeMap<u64, u64> = log.iter().map(|id| (id.index, id.term)).collect();
        let begin = purged.map_or(0, |purged| purged.index + 1);
        // What a snapshot stands for, or contradicts, need not be there.
        let covered = snapshot.map_or(0, |snapshot| snapshot.index + 1);
        let contradicted = snapshot.is_some_and(|snapshot| {
            let term = self.log.get(&snapshot.index);
            term.is_some_and(|term| *term != snapshot.term)
        });
        let from = if contradicted {
            u64::MAX
        } else {
            begin.max(covered)
        };
        let lost = self
            .log
            .range(from..self.flushed.max(from))
            .find(|(index, term)| found.get(index) != Some(term))
            .map(|(index, term)| EntryId {
                index: *index,
                term: *term,
            });
        self.flushed = log.last().map_or(begin, |last| last.index + 1);
        self.log = found;
        self.purged = purged;
        self.snapshot = snapshot;
        self.applied = snapshot;
        self.vote = vote;
        lost
    }

    pub(super) fn append(&mut self, id: EntryId) -> Checked {
        let last = self.log.last_key_value();
        let next = last
            .map(|(index, _)| index + 1)
            .or(self.purged.map(|purged| purged.index + 1));
        if next.is_some_and(|next| next != id.index) {
            return Err(format!("{id:?} is added where {next:?} should be"));
        }
        if last.is_some_and(|(_, term)| *term > id.term) {
            return Err(format!("{id:?} is added behind an entry of a later term"));
        }
        self.log.insert(id.index, id.term);
        Ok(())
    }

    /// Returns what is cut off.
    pub(super) fn cut(&mut self, from: u64) -> Vec<EntryId> {
        self.flushed = self.flushed.min(from);
        let cut = self.log.split_off(&from);
        cut.into_iter()
            .map(|(index, term)| EntryId { term, index })
            .collect()
    }

    pub(super) fn purge(&mut self, upto: EntryId) -> Checked {
        if self.purged.is_some_and(|purged| purged.index > upto.index) {
            return Err(format!("what is purged goes back to {upto:?}"));
        }
        if self
            .applied
            .is_none_or(|applied| applied.index < upto.index)
        {
            return Err(format!(
                "the log is purged up to {upto:?}, which is not applied yet ({:?})",
                self.applied
            ));
        }
        self.purged = Some(upto);
        self.log = self.log.split_off(&(upto.index + 1));
        self.flushed = self.flushed.max(upto.index + 1);
        Ok(())
    }

    pub(super) fn flushed(&mut self, next: u64) {
        self.flushed = self.flushed.max(next);
    }

    pub(super) fn vote(&mut self, vote: VoteInfo) -> Checked {
        let before = self.vote.replace(vote);
        match before {
            Some(before)
                if before.term > vote.term
                    || (before.term == vote.term
                        && before.node != vote.node
                        && (before.committed || !vote.committed)) =>
            {
                Err(format!("its vote goes from {before:?} to {vote:?}"))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn apply(&mut self, id: EntryId) -> Checked {
        let before = self.applied.replace(id);
        match before {
            Some(before) if before.index + 1 != id.index => {
                Err(format!("applies {id:?} after {before:?}"))
            }
            None if id.index != 0 => Err(format!("applies {id:?} first")),
            _ => Ok(()),
        }
    }

    pub(super) fn stored(&mut self, last: EntryId) {
        if self.snapshot.is_none_or(|before| before.index < last.index) {
            self.snapshot = Some(last);
        }
    }

    pub(super) fn install(&mut self, last: EntryId) -> Checked {
        let before = self.applied.replace(last);
        match before {
            Some(before) if before.index >= last.index => Err(format!(
                "a snapshot up to {last:?} replaces the state at {before:?}"
            )),
            _ => Ok(()),
        }
    }
}
