//! `warren-sim`: runs seeds and says which fail.

#![allow(clippy::print_stdout, reason = "the results are this program's output")]

use std::process::ExitCode;
use std::time::Instant;
use warren_sim::history::Summary;
use warren_sim::{
    Bugs, ClusterBugs, Counts, Failure, Kind, Options, Tally, cluster_bugs, planted_bugs, run,
    run_cluster,
};

const USAGE: &str =
    "usage: warren-sim [--seeds N] [--start S] [--bug NAME] [--alone] [--verbose] [--keep-going]
       warren-sim --all-bugs [--seeds N]

--alone     one manager in many lives instead of whole clusters
--bug NAME  with a planted bug switched on
--all-bugs  every planted bug: the first seed that finds it";

/// Seeds that a planted bug may take.
const SEEDS_TO_FIND: u64 = 1_000;

#[derive(Default)]
struct Arguments {
    seeds: Option<u64>,
    start: u64,
    bug: Option<String>,
    all_bugs: bool,
    alone: bool,
    verbose: bool,
    keep_going: bool,
}

fn arguments() -> Result<Arguments, String> {
    let mut found = Arguments::default();
    let mut rest = std::env::args().skip(1);
    while let Some(flag) = rest.next() {
        let mut value = || rest.next().ok_or(format!("{flag} needs a value"));
        match flag.as_str() {
            "--seeds" => found.seeds = Some(number(&value()?)?),
            "--start" => found.start = number(&value()?)?,
            "--bug" => found.bug = Some(value()?),
            "--all-bugs" => found.all_bugs = true,
            "--alone" => found.alone = true,
            "--verbose" => found.verbose = true,
            "--keep-going" => found.keep_going = true,
            other => return Err(format!("{other} is not known")),
        }
    }
    Ok(found)
}

fn number(text: &str) -> Result<u64, String> {
    text.parse()
        .map_err(|_| format!("{text:?} is not a number"))
}

/// The bug of that name among those known.
fn bug<B: Copy + Default>(name: Option<&str>, known: &[(&str, B)]) -> Result<B, String> {
    let Some(name) = name else {
        return Ok(B::default());
    };
    let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
    known
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, bugs)| *bugs)
        .ok_or(format!("no bug {name}; there are {}", names.join(", ")))
}

/// What many runs came to.
#[derive(Default)]
struct Sum {
    alone: Counts,
    tally: Tally,
    clients: Summary,
    traces: u64,
}

impl Sum {
    fn one(&mut self, seed: u64, what: &What) -> Result<Vec<String>, Failure> {
        let (trace, lines) = match what {
            What::Alone(options) => {
                let report = run(seed, *options)?;
                self.alone.add(&report.counts);
                (report.trace, report.lines)
            }
            What::Cluster(bugs, lines) => {
                let report = run_cluster(seed, *bugs, *lines)?;
                self.tally.merge(&report.tally);
                self.clients.add(&report.summary);
                (report.trace, report.lines)
            }
        };
        self.traces = self.traces.rotate_left(1) ^ trace;
        Ok(lines)
    }

    fn print(&self, what: &What) {
        if matches!(what, What::Alone(_)) {
            println!("{:#?}", self.alone);
            return;
        }
        for kind in Kind::ALL {
            println!("{:>10} {kind:?}", self.tally.of(kind));
        }
        println!("{:#?}", self.clients);
    }
}

enum What {
    Alone(Options),
    Cluster(ClusterBugs, bool),
}

fn what(arguments: &Arguments) -> Result<What, String> {
    let name = arguments.bug.as_deref();
    if arguments.alone {
        let bugs: Bugs = bug(name, &planted_bugs())?;
        let lines = arguments.verbose;
        return Ok(What::Alone(Options { bugs, lines }));
    }
    let bugs = bug(name, &cluster_bugs())?;
    Ok(What::Cluster(bugs, arguments.verbose))
}

fn runs(arguments: &Arguments, what: &What) -> ExitCode {
    let begin = Instant::now();
    let seeds = arguments.seeds.unwrap_or(2_000);
    let (mut sum, mut failed) = (Sum::default(), 0_u64);
    for seed in arguments.start..arguments.start + seeds {
        match sum.one(seed, what) {
            Ok(lines) => lines.iter().for_each(|line| println!("{line}")),
            Err(failure) => {
                failure.lines.iter().for_each(|line| println!("{line}"));
                println!("{failure}");
                failed += 1;
                if !arguments.keep_going {
                    return ExitCode::FAILURE;
                }
            }
        }
    }
    sum.print(what);
    println!(
        "{seeds} seeds in {:?}, {failed} failed, trace {:016x}",
        begin.elapsed(),
        sum.traces
    );
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn all_bugs(seeds: u64) -> ExitCode {
    let mut missed = 0;
    for (name, bugs) in cluster_bugs() {
        let begin = Instant::now();
        let found = (0..seeds).find_map(|seed| run_cluster(seed, bugs, false).err());
        match found {
            Some(failure) => {
                let first = failure.what.lines().next().unwrap_or_default();
                println!(
                    "{name}: found by seed {} in {:?}: {first}",
                    failure.seed,
                    begin.elapsed()
                );
            }
            None => {
                println!("{name}: not found by {seeds} seeds");
                missed += 1;
            }
        }
    }
    println!("{} planted bugs, {missed} missed", cluster_bugs().len());
    if missed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn main() -> ExitCode {
    let arguments = match arguments() {
        Ok(found) => found,
        Err(error) => {
            println!("{error}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    if arguments.all_bugs {
        return all_bugs(arguments.seeds.unwrap_or(SEEDS_TO_FIND));
    }
    match what(&arguments) {
        Ok(what) => runs(&arguments, &what),
        Err(error) => {
            println!("{error}\n{USAGE}");
            ExitCode::from(2)
        }
    }
}
