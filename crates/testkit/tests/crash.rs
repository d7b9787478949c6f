//! kill -9 of the daemon at random moments, of processes inside containers, and of everything.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use warren_testkit::leaks::Traces;
use warren_testkit::{Node, Rng, eventually, eventually_within, is_root, skipped};

/// Kills of the daemon in one run.
const KILLS: u64 = 50;

/// Running containers: id → (service, start time).
fn running(node: &Node) -> BTreeMap<String, (String, String)> {
    let list = node.json(&["container", "list", "-o", "json"]);
    let rows = list.as_array().cloned().unwrap_or_default();
    rows.iter()
        .filter(|c| c["state"] == "running" && c["desired"] == "running")
        .map(|c| {
            let text = |key: &str| c[key].as_str().unwrap_or_default().to_owned();
            (text("id"), (text("service"), text("startedAt")))
        })
        .collect()
}

fn counts(node: &Node) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for (service, _) in running(node).into_values() {
        *counts.entry(service).or_default() += 1;
    }
    counts
}

/// Processes on the machine that run the marked sleep, from /proc.
fn really_running(mark: &str) -> usize {
    let entries = std::fs::read_dir("/proc").unwrap_or_else(|e| panic!("/proc: {e}"));
    let lines = entries
        .flatten()
        .filter_map(|e| std::fs::read(e.path().join("cmdline")).ok());
    lines
        .filter(|line| {
            String::from_utf8_lossy(line)
                .split('\0')
                .eq(["sleep", mark, ""])
        })
        .count()
}

#[test]
fn fifty_kills_of_the_daemon_lose_and_leak_nothing() {
    if !is_root() {
        return skipped(
            "fifty_kills_of_the_daemon_lose_and_leak_nothing",
            "needs root",
        );
    }
    let mut rng = Rng::from_environment("fifty_kills");
    let mut node = Node::running();
    let marks = node.marks();
    let image = warren_testkit::images::busybox(node.directory());
    let _ = node.cli(&["image", "import", &image]).ok();
    let mark = format!("86{:05}", std::process::id() % 100_000);
    // One service that nobody touches: its container must never be restarted.
    let _ = node
        .cli(&[
            "service",
            "create",
            "still",
            "--image",
            "test/busybox",
            "--replicas",
            "2",
            "--",
            "sleep",
            &mark,
        ])
        .ok();
    let untouched = running(&node);
    assert_eq!(untouched.len(), 2);
    let mut wanted: BTreeMap<String, usize> = BTreeMap::from([("still".to_owned(), 2)]);
    for round in 0..KILLS {
        // A change under way when the daemon dies. Whether it was acknowledged decides what is owed.
        let name = format!("s{}", rng.below(4));
        let replicas = 1 + rng.below(3) as usize;
        let known = wanted.contains_key(&name);
        let count = replicas.to_string();
        let words: Vec<&str> = match (known, rng.below(3)) {
            (false, _) => {
                vec![
                    "service",
                    "create",
                    &name,
                    "--detach",
                    "--image",
                    "test/busybox",
                    "--replicas",
                    &count,
                    "--stop-timeout",
                    "1",
                    "--",
                    "sleep",
                    &mark,
                ]
            }
            (true, 0) => vec!["service", "delete", &name, "--detach"],
            (true, _) => vec!["service", "scale", &name, "--replicas", &count, "--detach"],
        };
        let acknowledged = {
            let mut call = node.command();
            call.args(&words)
                .stdout(std::process::Stdio::null())
                .stderr(std::process::Stdio::null());
            let mut call = call.spawn().unwrap_or_else(|e| panic!("{e}"));
            // A random moment of the change: this is the fault being injected, not a wait for something.
            std::thread::sleep(Duration::from_micros(rng.below(120_000)));
            node.kill();
            call.wait().is_ok_and(|s| s.success())
        };
        node.start();
        let services = node.json(&["service", "list", "-o", "json"]);
        let rows = services.as_array().cloned().unwrap_or_default();
        let found = rows
            .iter()
            .find(|s| s["spec"]["name"] == name.as_str() && s["deleting"] != true);
        let now = found.map(|s| s["desired"].as_u64().unwrap_or_default() as usize);
        let asked = (words[1] != "delete").then_some(replicas);
        if acknowledged {
            assert_eq!(
                now,
                asked,
                "round {round}: `{}` was acknowledged and is lost",
                words.join(" ")
            );
        } else {
            let before = wanted.get(&name).copied();
            assert!(
                now == asked || now == before,
                "round {round}: {now:?} is neither {before:?} nor {asked:?}"
            );
        }
        match now {
            Some(count) => wanted.insert(name, count),
            None => wanted.remove(&name),
        };
        eventually_within(
            Duration::from_secs(60),
            "running set == desired set",
            || {
                let counts = counts(&node);
                let total: usize = wanted.values().sum();
                let real = really_running(&mark);
                if counts == wanted && real == total {
                    Ok(())
                } else {
                    Err(format!(
                        "round {round}: want {wanted:?}, have {counts:?}, {real} processes"
                    ))
                }
            },
        );
        let still: BTreeMap<_, _> = running(&node)
            .into_iter()
            .filter(|(_, (s, _))| s == "still")
            .collect();
        assert_eq!(
            still, untouched,
            "round {round}: an untouched container was restarted"
        );
    }
    for name in wanted.keys() {
        let _ = node.cli(&["service", "delete", name, "--detach"]).ok();
    }
    eventually("all containers are gone", || match really_running(&mark) {
        0 if running(&node).is_empty() => Ok(()),
        n => Err(format!("{n} processes")),
    });
    node.reset();
    let left = Traces::take(node.host(), &marks);
    let left = left.beyond(&Traces {
        links: ["lo", "eth0"].map(str::to_owned).into(),
        ..Traces::default()
    });
    assert!(left.is_empty(), "left behind: {left:#?}");
}

#[test]
fn a_process_killed_inside_is_running_again_within_a_second() {
    if !is_root() {
        return skipped(
            "a_process_killed_inside_is_running_again_within_a_second",
            "needs root",
        );
    }
    let mut node = Node::running();
    let image = warren_testkit::images::busybox(node.directory());
    let _ = node.cli(&["image", "import", &image]).ok();
    let _ = node
        .cli(&[
            "service",
            "create",
            "app",
            "--image",
            "test/busybox",
            "--",
            "sleep",
            "100000",
        ])
        .ok();
    let before = node.json(&["container", "list", "-o", "json"])[0].clone();
    let pid = before["pid"].as_i64().unwrap_or_default();
    assert!(pid > 1, "{before}");
    let begin = Instant::now();
    let killed = nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(pid as i32),
        nix::sys::signal::Signal::SIGKILL,
    );
    killed.unwrap_or_else(|e| panic!("kill {pid}: {e}"));
    let after = eventually("running again", || {
        let now = node.json(&["container", "list", "-o", "json"])[0].clone();
        let new =
            now["state"] == "running" && now["restarts"].as_u64() > before["restarts"].as_u64();
        if new { Ok(now) } else { Err(now.to_string()) }
    });
    let took = begin.elapsed();
    eprintln!(
        "running again after {} ms, seen by the command line",
        took.as_millis()
    );
    assert_eq!(after["id"], before["id"], "restarted in place");
    assert!(took < Duration::from_secs(1), "took {took:?}");
    node.reset();
}

#[test]
fn services_return_after_a_reboot() {
    if !is_root() {
        return skipped("services_return_after_a_reboot", "needs root");
    }
    let mut node = Node::running();
    let image = warren_testkit::images::busybox(node.directory());
    let _ = node.cli(&["image", "import", &image]).ok();
    let mark = format!("87{:05}", std::process::id() % 100_000);
    let _ = node
        .cli(&[
            "service",
            "create",
            "app",
            "--image",
            "test/busybox",
            "--replicas",
            "3",
            "--",
            "sleep",
            &mark,
        ])
        .ok();
    assert_eq!(really_running(&mark), 3);
    // What a power cut does: every process, every mount of the run directory, every link and rule.
    warren_testkit::faults::power_cut(&mut node);
    assert_eq!(really_running(&mark), 0);
    node.start();
    eventually("the services return from disk", || {
        match (really_running(&mark), counts(&node).get("app")) {
            (3, Some(3)) => Ok(()),
            other => Err(format!("{other:?}\n{}", node.log_tail())),
        }
    });
    node.reset();
}
