//! Messages of the wire as the commands' views.

use crate::api::{
    ClusterView, ContainerView, EventView, ImageDetails, ImageView, LogLine, MemberView,
    NewTokenView, NodeView, RolloutView, SecretView, ServiceView, SettingsView, StatusView, Time,
    TokenView, VolumeView,
};
use crate::error::{CliError, Result};
use warren_client::v1;
use warren_types::{PortMapping, Protocol, PublishMode, RaftProfile, Timestamp};

/// Seconds and nanoseconds since 1970, as the wire has them.
macro_rules! time {
    ($at:expr) => {
        match $at {
            Some(at) => from_parts(at.seconds, at.nanos),
            None => Time(None),
        }
    };
}

fn from_parts(seconds: i64, nanos: i32) -> Time {
    let (Ok(seconds), Ok(nanos)) = (u64::try_from(seconds), u64::try_from(nanos)) else {
        return Time(None);
    };
    Time(Some(Timestamp(
        seconds
            .saturating_mul(1000)
            .saturating_add(nanos / 1_000_000),
    )))
}

/// The answer lacks what it must have.
pub(super) fn missing(what: &str) -> CliError {
    CliError::general(format!("the manager's answer has no {what}"))
        .remedy("client and manager may be of different versions; compare `warren version`")
}

fn platform(os: &str, arch: &str) -> String {
    if os.is_empty() && arch.is_empty() {
        String::new()
    } else {
        format!("{os}/{arch}")
    }
}

fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

pub(super) fn node(n: v1::Node) -> NodeView {
    let resources = n.resources.unwrap_or_default();
    NodeView {
        name: if n.name.is_empty() {
            n.id.clone()
        } else {
            n.name
        },
        id: n.id,
        hostname: n.hostname,
        role: n.role,
        status: n.status,
        availability: n.availability,
        reason: n.reason,
        address: n.address,
        cpu_milli: n.cpu_milli,
        memory_bytes: unsigned(resources.memory_bytes),
        disk_bytes: unsigned(resources.disk_bytes),
        reserved_cpu_milli: n.reserved_cpu_milli,
        reserved_memory_bytes: n.reserved_memory_bytes,
        containers: n.container_count,
        subnet: n.subnet,
        platform: platform(&n.os, &n.arch),
        program_version: n.program_version,
        labels: n.labels,
        created_at: time!(n.created_at),
        version: n.version,
    }
}

pub(super) fn service(s: v1::Service) -> Result<ServiceView> {
    let spec = s.spec.ok_or_else(|| missing("service specification"))?;
    let spec = spec
        .try_into()
        .map_err(|e| CliError::general(format!("service {}: the manager's answer: {e}", s.name)))?;
    let rollout = s.rollout.map(|r| RolloutView {
        from: r.from,
        to: r.to,
        state: r
            .state()
            .as_str_name()
            .trim_start_matches("ROLLOUT_STATE_")
            .to_ascii_lowercase()
            .replace('_', "-"),
        message: r.message,
    });
    Ok(ServiceView {
        id: s.id,
        spec,
        desired: s.desired_count,
        running: s.running_count,
        ready: s.ready_count,
        reason: s.reason,
        revision: s.revision,
        revisions: s.revisions.iter().map(|r| r.number).collect(),
        rollout,
        deleting: s.deleting,
        created_at: time!(s.created_at),
        updated_at: time!(s.updated_at),
        version: s.version,
    })
}

fn port(p: v1::PortMapping) -> Result<PortMapping> {
    let number = |n: i32| {
        u16::try_from(n)
            .map_err(|_| CliError::general(format!("the manager's answer: {n} is no port")))
    };
    Ok(PortMapping {
        publish_mode: match p.publish_mode() {
            v1::port_mapping::PublishMode::Host => PublishMode::Host,
            v1::port_mapping::PublishMode::Ingress => PublishMode::Ingress,
        },
        container_port: number(p.container_port)?,
        host_port: number(p.host_port)?,
        protocol: if p.protocol == "udp" {
            Protocol::Udp
        } else {
            Protocol::Tcp
        },
        name: Some(p.name).filter(|n| !n.is_empty()),
    })
}

pub(super) fn container(c: v1::Container) -> Result<ContainerView> {
    Ok(ContainerView {
        name: if c.name.is_empty() {
            c.id.clone()
        } else {
            c.name
        },
        id: c.id,
        service_id: c.service_id,
        service: c.service_name,
        slot: c.slot,
        revision: c.service_revision,
        node_id: c.node_id,
        node: c.node_name,
        desired: c.desired_state,
        state: if c.state.is_empty() {
            c.actual_state
        } else {
            c.state
        },
        reason: if c.reason.is_empty() {
            c.error
        } else {
            c.reason
        },
        health: c.health,
        image: c.image,
        address: c.address,
        ports: c.ports.into_iter().map(port).collect::<Result<_>>()?,
        pid: (c.pid != 0).then_some(c.pid),
        exit: c.exit.map(Into::into),
        restarts: c.restarts,
        created_at: time!(c.created_at),
        updated_at: time!(c.updated_at),
        started_at: time!(c.started_at),
        finished_at: time!(c.finished_at),
    })
}

pub(super) fn secret(s: v1::Secret) -> SecretView {
    SecretView {
        id: s.id,
        name: s.name,
        size: s.size,
        labels: s.labels,
        used_by: s.used_by,
        created_at: time!(s.created_at),
        updated_at: time!(s.updated_at),
        version: s.version,
    }
}

pub(super) fn volume(v: v1::Volume) -> VolumeView {
    VolumeView {
        id: v.id,
        name: v.name,
        driver: v.driver,
        driver_opts: v.driver_opts,
        labels: v.labels,
        node: if v.node_name.is_empty() {
            v.node_id
        } else {
            v.node_name
        },
        mount_path: v.mount_path,
        used_by: v.used_by,
        created_at: time!(v.created_at),
        version: v.version,
    }
}

pub(super) fn image(i: v1::Image) -> ImageView {
    ImageView {
        references: i.references,
        digest: i.digest,
        size_bytes: i.size_bytes,
        layers: i.layers,
        platform: platform(&i.os, &i.arch),
        in_use: i.in_use,
        node: if i.node_name.is_empty() {
            i.node_id
        } else {
            i.node_name
        },
        created_at: time!(i.created_at),
    }
}

pub(super) fn image_details(d: v1::ImageDetails) -> ImageDetails {
    ImageDetails {
        image: image(d.image.unwrap_or_default()),
        entrypoint: d.entrypoint,
        cmd: d.cmd,
        env: d.env,
        working_dir: d.working_dir,
        user: d.user,
        stop_signal: d.stop_signal,
        exposed_ports: d.exposed_ports,
        volumes: d.volumes,
        labels: d.labels,
        layer_digests: d.layer_digests,
    }
}

pub(super) fn cluster(c: v1::GetClusterInfoResponse) -> ClusterView {
    ClusterView {
        id: c.cluster_id,
        name: c.cluster_name,
        leader_id: c.leader_id,
        leader: c.leader_name,
        leader_address: c.leader_addr,
        quorum: c.quorum,
        managers: c.managers,
        nodes: c.nodes,
        nodes_ready: c.nodes_ready,
        services: c.services,
        containers: c.containers,
        containers_running: c.containers_running,
        revision: c.revision,
        term: c.term,
        ca_fingerprint: c.ca_fingerprint,
        members: c.servers.into_iter().map(member).collect(),
        voters: c.voters,
        voters_healthy: c.voters_healthy,
        quorum_needed: c.quorum_needed,
        failures_tolerated: c.failures_tolerated,
        leader_changes: c.leader_changes,
        log_entries: c.log_entries,
        log_bytes: c.log_bytes,
        snapshot_index: c.snapshot_index,
        snapshot_bytes: c.snapshot_bytes,
        applied_index: c.applied_index,
        committed_index: c.committed_index,
        commit_p99_micros: micros(c.commit_p99_seconds),
        warnings: c.warnings,
        answered_by: c.answered_by,
        settings: settings(c.settings.unwrap_or_default()),
        ca_rotation: c.ca_rotation,
        ca_rotation_waiting: c.ca_rotation_waiting,
        created_at: time!(c.created_at),
    }
}

fn member(s: v1::ClusterServer) -> MemberView {
    MemberView {
        id: s.id,
        address: s.address,
        suffrage: s.suffrage,
        name: s.name,
        leader: s.leader,
        reachable: s.reachable,
        last_contact_ms: s.last_contact_ms,
        lag: s.lag,
        role: s.role,
        version: s.version,
        raft_profile: RaftProfile::from_name(&s.raft_profile),
    }
}

/// Whole microseconds; nothing measured is `None`.
fn micros(seconds: f64) -> Option<u64> {
    let span = std::time::Duration::try_from_secs_f64(seconds).ok()?;
    u64::try_from(span.as_micros()).ok().filter(|m| *m > 0)
}

pub(super) fn settings(s: v1::ClusterSettings) -> SettingsView {
    SettingsView {
        snapshot_entries: s.snapshot_entries,
        snapshot_bytes: s.snapshot_bytes,
        log_bytes_max: s.log_bytes_max,
        heartbeat_ms: s.heartbeat_ms,
        node_down_after_ms: s.node_down_after_ms,
        raft_profile: RaftProfile::from_name(&s.raft_profile).unwrap_or_default(),
        auto_lock: s.auto_lock,
        data_key_epoch: s.data_key_epoch,
    }
}

pub(super) fn new_token(t: v1::GenerateJoinTokenResponse) -> NewTokenView {
    NewTokenView {
        id: t.token_id,
        token: t.token,
        role: t.role,
        expires_at: time!(t.expires_at),
    }
}

pub(super) fn token(t: v1::JoinTokenInfo) -> TokenView {
    TokenView {
        id: t.id,
        role: t.role,
        state: t.state,
        uses_left: t.uses_left,
        created_at: time!(t.created_at),
        expires_at: time!(t.expires_at),
    }
}

pub(super) fn status(s: v1::GetStatusResponse) -> StatusView {
    StatusView {
        version: s.version,
        node_id: s.node_id,
        node: s.node_name,
        cluster_id: s.cluster_id,
        role: s.role,
        ready: s.ready,
        leader: s.leader,
        reason: s.reason,
        revision: s.revision,
        data_dir: s.data_dir,
        api_address: s.api_address,
        pid: s.pid,
        started_at: time!(s.started_at),
        locked: s.locked,
        quorum: s.quorum,
        removed: s.removed,
    }
}

pub(super) fn event(e: v1::Event) -> EventView {
    EventView {
        id: e.id,
        kind: e.r#type,
        time: time!(e.timestamp),
        revision: e.revision,
        message: e.message,
        metadata: e.metadata,
    }
}

pub(super) fn log_line(l: v1::LogEntry) -> LogLine {
    LogLine {
        container_id: l.container_id,
        container: l.container_name,
        time: time!(l.time),
        // Notices of the orchestrator itself are talk too.
        stderr: l.stream != "stdout",
        data: l.data,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use warren_types::{Rollout, RolloutState, ServiceSpec};

    #[test]
    fn a_service_keeps_its_specification_and_rollout() {
        let spec = ServiceSpec {
            name: "web".to_owned(),
            ..ServiceSpec::default()
        };
        for (state, text) in [
            (RolloutState::Updating, "updating"),
            (RolloutState::Paused, "paused"),
            (RolloutState::Completed, "completed"),
            (RolloutState::RollingBack, "rolling-back"),
            (RolloutState::RolledBack, "rolled-back"),
        ] {
            let rollout = Rollout {
                from: 1,
                to: 2,
                state,
                message: "why".to_owned(),
                started_at: Timestamp(0),
                finished_at: None,
                batch_at: Timestamp(0),
                failures: 0,
            };
            let message = v1::Service {
                spec: Some((&spec).into()),
                rollout: Some((&rollout).into()),
                ..Default::default()
            };
            let view = service(message).unwrap();
            assert_eq!(view.spec, spec);
            let rollout = view.rollout.unwrap();
            assert_eq!(
                (rollout.state.as_str(), rollout.message.as_str()),
                (text, "why")
            );
        }
        assert!(service(v1::Service::default()).is_err());
    }

    #[test]
    fn times_are_milliseconds_and_before_1970_nothing() {
        assert_eq!(from_parts(5, 7_000_000), Time(Some(Timestamp(5007))));
        assert_eq!(from_parts(-1, 0), Time(None));
        assert_eq!(from_parts(1, -1), Time(None));
    }
}
