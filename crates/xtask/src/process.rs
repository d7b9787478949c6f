//! Running other programs and finding what cargo built.

use std::path::{Path, PathBuf};
use std::process::Command;

/// One program to run.
pub(crate) struct Step {
    command: Command,
    shown: String,
}

impl Step {
    pub(crate) fn new(program: &str) -> Self {
        Self {
            command: Command::new(program),
            shown: program.to_owned(),
        }
    }

    pub(crate) fn arg(mut self, arg: &str) -> Self {
        self.command.arg(arg);
        self.shown.push(' ');
        self.shown.push_str(arg);
        self
    }

    pub(crate) fn args(self, args: &[String]) -> Self {
        args.iter().fold(self, |step, arg| step.arg(arg))
    }

    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    /// Runs it in the workspace root; `what` names it in the error.
    pub(crate) fn run(mut self, what: &str) -> Result<(), String> {
        eprintln!("xtask: {}", self.shown);
        let status = self
            .command
            .current_dir(crate::root())
            .status()
            .map_err(|e| format!("{what}: cannot run {}: {e}", self.shown))?;
        if status.success() {
            Ok(())
        } else {
            Err(format!("{what}: `{}` ended with {status}", self.shown))
        }
    }

    /// Runs it quietly and returns its standard output.
    pub(crate) fn output(mut self, what: &str) -> Result<String, String> {
        let out = self
            .command
            .current_dir(crate::root())
            .output()
            .map_err(|e| format!("{what}: cannot run {}: {e}", self.shown))?;
        if !out.status.success() {
            return Err(format!(
                "{what}: {}",
                String::from_utf8_lossy(&out.stderr).trim()
            ));
        }
        String::from_utf8(out.stdout).map_err(|_| format!("{what}: output is not UTF-8"))
    }
}

/// The cargo that runs us, with these arguments.
pub(crate) fn cargo(args: &[&str]) -> Step {
    let program = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    args.iter()
        .fold(Step::new(&program), |step, arg| step.arg(arg))
}

/// Is cargo-nextest there?
pub(crate) fn has_nextest() -> bool {
    cargo(&["nextest", "--version"]).output("nextest").is_ok()
}

/// What `cargo metadata` says of the workspace, dependencies included.
pub(crate) fn metadata() -> Result<serde_json::Value, String> {
    let text =
        cargo(&["metadata", "--format-version", "1", "--locked"]).output("cargo metadata")?;
    serde_json::from_str(&text).map_err(|e| format!("cargo metadata: {e}"))
}

/// Path of a program that cargo built under `profile_dir` (`debug`, `release`, `dist`).
pub(crate) fn built_program(name: &str, profile_dir: &str) -> Result<PathBuf, String> {
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| crate::root().join("target"), PathBuf::from);
    let host = host_tuple()?;
    let path = target.join(host).join(profile_dir).join(name);
    if path.is_file() {
        Ok(path)
    } else {
        Err(format!(
            "{} is missing after the build",
            Path::display(&path)
        ))
    }
}

fn host_tuple() -> Result<String, String> {
    let text = Step::new("rustc").arg("-vV").output("rustc")?;
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned)
        .ok_or_else(|| "rustc -vV names no host".to_owned())
}
