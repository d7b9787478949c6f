//! Which code carries a command out.

use crate::api::{Api, Target};
use crate::args::{
    self, ClusterCommand, Command, JoinFlags, JoinRole, LeaveArgs, ManagerCommand, NodeCommand,
    NodeStopArgs, OutputArgs, WorkerCommand,
};
use crate::error::{CliError, Exit, Result};
use crate::io::Io;
use crate::{Context, DaemonCommand, Outcome, command, commands};
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// How long `warren version` waits for a daemon.
const VERSION_TIMEOUT: Duration = Duration::from_secs(2);
/// Time between two looks whether a stopping daemon is gone.
const STOP_LOOK_EVERY: Duration = Duration::from_millis(50);
/// Time beyond its grace that a stopping daemon may take.
const STOP_EXTRA: Duration = Duration::from_secs(10);
/// Time that the daemon of a node that leaves may take to end what it does.
const LEAVE_GRACE: warren_types::Duration = warren_types::Duration::from_secs(10);

pub(crate) async fn dispatch(
    command: Command,
    target: &Target,
    context: &mut Context,
) -> Result<Outcome> {
    let command = match for_daemon(command, target, &mut context.io)? {
        Ok(daemon) => return Ok(Outcome::Daemon(daemon)),
        Err(command) => command,
    };
    match command {
        Command::Completion { shell } => return completion(shell, &mut context.io),
        Command::Version(args) => return version(args, target, context).await,
        _ => {}
    }
    if let Command::Node(NodeCommand::Leave(args)) = command {
        leave(&args, target, context).await?;
        return Ok(Outcome::Exit(0));
    }
    let api = context.connector.connect(target).await?;
    if let Command::Node(NodeCommand::Stop(args)) = command {
        stop(&args, api, target, context).await?;
        return Ok(Outcome::Exit(0));
    }
    let io = &mut context.io;
    let warns = !warns_itself(&command);
    let done = with_api(command, api.as_ref(), io).await;
    if warns {
        commands::stale::warn(api.as_ref(), io).await?;
    }
    done.map(Outcome::Exit)
}

/// Commands that tell by themselves when the manager is outside the quorum.
fn warns_itself(command: &Command) -> bool {
    matches!(
        command,
        Command::Cluster(
            ClusterCommand::Info(_)
                | ClusterCommand::Health(_)
                | ClusterCommand::Recover(_)
                | ClusterCommand::Unlock(_)
        )
    )
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
    use commands::{apply, container, events, image, secret, service, up, volume};
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
        Command::Cluster(command) => return cluster(command, api, io).await,
        Command::Events(args) => events::run(args, api, io).await?,
        Command::Up(_)
        | Command::Manager(_)
        | Command::Worker(_)
        | Command::Completion { .. }
        | Command::Version(_) => {
            unreachable!("dispatch has dealt with the commands that need no cluster")
        }
    }
    Ok(0)
}

async fn cluster(command: ClusterCommand, api: &dyn Api, io: &mut Io) -> Result<u8> {
    use commands::{backup, certificate, cluster, keys, recover, settings, token};
    match command {
        ClusterCommand::Info(args) => cluster::info(args, api, io).await?,
        ClusterCommand::Health(args) => return cluster::health(args, api, io).await,
        ClusterCommand::JoinToken(args) => token::join_token(args, api, io).await?,
        ClusterCommand::Token(command) => token::run(command, api, io).await?,
        ClusterCommand::Settings(args) => settings::run(args, api, io).await?,
        ClusterCommand::TransferLeadership { name } => {
            recover::transfer(name.as_deref(), api, io).await?;
        }
        ClusterCommand::Backup(args) => backup::run(args, api, io).await?,
        ClusterCommand::Recover(args) => recover::run(args, api, io).await?,
        ClusterCommand::Unlock(args) => keys::unlock(args, api, io).await?,
        ClusterCommand::AutoLock(command) => keys::auto_lock(command, api, io).await?,
        ClusterCommand::Ca(command) => keys::authority(command, api, io).await?,
        ClusterCommand::AdminCert(args) => certificate::run(args, api, io).await?,
        ClusterCommand::DataKey(command) => keys::data_key(command, api, io).await?,
        ClusterCommand::Init(_) | ClusterCommand::Restore(_) => {
            unreachable!("dispatch has dealt with the commands that need no cluster")
        }
    }
    Ok(0)
}

async fn node(command: NodeCommand, api: &dyn Api, io: &mut Io) -> Result<()> {
    use commands::{member, node};
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
        NodeCommand::Promote(args) => member::promote(&args, api, io).await,
        NodeCommand::Demote { name, wait } => member::demote(&name, &wait, api, io).await,
        NodeCommand::Remove { name, force } => member::remove(&name, force, api, io).await,
        NodeCommand::Join(_)
        | NodeCommand::Leave(_)
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

/// Takes the node of this machine out of its cluster, then stops its daemon.
async fn leave(args: &LeaveArgs, target: &Target, context: &mut Context) -> Result<()> {
    let here = Target {
        manager: None,
        socket: target.socket.clone(),
    };
    let local = context.connector.connect(&here).await?;
    let status = local.status().await?;
    // A worker is no admin of its cluster: somebody else has to be asked.
    let api = match (status.role.as_str(), &target.manager) {
        (_, Some(_)) => context.connector.connect(target).await?,
        ("worker", None) if !status.removed => {
            return Err(CliError::usage(format!(
                "{} is a worker, and a worker may not change its cluster",
                status.node
            ))
            .remedy(format!(
                "warren node leave --manager HOST:PORT with the certificates of an admin; or on a manager \
                 `warren node remove --force {}`, then here `warren node stop` and `warren node reset`",
                status.node
            )));
        }
        _ => context.connector.connect(&here).await?,
    };
    commands::member::leave(args, &status, api.as_ref(), &mut context.io).await?;
    drop(api);
    let stop_args = NodeStopArgs { grace: LEAVE_GRACE };
    stop(&stop_args, local, &here, context).await?;
    context
        .io
        .say("\nNext:\n  warren node reset   remove what is left of the node on this machine")
}
