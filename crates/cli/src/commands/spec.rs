//! Flags of `service create` and `service update` as a specification.

use crate::args::{
    ContainerFlags, HealthFlags, ModeArg, RestartFlags, RolloutFlags, ServiceCreateArgs,
    ServiceUpdateArgs,
};
use crate::error::{CliError, Result};
use crate::flags;
use crate::manifest::{
    HEALTH_INTERVAL_DEFAULT, HEALTH_RETRIES_DEFAULT, HEALTH_TIMEOUT_DEFAULT, both,
};
use std::path::Path;
use warren_types::{
    ContainerSpec, EnvVar, HealthCheck, HealthProbe, HealthSpec, Mode, PortMapping, ServiceSpec,
    Timestamp,
};

/// Largest file of `--env-file` in bytes.
const ENV_FILE_BYTES_MAX: usize = 1024 * 1024;
/// Container label that `--force` changes, so that a new revision is made.
pub(crate) const FORCE_LABEL: &str = "warren.forced-at";

/// The specification that `service create` asks for.
pub(crate) fn create(args: &ServiceCreateArgs) -> Result<ServiceSpec> {
    let mode = match (args.mode, args.replicas) {
        (ModeArg::Global, Some(_)) => {
            return Err(CliError::usage(
                "--replicas does not go with --mode global, which runs one container on each node",
            ));
        }
        (ModeArg::Global, None) => Mode::Global,
        (ModeArg::Replicated, count) => Mode::Replicated {
            replicas: count.unwrap_or(1),
        },
    };
    let mut container = ContainerSpec {
        image: args.image.clone(),
        args: args.args.clone(),
        secrets: args.secret.clone(),
        mounts: [&args.volume[..], &args.bind[..], &args.tmpfs[..]].concat(),
        cap_add: args.cap_add.clone(),
        cap_drop: args.cap_drop.clone(),
        ..ContainerSpec::default()
    };
    for file in &args.env_file {
        set_env(&mut container.env, env_file(file)?);
    }
    set_env(&mut container.env, env_flags(&args.env)?);
    let mut spec = ServiceSpec {
        name: args.name.clone(),
        labels: args.label.iter().cloned().collect(),
        mode,
        container,
        ports: crate::args::published(&args.publish, args.container.publish_mode),
        networks: args.network.clone(),
        ..ServiceSpec::default()
    };
    spec.placement.constraints = args.constraint.clone();
    container_flags(&args.container, &mut spec);
    restart_flags(&args.restart, &mut spec.container);
    rollout_flags(&args.rollout, &mut spec);
    if let Some(health) = health_flags(&args.health, None)? {
        spec.container.health = health;
    }
    check(&spec)?;
    Ok(spec)
}

/// The specification that `service update` asks for; equal to `old` when no flag changes anything.
pub(crate) fn update(
    args: &ServiceUpdateArgs,
    old: &ServiceSpec,
    now: Timestamp,
) -> Result<ServiceSpec> {
    let mut spec = old.clone();
    if let Some(image) = &args.image {
        spec.container.image.clone_from(image);
        // The digest belongs to the old reference; the cluster resolves the new one.
        spec.container.image_digest = None;
    }
    if let Some(replicas) = args.replicas {
        if spec.mode == Mode::Global {
            return Err(CliError::usage(format!(
                "service {} is global: it has one container on each node, so --replicas does not fit",
                spec.name
            )));
        }
        spec.mode = Mode::Replicated { replicas };
    }
    update_env(args, &mut spec)?;
    update_ports(args, &mut spec)?;
    update_files(args, &mut spec)?;
    for key in &args.label_rm {
        if spec.labels.remove(key).is_none() {
            return Err(absent("label", key, &spec));
        }
    }
    spec.labels.extend(args.label_add.iter().cloned());
    for gone in &args.constraint_rm {
        let before = spec.placement.constraints.len();
        spec.placement.constraints.retain(|c| c != gone);
        if before == spec.placement.constraints.len() {
            return Err(absent("constraint", gone, &spec));
        }
    }
    spec.placement
        .constraints
        .extend(args.constraint_add.iter().cloned());
    if let Some(words) = &args.args {
        spec.container.args.clone_from(&words.0);
    }
    container_flags(&args.container, &mut spec);
    restart_flags(&args.restart, &mut spec.container);
    rollout_flags(&args.rollout, &mut spec);
    let present = spec
        .container
        .health
        .readiness
        .clone()
        .or_else(|| spec.container.health.liveness.clone());
    if args.no_health {
        spec.container.health = HealthSpec::default();
    } else if let Some(health) = health_flags(&args.health, present.as_ref())? {
        spec.container.health = health;
    }
    if args.force {
        spec.container
            .labels
            .insert(FORCE_LABEL.to_owned(), now.to_string());
        spec.container.image_digest = None;
    }
    check(&spec)?;
    Ok(spec)
}

fn absent(what: &str, name: &str, spec: &ServiceSpec) -> CliError {
    CliError::usage(format!("service {} has no {what} {name}", spec.name))
        .remedy(format!("warren service inspect {}", spec.name))
}

fn check(spec: &ServiceSpec) -> Result<()> {
    spec.validate().map_err(|e| CliError::usage(e.to_string()))
}

fn update_env(args: &ServiceUpdateArgs, spec: &mut ServiceSpec) -> Result<()> {
    for name in &args.env_rm {
        let before = spec.container.env.len();
        spec.container.env.retain(|v| v.name != *name);
        if before == spec.container.env.len() {
            return Err(absent("environment variable", name, spec));
        }
    }
    set_env(&mut spec.container.env, env_flags(&args.env_add)?);
    Ok(())
}

fn update_ports(args: &ServiceUpdateArgs, spec: &mut ServiceSpec) -> Result<()> {
    for (port, protocol) in &args.publish_rm {
        let before = spec.ports.len();
        spec.ports
            .retain(|p| p.host_port != *port || protocol.is_some_and(|q| q != p.protocol));
        if before == spec.ports.len() {
            return Err(absent("published port", &port.to_string(), spec));
        }
    }
    let added: Vec<PortMapping> =
        crate::args::published(&args.publish_add, args.container.publish_mode);
    for port in added {
        spec.ports
            .retain(|p| (p.host_port, p.protocol) != (port.host_port, port.protocol));
        spec.ports.push(port);
    }
    if let Some(mode) = args.container.publish_mode
        && args.publish_add.is_empty()
    {
        spec.ports
            .iter_mut()
            .for_each(|p| p.publish_mode = mode.into());
    }
    Ok(())
}

fn update_files(args: &ServiceUpdateArgs, spec: &mut ServiceSpec) -> Result<()> {
    for name in &args.secret_rm {
        let before = spec.container.secrets.len();
        spec.container.secrets.retain(|s| s.source != *name);
        if before == spec.container.secrets.len() {
            return Err(absent("secret", name, spec));
        }
    }
    for secret in &args.secret_add {
        spec.container
            .secrets
            .retain(|s| s.source != secret.source || s.target != secret.target);
        spec.container.secrets.push(secret.clone());
    }
    for target in &args.mount_rm {
        let before = spec.container.mounts.len();
        spec.container.mounts.retain(|m| m.target() != target);
        if before == spec.container.mounts.len() {
            return Err(absent("mount at", target, spec));
        }
    }
    for mount in &args.mount_add {
        spec.container
            .mounts
            .retain(|m| m.target() != mount.target());
        spec.container.mounts.push(mount.clone());
    }
    Ok(())
}

/// Sets variables: a name that is there already gets the new value in its place.
fn set_env(env: &mut Vec<EnvVar>, new: Vec<EnvVar>) {
    for var in new {
        match env.iter_mut().find(|v| v.name == var.name) {
            Some(old) => old.value = var.value,
            None => env.push(var),
        }
    }
}

fn env_flags(texts: &[String]) -> Result<Vec<EnvVar>> {
    let parts = texts.iter().flat_map(|text| flags::split_env(text));
    parts.map(|part| env_var(part, "--env")).collect()
}

fn env_var(text: &str, place: &str) -> Result<EnvVar> {
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name, value.to_owned()),
        None => {
            let value = std::env::var(text).map_err(|_| {
                CliError::usage(format!(
                    "{place} {text}: no value, and no variable of this name to take it from"
                ))
                .remedy(format!("write {text}=VALUE"))
            })?;
            (text, value)
        }
    };
    if name.is_empty() {
        return Err(CliError::usage(format!(
            "{place} {text}: the name is missing"
        )));
    }
    Ok(EnvVar {
        name: name.to_owned(),
        value,
    })
}

fn env_file(path: &Path) -> Result<Vec<EnvVar>> {
    let name = path.display().to_string();
    let mut file = std::fs::File::open(path)
        .map_err(|e| CliError::usage(format!("cannot open {name}: {e}")))?;
    let bytes = crate::io::read_limited(&mut file, ENV_FILE_BYTES_MAX, &name, "an env file")?;
    let text =
        String::from_utf8(bytes).map_err(|_| CliError::usage(format!("{name}: not UTF-8 text")))?;
    text.lines()
        .enumerate()
        .map(|(at, line)| (at + 1, line.trim()))
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
        .map(|(at, line)| env_var(line, &format!("{name}:{at}:")))
        .collect()
}

fn container_flags(flags: &ContainerFlags, spec: &mut ServiceSpec) {
    let container = &mut spec.container;
    if let Some(words) = &flags.command {
        container.command.clone_from(&words.0);
    }
    let texts = [
        (&flags.user, &mut container.user),
        (&flags.workdir, &mut container.working_dir),
        (&flags.hostname, &mut container.hostname),
        (&flags.stop_signal, &mut container.stop_signal),
    ];
    for (flag, field) in texts {
        if let Some(text) = flag {
            // The empty text gives the field back to the image.
            *field = (!text.is_empty()).then(|| text.clone());
        }
    }
    if let Some(read_only) = flags.read_only {
        container.read_only_root = read_only;
    }
    let resources = &mut container.resources;
    resources.cpu_limit = flags
        .cpus
        .map_or(resources.cpu_limit, |c| (c.0 > 0).then_some(c));
    resources.cpu_reservation = flags
        .reserve_cpus
        .map_or(resources.cpu_reservation, |c| (c.0 > 0).then_some(c));
    resources.memory_limit = flags.memory.or(resources.memory_limit);
    resources.memory_reservation = flags.reserve_memory.or(resources.memory_reservation);
    resources.pids_limit = flags.pids_limit.or(resources.pids_limit);
    container.stop_grace = flags.stop_timeout.or(container.stop_grace);
    if let Some(limit) = flags.max_per_node {
        spec.placement.max_per_node = limit;
    }
    if let Some(label) = &flags.spread {
        let label = label.strip_prefix("node.labels.").unwrap_or(label);
        spec.placement.spread = (!label.is_empty()).then(|| label.to_owned());
    }
}

fn restart_flags(flags: &RestartFlags, container: &mut ContainerSpec) {
    let policy = &mut container.restart;
    policy.condition = flags.restart_condition.unwrap_or(policy.condition);
    policy.max_attempts = flags.restart_max_attempts.unwrap_or(policy.max_attempts);
    policy.delay = flags.restart_delay.or(policy.delay);
    policy.window = flags.restart_window.or(policy.window);
}

fn rollout_flags(flags: &RolloutFlags, spec: &mut ServiceSpec) {
    let update = &mut spec.update;
    update.strategy = flags.strategy.unwrap_or(update.strategy);
    update.parallelism = flags.parallelism.unwrap_or(update.parallelism);
    update.delay = flags.delay.unwrap_or(update.delay);
    update.order = flags.order.unwrap_or(update.order);
    update.failure_action = flags.failure_action.unwrap_or(update.failure_action);
    update.monitor = flags.monitor.unwrap_or(update.monitor);
    update.max_surge = flags.max_surge.unwrap_or(update.max_surge);
    update.max_unavailable = flags.max_unavailable.unwrap_or(update.max_unavailable);
    update.failure_threshold_percent = flags
        .failure_threshold
        .unwrap_or(update.failure_threshold_percent);
    update.canary_window = flags.canary_window.unwrap_or(update.canary_window);
    if !flags.canary_steps.is_empty() {
        update.canary_steps.clone_from(&flags.canary_steps);
    }
}

/// The health check that the flags ask for; `present` is what flags about times alone change.
fn health_flags(flags: &HealthFlags, present: Option<&HealthCheck>) -> Result<Option<HealthSpec>> {
    let usage = |flag: &str, e: String| CliError::usage(format!("{flag}: {e}"));
    let probe = if let Some(text) = &flags.health_http {
        let port = flags.health_port.unwrap_or(80);
        Some(flags::http_endpoint(text, Some(port)).map_err(|e| usage("--health-http", e))?)
    } else if let Some(text) = &flags.health_tcp {
        let port = text.trim_start_matches(':');
        let port = flags::port_number(port).map_err(|e| usage("--health-tcp", e))?;
        Some(HealthProbe::Tcp { port })
    } else {
        flags.health_cmd.as_deref().map(health_command)
    };
    let times = flags.health_interval.is_some()
        || flags.health_timeout.is_some()
        || flags.health_retries.is_some()
        || flags.health_start_period.is_some();
    let probe = match (probe, present) {
        (Some(probe), _) => probe,
        (None, _) if !times && flags.health_port.is_none() => return Ok(None),
        (None, Some(check)) => check.probe.clone(),
        (None, None) => {
            return Err(CliError::usage(
                "flags about a health check without a check: give --health-http, --health-tcp or --health-cmd too",
            ));
        }
    };
    let old = present;
    Ok(Some(both(Some(HealthCheck {
        probe,
        interval: flags
            .health_interval
            .or(old.map(|c| c.interval))
            .unwrap_or(HEALTH_INTERVAL_DEFAULT),
        timeout: flags
            .health_timeout
            .or(old.map(|c| c.timeout))
            .unwrap_or(HEALTH_TIMEOUT_DEFAULT),
        retries: flags
            .health_retries
            .or(old.map(|c| c.retries))
            .unwrap_or(HEALTH_RETRIES_DEFAULT),
        start_period: flags
            .health_start_period
            .or(old.map(|c| c.start_period))
            .unwrap_or_default(),
    }))))
}

/// Words separated by commas, as upstream takes them; a text with spaces is a shell line.
fn health_command(text: &str) -> HealthProbe {
    let command = if text.contains(char::is_whitespace) {
        vec!["/bin/sh".to_owned(), "-c".to_owned(), text.to_owned()]
    } else {
        text.split(',').map(str::to_owned).collect()
    };
    HealthProbe::Exec { command }
}

#[cfg(test)]
mod tests;
