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

use api::{Api, Connector, Target};
use args::{
    ClusterCommand, ClusterInitArgs, Command, JoinArgs, JoinFlags, JoinRole, ManagerCommand,
    NodeCommand, NodeResetArgs, NodeRunArgs, NodeStopArgs, OutputArgs, RestoreArgs, UpArgs,
    WorkerCommand,
};
use clap::CommandFactory;
use serde::Serialize;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// How long `warren version` waits for a daemon.
const VERSION_TIMEOUT: Duration = Duration::from_secs(2);
/// Time between two looks whether a stopping daemon is gone.
const STOP_LOOK_EVERY: Duration = Duration::from_millis(50);
/// Time beyond its grace that a stopping daemon may take.
const STOP_EXTRA: Duration = Duration::from_secs(10);

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
    match dispatch(cli.command, &target, context).await {
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

async fn dispatch(command: Command, target: &Target, context: &mut Context) -> Result<Outcome> {
    let command = match for_daemon(command, target, &mut context.io)? {
        Ok(daemon) => return Ok(Outcome::Daemon(daemon)),
        Err(command) => command,
    };
    match command {
        Command::Completion { shell } => return completion(shell, &mut context.io),
        Command::Version(args) => return version(args, target, context).await,
        _ => {}
    }
    let api = context.connector.connect(target).await?;
    let io = &mut context.io;
    if let Command::Node(NodeCommand::Stop(args)) = command {
        stop(&args, api, target, context).await?;
        return Ok(Outcome::Exit(0));
    }
    with_api(command, api.as_ref(), io).await.map(Outcome::Exit)
}

/// What needs the daemon's own code; anything else comes back as it is.
fn for_daemon(
    command: Command,
    target: &Target,
    io: &mut Io,
) -> Result<Result<DaemonCommand, Command>> {
    let join = |flags: JoinFlags, role| -> Result<DaemonCommand> {
        Ok(DaemonCommand::Join(
            flags.into_args(role, join_managers(target)?),
        ))
    };
    Ok(Ok(match command {
        Command::Up(args) => DaemonCommand::Up(args),
        Command::Cluster(ClusterCommand::Init(args)) => DaemonCommand::ClusterInit(args),
        Command::Cluster(ClusterCommand::Restore(flags)) => {
            let passphrase = commands::backup::restore_passphrase(&flags, io)?;
            DaemonCommand::Restore(flags.into_args(passphrase))
        }
        Command::Manager(ManagerCommand::Join(flags)) => {
            let role = if flags.manager_only {
                JoinRole::Manager
            } else {
                JoinRole::Hybrid
            };
            join(flags.join, role)?
        }
        Command::Node(NodeCommand::Join(flags)) => {
            let role = if flags.manager_only {
                JoinRole::Manager
            } else {
                JoinRole::FromToken
            };
            join(flags.join, role)?
        }
        Command::Worker(WorkerCommand::Start(flags)) => join(flags, JoinRole::Worker)?,
        Command::Node(NodeCommand::Run(args)) => DaemonCommand::NodeRun(args),
        Command::Node(NodeCommand::Reset(args)) => DaemonCommand::NodeReset(args),
        other => return Ok(Err(other)),
    }))
}

/// The managers that a joining node asks: --manager, else the environment.
fn join_managers(target: &Target) -> Result<Vec<String>> {
    let named = target.manager.clone();
    let named = named.or_else(|| std::env::var("WARREN_MANAGER").ok());
    let managers: Vec<String> = named
        .unwrap_or_default()
        .split(',')
        .map(str::trim)
        .filter(|m| !m.is_empty())
        .map(args::host_port)
        .collect::<Result<_, String>>()
        .map_err(|e| CliError::usage(format!("--manager: {e}")))?;
    if managers.is_empty() {
        return Err(
            CliError::usage("no manager to ask is named").remedy(
                "--manager HOST:PORT; `warren cluster join-token` on a manager prints the whole command",
            ),
        );
    }
    Ok(managers)
}

async fn with_api(command: Command, api: &dyn Api, io: &mut Io) -> Result<u8> {
    use commands::{apply, cluster, container, events, image, secret, service, up, volume};
    match command {
        Command::Down(args) => up::down(args, api, io).await?,
        Command::Apply(args) => apply::run(args, api, io).await?,
        Command::Diff(args) => return apply::run_diff(args, api, io).await,
        Command::Service(command) => service::run(command, api, io).await?,
        Command::Container(command) => return container::run(command, api, io).await,
        Command::Image(command) => image::run(command, api, io).await?,
        Command::Secret(command) => secret::run(command, api, io).await?,
        Command::Volume(command) => volume::run(command, api, io).await?,
        Command::Node(command) => node(command, api, io).await?,
        Command::Cluster(ClusterCommand::Info(args)) => cluster::info(args, api, io).await?,
        Command::Events(args) => events::run(args, api, io).await?,
        Command::Up(_)
        | Command::Cluster(ClusterCommand::Init(_) | ClusterCommand::Restore(_))
        | Command::Manager(_)
        | Command::Worker(_)
        | Command::Completion { .. }
        | Command::Version(_) => {
            unreachable!("dispatch has dealt with the commands that need no cluster")
        }
    }
    Ok(0)
}

async fn node(command: NodeCommand, api: &dyn Api, io: &mut Io) -> Result<()> {
    use commands::node;
    use warren_types::Availability;
    match command {
        NodeCommand::List(args) => node::list(args, api, io).await,
        NodeCommand::Inspect { names, output } => node::inspect(&names, output, api, io).await,
        NodeCommand::Update(args) => node::update(args, api, io).await,
        NodeCommand::Drain { name, wait } => node::drain(&name, &wait, api, io).await,
        NodeCommand::Activate { name } => {
            node::set_availability(&name, Availability::Active, api, io)
                .await
                .map(|_| ())
        }
        NodeCommand::Remove { name, force } => {
            api.remove_node(&name, force).await?;
            io.say(&format!("node {name}: removed from the cluster"))
        }
        NodeCommand::Join(_)
        | NodeCommand::Run(_)
        | NodeCommand::Stop(_)
        | NodeCommand::Reset(_) => {
            unreachable!("dispatch has dealt with the commands of this machine's daemon")
        }
    }
}

fn completion(shell: clap_complete::Shell, io: &mut Io) -> Result<Outcome> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command(), "warren", &mut script);
    io.print_bytes(&script)?;
    Ok(Outcome::Exit(0))
}

async fn version(args: OutputArgs, target: &Target, context: &mut Context) -> Result<Outcome> {
    let ask = async { context.connector.connect(target).await?.status().await };
    let daemon = tokio::time::timeout(VERSION_TIMEOUT, ask).await;
    let daemon = daemon.ok().and_then(|answer| answer.ok());
    commands::cluster::version(args, daemon, &mut context.io)?;
    Ok(Outcome::Exit(0))
}

/// Stops the daemon and waits until it no longer answers.
async fn stop(
    args: &NodeStopArgs,
    api: Box<dyn Api>,
    target: &Target,
    context: &mut Context,
) -> Result<()> {
    let pid = api.stop_daemon(args.grace).await?;
    drop(api);
    let local = target.manager.is_none();
    let deadline = Instant::now() + args.grace.to_std() + STOP_EXTRA;
    loop {
        let ask = async { context.connector.connect(target).await?.status().await };
        match tokio::time::timeout_at(deadline, ask).await {
            // Its socket goes before the process does, and only then are its directories free.
            Ok(Err(error)) if error.exit == Exit::NoConnection && !(local && lives(pid)) => break,
            // Another daemon took its place: ours is gone.
            Ok(Ok(status)) if status.pid != pid => break,
            _ if Instant::now() >= deadline => {
                return Err(
                    CliError::general(format!("the daemon (process {pid}) still runs")).remedy(
                        format!("look at its log; kill {pid} ends it, containers keep running"),
                    ),
                );
            }
            _ => sleep_until((Instant::now() + STOP_LOOK_EVERY).min(deadline)).await,
        }
    }
    context.io.say("daemon stopped; containers keep running")
}

/// Does the process run on this machine? One that has ended and was not waited for yet does not.
fn lives(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat
        .rsplit(')')
        .next()
        .and_then(|rest| rest.split_whitespace().next());
    state.is_some_and(|state| state != "Z" && state != "X")
}
