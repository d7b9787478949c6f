//! `warren container …`.

use super::show::{container_reason, container_state, ports_text, sort};
use super::{exec, logs};
use crate::api::{Api, ContainerView};
use crate::args::{ContainerCommand, ContainerListArgs, OutputArgs};
use crate::error::{CliError, Result};
use crate::io::Io;
use crate::output::{self, Table, age, ago, fields, short_id};
use crate::wait;
use warren_types::Timestamp;

/// Shortest end of an id that is looked up.
const ID_END_CHARS_MIN: usize = 4;

pub(crate) async fn run(command: ContainerCommand, api: &dyn Api, io: &mut Io) -> Result<u8> {
    match command {
        ContainerCommand::List(args) => list(&args, api, io).await.map(|()| 0),
        ContainerCommand::Inspect { names, output } => {
            inspect(&names, output, api, io).await.map(|()| 0)
        }
        ContainerCommand::Logs { name, logs } => {
            logs::container(&name, &logs, api, io).await.map(|()| 0)
        }
        ContainerCommand::Exec(args) => exec::run(args, api, io).await,
    }
}

/// The container with this id, end of an id, or name `SERVICE.SLOT`; of several with one name the one
/// that lives, else the newest.
pub(crate) async fn find(api: &dyn Api, name: &str) -> Result<ContainerView> {
    let all = api.containers(None, None, true).await?;
    if let Some(exact) = all.iter().find(|c| c.id == name) {
        return Ok(exact.clone());
    }
    let named = all.iter().filter(|c| c.name == name);
    if let Some(best) = named.max_by_key(|c| (!c.ended(), c.created_at)) {
        return Ok(best.clone());
    }
    let by_id: Vec<&ContainerView> = if name.chars().count() >= ID_END_CHARS_MIN {
        all.iter()
            .filter(|c| c.id.ends_with(name) || c.id.starts_with(name))
            .collect()
    } else {
        Vec::new()
    };
    match by_id.as_slice() {
        [one] => Ok((*one).clone()),
        [] => Err(
            CliError::not_found(format!("container {name} does not exist"))
                .remedy("warren container list --all"),
        ),
        many => Err(CliError::usage(format!(
            "{name} is the beginning or end of {} ids",
            many.len()
        ))
        .remedy("write more of the id")),
    }
}

/// As [`find`], but the name of a service stands for its first running container.
pub(crate) async fn find_running(api: &dyn Api, name: &str) -> Result<ContainerView> {
    let missing = match find(api, name).await {
        Ok(found) => return Ok(found),
        Err(error) => error,
    };
    let Ok(mut containers) = api.containers(Some(name), None, false).await else {
        return Err(missing);
    };
    sort(&mut containers);
    match containers.iter().find(|c| c.state == "running") {
        Some(one) => Ok(one.clone()),
        None if containers.is_empty() => Err(missing),
        None => Err(CliError::general(format!(
            "no container of service {name} runs: {}",
            containers.first().map(wait::why).unwrap_or_default()
        ))
        .remedy(format!("warren service ps {name}"))),
    }
}

async fn list(args: &ContainerListArgs, api: &dyn Api, io: &mut Io) -> Result<()> {
    let node = match &args.node {
        Some(name) => Some(api.node(name).await?.id),
        None => None,
    };
    let service = match &args.service {
        Some(name) => Some(api.service(name).await?.id),
        None => None,
    };
    let mut containers = api
        .containers(service.as_deref(), node.as_deref(), args.all)
        .await?;
    if !args.all {
        containers.retain(|c| !c.ended());
    }
    sort(&mut containers);
    let now = (io.now)();
    output::list(
        io,
        args.output.output,
        "containers",
        &containers,
        |items, wide| table(items, wide, now),
    )
}

fn table(items: &[ContainerView], wide: bool, now: Timestamp) -> Table {
    let mut columns = vec![
        ("NAME", 30),
        ("ID", 0),
        ("NODE", 20),
        ("STATE", 0),
        ("ADDRESS", 0),
        ("IMAGE", 30),
        ("REASON", 60),
    ];
    if wide {
        columns.extend([("PID", 0), ("RESTARTS", 0), ("REV", 0), ("AGE", 0)]);
    }
    let mut table = Table::new(&columns);
    for c in items {
        let mut cells = vec![
            c.name.clone(),
            if wide { c.id.clone() } else { short_id(&c.id) },
            c.node.clone(),
            container_state(c, now),
            c.address.clone(),
            c.image.clone(),
            container_reason(c),
        ];
        if wide {
            cells.extend([
                c.pid.map(|p| p.to_string()).unwrap_or_default(),
                c.restarts.to_string(),
                c.revision.to_string(),
                age(c.created_at, now),
            ]);
        }
        table.row(cells);
    }
    table
}

async fn inspect(names: &[String], args: OutputArgs, api: &dyn Api, io: &mut Io) -> Result<()> {
    let mut views = Vec::new();
    for name in names {
        views.push(find(api, name).await?);
    }
    let now = (io.now)();
    output::inspect(io, args.output, &views, |view| block(view, now))
}

fn block(c: &ContainerView, now: Timestamp) -> String {
    fields(&[
        ("Name", c.name.clone()),
        ("ID", c.id.clone()),
        ("Service", c.service.clone()),
        ("Revision", c.revision.to_string()),
        ("Node", c.node.clone()),
        ("Image", c.image.clone()),
        ("Desired", c.desired.clone()),
        ("State", c.state.clone()),
        ("Reason", c.reason.clone()),
        ("Health", c.health.clone()),
        ("Last exit", c.exit.map(wait::exit_text).unwrap_or_default()),
        ("Restarts", c.restarts.to_string()),
        ("Address", c.address.clone()),
        ("Ports", ports_text(&c.ports, true)),
        (
            "Process id",
            c.pid.map(|p| p.to_string()).unwrap_or_default(),
        ),
        ("Created", ago(c.created_at, now)),
        ("Started", ago(c.started_at, now)),
        ("Finished", ago(c.finished_at, now)),
    ])
}
