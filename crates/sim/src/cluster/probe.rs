//! Watches every manager from inside: the twelve invariants of Raft (`reliability.md` §1.2) and that all managers come
//! to the same states.
//!
//! The engine tells the probe what it does, at the moment it does it ([`Observer`]); so nothing that is wrong for a moment
//! only can slip through between two looks.

use super::faults::{Kind, Tally};
use super::shadow::Shadow;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use warren_raft::testing::{EntryId, EntryInfo, Observer, VoteInfo};
use warren_state::{Actor, Applied, ClusterState, Command, Op};
use warren_types::{NodeId, Revision};

/// Entries back to which a change of the members may still have been the one in force.
const MEMBERSHIPS_NEAR: u64 = 8;

/// A committed entry.
struct Committed {
    id: EntryId,
    content: u64,
    /// Hash of the state after it.
    state: u64,
}

#[derive(Default)]
struct State {
    shadows: BTreeMap<NodeId, Shadow>,
    /// Content and predecessor's term of every entry that any log ever held (log matching).
    entries: BTreeMap<EntryId, (u64, Option<u64>)>,
    /// Who led (election safety).
    leaders: BTreeMap<u64, NodeId>,
    /// For whom each manager voted.
    grants: BTreeMap<(NodeId, u64), NodeId>,
    /// The newest term in which a manager voted before it lost everything that it had.
    forgotten: BTreeMap<NodeId, u64>,
    /// From index 0 on, without gap (state machine safety).
    committed: Vec<Committed>,
    /// The state that the committed entries make.
    reference: ClusterState,
    /// Hash of the command that made a revision.
    revisions: BTreeMap<u64, u64>,
    /// Sets of voters by the index of the entry that made them.
    memberships: BTreeMap<EntryId, Vec<BTreeSet<NodeId>>>,
    /// Revision of the state on which a planner's command was decided.
    decisions: BTreeMap<u64, Revision>,
    violation: Option<String>,
    tally: Tally,
    news: Vec<String>,
}

/// The probe.
#[derive(Default)]
pub(crate) struct Probe {
    state: Mutex<State>,
}

/// What one manager tells.
pub(crate) struct Ear {
    pub(crate) node: NodeId,
    pub(crate) name: String,
    pub(crate) probe: Arc<Probe>,
}

impl std::fmt::Debug for Ear {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Ear({})", self.name)
    }
}

fn hash_of(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}

impl Probe {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a fault that had an effect.
    pub(crate) fn count(&self, kind: Kind) {
        self.state().tally.add(kind);
    }

    pub(crate) fn tally(&self) -> Tally {
        self.state().tally.clone()
    }

    pub(crate) fn violation(&self) -> Option<String> {
        self.state().violation.clone()
    }

    /// What happened since this was last asked, for the trace.
    pub(crate) fn news(&self) -> Vec<String> {
        std::mem::take(&mut self.state().news)
    }

    /// A manager granted its vote.
    pub(crate) fn granted(&self, voter: NodeId, vote: VoteInfo) {
        let mut state = self.state();
        let first = *state.grants.entry((voter, vote.term)).or_insert(vote.node);
        if first != vote.node {
            state.wrong(format!(
                "election safety: {voter} voted for {first} and for {} in term {}",
                vote.node, vote.term
            ));
        }
    }

    /// A planner decided on a command.
    pub(crate) fn decided(&self, command: &Command, on: Revision) {
        let hash = hash_of(&command.encode());
        let mut state = self.state();
        let known = state.decisions.entry(hash).or_insert(on);
        *known = on.max(*known);
    }

    /// A write was acknowledged: it must be what made that revision.
    pub(crate) fn acknowledged(&self, command: &Command, applied: &Applied) {
        let hash = hash_of(&command.encode());
        let mut state = self.state();
        let made = state.revisions.get(&applied.revision.0).copied();
        if made.is_none() || (!applied.replayed && made != Some(hash)) {
            let revision = applied.revision;
            state.wrong(format!(
                "a lost write: acknowledged at revision {revision} was a command that is not there"
            ));
        }
    }

    /// Index of the last entry known to be committed, and hash of the state after it.
    pub(crate) fn end(&self) -> Option<(u64, u64)> {
        let state = self.state();
        let last = state.committed.last()?;
        Some((last.id.index, last.state))
    }

    /// Stored bytes of a manager are damaged from now on: it may begin anew with nothing, once.
    pub(crate) fn damaged(&self, node: NodeId) {
        self.state().shadow(node).damaged = true;
    }

    /// A manager has everything again, or never lacked it.
    pub(crate) fn well(&self, node: NodeId) {
        self.state().shadow(node).well();
    }

    /// Every set of voters that may decide anything now or later: the last committed one, and all that were written since.
    pub(crate) fn voter_sets(&self) -> Vec<BTreeSet<NodeId>> {
        let state = self.state();
        let made = state
            .memberships
            .keys()
            .filter(|made| state.is_committed(**made));
        let last = made.map(|made| made.index).max().unwrap_or(0);
        let sets = state.memberships.iter();
        let sets = sets.filter(|(made, _)| made.index >= last);
        sets.flat_map(|(_, sets)| sets.clone()).collect()
    }

    /// The state that the committed entries make.
    pub(crate) fn reference(&self) -> ClusterState {
        self.state().reference.clone()
    }
}

impl State {
    fn wrong(&mut self, what: String) {
        self.violation.get_or_insert(what);
    }

    fn shadow(&mut self, node: NodeId) -> &mut Shadow {
        self.shadows.entry(node).or_default()
    }

    fn is_committed(&self, id: EntryId) -> bool {
        let at = usize::try_from(id.index).ok();
        let committed = at.and_then(|at| self.committed.get(at));
        committed.is_some_and(|committed| committed.id == id)
    }

    /// The sets of voters by which a manager goes: those of the last membership in its log.
    fn voters_of(&self, node: NodeId) -> Option<&Vec<BTreeSet<NodeId>>> {
        let shadow = self.shadows.get(&node)?;
        let real = |made: EntryId| match usize::try_from(made.index) {
            Ok(at) if at < self.committed.len() => self.is_committed(made),
            _ => true,
        };
        let known = self.memberships.iter();
        let known = known.filter(|(made, _)| shadow.holds(**made) && real(**made));
        known
            .max_by_key(|(made, _)| made.index)
            .map(|(_, sets)| sets)
    }

    /// Elected by a quorum: of each set of voters by which the new leader goes, a majority has voted for it.
    fn elected(&mut self, node: NodeId, term: u64) {
        let Some(sets) = self.voters_of(node) else {
            return;
        };
        let voted =
            |voter: &&NodeId| **voter == node || self.grants.get(&(**voter, term)) == Some(&node);
        let majority = |set: &BTreeSet<NodeId>| set.iter().filter(voted).count() * 2 > set.len();
        if !sets.iter().all(majority) {
            let what = format!(
                "elected by a quorum: {node} leads in term {term} without a majority of {sets:?}"
            );
            self.wrong(what);
        }
    }

    /// Log matching: an index and a term name one entry, with one predecessor.
    fn matches(&mut self, entry: &EntryInfo, before: Option<u64>) {
        let known = (entry.content, before);
        let first = self.entries.entry(entry.id).or_insert(known);
        // After a purge the predecessor's term may be unknown.
        let same =
            first.0 == known.0 && (first.1 == before || before.is_none() || first.1.is_none());
        if first.1.is_none() {
            first.1 = before;
        }
        if !same {
            self.wrong(format!(
                "log matching: there are two different entries {:?}",
                entry.id
            ));
        }
        if let Some(voters) = &entry.voters {
            self.memberships.insert(entry.id, voters.clone());
        }
    }

    /// Leader completeness, when a manager begins to lead.
    fn leads(&mut self, node: NodeId, term: u64) {
        self.elected(node, term);
        let first = *self.leaders.entry(term).or_insert(node);
        if first != node {
            self.wrong(format!(
                "election safety: {first} and {node} both lead in term {term}"
            ));
        }
        let Some(last) = self.committed.last().map(|last| last.id) else {
            return;
        };
        if last.term < term && !self.shadow(node).holds(last) {
            self.wrong(format!(
                "leader completeness: {node} leads in term {term} without the committed {last:?}"
            ));
        }
    }

    /// Committed on a quorum: a majority of the voters must have the entry on disk.
    fn on_quorum(&mut self, id: EntryId, by: NodeId) {
        let mut sets: Vec<Vec<BTreeSet<NodeId>>> = Vec::new();
        // Those in the log of the one who applied it.
        let shadow = self.shadows.get(&by);
        let real = |made: &EntryId| match usize::try_from(made.index) {
            Ok(at) if at < self.committed.len() => self.committed[at].id == *made,
            _ => shadow.is_some_and(|shadow| shadow.holds(*made)),
        };
        let near = self.memberships.iter().filter(|(made, _)| real(made));
        let mut near: Vec<_> = near.map(|(made, voters)| (made.index, voters)).collect();
        near.sort_by_key(|(index, _)| *index);
        let current = near.iter().rposition(|(index, _)| *index <= id.index);
        for (at, (index, voters)) in near.iter().enumerate() {
            // The one in force when the entry was written, and later ones, of which the leader may have made use already.
            let close = *index <= id.index + MEMBERSHIPS_NEAR;
            if close && current.is_none_or(|current| at >= current) {
                sets.push((*voters).clone());
            }
        }
        let majority = |set: &BTreeSet<NodeId>| {
            let have = set.iter().filter(|voter| {
                let shadow = self.shadows.get(voter);
                shadow.is_some_and(|shadow| shadow.holds_durably(id))
            });
            have.count() * 2 > set.len()
        };
        let fine = sets.iter().any(|joint| joint.iter().all(majority));
        if !fine && !sets.is_empty() {
            self.wrong(format!(
                "committed on a quorum: {id:?} is applied by {by}, but only on the disks of {:?} of {sets:?}",
                self.shadows
                    .iter()
                    .filter(|(_, shadow)| shadow.holds_durably(id))
                    .map(|(node, _)| *node)
                    .collect::<Vec<_>>()
            ));
        }
    }

    /// The first manager applies an entry.
    fn commit(&mut self, node: NodeId, entry: &EntryInfo, hash: u64) {
        self.on_quorum(entry.id, node);
        if let Some((term, leader)) = self.leaders.last_key_value().map(|(t, l)| (*t, *l))
            && term > entry.id.term
            && self
                .shadows
                .get(&leader)
                .is_some_and(|shadow| !shadow.holds(entry.id))
        {
            self.wrong(format!(
                "leader completeness: {:?} is committed, {leader}, who leads in term {term}, lacks it",
                entry.id
            ));
        }
        if let Some(bytes) = &entry.command {
            match Command::decode(bytes) {
                Ok(command) => self.apply(bytes, &command),
                Err(error) => self.wrong(format!("a command that cannot be read: {error}")),
            }
        }
        let expected = self.reference.hash();
        if expected != hash {
            self.wrong(format!(
                "state machine safety: {node} comes to another state at {:?}",
                entry.id
            ));
        }
        if let Some(violation) = self.reference.invariants().first() {
            let text = violation.to_string();
            self.wrong(format!("after {:?}: {text}", entry.id));
        }
        self.committed.push(Committed {
            id: entry.id,
            content: entry.content,
            state: expected,
        });
    }

    fn apply(&mut self, bytes: &[u8], command: &Command) {
        let hash = hash_of(bytes);
        let before = self.reference.clone();
        let Ok(applied) = self.reference.apply(command) else {
            self.tally.add(Kind::Rejected);
            return;
        };
        if applied.replayed {
            self.tally.add(Kind::Replayed);
            return;
        }
        self.revisions.insert(applied.revision.0, hash);
        if matches!(command.actor, Actor::Reconciler | Actor::Scheduler)
            && let Some(decided) = self.decisions.get(&hash).copied()
            && let Some(what) = decided_on_old(&before, command, decided)
        {
            self.wrong(what);
        }
    }
}

/// A planner's command took effect: what it was decided on must not have changed meanwhile.
fn decided_on_old(before: &ClusterState, command: &Command, decided: Revision) -> Option<String> {
    let service = |id| before.service(id).map(|service| service.version);
    let container = |id| before.container(id).map(|container| container.version);
    for op in &command.ops {
        let version = match op {
            Op::ContainerCreate { service: id, .. }
            | Op::ServiceSetRollout { id, .. }
            | Op::ServiceRollback { id, .. }
            | Op::ServiceRemove { id, .. } => service(*id),
            Op::ContainerAssign { id, .. }
            | Op::ContainerSetReason { id, .. }
            | Op::ContainerSetDesired { id, .. }
            | Op::ContainerLost { id, .. }
            | Op::ContainerDelete { id, .. } => container(*id),
            _ => None,
        };
        if version.is_some_and(|version| version > decided) {
            return Some(format!(
                "fencing: a command of the {} took effect that was decided at revision {decided} on what has changed at {version:?}: {op:?}",
                command.actor
            ));
        }
    }
    None
}

impl Observer for Ear {
    fn started(
        &self,
        healing: bool,
        purged: Option<EntryId>,
        log: &[EntryInfo],
        vote: Option<VoteInfo>,
        snapshot: Option<(EntryId, &ClusterState)>,
    ) {
        let mut state = self.probe.state();
        let anew = healing && state.shadow(self.node).begin_anew();
        let mut before = purged.map(|purged| purged.term);
        for entry in log {
            state.matches(entry, before);
            before = Some(entry.id.term);
        }
        let granted = state
            .grants
            .range((self.node, 0)..=(self.node, u64::MAX))
            .next_back()
            .map(|((_, term), candidate)| (*term, *candidate));
        let name = &self.name;
        if anew && let Some((term, _)) = granted {
            state.forgotten.insert(self.node, term);
        }
        if let Some((term, candidate)) = granted
            && state
                .forgotten
                .get(&self.node)
                .is_none_or(|known| term > *known)
            && !vote.is_some_and(|vote| {
                vote.term > term
                    || (vote.term == term && (vote.node == candidate || vote.committed))
            })
        {
            state.wrong(format!(
                "{name} has forgotten its vote for {candidate} in term {term}; it knows {vote:?}"
            ));
        }
        let ids: Vec<EntryId> = log.iter().map(|entry| entry.id).collect();
        let last = snapshot.map(|(last, _)| last);
        let lost = state.shadow(self.node).restart(purged, &ids, vote, last);
        if let Some(lost) = lost {
            state.wrong(format!("{name} has lost {lost:?}, which was on its disk"));
        }
        if let Some((last, found)) = snapshot {
            self.compare(&mut state, last, found.hash(), "starts from a snapshot");
        }
    }

    fn appended(&self, entries: &[EntryInfo]) {
        let mut state = self.probe.state();
        for entry in entries {
            let before = state.shadow(self.node).term_before(entry.id.index);
            state.matches(entry, before);
            if let Err(what) = state.shadow(self.node).append(entry.id) {
                state.wrong(format!("{}: {what}", self.name));
            }
        }
    }

    fn cut(&self, from: u64) {
        let mut state = self.probe.state();
        let cut = state.shadow(self.node).cut(from);
        if !cut.is_empty() {
            state.tally.add(Kind::LogCut);
        }
        for id in cut {
            let committed = usize::try_from(id.index)
                .ok()
                .and_then(|at| state.committed.get(at));
            if committed.is_some_and(|committed| committed.id == id)
                && !state.shadow(self.node).holds(id)
            {
                state.wrong(format!(
                    "{} cuts the committed {id:?} off its log",
                    self.name
                ));
            }
        }
    }

    fn purged(&self, upto: EntryId) {
        let mut state = self.probe.state();
        if let Err(what) = state.shadow(self.node).purge(upto) {
            state.wrong(format!("{}: {what}", self.name));
        }
    }

    fn flushed(&self, next: u64) {
        self.probe.state().shadow(self.node).flushed(next);
    }

    fn voted(&self, vote: VoteInfo) {
        let mut state = self.probe.state();
        if let Err(what) = state.shadow(self.node).vote(vote) {
            state.wrong(format!("{}: {what}", self.name));
        }
        if vote.committed {
            let first = *state.leaders.entry(vote.term).or_insert(vote.node);
            if first != vote.node {
                state.wrong(format!(
                    "election safety: {first} and {} both lead in term {}",
                    vote.node, vote.term
                ));
            }
            if vote.node == self.node {
                state.leads(self.node, vote.term);
                state.tally.add(Kind::LeaderChange);
                let line = format!("{} leads in term {}", self.name, vote.term);
                state.news.push(line);
            }
        }
    }

    fn applied(&self, entry: &EntryInfo, found: &ClusterState) {
        let mut state = self.probe.state();
        let next = state.committed.len() as u64;
        let hash = found.hash();
        match entry.id.index.cmp(&next) {
            std::cmp::Ordering::Equal => state.commit(self.node, entry, hash),
            std::cmp::Ordering::Greater => state.wrong(format!(
                "{} applies {:?} while the entries from {next} on were applied by nobody",
                self.name, entry.id
            )),
            std::cmp::Ordering::Less => {
                let known = usize::try_from(entry.id.index)
                    .ok()
                    .and_then(|at| state.committed.get(at));
                if known.is_some_and(|known| known.id != entry.id || known.content != entry.content)
                {
                    state.wrong(format!(
                        "state machine safety: {} applies {:?}, others applied another entry there",
                        self.name, entry.id
                    ));
                }
                self.compare(&mut state, entry.id, hash, "applies an entry");
            }
        }
        if let Err(what) = state.shadow(self.node).apply(entry.id) {
            state.wrong(format!("{}: {what}", self.name));
        }
    }

    fn stored(&self, last: EntryId) {
        self.probe.state().shadow(self.node).stored(last);
    }

    fn installed(&self, last: EntryId, found: &ClusterState) {
        let mut state = self.probe.state();
        state.tally.add(Kind::SnapshotInstalled);
        self.compare(&mut state, last, found.hash(), "installs a snapshot");
        if let Err(what) = state.shadow(self.node).install(last) {
            state.wrong(format!("{}: {what}", self.name));
        }
        let line = format!("{} installs a snapshot up to {}", self.name, last.index);
        state.news.push(line);
    }
}

impl Ear {
    /// Equal hash at equal applied index.
    fn compare(&self, state: &mut State, at: EntryId, hash: u64, doing: &str) {
        let known = usize::try_from(at.index)
            .ok()
            .and_then(|index| state.committed.get(index));
        let what = match known {
            Some(known) if known.id == at && known.state == hash => return,
            Some(known) if known.id != at => format!("{:?} is committed there", known.id),
            Some(_) => "and comes to another state than others".to_owned(),
            None => "which nobody has applied yet".to_owned(),
        };
        state.wrong(format!(
            "state machine safety: {} {doing} at {at:?}, {what}",
            self.name
        ));
    }
}
