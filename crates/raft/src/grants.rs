//! What the followers grant: for how long each votes for nobody else after it heard its leader.
//!
//! Managers run different [profiles](crate::Profile) while a cluster moves from one to the other. A follower with short times
//! grants a short lease, and a leader with long times must not count on more. So each answer to an append says what was
//! granted, and the leader counts on the shortest that it was told, never on more than its own.

use crate::config::Profile;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;
use warren_types::NodeId;

/// A lease that was told once holds for its follower until nothing shorter was told for so long. It is longer than the
/// deadline of any message between managers, so that an answer from before the follower was restarted with shorter times
/// cannot come after this.
const RAISED_AFTER: Duration = Duration::from_secs(60);

/// No follower has told anything.
const NOTHING: u64 = u64::MAX;

#[derive(Debug, Clone, Copy)]
struct Grant {
    lease_ms: u64,
    told: Instant,
    /// What was told last, whether or not it counts yet.
    said_ms: u64,
}

#[derive(Debug, Default)]
struct Told {
    /// The leader's term in which it was told.
    term: u64,
    by: BTreeMap<NodeId, Grant>,
}

/// The grants to this node as a leader.
#[derive(Debug)]
pub(crate) struct Grants {
    told: Mutex<Told>,
    /// Shortest of them, in milliseconds.
    shortest: AtomicU64,
}

impl Default for Grants {
    fn default() -> Self {
        Self {
            told: Mutex::default(),
            shortest: AtomicU64::new(NOTHING),
        }
    }
}

impl Grants {
    /// A follower has answered this leader in `term`; `None` is what a release that knows one profile only says. To be
    /// called before the answer counts for anything. True when the term, or the shortest grant, is
    /// another one now.
    pub(crate) fn tell(&self, term: u64, from: NodeId, lease_ms: Option<u64>) -> bool {
        let lease_ms = lease_ms.unwrap_or(Profile::Lan.lease_ms());
        let now = Instant::now();
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if term < told.term {
            return false;
        }
        let newer = term > told.term;
        if newer {
            told.term = term;
            told.by.clear();
        }
        let fresh = Grant {
            lease_ms,
            told: now,
            said_ms: lease_ms,
        };
        let over = |grant: &Grant| now.duration_since(grant.told) > RAISED_AFTER;
        let grant = told.by.entry(from).or_insert(fresh);
        grant.said_ms = lease_ms;
        if lease_ms <= grant.lease_ms || over(grant) {
            *grant = fresh;
        }
        // Those that have said nothing for so long count in no quorum of a lease.
        told.by.retain(|_, grant| !over(grant));
        let shortest = told.by.values().map(|grant| grant.lease_ms).min();
        let shortest = shortest.unwrap_or(NOTHING);
        self.shortest.swap(shortest, Ordering::AcqRel) != shortest || newer
    }

    /// A follower has answered something that says nothing of a lease.
    pub(crate) fn tell_nothing(&self, term: u64, from: NodeId) {
        let known = {
            let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
            told.term >= term && told.by.contains_key(&from)
        };
        if !known {
            self.tell(term, from, None);
        }
    }

    /// The lease that a follower granted last, in milliseconds.
    pub(crate) fn said(&self, follower: NodeId) -> Option<u64> {
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.by.get(&follower).map(|grant| grant.said_ms)
    }

    /// What a leader with these times may count on.
    pub(crate) fn lease(&self, own: Profile) -> Duration {
        let granted = self.shortest.load(Ordering::Acquire);
        Duration::from_millis(granted.min(own.lease_ms()))
    }

    /// How often followers with shorter times than a leader's own need to hear it, besides its own heartbeats; `None` when
    /// there are none such.
    pub(crate) fn pace(&self, own: Profile) -> Option<Duration> {
        let granted = self.shortest.load(Ordering::Acquire);
        (granted < own.lease_ms())
            .then(|| Duration::from_millis(granted / own.heartbeats_per_lease()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAN: Option<u64> = Some(Profile::Lan.lease_ms());
    const WAN: Option<u64> = Some(Profile::Wan.lease_ms());

    fn node(number: u128) -> NodeId {
        NodeId::from_u128(number)
    }

    fn lease(grants: &Grants) -> u64 {
        u64::try_from(grants.lease(Profile::Wan).as_millis()).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn the_shortest_grant_counts_and_never_more_than_the_own_lease() {
        let grants = Grants::default();
        assert_eq!(lease(&grants), 3_000, "alone");
        grants.tell(1, node(2), WAN);
        assert_eq!(lease(&grants), 3_000);
        assert_eq!(grants.pace(Profile::Wan), None);
        assert!(grants.tell(1, node(3), LAN), "it is shorter");
        assert_eq!(lease(&grants), 300);
        assert_eq!(
            grants.pace(Profile::Wan),
            Some(Duration::from_millis(Profile::Lan.heartbeat_ms()))
        );
        assert_eq!(grants.pace(Profile::Lan), None);
        assert_eq!(
            grants.lease(Profile::Lan),
            Duration::from_millis(Profile::Lan.lease_ms())
        );
        // An answer from an earlier term changes nothing, a new term begins anew.
        assert!(!grants.tell(0, node(3), WAN));
        assert_eq!(lease(&grants), 300);
        grants.tell(2, node(2), WAN);
        assert_eq!(lease(&grants), 3_000);
        grants.tell(2, node(3), None);
        assert_eq!(lease(&grants), 300, "an older release grants the LAN lease");
    }

    #[tokio::test(start_paused = true)]
    async fn a_late_answer_from_before_a_restart_lengthens_nothing() {
        let grants = Grants::default();
        grants.tell(1, node(2), WAN);
        grants.tell(1, node(2), LAN);
        assert!(!grants.tell(1, node(2), WAN), "that one was under way");
        assert_eq!(lease(&grants), 300);
        tokio::time::advance(RAISED_AFTER + Duration::from_millis(1)).await;
        assert!(grants.tell(1, node(2), WAN), "nothing is under way so long");
        assert_eq!(lease(&grants), 3_000);
    }

    #[tokio::test(start_paused = true)]
    async fn a_snapshot_says_nothing_of_a_lease() {
        let grants = Grants::default();
        grants.tell_nothing(1, node(2));
        assert_eq!(lease(&grants), 300, "so nothing more is counted on");
        grants.tell(2, node(2), WAN);
        grants.tell_nothing(2, node(2));
        assert_eq!(lease(&grants), 3_000);
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_gone_for_long_is_not_waited_for() {
        let grants = Grants::default();
        grants.tell(1, node(2), LAN);
        tokio::time::advance(RAISED_AFTER + Duration::from_millis(1)).await;
        grants.tell(1, node(3), WAN);
        assert_eq!(lease(&grants), 3_000);
    }
}
