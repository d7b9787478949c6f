//! Nodes, containers, secrets, volumes and events → `warren.v1`.

use super::api_service::{env_to_api, stop_timeout, volumes_to_api};
use super::api_spec::health_to_api;
use super::{ConvertError, timestamp_from_api, timestamp_to_api};
use crate::v1;
use std::sync::Arc;
use warren_types::{
    ActualState, Availability, Bytes, Container, Event, EventKind, HealthVerdict, Liveness,
    MilliCpu, Node, Revision, Secret, ServiceSpec, Slot, Timestamp, Volume,
};

/// A node with what only the manager's memory knows.
#[derive(Debug, Clone)]
pub struct NodeView {
    /// The record.
    pub node: Arc<Node>,
    /// Last sign of life.
    pub last_heartbeat: Option<Timestamp>,
    /// CPU kept for its containers.
    pub reserved_cpu: MilliCpu,
    /// Memory kept for its containers.
    pub reserved_memory: Bytes,
    /// Live containers placed on it.
    pub containers: u32,
}

/// A container with the names it refers to.
#[derive(Debug, Clone)]
pub struct ContainerView {
    /// The record.
    pub container: Arc<Container>,
    /// Name of its service.
    pub service_name: String,
    /// Spec of its revision of the service, while that is kept.
    pub spec: Option<Arc<ServiceSpec>>,
    /// Name of its node; empty when not placed.
    pub node_name: String,
}

impl ContainerView {
    /// Name in words: service and slot (`web.2`), or service and node of a global service.
    #[must_use]
    pub fn name(&self) -> String {
        match self.container.slot {
            Slot::Replica(n) => format!("{}.{n}", self.service_name),
            Slot::Node(id) if self.node_name.is_empty() => format!("{}.{id}", self.service_name),
            Slot::Node(_) => format!("{}.{}", self.service_name, self.node_name),
        }
    }
}

/// Name of an availability.
#[must_use]
pub const fn availability_text(availability: Availability) -> &'static str {
    match availability {
        Availability::Active => "active",
        Availability::Pause => "pause",
        Availability::Drain => "drain",
    }
}

/// The availability with this name.
///
/// # Errors
/// [`ConvertError`] for any other word.
pub fn availability_from_text(text: &str) -> Result<Availability, ConvertError> {
    match text {
        "active" => Ok(Availability::Active),
        "pause" => Ok(Availability::Pause),
        "drain" => Ok(Availability::Drain),
        other => Err(ConvertError::new(
            "availability",
            format!("{other:?} is none of active, pause, drain"),
        )),
    }
}

const fn liveness_text(liveness: Liveness) -> &'static str {
    match liveness {
        Liveness::Unknown => "unknown",
        Liveness::Ready => "ready",
        Liveness::Down => "down",
    }
}

const fn health_text(health: HealthVerdict) -> &'static str {
    match health {
        HealthVerdict::Unknown => "unknown",
        HealthVerdict::Starting => "starting",
        HealthVerdict::Healthy => "healthy",
        HealthVerdict::Unhealthy => "unhealthy",
    }
}

/// A node for the wire.
#[must_use]
pub fn node_to_api(view: &NodeView) -> v1::Node {
    let node = &view.node;
    let signed = |bytes: Bytes| i64::try_from(bytes.0).unwrap_or(i64::MAX);
    v1::Node {
        id: node.id.to_string(),
        role: node.role.name().to_owned(),
        address: node.address.clone(),
        overlay_ip: String::new(),
        resources: Some(v1::NodeResources {
            cpu_cores: i64::from(node.resources.cpu.0.div_ceil(1000)),
            memory_bytes: signed(node.resources.memory),
            disk_bytes: signed(node.resources.disk),
        }),
        status: node.legacy_status().to_owned(),
        last_heartbeat: view.last_heartbeat.map(timestamp_to_api),
        created_at: Some(timestamp_to_api(node.created_at)),
        labels: node.labels.clone(),
        name: node.name.clone(),
        hostname: node.hostname.clone(),
        availability: availability_text(node.availability).to_owned(),
        os: node.platform.os.clone(),
        arch: node.platform.arch.clone(),
        subnet: node.subnet.clone(),
        reason: node.reason.clone(),
        version: node.version.0,
        program_version: node.version_text.clone(),
        cpu_milli: node.resources.cpu.0,
        reserved_cpu_milli: view.reserved_cpu.0,
        reserved_memory_bytes: view.reserved_memory.0,
        container_count: view.containers,
        updated_at: Some(timestamp_to_api(node.updated_at)),
        liveness: liveness_text(node.liveness).to_owned(),
    }
}

/// A container for the wire.
#[must_use]
pub fn container_to_api(view: &ContainerView) -> v1::Container {
    let c = &view.container;
    let status = &c.status;
    let failed = matches!(
        status.state,
        ActualState::Failed | ActualState::Rejected | ActualState::Lost
    );
    let mut out = v1::Container {
        id: c.id.to_string(),
        service_id: c.service.to_string(),
        service_name: view.service_name.clone(),
        node_id: c.node.map(|n| n.to_string()).unwrap_or_default(),
        runtime_container_id: c.id.to_string(),
        desired_state: c.desired.to_string(),
        actual_state: status.state.legacy_name().to_owned(),
        created_at: Some(timestamp_to_api(c.created_at)),
        updated_at: Some(timestamp_to_api(status.started_at.unwrap_or(c.created_at))),
        error: if failed {
            status.reason.clone()
        } else {
            String::new()
        },
        state: status.state.name().to_owned(),
        reason: status.reason.clone(),
        attempt: status.attempt,
        address: status.address.map(|a| a.to_string()).unwrap_or_default(),
        pid: status.pid.unwrap_or(0),
        exit: status.exit.as_ref().map(Into::into),
        slot: match c.slot {
            Slot::Replica(n) => n,
            Slot::Node(_) => 0,
        },
        node_name: view.node_name.clone(),
        service_revision: c.service_revision,
        started_at: status.started_at.map(timestamp_to_api),
        finished_at: status.finished_at.map(timestamp_to_api),
        health: health_text(status.health).to_owned(),
        restarts: status.attempt.saturating_sub(1),
        version: c.version.0,
        name: view.name(),
        ..v1::Container::default()
    };
    if let Some(spec) = &view.spec {
        fill_from_spec(&mut out, spec);
    }
    out
}

fn fill_from_spec(out: &mut v1::Container, spec: &ServiceSpec) {
    let container = &spec.container;
    out.image.clone_from(&container.image);
    out.command.clone_from(&container.command);
    out.env = env_to_api(container);
    out.resources = Some((&container.resources).into());
    out.volumes = volumes_to_api(container);
    out.health_check = health_to_api(&container.health);
    out.restart_policy = Some((&container.restart).into());
    out.secrets = container.secrets.iter().map(|s| s.source.clone()).collect();
    out.stop_timeout = stop_timeout(container);
    out.ports = spec.ports.iter().map(Into::into).collect();
    out.image_digest = container.image_digest.clone().unwrap_or_default();
}

/// A secret for the wire; its value never leaves the manager this way, not even sealed.
#[must_use]
pub fn secret_to_api(secret: &Secret, used_by: &[String]) -> v1::Secret {
    v1::Secret {
        id: secret.id.to_string(),
        name: secret.name.clone(),
        created_at: Some(timestamp_to_api(secret.created_at)),
        data: Vec::new(),
        labels: secret.labels.clone(),
        size: secret.size,
        version: secret.version.0,
        used_by: used_by.to_vec(),
        updated_at: Some(timestamp_to_api(secret.updated_at)),
    }
}

/// A volume for the wire.
#[must_use]
pub fn volume_to_api(volume: &Volume, node_name: &str, used_by: &[String]) -> v1::Volume {
    v1::Volume {
        id: volume.id.to_string(),
        name: volume.name.clone(),
        driver: volume.driver.clone(),
        driver_opts: volume.driver_opts.clone(),
        labels: volume.labels.clone(),
        created_at: Some(timestamp_to_api(volume.created_at)),
        node_id: volume.node.map(|n| n.to_string()).unwrap_or_default(),
        mount_path: volume.mount_path.clone(),
        version: volume.version.0,
        used_by: used_by.to_vec(),
        node_name: node_name.to_owned(),
    }
}

/// An event for the wire.
#[must_use]
pub fn event_to_api(event: &Event) -> v1::Event {
    v1::Event {
        id: event.id.to_string(),
        r#type: event.kind.name().to_owned(),
        timestamp: Some(timestamp_to_api(event.time)),
        message: event.message.clone(),
        metadata: event.metadata.clone(),
        revision: event.revision.0,
    }
}

/// An event from the wire.
///
/// # Errors
/// [`ConvertError`] for an unknown kind or a malformed id.
pub fn event_from_api(event: v1::Event) -> Result<Event, ConvertError> {
    Ok(Event {
        id: event
            .id
            .parse()
            .map_err(|e| ConvertError::new("id", format!("{e}")))?,
        kind: EventKind::from_name(&event.r#type).ok_or_else(|| {
            ConvertError::new("type", format!("{:?} is no known event", event.r#type))
        })?,
        time: event.timestamp.map(timestamp_from_api).unwrap_or_default(),
        revision: Revision(event.revision),
        message: event.message,
        metadata: event.metadata,
    })
}
