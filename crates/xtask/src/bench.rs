//! `cargo xtask bench`: builds the program as shipped and runs the measuring program of the test kit.

use crate::process::{built_program, cargo};

/// Runs the benchmarks; arguments choose among them.
pub(crate) fn run(args: &[String]) -> Result<(), String> {
    crate::packages::install()?;
    // Alone, so that nothing that only tests need is in it.
    cargo(&["build", "--profile", "dist", "--package", "warren"]).run("the program")?;
    let binary = built_program("warren", "dist")?;
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
