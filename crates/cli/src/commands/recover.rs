//! `warren cluster recover`, `warren cluster transfer-leadership`.

use super::waiting::Waiting;
use crate::api::{Api, ClusterView};
use crate::args::RecoverArgs;
use crate::error::{CliError, Result};
use crate::io::Io;

/// Lets the manager that answers go on alone; waits until writes are possible.
pub(crate) async fn run(args: RecoverArgs, api: &dyn Api, io: &mut Io) -> Result<()> {
    let status = api.status().await?;
    // What it knows of the others; it may not even be able to say that.
    let cluster = api.cluster().await.unwrap_or_default();
    explain(&status.node, &cluster, io)?;
    if !args.yes && !crate::confirm(io, &format!("Let {} go on alone?", status.node), "--yes")? {
        return Err(CliError::general("nothing was changed"));
    }
    let began = api.recover(args.force).await?;
    io.progress(&format!(
        "{}: goes on alone from revision {}, log entry {}",
        status.node, began.revision, began.applied_index
    ))?;
    let mut waiting = Waiting::new(args.timeout);
    loop {
        let line = match api.cluster().await {
            Ok(cluster) if alone(&cluster, &status.node_id) => {
                io.clear()?;
                return finished(&status.node, &cluster, io);
            }
            Ok(_) => format!("{}: waiting until it leads alone", status.node),
            Err(error) => format!("{}: {}", status.node, error.message),
        };
        waiting.look_again(line, io).await.map_err(|e| {
            e.remedy("look at the log of its daemon; the command may be given again")
        })?;
    }
}

/// The manager leads, nobody else votes, and writes are possible.
fn alone(cluster: &ClusterView, node: &str) -> bool {
    let mut voters = cluster.members.iter().filter(|m| m.suffrage == "Voter");
    cluster.quorum && voters.next().is_some_and(|m| m.id == node) && voters.next().is_none()
}

fn explain(name: &str, cluster: &ClusterView, io: &mut Io) -> Result<()> {
    let others: Vec<&str> = cluster
        .members
        .iter()
        .map(|m| {
            if m.name.is_empty() {
                m.id.as_str()
            } else {
                m.name.as_str()
            }
        })
        .filter(|m| *m != name)
        .collect();
    let others = if others.is_empty() {
        "the other managers".to_owned()
    } else {
        others.join(", ")
    };
    io.say(&format!(
        "This is for when the majority of the managers is lost for good.\n\
         {name} goes on alone with what it has: revision {}, log entry {}.\n\
         Writes that were acknowledged elsewhere and have not reached it are lost; if another manager is left,\n\
         compare `warren cluster info` there first and recover the one that has most.\n\
         Managers that it forgets: {others}. They must not come back as they are: `warren node reset` on\n\
         each, then join again. Running containers are not touched.",
        cluster.revision, cluster.applied_index
    ))
}

fn finished(name: &str, cluster: &ClusterView, io: &mut Io) -> Result<()> {
    io.say(&format!(
        "{name}: writes are possible again, revision {}\n\nNext:\n  \
         warren node list                    which nodes are there\n  \
         warren cluster join-token manager   the command for new managers\n  \
         warren node remove NODE --force     for each manager that is lost",
        cluster.revision
    ))
}

/// Lets another manager lead.
pub(crate) async fn transfer(name: Option<&str>, api: &dyn Api, io: &mut Io) -> Result<()> {
    let leader = api.transfer_leadership(name).await?;
    io.say(&format!("{leader} leads now"))
}
