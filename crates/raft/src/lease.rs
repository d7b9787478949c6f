//! The leader's lease, looked at from outside of the engine's task.
//!
//! Every call at the leader begins with a read barrier. Asking the engine's task for each of them would double what that task
//! has to do, and its questions would stand between the writes that it takes together otherwise. All that the answer hangs
//! on is in the figures that the task publishes after each turn. They may be a moment old; that is harmless, since what
//! ages in them is the quorum's acknowledgement, and an older one only ends the lease sooner.
//!
//! What figures do not show is that the office is being given away: the followers are told then that they may elect
//! another leader at once. So whoever gives it away says so here first. openraft does so by itself with a leader that was
//! removed: one without a vote counts on no lease at all.

use crate::handle::{Engine, Inner, RaftHandle};
use crate::pulse::Pulse;
use crate::types::Types;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::Fatal;
use openraft::{Instant as _, ServerState};
use std::sync::atomic::{AtomicU64, Ordering};
use warren_types::NodeId;

/// In which terms leases count.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    /// Hand-overs of which it is not known yet whose term they end. One that is broken off counts for ever: then the quorum
    /// is asked for each read, which is only slower.
    under_way: AtomicU64,
    /// The last term whose office was given away.
    given_away: AtomicU64,
}

impl Leases {
    fn count_in(&self, term: u64) -> bool {
        // In this order: whoever is not under way any more has left its term.
        self.under_way.load(Ordering::SeqCst) == 0 && term > self.given_away.load(Ordering::SeqCst)
    }
}

/// Asks another voter to take over leadership; does not wait for it. From the call on this node answers no read by its lease.
pub(crate) async fn give_away(
    engine: &Engine,
    pulse: &Pulse,
    to: NodeId,
) -> Result<(), Fatal<Types>> {
    let leases = &pulse.leases;
    leases.under_way.fetch_add(1, Ordering::SeqCst);
    engine.trigger().transfer_leader(to).await?;
    // The engine takes requests in order: when it answers this one, it has given away the office of this term or of an
    // earlier one.
    let term = engine
        .with_raft_state(|state| state.vote_ref().leader_id.term)
        .await?;
    leases.given_away.fetch_max(term, Ordering::SeqCst);
    leases.under_way.fetch_sub(1, Ordering::SeqCst);
    Ok(())
}

impl RaftHandle {
    /// The index of a read that begins now, when this leader's lease says that nobody else can have led until now.
    ///
    /// It is that of the last applied entry: whoever was told of a write before was told by this leader after it had applied
    /// it, or by an earlier leader, whose entries all stand before the first one of this term.
    pub(crate) fn leased_index(&self) -> Option<u64> {
        let inner = &*self.inner;
        let term = self.leased_term()?;
        let leadership = inner.leadership.borrow();
        // Applied up to the first entry of its term.
        (leadership.ready && leadership.term == term).then(|| inner.view.applied_index())?
    }

    /// The term in which this node leads and is granted a lease that lasts.
    fn leased_term(&self) -> Option<u64> {
        let inner = &*self.inner;
        let (term, acknowledged) = {
            let figures = inner.figures.borrow_watched();
            let leads = figures.running_state.is_ok()
                && figures.state == ServerState::Leader
                && figures.current_leader == Some(inner.id);
            if !leads {
                return None;
            }
            let voters = || figures.membership_config.membership().voter_ids();
            if voters().all(|voter| voter != inner.id) {
                return None;
            }
            let alone = voters().count() == 1;
            let acknowledged = figures.last_quorum_acked.as_deref().copied();
            (figures.current_term, (!alone).then_some(acknowledged))
        };
        if !inner.pulse.leases.count_in(term) {
            return None;
        }
        let lasts = match acknowledged {
            None => true,
            // The lease after the figures: a follower that grants less is noted before its acknowledgement counts.
            Some(at) => at.is_some_and(|at| at.elapsed() < inner.pulse.read_lease()),
        };
        (lasts && trusts_its_clock(inner)).then_some(term)
    }
}

/// A machine that was suspended measures leases wrongly.
fn trusts_its_clock(inner: &Inner) -> bool {
    inner.io == crate::IoMode::Task || inner.suspend.steady()
}
