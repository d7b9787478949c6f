//! The operator: adds, promotes, demotes and removes managers while everything else goes wrong.

use super::faults::Kind;
use super::manager::Manager;
use super::stage::Stage;
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio::task::JoinHandle;
use warren_raft::testing::Gate;
use warren_raft::{Member, RaftError, RaftHandle};
use warren_storage::Rng;
use warren_types::NodeId;

/// Most managers with a vote.
const VOTERS_MAX: usize = 5;
/// Most managers.
const MEMBERS_MAX: usize = 7;

/// A change of the members.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    Add(NodeId),
    Promote(NodeId),
    Demote(NodeId),
    Remove(NodeId),
}

impl Change {
    fn kind(self) -> Kind {
        match self {
            Self::Add(_) => Kind::LearnerAdded,
            Self::Promote(_) => Kind::Promoted,
            Self::Demote(_) => Kind::Demoted,
            Self::Remove(_) => Kind::Removed,
        }
    }

    async fn make(self, raft: RaftHandle) -> Result<(), RaftError> {
        match self {
            Self::Add(node) => raft.add_learner(node, member(node)).await,
            Self::Remove(node) => raft.remove_member(node).await,
            Self::Promote(node) | Self::Demote(node) => {
                let (voters, _) = raft.members();
                let mut voters: BTreeSet<NodeId> = voters.keys().copied().collect();
                if matches!(self, Self::Promote(_)) {
                    voters.insert(node);
                } else {
                    voters.remove(&node);
                }
                raft.set_voters(voters, true).await
            }
        }
    }
}

/// How a manager is known to others.
pub(super) fn member(node: NodeId) -> Member {
    Member {
        name: node.to_string(),
        address: String::new(),
    }
}

/// A change under way.
struct UnderWay {
    change: Change,
    gate: Arc<Gate>,
    job: JoinHandle<Result<(), RaftError>>,
    begun: u64,
}

/// How long the operator waits, in milliseconds.
const PATIENCE_MS: u64 = 6_000;

/// The operator.
#[derive(Default)]
pub(super) struct Operator {
    under_way: Option<UnderWay>,
    next_at: u64,
}

impl Operator {
    /// Looks whether a change has ended, and what came of it.
    pub(super) async fn look(&mut self, stage: &Stage) -> Option<(Change, bool)> {
        let under_way = self.under_way.as_mut()?;
        let late = stage.elapsed_ms() > under_way.begun + PATIENCE_MS;
        if under_way.gate.is_dead() || late {
            let change = under_way.change;
            self.under_way = None;
            stage.probe.count(Kind::MembershipCut);
            stage.note(format!("operator: {change:?} is cut short"));
            return Some((change, false));
        }
        if !under_way.job.is_finished() {
            return None;
        }
        let under_way = self.under_way.take()?;
        let result = under_way.job.await.ok()?;
        let change = under_way.change;
        let done = result.is_ok();
        match result {
            Ok(()) => {
                stage.probe.count(change.kind());
                stage.note(format!("operator: {change:?} is done"));
            }
            Err(error) => stage.note(format!("operator: {change:?} fails: {error}")),
        }
        Some((change, done))
    }

    /// Whether a change is under way.
    pub(super) fn is_busy(&self) -> bool {
        self.under_way.is_some()
    }

    /// Whether it is time for another change.
    pub(super) fn is_due(&self, now: u64) -> bool {
        self.under_way.is_none() && now >= self.next_at
    }

    /// The next change is made so much later.
    pub(super) fn rest(&mut self, until: u64) {
        self.next_at = until;
    }

    /// Begins a change on the leader.
    pub(super) fn begin(
        &mut self,
        stage: &Stage,
        leader: &RaftHandle,
        gate: &Arc<Gate>,
        change: Change,
    ) {
        stage.note(format!("operator: {change:?}"));
        let raft = leader.clone();
        self.under_way = Some(UnderWay {
            change,
            gate: Arc::clone(gate),
            job: gate.spawn(change.make(raft)),
            begun: stage.elapsed_ms(),
        });
    }
}

/// What an operator might want now; `None` for a manager that does not exist yet.
pub(super) fn wish(
    rng: &mut Rng,
    leader: &RaftHandle,
    managers: &[Manager],
    fewest: usize,
) -> Option<Option<Change>> {
    let (voters, learners) = leader.members();
    let member = |node: &NodeId| voters.contains_key(node) || learners.contains_key(node);
    if let Some(lost) = managers.iter().find(|m| m.is_lost() && member(&m.node)) {
        return Some(Some(Change::Remove(lost.node)));
    }
    // As long as a manager lacks what it had, the others are all needed.
    let steady = managers.iter().all(|m| m.gone || !m.faulty);
    let known = |node: &NodeId| {
        managers
            .iter()
            .any(|m| m.node == *node && m.leaves_at.is_none())
    };
    let pick = |rng: &mut Rng, from: Vec<NodeId>| {
        let at = usize::try_from(rng.below(from.len() as u64)).unwrap_or(0);
        from.get(at).copied()
    };
    let voting: Vec<NodeId> = voters.keys().copied().collect();
    let learning: Vec<NodeId> = learners.keys().copied().filter(known).collect();
    let strangers: Vec<NodeId> = managers
        .iter()
        .filter(|m| !m.gone && !m.refused && m.leaves_at.is_none())
        .map(|m| m.node)
        .filter(|node| !member(node))
        .collect();
    let live = managers.iter().filter(|m| !m.gone).count();
    match rng.below(10) {
        0..3 => match pick(rng, strangers) {
            Some(stranger) => Some(Some(Change::Add(stranger))),
            None => (live < MEMBERS_MAX).then_some(None),
        },
        _ if !steady => None,
        3..6 if voting.len() < VOTERS_MAX => {
            pick(rng, learning).map(|node| Some(Change::Promote(node)))
        }
        6 if voting.len() > fewest => pick(rng, voting).map(|node| Some(Change::Demote(node))),
        7 | 8 if voting.len() > fewest => pick(rng, voting).map(|node| Some(Change::Remove(node))),
        9 => pick(rng, learning).map(|node| Some(Change::Remove(node))),
        _ => None,
    }
}
