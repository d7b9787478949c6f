//! `warren-sim`: runs seeds and says which fail.

#![allow(clippy::print_stdout, reason = "the results are this program's output")]

use std::process::ExitCode;
use std::time::Instant;
use warren_sim::{Bugs, Counts, Options, planted_bugs, run};

const USAGE: &str =
    "usage: warren-sim [--seeds N] [--start S] [--bug NAME] [--verbose] [--keep-going]";

struct Arguments {
    seeds: u64,
    start: u64,
    bug: Option<String>,
    verbose: bool,
    keep_going: bool,
}

fn arguments() -> Result<Arguments, String> {
    let mut found = Arguments {
        seeds: 2_000,
        start: 0,
        bug: None,
        verbose: false,
        keep_going: false,
    };
    let mut rest = std::env::args().skip(1);
    while let Some(flag) = rest.next() {
        let mut value = || rest.next().ok_or(format!("{flag} needs a value"));
        match flag.as_str() {
            "--seeds" => found.seeds = number(&value()?)?,
            "--start" => found.start = number(&value()?)?,
            "--bug" => found.bug = Some(value()?),
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

fn bugs(name: Option<&str>) -> Result<Bugs, String> {
    let Some(name) = name else {
        return Ok(Bugs::default());
    };
    let known = planted_bugs();
    let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
    known
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, bugs)| *bugs)
        .ok_or(format!("no bug {name}; there are {}", names.join(", ")))
}

fn main() -> ExitCode {
    let (arguments, bugs) = match arguments()
        .and_then(|arguments| bugs(arguments.bug.as_deref()).map(|bugs| (arguments, bugs)))
    {
        Ok(found) => found,
        Err(error) => {
            println!("{error}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let options = Options {
        bugs,
        lines: arguments.verbose,
    };
    let begin = Instant::now();
    let (mut counts, mut failed, mut traces) = (Counts::default(), 0_u64, 0_u64);
    for seed in arguments.start..arguments.start + arguments.seeds {
        match run(seed, options) {
            Ok(report) => {
                report.lines.iter().for_each(|line| println!("{line}"));
                counts.add(&report.counts);
                traces = traces.rotate_left(1) ^ report.trace;
            }
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
    println!(
        "{} seeds in {:?}, {failed} failed, trace {traces:016x}\n{counts:#?}",
        arguments.seeds,
        begin.elapsed()
    );
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
