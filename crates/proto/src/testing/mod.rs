//! proptest strategies for every type of `warren-types`: any value that the type can hold, not only
//! valid ones. For property tests of codecs here and in other crates (feature `testing`).

mod spec;

pub use spec::{container_spec, mount, port_mapping, probe, service_spec, update_config};

use proptest::collection::{btree_map, vec};
use proptest::option::of;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use warren_types::{
    ActualState, Availability, Bytes, CaMaterial, Certificate, ClusterSettings, Config, Container,
    ContainerStatus, DesiredState, Duration, Event, EventKind, ExitInfo, HealthVerdict, Id128,
    Ingress, IngressPath, IngressRule, IngressTls, JoinToken, KeyEpoch, Liveness, MilliCpu,
    Network, Node, NodeId, NodeResources, NodeRole, PathType, Platform, RaftProfile, Revision,
    Role, Rollout, RolloutState, SealedData, Secret, Service, ServiceRevision, Slot, Timestamp,
    Volume,
};

/// Short text of any characters.
pub fn text() -> impl Strategy<Value = String> {
    prop_oneof![3 => "[a-z][a-z0-9-]{0,12}", 1 => "\\PC{0,12}"]
}

pub(super) fn texts() -> impl Strategy<Value = Vec<String>> {
    vec(text(), 0..4)
}

/// A small map of texts.
pub fn labels() -> impl Strategy<Value = BTreeMap<String, String>> {
    btree_map(text(), text(), 0..4)
}

/// A moment.
pub fn timestamp() -> impl Strategy<Value = Timestamp> {
    any::<u64>().prop_map(Timestamp)
}

pub(super) fn duration() -> impl Strategy<Value = Duration> {
    any::<u64>().prop_map(Duration)
}

pub(super) fn revision() -> impl Strategy<Value = Revision> {
    any::<u64>().prop_map(Revision)
}

pub(super) fn id() -> impl Strategy<Value = Id128> {
    any::<u128>().prop_map(Id128)
}

/// One of some values.
pub(super) fn pick<T: Copy + std::fmt::Debug + 'static>(
    values: &'static [T],
) -> impl Strategy<Value = T> {
    proptest::sample::select(values)
}

fn rollout() -> impl Strategy<Value = Rollout> {
    (
        any::<u32>(),
        any::<u32>(),
        pick(&[
            RolloutState::Updating,
            RolloutState::Paused,
            RolloutState::Completed,
            RolloutState::RollingBack,
            RolloutState::RolledBack,
        ]),
        text(),
        timestamp(),
        of(timestamp()),
        timestamp(),
        any::<u32>(),
    )
        .prop_map(
            |(from, to, state, message, started_at, finished_at, batch_at, failures)| Rollout {
                from,
                to,
                state,
                message,
                started_at,
                finished_at,
                batch_at,
                failures,
            },
        )
}

/// A service. Its spec is often that of its revision, as in life.
pub fn service() -> impl Strategy<Value = Service> {
    let revisions = vec(
        (any::<u8>(), service_spec(), timestamp(), text()).prop_map(
            |(number, spec, created_at, actor)| ServiceRevision {
                number: u32::from(number),
                spec: Arc::new(spec),
                created_at,
                actor,
            },
        ),
        0..3,
    );
    (
        id(),
        of(service_spec()),
        any::<u8>(),
        revisions,
        of(rollout()),
        any::<bool>(),
        (timestamp(), timestamp(), revision()),
    )
        .prop_map(|(id, own, number, revisions, rollout, deleting, times)| {
            let last = revisions.last().cloned();
            let revision = last.as_ref().map_or(u32::from(number), |r| r.number);
            let spec = own
                .map(Arc::new)
                .or(last.map(|r| r.spec))
                .unwrap_or_default();
            Service {
                id: warren_types::ServiceId(id),
                spec,
                revision,
                revisions,
                rollout,
                deleting,
                created_at: times.0,
                updated_at: times.1,
                version: times.2,
            }
        })
}

/// A place in a service.
pub fn slot() -> impl Strategy<Value = Slot> {
    prop_oneof![
        any::<u32>().prop_map(Slot::Replica),
        id().prop_map(|n| Slot::Node(NodeId(n)))
    ]
}

/// What a node reports of a container.
pub fn container_status() -> impl Strategy<Value = ContainerStatus> {
    let exit = (any::<i32>(), of(any::<i32>()), any::<bool>())
        .prop_map(|(code, signal, oom)| ExitInfo { code, signal, oom });
    (
        any::<u32>(),
        pick(&ActualState::ALL),
        text(),
        of(any::<u32>().prop_map(Ipv4Addr::from)),
        of(any::<u32>()),
        of(timestamp()),
        of(timestamp()),
        of(exit),
        pick(&[
            HealthVerdict::Unknown,
            HealthVerdict::Starting,
            HealthVerdict::Healthy,
            HealthVerdict::Unhealthy,
        ]),
    )
        .prop_map(
            |(attempt, state, reason, address, pid, started_at, finished_at, exit, health)| {
                ContainerStatus {
                    attempt,
                    state,
                    reason,
                    address,
                    pid,
                    started_at,
                    finished_at,
                    exit,
                    health,
                }
            },
        )
}

/// A container record.
pub fn container() -> impl Strategy<Value = Container> {
    (
        (id(), id(), any::<u32>(), slot(), of(id())),
        pick(&[DesiredState::Running, DesiredState::Shutdown]),
        container_status(),
        (timestamp(), timestamp(), revision()),
    )
        .prop_map(|(place, desired, status, times)| Container {
            id: warren_types::ContainerId(place.0),
            service: warren_types::ServiceId(place.1),
            service_revision: place.2,
            slot: place.3,
            node: place.4.map(NodeId),
            desired,
            status,
            created_at: times.0,
            updated_at: times.1,
            version: times.2,
        })
}

/// A node.
pub fn node() -> impl Strategy<Value = Node> {
    let names = (text(), text(), text(), text(), text(), text(), text());
    let states = (
        pick(&[NodeRole::Manager, NodeRole::Worker, NodeRole::Hybrid]),
        pick(&[
            Availability::Active,
            Availability::Pause,
            Availability::Drain,
        ]),
        pick(&[Liveness::Unknown, Liveness::Ready, Liveness::Down]),
    );
    let machine = (
        (text(), text()).prop_map(|(os, arch)| Platform { os, arch }),
        (any::<u32>(), any::<u64>(), any::<u64>()).prop_map(|(cpu, memory, disk)| NodeResources {
            cpu: MilliCpu(cpu),
            memory: Bytes(memory),
            disk: Bytes(disk),
        }),
    );
    (
        id(),
        names,
        labels(),
        states,
        machine,
        (timestamp(), timestamp(), revision()),
    )
        .prop_map(|(id, names, labels, states, machine, times)| Node {
            id: NodeId(id),
            name: names.0,
            address: names.1,
            hostname: names.2,
            reason: names.3,
            subnet: names.4,
            version_text: names.5,
            certificate_root: names.6,
            role: states.0,
            availability: states.1,
            liveness: states.2,
            labels,
            platform: machine.0,
            resources: machine.1,
            created_at: times.0,
            updated_at: times.1,
            version: times.2,
        })
}

/// Sealed data.
pub fn sealed() -> impl Strategy<Value = SealedData> {
    (any::<u32>(), any::<[u8; 12]>(), vec(any::<u8>(), 0..40)).prop_map(
        |(epoch, nonce, ciphertext)| SealedData {
            epoch,
            nonce,
            ciphertext,
        },
    )
}

/// A secret.
pub fn secret() -> impl Strategy<Value = Secret> {
    (
        id(),
        text(),
        labels(),
        sealed(),
        any::<u64>(),
        (timestamp(), timestamp(), revision()),
    )
        .prop_map(|(id, name, labels, data, size, times)| Secret {
            id: warren_types::SecretId(id),
            name,
            labels,
            data,
            size,
            created_at: times.0,
            updated_at: times.1,
            version: times.2,
        })
}

/// A config.
pub fn config() -> impl Strategy<Value = Config> {
    (
        id(),
        text(),
        labels(),
        vec(any::<u8>(), 0..40),
        (timestamp(), timestamp(), revision()),
    )
        .prop_map(|(id, name, labels, data, times)| Config {
            id: warren_types::ConfigId(id),
            name,
            labels,
            data,
            created_at: times.0,
            updated_at: times.1,
            version: times.2,
        })
}

/// A volume.
pub fn volume() -> impl Strategy<Value = Volume> {
    (
        id(),
        text(),
        text(),
        labels(),
        labels(),
        of(id()),
        text(),
        (timestamp(), revision()),
    )
        .prop_map(
            |(id, name, driver, driver_opts, labels, node, mount_path, times)| Volume {
                id: warren_types::VolumeId(id),
                name,
                driver,
                driver_opts,
                labels,
                node: node.map(NodeId),
                mount_path,
                created_at: times.0,
                version: times.1,
            },
        )
}

/// A network.
pub fn network() -> impl Strategy<Value = Network> {
    (
        id(),
        (text(), text(), text(), text()),
        any::<bool>(),
        labels(),
        (timestamp(), revision()),
    )
        .prop_map(|(id, names, internal, labels, times)| Network {
            id: warren_types::NetworkId(id),
            name: names.0,
            driver: names.1,
            subnet: names.2,
            gateway: names.3,
            internal,
            labels,
            created_at: times.0,
            version: times.1,
        })
}

/// An ingress.
pub fn ingress() -> impl Strategy<Value = Ingress> {
    let path = (
        text(),
        pick(&[PathType::Prefix, PathType::Exact]),
        text(),
        any::<u16>(),
    )
        .prop_map(|(path, path_type, service, port)| IngressPath {
            path,
            path_type,
            service,
            port,
        });
    let rule = (text(), vec(path, 0..3)).prop_map(|(host, paths)| IngressRule { host, paths });
    let tls = (any::<bool>(), text(), texts(), any::<bool>(), text()).prop_map(
        |(enabled, secret_name, hosts, auto_tls, email)| IngressTls {
            enabled,
            secret_name,
            hosts,
            auto_tls,
            email,
        },
    );
    (
        id(),
        text(),
        vec(rule, 0..3),
        of(tls),
        labels(),
        (timestamp(), timestamp(), revision()),
    )
        .prop_map(|(id, name, rules, tls, labels, times)| Ingress {
            id: warren_types::IngressId(id),
            name,
            rules,
            tls,
            labels,
            created_at: times.0,
            updated_at: times.1,
            version: times.2,
        })
}

/// A TLS certificate.
pub fn certificate() -> impl Strategy<Value = Certificate> {
    (
        id(),
        (text(), text(), text()),
        texts(),
        sealed(),
        any::<bool>(),
        labels(),
        (
            timestamp(),
            timestamp(),
            timestamp(),
            timestamp(),
            revision(),
        ),
    )
        .prop_map(
            |(id, names, hosts, key, auto_renew, labels, times)| Certificate {
                id: warren_types::CertificateId(id),
                name: names.0,
                cert_pem: names.1,
                issuer: names.2,
                hosts,
                key,
                auto_renew,
                labels,
                not_before: times.0,
                not_after: times.1,
                created_at: times.2,
                updated_at: times.3,
                version: times.4,
            },
        )
}

/// Cluster settings.
pub fn cluster_settings() -> impl Strategy<Value = ClusterSettings> {
    let ca = (texts(), text(), sealed(), of(timestamp())).prop_map(|parts| CaMaterial {
        roots_pem: parts.0,
        cross_pem: parts.1,
        key: parts.2,
        rotation_started: parts.3,
    });
    let epoch = (any::<u32>(), timestamp())
        .prop_map(|(number, created_at)| KeyEpoch { number, created_at });
    (
        (id(), text(), ca, vec(epoch, 0..3), text(), any::<u8>()),
        (duration(), duration(), any::<u32>()),
        (any::<u64>(), any::<u64>(), any::<u64>(), any::<bool>()),
        (timestamp(), revision()),
    )
        .prop_map(|(names, spans, sizes, times)| {
            let ca_key = names.2.key.clone();
            ClusterSettings {
                id: warren_types::ClusterId(names.0),
                name: names.1,
                ca: names.2,
                key_epochs: names.3,
                container_pool: names.4,
                node_prefix_len: names.5,
                heartbeat: spans.0,
                node_down_after: spans.1,
                history_per_slot: spans.2,
                snapshot_entries: sizes.0,
                snapshot_bytes: sizes.1,
                log_bytes_max: sizes.2,
                raft_profile: RaftProfile::ALL[usize::from(sizes.0.is_multiple_of(2))],
                auto_lock: sizes.3,
                unlock_key: if sizes.3 {
                    ca_key
                } else {
                    SealedData::default()
                },
                created_at: times.0,
                version: times.1,
            }
        })
}

/// A join token.
pub fn join_token() -> impl Strategy<Value = JoinToken> {
    (
        id(),
        pick(&[
            Role::None,
            Role::Worker,
            Role::Manager,
            Role::Viewer,
            Role::Operator,
            Role::Admin,
        ]),
        any::<[u8; 32]>(),
        of(any::<u32>()),
        any::<bool>(),
        (timestamp(), timestamp(), revision()),
    )
        .prop_map(
            |(id, role, secret_hash, uses_left, revoked, times)| JoinToken {
                id: warren_types::TokenId(id),
                role,
                secret_hash,
                uses_left,
                revoked,
                created_at: times.0,
                expires_at: times.1,
                version: times.2,
            },
        )
}

/// An event.
pub fn event() -> impl Strategy<Value = Event> {
    (
        id(),
        pick(EventKind::ALL),
        timestamp(),
        revision(),
        text(),
        labels(),
    )
        .prop_map(|(id, kind, time, revision, message, metadata)| Event {
            id: warren_types::EventId(id),
            kind,
            time,
            revision,
            message,
            metadata,
        })
}
