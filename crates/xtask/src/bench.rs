//! `cargo xtask bench`: builds the program as shipped and runs the measuring program of the test kit.

use crate::process::cargo;

/// Runs the benchmarks; arguments choose among them.
pub(crate) fn run(args: &[String]) -> Result<(), String> {
    crate::packages::install()?;
    let binary = crate::dist::build()?;
    let step = cargo(&[
        "run",
        "--release",
        "--package",
        "warren-testkit",
        "--bin",
        "warren-bench",
        "--",
    ]);
    step.env("WARREN_BIN", &binary.display().to_string())
        .args(args)
        .run("benchmarks")
}
