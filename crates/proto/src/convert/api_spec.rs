//! Parts of a spec ⇄ the older messages of `warren.v1` (`reference/api.md` §8 and §9), without what
//! upstream loses on the way: headers, status ranges, ports, start periods and volumes survive.

use super::ConvertError;
use crate::v1;
use warren_types::{
    Bytes, DeployStrategy, Duration, FailureAction, HealthCheck, HealthProbe, HealthSpec, MilliCpu,
    Mount, PortMapping, Protocol, PublishMode, Resources, RestartCondition, RestartPolicy,
    UpdateConfig,
};

/// Shares of one core on the wire.
const SHARES_PER_CORE: u64 = 1024;
const MILLI_PER_CORE: u64 = 1000;
const INTERVAL_SECONDS_DEFAULT: u64 = 30;
const TIMEOUT_SECONDS_DEFAULT: u64 = 10;
const RETRIES_DEFAULT: u32 = 3;
const STATUS_MIN_DEFAULT: u16 = 200;
const STATUS_MAX_DEFAULT: u16 = 399;

pub(super) fn unsigned(number: i32, field: &str) -> Result<u32, ConvertError> {
    u32::try_from(number).map_err(|_| ConvertError::new(field, format!("{number} is negative")))
}

fn port_number(number: i32, field: &str) -> Result<u16, ConvertError> {
    u16::try_from(number)
        .map_err(|_| ConvertError::new(field, format!("{number} is not between 0 and 65535")))
}

fn seconds_or(number: i32, default: Duration, field: &str) -> Result<Duration, ConvertError> {
    match unsigned(number, field)? {
        0 => Ok(default),
        n => Ok(Duration::from_secs(u64::from(n))),
    }
}

/// Whole seconds for the wire, rounded up so that a short span does not become none.
pub(super) fn seconds(span: Duration) -> i32 {
    i32::try_from(span.0.div_ceil(1000)).unwrap_or(i32::MAX)
}

pub(super) fn wire_u32(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

/// Restart condition from either family of words; empty means the default.
///
/// # Errors
/// [`ConvertError`] for any other word.
pub fn restart_condition_from_text(text: &str) -> Result<RestartCondition, ConvertError> {
    match text {
        "" | "any" | "always" => Ok(RestartCondition::Any),
        "on-failure" => Ok(RestartCondition::OnFailure),
        "none" | "never" => Ok(RestartCondition::None),
        other => Err(ConvertError::new(
            "condition",
            format!("{other:?} is none of none, on-failure, any (or never, always)"),
        )),
    }
}

const fn restart_text(condition: RestartCondition) -> &'static str {
    match condition {
        RestartCondition::None => "none",
        RestartCondition::OnFailure => "on-failure",
        RestartCondition::Any => "any",
    }
}

/// Deploy strategy from its word; empty means rolling.
///
/// # Errors
/// [`ConvertError`] for any other word.
pub fn strategy_from_text(text: &str) -> Result<DeployStrategy, ConvertError> {
    match text {
        "" | "rolling" => Ok(DeployStrategy::Rolling),
        "blue-green" => Ok(DeployStrategy::BlueGreen),
        "canary" => Ok(DeployStrategy::Canary),
        other => Err(ConvertError::new(
            "deploy_strategy",
            format!("{other:?} is none of rolling, blue-green, canary"),
        )),
    }
}

pub(super) const fn strategy_text(strategy: DeployStrategy) -> &'static str {
    match strategy {
        DeployStrategy::Rolling => "rolling",
        DeployStrategy::BlueGreen => "blue-green",
        DeployStrategy::Canary => "canary",
    }
}

impl From<&RestartPolicy> for v1::RestartPolicy {
    fn from(v: &RestartPolicy) -> Self {
        Self {
            condition: restart_text(v.condition).to_owned(),
            max_attempts: wire_u32(v.max_attempts),
            delay_seconds: v.delay.map_or(0, seconds),
        }
    }
}

impl TryFrom<v1::RestartPolicy> for RestartPolicy {
    type Error = ConvertError;
    fn try_from(v: v1::RestartPolicy) -> Result<Self, ConvertError> {
        let delay = unsigned(v.delay_seconds, "delay_seconds")?;
        Ok(Self {
            condition: restart_condition_from_text(&v.condition)?,
            max_attempts: unsigned(v.max_attempts, "max_attempts")?,
            delay: (delay > 0).then(|| Duration::from_secs(u64::from(delay))),
            window: None,
        })
    }
}

impl From<&Resources> for v1::ResourceRequirements {
    fn from(v: &Resources) -> Self {
        let bytes = |b: Option<Bytes>| b.map_or(0, |b| i64::try_from(b.0).unwrap_or(i64::MAX));
        Self {
            cpu_shares: v.cpu_limit.map_or(0, shares_from_milli),
            memory_bytes: bytes(v.memory_limit),
            memory_reservation_bytes: bytes(v.memory_reservation),
        }
    }
}

impl TryFrom<v1::ResourceRequirements> for Resources {
    type Error = ConvertError;
    fn try_from(v: v1::ResourceRequirements) -> Result<Self, ConvertError> {
        let bytes = |number: i64, field: &str| match u64::try_from(number) {
            Ok(0) => Ok(None),
            Ok(n) => Ok(Some(Bytes(n))),
            Err(_) => Err(ConvertError::new(field, format!("{number} is negative"))),
        };
        Ok(Self {
            cpu_limit: milli_from_shares(v.cpu_shares)?,
            memory_limit: bytes(v.memory_bytes, "memory_bytes")?,
            cpu_reservation: None,
            memory_reservation: bytes(v.memory_reservation_bytes, "memory_reservation_bytes")?,
            pids_limit: None,
        })
    }
}

fn shares_from_milli(cpu: MilliCpu) -> i64 {
    let shares = (u64::from(cpu.0) * SHARES_PER_CORE + MILLI_PER_CORE / 2) / MILLI_PER_CORE;
    i64::try_from(shares).unwrap_or(i64::MAX)
}

fn milli_from_shares(shares: i64) -> Result<Option<MilliCpu>, ConvertError> {
    let wrong = || ConvertError::new("cpu_shares", format!("{shares} is out of range"));
    let shares_u = u64::try_from(shares).map_err(|_| wrong())?;
    if shares_u == 0 {
        return Ok(None);
    }
    let milli = shares_u
        .checked_mul(MILLI_PER_CORE)
        .map(|v| (v + SHARES_PER_CORE / 2) / SHARES_PER_CORE)
        .and_then(|v| u32::try_from(v).ok())
        .ok_or_else(wrong)?;
    // Less than half a thousandth of a core is still a limit, not "no limit".
    Ok(Some(MilliCpu(milli.max(1))))
}

impl From<&PortMapping> for v1::PortMapping {
    fn from(v: &PortMapping) -> Self {
        Self {
            name: v.name.clone().unwrap_or_default(),
            container_port: i32::from(v.container_port),
            host_port: i32::from(v.host_port),
            protocol: match v.protocol {
                Protocol::Tcp => "tcp",
                Protocol::Udp => "udp",
            }
            .to_owned(),
            publish_mode: match v.publish_mode {
                PublishMode::Host => v1::port_mapping::PublishMode::Host,
                PublishMode::Ingress => v1::port_mapping::PublishMode::Ingress,
            } as i32,
        }
    }
}

impl TryFrom<v1::PortMapping> for PortMapping {
    type Error = ConvertError;
    fn try_from(v: v1::PortMapping) -> Result<Self, ConvertError> {
        Ok(Self {
            container_port: port_number(v.container_port, "container_port")?,
            host_port: port_number(v.host_port, "host_port")?,
            protocol: match v.protocol.to_ascii_lowercase().as_str() {
                "" | "tcp" => Protocol::Tcp,
                "udp" => Protocol::Udp,
                _ => {
                    return Err(ConvertError::new(
                        "protocol",
                        format!("{:?} is neither tcp nor udp", v.protocol),
                    ));
                }
            },
            publish_mode: match v1::port_mapping::PublishMode::try_from(v.publish_mode) {
                Ok(v1::port_mapping::PublishMode::Host) => PublishMode::Host,
                Ok(v1::port_mapping::PublishMode::Ingress) => PublishMode::Ingress,
                Err(_) => {
                    return Err(ConvertError::new(
                        "publish_mode",
                        format!("{} is neither HOST (0) nor INGRESS (1)", v.publish_mode),
                    ));
                }
            },
            name: (!v.name.is_empty()).then_some(v.name),
        })
    }
}

/// Volumes and bind mounts for the wire; temporary file systems stand in `spec` only.
pub(super) fn mount_to_api(mount: &Mount) -> Option<v1::VolumeMount> {
    match mount {
        Mount::Volume {
            source,
            target,
            read_only,
        }
        | Mount::Bind {
            source,
            target,
            read_only,
        } => Some(v1::VolumeMount {
            source: source.clone(),
            target: target.clone(),
            read_only: *read_only,
        }),
        Mount::Tmpfs { .. } => None,
    }
}

/// A source that begins with `/` is a path of the node, anything else the name of a volume.
pub(super) fn mount_from_api(v: v1::VolumeMount) -> Mount {
    let v1::VolumeMount {
        source,
        target,
        read_only,
    } = v;
    if source.starts_with('/') {
        Mount::Bind {
            source,
            target,
            read_only,
        }
    } else {
        Mount::Volume {
            source,
            target,
            read_only,
        }
    }
}

/// The one check of the older wire: both the traffic gate and the reason for a restart.
pub(super) fn health_from_api(v: v1::HealthCheck) -> Result<HealthSpec, ConvertError> {
    let check = HealthCheck::try_from(v)?;
    Ok(HealthSpec {
        startup: None,
        readiness: Some(check.clone()),
        liveness: Some(check),
    })
}

/// The check shown in the older field: liveness, else readiness, else startup.
pub(super) fn health_to_api(v: &HealthSpec) -> Option<v1::HealthCheck> {
    v.liveness
        .as_ref()
        .or(v.readiness.as_ref())
        .or(v.startup.as_ref())
        .map(Into::into)
}

impl From<&HealthCheck> for v1::HealthCheck {
    fn from(v: &HealthCheck) -> Self {
        use v1::health_check::Type;
        let mut out = Self {
            interval_seconds: seconds(v.interval),
            timeout_seconds: seconds(v.timeout),
            retries: wire_u32(v.retries),
            start_period_seconds: seconds(v.start_period),
            ..Self::default()
        };
        match &v.probe {
            HealthProbe::Http {
                path,
                port,
                https,
                headers,
                status_min,
                status_max,
            } => {
                out.r#type = Type::Http as i32;
                out.http = Some(v1::HttpHealthCheck {
                    path: path.clone(),
                    port: i32::from(*port),
                    scheme: if *https { "https" } else { "http" }.to_owned(),
                    headers: headers
                        .iter()
                        .map(|(key, value)| v1::Header {
                            key: key.clone(),
                            value: value.clone(),
                        })
                        .collect(),
                    status_code_min: i32::from(*status_min),
                    status_code_max: i32::from(*status_max),
                });
            }
            HealthProbe::Tcp { port } => {
                out.r#type = Type::Tcp as i32;
                out.tcp = Some(v1::TcpHealthCheck {
                    port: i32::from(*port),
                });
            }
            HealthProbe::Exec { command } => {
                out.r#type = Type::Exec as i32;
                out.exec = Some(v1::ExecHealthCheck {
                    command: command.clone(),
                });
            }
        }
        out
    }
}

impl TryFrom<v1::HealthCheck> for HealthCheck {
    type Error = ConvertError;
    fn try_from(v: v1::HealthCheck) -> Result<Self, ConvertError> {
        use v1::health_check::Type;
        let missing = |field: &str| ConvertError::new(field, "missing, although `type` names it");
        let probe = match Type::try_from(v.r#type) {
            Ok(Type::Http) => http_probe(v.http.ok_or_else(|| missing("http"))?)?,
            Ok(Type::Tcp) => HealthProbe::Tcp {
                port: port_number(v.tcp.ok_or_else(|| missing("tcp"))?.port, "tcp.port")?,
            },
            Ok(Type::Exec) => HealthProbe::Exec {
                command: v.exec.ok_or_else(|| missing("exec"))?.command,
            },
            Err(_) => {
                return Err(ConvertError::new(
                    "type",
                    format!("{} is none of HTTP (0), TCP (1), EXEC (2)", v.r#type),
                ));
            }
        };
        let start_period = unsigned(v.start_period_seconds, "start_period_seconds")?;
        Ok(Self {
            probe,
            interval: seconds_or(
                v.interval_seconds,
                Duration::from_secs(INTERVAL_SECONDS_DEFAULT),
                "interval_seconds",
            )?,
            timeout: seconds_or(
                v.timeout_seconds,
                Duration::from_secs(TIMEOUT_SECONDS_DEFAULT),
                "timeout_seconds",
            )?,
            retries: match unsigned(v.retries, "retries")? {
                0 => RETRIES_DEFAULT,
                n => n,
            },
            start_period: Duration::from_secs(u64::from(start_period)),
        })
    }
}

fn http_probe(v: v1::HttpHealthCheck) -> Result<HealthProbe, ConvertError> {
    let status = |number: i32, default: u16, field: &str| {
        port_number(number, field).map(|n| if n == 0 { default } else { n })
    };
    Ok(HealthProbe::Http {
        port: port_number(v.port, "http.port")?,
        https: match v.scheme.as_str() {
            "" | "http" => false,
            "https" => true,
            other => {
                return Err(ConvertError::new(
                    "http.scheme",
                    format!("{other:?} is neither http nor https"),
                ));
            }
        },
        headers: v.headers.into_iter().map(|h| (h.key, h.value)).collect(),
        status_min: status(
            v.status_code_min,
            STATUS_MIN_DEFAULT,
            "http.status_code_min",
        )?,
        status_max: status(
            v.status_code_max,
            STATUS_MAX_DEFAULT,
            "http.status_code_max",
        )?,
        path: if v.path.is_empty() {
            "/".to_owned()
        } else {
            v.path
        },
    })
}

impl From<&UpdateConfig> for v1::UpdateConfig {
    fn from(v: &UpdateConfig) -> Self {
        Self {
            parallelism: wire_u32(v.parallelism),
            delay_seconds: seconds(v.delay),
            failure_action: match v.failure_action {
                FailureAction::Pause => "pause",
                FailureAction::Continue => "continue",
                FailureAction::Rollback => "rollback",
            }
            .to_owned(),
            max_surge: wire_u32(v.max_surge),
            max_unavailable: wire_u32(v.max_unavailable),
            health_check_grace_period_seconds: seconds(v.monitor),
            canary_weight: v.canary_steps.first().map_or(0, |w| wire_u32(*w)),
            canary_steps: v.canary_steps.iter().map(|w| wire_u32(*w)).collect(),
            canary_stability_window_seconds: seconds(v.canary_window),
            blue_green_grace_period_seconds: seconds(v.blue_green_grace),
            auto_rollback_enabled: v.failure_action == FailureAction::Rollback,
            failure_threshold_percent: wire_u32(v.failure_threshold_percent),
        }
    }
}

/// An older update message over the default; numbers that are 0 leave the default.
pub(super) fn update_from_api(
    v: v1::UpdateConfig,
    strategy: DeployStrategy,
) -> Result<UpdateConfig, ConvertError> {
    let base = UpdateConfig::default();
    let or = |n: u32, default: u32| if n == 0 { default } else { n };
    let (surge, unavailable) = (
        unsigned(v.max_surge, "max_surge")?,
        unsigned(v.max_unavailable, "max_unavailable")?,
    );
    let canary_steps = canary_steps(&v, base.canary_steps)?;
    Ok(UpdateConfig {
        strategy,
        parallelism: or(unsigned(v.parallelism, "parallelism")?, base.parallelism),
        delay: seconds_or(v.delay_seconds, base.delay, "delay_seconds")?,
        failure_action: match (v.failure_action.as_str(), v.auto_rollback_enabled) {
            ("", true) | ("rollback", _) => FailureAction::Rollback,
            ("", false) | ("pause", _) => FailureAction::Pause,
            ("continue", _) => FailureAction::Continue,
            (other, _) => {
                return Err(ConvertError::new(
                    "failure_action",
                    format!("{other:?} is none of pause, continue, rollback"),
                ));
            }
        },
        order: base.order,
        // Neither above nor below would allow no step at all.
        max_surge: if unavailable == 0 {
            or(surge, base.max_surge)
        } else {
            surge
        },
        max_unavailable: unavailable,
        monitor: seconds_or(
            v.health_check_grace_period_seconds,
            base.monitor,
            "health_check_grace_period_seconds",
        )?,
        canary_steps,
        canary_window: seconds_or(
            v.canary_stability_window_seconds,
            base.canary_window,
            "canary_stability_window_seconds",
        )?,
        blue_green_grace: seconds_or(
            v.blue_green_grace_period_seconds,
            base.blue_green_grace,
            "blue_green_grace_period_seconds",
        )?,
        failure_threshold_percent: or(
            unsigned(v.failure_threshold_percent, "failure_threshold_percent")?,
            base.failure_threshold_percent,
        ),
    })
}

fn canary_steps(v: &v1::UpdateConfig, default: Vec<u32>) -> Result<Vec<u32>, ConvertError> {
    if !v.canary_steps.is_empty() {
        return v
            .canary_steps
            .iter()
            .map(|n| unsigned(*n, "canary_steps"))
            .collect();
    }
    Ok(match unsigned(v.canary_weight, "canary_weight")? {
        0 => default,
        weight if weight >= 100 => vec![100],
        weight => vec![weight, 100],
    })
}
