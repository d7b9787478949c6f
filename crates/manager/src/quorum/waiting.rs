//! Calls on their way to the leader, and the moment when they are waited for no longer.
//!
//! A leader that dies breaks its connections, and with them the calls that it had. One that is frozen or cut off breaks nothing:
//! its callers would wait until somebody finds the connection dead, seconds after the next leader has been elected. So when
//! another leads, or nobody is heard any more, the old one is asked whether it still answers. One that does (it gave its
//! office away) gets the time to finish; one that does not is waited for no longer.

use crate::quorum::peers::Peers;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use warren_raft::{Member, Profile, RaftHandle, RpcKind, Transport as _, TransportError};
use warren_types::NodeId;

/// A leader of the past has to show within half so many heartbeats of the protocol that it still answers.
const ANSWER_HALF_HEARTBEATS: u64 = 5;
/// How often what is waited for is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// The same while nothing is waited for.
const LOOK_SELDOM: Duration = Duration::from_secs(1);

/// Who has calls of this manager.
#[derive(Default)]
pub(crate) struct Waiting {
    leaders: Mutex<BTreeMap<NodeId, watch::Sender<bool>>>,
}

impl Waiting {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<NodeId, watch::Sender<bool>>> {
        self.leaders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For one call to this leader: turns true when it is waited for no longer.
    pub(crate) fn on(&self, leader: NodeId) -> watch::Receiver<bool> {
        self.lock()
            .entry(leader)
            .or_insert_with(|| watch::Sender::new(false))
            .subscribe()
    }

    /// Leaders with calls that have not ended.
    fn open(&self) -> Vec<NodeId> {
        let mut leaders = self.lock();
        leaders.retain(|_, calls| calls.receiver_count() > 0);
        leaders.keys().copied().collect()
    }

    fn give_up(&self, leader: NodeId) {
        if let Some(calls) = self.lock().remove(&leader) {
            calls.send_replace(true);
        }
    }
}

/// Returns when what [`Waiting::on`] gave says so.
pub(crate) async fn given_up(lost: &mut watch::Receiver<bool>) {
    if lost.wait_for(|lost| *lost).await.is_err() {
        // The manager stops, and with it whatever waits.
        std::future::pending().await
    }
}

/// Of those who have calls, whoever may not answer any more: who leads no longer, and the leader too after silence.
fn doubtful(open: &[NodeId], leader: Option<NodeId>, in_quorum: bool) -> Vec<NodeId> {
    let doubted = open.iter().filter(|id| !in_quorum || Some(**id) != leader);
    doubted.copied().collect()
}

/// Gives up, for as long as the manager runs, whom there is no point in waiting for.
pub(crate) async fn watch(
    raft: RaftHandle,
    peers: Arc<Peers>,
    waiting: Arc<Waiting>,
    address: impl Fn(NodeId) -> Option<String>,
) {
    let mut leadership = raft.leadership();
    let limit = answer_limit(raft.profile());
    loop {
        let leader = leadership.borrow_and_update().leader;
        let open = waiting.open();
        for node in doubtful(&open, leader, raft.contact().in_quorum) {
            let answers = match address(node) {
                Some(address) => answers(&peers, node, address, limit).await,
                None => false,
            };
            if !answers {
                tracing::info!(%node, "the manager that led does not answer: calls on their way to it are ended");
                waiting.give_up(node);
            }
        }
        let pause = if open.is_empty() {
            LOOK_SELDOM
        } else {
            LOOK_EVERY
        };
        tokio::select! {
            biased;
            changed = leadership.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Time for a leader of the past to show that it still answers: 250 ms in one place, more where messages take long.
fn answer_limit(profile: Profile) -> Duration {
    Duration::from_millis(profile.heartbeat_ms() * ANSWER_HALF_HEARTBEATS / 2)
}

/// Whether a manager says anything at all.
async fn answers(peers: &Peers, node: NodeId, address: String, limit: Duration) -> bool {
    let member = Member {
        name: String::new(),
        address,
    };
    let asked = peers.call(node, &member, RpcKind::Probe, Bytes::new(), limit);
    match asked.await {
        Ok(_) | Err(TransportError::Refused { .. } | TransportError::Removed { .. }) => true,
        Err(TransportError::Timeout { .. } | TransportError::Unreachable { .. }) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leader_that_is_heard_is_not_doubted() {
        let (one, two) = (NodeId::from_u128(1), NodeId::from_u128(2));
        let open = [one, two];
        assert_eq!(doubtful(&open, Some(one), true), [two]);
        assert_eq!(doubtful(&open, Some(one), false), [one, two]);
        assert_eq!(doubtful(&open, None, false), [one, two]);
        assert_eq!(doubtful(&[], None, false), []);
    }

    #[test]
    fn giving_up_tells_those_who_wait_and_nobody_later() {
        let waiting = Waiting::default();
        let (one, two) = (NodeId::from_u128(1), NodeId::from_u128(2));
        let (first, second, other) = (waiting.on(one), waiting.on(one), waiting.on(two));
        assert_eq!(waiting.open(), [one, two]);
        waiting.give_up(one);
        assert!(*first.borrow() && *second.borrow());
        assert!(!*other.borrow() && !*waiting.on(one).borrow());
        drop(other);
        assert_eq!(waiting.open(), []);
    }
}
