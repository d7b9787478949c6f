//! `warren cluster info`, `warren version`.

use crate::api::{Api, ClusterView, StatusView};
use crate::args::{Format, OutputArgs};
use crate::error::Result;
use crate::io::Io;
use crate::output::{self, Table, ago, fields};
use serde::Serialize;
use warren_types::Timestamp;

pub(crate) async fn info(args: OutputArgs, api: &dyn Api, io: &mut Io) -> Result<()> {
    let cluster = api.cluster().await?;
    let now = (io.now)();
    output::inspect(io, args.output, &[cluster], |c| block(c, now))
}

fn block(c: &ClusterView, now: Timestamp) -> String {
    let mut text = fields(&[
        ("Name", c.name.clone()),
        ("ID", c.id.clone()),
        (
            "Leader",
            if c.leader.is_empty() {
                c.leader_id.clone()
            } else {
                c.leader.clone()
            },
        ),
        ("Leader ID", c.leader_id.clone()),
        ("Leader address", c.leader_address.clone()),
        (
            "Quorum",
            if c.quorum {
                "yes"
            } else {
                "no: writes are refused"
            }
            .to_owned(),
        ),
        ("Managers", c.managers.to_string()),
        ("Nodes", format!("{} ({} ready)", c.nodes, c.nodes_ready)),
        ("Services", c.services.to_string()),
        (
            "Containers",
            format!("{} ({} running)", c.containers, c.containers_running),
        ),
        ("Revision", c.revision.to_string()),
        ("Term", c.term.to_string()),
        ("CA fingerprint", c.ca_fingerprint.clone()),
        ("Created", ago(c.created_at, now)),
    ]);
    let mut table = Table::new(&[("MEMBER", 0), ("ADDRESS", 0), ("SUFFRAGE", 0)]);
    for member in &c.members {
        table.row([
            member.id.clone(),
            member.address.clone(),
            member.suffrage.clone(),
        ]);
    }
    text.push('\n');
    text.push_str(&table.render(true));
    text
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
                Some(d) => format!("{} on {}", d.version, d.node),
                None => "does not answer".to_owned(),
            },
        ),
    ]);
    io.print(&text)
}
