//! Times of the consensus protocol: a cluster that begins with long ones and moves to short ones.
#![allow(
    clippy::print_stdout,
    reason = "the times are a result that is wanted in the test's output"
)]

use std::time::{Duration, Instant};
use warren_testkit::{Managers, eventually_within, is_root, skipped};

/// How long a change of the leader may take with long times.
const LEADER_LIMIT: Duration = Duration::from_secs(60);
/// A follower with long times votes for nobody else for so long after it heard its leader.
const WAN_LEASE: Duration = Duration::from_millis(3_000);

/// The profiles in use, as the leader sees them, and what it warns of.
fn profiles(managers: &Managers) -> (Vec<String>, String) {
    let info = managers.info(managers.leader());
    let info = info.unwrap_or_else(|e| panic!("{e}\n{}", managers.logs()));
    let used = info.servers.into_iter().map(|s| s.raft_profile).collect();
    (used, info.warnings.join("\n"))
}

fn all_use(managers: &Managers, profile: &str) {
    eventually_within(LEADER_LIMIT, "all use the profile", || {
        let (used, warnings) = profiles(managers);
        let well = used.iter().all(|p| p == profile) && !warnings.contains("raft profile");
        well.then_some(())
            .ok_or_else(|| format!("{used:?} {warnings}"))
    });
}

fn writes(managers: &Managers, name: &str) {
    let words = ["secret", "create", name, "--from-literal", "x"];
    let _ = managers.node(managers.leader()).cli(&words).ok();
}

#[test]
fn three_managers_with_long_times_move_to_short_ones_one_after_another() {
    if !is_root() {
        return skipped(
            "three_managers_with_long_times_move_to_short_ones_one_after_another",
            "needs root",
        );
    }
    let mut managers = Managers::empty(true);
    let _ = managers.found_with(&["--raft-profile", "wan"]);
    for _ in 0..2 {
        let _ = managers.add();
    }
    all_use(&managers, "wan");
    writes(&managers, "first");

    let dead = managers.leader();
    let begin = Instant::now();
    managers.kill(dead);
    eventually_within(LEADER_LIMIT, "another leads", || managers.try_leader());
    let took = begin.elapsed();
    println!("WAN profile: another leader after {} ms", took.as_millis());
    assert!(took > WAN_LEASE / 2, "{took:?}: these are no long times");
    managers.restart(dead);
    managers.wait_quorum();
    all_use(&managers, "wan");

    let words = ["cluster", "settings", "set", "raft-profile=lan"];
    let said = managers.node(managers.leader()).cli(&words);
    assert!(said.stderr.contains("one after another"), "{said:?}");
    let _ = said.ok();
    let (used, warnings) = profiles(&managers);
    assert!(used.iter().all(|p| p == "wan"), "{used:?}");
    assert!(warnings.contains("one after another"), "{warnings}");
    for number in managers.members() {
        managers.stop(number);
        managers.restart(number);
        managers.wait_quorum();
        writes(&managers, &format!("after-{number}"));
    }
    all_use(&managers, "lan");
    managers.reset();
}
