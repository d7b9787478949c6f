//! A manager (engine, storage, state, planners) over a faulty disk, in one thread and virtual time.
//!
//! Everything follows from a seed: what clients ask for, how nodes report, when the power goes, what the disk
//! loses, when it is full. The same seed gives the same trace, and the hash of the trace proves it.
//!
//! What is checked, against an oracle that applies the same commands to a state of its own:
//!
//! - every answer is the one that the oracle gives, in the order in which the commands were proposed;
//! - after each batch the published state equals the oracle's and `invariants()` finds nothing;
//! - the change feed has no gap and no overlap;
//! - after each restart the state is what the acknowledged commands made, followed by some first part of those that
//!   were under way: nothing acknowledged is lost, nothing is invented, the order is kept;
//! - when faults stop, the planners bring every service to what it should be.

#![forbid(unsafe_code)]

mod cluster;
pub mod history;
mod oracle;
mod run;
mod trace;
mod workload;

pub use cluster::{ClusterBugs, ClusterReport, Kind, SimBugs, Tally, cluster_bugs, run_cluster};
pub use run::{Counts, Failure, Options, Report, run};
pub use warren_raft::Bugs;

/// The planted bugs by name.
#[must_use]
pub fn planted_bugs() -> Vec<(&'static str, Bugs)> {
    let mut skip_sync = Bugs::default();
    skip_sync.storage.skip_sync = true;
    vec![
        ("skip-sync", skip_sync),
        (
            "acknowledge-before-sync",
            Bugs {
                acknowledge_before_sync: true,
                ..Bugs::default()
            },
        ),
        (
            "snapshot-forgets-last-entry",
            Bugs {
                snapshot_forgets_last_entry: true,
                ..Bugs::default()
            },
        ),
    ]
}
