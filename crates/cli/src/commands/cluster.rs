//! `warren cluster info`, `warren cluster health`, `warren version`.

use super::stale::stale_text;
use crate::api::{Api, ClusterView, MemberView, NodeView, SettingsView, StaleView, StatusView};
use crate::args::{Format, OutputArgs};
use crate::error::Result;
use crate::io::Io;
use crate::output::{self, Table, ago, clean, fields};
use serde::Serialize;
use warren_types::{Bytes, Duration, RaftProfile, Timestamp};

/// What `cluster info` shows.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Info {
    #[serde(flatten)]
    cluster: ClusterView,
    /// The answering manager is outside the quorum.
    stale: Option<StaleView>,
}

pub(crate) async fn info(args: OutputArgs, api: &dyn Api, io: &mut Io) -> Result<()> {
    let cluster = api.cluster().await?;
    let stale = api.stale();
    if let Some(stale) = &stale {
        io.say(&format!(
            "warning: {}",
            stale_text(stale, &cluster.answered_by)
        ))?;
    }
    let now = (io.now)();
    let wide = args.output == Format::Wide;
    let info = Info { cluster, stale };
    output::inspect(io, args.output, &[info], |i| block(i, wide, now))
}

fn block(info: &Info, wide: bool, now: Timestamp) -> String {
    let c = &info.cluster;
    let mut rows = about(c);
    rows.extend(quorum(c));
    rows.extend(log(c));
    rows.extend([
        ("Settings", settings_text(&c.settings)),
        ("Auto-lock", on_off(c.settings.auto_lock)),
        ("CA fingerprint", c.ca_fingerprint.clone()),
        ("CA rotation", rotation(c)),
        ("Created", ago(c.created_at, now)),
        ("Answered by", answered_by(info)),
    ]);
    let mut text = fields(&rows);
    text.push('\n');
    text.push_str(&members(&c.members, wide).render(wide));
    if !c.warnings.is_empty() {
        text.push_str("\nWarnings:\n");
        for warning in &c.warnings {
            text.push_str(&format!("  {}\n", clean(warning)));
        }
    }
    text
}

type Rows = Vec<(&'static str, String)>;

fn about(c: &ClusterView) -> Rows {
    let leader = if c.leader.is_empty() {
        &c.leader_id
    } else {
        &c.leader
    };
    vec![
        ("Name", c.name.clone()),
        ("ID", c.id.clone()),
        (
            "Leader",
            if leader.is_empty() {
                "none".to_owned()
            } else {
                leader.clone()
            },
        ),
        ("Leader ID", c.leader_id.clone()),
        ("Leader address", c.leader_address.clone()),
    ]
}

fn quorum(c: &ClusterView) -> Rows {
    vec![
        (
            "Quorum",
            if c.quorum {
                "yes"
            } else {
                "no: writes are refused"
            }
            .to_owned(),
        ),
        ("Voters", voters_text(c)),
        ("Managers", c.managers.to_string()),
        ("Nodes", format!("{} ({} ready)", c.nodes, c.nodes_ready)),
        ("Services", c.services.to_string()),
        (
            "Containers",
            format!("{} ({} running)", c.containers, c.containers_running),
        ),
        ("Revision", c.revision.to_string()),
        ("Term", c.term.to_string()),
        ("Leader changes", c.leader_changes.to_string()),
    ]
}

fn voters_text(c: &ClusterView) -> String {
    // Only the leader knows who answers.
    if c.voters_healthy == 0 {
        return format!("{}; a write needs {}", c.voters, c.quorum_needed);
    }
    format!(
        "{} of {} answer; a write needs {}; {} more may fail",
        c.voters_healthy, c.voters, c.quorum_needed, c.failures_tolerated
    )
}

fn log(c: &ClusterView) -> Rows {
    let snapshot = if c.snapshot_index == 0 {
        "none yet".to_owned()
    } else {
        format!("entry {}, {}", c.snapshot_index, Bytes(c.snapshot_bytes))
    };
    vec![
        (
            "Log",
            format!("{} entries, {}", c.log_entries, Bytes(c.log_bytes)),
        ),
        ("Snapshot", snapshot),
        (
            "Applied",
            format!("entry {} of {}", c.applied_index, c.committed_index),
        ),
        (
            "Commit p99",
            c.commit_p99_micros
                .map(|micros| format!("{}.{} ms", micros / 1000, micros % 1000 / 100))
                .unwrap_or_default(),
        ),
    ]
}

pub(crate) fn settings_text(s: &SettingsView) -> String {
    format!(
        "snapshot every {} entries or {}\nlog at most {}\nheartbeat {}, node down after {}\nraft profile {}",
        s.snapshot_entries,
        Bytes(s.snapshot_bytes),
        Bytes(s.log_bytes_max),
        Duration(s.heartbeat_ms),
        Duration(s.node_down_after_ms),
        s.raft_profile.name()
    )
}

pub(crate) fn on_off(on: bool) -> String {
    if on { "on" } else { "off" }.to_owned()
}

fn rotation(c: &ClusterView) -> String {
    if c.ca_rotation {
        format!(
            "under way: {} nodes still have a certificate of the old authority",
            c.ca_rotation_waiting
        )
    } else {
        String::new()
    }
}

fn answered_by(info: &Info) -> String {
    let name = &info.cluster.answered_by;
    if info.stale.is_some() {
        format!("{name} (stale: it is outside the quorum)")
    } else {
        name.clone()
    }
}

/// voter, learner or staging.
pub(crate) fn standing(member: &MemberView) -> String {
    match member.suffrage.as_str() {
        "Nonvoter" => "learner".to_owned(),
        other => other.to_ascii_lowercase(),
    }
}

fn members(members: &[MemberView], wide: bool) -> Table {
    let mut columns = vec![
        ("MANAGER", 30),
        ("ROLE", 0),
        ("STATE", 0),
        ("LEADER", 0),
        ("REACHABLE", 0),
        ("LAST CONTACT", 0),
        ("LAG", 0),
        ("VERSION", 0),
        ("ADDRESS", 30),
    ];
    if wide {
        columns.push(("PROFILE", 0));
        columns.push(("ID", 0));
    }
    let mut table = Table::new(&columns);
    for m in members {
        let contact = m.last_contact_ms.map(|ms| Duration(ms).to_string());
        let mut cells = vec![
            name(m).to_owned(),
            m.role.clone(),
            standing(m),
            if m.leader { "yes" } else { "" }.to_owned(),
            if m.reachable { "yes" } else { "no" }.to_owned(),
            contact.unwrap_or_default(),
            m.lag.to_string(),
            m.version.clone(),
            m.address.clone(),
        ];
        if wide {
            let profile = m.raft_profile.map(RaftProfile::name);
            cells.push(profile.unwrap_or_default().to_owned());
            cells.push(m.id.clone());
        }
        table.row(cells);
    }
    table
}

fn name(member: &MemberView) -> &str {
    if member.name.is_empty() {
        &member.id
    } else {
        &member.name
    }
}

#[derive(Debug, Serialize)]
struct Health {
    healthy: bool,
    /// Why it is not.
    reasons: Vec<String>,
    /// What needs attention and is no failure yet.
    warnings: Vec<String>,
}

/// Prints whether the cluster is healthy; the result is the exit status.
pub(crate) async fn health(args: OutputArgs, api: &dyn Api, io: &mut Io) -> Result<u8> {
    let cluster = api.cluster().await?;
    let nodes = api.nodes().await?;
    let stale = api.stale();
    let reasons = reasons(&cluster, &nodes, stale.as_ref());
    let health = Health {
        healthy: reasons.is_empty(),
        reasons,
        warnings: cluster.warnings,
    };
    match args.output {
        Format::Table | Format::Wide => {
            let mut text = String::new();
            if health.healthy {
                text.push_str("healthy\n");
            }
            for reason in &health.reasons {
                text.push_str(&format!("unhealthy: {}\n", clean(reason)));
            }
            for warning in &health.warnings {
                text.push_str(&format!("warning: {}\n", clean(warning)));
            }
            io.print(&text)?;
        }
        form => output::value(io, form, &health)?,
    }
    Ok(u8::from(!health.healthy))
}

fn reasons(c: &ClusterView, nodes: &[NodeView], stale: Option<&StaleView>) -> Vec<String> {
    let mut reasons = Vec::new();
    if let Some(stale) = stale {
        reasons.push(stale_text(stale, &c.answered_by));
    }
    if !c.quorum {
        reasons.push(format!(
            "no quorum: a write needs {} of {} voters; start the managers that are missing, \
             or, when they are lost for good, `warren cluster recover` on the one that has most",
            c.quorum_needed, c.voters
        ));
        // Without a leader nobody knows who else answers.
        return reasons;
    }
    for member in &c.members {
        if !member.reachable && member.suffrage == "Voter" {
            let silent = member
                .last_contact_ms
                .map_or_else(String::new, |ms| format!(", silent for {}", Duration(ms)));
            reasons.push(format!(
                "manager {} does not answer{silent}; start it, or `warren node remove {0}`",
                name(member)
            ));
        }
    }
    for node in nodes.iter().filter(|n| n.status == "down") {
        // A manager that is down has been told already.
        if !c.members.iter().any(|m| m.id == node.id && !m.reachable) {
            let why = if node.reason.is_empty() {
                String::new()
            } else {
                format!(": {}", node.reason)
            };
            reasons.push(format!("node {} is down{why}", node.name));
        }
    }
    reasons
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Versions {
    client: crate::Build,
    daemon: Option<StatusView>,
}

/// Prints the client's version, and the daemon's if one answers.
pub(crate) fn version(args: OutputArgs, daemon: Option<StatusView>, io: &mut Io) -> Result<()> {
    let client = crate::Build::CURRENT;
    if matches!(args.output, Format::Json | Format::Yaml) {
        return output::value(io, args.output, &Versions { client, daemon });
    }
    let text = fields(&[
        ("Version", client.version.to_owned()),
        ("Commit", client.commit.to_owned()),
        ("Built", client.time.to_owned()),
        ("Platform", client.platform()),
        (
            "Daemon",
            match &daemon {
                Some(d) => format!("{} on {}{}", d.version, d.node, state(d)),
                None => "does not answer".to_owned(),
            },
        ),
    ]);
    io.print(&text)
}

fn state(daemon: &StatusView) -> &'static str {
    if daemon.removed {
        " (removed from its cluster: `warren node reset`)"
    } else if daemon.locked {
        " (locked: `warren cluster unlock`)"
    } else {
        ""
    }
}
