//! Strategies of service specs.

use super::{duration, labels, pick, text, texts};
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use warren_types::{
    Bytes, ContainerSpec, DeployStrategy, EnvVar, FailureAction, FileRef, HealthCheck, HealthProbe,
    HealthSpec, MilliCpu, Mode, Mount, Placement, PortMapping, Protocol, PublishMode, Resources,
    RestartCondition, RestartPolicy, ServiceSpec, UpdateConfig, UpdateOrder,
};

fn env_var() -> impl Strategy<Value = EnvVar> {
    (text(), text()).prop_map(|(name, value)| EnvVar { name, value })
}

/// A mount of any kind.
pub fn mount() -> impl Strategy<Value = Mount> {
    prop_oneof![
        (text(), text(), any::<bool>()).prop_map(|(source, target, read_only)| Mount::Volume {
            source,
            target,
            read_only
        }),
        (text(), text(), any::<bool>()).prop_map(|(source, target, read_only)| Mount::Bind {
            source,
            target,
            read_only
        }),
        (text(), of(any::<u64>().prop_map(Bytes)))
            .prop_map(|(target, size)| Mount::Tmpfs { target, size }),
    ]
}

fn file_ref() -> impl Strategy<Value = FileRef> {
    (
        text(),
        of(text()),
        any::<u32>(),
        any::<u32>(),
        of(any::<u32>()),
    )
        .prop_map(|(source, target, uid, gid, mode)| FileRef {
            source,
            target,
            uid,
            gid,
            mode,
        })
}

fn resources() -> impl Strategy<Value = Resources> {
    (
        of(any::<u32>()),
        of(any::<u64>()),
        of(any::<u32>()),
        of(any::<u64>()),
        of(any::<u32>()),
    )
        .prop_map(
            |(cpu, memory, cpu_kept, memory_kept, pids_limit)| Resources {
                cpu_limit: cpu.map(MilliCpu),
                memory_limit: memory.map(Bytes),
                cpu_reservation: cpu_kept.map(MilliCpu),
                memory_reservation: memory_kept.map(Bytes),
                pids_limit,
            },
        )
}

/// A probe of any kind.
pub fn probe() -> impl Strategy<Value = HealthProbe> {
    prop_oneof![
        (
            text(),
            any::<u16>(),
            any::<bool>(),
            vec((text(), text()), 0..3),
            any::<u16>(),
            any::<u16>()
        )
            .prop_map(|(path, port, https, headers, status_min, status_max)| {
                HealthProbe::Http {
                    path,
                    port,
                    https,
                    headers,
                    status_min,
                    status_max,
                }
            }),
        any::<u16>().prop_map(|port| HealthProbe::Tcp { port }),
        texts().prop_map(|command| HealthProbe::Exec { command }),
    ]
}

fn health_check() -> impl Strategy<Value = HealthCheck> {
    (probe(), duration(), duration(), any::<u32>(), duration()).prop_map(
        |(probe, interval, timeout, retries, start_period)| HealthCheck {
            probe,
            interval,
            timeout,
            retries,
            start_period,
        },
    )
}

fn health() -> impl Strategy<Value = HealthSpec> {
    (of(health_check()), of(health_check()), of(health_check())).prop_map(
        |(startup, readiness, liveness)| HealthSpec {
            startup,
            readiness,
            liveness,
        },
    )
}

fn restart() -> impl Strategy<Value = RestartPolicy> {
    (
        pick(&[
            RestartCondition::None,
            RestartCondition::OnFailure,
            RestartCondition::Any,
        ]),
        any::<u32>(),
        of(duration()),
        of(duration()),
    )
        .prop_map(|(condition, max_attempts, delay, window)| RestartPolicy {
            condition,
            max_attempts,
            delay,
            window,
        })
}

/// A container spec.
pub fn container_spec() -> impl Strategy<Value = ContainerSpec> {
    let image = (text(), of(text()), texts(), texts(), vec(env_var(), 0..4));
    let process = (of(text()), of(text()), of(text()), labels(), of(text()));
    let files = (
        vec(mount(), 0..4),
        vec(file_ref(), 0..3),
        vec(file_ref(), 0..3),
    );
    let rules = (
        resources(),
        any::<bool>(),
        texts(),
        texts(),
        health(),
        restart(),
        of(duration()),
    );
    (image, process, files, rules).prop_map(|(image, process, files, rules)| ContainerSpec {
        image: image.0,
        image_digest: image.1,
        command: image.2,
        args: image.3,
        env: image.4,
        working_dir: process.0,
        user: process.1,
        hostname: process.2,
        labels: process.3,
        stop_signal: process.4,
        mounts: files.0,
        secrets: files.1,
        configs: files.2,
        resources: rules.0,
        read_only_root: rules.1,
        cap_add: rules.2,
        cap_drop: rules.3,
        health: rules.4,
        restart: rules.5,
        stop_grace: rules.6,
    })
}

/// A port mapping.
pub fn port_mapping() -> impl Strategy<Value = PortMapping> {
    (
        of(text()),
        any::<u16>(),
        any::<u16>(),
        pick(&[Protocol::Tcp, Protocol::Udp]),
        pick(&[PublishMode::Host, PublishMode::Ingress]),
    )
        .prop_map(
            |(name, container_port, host_port, protocol, publish_mode)| PortMapping {
                name,
                container_port,
                host_port,
                protocol,
                publish_mode,
            },
        )
}

/// Update settings.
pub fn update_config() -> impl Strategy<Value = UpdateConfig> {
    let ways = (
        pick(&[
            DeployStrategy::Rolling,
            DeployStrategy::BlueGreen,
            DeployStrategy::Canary,
        ]),
        pick(&[
            FailureAction::Pause,
            FailureAction::Continue,
            FailureAction::Rollback,
        ]),
        pick(&[UpdateOrder::StopFirst, UpdateOrder::StartFirst]),
    );
    let numbers = (any::<u32>(), any::<u32>(), any::<u32>(), any::<u32>());
    let spans = (duration(), duration(), duration(), duration());
    (ways, numbers, spans, vec(any::<u32>(), 0..5)).prop_map(|(ways, numbers, spans, steps)| {
        UpdateConfig {
            strategy: ways.0,
            failure_action: ways.1,
            order: ways.2,
            parallelism: numbers.0,
            max_surge: numbers.1,
            max_unavailable: numbers.2,
            failure_threshold_percent: numbers.3,
            delay: spans.0,
            monitor: spans.1,
            canary_window: spans.2,
            blue_green_grace: spans.3,
            canary_steps: steps,
        }
    })
}

/// A service spec.
pub fn service_spec() -> impl Strategy<Value = ServiceSpec> {
    let mode = prop_oneof![
        any::<u32>().prop_map(|replicas| Mode::Replicated { replicas }),
        Just(Mode::Global)
    ];
    let placement =
        (texts(), of(text()), any::<u32>()).prop_map(|(constraints, spread, max_per_node)| {
            Placement {
                constraints,
                spread,
                max_per_node,
            }
        });
    (
        text(),
        labels(),
        mode,
        container_spec(),
        vec(port_mapping(), 0..4),
        texts(),
        placement,
        update_config(),
    )
        .prop_map(
            |(name, labels, mode, container, ports, networks, placement, update)| ServiceSpec {
                name,
                labels,
                mode,
                container,
                ports,
                networks,
                placement,
                update,
            },
        )
}
