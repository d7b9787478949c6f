//! An election before its time, when the leader's process is gone.
//!
//! A follower that hears nothing waits for its lease and then for a random while longer, because silence may be a bad
//! line. When the leader's host answers that nobody listens at its address any more, it is not: the process has ended, and
//! one that is started again does not lead. Then the follower campaigns as soon as the lease is over. Nothing
//! else is different: the lease that it granted, those of the others, and the pre-vote stand as they are, so a wrong answer (a
//! firewall that refuses in another's name) can take no leader away whom a quorum hears.

use crate::config::Profile;
use crate::handle::Engine;
use crate::pulse::Pulse;
use crate::runtime::PATIENCE;
use crate::status::Leadership;
use crate::transport::{RpcKind, Transport};
use bytes::Bytes;
use openraft::async_runtime::watch::WatchReceiver;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use warren_types::NodeId;

/// What a follower knows of a leader that it does not hear. Times are since the last word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Silence {
    /// How long it lasts.
    lasts: Duration,
    /// When the leader's address was last tried.
    tried: Option<Duration>,
    /// Whether it said that the process is gone.
    gone: bool,
    /// When this node last campaigned.
    campaigned: Option<Duration>,
    /// When another node last asked for this one's vote.
    asked: Option<Duration>,
    /// How many of the other voters come before this one.
    rank: u32,
}

/// What to do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Nothing, until the silence has lasted so long.
    WaitUntil(Duration),
    /// Try the leader's address.
    Try,
    /// Stand for election.
    Campaign,
}

impl Silence {
    fn step(&self, profile: Profile) -> Step {
        let (due, step) = if self.gone {
            let again = |at| at + profile.heartbeat() * PATIENCE;
            let due = self.campaigned.map_or_else(|| self.turn(profile), again);
            // Whoever is before this one gets the time to win.
            let other = self.asked.map(|at| at + profile.heartbeat());
            (other.map_or(due, |other| due.max(other)), Step::Campaign)
        } else {
            // Early enough that the answer is there when the lease is over, late enough that a live leader is hardly tried.
            let again = |at| at + profile.heartbeat();
            (self.tried.map_or(profile.lease() / 2, again), Step::Try)
        };
        if self.lasts >= due {
            step
        } else {
            Step::WaitUntil(due)
        }
    }

    /// When this node campaigns: a moment after its lease, because the others may have heard the leader a moment later; and
    /// one after the other, so that they do not divide the votes.
    fn turn(&self, profile: Profile) -> Duration {
        profile.lease() + profile.heartbeat() / 5 + profile.heartbeat() / 2 * self.rank
    }
}

/// How many voters come before `id` when `leader` is gone: all know the same order, without a word.
fn rank(voters: impl Iterator<Item = NodeId>, leader: NodeId, id: NodeId) -> u32 {
    let before = voters.filter(|voter| *voter != leader && *voter < id);
    u32::try_from(before.count()).unwrap_or(u32::MAX)
}

/// Watches the leader of a follower.
pub(crate) struct EarlyElections {
    pub(crate) id: NodeId,
    pub(crate) engine: Engine,
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) pulse: Arc<Pulse>,
    pub(crate) leadership: watch::Receiver<Leadership>,
}

impl EarlyElections {
    /// Runs until the engine stops.
    pub(crate) async fn run(mut self, mut stop: watch::Receiver<bool>) {
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => {}
            () = self.watch() => {}
        }
    }

    async fn watch(&mut self) {
        loop {
            let leader = self.leadership.borrow_and_update().leader;
            let others = leader.filter(|leader| *leader != self.id);
            let mut leadership = self.leadership.clone();
            let changed = async {
                let changed = leadership.wait_for(|now| now.leader != leader);
                changed.await.is_ok()
            };
            let follow = async {
                match others {
                    Some(leader) => self.follow(leader).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                known = changed => if !known { return },
                () = follow => return,
            }
        }
    }

    /// Follows this leader until the engine ends.
    async fn follow(&self, leader: NodeId) {
        let mut silence = Silence::default();
        let mut since: Option<Instant> = None;
        loop {
            let Some(heard) = self.pulse.heard_at() else {
                // Known from the log of an earlier life only: there is no lease that could be waited for.
                tokio::time::sleep(self.pulse.profile.heartbeat()).await;
                continue;
            };
            if since != Some(heard) {
                since = Some(heard);
                silence = Silence::default();
            }
            let asked = self.pulse.asked_at();
            silence.asked = asked.and_then(|at| at.checked_duration_since(heard));
            silence.lasts = heard.elapsed();
            match silence.step(self.pulse.profile) {
                Step::WaitUntil(due) => tokio::time::sleep_until(heard + due).await,
                Step::Try => {
                    silence.tried = Some(silence.lasts);
                    silence.gone = self.is_gone(leader).await;
                    if silence.gone && self.pulse.heard_at() == since {
                        silence.rank = self.prepare(leader);
                    }
                }
                Step::Campaign => {
                    silence.campaigned = Some(silence.lasts);
                    if !self.campaign(leader).await {
                        return;
                    }
                }
            }
        }
    }

    async fn is_gone(&self, leader: NodeId) -> bool {
        let Some(member) = self.pulse.member(leader) else {
            return false;
        };
        let limit = self.pulse.profile.lease();
        self.transport.is_gone(leader, &member, limit).await
    }

    /// Finds this node's rank, and speaks to the others, so that the connections to them are open when votes are asked for.
    fn prepare(&self, leader: NodeId) -> u32 {
        let metrics = self.engine.metrics();
        let known = metrics.borrow_watched().membership_config.clone();
        let membership = known.membership();
        let others: BTreeMap<_, _> = membership
            .nodes()
            .filter(|(id, _)| **id != self.id && **id != leader)
            .filter_map(|(id, _)| Some((*id, self.pulse.member(*id)?)))
            .collect();
        let deadline = self.pulse.profile.heartbeat() * PATIENCE;
        for (id, member) in others {
            let transport = Arc::clone(&self.transport);
            crate::runtime::spawn(async move {
                // The answer does not matter, nor does it that there is none.
                let ask = transport.call(id, &member, RpcKind::Probe, Bytes::new(), deadline);
                drop(ask.await);
            });
        }
        rank(membership.voter_ids(), leader, self.id)
    }

    /// Whether this node is a voter as far as it knows. openraft looks only before elections that it begins itself; a learner
    /// that was elected would lead for ever and could change no members (seed 317 of the simulator).
    fn has_vote(&self) -> bool {
        let metrics = self.engine.metrics();
        let metrics = metrics.borrow_watched();
        let membership = metrics.membership_config.membership();
        membership.voter_ids().any(|voter| voter == self.id)
    }

    /// Asks for votes; openraft does nothing while the lease lasts. False when the engine has ended.
    async fn campaign(&self, leader: NodeId) -> bool {
        if self.pulse.is_healing() || Instant::now() < self.pulse.hold_until || !self.has_vote() {
            return true;
        }
        tracing::info!(%leader, "the leader's process is gone: standing for election");
        self.engine.trigger().elect(true).await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn the_leader_is_tried_within_the_lease_and_replaced_only_after_it() {
        for profile in [Profile::Lan, Profile::Wan] {
            let lease = profile.lease();
            let quiet = Silence::default();
            assert_eq!(quiet.step(profile), Step::WaitUntil(lease / 2));
            assert!(
                lease / 2 > profile.heartbeat(),
                "a live leader is not tried"
            );
            let silent = Silence {
                lasts: lease / 2,
                ..quiet
            };
            assert_eq!(silent.step(profile), Step::Try);
            // Not gone: tried again, never more.
            for beats in 0..50 {
                let tried = lease / 2 + profile.heartbeat() * beats;
                let again = tried + profile.heartbeat();
                let mut waiting = Silence {
                    lasts: tried,
                    tried: Some(tried),
                    ..quiet
                };
                assert_eq!(waiting.step(profile), Step::WaitUntil(again));
                waiting.lasts = again;
                assert_eq!(waiting.step(profile), Step::Try);
            }
            for rank in 0..7 {
                let mut gone = Silence {
                    lasts: lease / 2,
                    tried: Some(lease / 2),
                    gone: true,
                    rank,
                    ..quiet
                };
                let Step::WaitUntil(turn) = gone.step(profile) else {
                    panic!("{gone:?} does not wait");
                };
                assert!(turn > lease, "{turn:?}");
                gone.lasts = turn;
                assert_eq!(gone.step(profile), Step::Campaign);
                gone.campaigned = Some(turn);
                let again = turn + profile.heartbeat() * PATIENCE;
                assert_eq!(gone.step(profile), Step::WaitUntil(again));
            }
        }
        let first = Silence {
            gone: true,
            ..Silence::default()
        };
        assert_eq!(first.step(Profile::Lan), Step::WaitUntil(ms(320)));
        let second = Silence { rank: 1, ..first };
        assert_eq!(second.step(Profile::Lan), Step::WaitUntil(ms(370)));
        // Not beside one who is at it.
        let asked = Silence {
            asked: Some(ms(330)),
            lasts: ms(400),
            ..second
        };
        assert_eq!(asked.step(Profile::Lan), Step::WaitUntil(ms(430)));
    }

    #[test]
    fn followers_take_turns() {
        let nodes: Vec<NodeId> = (1..8).map(NodeId::from_u128).collect();
        for leader in &nodes {
            let others = nodes.iter().filter(|id| *id != leader);
            let ranks: Vec<u32> = others
                .map(|id| rank(nodes.iter().copied(), *leader, *id))
                .collect();
            assert_eq!(ranks, (0..6).collect::<Vec<u32>>());
        }
    }
}
