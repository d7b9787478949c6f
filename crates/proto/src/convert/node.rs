//! Nodes ⇄ `warren.store.v1`.

use super::{ConvertError, WireEnum, id_bytes, id_from, wire_enum};
use crate::store as pb;
use warren_types::{
    Availability, Bytes, Liveness, MilliCpu, Node, NodeId, NodeResources, NodeRole, Platform,
    Revision, Timestamp,
};

wire_enum!(NodeRole {
    Manager,
    Worker,
    Hybrid
});
wire_enum!(Availability {
    Active,
    Pause,
    Drain
});
wire_enum!(Liveness {
    Unknown,
    Ready,
    Down
});

impl From<&Platform> for pb::Platform {
    fn from(v: &Platform) -> Self {
        Self {
            os: v.os.clone(),
            arch: v.arch.clone(),
        }
    }
}

impl From<pb::Platform> for Platform {
    fn from(v: pb::Platform) -> Self {
        Self {
            os: v.os,
            arch: v.arch,
        }
    }
}

impl From<&NodeResources> for pb::NodeResources {
    fn from(v: &NodeResources) -> Self {
        Self {
            cpu_milli: v.cpu.0,
            memory_bytes: v.memory.0,
            disk_bytes: v.disk.0,
        }
    }
}

impl From<pb::NodeResources> for NodeResources {
    fn from(v: pb::NodeResources) -> Self {
        Self {
            cpu: MilliCpu(v.cpu_milli),
            memory: Bytes(v.memory_bytes),
            disk: Bytes(v.disk_bytes),
        }
    }
}

impl From<&Node> for pb::Node {
    fn from(v: &Node) -> Self {
        Self {
            id: id_bytes(v.id.0),
            name: v.name.clone(),
            role: v.role.number(),
            address: v.address.clone(),
            hostname: v.hostname.clone(),
            labels: v.labels.clone(),
            platform: Some((&v.platform).into()),
            resources: Some((&v.resources).into()),
            availability: v.availability.number(),
            liveness: v.liveness.number(),
            reason: v.reason.clone(),
            subnet: v.subnet.clone(),
            version_text: v.version_text.clone(),
            certificate_root: v.certificate_root.clone(),
            created_at_ms: v.created_at.0,
            updated_at_ms: v.updated_at.0,
            version: v.version.0,
        }
    }
}

impl TryFrom<pb::Node> for Node {
    type Error = ConvertError;
    fn try_from(v: pb::Node) -> Result<Self, ConvertError> {
        Ok(Self {
            id: NodeId(id_from(&v.id, "id")?),
            name: v.name,
            role: WireEnum::read(v.role, "role")?,
            address: v.address,
            hostname: v.hostname,
            labels: v.labels,
            platform: v.platform.map(Into::into).unwrap_or_default(),
            resources: v.resources.map(Into::into).unwrap_or_default(),
            availability: WireEnum::read(v.availability, "availability")?,
            liveness: WireEnum::read(v.liveness, "liveness")?,
            reason: v.reason,
            subnet: v.subnet,
            version_text: v.version_text,
            certificate_root: v.certificate_root,
            created_at: Timestamp(v.created_at_ms),
            updated_at: Timestamp(v.updated_at_ms),
            version: Revision(v.version),
        })
    }
}
