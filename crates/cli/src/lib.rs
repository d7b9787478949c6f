//! Warren's command line: commands, tables, JSON, progress, exit codes. It talks to the cluster only
//! through the client.
//!
//! Standard output is data, standard error is talk. What needs the daemon's own code (starting a node,
//! resetting a machine) is parsed here and handed back as [`Outcome::Daemon`].

#![forbid(unsafe_code)]

pub mod api;
pub mod args;
pub mod commands;
pub mod diff;
mod dispatch;
mod error;
pub mod flags;
#[cfg(test)]
mod golden;
pub mod io;
pub mod manifest;
pub mod output;
mod remote;
#[cfg(test)]
mod tests;
pub mod wait;

pub use args::Cli;
pub use commands::up::{
    HELLO_CONTAINER_PORT, HELLO_HOST_PORT, HELLO_IMAGE, HELLO_SERVICE, up_apply, up_manifest,
};
pub use error::{CliError, Exit, Result};
pub use io::Io;
pub use remote::{Remote, RemoteConnector};

use api::{Connector, Target};
use args::{ClusterInitArgs, JoinArgs, NodeResetArgs, NodeRunArgs, RestoreArgs, UpArgs};
use clap::CommandFactory;
use serde::Serialize;

/// What this program was built from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Build {
    /// Version.
    pub version: &'static str,
    /// Commit; the build passes `WARREN_COMMIT`.
    pub commit: &'static str,
    /// Time of the build; the build passes `WARREN_BUILD_TIME`.
    #[serde(rename = "built")]
    pub time: &'static str,
}

impl Build {
    /// This program.
    pub const CURRENT: Self = Self {
        version: env!("CARGO_PKG_VERSION"),
        commit: match option_env!("WARREN_COMMIT") {
            Some(text) => text,
            None => "unknown",
        },
        time: match option_env!("WARREN_BUILD_TIME") {
            Some(text) => text,
            None => "unknown",
        },
    };

    /// Operating system and processor, in the words of Rust.
    #[must_use]
    pub fn platform(&self) -> String {
        format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH)
    }
}

/// What a command works with.
pub struct Context {
    /// Streams.
    pub io: Io,
    /// Opens connections.
    pub connector: Box<dyn Connector>,
}

impl Context {
    /// The process's own streams and the real client.
    #[must_use]
    pub fn process() -> Self {
        Self {
            io: Io::process(),
            connector: Box::new(RemoteConnector),
        }
    }
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context")
            .field("io", &self.io)
            .finish_non_exhaustive()
    }
}

/// A command that needs the daemon's own code.
#[derive(Debug)]
pub enum DaemonCommand {
    /// Make sure that a node runs, then [`up_apply`].
    Up(UpArgs),
    /// Make a cluster and run.
    ClusterInit(ClusterInitArgs),
    /// Make this machine a node of an existing cluster and run.
    Join(JoinArgs),
    /// Make a cluster from a backup and run.
    Restore(RestoreArgs),
    /// Run on existing data.
    NodeRun(NodeRunArgs),
    /// Remove everything from this machine.
    NodeReset(NodeResetArgs),
}

/// What became of a command line.
#[derive(Debug)]
pub enum Outcome {
    /// The command is done; exit status of the program.
    Exit(u8),
    /// The caller carries it out.
    Daemon(DaemonCommand),
}

/// The command tree.
#[must_use]
pub fn command() -> clap::Command {
    Cli::command()
}

/// The target that the global flags name.
#[must_use]
pub fn target(cli: &Cli) -> Target {
    Target {
        manager: cli.global.manager.clone(),
        socket: cli.global.socket.clone(),
    }
}

/// Runs a command. Errors are printed to standard error and become the exit status.
pub async fn run(cli: Cli, context: &mut Context) -> Outcome {
    let target = target(&cli);
    match dispatch::dispatch(cli.command, &target, context).await {
        Ok(outcome) => outcome,
        Err(error) => Outcome::Exit(report(&mut context.io, &error)),
    }
}

/// Prints an error; returns its exit status.
pub fn report(io: &mut Io, error: &CliError) -> u8 {
    // A reader that went away (`| head`) wants no more, not even an error.
    if error.exit != Exit::Success {
        let _ = io.say(&format!("error: {error}"));
    }
    error.exit as u8
}

/// Asks a question on the terminal; without a terminal the answer is an error that names `flag`.
///
/// # Errors
/// When there is nobody to ask, or the answer cannot be read.
pub fn confirm(io: &mut Io, question: &str, flag: &str) -> Result<bool> {
    if !io.in_tty {
        return Err(
            CliError::usage(format!("{question} Nobody is here to answer."))
                .remedy(format!("say it on the command line: {flag}")),
        );
    }
    io.err_bytes(format!("{question} [y/N] ").as_bytes())?;
    let answer = io.read_line()?;
    Ok(matches!(
        answer.trim().to_ascii_lowercase().as_str(),
        "y" | "yes"
    ))
}
