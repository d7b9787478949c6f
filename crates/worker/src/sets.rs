//! What the manager wants of this node: the set of containers, and the secrets, configs and volumes
//! they need; between the session's messages, the node's memory and its disk.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use warren_lifecycle::{Assignment, AssignmentSet, SetChange, SetUpdate, StaleSet};
use warren_proto::session::{self, Assignments, ConfigPayload, SecretPayload};
use warren_proto::{ConvertError, store};
use warren_types::{
    ContainerId, ContainerSpec, DesiredState, Id128, PortMapping, Revision, ServiceId, Slot, Volume,
};

/// A secret or config with its version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Payload {
    version: u64,
    pub(crate) data: Arc<Vec<u8>>,
}

/// Everything that is wanted, at one revision.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wanted {
    pub(crate) set: AssignmentSet,
    pub(crate) secrets: BTreeMap<String, Payload>,
    pub(crate) configs: BTreeMap<String, Payload>,
    pub(crate) volumes: BTreeMap<String, Volume>,
}

/// A message that is not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RefusedSet {
    /// Law 5: older sets are refused.
    #[error(transparent)]
    Stale(#[from] StaleSet),
    /// Something in it is not understood.
    #[error("assignments not understood: {0}; upgrade the older of node and manager")]
    Malformed(#[from] ConvertError),
    /// It could not be written to the node's disk.
    #[error("assignments cannot be kept: {0}")]
    Disk(String),
}

impl Wanted {
    /// Takes a message over and says what it changed.
    pub(crate) fn after(
        &self,
        message: &Assignments,
    ) -> Result<(Self, Vec<SetChange>), RefusedSet> {
        let mut next = self.clone();
        if message.complete {
            (next.secrets, next.configs, next.volumes) = Default::default();
        }
        let upserts: Result<Vec<Assignment>, ConvertError> =
            message.upserts.iter().map(read).collect();
        let removed: Result<Vec<ContainerId>, ConvertError> =
            message.removed.iter().map(|id| container_id(id)).collect();
        let update = SetUpdate {
            revision: Revision(message.revision),
            complete: message.complete,
            upserts: upserts?,
            removed: removed?,
        };
        let changes = next.set.accept(update)?;
        for secret in &message.secrets {
            let payload = Payload {
                version: secret.version,
                data: Arc::new(secret.data.clone()),
            };
            next.secrets.insert(secret.name.clone(), payload);
        }
        for config in &message.configs {
            let payload = Payload {
                version: config.version,
                data: Arc::new(config.data.clone()),
            };
            next.configs.insert(config.name.clone(), payload);
        }
        for volume in &message.volumes {
            let volume = Volume::try_from(volume.clone())?;
            next.volumes.insert(volume.name.clone(), volume);
        }
        next.forget_unneeded();
        Ok((next, changes))
    }

    /// A secret leaves the node with the last container that needs it.
    fn forget_unneeded(&mut self) {
        let running = || self.set.items.values().filter(|a| a.wants_running());
        let secrets: BTreeSet<String> = running()
            .flat_map(|a| a.spec.secrets.iter().map(|r| r.source.clone()))
            .collect();
        let configs: BTreeSet<String> = running()
            .flat_map(|a| a.spec.configs.iter().map(|r| r.source.clone()))
            .collect();
        self.secrets.retain(|name, _| secrets.contains(name));
        self.configs.retain(|name, _| configs.contains(name));
    }

    /// The whole as one complete message, for the node's disk; secrets come as `seal` makes them.
    pub(crate) fn to_message<E>(
        &self,
        seal: impl Fn(&str, &[u8]) -> Result<Vec<u8>, E>,
    ) -> Result<Assignments, E> {
        let secrets = self.secrets.iter().map(|(name, payload)| {
            let data = seal(name, &payload.data)?;
            Ok(SecretPayload {
                name: name.clone(),
                version: payload.version,
                data,
            })
        });
        let configs = self.configs.iter().map(|(name, payload)| ConfigPayload {
            name: name.clone(),
            version: payload.version,
            data: payload.data.to_vec(),
        });
        Ok(Assignments {
            revision: self.set.revision.0,
            complete: true,
            upserts: self.set.items.values().map(write).collect(),
            removed: Vec::new(),
            secrets: secrets.collect::<Result<_, E>>()?,
            configs: configs.collect(),
            volumes: self.volumes.values().map(store::Volume::from).collect(),
        })
    }
}

/// An id from its 16 bytes.
pub(crate) fn container_id(bytes: &[u8]) -> Result<ContainerId, ConvertError> {
    id_from(bytes, "container_id").map(ContainerId)
}

/// An id as its 16 bytes.
pub(crate) fn id_bytes(id: Id128) -> Vec<u8> {
    id.0.to_be_bytes().to_vec()
}

/// An id of any kind from its 16 bytes.
pub(crate) fn id_from(bytes: &[u8], field: &str) -> Result<Id128, ConvertError> {
    let wrong = || ConvertError::new(field, format!("{} bytes instead of 16", bytes.len()));
    let bytes: [u8; 16] = bytes.try_into().map_err(|_| wrong())?;
    Ok(Id128(u128::from_be_bytes(bytes)))
}

fn read(message: &session::Assignment) -> Result<Assignment, ConvertError> {
    let missing = |field: &str| ConvertError::new(field, "missing");
    let spec = message.spec.clone().ok_or_else(|| missing("spec"))?;
    let slot = message.slot.clone().ok_or_else(|| missing("slot"))?;
    let desired = match store::DesiredState::try_from(message.desired) {
        Ok(store::DesiredState::Shutdown) => DesiredState::Shutdown,
        Ok(store::DesiredState::Running) => DesiredState::Running,
        _ => {
            return Err(ConvertError::new(
                "desired",
                format!("{} is not known", message.desired),
            ));
        }
    };
    let ports: Result<Vec<PortMapping>, ConvertError> = message
        .ports
        .iter()
        .map(|p| PortMapping::try_from(p.clone()))
        .collect();
    Ok(Assignment {
        id: container_id(&message.container_id)?,
        service: ServiceId(id_from(&message.service_id, "service_id")?),
        service_name: message.service_name.clone(),
        service_revision: message.service_revision,
        slot: Slot::try_from(slot)?,
        desired,
        spec: Arc::new(ContainerSpec::try_from(spec)?),
        ports: ports?,
        networks: message.networks.clone(),
        attempt_floor: message.attempt_floor,
    })
}

fn write(assignment: &Assignment) -> session::Assignment {
    let desired = match assignment.desired {
        DesiredState::Running => store::DesiredState::Running,
        DesiredState::Shutdown => store::DesiredState::Shutdown,
    };
    session::Assignment {
        container_id: id_bytes(assignment.id.0),
        service_id: id_bytes(assignment.service.0),
        service_name: assignment.service_name.clone(),
        slot: Some(store::Slot::from(&assignment.slot)),
        desired: desired.into(),
        service_revision: assignment.service_revision,
        spec: Some(store::ContainerSpec::from(assignment.spec.as_ref())),
        ports: assignment
            .ports
            .iter()
            .map(store::PortMapping::from)
            .collect(),
        attempt_floor: assignment.attempt_floor,
        networks: assignment.networks.clone(),
    }
}
