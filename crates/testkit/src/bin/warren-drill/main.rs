//! Faults, many times: what the tests do a few times, for as long as one likes.
//!
//! `warren-drill kill-leader [--times 100] [--managers 3]`, `warren-drill bad-joins [--times 100000]`.
#![allow(
    clippy::print_stdout,
    reason = "what this program is for is to print what it found"
)]

use std::process::ExitCode;
use std::time::Duration;
use warren_testkit::{Managers, Rng, drills, is_root};

/// Budget of the issue: 99 of 100 outages are shorter.
const OUTAGE_P99_MAX: Duration = Duration::from_secs(1);
/// Budget of the issue: every outage is shorter.
const OUTAGE_MAX: Duration = Duration::from_secs(3);
/// Memory that any number of bad joins may cost the leader for good, in bytes.
const BAD_JOINS_BYTES_MAX: u64 = 32 << 20;

const USAGE: &str = "warren-drill kill-leader|bad-joins [--times N] [--managers N]";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if !is_root() {
        println!("SKIPPED (needs root): warren-drill");
        return ExitCode::FAILURE;
    }
    let option = |name: &str| {
        let at = words.iter().position(|w| w == name)?;
        words.get(at + 1)?.parse::<usize>().ok()
    };
    let count = option("--managers").unwrap_or(3);
    let fine = match words.first().map(String::as_str) {
        Some("kill-leader") => kill_leader(count, option("--times").unwrap_or(100)),
        Some("bad-joins") => bad_joins(count, option("--times").unwrap_or(100_000)),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    if fine {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn kill_leader(count: usize, times: usize) -> bool {
    let seed = Rng::from_environment("kill-leader").next_u64();
    let mut managers = Managers::start(count);
    let (outages, verdict) = drills::kill_leader(&mut managers, times, seed, |round, outage| {
        println!("{}: {} ms", round + 1, outage.as_millis());
    });
    managers.reset();
    println!("kill -9 of the leader of {count}, {}", outages.text());
    println!("{}", verdict.text());
    outages.percentile(99) < OUTAGE_P99_MAX && outages.percentile(100) < OUTAGE_MAX
}

fn bad_joins(count: usize, times: usize) -> bool {
    let mut managers = Managers::start(count);
    let cost = drills::bad_joins(&managers, times);
    managers.reset();
    println!("{times} bad joins: {cost:?}");
    cost.terms.0 == cost.terms.1 && cost.memory.1 < cost.memory.0 + BAD_JOINS_BYTES_MAX
}
