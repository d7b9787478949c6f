//! Seeds of whole clusters in CI: nothing is lost, everything converges, traces repeat, planted bugs are found.

#![allow(clippy::print_stdout, reason = "tests report what they ran")]

mod common;

use common::{SEEDS_TO_FIND, repeats, seeds};
use warren_sim::history::Summary;
use warren_sim::{ClusterBugs, Kind, Tally, cluster_bugs, run_cluster};

/// Parts of the long run: tests of one file run side by side.
const PARTS: u64 = 4;
/// How often each kind of thing must have happened in each part.
const EFFECTIVE: u64 = 20;

/// One part of the long run.
fn part(number: u64) {
    let each = seeds().div_ceil(PARTS);
    let (mut tally, mut summary) = (Tally::default(), Summary::default());
    for seed in number * each..(number + 1) * each {
        match run_cluster(seed, ClusterBugs::default(), false) {
            Ok(report) => {
                tally.merge(&report.tally);
                summary.add(&report.summary);
            }
            Err(failure) => panic!("{failure}"),
        }
    }
    println!("{each} seeds: {tally:?}\n{summary:?}");
    // R26: a fault that had no effect proves nothing.
    let rare = Kind::ALL.iter().find(|kind| tally.of(**kind) < EFFECTIVE);
    assert!(
        each < 400 || rare.is_none(),
        "{rare:?} happened less than {EFFECTIVE} times in {each} seeds"
    );
    assert!(summary.written > each && summary.linearizable_reads > each);
}

#[test]
fn clusters_part_1() {
    part(0);
}

#[test]
fn clusters_part_2() {
    part(1);
}

#[test]
fn clusters_part_3() {
    part(2);
}

#[test]
fn clusters_part_4() {
    part(3);
}

#[test]
fn the_same_seed_of_a_cluster_gives_the_same_trace() {
    for seed in 0..24 {
        repeats(seed, || {
            let report = run_cluster(seed, ClusterBugs::default(), true);
            let report = report.unwrap_or_else(|failure| panic!("{failure}"));
            (report.trace, report.lines)
        });
    }
}

/// R25. Each test takes a part of the bugs.
fn bugs_are_found(part: usize, parts: usize) {
    let mine = cluster_bugs().into_iter().skip(part).step_by(parts);
    let mut missed = Vec::new();
    for (name, bugs) in mine {
        let found = (0..SEEDS_TO_FIND).find_map(|seed| run_cluster(seed, bugs, false).err());
        match found {
            Some(failure) => println!(
                "{name}: found by seed {}: {}",
                failure.seed,
                failure.what.lines().next().unwrap_or_default()
            ),
            None => missed.push(name),
        }
    }
    assert!(
        missed.is_empty(),
        "not found by {SEEDS_TO_FIND} seeds: {missed:?}"
    );
}

#[test]
fn planted_bugs_of_clusters_are_found_part_1() {
    bugs_are_found(0, 2);
}

#[test]
fn planted_bugs_of_clusters_are_found_part_2() {
    bugs_are_found(1, 2);
}
