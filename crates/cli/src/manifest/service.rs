//! `kind: Service`: the fields of the fact sheet's layers A and B, and Warren's own.

use super::health;
use super::node::{Kind, Pos};
use super::walk::{Obj, Report, Val};
use crate::flags;
use std::collections::BTreeMap;
use warren_types::{
    ContainerSpec, Duration, EnvVar, FailureAction, FileRef, Mode, Mount, PortMapping, Resources,
    RestartPolicy, ServiceSpec, UpdateConfig,
};

/// Reads the `spec` of a service.
pub(super) fn read(
    spec: &Obj<'_>,
    name: String,
    labels: BTreeMap<String, String>,
    pos: Pos,
    report: &Report,
) -> ServiceSpec {
    report.place("", pos);
    let image = spec
        .need(&["image"], "the image that the containers run")
        .map(|v| v.at("container.image"));
    let mut container = ContainerSpec {
        image: image.and_then(|v| v.text()).unwrap_or_default(),
        ..ContainerSpec::default()
    };
    read_process(spec, &mut container);
    read_files(spec, &mut container);
    container.health = health::read(spec);
    if let Some(policy) = spec
        .get("restartPolicy")
        .and_then(|v| v.at("container.restart").object())
    {
        container.restart = read_restart(policy);
    }
    if let Some(resources) = spec
        .get("resources")
        .and_then(|v| v.at("container.resources").object())
    {
        container.resources = read_resources(resources);
    }
    let mut result = ServiceSpec {
        name,
        labels,
        mode: read_mode(spec),
        container,
        ..ServiceSpec::default()
    };
    if let Some(ports) = spec.get("ports") {
        result.ports = items(&ports, "ports", read_port);
    }
    if let Some(networks) = spec.get("networks") {
        result.networks = networks.at("networks").texts();
    }
    if let Some(placement) = spec
        .get("placement")
        .and_then(|v| v.at("placement").object())
    {
        read_placement(placement, &mut result);
    }
    if let Some(update) = spec
        .get("updateConfig")
        .and_then(|v| v.at("update").object())
    {
        result.update = read_update(update);
    }
    result
}

/// Reads each item of a list and remembers its place as `field[index]`.
fn items<T>(list: &Val<'_>, field: &str, read: impl Fn(&Val<'_>) -> Option<T>) -> Vec<T> {
    let mut result = Vec::new();
    for item in list.list() {
        let item = item.at(&format!("{field}[{}]", result.len()));
        result.extend(read(&item));
    }
    result
}

fn read_mode(spec: &Obj<'_>) -> Mode {
    let replicas = spec.get("replicas").map(|v| v.at("mode"));
    let mode = spec.get("mode");
    let global = match mode.as_ref().and_then(Val::text).as_deref() {
        Some("global") => true,
        Some("replicated") | None => false,
        Some(other) => {
            if let Some(value) = &mode {
                value.fail(format!("{other:?} is not a mode; use replicated or global"));
            }
            false
        }
    };
    match (global, replicas) {
        (true, Some(value)) => {
            value.fail("a global service has one container on each node; remove replicas");
            Mode::Global
        }
        (true, None) => Mode::Global,
        (false, value) => Mode::Replicated {
            replicas: value.and_then(|v| v.count()).unwrap_or(1),
        },
    }
}

fn read_process(spec: &Obj<'_>, container: &mut ContainerSpec) {
    if let Some(value) = spec.any(&["command", "entrypoint"]) {
        container.command = value.at("container.command").words();
    }
    if let Some(value) = spec.get("args") {
        container.args = value.at("container.args").words();
    }
    if let Some(value) = spec.any(&["env", "environment"]) {
        container.env = read_env(&value);
    }
    let text = |key: &'static str, field: &str| spec.get(key).map(|v| v.at(field));
    container.user = text("user", "container.user").and_then(|v| v.loose_text());
    container.hostname = text("hostname", "container.hostname").and_then(|v| v.text());
    container.stop_signal =
        text("stopSignal", "container.stop_signal").and_then(|v| v.loose_text());
    container.working_dir = spec
        .any(&["workingDir", "workdir"])
        .and_then(|v| v.at("container.working_dir").text());
    container.stop_grace = spec
        .any(&["stopTimeout", "stopGracePeriod"])
        .and_then(|v| v.at("container.stop_grace").duration());
    if let Some(value) = spec.any(&["readOnly", "readOnlyRootFilesystem"]) {
        container.read_only_root = value.boolean().unwrap_or(false);
    }
    if let Some(value) = spec.get("capAdd") {
        container.cap_add = value.at("container.cap_add").texts();
    }
    if let Some(value) = spec.get("capDrop") {
        container.cap_drop = value.at("container.cap_drop").texts();
    }
    if let Some(value) = spec.get("containerLabels") {
        container.labels = value.at("container.labels").text_map();
    }
}

/// A map, a list of `{name, value}`, or a list of `NAME=VALUE`.
fn read_env(value: &Val<'_>) -> Vec<EnvVar> {
    if let Kind::Map(_) = &value.node.kind {
        let Some(object) = value.object() else {
            return Vec::new();
        };
        return object
            .values()
            .enumerate()
            .filter_map(|(at, (name, value))| {
                let value = value.at(&format!("container.env[{at}]")).loose_text()?;
                Some(EnvVar {
                    name: name.to_owned(),
                    value,
                })
            })
            .collect();
    }
    if let Kind::Scalar { .. } = value.node.kind {
        value.fail(format!(
            "expected a map or a list, found {}",
            value.node.what()
        ));
        return Vec::new();
    }
    items(value, "container.env", |item| {
        if let Kind::Scalar { .. } = item.node.kind {
            let text = item.text()?;
            let Some((name, value)) = text.split_once('=') else {
                item.fail("expected NAME=VALUE, or a map with name and value");
                return None;
            };
            return Some(EnvVar {
                name: name.to_owned(),
                value: value.to_owned(),
            });
        }
        let object = item.object()?;
        let name = object
            .need(&["name"], "the name of the variable")
            .and_then(|v| v.text());
        let value = object
            .get("value")
            .and_then(|v| v.loose_text())
            .unwrap_or_default();
        object.finish();
        Some(EnvVar { name: name?, value })
    })
}

fn read_files(spec: &Obj<'_>, container: &mut ContainerSpec) {
    if let Some(value) = spec.get("secrets") {
        container.secrets = items(&value, "container.secrets", read_file_ref);
    }
    if let Some(value) = spec.get("configs") {
        container.configs = items(&value, "container.configs", read_file_ref);
    }
    if let Some(value) = spec.any(&["volumes", "mounts"]) {
        container.mounts = items(&value, "container.mounts", read_mount);
    }
}

fn read_file_ref(item: &Val<'_>) -> Option<FileRef> {
    if let Kind::Scalar { .. } = item.node.kind {
        return item.parsed("the name of a secret or config", flags::secret);
    }
    let object = item.object()?;
    let source = object
        .need(&["source", "name"], "the name of a secret or config")
        .and_then(|v| v.text());
    let file = FileRef {
        source: source.clone().unwrap_or_default(),
        target: object.any(&["target", "file"]).and_then(|v| v.text()),
        uid: object.get("uid").and_then(|v| v.count()).unwrap_or(0),
        gid: object.get("gid").and_then(|v| v.count()).unwrap_or(0),
        mode: object
            .get("mode")
            .and_then(|v| v.parsed("permission bits such as 0400", permission_bits)),
    };
    object.finish();
    source.map(|_| file)
}

/// `0400`, `0o400` and `"400"` are octal, as everybody means who writes permission bits.
fn permission_bits(text: &str) -> Result<u32, String> {
    let digits = text.strip_prefix("0o").unwrap_or(text);
    match u32::from_str_radix(digits, 8) {
        Ok(bits) if bits <= 0o7777 => Ok(bits),
        _ => Err(format!(
            "{text:?} are no permission bits; write octal digits such as 0400"
        )),
    }
}

fn read_mount(item: &Val<'_>) -> Option<Mount> {
    if let Kind::Scalar { .. } = item.node.kind {
        return item.parsed("NAME:PATH[:ro]", flags::volume);
    }
    let object = item.object()?;
    let kind = object.get("type").and_then(|v| v.text());
    let source = object.any(&["source", "name"]).and_then(|v| v.text());
    let target = object
        .need(
            &["target", "mountPath"],
            "an absolute path inside the container",
        )
        .and_then(|v| v.text());
    let read_only = object
        .get("readOnly")
        .and_then(|v| v.boolean())
        .unwrap_or(false);
    let size = object.get("size").and_then(|v| v.bytes());
    object.finish();
    let target = target?;
    let kind = kind.unwrap_or_else(|| {
        let bind = source.as_deref().is_some_and(|s| s.starts_with('/'));
        if bind { "bind" } else { "volume" }.to_owned()
    });
    if kind != "tmpfs" && size.is_some() {
        item.fail("size belongs to type tmpfs");
    }
    match (kind.as_str(), source) {
        ("tmpfs", None) => Some(Mount::Tmpfs { target, size }),
        ("tmpfs", Some(_)) => {
            item.fail("a tmpfs has no source; remove it");
            None
        }
        ("volume", Some(source)) => Some(Mount::Volume {
            source,
            target,
            read_only,
        }),
        ("bind", Some(source)) => Some(Mount::Bind {
            source,
            target,
            read_only,
        }),
        ("volume" | "bind", None) => {
            item.fail("source is missing; expected the name of a volume or a path of the node");
            None
        }
        (other, _) => {
            item.fail(format!(
                "{other:?} is not a type of mount; use volume, bind or tmpfs"
            ));
            None
        }
    }
}

fn read_port(item: &Val<'_>) -> Option<PortMapping> {
    if let Kind::Scalar { .. } = item.node.kind {
        return item.parsed("HOST:CONTAINER[/PROTOCOL]", |text| {
            let port = flags::port(text)?;
            Ok(PortMapping {
                publish_mode: port.mode.unwrap_or_default(),
                ..port.mapping
            })
        });
    }
    let object = item.object()?;
    let container_port = object
        .need(
            &["containerPort", "target"],
            "the port inside the container",
        )
        .and_then(|v| v.port(1));
    let mapping = PortMapping {
        name: object.get("name").and_then(|v| v.text()),
        container_port: container_port.unwrap_or_default(),
        host_port: object
            .any(&["hostPort", "published"])
            .and_then(|v| v.port(0))
            .unwrap_or(0),
        protocol: object
            .get("protocol")
            .and_then(|v| v.parsed("tcp or udp", flags::protocol))
            .unwrap_or_default(),
        publish_mode: object
            .any(&["publishMode", "mode"])
            .and_then(|v| v.parsed("host or ingress", flags::publish_mode))
            .unwrap_or_default(),
    };
    object.finish();
    container_port.map(|_| mapping)
}

fn read_restart(object: Obj<'_>) -> RestartPolicy {
    let default = RestartPolicy::default();
    let policy = RestartPolicy {
        condition: object
            .get("condition")
            .and_then(|v| v.parsed("any, on-failure or none", flags::restart_condition))
            .unwrap_or(default.condition),
        max_attempts: object
            .get("maxAttempts")
            .and_then(|v| v.count())
            .unwrap_or(default.max_attempts),
        delay: object.get("delay").and_then(|v| v.duration()),
        window: object.get("window").and_then(|v| v.duration()),
    };
    object.finish();
    policy
}

fn read_resources(object: Obj<'_>) -> Resources {
    let mut result = Resources::default();
    if let Some(limits) = object.get("limits").and_then(|v| v.object()) {
        result.cpu_limit = read_cpu(&limits, "container.resources.cpu_limit");
        result.memory_limit = limits
            .any(&["memoryBytes", "memory"])
            .and_then(|v| v.at("container.resources.memory_limit").bytes());
        result.pids_limit = limits.get("pids").and_then(|v| v.count());
        limits.finish();
    }
    if let Some(kept) = object.get("reservations").and_then(|v| v.object()) {
        result.cpu_reservation = read_cpu(&kept, "container.resources.cpu_reservation");
        result.memory_reservation = kept
            .any(&["memoryBytes", "memory"])
            .and_then(|v| v.at("container.resources.memory_reservation").bytes());
        kept.finish();
    }
    object.finish();
    result
}

/// `cpus` in cores, or `cpuShares` with 1024 for one core, rounded to the nearest thousandth.
fn read_cpu(object: &Obj<'_>, field: &str) -> Option<warren_types::MilliCpu> {
    let shares = object.get("cpuShares");
    let cores = object.any(&["cpus", "cpu"]);
    if let (Some(_), Some(value)) = (&shares, &cores) {
        value.fail("cpuShares and cpus exclude each other; write one of them");
    }
    if let Some(value) = cores {
        return value.at(field).cpus();
    }
    let shares = shares?.at(field).integer(0, u64::from(u32::MAX) / 1000)?;
    u32::try_from((shares * 1000 + 512) / 1024)
        .ok()
        .map(warren_types::MilliCpu)
}

fn read_placement(object: Obj<'_>, spec: &mut ServiceSpec) {
    if let Some(list) = object.get("constraints") {
        spec.placement.constraints = items(&list, "placement.constraints", |v| v.text());
    }
    let spread = object
        .any(&["spread", "spreadPreference"])
        .and_then(|v| v.text());
    let preferences = object
        .get("preferences")
        .map(|v| v.list())
        .unwrap_or_default();
    let mut labels: Vec<String> = spread.into_iter().collect();
    for item in &preferences {
        if let Some(entry) = item.object() {
            labels.extend(
                entry
                    .need(&["spread"], "a node label")
                    .and_then(|v| v.text()),
            );
            entry.finish();
        }
    }
    if let (true, Some(second)) = (labels.len() > 1, preferences.last()) {
        second.fail("only one spread preference is supported; remove the others");
    }
    spec.placement.spread = labels.into_iter().next().map(|label| {
        label
            .strip_prefix("node.labels.")
            .map(str::to_owned)
            .unwrap_or(label)
    });
    spec.placement.max_per_node = object
        .any(&["maxPerNode", "maxReplicasPerNode"])
        .and_then(|v| v.count())
        .unwrap_or(0);
    object.finish();
}

fn read_update(object: Obj<'_>) -> UpdateConfig {
    let mut update = UpdateConfig::default();
    let number = |key: &'static str, into: &mut u32| {
        if let Some(value) = object
            .get(key)
            .and_then(|v| v.at(&format!("update.{key}")).count())
        {
            *into = value;
        }
    };
    number("parallelism", &mut update.parallelism);
    number("maxSurge", &mut update.max_surge);
    number("maxUnavailable", &mut update.max_unavailable);
    number(
        "failureThresholdPercent",
        &mut update.failure_threshold_percent,
    );
    let span = |keys: &[&'static str], into: &mut Duration| {
        if let Some(value) = object.any(keys).and_then(|v| v.duration()) {
            *into = value;
        }
    };
    span(&["delay"], &mut update.delay);
    span(&["monitor", "healthCheckGracePeriod"], &mut update.monitor);
    span(
        &["canaryStabilityWindow", "canaryWindow"],
        &mut update.canary_window,
    );
    span(&["blueGreenGracePeriod"], &mut update.blue_green_grace);
    if let Some(value) = object
        .get("strategy")
        .and_then(|v| v.parsed("a strategy", flags::strategy))
    {
        update.strategy = value;
    }
    if let Some(value) = object
        .get("order")
        .and_then(|v| v.parsed("an order", flags::order))
    {
        update.order = value;
    }
    if let Some(list) = object.get("canarySteps") {
        update.canary_steps = items(&list, "update.canary_steps", |v| {
            v.integer(1, 100)?.try_into().ok()
        });
    }
    let action = object.get("failureAction");
    let rollback = object.get("autoRollbackEnabled").and_then(|v| v.boolean());
    if rollback == Some(true) {
        update.failure_action = FailureAction::Rollback;
    }
    if let Some(value) = action.and_then(|v| v.parsed("an action", flags::failure_action)) {
        update.failure_action = value;
    }
    object.finish();
    update
}
