//! Validation of a service's spec.

use super::words::{self, capability_name, is_image_reference, parse_signal};
use super::{Checker, Constraint, quote};
use crate::error::ValidationError;
use crate::limits;
use crate::quantity::{Bytes, MilliCpu};
use crate::spec::{
    ContainerSpec, DeployStrategy, EnvVar, FileRef, HealthCheck, HealthProbe, Mode, Mount,
    Placement, PortMapping, Resources, ServiceSpec, UpdateConfig,
};
use std::collections::BTreeSet;

/// Which kind of file a [`FileRef`] is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum FileKind {
    Secret,
    Config,
}

impl ServiceSpec {
    /// Checks every field against the limits and the grammar of its content. Whether the named
    /// secrets, configs, volumes and networks exist is the state machine's business.
    ///
    /// # Errors
    /// [`ValidationError`] with everything that is wrong.
    pub fn validate(&self) -> Result<(), ValidationError> {
        let mut check = Checker::default();
        check.name("name", &self.name);
        check.labels("labels", &self.labels);
        if let Mode::Replicated { replicas } = self.mode {
            let max = u64::from(limits::REPLICAS_MAX);
            check.range("mode.replicated.replicas", u64::from(replicas), 0, max);
        }
        container(&mut check, &self.container);
        ports(&mut check, &self.ports);
        if check.count(
            "networks",
            self.networks.len(),
            limits::NETWORKS_PER_SERVICE_MAX,
        ) {
            check.unique_names("networks", &self.networks);
        }
        placement(&mut check, &self.placement);
        update(&mut check, &self.update);
        check.finish()
    }
}

fn container(check: &mut Checker, spec: &ContainerSpec) {
    if !is_image_reference(&spec.image) {
        let problem = if spec.image.is_empty() {
            "is missing".to_owned()
        } else {
            format!("{} is not an image reference", quote(&spec.image))
        };
        let remedy = "write [registry/]name[:tag][@sha256:…] in lower case, such as nginx:1.27 or ghcr.io/org/app:v1";
        check.fail("container.image", problem, remedy);
    }
    if let Some(digest) = &spec.image_digest
        && !words::is_digest(digest)
    {
        check.fail(
            "container.imageDigest",
            format!("{} is not a digest", quote(digest)),
            "write sha256: and 64 hexadecimal digits in lower case",
        );
    }
    arguments(check, "container.command", &spec.command);
    arguments(check, "container.args", &spec.args);
    environment(check, &spec.env);
    if let Some(directory) = &spec.working_dir {
        check.path("container.workingDir", directory, true);
    }
    if let Some(user) = &spec.user {
        user_and_group(check, user);
    }
    if let Some(host) = &spec.hostname {
        check.host("container.hostname", host, false);
    }
    check.labels("container.labels", &spec.labels);
    files(check, spec);
    resources(check, &spec.resources);
    capabilities(check, &spec.cap_add, &spec.cap_drop);
    for (name, health) in [
        ("startup", &spec.health.startup),
        ("readiness", &spec.health.readiness),
        ("liveness", &spec.health.liveness),
    ] {
        if let Some(health) = health {
            health_check(check, &format!("container.health.{name}"), health);
        }
    }
    for (field, span) in [
        ("delay", spec.restart.delay),
        ("window", spec.restart.window),
    ] {
        if let Some(span) = span {
            check.span(
                &format!("container.restart.{field}"),
                span,
                0,
                limits::SPAN_MS_MAX,
            );
        }
    }
    if let Some(signal) = &spec.stop_signal
        && parse_signal(signal).is_none()
    {
        check.fail(
            "container.stopSignal",
            format!("{} is not a signal", quote(signal)),
            "write a name such as SIGTERM, SIGQUIT or SIGRTMIN+3, or its number",
        );
    }
    if let Some(grace) = spec.stop_grace {
        check.span("container.stopGrace", grace, 0, limits::STOP_GRACE_MS_MAX);
    }
}

fn arguments(check: &mut Checker, field: &str, words: &[String]) {
    if !check.count(field, words.len(), limits::ARGS_MAX) {
        return;
    }
    for (at, word) in words.iter().enumerate() {
        check.text(&format!("{field}[{at}]"), word, limits::ARG_BYTES_MAX);
    }
    let total: usize = words.iter().map(String::len).sum();
    if total > limits::ARGS_TOTAL_BYTES_MAX {
        check.fail(
            field,
            format!("has {total} bytes in all"),
            format!("at most {} are allowed", limits::ARGS_TOTAL_BYTES_MAX),
        );
    }
    if words.first().is_some_and(String::is_empty) && field.ends_with("command") {
        check.fail(
            format!("{field}[0]"),
            "is empty",
            "write the program to run, or leave the command out",
        );
    }
}

fn environment(check: &mut Checker, env: &[EnvVar]) {
    if !check.count("container.env", env.len(), limits::ENV_VARS_MAX) {
        return;
    }
    let mut total = 0;
    for (at, var) in env.iter().enumerate() {
        let field = format!("container.env[{at}]");
        let bad = |c: char| c == '=' || c.is_control() || c.is_whitespace();
        if var.name.is_empty() || var.name.contains(bad) {
            check.fail(
                &field,
                format!("{} is not a variable name", quote(&var.name)),
                "write NAME=value; a name has no =, spaces or control characters",
            );
        }
        check.text(&field, &var.value, usize::MAX);
        let size = var.name.len() + var.value.len();
        total += size;
        if size > limits::ENV_VAR_BYTES_MAX {
            check.fail(
                field,
                format!("has {size} bytes"),
                format!(
                    "name and value together may have {}; use a config or secret for more",
                    limits::ENV_VAR_BYTES_MAX
                ),
            );
        }
    }
    if total > limits::ENV_TOTAL_BYTES_MAX {
        check.fail(
            "container.env",
            format!("has {total} bytes in all"),
            format!("at most {} are allowed", limits::ENV_TOTAL_BYTES_MAX),
        );
    }
}

fn user_and_group(check: &mut Checker, text: &str) {
    let part = |part: &str| {
        if part.bytes().all(|b| b.is_ascii_digit()) {
            // The highest number means "leave as it is" to the kernel.
            part.parse::<u32>().is_ok_and(|id| id != u32::MAX)
        } else {
            !part.starts_with('-')
                && part
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-' | b'$'))
        }
    };
    let mut parts = text.splitn(2, ':');
    let good = text.len() <= limits::USER_CHARS_MAX && parts.all(|p| !p.is_empty() && part(p));
    if !good {
        check.fail(
            "container.user",
            format!("{} is not a user", quote(text)),
            "write user, uid, user:group or uid:gid",
        );
    }
}

/// Mounts, secrets and configs: valid targets, none twice.
fn files(check: &mut Checker, spec: &ContainerSpec) {
    let mut targets = BTreeSet::new();
    if check.count("container.mounts", spec.mounts.len(), limits::MOUNTS_MAX) {
        for (at, mount) in spec.mounts.iter().enumerate() {
            let field = format!("container.mounts[{at}]");
            one_mount(check, &field, mount);
            once(
                check,
                &mut targets,
                format!("{field}.target"),
                mount.target(),
            );
        }
    }
    for (kind, name, refs) in [
        (FileKind::Secret, "secrets", &spec.secrets),
        (FileKind::Config, "configs", &spec.configs),
    ] {
        let field = format!("container.{name}");
        if !check.count(&field, refs.len(), limits::FILE_REFS_MAX) {
            continue;
        }
        for (at, file) in refs.iter().enumerate() {
            let field = format!("{field}[{at}]");
            let path = one_file(check, &field, kind, file);
            once(check, &mut targets, format!("{field}.target"), &path);
        }
    }
}

fn once(check: &mut Checker, targets: &mut BTreeSet<String>, field: String, target: &str) {
    if !targets.insert(target.to_owned()) {
        check.fail(
            field,
            format!("{} is the target of another mount or file", quote(target)),
            "give each its own target",
        );
    }
}

fn one_mount(check: &mut Checker, field: &str, mount: &Mount) {
    let target_field = format!("{field}.target");
    let target = mount.target();
    if check.path(&target_field, target, false)
        && (target == "/proc" || target.starts_with("/proc/"))
    {
        check.fail(
            target_field,
            format!(
                "{} lies in /proc, which the container's own kernel view needs",
                quote(target)
            ),
            "choose another target",
        );
    }
    match mount {
        Mount::Volume { source, .. } => check.name(&format!("{field}.source"), source),
        Mount::Bind { source, .. } => {
            check.path(&format!("{field}.source"), source, true);
        }
        Mount::Tmpfs { size, .. } => {
            if let Some(size) = size {
                let max = limits::MEMORY_LIMIT_BYTES_MAX;
                check.range(&format!("{field}.size"), size.0, 1, max);
            }
        }
    }
}

/// Checks one secret or config and tells where it will be.
fn one_file(check: &mut Checker, field: &str, kind: FileKind, file: &FileRef) -> String {
    check.name(&format!("{field}.source"), &file.source);
    let directory = match kind {
        FileKind::Secret => "/run/secrets",
        FileKind::Config => "/run/configs",
    };
    if let Some(mode) = file.mode
        && mode > 0o777
    {
        check.fail(
            format!("{field}.mode"),
            format!("{mode:o} is not a set of permission bits"),
            "write 0 to 0777 (octal)",
        );
    }
    let target_field = format!("{field}.target");
    match file.target.as_deref() {
        None => format!("{directory}/{}", file.source),
        Some(path) if path.starts_with('/') && kind == FileKind::Config => {
            check.path(&target_field, path, false);
            path.to_owned()
        }
        Some(name) => {
            let plain = !name.is_empty()
                && name.len() <= 255
                && !name.contains(['/', '\0'])
                && !matches!(name, "." | "..");
            if !plain {
                let remedy = match kind {
                    FileKind::Secret => "write a file name without /; secrets lie in /run/secrets",
                    FileKind::Config => "write a file name without /, or an absolute path",
                };
                let problem = format!("{} is not a file name", quote(name));
                check.fail(target_field, problem, remedy);
            }
            format!("{directory}/{name}")
        }
    }
}

fn resources(check: &mut Checker, spec: &Resources) {
    let cpu = |check: &mut Checker, field: &str, value: Option<MilliCpu>, min: u64| {
        if let Some(MilliCpu(milli)) = value
            && (u64::from(milli) < min || milli > limits::CPU_MILLI_MAX)
        {
            check.fail(
                format!("container.resources.{field}"),
                format!("{milli} thousandths of a core is out of range"),
                format!("use {min} to {} thousandths", limits::CPU_MILLI_MAX),
            );
        }
    };
    let memory = |check: &mut Checker, field: &str, value: Option<Bytes>, min: u64| {
        if let Some(size) = value
            && (size.0 < min || size.0 > limits::MEMORY_LIMIT_BYTES_MAX)
        {
            check.fail(
                format!("container.resources.{field}"),
                format!("{size} is out of range"),
                format!(
                    "use {} to {}",
                    Bytes(min),
                    Bytes(limits::MEMORY_LIMIT_BYTES_MAX)
                ),
            );
        }
    };
    // The kernel's scheduler takes no quota below one hundredth of a core.
    cpu(check, "cpuLimit", spec.cpu_limit, 10);
    cpu(check, "cpuReservation", spec.cpu_reservation, 0);
    let smallest = limits::MEMORY_LIMIT_BYTES_MIN;
    memory(check, "memoryLimit", spec.memory_limit, smallest);
    memory(check, "memoryReservation", spec.memory_reservation, 0);
    if let (Some(limit), Some(reserved)) = (spec.cpu_limit, spec.cpu_reservation)
        && reserved > limit
    {
        check.fail(
            "container.resources.cpuReservation",
            format!("{reserved} is more than the limit of {limit}"),
            "lower the reservation or raise the limit",
        );
    }
    if let (Some(limit), Some(reserved)) = (spec.memory_limit, spec.memory_reservation)
        && reserved > limit
    {
        check.fail(
            "container.resources.memoryReservation",
            format!("{reserved} is more than the limit of {limit}"),
            "lower the reservation or raise the limit",
        );
    }
    if let Some(pids) = spec.pids_limit {
        let max = u64::from(limits::PIDS_LIMIT_MAX);
        check.range("container.resources.pidsLimit", u64::from(pids), 1, max);
    }
}

fn capabilities(check: &mut Checker, add: &[String], drop: &[String]) {
    // Twice the number of capabilities would only repeat them.
    const CAPABILITIES_MAX: usize = 64;
    let mut added = BTreeSet::new();
    for (list, field) in [(add, "container.capAdd"), (drop, "container.capDrop")] {
        if !check.count(field, list.len(), CAPABILITIES_MAX) {
            continue;
        }
        for (at, text) in list.iter().enumerate() {
            let Some(name) = capability_name(text) else {
                check.fail(
                    format!("{field}[{at}]"),
                    format!("{} is not a capability", quote(text)),
                    "write a Linux capability such as NET_ADMIN, or ALL",
                );
                continue;
            };
            if field.ends_with("Add") {
                added.insert(name);
            } else if added.contains(name) {
                check.fail(
                    format!("{field}[{at}]"),
                    format!("{name} is added and dropped"),
                    "keep one of the two",
                );
            }
        }
    }
}

fn health_check(check: &mut Checker, field: &str, health: &HealthCheck) {
    let span = limits::SPAN_MS_MAX;
    check.span(&format!("{field}.interval"), health.interval, 1, span);
    check.span(&format!("{field}.timeout"), health.timeout, 1, span);
    check.span(
        &format!("{field}.startPeriod"),
        health.start_period,
        0,
        span,
    );
    let retries = u64::from(health.retries);
    let most = u64::from(limits::HEALTH_RETRIES_MAX);
    check.range(&format!("{field}.retries"), retries, 1, most);
    match &health.probe {
        HealthProbe::Tcp { port } => check.port(&format!("{field}.probe.port"), *port),
        HealthProbe::Exec { command } => {
            let field = format!("{field}.probe.command");
            if command.is_empty() {
                check.fail(&field, "is empty", "write the command to run");
            }
            arguments(check, &field, command);
        }
        HealthProbe::Http {
            path,
            port,
            headers,
            status_min,
            status_max,
            https: _,
        } => {
            let field = format!("{field}.probe");
            check.port(&format!("{field}.port"), *port);
            http_path(check, &format!("{field}.path"), path);
            http_headers(check, &format!("{field}.headers"), headers);
            let (min, max) = (u64::from(*status_min), u64::from(*status_max));
            check.range(&format!("{field}.statusMin"), min, 100, 599);
            check.range(&format!("{field}.statusMax"), max, 100, 599);
            if min > max {
                check.fail(
                    format!("{field}.statusMin"),
                    format!("{min} is above statusMax {max}"),
                    "swap the two",
                );
            }
        }
    }
}

pub(super) fn http_path(check: &mut Checker, field: &str, path: &str) {
    if !check.text(field, path, limits::PATH_BYTES_MAX) {
        return;
    }
    let bad = |c: char| c.is_control() || c.is_whitespace();
    if !path.starts_with('/') || path.contains(bad) {
        check.fail(
            field,
            format!("{} is not a path", quote(path)),
            "write a path that begins with / and has no spaces",
        );
    }
}

fn http_headers(check: &mut Checker, field: &str, headers: &[(String, String)]) {
    if !check.count(field, headers.len(), limits::HEALTH_HEADERS_MAX) {
        return;
    }
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    for (at, (name, value)) in headers.iter().enumerate() {
        let field = format!("{field}[{at}]");
        check.text(&field, name, limits::HEALTH_HEADER_BYTES_MAX);
        check.text(&field, value, limits::HEALTH_HEADER_BYTES_MAX);
        if name.is_empty() || !name.bytes().all(token) || value.contains(['\r', '\n']) {
            check.fail(
                field,
                format!("{} is not an HTTP header", quote(name)),
                "write a header name and a value on one line",
            );
        }
    }
}

fn ports(check: &mut Checker, ports: &[PortMapping]) {
    if !check.count("ports", ports.len(), limits::PORTS_MAX) {
        return;
    }
    let (mut taken, mut names) = (BTreeSet::new(), BTreeSet::new());
    for (at, port) in ports.iter().enumerate() {
        let field = format!("ports[{at}]");
        check.port(&format!("{field}.containerPort"), port.container_port);
        if let Some(name) = &port.name {
            check.name(&format!("{field}.name"), name);
            if !names.insert(name) {
                check.fail(
                    format!("{field}.name"),
                    format!("{} stands twice", quote(name)),
                    "give each port its own name",
                );
            }
        }
        if port.host_port != 0 && !taken.insert((port.host_port, port.protocol)) {
            check.fail(
                format!("{field}.hostPort"),
                format!("{} is published twice with this protocol", port.host_port),
                "choose another host port",
            );
        }
    }
}

fn placement(check: &mut Checker, placement: &Placement) {
    let field = "placement.constraints";
    if check.count(field, placement.constraints.len(), limits::CONSTRAINTS_MAX) {
        for (at, text) in placement.constraints.iter().enumerate() {
            if let Err(problem) = Constraint::read(text) {
                check.fail(format!("{field}[{at}]"), problem, Constraint::remedy());
            }
        }
    }
    if let Some(label) = &placement.spread {
        check.label_key("placement.spread", label);
    }
}

fn update(check: &mut Checker, update: &UpdateConfig) {
    let replicas = u64::from(limits::REPLICAS_MAX);
    check.range(
        "update.parallelism",
        u64::from(update.parallelism),
        1,
        replicas,
    );
    check.range("update.maxSurge", u64::from(update.max_surge), 0, replicas);
    check.range(
        "update.maxUnavailable",
        u64::from(update.max_unavailable),
        0,
        replicas,
    );
    for (field, span) in [
        ("update.delay", update.delay),
        ("update.monitor", update.monitor),
        ("update.canaryWindow", update.canary_window),
        ("update.blueGreenGrace", update.blue_green_grace),
    ] {
        check.span(field, span, 0, limits::SPAN_MS_MAX);
    }
    let threshold = u64::from(update.failure_threshold_percent);
    check.range("update.failureThresholdPercent", threshold, 0, 100);
    let (field, steps) = ("update.canarySteps", &update.canary_steps);
    if !check.count(field, steps.len(), limits::CANARY_STEPS_MAX) {
        return;
    }
    if steps.is_empty() && update.strategy == DeployStrategy::Canary {
        check.fail(
            field,
            "is empty",
            "write rising percentages, such as 10, 50, 100",
        );
    }
    let mut before = 0;
    for (at, step) in steps.iter().enumerate() {
        if *step <= before || *step > 100 {
            check.fail(
                format!("{field}[{at}]"),
                format!("{step} does not rise from {before}, or is above 100"),
                "write rising percentages, such as 10, 50, 100",
            );
        }
        before = *step;
    }
}
