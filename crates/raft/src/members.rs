//! Who belongs to the cluster, and who leads it.

use crate::error::RaftError;
use crate::handle::{Figures, RaftHandle, target};
use crate::types::{Member, Types};
use openraft::ChangeMembers;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{ChangeMembershipError, ClientWriteError, RaftError as EngineError};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::time::Instant;
use warren_types::NodeId;

/// Pause before a change of the members is tried again because another one is under way.
const BUSY_RETRY: Duration = Duration::from_millis(20);

type Change = ChangeMembers<NodeId, Member>;

fn made_by(figures: &Figures) -> u64 {
    let entry = figures.membership_config.log_id();
    entry.as_ref().map_or(0, |entry| entry.index)
}

impl RaftHandle {
    /// The members: those with a vote, and those that receive the log but have none (yet).
    #[must_use]
    pub fn members(&self) -> (BTreeMap<NodeId, Member>, BTreeMap<NodeId, Member>) {
        let metrics = self.inner.figures.borrow_watched();
        let membership = metrics.membership_config.membership();
        let voters: BTreeSet<NodeId> = membership.voter_ids().collect();
        membership
            .nodes()
            .map(|(id, member)| (*id, member.clone()))
            .partition(|(id, _)| voters.contains(id))
    }

    /// Index of the entry that made the members what they are; 0 before there is one.
    #[must_use]
    pub fn members_since(&self) -> u64 {
        made_by(&self.inner.figures.borrow_watched())
    }

    /// Returns when the members are no longer those of this entry (see [`RaftHandle::members_since`]).
    pub async fn members_changed(&self, since: u64) {
        let mut figures = self.inner.figures.clone();
        if figures.wait_for(|now| made_by(now) != since).await.is_err() {
            // The engine has ended: they do not change any more.
            std::future::pending().await
        }
    }

    /// Members that the newest membership lets go while that is not committed: the next leader may still count on them.
    #[must_use]
    pub fn leaving(&self) -> BTreeMap<NodeId, Member> {
        let metrics = self.inner.engine.metrics();
        let metrics = metrics.borrow_watched();
        let newest = metrics.membership_config.membership();
        let committed = metrics.committed_membership_config.membership();
        committed
            .nodes()
            .filter(|(id, _)| newest.get_node(id).is_none())
            .map(|(id, member)| (*id, member.clone()))
            .collect()
    }

    /// Adds a manager that receives the log but has no vote yet. Returns when that is durable; it may lag still (see
    /// [`RaftHandle::caught_up`]). One that is a member already keeps its role.
    pub async fn add_learner(&self, id: NodeId, member: Member) -> Result<(), RaftError> {
        let (voters, learners) = self.members();
        if voters.contains_key(&id) || learners.contains_key(&id) {
            return self.update_member(id, member).await;
        }
        self.change(
            ChangeMembers::AddNodes(BTreeMap::from([(id, member)])),
            true,
        )
        .await
    }

    /// Makes exactly these managers the voters; each must be a learner or voter already. Others lose their vote and,
    /// unless `keep_others`, their membership.
    pub async fn set_voters(
        &self,
        voters: BTreeSet<NodeId>,
        keep_others: bool,
    ) -> Result<(), RaftError> {
        let (known, _) = self.members();
        for new in voters.iter().filter(|id| !known.contains_key(id)) {
            // One with an empty log votes for nobody who has more: with too many of those nobody could be elected.
            self.wait_caught_up(*new, u64::MAX, self.inner.propose_timeout)
                .await?;
        }
        self.change(ChangeMembers::ReplaceAllVoters(voters), keep_others)
            .await
    }

    /// Tells everybody the new name or address of a member.
    pub async fn update_member(&self, id: NodeId, member: Member) -> Result<(), RaftError> {
        let (voters, learners) = self.members();
        match voters.get(&id).or_else(|| learners.get(&id)) {
            None => Err(RaftError::Membership(format!("node {id} is no member"))),
            Some(known) if *known == member => self.lead().map(drop),
            Some(_) => {
                self.change(
                    ChangeMembers::SetNodes(BTreeMap::from([(id, member)])),
                    true,
                )
                .await
            }
        }
    }

    /// Removes a member, whether it has a vote or not. One that is no member is no error. A leader that removes itself
    /// leads until that is committed and hands over then.
    pub async fn remove_member(&self, id: NodeId) -> Result<(), RaftError> {
        let (voters, learners) = self.members();
        let ids = BTreeSet::from([id]);
        if voters.contains_key(&id) {
            if voters.len() == 1 {
                return Err(RaftError::Membership(format!(
                    "node {id} is the only manager with a vote"
                )));
            }
            self.change(ChangeMembers::RemoveVoters(ids), false).await
        } else if learners.contains_key(&id) {
            self.change(ChangeMembers::RemoveNodes(ids), false).await
        } else {
            self.lead().map(drop)
        }
    }

    /// Whether a member lacks at most `max_lag` entries of this leader's log. False when this node does not lead.
    #[must_use]
    pub fn caught_up(&self, id: NodeId, max_lag: u64) -> bool {
        let metrics = self.inner.figures.borrow_watched();
        if id == self.inner.id {
            return metrics.state == openraft::ServerState::Leader;
        }
        let matched = metrics
            .replication
            .as_ref()
            .and_then(|replication| replication.get(&id).copied().flatten());
        let last = metrics.last_log_index.unwrap_or(0);
        matched.is_some_and(|matched| last.saturating_sub(matched.index) <= max_lag)
    }

    /// Waits until [`RaftHandle::caught_up`]; an error when the time is over.
    pub async fn wait_caught_up(
        &self,
        id: NodeId,
        max_lag: u64,
        limit: Duration,
    ) -> Result<(), RaftError> {
        let mut metrics = self.inner.engine.metrics();
        let wait = async {
            while !self.caught_up(id, max_lag) {
                self.lead()?;
                metrics.changed().await.map_err(|_| self.stopped())?;
            }
            Ok(())
        };
        tokio::time::timeout(limit, wait).await.unwrap_or_else(|_| {
            Err(RaftError::Membership(format!(
                "node {id} has not caught up within {limit:?}; see whether it runs and can be reached"
            )))
        })
    }

    /// Hands leadership to the voter that has most of the log and was heard lately, and returns it once it leads.
    /// From the call on this node takes no proposals. When the time is over somebody is elected anyway, soon after.
    pub async fn hand_over(&self, limit: Duration) -> Result<NodeId, RaftError> {
        self.lead()?;
        let Some(to) = self.successor() else {
            return Err(RaftError::Membership(
                "there is no other manager with a vote in contact to hand over to".to_owned(),
            ));
        };
        self.transfer_leadership(to).await?;
        let mut leadership = self.leadership();
        let id = self.inner.id;
        let other = leadership.wait_for(|now| now.leader.is_some_and(|leader| leader != id));
        match tokio::time::timeout(limit, other).await {
            Ok(Ok(now)) => Ok(now.leader.unwrap_or(to)),
            Ok(Err(_)) => Err(self.stopped()),
            Err(_) => Err(RaftError::Membership(format!(
                "node {to} has not taken over within {limit:?}; another one is elected by itself"
            ))),
        }
    }

    /// The voter to hand over to.
    fn successor(&self) -> Option<NodeId> {
        let fresh = self.inner.pulse.profile.election_max();
        let peers = self.peers();
        let candidates = peers.into_iter().filter(|(_, peer)| {
            peer.voter && peer.last_contact.is_some_and(|silence| silence < fresh)
        });
        candidates
            .max_by_key(|(_, peer)| (peer.matched, std::cmp::Reverse(peer.last_contact)))
            .map(|(id, _)| id)
    }

    /// Asks another voter to take over leadership; does not wait for it.
    pub async fn transfer_leadership(&self, to: NodeId) -> Result<(), RaftError> {
        crate::lease::give_away(&self.inner.engine, &self.inner.pulse, to)
            .await
            .map_err(|_| self.stopped())
    }

    /// An error unless this node leads.
    fn lead(&self) -> Result<(), RaftError> {
        let leadership = self.inner.leadership.borrow();
        if leadership.is_leader {
            return Ok(());
        }
        let leader = leadership.leader;
        let address = leader
            .and_then(|leader| self.inner.pulse.member(leader))
            .map_or_else(String::new, |member| member.address);
        Err(RaftError::NotLeader { leader, address })
    }

    /// Changes the members, through a joint configuration where voters change. Waits for a change that is under way.
    async fn change(&self, change: Change, retain: bool) -> Result<(), RaftError> {
        let deadline = Instant::now() + self.inner.propose_timeout;
        loop {
            self.lead()?;
            // One that was voted out leads until that is committed, and begins nothing more.
            if !self.members().0.contains_key(&self.inner.id) {
                return Err(RaftError::NotLeader {
                    leader: None,
                    address: String::new(),
                });
            }
            let request = self.inner.engine.change_membership(change.clone(), retain);
            let error = match tokio::time::timeout_at(deadline, request).await {
                Ok(Ok(_)) => return Ok(()),
                Ok(Err(error)) => error,
                Err(_) => return Err(RaftError::NoQuorum),
            };
            let busy = matches!(
                &error,
                EngineError::APIError(ClientWriteError::ChangeMembershipError(
                    ChangeMembershipError::InProgress(_)
                ))
            );
            if !busy || Instant::now() + BUSY_RETRY >= deadline {
                return Err(self.membership_error(error));
            }
            tokio::time::sleep(BUSY_RETRY).await;
        }
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
