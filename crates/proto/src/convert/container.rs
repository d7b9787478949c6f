//! Container records and statuses ⇄ `warren.store.v1`.

use super::{ConvertError, WireEnum, id_bytes, id_from, nested, required, times, wire_enum};
use crate::store as pb;
use std::net::Ipv4Addr;
use warren_types::{
    ActualState, Container, ContainerId, ContainerStatus, DesiredState, ExitInfo, HealthVerdict,
    NodeId, Revision, ServiceId, Slot, Timestamp,
};

wire_enum!(DesiredState { Running, Shutdown });
wire_enum!(ActualState {
    Pending,
    Assigned,
    Preparing,
    Starting,
    Running,
    Draining,
    Stopping,
    Complete,
    Shutdown,
    Failed,
    Rejected,
    Lost
});
wire_enum!(HealthVerdict {
    Unknown,
    Starting,
    Healthy,
    Unhealthy
});

impl From<&Slot> for pb::Slot {
    fn from(v: &Slot) -> Self {
        Self {
            kind: Some(match v {
                Slot::Replica(n) => pb::slot::Kind::Replica(*n),
                Slot::Node(id) => pb::slot::Kind::Node(id_bytes(id.0)),
            }),
        }
    }
}

impl TryFrom<pb::Slot> for Slot {
    type Error = ConvertError;
    fn try_from(v: pb::Slot) -> Result<Self, ConvertError> {
        Ok(match required(v.kind, "kind")? {
            pb::slot::Kind::Replica(n) => Self::Replica(n),
            pb::slot::Kind::Node(id) => Self::Node(NodeId(id_from(&id, "node")?)),
        })
    }
}

impl From<&ExitInfo> for pb::ExitInfo {
    fn from(v: &ExitInfo) -> Self {
        Self {
            code: v.code,
            signal: v.signal,
            oom: v.oom,
        }
    }
}

impl From<pb::ExitInfo> for ExitInfo {
    fn from(v: pb::ExitInfo) -> Self {
        Self {
            code: v.code,
            signal: v.signal,
            oom: v.oom,
        }
    }
}

impl From<&ContainerStatus> for pb::ContainerStatus {
    fn from(v: &ContainerStatus) -> Self {
        Self {
            attempt: v.attempt,
            state: v.state.number(),
            reason: v.reason.clone(),
            address: v.address.map(u32::from),
            pid: v.pid,
            started_at_ms: v.started_at.map(|t| t.0),
            finished_at_ms: v.finished_at.map(|t| t.0),
            exit: v.exit.as_ref().map(Into::into),
            health: v.health.number(),
        }
    }
}

impl TryFrom<pb::ContainerStatus> for ContainerStatus {
    type Error = ConvertError;
    fn try_from(v: pb::ContainerStatus) -> Result<Self, ConvertError> {
        Ok(Self {
            attempt: v.attempt,
            state: WireEnum::read(v.state, "state")?,
            reason: v.reason,
            address: v.address.map(Ipv4Addr::from),
            pid: v.pid,
            started_at: times(v.started_at_ms),
            finished_at: times(v.finished_at_ms),
            exit: v.exit.map(Into::into),
            health: WireEnum::read(v.health, "health")?,
        })
    }
}

impl From<&Container> for pb::Container {
    fn from(v: &Container) -> Self {
        Self {
            id: id_bytes(v.id.0),
            service: id_bytes(v.service.0),
            service_revision: v.service_revision,
            slot: Some((&v.slot).into()),
            node: v.node.map(|n| id_bytes(n.0)).unwrap_or_default(),
            desired: v.desired.number(),
            status: Some((&v.status).into()),
            created_at_ms: v.created_at.0,
            updated_at_ms: v.updated_at.0,
            version: v.version.0,
        }
    }
}

impl TryFrom<pb::Container> for Container {
    type Error = ConvertError;
    fn try_from(v: pb::Container) -> Result<Self, ConvertError> {
        Ok(Self {
            id: ContainerId(id_from(&v.id, "id")?),
            service: ServiceId(id_from(&v.service, "service")?),
            service_revision: v.service_revision,
            slot: nested(v.slot, "slot")?,
            node: optional_node(&v.node, "node")?,
            desired: WireEnum::read(v.desired, "desired")?,
            status: nested(v.status, "status")?,
            created_at: Timestamp(v.created_at_ms),
            updated_at: Timestamp(v.updated_at_ms),
            version: Revision(v.version),
        })
    }
}

/// A node id that may be absent (empty).
pub(super) fn optional_node(bytes: &[u8], field: &str) -> Result<Option<NodeId>, ConvertError> {
    if bytes.is_empty() {
        return Ok(None);
    }
    id_from(bytes, field).map(|id| Some(NodeId(id)))
}
