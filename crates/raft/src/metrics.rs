//! Counters and histograms of the engine (MO-01 to MO-07).

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of the buckets of every [`Histogram`], in seconds; above the last there is one more.
pub const BUCKETS: [f64; 15] = [
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0,
];

/// How often something took how long.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Histogram {
    /// How many fell into each bucket of [`BUCKETS`] (not cumulative); the last is for what took longer than all.
    pub counts: [u64; BUCKETS.len() + 1],
    /// How many in all.
    pub count: u64,
    /// Sum of all, in seconds.
    pub sum: f64,
}

/// What the engine has counted since it was started.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RaftMetrics {
    /// How often another leader became known.
    pub leader_changes: u64,
    /// Elections in which this node stood.
    pub elections: u64,
    /// Proposals made here that were applied.
    pub proposals_applied: u64,
    /// Proposals made here that the state refused.
    pub proposals_rejected: u64,
    /// Proposals made here that failed or whose outcome is unknown.
    pub proposals_failed: u64,
    /// From the proposal to the moment when it was known here to be on a quorum, on the leader.
    pub commit_time: Histogram,
    /// From the proposal to its answer.
    pub proposal_duration: Histogram,
    /// Writing and syncing one append to the log.
    pub fsync_duration: Histogram,
    /// Applying one entry.
    pub apply_duration: Histogram,
    /// Writing one snapshot of this node's own state.
    pub snapshot_duration: Histogram,
}

#[derive(Debug, Default)]
pub(crate) struct Timer {
    counts: [AtomicU64; BUCKETS.len() + 1],
    nanos: AtomicU64,
}

impl Timer {
    pub(crate) fn observe(&self, took: Duration) {
        self.observe_many(took, 1);
    }

    /// `times` events that took this long each.
    pub(crate) fn observe_many(&self, took: Duration, times: u64) {
        let seconds = took.as_secs_f64();
        let bucket = BUCKETS.partition_point(|bound| *bound < seconds);
        self.counts[bucket].fetch_add(times, Ordering::Relaxed);
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.nanos
            .fetch_add(nanos.saturating_mul(times), Ordering::Relaxed);
    }

    fn read(&self) -> Histogram {
        let counts = std::array::from_fn(|at| self.counts[at].load(Ordering::Relaxed));
        Histogram {
            counts,
            count: counts.iter().sum(),
            sum: Duration::from_nanos(self.nanos.load(Ordering::Relaxed)).as_secs_f64(),
        }
    }
}

/// Where the parts of the engine count.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    pub(crate) applied: AtomicU64,
    pub(crate) rejected: AtomicU64,
    pub(crate) failed: AtomicU64,
    pub(crate) commit: Timer,
    pub(crate) proposal: Timer,
    pub(crate) fsync: Timer,
    pub(crate) apply: Timer,
    pub(crate) snapshot: Timer,
}

impl Meter {
    pub(crate) fn read(&self, leader_changes: u64, elections: u64) -> RaftMetrics {
        RaftMetrics {
            leader_changes,
            elections,
            proposals_applied: self.applied.load(Ordering::Relaxed),
            proposals_rejected: self.rejected.load(Ordering::Relaxed),
            proposals_failed: self.failed.load(Ordering::Relaxed),
            commit_time: self.commit.read(),
            proposal_duration: self.proposal.read(),
            fsync_duration: self.fsync.read(),
            apply_duration: self.apply.read(),
            snapshot_duration: self.snapshot.read(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_hold_their_bounds() {
        let timer = Timer::default();
        timer.observe(Duration::from_micros(100));
        timer.observe(Duration::from_micros(101));
        timer.observe_many(Duration::from_secs(6), 3);
        let read = timer.read();
        assert_eq!((read.counts[0], read.counts[1]), (1, 1));
        assert_eq!(read.counts[BUCKETS.len()], 3);
        assert_eq!(read.count, 5);
        assert!((read.sum - 18.000_201).abs() < 1e-9);
    }
}
