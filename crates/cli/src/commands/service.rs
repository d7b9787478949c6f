//! `warren service …`.

use super::{all_failures, logs, pairs, spec};
use crate::api::{Api, ContainerView, ServiceView};
use crate::args::{
    Format, OutputArgs, ServiceCommand, ServiceCreateArgs, ServiceUpdateArgs, WaitArgs,
};
use crate::diff;
use crate::error::{CliError, Exit, Result};
use crate::io::Io;
use crate::output::{self, Table, age, ago, fields, short_id};
use crate::wait::{self, Before};
use warren_types::{
    HealthProbe, Mode, Mount, PortMapping, Protocol, PublishMode, ServiceSpec, Timestamp,
};

pub(crate) async fn run(command: ServiceCommand, api: &dyn Api, io: &mut Io) -> Result<()> {
    match command {
        ServiceCommand::Create(args) => create(&args, api, io).await,
        ServiceCommand::List(args) => list(args, api, io).await,
        ServiceCommand::Inspect { names, output } => inspect(&names, output, api, io).await,
        ServiceCommand::Ps { names, all, output } => ps(&names, all, output, api, io).await,
        ServiceCommand::Update(args) => update(&args, api, io).await,
        ServiceCommand::Scale {
            targets,
            replicas,
            dry_run,
            wait,
        } => scale(&targets, replicas, dry_run, &wait, api, io).await,
        ServiceCommand::Delete {
            names,
            dry_run,
            wait,
        } => delete(&names, dry_run, &wait, api, io).await,
        ServiceCommand::Logs(args) => logs::service(args, api, io).await,
        ServiceCommand::Rollback {
            name,
            to_revision,
            wait,
        } => rollback(&name, to_revision, &wait, api, io).await,
    }
}

async fn create(args: &ServiceCreateArgs, api: &dyn Api, io: &mut Io) -> Result<()> {
    let spec = spec::create(args)?;
    if args.dry_run {
        api.create_service(&spec, true).await?;
        io.say(&format!("service {} would be created:", spec.name))?;
        return output::value(
            io,
            if args.output.output == Format::Json {
                Format::Json
            } else {
                Format::Yaml
            },
            &spec,
        );
    }
    let made = api.create_service(&spec, false).await?;
    let mut view = made.clone();
    if !args.wait.detach {
        io.progress(&format!("{}: created", spec.name))?;
        let before = Before::default().wanting(&made);
        view = wait::service(api, io, &made.id, &before, args.wait.timeout, true).await?;
    }
    if args.quiet {
        return io.print(&format!("{}\n", view.id));
    }
    match args.output.output {
        Format::Table | Format::Wide => io.print(&summary(&view)),
        form => output::value(io, form, &view),
    }
}

/// What `service create` prints.
fn summary(view: &ServiceView) -> String {
    let container = &view.spec.container;
    let replicas = match view.spec.mode {
        Mode::Replicated { replicas } => format!("{}/{replicas}", view.running),
        Mode::Global => format!("{} (global)", view.running),
    };
    fields(&[
        ("Name", view.spec.name.clone()),
        ("ID", view.id.clone()),
        ("Image", container.image.clone()),
        ("Running", replicas),
        ("Ports", ports_text(&view.spec.ports, true)),
        ("Health check", health_text(&view.spec)),
        (
            "CPU limit",
            container
                .resources
                .cpu_limit
                .map(|c| format!("{c} cores"))
                .unwrap_or_default(),
        ),
        (
            "Memory limit",
            container
                .resources
                .memory_limit
                .map(|m| m.to_string())
                .unwrap_or_default(),
        ),
    ])
}

fn health_text(spec: &ServiceSpec) -> String {
    let health = &spec.container.health;
    let check = health
        .readiness
        .as_ref()
        .or(health.liveness.as_ref())
        .or(health.startup.as_ref());
    match check.map(|c| (&c.probe, c)) {
        Some((
            HealthProbe::Http {
                path, port, https, ..
            },
            c,
        )) => {
            let scheme = if *https { "https" } else { "http" };
            format!("{scheme} :{port}{path} every {}", c.interval)
        }
        Some((HealthProbe::Tcp { port }, c)) => format!("tcp :{port} every {}", c.interval),
        Some((HealthProbe::Exec { command }, c)) => {
            format!("exec {} every {}", command.join(" "), c.interval)
        }
        None => String::new(),
    }
}

/// `8080->80/tcp`; with `modes`, `8080->80/tcp (host)`.
pub(crate) fn ports_text(ports: &[PortMapping], modes: bool) -> String {
    let texts: Vec<String> = ports
        .iter()
        .map(|p| {
            let protocol = if p.protocol == Protocol::Udp {
                "udp"
            } else {
                "tcp"
            };
            let host = if p.host_port == 0 {
                String::new()
            } else {
                format!("{}->", p.host_port)
            };
            let mode = match (modes, p.publish_mode) {
                (false, _) => "",
                (true, PublishMode::Host) => " (host)",
                (true, PublishMode::Ingress) => " (ingress)",
            };
            format!("{host}{}/{protocol}{mode}", p.container_port)
        })
        .collect();
    texts.join(", ")
}

async fn list(args: OutputArgs, api: &dyn Api, io: &mut Io) -> Result<()> {
    let mut services = api.services().await?;
    services.sort_by(|a, b| a.name().cmp(b.name()));
    let now = (io.now)();
    output::list(io, args.output, "services", &services, |items, wide| {
        table(items, wide, now)
    })
}

fn mode_name(spec: &ServiceSpec) -> String {
    if spec.mode == Mode::Global {
        "global"
    } else {
        "replicated"
    }
    .to_owned()
}

fn count_text(view: &ServiceView) -> String {
    let want = match view.spec.mode {
        Mode::Replicated { replicas } => replicas,
        Mode::Global => view.desired,
    };
    format!("{}/{want}", view.running)
}

fn state_text(view: &ServiceView) -> String {
    match (&view.rollout, view.deleting) {
        (_, true) => "deleting".to_owned(),
        (Some(rollout), _) if rollout.state != "completed" => rollout.state.clone(),
        _ => String::new(),
    }
}

fn table(items: &[ServiceView], wide: bool, now: Timestamp) -> Table {
    let mut columns = vec![
        ("NAME", 30),
        ("MODE", 0),
        ("RUNNING", 0),
        ("IMAGE", 40),
        ("PORTS", 30),
        ("AGE", 0),
        ("ID", 0),
    ];
    if wide {
        columns.extend([("REVISION", 0), ("ROLLOUT", 0), ("REASON", 0)]);
    }
    let mut table = Table::new(&columns);
    for view in items {
        let id = if wide {
            view.id.clone()
        } else {
            short_id(&view.id)
        };
        let mut cells = vec![
            view.name().to_owned(),
            mode_name(&view.spec),
            count_text(view),
            view.spec.container.image.clone(),
            ports_text(&view.spec.ports, wide),
            age(view.created_at, now),
            id,
        ];
        if wide {
            cells.extend([
                view.revision.to_string(),
                state_text(view),
                view.reason.clone(),
            ]);
        }
        table.row(cells);
    }
    table
}

async fn inspect(names: &[String], args: OutputArgs, api: &dyn Api, io: &mut Io) -> Result<()> {
    let mut views = Vec::new();
    for name in names {
        views.push(api.service(name).await?);
    }
    let now = (io.now)();
    output::inspect(io, args.output, &views, |view| block(view, now))
}

fn block(view: &ServiceView, now: Timestamp) -> String {
    let spec = &view.spec;
    let container = &spec.container;
    let resources = &container.resources;
    let list = |items: &[String]| items.join("\n");
    let env: Vec<String> = container
        .env
        .iter()
        .map(|v| format!("{}={}", v.name, v.value))
        .collect();
    let mounts: Vec<String> = container.mounts.iter().map(mount_text).collect();
    let secrets: Vec<String> = container.secrets.iter().map(|s| s.source.clone()).collect();
    let revisions: Vec<String> = view.revisions.iter().map(u32::to_string).collect();
    let rollout = view.rollout.as_ref().map(|r| {
        let message = if r.message.is_empty() {
            String::new()
        } else {
            format!(": {}", r.message)
        };
        format!("{} {} -> {}{message}", r.state, r.from, r.to)
    });
    fields(&[
        ("Name", spec.name.clone()),
        ("ID", view.id.clone()),
        ("Image", container.image.clone()),
        ("Digest", container.image_digest.clone().unwrap_or_default()),
        ("Mode", mode_name(spec)),
        ("Running", count_text(view)),
        ("Ready", view.ready.to_string()),
        ("Reason", view.reason.clone()),
        ("Command", container.command.join(" ")),
        ("Arguments", container.args.join(" ")),
        ("Environment", env.join("\n")),
        ("User", container.user.clone().unwrap_or_default()),
        (
            "Directory",
            container.working_dir.clone().unwrap_or_default(),
        ),
        ("Ports", ports_text(&spec.ports, true)),
        ("Mounts", mounts.join("\n")),
        ("Secrets", secrets.join(", ")),
        ("Networks", spec.networks.join(", ")),
        ("Constraints", list(&spec.placement.constraints)),
        ("Health check", health_text(spec)),
        (
            "CPU limit",
            resources
                .cpu_limit
                .map(|c| format!("{c} cores"))
                .unwrap_or_default(),
        ),
        (
            "Memory limit",
            resources
                .memory_limit
                .map(|m| m.to_string())
                .unwrap_or_default(),
        ),
        (
            "CPU reserved",
            resources
                .cpu_reservation
                .map(|c| format!("{c} cores"))
                .unwrap_or_default(),
        ),
        (
            "Memory reserved",
            resources
                .memory_reservation
                .map(|m| m.to_string())
                .unwrap_or_default(),
        ),
        (
            "Stop timeout",
            container
                .stop_grace
                .map(|d| d.to_string())
                .unwrap_or_default(),
        ),
        ("Labels", pairs(&spec.labels)),
        ("Revision", view.revision.to_string()),
        ("Kept revisions", revisions.join(", ")),
        ("Rollout", rollout.unwrap_or_default()),
        ("Created", ago(view.created_at, now)),
        ("Updated", ago(view.updated_at, now)),
    ])
}

fn mount_text(mount: &Mount) -> String {
    let ro = |read_only: bool| if read_only { ":ro" } else { "" };
    match mount {
        Mount::Volume {
            source,
            target,
            read_only,
        } => format!("volume {source}:{target}{}", ro(*read_only)),
        Mount::Bind {
            source,
            target,
            read_only,
        } => format!("bind {source}:{target}{}", ro(*read_only)),
        Mount::Tmpfs { target, size } => {
            let size = size.map(|s| format!(", {s}")).unwrap_or_default();
            format!("tmpfs {target}{size}")
        }
    }
}

async fn ps(
    names: &[String],
    all: bool,
    args: OutputArgs,
    api: &dyn Api,
    io: &mut Io,
) -> Result<()> {
    let mut containers = Vec::new();
    for name in names {
        let service = api.service(name).await?;
        containers.extend(api.containers(Some(&service.id), None, true).await?);
    }
    if !all {
        containers = with_last_failures(containers);
    }
    sort(&mut containers);
    let now = (io.now)();
    output::list(io, args.output, "containers", &containers, |items, wide| {
        ps_table(items, wide, now)
    })
}

/// The live containers, and of slots that have none the one that ended last: it tells why.
fn with_last_failures(containers: Vec<ContainerView>) -> Vec<ContainerView> {
    let (live, ended): (Vec<_>, Vec<_>) = containers.into_iter().partition(|c| !c.ended());
    let place = |c: &ContainerView| {
        (
            c.service_id.clone(),
            c.slot,
            if c.slot == 0 {
                c.node_id.clone()
            } else {
                String::new()
            },
        )
    };
    let mut last: std::collections::BTreeMap<_, ContainerView> = std::collections::BTreeMap::new();
    for container in ended.into_iter().filter(|c| c.state != "shutdown") {
        let key = place(&container);
        if live.iter().any(|l| place(l) == key && l.state == "running") {
            continue;
        }
        match last.get(&key) {
            Some(known) if known.updated_at >= container.updated_at => {}
            _ => {
                last.insert(key, container);
            }
        }
    }
    live.into_iter().chain(last.into_values()).collect()
}

/// By service, slot or node; the newest first.
pub(crate) fn sort(containers: &mut [ContainerView]) {
    containers.sort_by(|a, b| {
        (&a.service, a.slot, &a.node)
            .cmp(&(&b.service, b.slot, &b.node))
            .then(b.created_at.cmp(&a.created_at))
            .then(b.id.cmp(&a.id))
    });
}

/// `running 3m`, with the health where a check says something.
pub(crate) fn container_state(container: &ContainerView, now: Timestamp) -> String {
    let health = match container.health.as_str() {
        "unhealthy" | "starting" if container.state == "running" => {
            format!(" ({})", container.health)
        }
        _ => String::new(),
    };
    let since = match container.state.as_str() {
        "running" if container.started_at.0.is_some() => container.started_at,
        _ => container.updated_at,
    };
    format!("{}{health} {}", container.state, age(since, now))
        .trim_end()
        .to_owned()
}

/// Why it is not running, or how its last attempt ended.
pub(crate) fn container_reason(container: &ContainerView) -> String {
    if container.state == "running" && container.reason.is_empty() {
        return match (container.restarts, container.exit) {
            (0, _) | (_, None) => String::new(),
            (n, Some(exit)) => format!("restarted {n} times, last: {}", wait::exit_text(exit)),
        };
    }
    let text = wait::why(container);
    if text == container.state {
        String::new()
    } else {
        text
    }
}

fn ps_table(items: &[ContainerView], wide: bool, now: Timestamp) -> Table {
    let mut columns = vec![
        ("SLOT", 0),
        ("ID", 0),
        ("NODE", 20),
        ("DESIRED", 0),
        ("STATE", 0),
        ("REASON", 0),
    ];
    if wide {
        columns.extend([("REV", 0), ("RESTARTS", 0), ("ADDRESS", 0), ("IMAGE", 0)]);
    }
    let mut table = Table::new(&columns);
    for c in items {
        let mut cells = vec![
            c.name.clone(),
            if wide { c.id.clone() } else { short_id(&c.id) },
            c.node.clone(),
            c.desired.clone(),
            container_state(c, now),
            container_reason(c),
        ];
        if wide {
            cells.extend([
                c.revision.to_string(),
                c.restarts.to_string(),
                c.address.clone(),
                c.image.clone(),
            ]);
        }
        table.row(cells);
    }
    table
}

async fn update(args: &ServiceUpdateArgs, api: &dyn Api, io: &mut Io) -> Result<()> {
    let old = api.service(&args.name).await?;
    let new = spec::update(args, &old.spec, (io.now)())?;
    let changes = diff::services(&old.spec, &new);
    if changes.is_empty() {
        return io.say(&format!("service {}: unchanged", old.name()));
    }
    if args.dry_run {
        api.update_service(&old.id, &new, old.version, true).await?;
        io.say(&format!("service {} would be changed:", old.name()))?;
        let lines: String = changes.iter().map(|c| format!("{}\n", c.line())).collect();
        return io.print(&lines);
    }
    let before = before_update(api, &old).await?;
    let made = api
        .update_service(&old.id, &new, old.version, false)
        .await?;
    settle_update(api, io, &made, &before, &args.wait, "updated").await
}

/// What must be known before a change, to judge the rollout after it.
pub(crate) async fn before_update(api: &dyn Api, old: &ServiceView) -> Result<Before> {
    Before::of(api, &old.id).await
}

/// Waits for a change and says what became of it.
pub(crate) async fn settle_update(
    api: &dyn Api,
    io: &mut Io,
    made: &ServiceView,
    before: &Before,
    args: &WaitArgs,
    verb: &str,
) -> Result<()> {
    if args.detach {
        return io.say(&format!(
            "service {}: {verb}, revision {}",
            made.name(),
            made.revision
        ));
    }
    let before = before.clone().wanting(made);
    let view = wait::service(api, io, &made.id, &before, args.timeout, true).await?;
    io.say(&format!(
        "service {}: {verb}, revision {}, {} running",
        view.name(),
        view.revision,
        count_text(&view)
    ))
}

async fn scale(
    targets: &[String],
    replicas: Option<u32>,
    dry_run: bool,
    wait: &WaitArgs,
    api: &dyn Api,
    io: &mut Io,
) -> Result<()> {
    let mut wanted = Vec::new();
    for target in targets {
        let (name, count) = match (target.split_once('='), replicas) {
            (Some((name, count)), _) => {
                let count = count.parse::<u32>().map_err(|_| {
                    CliError::usage(format!("{target}: {count:?} is not a number of replicas"))
                })?;
                (name, count)
            }
            (None, Some(count)) => (target.as_str(), count),
            (None, None) => {
                return Err(CliError::usage(format!("{target}: how many replicas?"))
                    .remedy(format!("warren service scale {target}=3")));
            }
        };
        wanted.push((api.service(name).await?, count));
    }
    for (old, count) in &wanted {
        let Mode::Replicated { replicas: now } = old.spec.mode else {
            return Err(CliError::usage(format!(
                "service {} is global: it has one container on each node and cannot be scaled",
                old.name()
            )));
        };
        if dry_run || now != *count {
            io.say(&format!(
                "service {}: {now} -> {count} replicas",
                old.name()
            ))?;
        }
    }
    if dry_run {
        return Ok(());
    }
    let mut made = Vec::new();
    for (old, count) in &wanted {
        let before = before_update(api, old).await?;
        made.push((api.scale_service(&old.id, *count).await?, before));
    }
    let mut failures = Vec::new();
    for (view, before) in &made {
        failures.extend(
            settle_update(api, io, view, before, wait, "scaled")
                .await
                .err(),
        );
    }
    all_failures(failures)
}

async fn delete(
    names: &[String],
    dry_run: bool,
    wait: &WaitArgs,
    api: &dyn Api,
    io: &mut Io,
) -> Result<()> {
    let mut found = Vec::new();
    let mut failures = Vec::new();
    for name in names {
        match api.service(name).await {
            Ok(view) => found.push(view),
            Err(error) => failures.push(error),
        }
    }
    if dry_run {
        for view in &found {
            io.say(&format!(
                "service {} would be deleted, {} running",
                view.name(),
                view.running
            ))?;
        }
        return all_failures(failures);
    }
    failures.extend(delete_views(&found, wait, api, io).await?);
    all_failures(failures)
}

/// Deletes services together and waits for all; returns what failed.
pub(crate) async fn delete_views(
    views: &[ServiceView],
    wait: &WaitArgs,
    api: &dyn Api,
    io: &mut Io,
) -> Result<Vec<CliError>> {
    let mut failures = Vec::new();
    let mut leaving = Vec::new();
    for view in views {
        match api.delete_service(&view.id).await {
            Ok(()) => leaving.push(view),
            // Somebody else was faster: it is gone, as asked.
            Err(error) if error.exit == Exit::NotFound => {}
            Err(error) => failures.push(error),
        }
    }
    for view in leaving {
        if wait.detach {
            io.say(&format!("service {}: deletion begun", view.name()))?;
            continue;
        }
        match wait::gone(api, io, view.name(), &view.id, wait.timeout).await {
            Ok(()) => io.say(&format!("service {}: deleted", view.name()))?,
            Err(error) => failures.push(error),
        }
    }
    Ok(failures)
}

async fn rollback(
    name: &str,
    to: Option<u32>,
    wait: &WaitArgs,
    api: &dyn Api,
    io: &mut Io,
) -> Result<()> {
    let old = api.service(name).await?;
    let before = before_update(api, &old).await?;
    let made = api.rollback_service(&old.id, to).await?;
    settle_update(api, io, &made, &before, wait, "rolled back").await
}
