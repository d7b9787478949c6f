//! `warren node promote`, `demote`, `remove`, `leave`.

use super::cluster::standing;
use super::node::drain;
use super::waiting::Waiting;
use crate::api::{Api, ClusterView, MemberView, NodeView, StatusView};
use crate::args::{LeaveArgs, PromoteArgs, WaitArgs};
use crate::error::{CliError, Result};
use crate::io::Io;

/// Makes a node a manager; waits until its voice counts.
pub(crate) async fn promote(args: &PromoteArgs, api: &dyn Api, io: &mut Io) -> Result<()> {
    let node = api.node(&args.name).await?;
    let role = if args.manager_only {
        "manager"
    } else {
        "hybrid"
    };
    api.set_role(&node.id, role).await?;
    if args.wait.detach {
        return io.say(&format!("node {}: to become a manager", node.name));
    }
    let mut waiting = Waiting::new(args.wait.timeout);
    loop {
        let line = match api.cluster().await {
            Ok(cluster) => match member(&cluster, &node) {
                Some(m) if m.suffrage == "Voter" && m.reachable => {
                    io.clear()?;
                    io.say(&format!("node {}: a manager now", node.name))?;
                    return say_strength(&cluster, io);
                }
                found => promoting(&node, found),
            },
            Err(error) => format!("node {}: {}", node.name, error.message),
        };
        waiting.look_again(line, io).await.map_err(|e| {
            e.remedy(format!(
                "it goes on by itself once the node can be reached; see `warren cluster info` and the log of \
                 {0}'s daemon, or take it back with `warren node demote {0}`",
                node.name
            ))
        })?;
    }
}

fn member<'a>(cluster: &'a ClusterView, node: &NodeView) -> Option<&'a MemberView> {
    cluster.members.iter().find(|m| m.id == node.id)
}

fn promoting(node: &NodeView, member: Option<&MemberView>) -> String {
    let what = match member {
        None => "it is told to become a manager".to_owned(),
        Some(m) if m.suffrage == "Nonvoter" && m.lag > 0 => {
            format!("learner, lacks {} log entries", m.lag)
        }
        Some(m) if m.reachable => standing(m),
        Some(m) => format!("{}, not reached at {}", standing(m), m.address),
    };
    format!("node {}: {what}", node.name)
}

/// How much the quorum withstands now.
fn say_strength(cluster: &ClusterView, io: &mut Io) -> Result<()> {
    let voters = cluster.voters;
    io.say(&format!(
        "{voters} {}: {} may fail without stopping writes{}",
        if voters == 1 { "manager" } else { "managers" },
        voters.saturating_sub(1) / 2,
        if voters > 1 && voters.is_multiple_of(2) {
            format!(", as with {}; an odd number is better", voters - 1)
        } else {
            String::new()
        }
    ))
}

/// Makes a node a worker; waits until it is no manager any more.
pub(crate) async fn demote(name: &str, wait: &WaitArgs, api: &dyn Api, io: &mut Io) -> Result<()> {
    let node = api.node(name).await?;
    api.set_role(&node.id, "worker").await?;
    if wait.detach {
        return io.say(&format!("node {}: to become a worker", node.name));
    }
    let mut waiting = Waiting::new(wait.timeout);
    loop {
        let line = match demoted(&node, api).await {
            Ok(Some(cluster)) => {
                io.clear()?;
                io.say(&format!(
                    "node {}: a worker now; its containers stay",
                    node.name
                ))?;
                return cluster.map_or(Ok(()), |cluster| say_strength(&cluster, io));
            }
            Ok(None) => format!("node {}: leaves the quorum", node.name),
            Err(error) => format!("node {}: {}", node.name, error.message),
        };
        waiting.look_again(line, io).await.map_err(|e| {
            e.remedy("it goes on by itself; see `warren cluster info` on another manager")
        })?;
    }
}

/// The node is neither listed as a manager nor counted as one: the list follows the records, and the quorum follows
/// the list a moment later.
fn gone(cluster: &ClusterView, node: &NodeView) -> bool {
    let voters = cluster.members.iter().filter(|m| m.suffrage == "Voter");
    member(cluster, node).is_none() && voters.count() == cluster.voters as usize
}

/// Whether the node is no manager any more, and the cluster without it where that can be seen.
#[allow(
    clippy::option_option,
    reason = "not yet; done and not visible from here; done and visible"
)]
async fn demoted(node: &NodeView, api: &dyn Api) -> Result<Option<Option<ClusterView>>> {
    let error = match api.cluster().await {
        Ok(cluster) if gone(&cluster, node) => return Ok(Some(Some(cluster))),
        Ok(_) => return Ok(None),
        Err(error) => error,
    };
    // It may be the very daemon that is asked: a worker says nothing about the cluster.
    match api.status().await {
        Ok(status) if status.node_id == node.id && status.role == "worker" => Ok(Some(None)),
        _ => Err(error),
    }
}

/// Takes a node out of the cluster.
pub(crate) async fn remove(name: &str, force: bool, api: &dyn Api, io: &mut Io) -> Result<()> {
    let was_manager = match api.node(name).await {
        Ok(node) => node.role == "manager" || node.role == "hybrid",
        // The removal itself says what is wrong.
        Err(_) => false,
    };
    api.remove_node(name, force).await?;
    io.say(&format!("node {name}: removed from the cluster"))?;
    if was_manager {
        io.say("it was a manager: the quorum goes on without it")?;
        if let Ok(cluster) = api.cluster().await {
            say_strength(&cluster, io)?;
        }
    }
    io.say("`warren node reset` on that machine removes what is left there")
}

/// Takes the node of this machine out of the cluster. `local` is its daemon; `api` is who decides, which
/// for a manager is the same.
pub(crate) async fn leave(
    args: &LeaveArgs,
    status: &StatusView,
    api: &dyn Api,
    io: &mut Io,
) -> Result<()> {
    if status.removed {
        return io.say(&format!(
            "node {}: the cluster has removed it already",
            status.node
        ));
    }
    let cluster = api.cluster().await?;
    let voters = cluster
        .members
        .iter()
        .filter(|m| m.suffrage == "Voter")
        .collect::<Vec<_>>();
    let voter = voters.iter().any(|m| m.id == status.node_id);
    if voter && voters.len() == 1 {
        return Err(CliError::general(format!(
            "{} is the only manager: the cluster ends with it",
            status.node
        ))
        .remedy(
            "`warren node reset` to end the cluster; or another manager first: `warren cluster join-token manager`",
        ));
    }
    if !args.yes
        && !crate::confirm(
            io,
            &format!(
                "Take node {} out of the cluster {}?",
                status.node, cluster.name
            ),
            "--yes",
        )?
    {
        return Err(CliError::general("nothing was changed"));
    }
    if !args.force {
        let wait = WaitArgs {
            detach: false,
            timeout: args.timeout,
        };
        drain(&status.node_id, &wait, api, io).await.map_err(|e| {
            CliError::new(e.exit, e.message).remedy(
                "give it more time with --timeout, or leave at once with --force; `warren node activate` takes it back",
            )
        })?;
    }
    if voter && cluster.leader_id == status.node_id {
        let leader = api.transfer_leadership(None).await?;
        io.say(&format!("{leader} leads now"))?;
    }
    remove_self(status, api, io).await
}

async fn remove_self(status: &StatusView, api: &dyn Api, io: &mut Io) -> Result<()> {
    if let Err(error) = api.remove_node(&status.node_id, true).await {
        // The answer may be lost because it is this very daemon that is removed.
        let removed = api.status().await.is_ok_and(|s| s.removed);
        if !removed {
            return Err(error);
        }
    }
    io.say(&format!("node {}: left the cluster", status.node))
}
