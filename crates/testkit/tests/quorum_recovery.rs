//! Backup, restore, and going on without a quorum.
#![allow(
    clippy::print_stdout,
    reason = "the times are a result that is wanted in the test's output"
)]

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};
use warren_testkit::processes::{mark, sleeping};
use warren_testkit::{Managers, Node, eventually_within, is_root, skipped};

/// Longest time from the command to the first accepted write.
const RECOVERY_MAX: Duration = Duration::from_secs(60);
const PASSPHRASE: &str = "correct horse battery staple";
const SECRET: &str = "what only the container may know";

/// Objects that users made: kind and name → the parts of them that a restore must bring back.
fn objects(node: &Node) -> BTreeMap<String, Value> {
    let mut found = BTreeMap::new();
    for (kind, keep) in [
        ("service", &["spec", "revision"][..]),
        ("secret", &["size", "labels"][..]),
        ("volume", &["driver", "labels"][..]),
    ] {
        let list = node.json(&[kind, "list", "-o", "json"]);
        for object in list.as_array().into_iter().flatten() {
            let name = object["name"].as_str().or(object["spec"]["name"].as_str());
            let name = name.unwrap_or_else(|| panic!("no name: {object}"));
            let parts = keep.iter().map(|key| (*key).to_owned());
            let parts: serde_json::Map<_, _> = parts
                .map(|key| (key.clone(), object[&key].clone()))
                .collect();
            found.insert(format!("{kind} {name}"), Value::Object(parts));
        }
    }
    found
}

/// Many objects, and a service that prints a secret and then sleeps.
fn furnish(managers: &Managers, mark: &str) {
    let node = managers.node(0);
    let image = warren_testkit::images::busybox(node.directory());
    let _ = node.cli(&["image", "import", &image]).ok();
    let said = node.cli_with_input(
        &["secret", "create", "word", "--from-stdin"],
        SECRET.as_bytes(),
    );
    let _ = said.ok();
    for number in 0..20 {
        let name = format!("other-{number}");
        let value = format!("value {number}");
        let words = ["secret", "create", &name, "--from-stdin"];
        let _ = node.cli_with_input(&words, value.as_bytes()).ok();
    }
    let _ = node.cli(&["volume", "create", "data"]).ok();
    let script = format!("cat /run/secrets/word; echo; exec sleep {mark}");
    let words = [
        "service",
        "create",
        "teller",
        "--image",
        "test/busybox",
        "--replicas",
        "2",
    ];
    let words = [&words[..], &["--secret", "word", "--", "sh", "-c", &script]].concat();
    let _ = node.cli(&words).ok();
    let words = [
        "service",
        "create",
        "empty",
        "--image",
        "test/busybox",
        "--replicas",
        "0",
    ];
    let _ = node
        .cli(&[&words[..], &["--label", "a=b", "--detach"]].concat())
        .ok();
    eventually_within(RECOVERY_MAX, "the containers run", || {
        match sleeping(mark).len() {
            2 => Ok(()),
            other => Err(format!("{other} processes")),
        }
    });
}

fn tells_the_secret(node: &Node) {
    eventually_within(RECOVERY_MAX, "a container tells the secret", || {
        // The service's logs would need the nodes that are gone, too.
        let list = node.json(&["container", "list", "-o", "json"]);
        let rows = list.as_array().into_iter().flatten();
        let running = rows.filter(|c| c["state"] == "running" && c["service"] == "teller");
        let id = running.filter_map(|c| c["id"].as_str()).next();
        let id = id.ok_or_else(|| list.to_string())?;
        let said = node.cli(&["container", "logs", id]);
        if said.stdout.contains(SECRET) {
            return Ok(());
        }
        let ps = node.cli(&["service", "ps", "teller"]);
        Err(format!("{said:?}\n{}", ps.stdout))
    });
}

#[test]
fn a_backup_restores_everything_on_other_addresses() {
    if !is_root() {
        return skipped(
            "a_backup_restores_everything_on_other_addresses",
            "needs root",
        );
    }
    let mut managers = Managers::start_hybrid(3);
    let mark = mark(73);
    furnish(&managers, &mark);
    tells_the_secret(managers.node(0));
    let wanted = objects(managers.node(0));
    let running = sleeping(&mark);

    // The machine that will take the backup; it holds the files meanwhile.
    let place = managers.machine();
    let file = |name: &str| {
        managers
            .node(place)
            .directory()
            .join(name)
            .display()
            .to_string()
    };
    let (backup, passphrase) = (file("backup"), file("passphrase"));
    std::fs::write(&passphrase, PASSPHRASE).unwrap_or_else(|e| panic!("{e}"));
    let begin = Instant::now();
    let words = [
        "cluster",
        "backup",
        "--output",
        &backup,
        "--passphrase-file",
        &passphrase,
    ];
    // Any manager gives a whole one.
    let _ = managers.node(managers.follower()).cli(&words).ok();
    let size = std::fs::metadata(&backup).map_or(0, |m| m.len());
    println!(
        "backup of {size} bytes in {} ms",
        begin.elapsed().as_millis()
    );
    assert_eq!(sleeping(&mark), running, "the backup touches no container");
    let bytes = std::fs::read(&backup).unwrap_or_else(|e| panic!("{e}"));
    let shows = bytes.windows(SECRET.len()).any(|w| w == SECRET.as_bytes());
    assert!(!shows, "a backup is sealed");
    // Refused rather than overwritten.
    assert_ne!(managers.node(0).cli(&words).code, 0);

    bad_backups_are_refused(&managers, place, &backup, &passphrase, &bytes);
    managers.reset();
    assert!(sleeping(&mark).is_empty(), "all is wiped");

    let (name, api) = (managers.name(place), managers.address(place));
    let begin = Instant::now();
    let words = [
        "cluster",
        "restore",
        "--input",
        &backup,
        "--passphrase-file",
        &passphrase,
    ];
    managers.spawn(
        place,
        &[&words[..], &["--node-id", &name, "--api-addr", &api]].concat(),
    );
    managers.wait_up(place);
    managers.wait_quorum();
    println!("restored in {} ms", begin.elapsed().as_millis());
    let node = managers.node(place);
    assert_eq!(objects(node), wanted, "every object is back");
    // Images are no part of a backup.
    let image = warren_testkit::images::busybox(node.directory());
    eventually_within(RECOVERY_MAX, "the node is ready for images", || {
        let said = node.cli(&["image", "import", &image]);
        if said.code == 0 {
            Ok(())
        } else {
            Err(said.stderr)
        }
    });
    tells_the_secret(node);
    eventually_within(RECOVERY_MAX, "both containers run", || {
        match sleeping(&mark).len() {
            2 => Ok(()),
            other => Err(format!(
                "{other}\n{}",
                node.cli(&["service", "ps", "teller"]).stdout
            )),
        }
    });
    // It is a cluster like any other: its authority lets others in.
    managers.trust(place);
    let new = managers.add();
    assert_eq!(managers.members(), vec![place, new]);
    managers.reset();
    assert!(sleeping(&mark).is_empty());
}

/// A wrong passphrase, a file cut short and a flipped bit are refused, and leave a machine without node.
fn bad_backups_are_refused(
    managers: &Managers,
    place: usize,
    backup: &str,
    passphrase: &str,
    bytes: &[u8],
) {
    let node = managers.node(place);
    let wrong = node.file("wrong", b"not the passphrase");
    let mut flipped = bytes.to_vec();
    flipped[bytes.len() / 2] ^= 1;
    let cut = node.file("cut", &bytes[..bytes.len() * 2 / 3]);
    let flipped = node.file("flipped", &flipped);
    let none = node.file("none", b"");
    let api = managers.address(place);
    for (input, passphrase) in [
        (backup, wrong.as_str()),
        (&cut, passphrase),
        (&flipped, passphrase),
        (&none, passphrase),
    ] {
        let words = [
            "cluster",
            "restore",
            "--input",
            input,
            "--passphrase-file",
            passphrase,
        ];
        let said = node.cli(&[&words[..], &["--api-addr", &api]].concat());
        assert_ne!(said.code, 0, "{input}: {said:?}");
        println!("{}", said.stderr.lines().last().unwrap_or_default());
        let settings = node.data_dir().join("node/settings");
        assert!(!settings.exists(), "{input}: half a node was made");
    }
}

#[test]
fn one_of_three_goes_on_alone_when_told_to() {
    if !is_root() {
        return skipped("one_of_three_goes_on_alone_when_told_to", "needs root");
    }
    let mut managers = Managers::start_hybrid(3);
    let mark = mark(74);
    furnish(&managers, &mark);
    let wanted = objects(managers.node(0));
    let left = managers.follower();
    let running = sleeping(&mark);
    let kept = pids_of(&managers, left);
    for other in (0..3).filter(|m| *m != left) {
        managers.kill(other);
    }
    eventually_within(RECOVERY_MAX, "it knows that the quorum is lost", || {
        let status = managers.status(left)?;
        if status.quorum {
            Err("not yet".to_owned())
        } else {
            Ok(())
        }
    });
    assert_eq!(sleeping(&mark), running, "containers outlive daemons");
    let node = managers.node(left);
    let begin = Instant::now();
    let _ = node.cli(&["cluster", "recover", "--yes"]).ok();
    let said = eventually_within(RECOVERY_MAX, "the first write", || {
        let said = node.cli_with_input(&["secret", "create", "after", "--from-stdin"], b"x");
        if said.code == 0 {
            Ok(said)
        } else {
            Err(said.stderr)
        }
    });
    println!(
        "first write {} ms after the command",
        begin.elapsed().as_millis()
    );
    assert!(begin.elapsed() < RECOVERY_MAX, "{said:?}");
    let mut now = objects(node);
    now.remove("secret after");
    assert_eq!(now, wanted, "nothing is lost");
    let after: BTreeSet<u32> = sleeping(&mark);
    assert!(after.is_superset(&kept), "{kept:?} are touched: {after:?}");
    // It grows again with new machines.
    for other in (0..3).filter(|m| *m != left) {
        managers.out(other);
    }
    let _ = managers.add();
    let _ = managers.add();
    managers.wait_quorum();
    assert!(sleeping(&mark).is_superset(&kept));
    managers.reset();
}

/// Processes of the containers on a node.
fn pids_of(managers: &Managers, number: usize) -> BTreeSet<u32> {
    let list = managers
        .node(number)
        .json(&["container", "list", "-o", "json"]);
    let name = managers.name(number);
    let rows = list.as_array().into_iter().flatten();
    let rows = rows.filter(|c| c["node"] == name.as_str() && c["state"] == "running");
    rows.filter_map(|c| c["pid"].as_u64())
        .filter_map(|pid| u32::try_from(pid).ok())
        .collect()
}
