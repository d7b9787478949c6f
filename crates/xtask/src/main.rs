//! `cargo xtask COMMAND`: the one way to check, mend, test, measure and ship the project.
//!
//! `verify` never writes into the tree and is what CI runs; `fix` may write.

#![allow(
    clippy::print_stdout,
    reason = "a command-line tool talks on its standard output"
)]

mod bench;
mod dist;
mod edges;
mod licences;
mod packages;
mod process;
mod purity;
mod text;

use process::cargo;
use std::path::PathBuf;
use std::process::ExitCode;

const HELP: &str = "usage: cargo xtask COMMAND

  verify          formatting, tidy, lints, licences, all tests; never writes. CI runs this. Needs root
  fix             formats, regenerates the bans of the pure crates, applies what clippy can mend
  bans            regenerates the bans of the pure crates
  tidy            crate edges, purity, text rules; seconds
  test [ARGS]     all tests (arguments go to the test runner); installs what only tests need
  packages        installs what only tests and benchmarks need (Debian packages)
  seeds [N]       N seeds of the simulator (default 2000) beyond the ones in the tests
  seeds --bugs    which seed of the simulator finds each planted bug
  bench [ARGS]    the figures of SPECIFICATION.md, each beside a reference of the same run
  dist            the static, stripped, optimised binary";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let rest = args.get(1..).unwrap_or_default();
    let done = match args.first().map(String::as_str) {
        Some("verify") => verify(),
        Some("fix") => fix(),
        Some("bans") => purity::write_bans(&root()),
        Some("tidy") => tidy(),
        Some("test") => test(rest),
        Some("packages") => packages::install(),
        Some("seeds") => seeds(rest),
        Some("bench") => bench::run(rest),
        Some("dist") => dist::run(),
        _ => {
            println!("{HELP}");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("xtask: {problem}");
            ExitCode::FAILURE
        }
    }
}

/// Root of the workspace.
fn root() -> PathBuf {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).map(PathBuf::from).unwrap_or(here)
}

fn verify() -> Result<(), String> {
    cargo(&["fmt", "--all", "--check"]).run("formatting (cargo xtask fix mends it)")?;
    tidy()?;
    licences::check(&root())?;
    cargo(&[
        "clippy",
        "--workspace",
        "--all-targets",
        "--quiet",
        "--",
        "-D",
        "warnings",
    ])
    .run("lints")?;
    test(&[])
}

fn fix() -> Result<(), String> {
    purity::write_bans(&root())?;
    cargo(&["fmt", "--all"]).run("formatting")?;
    cargo(&[
        "clippy",
        "--workspace",
        "--all-targets",
        "--fix",
        "--allow-dirty",
    ])
    .run("lints")
}

fn tidy() -> Result<(), String> {
    let root = root();
    let mut problems = edges::check(&root)?;
    problems.extend(purity::check(&root)?);
    problems.extend(text::check(&root)?);
    for problem in &problems {
        println!("tidy: {problem}");
    }
    if problems.is_empty() {
        println!("tidy: crate edges, purity and text rules hold");
        Ok(())
    } else {
        Err(format!("{} tidy problem(s)", problems.len()))
    }
}

fn test(args: &[String]) -> Result<(), String> {
    packages::install()?;
    // The end-to-end tests run the real program; it is built once, here, and handed to them by path.
    cargo(&["build", "--package", "warren"]).run("the program")?;
    let binary = process::built_program("warren", "debug")?;
    let runner: &[&str] = if process::has_nextest() {
        &["nextest", "run", "--workspace", "--no-fail-fast"]
    } else {
        // Without nextest the end-to-end tests of one file must not run side by side.
        &["test", "--workspace", "--no-fail-fast"]
    };
    let mut step = cargo(runner).env("WARREN_BIN", &binary.display().to_string());
    if !process::has_nextest() {
        step = step.env("RUST_TEST_THREADS", "1");
    }
    step.args(args).run("tests")
}

fn seeds(args: &[String]) -> Result<(), String> {
    let program = ["run", "--release", "--package", "warren-sim", "--"];
    let arguments = match args.first().map(String::as_str) {
        Some("--bugs") => vec!["--all-bugs"],
        count => vec!["--seeds", count.unwrap_or("2000")],
    };
    cargo(&[&program[..], &arguments].concat()).run("simulator")
}
