//! Who was heard when, who leads, whether this node was removed: what the parts of the engine tell each other.

use crate::config::Profile;
use crate::grants::Grants;
use crate::lease::Leases;
use crate::types::Member;
use arc_swap::ArcSwap;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use warren_types::NodeId;

/// How this node stands to the quorum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Contact {
    /// Whether this node may believe that it is in touch with the quorum: it leads and a quorum acknowledged lately,
    /// or it follows and heard its leader lately (within twice the longest election timeout).
    pub in_quorum: bool,
    /// A leader: since a quorum last acknowledged. A follower: since it last heard a leader; none when it never has
    /// since it was started.
    pub silence: Option<Duration>,
}

#[derive(Debug, Default)]
struct Times {
    /// When a leader was last heard.
    heard: Option<Instant>,
    /// When another leader (or none) became known.
    changed: Option<Instant>,
    /// When another manager last asked for this one's vote.
    asked: Option<Instant>,
}

/// Shared by everything in the engine.
#[derive(Debug)]
pub(crate) struct Pulse {
    pub(crate) profile: Profile,
    /// What followers grant to this node.
    grants: Grants,
    times: Mutex<Times>,
    pub(crate) leader_changes: AtomicU64,
    pub(crate) elections: AtomicU64,
    /// Until then this node votes for nobody: before it was restarted it may have promised a leader not to.
    pub(crate) hold_until: Instant,
    removed: watch::Sender<bool>,
    healing: watch::Sender<bool>,
    /// While healing: leaders of this term or later may fill the log, plus one; 0 as long as none may.
    trusted: AtomicU64,
    /// Asks for a round of heartbeats now.
    pub(crate) beat: Notify,
    /// Where the members are now.
    members: ArcSwap<BTreeMap<NodeId, Member>>,
    /// In which terms the leader's lease counts.
    pub(crate) leases: Leases,
}

impl Pulse {
    pub(crate) fn new(profile: Profile, hold: Duration) -> Self {
        Self {
            profile,
            grants: Grants::default(),
            times: Mutex::default(),
            leader_changes: AtomicU64::new(0),
            elections: AtomicU64::new(0),
            hold_until: Instant::now() + hold,
            removed: watch::Sender::new(false),
            healing: watch::Sender::new(false),
            trusted: AtomicU64::new(0),
            beat: Notify::new(),
            members: ArcSwap::default(),
            leases: Leases::default(),
        }
    }

    /// A follower has answered an append of this leader; see [`Grants::tell`].
    pub(crate) fn granted(&self, term: u64, from: NodeId, lease_ms: Option<u64>) {
        if self.grants.tell(term, from, lease_ms) {
            // The pace of the heartbeats may be another one now.
            self.beat.notify_one();
        }
    }

    /// A follower has answered what says nothing of its lease.
    pub(crate) fn granted_nothing(&self, term: u64, from: NodeId) {
        self.grants.tell_nothing(term, from);
    }

    /// The times that a follower of this leader runs with, when it has said so.
    pub(crate) fn profile_of(&self, follower: NodeId) -> Option<Profile> {
        self.grants.said(follower).map(Profile::with_lease_ms)
    }

    /// How old an acknowledgement of a quorum may be for a read to rely on it: four fifths of the shortest lease that is
    /// granted, so that clocks may run apart by a fifth within a lease.
    pub(crate) fn read_lease(&self) -> Duration {
        self.grants.lease(self.profile) / 5 * 4
    }

    /// How often a leader is to be heard besides its own heartbeats; see [`Grants::pace`].
    pub(crate) fn pace(&self) -> Option<Duration> {
        self.grants.pace(self.profile)
    }

    fn times(&self) -> MutexGuard<'_, Times> {
        self.times.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A leader was heard just now.
    pub(crate) fn heard(&self) {
        self.times().heard = Some(Instant::now());
    }

    /// When a leader was last heard.
    pub(crate) fn heard_at(&self) -> Option<Instant> {
        self.times().heard
    }

    /// Another manager asks for this one's vote.
    pub(crate) fn asked(&self) {
        self.times().asked = Some(Instant::now());
    }

    /// When another manager last did so.
    pub(crate) fn asked_at(&self) -> Option<Instant> {
        self.times().asked
    }

    /// Time since a leader was heard.
    pub(crate) fn silence(&self) -> Option<Duration> {
        self.times().heard.map(|at| at.elapsed())
    }

    /// Another leader is known, or none any more.
    pub(crate) fn leader_changed(&self, known: bool) {
        self.times().changed = Some(Instant::now());
        if known {
            self.leader_changes.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Time since the leader changed.
    pub(crate) fn since_change(&self) -> Option<Duration> {
        self.times().changed.map(|at| at.elapsed())
    }

    /// This node is no member any more.
    pub(crate) fn set_removed(&self) {
        if !self.removed.send_replace(true) {
            tracing::warn!("this manager was removed from the cluster");
        }
    }

    pub(crate) fn removed(&self) -> watch::Receiver<bool> {
        self.removed.subscribe()
    }

    pub(crate) fn is_healing(&self) -> bool {
        *self.healing.borrow()
    }

    pub(crate) fn set_healing(&self, healing: bool) {
        self.healing.send_replace(healing);
    }

    pub(crate) fn healing(&self) -> watch::Receiver<bool> {
        self.healing.subscribe()
    }

    pub(crate) fn trust_term(&self, term: u64) {
        self.trusted.store(term + 1, Ordering::Release);
    }

    pub(crate) fn trusted_term(&self) -> Option<u64> {
        self.trusted.load(Ordering::Acquire).checked_sub(1)
    }

    /// Whether a leader of this term may write here.
    pub(crate) fn trusts(&self, term: u64) -> bool {
        !self.is_healing() || self.trusted_term().is_some_and(|trusted| term >= trusted)
    }

    pub(crate) fn set_members(&self, members: BTreeMap<NodeId, Member>) {
        self.members.store(Arc::new(members));
    }

    /// Where a member is, if it is one.
    pub(crate) fn member(&self, id: NodeId) -> Option<Member> {
        self.members.load().get(&id).cloned()
    }
}
