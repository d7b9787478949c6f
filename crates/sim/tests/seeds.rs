//! Seeds in CI: nothing is lost, traces repeat, planted bugs are found.

#![allow(clippy::print_stdout, reason = "tests report what they ran")]

mod common;

use common::{SEEDS_TO_FIND, repeats, seeds};
use warren_sim::{Counts, Options, planted_bugs, run};

#[test]
fn no_seed_loses_or_invents_anything() {
    let mut counts = Counts::default();
    for seed in 0..seeds() {
        match run(seed, Options::default()) {
            Ok(report) => counts.add(&report.counts),
            Err(failure) => panic!("{failure}"),
        }
    }
    println!("{} seeds: {counts:#?}", seeds());
    let happened = [
        counts.applied,
        counts.rejected,
        counts.refused_full,
        counts.unknown,
        counts.power_losses,
        counts.power_losses_at_start,
        counts.kills,
        counts.stops,
        counts.writes_lost,
        counts.unheard,
        counts.snapshot_starts,
    ];
    assert!(
        seeds() < 100 || happened.iter().all(|count| *count > 0),
        "something never happened: {counts:?}"
    );
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in 0..20 {
        let options = Options {
            lines: true,
            ..Options::default()
        };
        repeats(seed, || {
            let report = run(seed, options).unwrap_or_else(|failure| panic!("{failure}"));
            (report.trace, report.lines)
        });
    }
}

#[test]
fn planted_bugs_are_found() {
    for (name, bugs) in planted_bugs() {
        let found =
            (0..SEEDS_TO_FIND).find_map(|seed| run(seed, Options { bugs, lines: false }).err());
        match found {
            Some(failure) => println!("{name}: found by {failure}"),
            None => panic!("{name} is not found by {SEEDS_TO_FIND} seeds"),
        }
    }
}
