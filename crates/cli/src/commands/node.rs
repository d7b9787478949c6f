//! `warren node …`, but for what needs the daemon's own code.

use super::pairs;
use crate::api::{Api, NodeChange, NodeView};
use crate::args::{NodeUpdateArgs, OutputArgs, WaitArgs};
use crate::error::{CliError, Result};
use crate::io::Io;
use crate::output::{self, Table, age, ago, fields};
use tokio::time::{Duration, Instant, sleep_until};
use warren_types::{Availability, Bytes, MilliCpu, Timestamp};

/// Time between two looks at a node that is being drained.
const LOOK_EVERY: Duration = Duration::from_millis(500);

pub(crate) async fn list(args: OutputArgs, api: &dyn Api, io: &mut Io) -> Result<()> {
    let mut nodes = api.nodes().await?;
    nodes.sort_by(|a, b| a.name.cmp(&b.name));
    let now = (io.now)();
    output::list(io, args.output, "nodes", &nodes, |items, wide| {
        table(items, wide, now)
    })
}

fn table(items: &[NodeView], wide: bool, now: Timestamp) -> Table {
    let mut columns = vec![
        ("NAME", 30),
        ("ROLE", 0),
        ("STATUS", 0),
        ("AVAILABILITY", 0),
        ("CPU", 0),
        ("MEMORY", 0),
        ("CONTAINERS", 0),
        ("ADDRESS", 30),
        ("ID", 0),
    ];
    if wide {
        columns.extend([
            ("PLATFORM", 0),
            ("SUBNET", 0),
            ("VERSION", 0),
            ("LABELS", 0),
            ("AGE", 0),
            ("REASON", 0),
        ]);
    }
    let mut table = Table::new(&columns);
    for node in items {
        let mut cells = vec![
            node.name.clone(),
            node.role.clone(),
            node.status.clone(),
            node.availability.clone(),
            format!(
                "{}/{}",
                MilliCpu(node.reserved_cpu_milli),
                MilliCpu(node.cpu_milli)
            ),
            format!(
                "{}/{}",
                Bytes(node.reserved_memory_bytes),
                Bytes(node.memory_bytes)
            ),
            node.containers.to_string(),
            node.address.clone(),
            node.id.clone(),
        ];
        if wide {
            cells.extend([
                node.platform.clone(),
                node.subnet.clone(),
                node.program_version.clone(),
                pairs(&node.labels).replace('\n', ","),
                age(node.created_at, now),
                node.reason.clone(),
            ]);
        }
        table.row(cells);
    }
    table
}

pub(crate) async fn inspect(
    names: &[String],
    args: OutputArgs,
    api: &dyn Api,
    io: &mut Io,
) -> Result<()> {
    let mut nodes = Vec::new();
    for name in names {
        nodes.push(api.node(name).await?);
    }
    let now = (io.now)();
    output::inspect(io, args.output, &nodes, |node| block(node, now))
}

fn block(node: &NodeView, now: Timestamp) -> String {
    fields(&[
        ("Name", node.name.clone()),
        ("ID", node.id.clone()),
        ("Host name", node.hostname.clone()),
        ("Role", node.role.clone()),
        ("Status", node.status.clone()),
        ("Reason", node.reason.clone()),
        ("Availability", node.availability.clone()),
        ("Address", node.address.clone()),
        ("Platform", node.platform.clone()),
        ("Version", node.program_version.clone()),
        (
            "CPU",
            format!(
                "{} cores, {} reserved",
                MilliCpu(node.cpu_milli),
                MilliCpu(node.reserved_cpu_milli)
            ),
        ),
        (
            "Memory",
            format!(
                "{}, {} reserved",
                Bytes(node.memory_bytes),
                Bytes(node.reserved_memory_bytes)
            ),
        ),
        ("Disk", Bytes(node.disk_bytes).to_string()),
        ("Containers", node.containers.to_string()),
        ("Subnet", node.subnet.clone()),
        ("Labels", pairs(&node.labels)),
        ("Joined", ago(node.created_at, now)),
    ])
}

pub(crate) async fn update(args: NodeUpdateArgs, api: &dyn Api, io: &mut Io) -> Result<()> {
    let change = NodeChange {
        availability: args.availability.map(Into::into),
        labels_set: args.label_add.into_iter().collect(),
        labels_remove: args.label_rm,
    };
    let node = api.update_node(&args.name, change).await?;
    let now = (io.now)();
    output::inspect(io, args.output.output, &[node], |node| block(node, now))
}

pub(crate) async fn set_availability(
    name: &str,
    availability: Availability,
    api: &dyn Api,
    io: &mut Io,
) -> Result<NodeView> {
    let change = NodeChange {
        availability: Some(availability),
        ..NodeChange::default()
    };
    let node = api.update_node(name, change).await?;
    io.say(&format!("node {}: {}", node.name, node.availability))?;
    Ok(node)
}

/// Drains a node and waits until nothing runs on it.
pub(crate) async fn drain(name: &str, wait: &WaitArgs, api: &dyn Api, io: &mut Io) -> Result<()> {
    let node = set_availability(name, Availability::Drain, api, io).await?;
    if wait.detach {
        return Ok(());
    }
    let deadline = Instant::now() + wait.timeout.to_std();
    let mut shown = String::new();
    loop {
        let containers = api.containers(None, Some(&node.id), false).await?;
        let left: Vec<&str> = containers
            .iter()
            .filter(|c| !c.ended())
            .map(|c| c.name.as_str())
            .collect();
        if left.is_empty() {
            io.clear()?;
            return io.say(&format!("node {}: no containers left", node.name));
        }
        let line = format!(
            "node {}: {} containers left: {}",
            node.name,
            left.len(),
            left.join(", ")
        );
        if line != shown {
            io.progress(&line)?;
            shown = line;
        }
        if Instant::now() >= deadline {
            io.clear()?;
            return Err(
                CliError::general(format!("not drained within {}: {shown}", wait.timeout))
                    .remedy(format!("warren container list --node {}", node.name)),
            );
        }
        sleep_until((Instant::now() + LOOK_EVERY).min(deadline)).await;
    }
}
