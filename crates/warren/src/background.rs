//! `warren up`: make sure that a node runs here, apply the file, wait, say where to look.

use crate::daemon::{self, Begin};
use crate::failure::Failure;
use crate::home::{Home, need_root};
use std::fs::OpenOptions;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use warren_cli::api::{Api, Target};
use warren_cli::args::{ClusterInitArgs, GlobalArgs, NodeRunArgs, UpArgs};
use warren_cli::{CliError, Context, Exit, up_apply, up_manifest};

/// How long a node may take until it is ready.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// Time between two looks whether it is.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Lines of the log that are shown when the node does not start.
const LOG_LINES_SHOWN: usize = 15;

pub(crate) async fn up(
    args: UpArgs,
    global: &GlobalArgs,
    target: &Target,
    context: &mut Context,
) -> Result<(), Failure> {
    // A bad file must have no effect, not even a node.
    let manifest = up_manifest(&args, &mut context.io)?;
    let home = Home::new(&args.data_dir, global)?;
    if let Some(api) = ready(target, context).await {
        return Ok(up_apply(api.as_ref(), manifest, &args, &mut context.io).await?);
    }
    if global.manager.is_some() {
        let error = CliError::new(
            Exit::NoConnection,
            "the manager named by --manager does not answer",
        );
        return Err(error
            .remedy("leave --manager out to start a node on this machine")
            .into());
    }
    need_root()?;
    if args.foreground {
        return foreground(args, home, global, target, context, manifest).await;
    }
    context.io.progress("starting a node on this machine")?;
    let mut daemon = spawn(&home, &args, global)?;
    let api = wait_ready(&mut daemon, &home, target, context).await?;
    context.io.clear()?;
    context.io.say(&format!(
        "node is up; its log is {}",
        home.log_file().display()
    ))?;
    Ok(up_apply(api.as_ref(), manifest, &args, &mut context.io).await?)
}

async fn foreground(
    args: UpArgs,
    home: Home,
    global: &GlobalArgs,
    target: &Target,
    context: &mut Context,
    manifest: warren_cli::manifest::Manifest,
) -> Result<(), Failure> {
    crate::log_to_stderr(global);
    let begin = if home.has_node() {
        Begin::from(&NodeRunArgs {
            data_dir: args.data_dir.clone(),
            api_addr: None,
            advertise_addr: None,
            metrics_addr: None,
        })
    } else {
        Begin::from(&founding(&args))
    };
    let node = daemon::run(home, begin);
    let apply = async {
        let api = loop {
            if let Some(api) = ready(target, context).await {
                break api;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        };
        let applied = up_apply(api.as_ref(), manifest, &args, &mut context.io).await;
        if let Err(error) = applied {
            warren_cli::report(&mut context.io, &error);
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        ended = node => ended,
        () = apply => Ok(()),
    }
}

/// The cluster that `up` makes where there is none.
fn founding(args: &UpArgs) -> ClusterInitArgs {
    ClusterInitArgs {
        node_id: None,
        cluster_name: "warren".to_owned(),
        api_addr: args.api_addr,
        advertise_addr: args.advertise_addr.clone(),
        metrics_addr: args.metrics_addr,
        data_dir: args.data_dir.clone(),
        manager_only: false,
        raft_profile: args.raft_profile,
    }
}

/// The daemon in a session of its own, so that it survives the shell.
fn spawn(home: &Home, args: &UpArgs, global: &GlobalArgs) -> Result<Child, Failure> {
    std::fs::create_dir_all(&home.data_dir)?;
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .open(home.log_file())?;
    let mut command = Command::new(std::env::current_exe()?);
    command
        .arg("--log-level")
        .arg(global.log_level.name())
        .arg("--socket")
        .arg(&home.socket);
    if global.log_json {
        command.arg("--log-json");
    }
    if home.has_node() {
        command.args(["node", "run"]);
    } else {
        let metrics = args.metrics_addr.0;
        let metrics = metrics.map_or_else(|| "none".to_owned(), |address| address.to_string());
        command.args(["cluster", "init", "--api-addr", &args.api_addr.to_string()]);
        command.args(["--metrics-addr", &metrics]);
        command.args(["--raft-profile", args.raft_profile.name()]);
        if let Some(address) = &args.advertise_addr {
            command.args(["--advertise-addr", address]);
        }
    }
    command
        .arg("--data-dir")
        .arg(&home.data_dir)
        .env("WARREN_RUN_DIR", &home.run_dir);
    command
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log);
    command.current_dir("/").process_group(0);
    detach(&mut command);
    Ok(command.spawn()?)
}

#[allow(
    unsafe_code,
    reason = "leaving the shell's session between fork and exec is a raw system call"
)]
fn detach(command: &mut Command) {
    // SAFETY: setsid is async-signal-safe and touches no memory of ours.
    unsafe {
        command.pre_exec(|| {
            // Already a group leader is no failure: then the session stays the shell's, and only a
            // hang-up would reach the daemon, which it ignores by default as a background process.
            libc::setsid();
            Ok(())
        });
    }
}

async fn wait_ready(
    daemon: &mut Child,
    home: &Home,
    target: &Target,
    context: &mut Context,
) -> Result<Box<dyn Api>, Failure> {
    let begin = Instant::now();
    loop {
        if let Some(api) = ready(target, context).await {
            return Ok(api);
        }
        if let Some(status) = daemon.try_wait()? {
            let text = format!(
                "the node ended at once ({status}); the end of its log:\n{}",
                tail(&home.log_file())
            );
            return Err(CliError::general(text).into());
        }
        if begin.elapsed() > READY_WITHIN {
            let text = format!(
                "the node is not ready after {} s; the end of its log:\n{}",
                READY_WITHIN.as_secs(),
                tail(&home.log_file())
            );
            return Err(CliError::general(text)
                .remedy(format!("look at {}", home.log_file().display()))
                .into());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// A connection to a node that is ready.
async fn ready(target: &Target, context: &Context) -> Option<Box<dyn Api>> {
    let api = context.connector.connect(target).await.ok()?;
    let status = api.status().await.ok()?;
    status.ready.then_some(api)
}

fn tail(path: &Path) -> String {
    let text = std::fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n")
}
