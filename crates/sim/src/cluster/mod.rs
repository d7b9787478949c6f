//! Whole clusters of managers in one thread and virtual time.
//!
//! Each manager is the real engine on a faulty disk of its own, with the real planners running on whoever leads, behind an
//! API with the semantics that users have: writes come in anywhere and are forwarded, reads are linearizable or say that they
//! are not, watches begin with a picture. Clients and an operator who adds and removes managers keep them busy, and everything
//! that can go wrong does ([`Kind`]). Files of managers that are down are damaged too, of as many at a time as every quorum can
//! do without: such a manager heals from the others, or refuses to start and names the command, and is removed then.
//!
//! Checked at every step of every manager: the invariants of Raft, `state.invariants()`, equal states at equal indexes,
//! fencing of the planners' commands (see `probe`). At the end: that it all comes to rest as it should be, and that
//! what clients saw could have happened ([`crate::history`]).

mod api;
mod bugs;
mod calm;
mod client;
mod duties;
mod faults;
mod manager;
mod members;
mod net;
mod probe;
mod shadow;
mod stage;
mod watcher;
mod world;

use crate::history::Summary;
use crate::run::Failure;
pub use bugs::{ClusterBugs, SimBugs, cluster_bugs};
pub use faults::{Kind, Tally};
use world::World;

/// A run in which everything held.
#[derive(Debug)]
pub struct ClusterReport {
    /// Hash of the trace.
    pub trace: u64,
    /// The trace, when asked for.
    pub lines: Vec<String>,
    /// What happened how often.
    pub tally: Tally,
    /// What clients did.
    pub summary: Summary,
}

/// Runs one seed of a cluster.
///
/// # Errors
/// What did not hold.
pub fn run_cluster(seed: u64, bugs: ClusterBugs, lines: bool) -> Result<ClusterReport, Failure> {
    warren_raft::seed_random_numbers(seed);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build();
    let failure = |what, lines| Failure {
        seed,
        what,
        lines,
        cluster: true,
    };
    let runtime = runtime.map_err(|error| failure(error.to_string(), Vec::new()))?;
    let (mut world, result) = runtime.block_on(async {
        let mut world = World::new(seed, bugs, lines);
        let result = world.all().await;
        (world, result)
    });
    let summary = result.and_then(|()| world.verdict());
    let found = match summary {
        Ok(summary) => Ok(ClusterReport {
            trace: world.trace.hash(),
            lines: world.trace.take_lines(),
            tally: world.stage.probe.tally(),
            summary,
        }),
        Err(what) => {
            let _ = world.look();
            Err(failure(what, world.trace.take_lines()))
        }
    };
    // Tasks end before what they hold on to.
    drop(runtime);
    drop(world);
    found
}
