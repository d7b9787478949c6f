//! Where a call is carried out: here, or by the leader.
//!
//! On the leader every call but the local ones passes a read barrier first (by lease: no message), so that what it reads
//! before it proposes is never older than what was acknowledged, and a leader without a quorum refuses at once.

use crate::control::Control;
use crate::quorum::peers::Peers;
use crate::quorum::waiting::Waiting;
use async_trait::async_trait;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use warren_api::{ApiError, Caller, Freshness, Route, Router, Stamp, Standing};
use warren_proto::authz::{Place, Rule};
use warren_raft::{Leadership, Profile, RaftHandle, ReadError};
use warren_types::{NodeId, Role};

/// How much longer than an election may take a call waits for one that is under way.
const ELECTION_MARGIN: Duration = Duration::from_millis(100);
/// A manager that has been outside the quorum for this much longer than an election may take refuses at once.
const OUTSIDE_MARGIN: Duration = Duration::from_millis(1_400);
/// How long a follower may take to get ready for a linearizable read.
const READ_LIMIT: Duration = Duration::from_secs(1);

pub(crate) struct Routes {
    pub(crate) control: Arc<Control>,
    pub(crate) peers: Arc<Peers>,
    pub(crate) waiting: Arc<Waiting>,
}

/// The leader, elsewhere.
struct Leader {
    node: NodeId,
    address: String,
}

impl Routes {
    fn stamp(&self) -> Stamp {
        let contact = self.control.raft.contact();
        Stamp {
            stale: (!contact.in_quorum).then_some(contact.silence),
            revision: self.control.raft.state().revision().0,
        }
    }

    fn fresh(&self) -> Stamp {
        Stamp {
            stale: None,
            revision: self.control.raft.state().revision().0,
        }
    }

    /// The leader when it is another manager and in reach as far as is known here.
    fn leader(&self, leadership: &Leadership) -> Option<Leader> {
        if leadership.is_leader || !self.control.raft.contact().in_quorum {
            return None;
        }
        let node = leadership.leader?;
        let address = address(&self.control.raft, node)?;
        Some(Leader { node, address })
    }

    /// Here when this manager leads, else over to the leader; waits a moment for an election.
    async fn to_leader(&self, forwarded: bool) -> Result<Route, ApiError> {
        let mut leadership = self.control.raft.leadership();
        let election = election(self.control.raft.profile());
        let until = Instant::now() + election + ELECTION_MARGIN;
        loop {
            let now = leadership.borrow_and_update().clone();
            if now.ready {
                match self.control.raft.read_barrier().await {
                    Ok(()) => return Ok(Route::Here(self.fresh())),
                    Err(ReadError::NotLeader { .. }) => {}
                    Err(error) => return Err(no_quorum(&error)),
                }
            } else if let Some(leader) = self.leader(&now) {
                return self.link(leader, forwarded).await;
            }
            let outside = self.control.raft.contact().silence;
            let limit = election + OUTSIDE_MARGIN;
            if !now.is_leader && outside.is_none_or(|silence| silence > limit) {
                return Err(outside_quorum());
            }
            let changed = tokio::time::timeout_at(until, leadership.changed()).await;
            if !matches!(changed, Ok(Ok(()))) {
                return Err(outside_quorum());
            }
        }
    }

    async fn link(&self, leader: Leader, forwarded: bool) -> Result<Route, ApiError> {
        let Leader { node, address } = leader;
        if forwarded {
            return Err(ApiError::NotTaken {
                what: "this manager does not lead any more".to_owned(),
                remedy: "the call is repeated by itself; else try again in a moment".to_owned(),
                leader: Some(address),
            });
        }
        let lost = self.waiting.on(node);
        match self.peers.client(node, &address).channel().await {
            Ok(channel) => Ok(Route::Leader {
                node,
                address,
                channel,
                lost,
            }),
            Err(error) => Err(ApiError::NotTaken {
                what: format!(
                    "the leader at {address} cannot be reached from this manager: {error}"
                ),
                remedy: "ask another manager, or try again after the election".to_owned(),
                leader: None,
            }),
        }
    }

    async fn read(&self, freshness: Freshness) -> Result<Route, ApiError> {
        let leadership = self.control.raft.leadership().borrow().clone();
        if freshness == Freshness::Local && !leadership.is_leader {
            return Ok(Route::Here(self.stamp()));
        }
        match self.catch_up(&leadership).await {
            Ok(()) => Ok(Route::Here(self.fresh())),
            Err(error) if freshness == Freshness::Linearizable => Err(error),
            Err(_) => Ok(Route::Here(self.stamp_stale())),
        }
    }

    /// What could not be confirmed is marked, even when the silence is still short.
    fn stamp_stale(&self) -> Stamp {
        Stamp {
            stale: Some(self.control.raft.contact().silence),
            ..self.fresh()
        }
    }

    /// Returns when the state here holds everything that was acknowledged before.
    async fn catch_up(&self, leadership: &Leadership) -> Result<(), ApiError> {
        let raft = &self.control.raft;
        if leadership.is_leader {
            return raft.read_barrier().await.map_err(|e| no_quorum(&e));
        }
        let leader = self.leader(leadership).ok_or_else(outside_quorum)?;
        let client = self.peers.client(leader.node, &leader.address);
        let confirmed = async {
            let index = client
                .read_index(READ_LIMIT)
                .await
                .map_err(|e| e.to_string())?;
            raft.wait_applied(index, READ_LIMIT)
                .await
                .map_err(|e| e.to_string())
        };
        let unconfirmed = |what: String| ApiError::NotTaken {
            what,
            remedy: "ask the leader, or read without asking for the newest".to_owned(),
            leader: Some(leader.address.clone()),
        };
        match tokio::time::timeout(READ_LIMIT, confirmed).await {
            Ok(confirmed) => confirmed.map_err(unconfirmed),
            Err(_) => Err(unconfirmed("the leader did not answer in time".to_owned())),
        }
    }
}

/// Where a manager was last found: in the membership, which is newest, else in the state.
pub(crate) fn address(raft: &RaftHandle, node: NodeId) -> Option<String> {
    let (voters, learners) = raft.members();
    let member = voters.get(&node).or_else(|| learners.get(&node)).cloned();
    let listed = || raft.state().node(node).map(|n| n.address.clone());
    member
        .map(|member| member.address)
        .or_else(listed)
        .filter(|address| !address.is_empty())
}

/// The longest time from the last word of a leader to an election.
fn election(profile: Profile) -> Duration {
    Duration::from_millis(profile.election_ms().1)
}

fn no_quorum(error: &ReadError) -> ApiError {
    ApiError::NotTaken {
        what: error.to_string(),
        remedy: "`warren cluster info` shows which managers are missing".to_owned(),
        leader: None,
    }
}

fn outside_quorum() -> ApiError {
    ApiError::NotTaken {
        what: "this manager is outside the quorum: no leader is in reach, so nothing can be changed here".to_owned(),
        remedy: "ask another manager, bring managers back, or, when they are lost for good, run `warren cluster recover`".to_owned(),
        leader: None,
    }
}

#[async_trait]
impl Router for Routes {
    async fn route(
        &self,
        rule: &'static Rule,
        freshness: Freshness,
        forwarded: bool,
    ) -> Result<Route, ApiError> {
        match rule.place {
            Place::Here => Ok(Route::Here(self.stamp())),
            Place::Leader => self.to_leader(forwarded).await,
            Place::Anywhere => self.read(freshness).await,
            Place::LeaderIfKnown => {
                let leadership = self.control.raft.leadership().borrow().clone();
                match self.leader(&leadership) {
                    Some(leader) if !forwarded => self.link(leader, forwarded).await,
                    _ => self.read(freshness).await,
                }
            }
        }
    }

    fn standing(&self, caller: &Caller) -> Standing {
        let Some(node) = caller.node else {
            return Standing::Member;
        };
        let state = self.control.raft.state();
        if state.is_removed(node).is_some() {
            return Standing::Removed;
        }
        match state.node(node) {
            None => Standing::Unknown,
            Some(node) if caller.role == Role::Manager && !node.role.is_manager() => {
                Standing::Demoted
            }
            Some(_) => Standing::Member,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With long times of the protocol, too; and a client, which waits ten seconds, hears why before it gives up.
    #[test]
    fn a_call_waits_for_an_election_and_a_minority_refuses() {
        for (profile, wait_ms, outside_ms) in
            [(Profile::Lan, 700, 2_000), (Profile::Wan, 6_100, 7_400)]
        {
            let election = election(profile);
            assert_eq!((election + ELECTION_MARGIN).as_millis(), wait_ms);
            assert_eq!((election + OUTSIDE_MARGIN).as_millis(), outside_ms);
        }
    }
}
