//! Operations to messages and back.

use super::message::{self as pb, OpKind as K, id_bytes, read_id};
use crate::command::{NodePatch, Op};
use std::sync::Arc;
use warren_proto::{ConvertError, store};
use warren_types::{
    Availability, DesiredState, Id128, Liveness, NodeRole, Revision, SealedData, ServiceSpec,
};

/// Enumerations whose numbers are those of the store messages.
macro_rules! numbers {
    ($($write:ident, $read:ident, $name:ident { $($variant:ident),+ });+ $(;)?) => {$(
        const fn $write(value: $name) -> i32 {
            match value {
                $($name::$variant => store::$name::$variant as i32,)+
            }
        }
        fn $read(number: i32, field: &str) -> Result<$name, ConvertError> {
            match store::$name::try_from(number) {
                $(Ok(store::$name::$variant) => Ok($name::$variant),)+
                _ => Err(ConvertError::new(field, format!("{number} is not known"))),
            }
        }
    )+};
}

numbers! {
    role_number, read_role, NodeRole { Manager, Worker, Hybrid };
    availability_number, read_availability, Availability { Active, Pause, Drain };
    liveness_number, read_liveness, Liveness { Unknown, Ready, Down };
    desired_number, read_desired, DesiredState { Running, Shutdown };
}

fn target(id: Id128, expect: Option<Revision>) -> pb::Target {
    pb::Target {
        id: id_bytes(id),
        expect: expect.map(|r| r.0),
    }
}

fn some_target(id: Id128, expect: Option<Revision>) -> Option<pb::Target> {
    Some(target(id, expect))
}

fn read_target(target: Option<pb::Target>) -> Result<(Id128, Option<Revision>), ConvertError> {
    let target = present(target, "target")?;
    Ok((read_id(&target.id, "id")?, target.expect.map(Revision)))
}

fn present<T>(value: Option<T>, field: &str) -> Result<T, ConvertError> {
    value.ok_or_else(|| ConvertError::new(field, "is missing"))
}

fn read_spec(spec: Option<store::ServiceSpec>) -> Result<Arc<ServiceSpec>, ConvertError> {
    let spec = ServiceSpec::try_from(present(spec, "spec")?);
    spec.map(Arc::new).map_err(|e| e.within("spec"))
}

fn item(id: Id128, status: &warren_types::ContainerStatus) -> pb::StatusItem {
    pb::StatusItem {
        id: id_bytes(id),
        status: Some(status.into()),
    }
}

fn read_item(item: pb::StatusItem) -> Result<(Id128, warren_types::ContainerStatus), ConvertError> {
    let status = present(item.status, "status")?;
    let status = status
        .try_into()
        .map_err(|e: ConvertError| e.within("status"))?;
    Ok((read_id(&item.id, "id")?, status))
}

impl Op {
    pub(super) fn to_message(&self) -> pb::Op {
        let kind = match self.kind() {
            crate::ObjectKind::Node => self.node_message(),
            crate::ObjectKind::Service => self.service_message(),
            crate::ObjectKind::Container => self.container_message(),
            _ => self.object_message(),
        };
        pb::Op { kind }
    }

    fn node_message(&self) -> Option<K> {
        Some(match self {
            Self::NodeAdd(node) => K::NodeAdd((&**node).into()),
            Self::NodeUpdate { id, expect, patch } => {
                K::NodeUpdate(write_patch(some_target(id.0, *expect), patch))
            }
            Self::NodeSetLiveness {
                id,
                expect,
                liveness,
                reason,
            } => K::NodeSetLiveness(pb::NodeLiveness {
                target: some_target(id.0, *expect),
                liveness: liveness_number(*liveness),
                reason: reason.clone(),
            }),
            Self::NodeRemove { id, expect, force } => K::NodeRemove(pb::NodeRemove {
                target: some_target(id.0, *expect),
                force: *force,
            }),
            _ => return None,
        })
    }

    fn service_message(&self) -> Option<K> {
        Some(match self {
            Self::ServiceCreate { id, spec } => K::ServiceCreate(pb::ServiceWrite {
                target: some_target(id.0, None),
                spec: Some((&**spec).into()),
            }),
            Self::ServiceUpdate { id, expect, spec } => K::ServiceUpdate(pb::ServiceWrite {
                target: some_target(id.0, *expect),
                spec: Some((&**spec).into()),
            }),
            Self::ServiceSetReplicas {
                id,
                expect,
                replicas,
            } => K::ServiceSetReplicas(pb::ServiceReplicas {
                target: some_target(id.0, *expect),
                replicas: *replicas,
            }),
            Self::ServiceSetRollout {
                id,
                expect,
                rollout,
            } => K::ServiceSetRollout(pb::ServiceRollout {
                target: some_target(id.0, *expect),
                rollout: rollout.as_deref().map(Into::into),
            }),
            Self::ServiceRollback { id, expect, to } => K::ServiceRollback(pb::ServiceRollback {
                target: some_target(id.0, *expect),
                to: *to,
            }),
            Self::ServiceDelete { id, expect } => K::ServiceDelete(target(id.0, *expect)),
            Self::ServiceRemove { id, expect } => K::ServiceRemove(target(id.0, *expect)),
            _ => return None,
        })
    }

    fn container_message(&self) -> Option<K> {
        Some(match self {
            Self::ContainerCreate {
                id,
                service,
                expect_service,
                revision,
                slot,
            } => K::ContainerCreate(pb::ContainerCreate {
                id: id_bytes(id.0),
                service: some_target(service.0, *expect_service),
                revision: *revision,
                slot: Some(slot.into()),
            }),
            Self::ContainerAssign { id, expect, node } => K::ContainerAssign(pb::ContainerAssign {
                target: some_target(id.0, *expect),
                node: id_bytes(node.0),
            }),
            Self::ContainerSetReason { id, expect, reason } => {
                K::ContainerSetReason(pb::ContainerText {
                    target: some_target(id.0, *expect),
                    text: reason.clone(),
                })
            }
            Self::ContainerStatus { id, node, status } => K::ContainerStatus(pb::ContainerReport {
                node: id_bytes(node.0),
                item: Some(item(id.0, status)),
            }),
            Self::ContainerStatusBatch { node, statuses } => {
                K::ContainerStatusBatch(pb::StatusBatch {
                    node: id_bytes(node.0),
                    items: statuses.iter().map(|(id, s)| item(id.0, s)).collect(),
                })
            }
            Self::ContainerSetDesired {
                id,
                expect,
                desired,
            } => K::ContainerSetDesired(pb::ContainerDesired {
                target: some_target(id.0, *expect),
                desired: desired_number(*desired),
            }),
            Self::ContainerLost { id, expect, reason } => K::ContainerLost(pb::ContainerText {
                target: some_target(id.0, *expect),
                text: reason.clone(),
            }),
            Self::ContainerDelete { id, expect } => K::ContainerDelete(target(id.0, *expect)),
            _ => return None,
        })
    }

    fn object_message(&self) -> Option<K> {
        Some(match self {
            Self::SecretCreate(object) => K::SecretCreate((&**object).into()),
            Self::SecretUpdate { expect, secret } => K::SecretUpdate(pb::SecretUpdate {
                expect: expect.map(|r| r.0),
                object: Some((&**secret).into()),
            }),
            Self::SecretReseal { id, expect, data } => {
                K::SecretReseal(reseal(some_target(id.0, *expect), data))
            }
            Self::SecretDelete { id, expect } => K::SecretDelete(target(id.0, *expect)),
            Self::ConfigCreate(object) => K::ConfigCreate((&**object).into()),
            Self::ConfigUpdate { expect, config } => K::ConfigUpdate(pb::ConfigUpdate {
                expect: expect.map(|r| r.0),
                object: Some((&**config).into()),
            }),
            Self::ConfigDelete { id, expect } => K::ConfigDelete(target(id.0, *expect)),
            Self::VolumeCreate(object) => K::VolumeCreate((&**object).into()),
            Self::VolumeBind {
                id,
                expect,
                node,
                mount_path,
            } => K::VolumeBind(pb::VolumeBind {
                target: some_target(id.0, *expect),
                node: id_bytes(node.0),
                mount_path: mount_path.clone(),
            }),
            Self::VolumeDelete { id, expect } => K::VolumeDelete(target(id.0, *expect)),
            Self::NetworkCreate(object) => K::NetworkCreate((&**object).into()),
            Self::NetworkDelete { id, expect } => K::NetworkDelete(target(id.0, *expect)),
            Self::CertificateCreate(object) => K::CertificateCreate((&**object).into()),
            Self::CertificateUpdate {
                expect,
                certificate,
            } => K::CertificateUpdate(pb::CertificateUpdate {
                expect: expect.map(|r| r.0),
                object: Some((&**certificate).into()),
            }),
            Self::CertificateReseal { id, expect, data } => {
                K::CertificateReseal(reseal(some_target(id.0, *expect), data))
            }
            Self::CertificateDelete { id, expect } => K::CertificateDelete(target(id.0, *expect)),
            Self::IngressCreate(object) => K::IngressCreate((&**object).into()),
            Self::IngressUpdate { expect, ingress } => K::IngressUpdate(pb::IngressUpdate {
                expect: expect.map(|r| r.0),
                object: Some((&**ingress).into()),
            }),
            Self::IngressDelete { id, expect } => K::IngressDelete(target(id.0, *expect)),
            Self::TokenCreate(object) => K::TokenCreate((&**object).into()),
            Self::TokenUse { id } => K::TokenUse(target(id.0, None)),
            Self::TokenRevoke { id } => K::TokenRevoke(target(id.0, None)),
            Self::TokenDelete { id } => K::TokenDelete(target(id.0, None)),
            Self::SettingsInit(object) => K::SettingsInit((&**object).into()),
            Self::SettingsUpdate { expect, settings } => K::SettingsUpdate(pb::SettingsUpdate {
                expect: expect.map(|r| r.0),
                object: Some((&**settings).into()),
            }),
            _ => return None,
        })
    }

    pub(super) fn from_message(kind: K) -> Result<Self, ConvertError> {
        match kind {
            K::NodeAdd(_) | K::NodeUpdate(_) | K::NodeSetLiveness(_) | K::NodeRemove(_) => {
                read_node(kind)
            }
            K::ServiceCreate(_)
            | K::ServiceUpdate(_)
            | K::ServiceSetReplicas(_)
            | K::ServiceSetRollout(_)
            | K::ServiceRollback(_)
            | K::ServiceDelete(_)
            | K::ServiceRemove(_) => read_service(kind),
            K::ContainerCreate(_)
            | K::ContainerAssign(_)
            | K::ContainerSetReason(_)
            | K::ContainerStatus(_)
            | K::ContainerStatusBatch(_)
            | K::ContainerSetDesired(_)
            | K::ContainerLost(_)
            | K::ContainerDelete(_) => read_container(kind),
            other => read_object(other),
        }
    }
}

fn reseal(target: Option<pb::Target>, data: &SealedData) -> pb::Reseal {
    pb::Reseal {
        target,
        data: Some(data.into()),
    }
}

fn write_patch(target: Option<pb::Target>, patch: &NodePatch) -> pb::NodeUpdate {
    pb::NodeUpdate {
        target,
        role: patch.role.map(role_number),
        address: patch.address.clone(),
        hostname: patch.hostname.clone(),
        labels: patch.labels.clone().map(|entries| pb::Labels { entries }),
        platform: patch.platform.as_ref().map(Into::into),
        resources: patch.resources.as_ref().map(Into::into),
        availability: patch.availability.map(availability_number),
        subnet: patch.subnet.clone(),
        version_text: patch.version_text.clone(),
        certificate_root: patch.certificate_root.clone(),
    }
}

fn read_patch(message: pb::NodeUpdate) -> Result<NodePatch, ConvertError> {
    let role = message.role.map(|n| read_role(n, "role"));
    let availability = message.availability;
    let availability = availability.map(|n| read_availability(n, "availability"));
    Ok(NodePatch {
        role: role.transpose()?,
        address: message.address,
        hostname: message.hostname,
        labels: message.labels.map(|l| l.entries),
        platform: message.platform.map(Into::into),
        resources: message.resources.map(Into::into),
        availability: availability.transpose()?,
        subnet: message.subnet,
        version_text: message.version_text,
        certificate_root: message.certificate_root,
    })
}

/// `from_message` sends each kind to the reader that knows it.
fn misrouted() -> ConvertError {
    ConvertError::new("kind", "reached the wrong reader; report this defect")
}

fn read_node(kind: K) -> Result<Op, ConvertError> {
    Ok(match kind {
        K::NodeAdd(node) => Op::NodeAdd(Box::new(node.try_into()?)),
        K::NodeUpdate(mut m) => {
            let (id, expect) = read_target(m.target.take())?;
            Op::NodeUpdate {
                id: warren_types::NodeId(id),
                expect,
                patch: Box::new(read_patch(m)?),
            }
        }
        K::NodeSetLiveness(m) => {
            let (id, expect) = read_target(m.target)?;
            Op::NodeSetLiveness {
                id: warren_types::NodeId(id),
                expect,
                liveness: read_liveness(m.liveness, "liveness")?,
                reason: m.reason,
            }
        }
        K::NodeRemove(m) => {
            let (id, expect) = read_target(m.target)?;
            Op::NodeRemove {
                id: warren_types::NodeId(id),
                expect,
                force: m.force,
            }
        }
        _ => return Err(misrouted()),
    })
}

fn read_service(kind: K) -> Result<Op, ConvertError> {
    use warren_types::ServiceId;
    Ok(match kind {
        K::ServiceCreate(m) => {
            let (id, _) = read_target(m.target)?;
            Op::ServiceCreate {
                id: ServiceId(id),
                spec: read_spec(m.spec)?,
            }
        }
        K::ServiceUpdate(m) => {
            let (id, expect) = read_target(m.target)?;
            Op::ServiceUpdate {
                id: ServiceId(id),
                expect,
                spec: read_spec(m.spec)?,
            }
        }
        K::ServiceSetReplicas(m) => {
            let (id, expect) = read_target(m.target)?;
            Op::ServiceSetReplicas {
                id: ServiceId(id),
                expect,
                replicas: m.replicas,
            }
        }
        K::ServiceSetRollout(m) => {
            let (id, expect) = read_target(m.target)?;
            let rollout = m.rollout.map(TryInto::try_into).transpose();
            Op::ServiceSetRollout {
                id: ServiceId(id),
                expect,
                rollout: rollout
                    .map_err(|e: ConvertError| e.within("rollout"))?
                    .map(Box::new),
            }
        }
        K::ServiceRollback(m) => {
            let (id, expect) = read_target(m.target)?;
            Op::ServiceRollback {
                id: ServiceId(id),
                expect,
                to: m.to,
            }
        }
        K::ServiceDelete(m) => {
            let (id, expect) = read_target(Some(m))?;
            Op::ServiceDelete {
                id: ServiceId(id),
                expect,
            }
        }
        K::ServiceRemove(m) => {
            let (id, expect) = read_target(Some(m))?;
            Op::ServiceRemove {
                id: ServiceId(id),
                expect,
            }
        }
        _ => return Err(misrouted()),
    })
}

fn read_container(kind: K) -> Result<Op, ConvertError> {
    use warren_types::{ContainerId, NodeId, ServiceId};
    Ok(match kind {
        K::ContainerCreate(m) => {
            let (service, expect_service) = read_target(m.service)?;
            let slot = present(m.slot, "slot")?;
            Op::ContainerCreate {
                id: ContainerId(read_id(&m.id, "id")?),
                service: ServiceId(service),
                expect_service,
                revision: m.revision,
                slot: slot.try_into()?,
            }
        }
        K::ContainerAssign(m) => {
            let (id, expect) = read_target(m.target)?;
            Op::ContainerAssign {
                id: ContainerId(id),
                expect,
                node: NodeId(read_id(&m.node, "node")?),
            }
        }
        K::ContainerSetReason(m) => {
            let (id, expect) = read_target(m.target)?;
            Op::ContainerSetReason {
                id: ContainerId(id),
                expect,
                reason: m.text,
            }
        }
        K::ContainerLost(m) => {
            let (id, expect) = read_target(m.target)?;
            Op::ContainerLost {
                id: ContainerId(id),
                expect,
                reason: m.text,
            }
        }
        K::ContainerStatus(m) => {
            let (id, status) = read_item(present(m.item, "item")?)?;
            Op::ContainerStatus {
                id: ContainerId(id),
                node: NodeId(read_id(&m.node, "node")?),
                status: Box::new(status),
            }
        }
        K::ContainerStatusBatch(m) => {
            let items = m.items.into_iter().map(read_item);
            let statuses = items.map(|i| i.map(|(id, status)| (ContainerId(id), status)));
            Op::ContainerStatusBatch {
                node: NodeId(read_id(&m.node, "node")?),
                statuses: statuses.collect::<Result<_, _>>()?,
            }
        }
        K::ContainerSetDesired(m) => {
            let (id, expect) = read_target(m.target)?;
            Op::ContainerSetDesired {
                id: ContainerId(id),
                expect,
                desired: read_desired(m.desired, "desired")?,
            }
        }
        K::ContainerDelete(m) => {
            let (id, expect) = read_target(Some(m))?;
            Op::ContainerDelete {
                id: ContainerId(id),
                expect,
            }
        }
        _ => return Err(misrouted()),
    })
}

/// A deletion of this kind of id.
macro_rules! delete {
    ($op:ident, $id:ident, $message:expr) => {{
        let (id, expect) = read_target(Some($message))?;
        Op::$op {
            id: warren_types::$id(id),
            expect,
        }
    }};
}

/// The same value sealed anew.
macro_rules! reseal {
    ($op:ident, $id:ident, $message:expr) => {{
        let message = $message;
        let (id, expect) = read_target(message.target)?;
        Op::$op {
            id: warren_types::$id(id),
            expect,
            data: present(message.data, "data")?.try_into()?,
        }
    }};
}

/// An update that carries the whole object.
macro_rules! update {
    ($op:ident, $field:ident, $message:expr) => {{
        let message = $message;
        Op::$op {
            expect: message.expect.map(Revision),
            $field: Box::new(present(message.object, "object")?.try_into()?),
        }
    }};
}

fn read_object(kind: K) -> Result<Op, ConvertError> {
    let token = |m: pb::Target| read_id(&m.id, "id").map(warren_types::TokenId);
    Ok(match kind {
        K::SecretCreate(m) => Op::SecretCreate(Box::new(m.try_into()?)),
        K::SecretUpdate(m) => update!(SecretUpdate, secret, m),
        K::SecretReseal(m) => reseal!(SecretReseal, SecretId, m),
        K::SecretDelete(m) => delete!(SecretDelete, SecretId, m),
        K::ConfigCreate(m) => Op::ConfigCreate(Box::new(m.try_into()?)),
        K::ConfigUpdate(m) => update!(ConfigUpdate, config, m),
        K::ConfigDelete(m) => delete!(ConfigDelete, ConfigId, m),
        K::VolumeCreate(m) => Op::VolumeCreate(Box::new(m.try_into()?)),
        K::VolumeBind(m) => {
            let (id, expect) = read_target(m.target)?;
            Op::VolumeBind {
                id: warren_types::VolumeId(id),
                expect,
                node: warren_types::NodeId(read_id(&m.node, "node")?),
                mount_path: m.mount_path,
            }
        }
        K::VolumeDelete(m) => delete!(VolumeDelete, VolumeId, m),
        K::NetworkCreate(m) => Op::NetworkCreate(Box::new(m.try_into()?)),
        K::NetworkDelete(m) => delete!(NetworkDelete, NetworkId, m),
        K::CertificateCreate(m) => Op::CertificateCreate(Box::new(m.try_into()?)),
        K::CertificateUpdate(m) => update!(CertificateUpdate, certificate, m),
        K::CertificateReseal(m) => reseal!(CertificateReseal, CertificateId, m),
        K::CertificateDelete(m) => delete!(CertificateDelete, CertificateId, m),
        K::IngressCreate(m) => Op::IngressCreate(Box::new(m.try_into()?)),
        K::IngressUpdate(m) => update!(IngressUpdate, ingress, m),
        K::IngressDelete(m) => delete!(IngressDelete, IngressId, m),
        K::TokenCreate(m) => Op::TokenCreate(Box::new(m.try_into()?)),
        K::TokenUse(m) => Op::TokenUse { id: token(m)? },
        K::TokenRevoke(m) => Op::TokenRevoke { id: token(m)? },
        K::TokenDelete(m) => Op::TokenDelete { id: token(m)? },
        K::SettingsInit(m) => Op::SettingsInit(Box::new(m.try_into()?)),
        K::SettingsUpdate(m) => update!(SettingsUpdate, settings, m),
        _ => return Err(misrouted()),
    })
}
