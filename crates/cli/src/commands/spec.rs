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
mod tests {
    use super::*;
    use crate::args::{Cli, Command, ServiceCommand};
    use clap::Parser;
    use warren_types::{
        Bytes, DeployStrategy, Duration, FailureAction, MilliCpu, Mount, Protocol, PublishMode,
        RestartCondition, UpdateOrder,
    };

    fn parse(line: &str) -> std::result::Result<ServiceCommand, clap::Error> {
        let words = flags::words(line).unwrap().0;
        let cli = Cli::try_parse_from(std::iter::once("warren".to_owned()).chain(words))?;
        match cli.command {
            Command::Service(command) => Ok(command),
            other => panic!("{other:?}"),
        }
    }

    fn created(line: &str) -> Result<ServiceSpec> {
        match parse(&format!("service create web --image nginx:1 {line}")).unwrap() {
            ServiceCommand::Create(args) => create(&args),
            other => panic!("{other:?}"),
        }
    }

    fn updated(old: &ServiceSpec, line: &str) -> Result<ServiceSpec> {
        match parse(&format!("service update web {line}")).unwrap() {
            ServiceCommand::Update(args) => update(&args, old, Timestamp(5)),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_flag_of_create_reaches_the_specification() {
        let spec = created(
            "--replicas 3 -e A=1,B=2 --env C=x,y -p 8080:80 --publish 53:5353/udp --publish-mode ingress \
             --secret pass --secret key:tls.key --volume data:/d:ro --bind /srv:/s --tmpfs /t:16m -l a=b \
             --constraint 'node.role == worker' --network back --cap-add NET_ADMIN --cap-drop ALL \
             --command 'nginx -g \"daemon off;\"' --user 10:20 --workdir /w --hostname h --read-only \
             --cpus 1.5 --memory 256m --reserve-cpus 500m --reserve-memory 64m --pids-limit 100 --stop-timeout 30 \
             --stop-signal SIGQUIT --max-per-node 2 --spread node.labels.zone --health-http /h --health-port 8080 \
             --health-interval 5 --health-timeout 1s --health-retries 4 --health-start-period 1m \
             --restart-condition on-failure --restart-max-attempts 3 --restart-delay 2s --restart-window 1m \
             --strategy canary --canary-steps 10,100 --canary-window 60 --parallelism 2 --delay 1s --order start-first \
             --failure-action rollback --monitor 9s --max-surge 3 --max-unavailable 1 --failure-threshold 20 -- -x --y",
        )
        .unwrap();
        let c = &spec.container;
        let env: Vec<String> = c
            .env
            .iter()
            .map(|v| format!("{}={}", v.name, v.value))
            .collect();
        assert_eq!(env, ["A=1", "B=2", "C=x,y"]);
        assert_eq!(
            (spec.mode, &c.command[..], &c.args[..]),
            (
                Mode::Replicated { replicas: 3 },
                &[
                    "nginx".to_owned(),
                    "-g".to_owned(),
                    "daemon off;".to_owned()
                ][..],
                &["-x".to_owned(), "--y".to_owned()][..]
            )
        );
        assert_eq!(
            (
                spec.ports[1].host_port,
                spec.ports[1].protocol,
                spec.ports[1].publish_mode
            ),
            (53, Protocol::Udp, PublishMode::Ingress)
        );
        assert_eq!(c.secrets[1].target.as_deref(), Some("tls.key"));
        assert_eq!(
            c.mounts[2],
            Mount::Tmpfs {
                target: "/t".into(),
                size: Some(Bytes(16 << 20))
            }
        );
        assert_eq!(
            (
                spec.placement.spread.as_deref(),
                spec.placement.max_per_node
            ),
            (Some("zone"), 2)
        );
        assert_eq!(
            (
                c.resources.cpu_limit,
                c.resources.memory_reservation,
                c.resources.pids_limit
            ),
            (Some(MilliCpu(1500)), Some(Bytes(64 << 20)), Some(100))
        );
        assert_eq!(
            (c.stop_grace, c.stop_signal.as_deref(), c.read_only_root),
            (Some(Duration(30_000)), Some("SIGQUIT"), true)
        );
        let check = c.health.readiness.as_ref().unwrap();
        assert_eq!(
            (
                check.interval,
                check.timeout,
                check.retries,
                check.start_period
            ),
            (Duration(5000), Duration(1000), 4, Duration(60_000))
        );
        assert!(matches!(&check.probe, HealthProbe::Http { path, port: 8080, .. } if path == "/h"));
        assert_eq!(
            (c.restart.condition, c.restart.max_attempts),
            (RestartCondition::OnFailure, 3)
        );
        let u = &spec.update;
        assert_eq!(
            (u.strategy, u.order, u.failure_action),
            (
                DeployStrategy::Canary,
                UpdateOrder::StartFirst,
                FailureAction::Rollback
            )
        );
        assert_eq!(
            (
                u.parallelism,
                u.max_surge,
                u.max_unavailable,
                u.failure_threshold_percent,
                &u.canary_steps[..]
            ),
            (2, 3, 1, 20, &[10, 100][..])
        );
        assert_eq!(
            (u.delay, u.monitor, u.canary_window),
            (Duration(1000), Duration(9000), Duration(60_000))
        );
    }

    #[test]
    fn defaults_and_old_spellings() {
        let spec = created("").unwrap();
        assert_eq!(spec.mode, Mode::Replicated { replicas: 1 });
        assert_eq!(spec.container.health, HealthSpec::default());
        assert_eq!(created("--mode global").unwrap().mode, Mode::Global);
        let probe = |line: &str| {
            created(line)
                .unwrap()
                .container
                .health
                .liveness
                .unwrap()
                .probe
        };
        assert!(matches!(
            probe("--health-http /"),
            HealthProbe::Http { port: 80, .. }
        ));
        assert_eq!(probe("--health-tcp :5432"), HealthProbe::Tcp { port: 5432 });
        assert_eq!(
            probe("--health-cmd redis-cli,ping"),
            HealthProbe::Exec {
                command: vec!["redis-cli".into(), "ping".into()]
            }
        );
        assert_eq!(
            probe("--health-cmd 'redis-cli ping'"),
            HealthProbe::Exec {
                command: vec!["/bin/sh".into(), "-c".into(), "redis-cli ping".into()]
            }
        );
        assert!(
            matches!(
                probe("--health-cmd x --health-tcp 1 --health-http /"),
                HealthProbe::Http { .. }
            ),
            "the first of HTTP, TCP, exec wins"
        );
        assert_eq!(
            created("--ports 80:80 --cpu-limit 1 --memory-limit 8m --read-only=false")
                .unwrap()
                .ports
                .len(),
            1
        );
    }

    #[test]
    fn what_create_refuses() {
        for line in [
            "--mode global --replicas 2",
            "--env =x",
            "--env WARREN_TEST_SURELY_UNSET",
            "--health-interval 5s",
            "--memory 1k",
            "--publish 80:80 --publish 80:81",
            "--volume data:/a --bind /x:/a",
            "--env-file /nowhere",
        ] {
            assert!(created(line).is_err(), "{line}");
        }
        for line in [
            "--replicas -1",
            "--replicas many",
            "--publish 80",
            "--memory lots",
            "--cpus x",
            "--mode both",
            "--strategy wild",
            "--volume data",
            "--secret ''",
            "--label x",
            "--unknown",
            "--canary-steps 0",
            "--stop-timeout soon",
            "--restart-condition maybe",
        ] {
            let error = parse(&format!("service create web --image a {line}")).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{line}");
        }
        assert!(parse("service create web").is_err(), "no image");
    }

    #[test]
    fn update_changes_only_what_is_said() {
        let mut old = created("-e A=1 -e B=2 -p 80:80 -p 53:53/udp --volume data:/d --secret s --health-tcp 1 -l x=y --constraint 'node.role == worker'").unwrap();
        old.container.image_digest = Some(format!("sha256:{}", "0".repeat(64)));
        assert_eq!(updated(&old, "").unwrap(), old);
        let new = updated(&old, "--image nginx:2 --replicas 5 --env-add A=9 --env-rm B --publish-add 80:8080 --publish-rm 53/udp --mount-add other:/d --secret-rm s --health-interval 7 --label-rm x --constraint-rm 'node.role == worker' --user www --args '-a b' --cpus 0").unwrap();
        assert_eq!(
            (
                new.container.image.as_str(),
                &new.container.image_digest,
                new.mode
            ),
            ("nginx:2", &None, Mode::Replicated { replicas: 5 })
        );
        assert_eq!(
            (new.container.env.len(), new.container.env[0].value.as_str()),
            (1, "9")
        );
        assert_eq!((new.ports.len(), new.ports[0].container_port), (1, 8080));
        assert_eq!(
            new.container.mounts,
            [Mount::Volume {
                source: "other".into(),
                target: "/d".into(),
                read_only: false
            }]
        );
        assert_eq!(
            new.container.health.liveness.as_ref().unwrap().interval,
            Duration(7000)
        );
        assert_eq!(new.container.args, ["-a", "b"]);
        assert_eq!(
            updated(&old, "--no-health").unwrap().container.health,
            HealthSpec::default()
        );
        let forced = updated(&old, "--force").unwrap();
        assert_eq!(
            forced.container.labels[FORCE_LABEL],
            "1970-01-01T00:00:00.005Z"
        );
        assert_eq!(updated(&new, "--user ''").unwrap().container.user, None);
        let global = ServiceSpec {
            mode: Mode::Global,
            ..old
        };
        assert!(updated(&global, "--replicas 2").is_err());
    }

    #[test]
    fn env_files() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("env");
        std::fs::write(&path, "# a comment\nA=1\n\n B=x=y \n").unwrap();
        let spec = created(&format!("--env-file {} -e A=2", path.display())).unwrap();
        let env: Vec<String> = spec
            .container
            .env
            .iter()
            .map(|v| format!("{}={}", v.name, v.value))
            .collect();
        assert_eq!(env, ["A=2", "B=x=y"]);
        std::fs::write(&path, "A=1\n=oops\n").unwrap();
        let error = created(&format!("--env-file {}", path.display())).unwrap_err();
        assert!(error.message.contains("env:2:"), "{error}");
    }
}
