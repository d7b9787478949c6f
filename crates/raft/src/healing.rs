//! A manager whose log or snapshot was damaged begins again with nothing, and must do no harm by that.
//!
//! What it has lost besides entries are its promises: votes given, entries acknowledged. A quorum that it was part of
//! relied on them. So (as a recovering replica of Viewstamped Replication does) it first asks the others for their terms, until
//! those who answered meet every quorum that it can have been part of: the highest term among them is at least any in which it
//! voted or acknowledged anything. Only a leader of such a term may then fill its log. And it neither votes nor
//! stands for election until it has applied all that such a leader, asked after the restart, had in its log (and it had
//! committed something in its own term): by then it holds again whatever it can have acknowledged. What is committed is not
//! enough: an acknowledgement from before the damage may be on its way to the leader still, which commits by it later.

use crate::handle::Engine;
use crate::home::{Home, voter_sets};
use crate::pulse::Pulse;
use crate::transport::{RpcKind, Transport};
use crate::types::{LogId, StoredMembership};
use crate::view::View;
use crate::wire::{LogIdMessage, StoredMembershipMessage, Wire};
use bytes::Bytes;
use futures::future::join_all;
use openraft::ServerState;
use openraft::async_runtime::watch::WatchReceiver;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tokio::sync::watch;
use warren_types::NodeId;

/// Heartbeat intervals between rounds of questions.
const ROUND_HEARTBEATS: u32 = 3;

/// What a manager says about itself.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Testimony {
    pub(crate) term: u64,
    /// It is healing itself: it has forgotten which terms it took part in.
    pub(crate) healing: bool,
    /// As a leader: the last entry that it knows to be committed.
    pub(crate) committed: Option<LogId>,
    /// As a leader: the index of the last entry of its log.
    pub(crate) last: Option<u64>,
    /// The members that it knows.
    pub(crate) membership: StoredMembership,
    /// Whether these are known to be committed.
    pub(crate) settled: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct TestimonyMessage {
    #[prost(uint64, tag = "1")]
    term: u64,
    #[prost(bool, tag = "2")]
    healing: bool,
    #[prost(message, optional, tag = "3")]
    committed: Option<LogIdMessage>,
    #[prost(message, optional, tag = "4")]
    membership: Option<StoredMembershipMessage>,
    #[prost(bool, tag = "5")]
    settled: bool,
    #[prost(uint64, optional, tag = "6")]
    last: Option<u64>,
}

impl Wire for Testimony {
    type Message = TestimonyMessage;

    fn to_message(&self) -> TestimonyMessage {
        TestimonyMessage {
            term: self.term,
            healing: self.healing,
            committed: self.committed.as_ref().map(Wire::to_message),
            membership: Some(self.membership.to_message()),
            settled: self.settled,
            last: self.last,
        }
    }

    fn from_message(message: TestimonyMessage) -> Result<Self, crate::wire::Malformed> {
        Ok(Self {
            term: message.term,
            healing: message.healing,
            committed: message.committed.map(LogId::from_message).transpose()?,
            membership: message
                .membership
                .map(StoredMembership::from_message)
                .transpose()?
                .unwrap_or_default(),
            settled: message.settled,
            last: message.last,
        })
    }
}

impl Testimony {
    /// Of this node.
    pub(crate) fn of(engine: &Engine, pulse: &Pulse) -> Self {
        let metrics = engine.metrics();
        let metrics = metrics.borrow_watched();
        let leads = metrics.state == ServerState::Leader && metrics.running_state.is_ok();
        Self {
            term: metrics.current_term,
            healing: pulse.is_healing(),
            committed: metrics.local_committed.filter(|_| leads),
            last: metrics.last_log_index.filter(|_| leads),
            membership: (*metrics.membership_config).clone(),
            settled: metrics.membership_config.log_id()
                == metrics.committed_membership_config.log_id(),
        }
    }
}

/// How many of `voters` besides `id` must have answered, so that each quorum of `voters` with `id` in it has one of them.
fn enough(voters: &BTreeSet<NodeId>, id: NodeId) -> usize {
    if !voters.contains(&id) {
        return 0;
    }
    let quorum = voters.len() / 2 + 1;
    voters.len() - quorum + 1
}

/// Whether those who answered meet every quorum that `id` can have been part of.
fn met(sets: &[BTreeSet<NodeId>], id: NodeId, heard: &BTreeMap<NodeId, u64>) -> bool {
    sets.iter().all(|voters| {
        let answered = voters.iter().filter(|voter| heard.contains_key(voter));
        answered.count() >= enough(voters, id)
    })
}

/// The work of a healing manager.
pub(crate) struct Healer {
    pub(crate) id: NodeId,
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) pulse: Arc<Pulse>,
    pub(crate) view: Arc<View>,
    pub(crate) home: Arc<Home>,
}

impl Healer {
    /// Runs until this node may take part again.
    pub(crate) async fn run(self, mut stop: watch::Receiver<bool>) {
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => {}
            () = self.heal() => {}
        }
    }

    async fn heal(&self) {
        let mut membership = self.home.record().membership;
        let mut heard = BTreeMap::new();
        let mut goal: Option<Goal> = None;
        loop {
            let answers = self.ask(&membership).await;
            for (from, answer) in &answers {
                if !answer.healing {
                    heard.insert(*from, answer.term);
                }
                if answer.membership.log_id() > membership.log_id() {
                    if answer.settled && answer.membership.membership().get_node(&self.id).is_none()
                    {
                        self.pulse.set_removed();
                    }
                    membership = answer.membership.clone();
                }
            }
            if self.pulse.trusted_term().is_none() && met(&voter_sets(&membership), self.id, &heard)
            {
                let term = heard.values().copied().max().unwrap_or(0);
                tracing::info!(
                    term,
                    "healing: enough managers have answered, the log is fetched now"
                );
                self.pulse.trust_term(term);
            }
            if let Some(term) = self.pulse.trusted_term() {
                let offered = answers.values().filter_map(|answer| goal_of(answer, term));
                goal = offered.fold(goal, newer);
            }
            let reached = |goal: Goal| self.view.applied_index() >= Some(goal.index);
            if goal.is_some_and(reached) && self.healed() {
                return;
            }
            tokio::time::sleep(self.pulse.profile.heartbeat() * ROUND_HEARTBEATS).await;
        }
    }

    /// Asks everybody at once.
    async fn ask(&self, membership: &StoredMembership) -> BTreeMap<NodeId, Testimony> {
        let deadline = self.pulse.profile.heartbeat() * ROUND_HEARTBEATS;
        let members = crate::home::addresses(membership);
        let calls =
            members
                .iter()
                .filter(|(id, _)| **id != self.id)
                .map(|(id, member)| async move {
                    let call =
                        self.transport
                            .call(*id, member, RpcKind::Probe, Bytes::new(), deadline);
                    match call.await {
                        Ok(answer) => Testimony::decode(answer).ok().map(|answer| (*id, answer)),
                        Err(crate::TransportError::Removed { .. }) => {
                            self.pulse.set_removed();
                            None
                        }
                        Err(_) => None,
                    }
                });
        join_all(calls).await.into_iter().flatten().collect()
    }

    /// Everything is here again; false when that cannot be noted on the disk.
    fn healed(&self) -> bool {
        if let Err(error) = self.home.change(|record| record.healing = false) {
            tracing::warn!(%error, "healed, but that cannot be stored; trying again");
            return false;
        }
        tracing::info!("healed: this manager takes part in elections again");
        self.pulse.set_healing(false);
        true
    }
}

/// What must be applied: the end of the log of the leader of this term.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Goal {
    term: u64,
    index: u64,
}

/// The goal that the answer of a leader gives whose term counts.
fn goal_of(answer: &Testimony, term: u64) -> Option<Goal> {
    let committed = answer.committed?;
    let index = answer
        .last
        .map_or(committed.index, |last| last.max(committed.index));
    let counts = answer.term >= term && committed.leader_id.term == answer.term;
    counts.then_some(Goal {
        term: answer.term,
        index,
    })
}

/// The first answer in a term stands, for its leader's log only grows; that of a later term replaces it. The end of a log may
/// be entries that are never committed, so that an idle cluster under another leader would never come so far. And whatever
/// can be committed of them is in that leader's log: it was elected by those who hold it.
fn newer(goal: Option<Goal>, offered: Goal) -> Option<Goal> {
    Some(
        goal.filter(|goal| goal.term >= offered.term)
            .unwrap_or(offered),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The entry behind the committed ones may be the one that was acknowledged.
    #[test]
    fn the_goal_is_the_end_of_the_log_of_a_leader_that_counts() {
        let answer = |term, committed_in, last| Testimony {
            term,
            healing: false,
            committed: Some(crate::types::log_id(committed_in, 7)),
            last,
            membership: StoredMembership::default(),
            settled: true,
        };
        let goal = |term, index| Goal { term, index };
        assert_eq!(goal_of(&answer(3, 3, Some(9)), 3), Some(goal(3, 9)));
        // From a manager of an older release.
        assert_eq!(goal_of(&answer(3, 3, None), 3), Some(goal(3, 7)));
        // Nothing committed in its own term yet; a term that does not count.
        assert_eq!(goal_of(&answer(3, 2, Some(9)), 3), None);
        assert_eq!(goal_of(&answer(3, 3, Some(9)), 4), None);
        // A later leader may never have had what the one before waited for.
        assert_eq!(newer(None, goal(3, 9)), Some(goal(3, 9)));
        assert_eq!(newer(Some(goal(3, 9)), goal(3, 12)), Some(goal(3, 9)));
        assert_eq!(newer(Some(goal(3, 9)), goal(4, 8)), Some(goal(4, 8)));
        assert_eq!(newer(Some(goal(4, 8)), goal(3, 9)), Some(goal(4, 8)));
    }

    #[test]
    fn those_who_answer_meet_every_quorum_with_the_healing_one() {
        for size in 2..8_u128 {
            let voters: Vec<u128> = (0..size).collect();
            let set: BTreeSet<NodeId> = voters.iter().map(|id| NodeId::from_u128(*id)).collect();
            let enough = enough(&set, NodeId::from_u128(0));
            let quorum = set.len() / 2 + 1;
            for answered in (0..1_u32 << size).filter(|bits| bits & 1 == 0) {
                let all_met = (0..1_u32 << size)
                    .filter(|bits| bits & 1 == 1 && bits.count_ones() as usize >= quorum)
                    .all(|quorum| quorum & answered != 0);
                if answered.count_ones() as usize >= enough {
                    assert!(all_met, "{size} voters, {answered:b} answered");
                }
            }
            assert!(enough < set.len(), "all others are enough");
        }
    }
}
