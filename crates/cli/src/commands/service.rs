//! `warren service …`.

use super::show::{block, count_text, ps_table, sort, summary, table};
use super::{all_failures, logs, spec};
use crate::api::{Api, ContainerView, ServiceView};
use crate::args::{
    Format, OutputArgs, ServiceCommand, ServiceCreateArgs, ServiceUpdateArgs, WaitArgs,
};
use crate::diff;
use crate::error::{CliError, Exit, Result};
use crate::io::Io;
use crate::output;
use crate::wait::{self, Before};
use warren_types::Mode;

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

async fn list(args: OutputArgs, api: &dyn Api, io: &mut Io) -> Result<()> {
    let mut services = api.services().await?;
    services.sort_by(|a, b| a.name().cmp(b.name()));
    let now = (io.now)();
    output::list(io, args.output, "services", &services, |items, wide| {
        table(items, wide, now)
    })
}

async fn inspect(names: &[String], args: OutputArgs, api: &dyn Api, io: &mut Io) -> Result<()> {
    let mut views = Vec::new();
    for name in names {
        views.push(api.service(name).await?);
    }
    let now = (io.now)();
    output::inspect(io, args.output, &views, |view| block(view, now))
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
