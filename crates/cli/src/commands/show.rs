//! Services and containers as tables and blocks.

use super::pairs;
use crate::api::{ContainerView, ServiceView};
use crate::output::{Table, age, ago, fields, short_id};
use crate::wait;
use warren_types::{
    HealthProbe, Mode, Mount, PortMapping, Protocol, PublishMode, ServiceSpec, Timestamp,
};

/// What `service create` prints.
pub(crate) fn summary(view: &ServiceView) -> String {
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

fn mode_name(spec: &ServiceSpec) -> String {
    if spec.mode == Mode::Global {
        "global"
    } else {
        "replicated"
    }
    .to_owned()
}

pub(crate) fn count_text(view: &ServiceView) -> String {
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

pub(crate) fn table(items: &[ServiceView], wide: bool, now: Timestamp) -> Table {
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
        let id = view.id.clone();
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

pub(crate) fn block(view: &ServiceView, now: Timestamp) -> String {
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

pub(crate) fn ps_table(items: &[ContainerView], wide: bool, now: Timestamp) -> Table {
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
