//! kill -9 at random moments: what was acknowledged is there, nothing else is.

mod common;

use common::{TestStore, name, root};
use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use warren_image::{ImageBuilder, ImageStore, RootfsMode};
use warren_types::ContainerId;

const STORE_VARIABLE: &str = "WARREN_IMAGE_CRASH_STORE";
const ROUNDS: u64 = 20;
/// More are removed between rounds, so that checking them all stays quick.
const MAX_KEPT: usize = 6;

fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).unwrap();
}

/// Not a test by itself: the process that is killed. Imports, runs, removes, and says what is done.
#[test]
fn worker() {
    let Ok(dir) = std::env::var(STORE_VARIABLE) else {
        return;
    };
    let store = ImageStore::open(Path::new(&dir)).unwrap();
    // Unlike any earlier worker's.
    let start = u64::from(std::process::id()) << 20;
    for n in start.. {
        let mut image = ImageBuilder::new();
        image.add_file("/base", "shared by all", 0o644).new_layer();
        // Some layers are synced file by file, some as a whole.
        for file in 0..(n % 3) * 150 + 1 {
            image.add_file(
                &format!("/d{}/f{file}", file % 7),
                format!("{n} {file}").as_str(),
                0o644,
            );
        }
        let reference = name(&format!("image{n}"));
        let digest = image
            .build_into(&store, std::slice::from_ref(&reference))
            .unwrap()
            .digest;
        say(&format!("+{}", reference.short()));
        let id = ContainerId::from_parts(n, u128::from(n));
        store.prepare(id, &digest, RootfsMode::Writable).unwrap();
        store.release(id).unwrap();
        if n % 2 == 0 {
            say(&format!("?{}", reference.short()));
            store.remove(&reference.short(), &BTreeSet::new()).unwrap();
            say(&format!("-{}", reference.short()));
        }
    }
}

#[test]
fn kill_nine_loses_nothing_acknowledged() {
    if !root() {
        return;
    }
    let seed = match std::env::var("WARREN_TEST_SEED") {
        Ok(text) => text.parse().unwrap(),
        Err(_) => SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_nanos() as u64,
    };
    eprintln!("WARREN_TEST_SEED={seed}");
    let mut random = seed | 1;
    let mut store = TestStore::new();
    let (mut present, mut interrupted) = (BTreeSet::new(), 0);
    for round in 0..ROUNDS {
        store.store = None;
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let unsure = run_and_kill(
            &store,
            Duration::from_micros((random >> 33) % 60_000),
            &mut present,
        );
        interrupted += usize::from(fs::read_dir(store.path("tmp")).unwrap().next().is_some());
        store.store =
            Some(ImageStore::open(store.path("")).unwrap_or_else(|e| panic!("round {round}: {e}")));
        for image in &present {
            let found = store.resolve(image);
            assert!(
                found.is_ok() || unsure.contains(image),
                "round {round}: {image} is lost: {found:?}"
            );
        }
        present.retain(|image| store.resolve(image).is_ok());
        for image in unsure {
            if store.resolve(&image).is_ok() {
                present.insert(image);
            }
        }
        check_whole(&store, round);
        while present.len() > MAX_KEPT {
            let image = present.pop_first().unwrap();
            store.remove(&image, &BTreeSet::new()).unwrap();
        }
    }
    eprintln!(
        "{} images kept, work interrupted in {interrupted} of {ROUNDS} rounds",
        present.len()
    );
    assert!(
        interrupted > 0,
        "no kill fell into the middle of work: the test shows nothing"
    );
}

/// Runs the worker until `delay` after its first word; returns images whose removal or making was
/// under way.
fn run_and_kill(
    store: &TestStore,
    delay: Duration,
    present: &mut BTreeSet<String>,
) -> BTreeSet<String> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["worker", "--exact", "--nocapture", "--test-threads=1"])
        .env(STORE_VARIABLE, store.path(""))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap())
        .lines()
        .map(Result::unwrap);
    let first = lines
        .by_ref()
        .find(|l| l.starts_with('+'))
        .expect("the worker ended before it did anything");
    // Not waiting for anything: the moment of the kill is what is random here.
    std::thread::sleep(delay);
    child.kill().unwrap();
    child.wait().unwrap();
    let mut unsure = BTreeSet::new();
    for line in std::iter::once(first).chain(lines) {
        let (sign, image) = line.split_at(1);
        match sign {
            "+" => drop(present.insert(image.to_owned())),
            "?" => drop(unsure.insert(image.to_owned())),
            "-" => {
                present.remove(image);
                unsure.remove(image);
            }
            _ => {}
        }
    }
    unsure
}

fn check_whole(store: &TestStore, round: u64) {
    let problems = store.verify().unwrap();
    assert!(problems.is_empty(), "round {round}: {problems:?}");
    assert_eq!(
        fs::read_dir(store.path("tmp")).unwrap().count(),
        0,
        "round {round}"
    );
    for prepared in store.prepared().unwrap() {
        store.release(prepared.container).unwrap();
    }
    let images = store.list();
    let layers = fs::read_dir(store.path("layers")).unwrap().count();
    let wanted = if images.is_empty() {
        0
    } else {
        images.len() + 1
    };
    assert_eq!(
        layers, wanted,
        "round {round}: layers that nothing needs, or too few"
    );
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mounts = table
        .lines()
        .filter(|l| l.contains(store.path("").to_str().unwrap().trim_end_matches('/')))
        .count();
    assert_eq!(mounts, 0, "round {round}: a mount was left");
}
