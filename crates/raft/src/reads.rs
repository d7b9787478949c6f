//! Linearizable reads, here and on followers.

use crate::error::ReadError;
use crate::handle::{RaftHandle, target};
use crate::pulse::Contact;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{LinearizableReadError, RaftError as EngineError};
use openraft::raft::linearizable_read::LinearizerOption;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// How far the wall clock may run from the steady one between two reads that rely on the lease.
const CLOCK_DRIFT: Duration = Duration::from_millis(100);

/// Notices that the machine was suspended: then the steady clock, by which leases are measured, stood still.
#[derive(Debug, Default)]
pub(crate) struct SuspendWatch(Mutex<Option<(Instant, SystemTime)>>);

impl SuspendWatch {
    /// Whether both clocks have run alike since this was last asked; false the first time.
    pub(crate) fn steady(&self) -> bool {
        let (steady, wall) = (Instant::now(), SystemTime::now());
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((steady_before, wall_before)) = last.replace((steady, wall)) else {
            return false;
        };
        let passed = steady.saturating_duration_since(steady_before);
        wall.duration_since(wall_before)
            .is_ok_and(|wall| wall.abs_diff(passed) < CLOCK_DRIFT)
    }
}

impl RaftHandle {
    /// Returns when [`RaftHandle::state`] holds everything that was acknowledged anywhere before the call. Only the
    /// leader can.
    ///
    /// While the lease lasts nobody is asked. Why that is safe: a follower that hears its leader at `t` (its clock)
    /// votes for nobody else before `t + lease`; the leader counts from the moment at which it *sent* what a quorum then
    /// acknowledged, and relies on four fifths of the shortest lease that a follower granted only (openraft 0.10 `leader.rs: last_quorum_acked_time`,
    /// `engine_impl.rs: handle_vote_req`). Two gaps in that are closed here: openraft forgets the promise at a restart,
    /// so a restarted node holds votes and campaigns back for one lease (`serve`, `handle`); and a suspended
    /// machine stops the clock, so after a jump of the wall clock the quorum is asked. A hand-over ends the lease first (`lease`).
    pub async fn read_barrier(&self) -> Result<(), ReadError> {
        let index = self.read_index().await?;
        if self.inner.view.applied_index() >= Some(index) {
            return Ok(());
        }
        self.wait_applied(index, self.inner.propose_timeout).await
    }

    /// The index that any manager must have applied to answer a read that begins now; see
    /// [`RaftHandle::wait_applied`]. Only the leader knows it.
    pub async fn read_index(&self) -> Result<u64, ReadError> {
        #[cfg(any(test, feature = "testing"))]
        if self.inner.bugs.stale_read {
            return Ok(self.inner.view.applied_index().unwrap_or(0));
        }
        if self.inner.lease_reads
            && let Some(index) = self.leased_index()
        {
            return Ok(index);
        }
        self.quorum_index().await
    }

    /// The index of a read for which the quorum is asked.
    async fn quorum_index(&self) -> Result<u64, ReadError> {
        let limit = self.inner.pulse.profile.election_max();
        let option = LinearizerOption::new(Some(Duration::ZERO), true).with_wait_timeout(limit);
        match self.inner.engine.get_read_linearizer(option).await {
            Ok(read) => Ok(read.read_log_id().index()),
            Err(EngineError::APIError(LinearizableReadError::ForwardToLeader(forward))) => {
                let (leader, address) = target(forward);
                Err(ReadError::NotLeader { leader, address })
            }
            Err(EngineError::APIError(_)) => Err(ReadError::NoQuorum),
            Err(EngineError::Fatal(error)) => Err(ReadError::Stopped {
                reason: self.failure().unwrap_or_else(|| error.to_string()),
            }),
        }
    }

    /// Returns when this node has applied everything up to an index.
    pub async fn wait_applied(&self, index: u64, limit: Duration) -> Result<(), ReadError> {
        let mut applied = self.inner.view.applied();
        let wait = applied.wait_for(|next| *next > index);
        let stopped = |reason| ReadError::Stopped { reason };
        match tokio::time::timeout(limit, wait).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(stopped("it was shut down".to_owned())),
            Err(_) => match self.failure() {
                Some(reason) => Err(stopped(reason)),
                None => Err(ReadError::Behind {
                    wanted: index,
                    applied: self.inner.view.applied_index(),
                }),
            },
        }
    }

    /// How this node stands to the quorum. Costs no message.
    #[must_use]
    pub fn contact(&self) -> Contact {
        let inner = &*self.inner;
        let limit = inner.pulse.profile.election_max() * 2;
        let metrics = inner.figures.borrow_watched();
        let leads = metrics.running_state.is_ok()
            && metrics.state == openraft::ServerState::Leader
            && metrics.current_leader == Some(inner.id);
        let silence = if !leads {
            inner.pulse.silence()
        } else if metrics.membership_config.membership().voter_ids().count() == 1 {
            Some(Duration::ZERO)
        } else {
            let acknowledged = metrics
                .last_quorum_acked
                .as_deref()
                .map(openraft::Instant::elapsed);
            // A leader that was elected just now has heard a quorum's votes.
            acknowledged.or_else(|| inner.pulse.since_change())
        };
        let known = leads
            || metrics
                .current_leader
                .is_some_and(|leader| leader != inner.id);
        Contact {
            in_quorum: metrics.running_state.is_ok()
                && known
                && silence.is_some_and(|silence| silence <= limit),
            silence,
        }
    }
}
