//! `warren node reset`: everything that the node made on this machine goes.

use crate::failure::Failure;
use crate::home::{Home, need_root};
use std::time::{Duration, Instant};
use warren_cli::api::Target;
use warren_cli::args::{GlobalArgs, NodeResetArgs};
use warren_cli::{CliError, Context, confirm};
use warren_manager::init;
use warren_types::NodeId;
use warren_worker::Places;

/// How long a running daemon may take to stop.
const STOP_WITHIN: Duration = Duration::from_secs(20);
/// How long the directory may stay taken.
const LOCK_WITHIN: Duration = Duration::from_secs(3);
/// Time between two looks whether it has.
const LOOK_EVERY: Duration = Duration::from_millis(50);

pub(crate) async fn run(
    args: &NodeResetArgs,
    global: &GlobalArgs,
    target: &Target,
    context: &mut Context,
) -> Result<(), Failure> {
    need_root()?;
    let home = Home::new(&args.data_dir, global)?;
    let question = format!(
        "Remove the node in {}, all its containers, volumes and data?",
        home.data_dir.display()
    );
    if !args.yes && !confirm(&mut context.io, &question, "--yes")? {
        return Ok(());
    }
    stop(&home, target, context).await?;
    if !home.data_dir.exists() && !home.run_dir.exists() {
        context.io.say("there is nothing to remove")?;
        return Ok(());
    }
    // Half a node, left by a crash or an earlier reset, has no id; the rest goes all the same.
    let opened = open(&home).await?;
    let node = init::who(&opened.keyring()).map_or(NodeId::default(), |who| who.node);
    let places = Places::new(home.data_dir.clone(), home.run_dir.clone(), node);
    let report = warren_worker::reset(&places, std::env::current_exe()?).await?;
    drop(opened);
    // The socket file of a killed daemon; one that stopped has removed it.
    let _ = std::fs::remove_file(&home.socket);
    let _ = std::fs::remove_dir_all(&home.data_dir);
    context.io.say(&format!(
        "removed: {} containers, network, images, volumes and data",
        report.containers
    ))?;
    Ok(())
}

/// Takes the directory; a daemon that is just ending has it for a moment longer.
async fn open(home: &Home) -> Result<crate::home::Opened, Failure> {
    let begin = Instant::now();
    loop {
        match home.open() {
            Err(refused) if begin.elapsed() > LOCK_WITHIN => return Err(refused),
            Err(_) => tokio::time::sleep(LOOK_EVERY).await,
            Ok(opened) => return Ok(opened),
        }
    }
}

/// Stops the daemon of this home if it runs.
async fn stop(home: &Home, target: &Target, context: &mut Context) -> Result<(), Failure> {
    let Ok(api) = context.connector.connect(target).await else {
        return Ok(());
    };
    let Ok(status) = api.status().await else {
        return Ok(());
    };
    if std::path::Path::new(&status.data_dir) != home.data_dir {
        return Ok(());
    }
    let pid = api
        .stop_daemon(warren_types::Duration::from_secs(5))
        .await?;
    let begin = Instant::now();
    while std::path::Path::new(&format!("/proc/{pid}")).exists() {
        if begin.elapsed() > STOP_WITHIN {
            let error = CliError::general(format!("the daemon (process {pid}) does not stop"));
            return Err(error
                .remedy(format!("end it with `kill -9 {pid}` and try again"))
                .into());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(())
}
