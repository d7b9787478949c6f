//! What can be wrong about joining, leaving and data: each refused with the reason, with nothing half done.
#![allow(
    clippy::print_stdout,
    reason = "what is said to the user is a result that is wanted in the test's output"
)]

mod middle;

use std::time::Duration;
use warren_testkit::{Managers, drills, eventually, eventually_within, is_root, skipped};

/// Bad joins in this test; `warren-drill bad-joins` makes the 100,000 of the issue.
const BAD_JOINS: usize = 1_000;
/// Memory that they may cost the leader, in bytes.
const BAD_JOINS_BYTES_MAX: u64 = 32 << 20;
/// Bytes that its log may grow by.
const BAD_JOINS_LOG_BYTES_MAX: u64 = 200 << 10;
/// Longest time of a command that is refused.
const REFUSAL_LIMIT: Duration = Duration::from_secs(60);
/// Longest time until a join, or another change, is refused when there is no quorum.
const NO_QUORUM_MAX: Duration = Duration::from_secs(3);
/// Most managers of a cluster.
const MANAGERS_MAX: usize = 7;

/// Runs a daemon's command that has to be refused, and returns what it says.
fn refused(managers: &mut Managers, number: usize, words: &[String], wanted: &[&str]) -> String {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    managers.spawn(number, &words);
    managers.out(number);
    let code = eventually_within(REFUSAL_LIMIT, "the command is refused", || {
        let node = managers.node_mut(number);
        node.ended().ok_or_else(|| node.log_tail())
    });
    let text = managers.node(number).log_tail();
    let last: Vec<&str> = text.lines().rev().take(2).collect();
    println!("{code}: {}", last.join(" / "));
    assert_ne!(code, 0, "{text}");
    for part in wanted {
        assert!(text.contains(part), "{part:?} is not in: {text}");
    }
    text
}

#[test]
fn tokens_that_are_no_good_are_refused_with_the_reason() {
    if !is_root() {
        return skipped(
            "tokens_that_are_no_good_are_refused_with_the_reason",
            "needs root",
        );
    }
    let mut managers = Managers::start(1);
    let place = managers.machine();
    let good = managers.token("manager", 0);
    let words = |managers: &Managers, token: &str| managers.join_words(place, token);

    // Not a token at all: refused before anybody is asked.
    let bad = words(&managers, "WRN-1-nonsense");
    let _ = refused(&mut managers, place, &bad, &["token"]);
    // Another secret.
    let bad = words(&managers, &drills::spoiled(&good, 7));
    let text = refused(&mut managers, place, &bad, &["token"]);
    let secret = good.rsplit('-').next().unwrap_or_default();
    assert!(
        !text.contains(&secret[..8]),
        "a token is never shown: {text}"
    );
    // For the other role.
    let worker = managers.token("worker", 0);
    let bad = words(&managers, &worker);
    let _ = refused(&mut managers, place, &bad, &["worker"]);
    // Revoked.
    let id = good.split('-').nth(3).unwrap_or_default().to_owned();
    let revoked = managers.node(0).cli(&["cluster", "token", "revoke", &id]);
    let _ = revoked.ok();
    let bad = words(&managers, &good);
    let _ = refused(&mut managers, place, &bad, &["revoked"]);
    // Expired.
    let said = managers
        .node(0)
        .cli(&["cluster", "join-token", "manager", "--ttl", "1s"]);
    let said = said.ok();
    let expired = said.split_whitespace().find(|w| w.starts_with("WRN-1-"));
    let expired = expired
        .unwrap_or_else(|| panic!("no token: {said}"))
        .to_owned();
    eventually("the token expires", || {
        let list = managers.node(0).cli(&["cluster", "token", "list"]);
        if list.stdout.contains("expired") {
            Ok(())
        } else {
            Err(list.stdout)
        }
    });
    let bad = words(&managers, &expired);
    let _ = refused(&mut managers, place, &bad, &["ended at"]);
    // Used up, by this very machine under another directory: the one use is what counts.
    let once = managers.token("manager", 1);
    let other = managers.machine();
    let fine = managers.join_words(other, &once);
    let fine: Vec<&str> = fine.iter().map(String::as_str).collect();
    managers.spawn(other, &fine);
    managers.wait_up(other);
    managers.wait_quorum();
    let bad = words(&managers, &once);
    let _ = refused(&mut managers, place, &bad, &["used up"]);
    // After all that the same machine joins with a good one.
    managers.join(place);
    managers.wait_quorum();
    assert_eq!(managers.members().len(), 3);
    managers.reset();
}

#[test]
fn names_directories_and_numbers_that_are_taken() {
    if !is_root() {
        return skipped("names_directories_and_numbers_that_are_taken", "needs root");
    }
    let mut managers = Managers::start(MANAGERS_MAX);
    let place = managers.machine();
    let token = managers.token("manager", 0);
    // A name that another node has.
    let mut words = managers.join_words(place, &token);
    let at = words
        .iter()
        .position(|w| w == "--node-id")
        .unwrap_or_default()
        + 1;
    words[at] = "m1".to_owned();
    let _ = refused(&mut managers, place, &words, &["m1"]);
    // The eighth manager.
    let words = managers.join_words(place, &token);
    let text = refused(&mut managers, place, &words, &["7"]);
    assert!(text.contains("manager"), "{text}");
    let info = managers.info(0).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(info.servers.len(), MANAGERS_MAX, "{:?}", info.servers);
    // A directory that holds a node.
    managers.kill(6);
    let words = managers.join_words(6, &token);
    let _ = refused(&mut managers, 6, &words, &["already"]);
    let words = ["cluster", "init", "--api-addr", "127.0.0.1:8080"].map(str::to_owned);
    let _ = refused(&mut managers, 6, &words, &["already"]);
    managers.restart(6);
    managers.wait_quorum();
    managers.reset();
}

#[test]
fn without_a_quorum_nobody_joins_and_nobody_is_demoted_out_of_one() {
    if !is_root() {
        return skipped(
            "without_a_quorum_nobody_joins_and_nobody_is_demoted_out_of_one",
            "needs root",
        );
    }
    let mut managers = Managers::start(3);
    let place = managers.machine();
    let token = managers.token("manager", 0);
    // One of three is down: without either of the others there would be no quorum.
    let down = managers.follower();
    managers.kill(down);
    let leader = managers.leader();
    eventually("the leader misses it", || {
        let info = managers.info(leader)?;
        if info.voters_healthy == 2 {
            Ok(())
        } else {
            Err(format!("{:?}", info.servers))
        }
    });
    let other = managers.follower();
    for target in [other, leader] {
        let name = managers.name(target);
        let said = managers.node(leader).cli(&["node", "demote", &name]);
        println!("{}: {}", said.code, said.stderr.trim());
        assert_ne!(said.code, 0, "{said:?}");
        assert!(said.stderr.contains("quorum"), "{said:?}");
    }
    // The dead one may go.
    let dead = managers.name(down);
    let _ = managers
        .node(leader)
        .cli(&["node", "remove", &dead, "--force"])
        .ok();
    managers.out(down);
    managers.wait_quorum();
    // Two of two, one is down: no quorum, so nobody joins.
    managers.kill(other);
    eventually("the quorum is gone", || {
        let status = managers.status(leader)?;
        if status.quorum {
            Err("still there".to_owned())
        } else {
            Ok(())
        }
    });
    let words = managers.join_words(place, &token);
    let (text, took) =
        warren_testkit::managers::timed(|| refused(&mut managers, place, &words, &[]));
    println!("refused after {} ms", took.as_millis());
    assert!(took < NO_QUORUM_MAX, "{took:?}");
    assert!(text.contains("quorum") || text.contains("leader"), "{text}");
    // Nor does a command that names a manager go on asking.
    let mut command = managers.node(leader).command();
    command
        .env("WARREN_CONTEXT_DIR", managers.admin_dir())
        .args(["service", "create", "never", "--image", "test/none:1"])
        .args(["--manager", &managers.address(leader)]);
    let (said, took) = warren_testkit::managers::timed(|| command.output());
    let said = said.unwrap_or_else(|e| panic!("{e}"));
    let stderr = String::from_utf8_lossy(&said.stderr);
    println!("refused after {} ms: {}", took.as_millis(), stderr.trim());
    assert!(!said.status.success() && took < NO_QUORUM_MAX, "{took:?}");
    assert!(stderr.contains("quorum"), "{stderr}");
    assert!(
        !managers
            .node(place)
            .data_dir()
            .join("node/settings")
            .exists(),
        "half a node"
    );
    // When it is back the same command works.
    managers.restart(other);
    managers.wait_quorum();
    managers.join(place);
    managers.wait_quorum();
    managers.reset();
}

#[test]
fn a_man_in_the_middle_learns_nothing() {
    if !is_root() {
        return skipped("a_man_in_the_middle_learns_nothing", "needs root");
    }
    let mut managers = Managers::start(1);
    let place = managers.machine();
    let token = managers.token("manager", 0);
    let root = managers.identity().ca_pem;
    for shows_our_root in [false, true] {
        let shown = if shows_our_root {
            root.clone()
        } else {
            Vec::new()
        };
        let middle = middle::Middle::start(managers.lab(), shown);
        let mut words = managers.join_words(place, &token);
        let at = words
            .iter()
            .position(|w| w == "--manager")
            .unwrap_or_default()
            + 1;
        words[at].clone_from(&middle.address);
        let _ = refused(&mut managers, place, &words, &[]);
        let heard = middle.stop();
        assert!(heard.connections > 0, "it was asked");
        assert!(
            heard.bytes.is_empty(),
            "something was said: {:?}",
            heard.bytes
        );
    }
    managers.join(place);
    managers.wait_quorum();
    managers.reset();
}

#[test]
fn many_bad_joins_cost_nothing() {
    if !is_root() {
        return skipped("many_bad_joins_cost_nothing", "needs root");
    }
    let mut managers = Managers::start(3);
    let cost = drills::bad_joins(&managers, BAD_JOINS);
    println!("{BAD_JOINS} bad joins: {cost:?}");
    assert_eq!(cost.refused + cost.limited, BAD_JOINS);
    assert_eq!(cost.terms.0, cost.terms.1, "the leader keeps its lease");
    assert!(
        cost.memory.1 < cost.memory.0 + BAD_JOINS_BYTES_MAX,
        "{cost:?}"
    );
    assert!(cost.log_bytes < BAD_JOINS_LOG_BYTES_MAX, "{cost:?}");
    managers.reset();
}

/// Log and votes of one cluster under the identity of a node of another: refused before anything is served.
#[test]
fn a_data_directory_of_another_cluster_is_refused_at_the_start() {
    if !is_root() {
        return skipped(
            "a_data_directory_of_another_cluster_is_refused_at_the_start",
            "needs root",
        );
    }
    let (mut one, mut two) = (Managers::start(1), Managers::start(1));
    let swap = |one: &Managers, two: &Managers| {
        let [a, b] = [one, two].map(|m| m.node(0).data_dir().join("raft"));
        let aside = a.with_extension("aside");
        for (from, to) in [(&a, &aside), (&b, &a), (&aside, &b)] {
            std::fs::rename(from, to).unwrap_or_else(|e| panic!("{}: {e}", from.display()));
        }
    };
    one.kill(0);
    two.kill(0);
    swap(&one, &two);
    let run = ["node", "run"].map(str::to_owned);
    for managers in [&mut one, &mut two] {
        let wanted = ["of cluster", "warren node reset"];
        let text = refused(managers, 0, &run, &wanted);
        // The log holds the first life too; nothing may follow the refusal.
        let said = text.lines().rev().take(2);
        assert!(
            said.into_iter().any(|line| line.contains("of cluster")),
            "{text}"
        );
    }
    swap(&one, &two);
    for managers in [&mut one, &mut two] {
        managers.back(0);
        managers.restart(0);
        managers.wait_quorum();
        managers.reset();
    }
}
