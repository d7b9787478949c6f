//! Service specs ⇄ `warren.store.v1`.

use super::{ConvertError, WireEnum, list, millis, nested, optional, port, required, wire_enum};
use crate::store as pb;
use warren_types::{
    Bytes, ContainerSpec, DeployStrategy, Duration, EnvVar, FailureAction, FileRef, HealthCheck,
    HealthProbe, HealthSpec, MilliCpu, Mode, Mount, Placement, PortMapping, Protocol, PublishMode,
    Resources, RestartCondition, RestartPolicy, ServiceSpec, UpdateConfig, UpdateOrder,
};

wire_enum!(RestartCondition {
    None,
    OnFailure,
    Any
});
wire_enum!(Protocol { Tcp, Udp });
wire_enum!(PublishMode { Host, Ingress });
wire_enum!(DeployStrategy {
    Rolling,
    BlueGreen,
    Canary
});
wire_enum!(FailureAction {
    Pause,
    Continue,
    Rollback
});
wire_enum!(UpdateOrder {
    StopFirst,
    StartFirst
});

impl From<&ServiceSpec> for pb::ServiceSpec {
    fn from(v: &ServiceSpec) -> Self {
        Self {
            name: v.name.clone(),
            labels: v.labels.clone(),
            mode: Some(match v.mode {
                Mode::Replicated { replicas } => {
                    pb::service_spec::Mode::Replicated(pb::Replicated { replicas })
                }
                Mode::Global => pb::service_spec::Mode::Global(pb::Global {}),
            }),
            container: Some((&v.container).into()),
            ports: v.ports.iter().map(Into::into).collect(),
            networks: v.networks.clone(),
            placement: Some((&v.placement).into()),
            update: Some((&v.update).into()),
        }
    }
}

impl TryFrom<pb::ServiceSpec> for ServiceSpec {
    type Error = ConvertError;
    fn try_from(v: pb::ServiceSpec) -> Result<Self, ConvertError> {
        Ok(Self {
            name: v.name,
            labels: v.labels,
            mode: match required(v.mode, "mode")? {
                pb::service_spec::Mode::Replicated(r) => Mode::Replicated {
                    replicas: r.replicas,
                },
                pb::service_spec::Mode::Global(pb::Global {}) => Mode::Global,
            },
            container: nested(v.container, "container")?,
            ports: list(v.ports, "ports")?,
            networks: v.networks,
            placement: v.placement.map(Into::into).unwrap_or_default(),
            update: optional(v.update, "update")?.unwrap_or_default(),
        })
    }
}

impl From<&ContainerSpec> for pb::ContainerSpec {
    fn from(v: &ContainerSpec) -> Self {
        Self {
            image: v.image.clone(),
            image_digest: v.image_digest.clone(),
            command: v.command.clone(),
            args: v.args.clone(),
            env: v.env.iter().map(Into::into).collect(),
            working_dir: v.working_dir.clone(),
            user: v.user.clone(),
            hostname: v.hostname.clone(),
            labels: v.labels.clone(),
            mounts: v.mounts.iter().map(Into::into).collect(),
            secrets: v.secrets.iter().map(Into::into).collect(),
            configs: v.configs.iter().map(Into::into).collect(),
            resources: Some((&v.resources).into()),
            read_only_root: v.read_only_root,
            cap_add: v.cap_add.clone(),
            cap_drop: v.cap_drop.clone(),
            health: Some((&v.health).into()),
            restart: Some((&v.restart).into()),
            stop_signal: v.stop_signal.clone(),
            stop_grace_ms: millis(v.stop_grace),
        }
    }
}

impl TryFrom<pb::ContainerSpec> for ContainerSpec {
    type Error = ConvertError;
    fn try_from(v: pb::ContainerSpec) -> Result<Self, ConvertError> {
        Ok(Self {
            image: v.image,
            image_digest: v.image_digest,
            command: v.command,
            args: v.args,
            env: v.env.into_iter().map(Into::into).collect(),
            working_dir: v.working_dir,
            user: v.user,
            hostname: v.hostname,
            labels: v.labels,
            mounts: list(v.mounts, "mounts")?,
            secrets: v.secrets.into_iter().map(Into::into).collect(),
            configs: v.configs.into_iter().map(Into::into).collect(),
            resources: v.resources.map(Into::into).unwrap_or_default(),
            read_only_root: v.read_only_root,
            cap_add: v.cap_add,
            cap_drop: v.cap_drop,
            health: optional(v.health, "health")?.unwrap_or_default(),
            restart: optional(v.restart, "restart")?.unwrap_or_default(),
            stop_signal: v.stop_signal,
            stop_grace: v.stop_grace_ms.map(Duration),
        })
    }
}

impl From<&EnvVar> for pb::EnvVar {
    fn from(v: &EnvVar) -> Self {
        Self {
            name: v.name.clone(),
            value: v.value.clone(),
        }
    }
}

impl From<pb::EnvVar> for EnvVar {
    fn from(v: pb::EnvVar) -> Self {
        Self {
            name: v.name,
            value: v.value,
        }
    }
}

impl From<&Mount> for pb::Mount {
    fn from(v: &Mount) -> Self {
        let kind = match v {
            Mount::Volume {
                source,
                target,
                read_only,
            } => pb::mount::Kind::Volume(pb::VolumeMount {
                source: source.clone(),
                target: target.clone(),
                read_only: *read_only,
            }),
            Mount::Bind {
                source,
                target,
                read_only,
            } => pb::mount::Kind::Bind(pb::BindMount {
                source: source.clone(),
                target: target.clone(),
                read_only: *read_only,
            }),
            Mount::Tmpfs { target, size } => pb::mount::Kind::Tmpfs(pb::TmpfsMount {
                target: target.clone(),
                size_bytes: size.map(|s| s.0),
            }),
        };
        Self { kind: Some(kind) }
    }
}

impl TryFrom<pb::Mount> for Mount {
    type Error = ConvertError;
    fn try_from(v: pb::Mount) -> Result<Self, ConvertError> {
        Ok(match required(v.kind, "kind")? {
            pb::mount::Kind::Volume(m) => Self::Volume {
                source: m.source,
                target: m.target,
                read_only: m.read_only,
            },
            pb::mount::Kind::Bind(m) => Self::Bind {
                source: m.source,
                target: m.target,
                read_only: m.read_only,
            },
            pb::mount::Kind::Tmpfs(m) => Self::Tmpfs {
                target: m.target,
                size: m.size_bytes.map(Bytes),
            },
        })
    }
}

impl From<&FileRef> for pb::FileRef {
    fn from(v: &FileRef) -> Self {
        Self {
            source: v.source.clone(),
            target: v.target.clone(),
            uid: v.uid,
            gid: v.gid,
            mode: v.mode,
        }
    }
}

impl From<pb::FileRef> for FileRef {
    fn from(v: pb::FileRef) -> Self {
        Self {
            source: v.source,
            target: v.target,
            uid: v.uid,
            gid: v.gid,
            mode: v.mode,
        }
    }
}

impl From<&Resources> for pb::Resources {
    fn from(v: &Resources) -> Self {
        Self {
            cpu_limit_milli: v.cpu_limit.map(|c| c.0),
            memory_limit_bytes: v.memory_limit.map(|m| m.0),
            cpu_reservation_milli: v.cpu_reservation.map(|c| c.0),
            memory_reservation_bytes: v.memory_reservation.map(|m| m.0),
            pids_limit: v.pids_limit,
        }
    }
}

impl From<pb::Resources> for Resources {
    fn from(v: pb::Resources) -> Self {
        Self {
            cpu_limit: v.cpu_limit_milli.map(MilliCpu),
            memory_limit: v.memory_limit_bytes.map(Bytes),
            cpu_reservation: v.cpu_reservation_milli.map(MilliCpu),
            memory_reservation: v.memory_reservation_bytes.map(Bytes),
            pids_limit: v.pids_limit,
        }
    }
}

impl From<&HealthSpec> for pb::HealthSpec {
    fn from(v: &HealthSpec) -> Self {
        Self {
            startup: v.startup.as_ref().map(Into::into),
            readiness: v.readiness.as_ref().map(Into::into),
            liveness: v.liveness.as_ref().map(Into::into),
        }
    }
}

impl TryFrom<pb::HealthSpec> for HealthSpec {
    type Error = ConvertError;
    fn try_from(v: pb::HealthSpec) -> Result<Self, ConvertError> {
        Ok(Self {
            startup: optional(v.startup, "startup")?,
            readiness: optional(v.readiness, "readiness")?,
            liveness: optional(v.liveness, "liveness")?,
        })
    }
}

impl From<&HealthCheck> for pb::HealthCheck {
    fn from(v: &HealthCheck) -> Self {
        Self {
            probe: Some((&v.probe).into()),
            interval_ms: v.interval.0,
            timeout_ms: v.timeout.0,
            retries: v.retries,
            start_period_ms: v.start_period.0,
        }
    }
}

impl TryFrom<pb::HealthCheck> for HealthCheck {
    type Error = ConvertError;
    fn try_from(v: pb::HealthCheck) -> Result<Self, ConvertError> {
        Ok(Self {
            probe: nested(v.probe, "probe")?,
            interval: Duration(v.interval_ms),
            timeout: Duration(v.timeout_ms),
            retries: v.retries,
            start_period: Duration(v.start_period_ms),
        })
    }
}

impl From<&HealthProbe> for pb::health_check::Probe {
    fn from(v: &HealthProbe) -> Self {
        match v {
            HealthProbe::Http {
                path,
                port,
                https,
                headers,
                status_min,
                status_max,
            } => Self::Http(pb::HttpProbe {
                path: path.clone(),
                port: u32::from(*port),
                https: *https,
                headers: headers
                    .iter()
                    .map(|(name, value)| pb::HttpHeader {
                        name: name.clone(),
                        value: value.clone(),
                    })
                    .collect(),
                status_min: u32::from(*status_min),
                status_max: u32::from(*status_max),
            }),
            HealthProbe::Tcp { port } => Self::Tcp(pb::TcpProbe {
                port: u32::from(*port),
            }),
            HealthProbe::Exec { command } => Self::Exec(pb::ExecProbe {
                command: command.clone(),
            }),
        }
    }
}

impl TryFrom<pb::health_check::Probe> for HealthProbe {
    type Error = ConvertError;
    fn try_from(v: pb::health_check::Probe) -> Result<Self, ConvertError> {
        use pb::health_check::Probe;
        Ok(match v {
            Probe::Http(h) => Self::Http {
                path: h.path,
                port: port(h.port, "http.port")?,
                https: h.https,
                headers: h.headers.into_iter().map(|h| (h.name, h.value)).collect(),
                status_min: port(h.status_min, "http.status_min")?,
                status_max: port(h.status_max, "http.status_max")?,
            },
            Probe::Tcp(t) => Self::Tcp {
                port: port(t.port, "tcp.port")?,
            },
            Probe::Exec(e) => Self::Exec { command: e.command },
        })
    }
}

impl From<&RestartPolicy> for pb::RestartPolicy {
    fn from(v: &RestartPolicy) -> Self {
        Self {
            condition: v.condition.number(),
            max_attempts: v.max_attempts,
            delay_ms: millis(v.delay),
            window_ms: millis(v.window),
        }
    }
}

impl TryFrom<pb::RestartPolicy> for RestartPolicy {
    type Error = ConvertError;
    fn try_from(v: pb::RestartPolicy) -> Result<Self, ConvertError> {
        Ok(Self {
            condition: WireEnum::read(v.condition, "condition")?,
            max_attempts: v.max_attempts,
            delay: v.delay_ms.map(Duration),
            window: v.window_ms.map(Duration),
        })
    }
}

impl From<&Placement> for pb::Placement {
    fn from(v: &Placement) -> Self {
        Self {
            constraints: v.constraints.clone(),
            spread: v.spread.clone(),
            max_per_node: v.max_per_node,
        }
    }
}

impl From<pb::Placement> for Placement {
    fn from(v: pb::Placement) -> Self {
        Self {
            constraints: v.constraints,
            spread: v.spread,
            max_per_node: v.max_per_node,
        }
    }
}

impl From<&PortMapping> for pb::PortMapping {
    fn from(v: &PortMapping) -> Self {
        Self {
            name: v.name.clone(),
            container_port: u32::from(v.container_port),
            host_port: u32::from(v.host_port),
            protocol: v.protocol.number(),
            publish_mode: v.publish_mode.number(),
        }
    }
}

impl TryFrom<pb::PortMapping> for PortMapping {
    type Error = ConvertError;
    fn try_from(v: pb::PortMapping) -> Result<Self, ConvertError> {
        Ok(Self {
            name: v.name,
            container_port: port(v.container_port, "container_port")?,
            host_port: port(v.host_port, "host_port")?,
            protocol: WireEnum::read(v.protocol, "protocol")?,
            publish_mode: WireEnum::read(v.publish_mode, "publish_mode")?,
        })
    }
}

impl From<&UpdateConfig> for pb::UpdateConfig {
    fn from(v: &UpdateConfig) -> Self {
        Self {
            strategy: v.strategy.number(),
            parallelism: v.parallelism,
            delay_ms: v.delay.0,
            failure_action: v.failure_action.number(),
            order: v.order.number(),
            max_surge: v.max_surge,
            max_unavailable: v.max_unavailable,
            monitor_ms: v.monitor.0,
            canary_steps: v.canary_steps.clone(),
            canary_window_ms: v.canary_window.0,
            blue_green_grace_ms: v.blue_green_grace.0,
            failure_threshold_percent: v.failure_threshold_percent,
        }
    }
}

impl TryFrom<pb::UpdateConfig> for UpdateConfig {
    type Error = ConvertError;
    fn try_from(v: pb::UpdateConfig) -> Result<Self, ConvertError> {
        Ok(Self {
            strategy: WireEnum::read(v.strategy, "strategy")?,
            parallelism: v.parallelism,
            delay: Duration(v.delay_ms),
            failure_action: WireEnum::read(v.failure_action, "failure_action")?,
            order: WireEnum::read(v.order, "order")?,
            max_surge: v.max_surge,
            max_unavailable: v.max_unavailable,
            monitor: Duration(v.monitor_ms),
            canary_steps: v.canary_steps,
            canary_window: Duration(v.canary_window_ms),
            blue_green_grace: Duration(v.blue_green_grace_ms),
            failure_threshold_percent: v.failure_threshold_percent,
        })
    }
}
