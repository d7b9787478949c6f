//! `warren`: manager, worker and command line in one program.

mod background;
mod daemon;
mod failure;
mod hello;
mod home;
mod logfile;
mod machine;
mod reset;

use clap::Parser;
use failure::Failure;
use std::ffi::OsString;
use std::process::ExitCode;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use warren_cli::args::{GlobalArgs, LogLevel};
use warren_cli::{Cli, Context, DaemonCommand, Outcome};

/// A manager allocates and frees small things on several threads at once, which the C library's allocator is slow at; and with
/// one area of it for each thread, memory that one thread has freed is of no use to the others.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// First argument of the program inside the hello image.
const HELLO_ARGUMENT: &str = "__hello";
/// Exit status of a failure that has no number of its own.
const GENERAL: u8 = 1;

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    // A shim must not have started a thread, so this comes before everything else.
    if let Some(status) = warren_runtime::shim_main(&args) {
        return ExitCode::from(u8::try_from(status).unwrap_or(GENERAL));
    }
    if args.get(1).is_some_and(|word| word == HELLO_ARGUMENT) {
        return hello::serve();
    }
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(e) => {
            eprintln!("error: threads cannot be started: {e}");
            return ExitCode::from(GENERAL);
        }
    };
    let status = runtime.block_on(run(cli));
    // Blocking work that is under way (an unpacking, a log being followed) must not hold up the end.
    runtime.shutdown_background();
    ExitCode::from(status)
}

async fn run(cli: Cli) -> u8 {
    let mut context = Context::process();
    let (global, target) = (cli.global.clone(), warren_cli::target(&cli));
    let command = match warren_cli::run(cli, &mut context).await {
        Outcome::Exit(status) => return status,
        Outcome::Daemon(command) => command,
    };
    match carry_out(command, &global, &target, &mut context).await {
        Ok(()) => 0,
        Err(Failure::Cli(error)) => warren_cli::report(&mut context.io, &error),
        Err(Failure::Daemon(text)) => {
            eprintln!("error: {text}");
            GENERAL
        }
    }
}

async fn carry_out(
    command: DaemonCommand,
    global: &GlobalArgs,
    target: &warren_cli::api::Target,
    context: &mut Context,
) -> Result<(), Failure> {
    match command {
        DaemonCommand::ClusterInit(args) => {
            let home = home::Home::new(&args.data_dir, global)?;
            run_daemon(home, daemon::Begin::from(&args), global).await
        }
        DaemonCommand::NodeRun(args) => {
            let home = home::Home::new(&args.data_dir, global)?;
            run_daemon(home, daemon::Begin::from(&args), global).await
        }
        DaemonCommand::Join(args) => {
            let home = home::Home::new(&args.data_dir, global)?;
            run_daemon(home, daemon::Begin::from(args), global).await
        }
        DaemonCommand::Restore(args) => {
            let home = home::Home::new(&args.data_dir, global)?;
            run_daemon(home, daemon::Begin::from(args), global).await
        }
        DaemonCommand::Up(args) => background::up(args, global, target, context).await,
        DaemonCommand::NodeReset(args) => reset::run(&args, global, target, context).await,
    }
}

async fn run_daemon(
    home: home::Home,
    begin: daemon::Begin,
    global: &GlobalArgs,
) -> Result<(), Failure> {
    log_to_stderr(global);
    daemon::run(home, begin).await
}

/// Log lines go to standard error: standard output is for data.
fn log_to_stderr(global: &GlobalArgs) {
    let level = match global.log_level {
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Error => LevelFilter::ERROR,
    };
    // openraft tells every heartbeat, and at warn each one that a dead manager does not answer; what matters of it reaches
    // our own lines.
    let targets = Targets::new().with_default(level).with_targets([
        ("openraft", LevelFilter::ERROR),
        ("nlink", LevelFilter::ERROR),
        ("libcontainer", LevelFilter::WARN),
        ("libcgroups", LevelFilter::WARN),
        ("h2", LevelFilter::WARN),
        ("hyper", LevelFilter::WARN),
    ]);
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let registry = tracing_subscriber::registry().with(targets);
    let set = if global.log_json {
        registry.with(lines.json()).try_init()
    } else {
        registry.with(lines.with_ansi(false)).try_init()
    };
    // A second call would be ours; the first writer stays.
    if let Err(problem) = set {
        eprintln!("log: {problem}");
    }
}
