//! Managers that come and go while clients write; roles that change while containers run.
#![allow(
    clippy::print_stdout,
    reason = "the times are a result that is wanted in the test's output"
)]

use std::time::Duration;
use warren_testkit::processes::{mark, sleeping};
use warren_testkit::traffic::Verdict;
use warren_testkit::{Cut, Load, Managers, Rng, Traffic, eventually_within, is_root, skipped};

/// Writes that are accepted between two changes.
const BETWEEN: usize = 100;
/// How long they may take.
const BETWEEN_LIMIT: Duration = Duration::from_secs(30);
/// How long a change of a role may take.
const ROLE_LIMIT: Duration = Duration::from_secs(60);
/// How often a role is taken away and given back at once, at each stage twice.
const TURNS: usize = 6;

/// Refusals and losses must have a kind that a client can act upon.
fn only_typed_failures(verdict: &Verdict) {
    let kinds = [
        "Conflict",
        "NotFound",
        "AlreadyExists",
        "NotTaken",
        "Unavailable",
        "DeadlineExceeded",
    ];
    for (words, count) in &verdict.failures {
        let reason = words.split_once(": ").map_or("", |(_, reason)| reason);
        let typed = kinds.iter().any(|kind| reason.starts_with(kind))
            || reason.starts_with("accepted, but")
            || reason.starts_with("no answer within");
        assert!(typed, "{count} x {words}");
    }
}

/// MM-04..06: no member of the beginning is there at the end.
#[test]
fn three_become_five_and_three_again_with_every_member_replaced() {
    if !is_root() {
        return skipped(
            "three_become_five_and_three_again_with_every_member_replaced",
            "needs root",
        );
    }
    let seed = Rng::from_environment("every_member_replaced").next_u64();
    let mut managers = Managers::start(3);
    let traffic = Traffic::start(&managers, Load::standard(seed));
    let begin = traffic.now();
    let go_on = |what: &str, managers: &Managers| {
        traffic.set_managers(managers);
        let since = traffic.now();
        traffic.wait_writes(since, BETWEEN, BETWEEN_LIMIT);
        println!(
            "{what}: longest gap so far {} ms",
            traffic.longest_gap(begin).as_millis()
        );
    };
    for _ in 0..2 {
        let new = managers.add();
        go_on(&format!("{} joined", managers.name(new)), &managers);
    }
    // One dies, and is removed.
    managers.replace_away(0);
    go_on("m1 died and was removed", &managers);
    // One is asked to leave, the leader first if it is one of the old ones.
    let old: Vec<usize> = vec![1, 2];
    let leader = managers.leader();
    let order = if leader == 2 { [2, 1] } else { [1, 2] };
    for (turn, number) in order.into_iter().enumerate() {
        assert!(old.contains(&number));
        let name = managers.name(number);
        managers.out(number);
        traffic.set_managers(&managers);
        let asked = managers
            .node(managers.leader_or(number))
            .cli(&["node", "demote", &name]);
        let _ = asked.ok();
        managers.wait_quorum();
        let rest = managers.node(managers.leader());
        let _ = rest.cli(&["node", "remove", &name, "--force"]).ok();
        eventually_within(ROLE_LIMIT, "the removed node knows", || {
            match managers.status(number) {
                Ok(status) if status.removed => Ok(()),
                other => Err(format!("{other:?}\n{}", managers.node(number).log_tail())),
            }
        });
        go_on(&format!("{name} left"), &managers);
        if turn == 0 {
            let new = managers.add();
            go_on(&format!("{} joined", managers.name(new)), &managers);
        }
    }
    assert_eq!(
        managers.members(),
        vec![3, 4, 5],
        "three, and none of the first"
    );
    let verdict = traffic.finish("every-member-replaced");
    println!("{}", verdict.text());
    only_typed_failures(&verdict);
    managers.reset();
}

fn promote(managers: &mut Managers, number: usize) {
    let name = managers.name(number);
    let _ = managers.node(0).cli(&["node", "promote", &name]).ok();
    managers.back(number);
    is_manager(managers, number);
}

fn is_manager(managers: &Managers, number: usize) {
    managers.wait_quorum();
    let status = managers.status(number).unwrap_or_else(|e| panic!("{e}"));
    assert_ne!(status.role, "worker", "{status:?}");
}

fn demote(managers: &mut Managers, number: usize) {
    let name = managers.name(number);
    let _ = managers.node(0).cli(&["node", "demote", &name]).ok();
    managers.out(number);
    managers.wait_quorum();
    is_worker(managers, number);
}

fn is_worker(managers: &Managers, number: usize) {
    eventually_within(ROLE_LIMIT, "it is a worker", || {
        let status = managers.status(number)?;
        if status.role == "worker" && status.ready {
            return Ok(());
        }
        Err(format!("{status:?}\n{}", managers.node(number).log_tail()))
    });
}

/// The promotion meets every stage of the demotion, by turns: its beginning, the manager that has lost its vote, and
/// the manager whose parts end.
fn demote_and_promote_at_once(managers: &Managers, number: usize, turn: usize) {
    managers.set_role(number, "worker");
    match turn % 3 {
        0 => {}
        1 => eventually_within(ROLE_LIMIT, "it is no member", || {
            let info = managers.info(managers.try_leader()?)?;
            let name = managers.name(number);
            match info.servers.iter().find(|s| s.name == name) {
                Some(server) => Err(format!("{server:?}")),
                None => Ok(()),
            }
        }),
        _ => eventually_within(ROLE_LIMIT, "its manager ends", || {
            match managers.status(number) {
                Ok(status) if status.role != "worker" => Err(format!("{status:?}")),
                _ => Ok(()),
            }
        }),
    }
    managers.set_role(number, "hybrid");
}

/// A worker becomes a manager and a worker again, however quickly; what runs on it does not notice.
#[test]
fn a_worker_is_promoted_and_demoted_while_its_containers_run() {
    if !is_root() {
        return skipped(
            "a_worker_is_promoted_and_demoted_while_its_containers_run",
            "needs root",
        );
    }
    let mut managers = Managers::start(1);
    let worker = managers.machine();
    let token = managers.token("worker", 1);
    let (name, at) = (managers.name(worker), managers.address(0));
    let api = managers.address(worker);
    managers.spawn(
        worker,
        &[
            "worker",
            "start",
            "--token",
            &token,
            "--manager",
            &at,
            "--node-id",
            &name,
            "--api-addr",
            &api,
        ],
    );
    managers.out(worker);
    managers.wait_up(worker);
    eventually_within(ROLE_LIMIT, "the worker is ready", || {
        let nodes = managers.node(0).json(&["node", "list", "-o", "json"]);
        let ready = nodes.as_array().into_iter().flatten();
        let mut ready = ready.filter(|n| n["name"] == name.as_str() && n["status"] == "ready");
        ready.next().map(drop).ok_or_else(|| nodes.to_string())
    });
    let image = warren_testkit::images::busybox(managers.node(0).directory());
    let _ = managers.node(0).cli(&["image", "import", &image]).ok();
    let mark = mark(72);
    let words = [
        "service",
        "create",
        "app",
        "--image",
        "test/busybox",
        "--replicas",
        "3",
    ];
    let words = [&words[..], &["--", "sleep", &mark]].concat();
    let _ = managers.node(0).cli(&words).ok();
    let before = sleeping(&mark);
    assert_eq!(before.len(), 3);
    for _ in 0..2 {
        promote(&mut managers, worker);
        assert_eq!(sleeping(&mark), before, "promoted");
        demote(&mut managers, worker);
        assert_eq!(sleeping(&mark), before, "demoted");
    }
    promote(&mut managers, worker);
    for turn in 0..TURNS {
        demote_and_promote_at_once(&managers, worker, turn);
        is_manager(&managers, worker);
        assert_eq!(sleeping(&mark), before, "turn {turn}");
    }
    for _ in 0..TURNS {
        demote_and_promote_at_once(&managers, worker, 0);
    }
    is_manager(&managers, worker);
    assert_eq!(sleeping(&mark), before, "after {TURNS} turns in a row");
    demote(&mut managers, worker);
    assert_eq!(sleeping(&mark), before, "demoted for good");
    // It still takes orders.
    let _ = managers
        .node(0)
        .cli(&["service", "scale", "app", "--replicas", "4"])
        .ok();
    let after = sleeping(&mark);
    assert!(
        after.len() == 4 && after.is_superset(&before),
        "{before:?} {after:?}"
    );
    managers.reset();
    assert!(sleeping(&mark).is_empty());
}

/// Its own records still call it a manager, so it must not ask itself.
#[test]
fn a_manager_that_was_demoted_while_cut_off_becomes_a_worker() {
    if !is_root() {
        return skipped(
            "a_manager_that_was_demoted_while_cut_off_becomes_a_worker",
            "needs root",
        );
    }
    let mut managers = Managers::start(3);
    let away = managers.follower();
    managers.cut_from_peers(away, Cut::Both);
    managers.out(away);
    managers.set_role(away, "worker");
    managers.wait_quorum();
    managers.heal(away);
    is_worker(&managers, away);
    managers.reset();
}
