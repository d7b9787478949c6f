//! Services with their revisions and rollouts ⇄ `warren.store.v1`.

use super::{ConvertError, WireEnum, id_bytes, id_from, optional, required, times, wire_enum};
use crate::store as pb;
use std::sync::Arc;
use warren_types::{
    Revision, Rollout, RolloutState, Service, ServiceId, ServiceRevision, ServiceSpec, Timestamp,
};

wire_enum!(RolloutState {
    Updating,
    Paused,
    Completed,
    RollingBack,
    RolledBack
});

impl From<&ServiceRevision> for pb::ServiceRevision {
    fn from(v: &ServiceRevision) -> Self {
        Self {
            number: v.number,
            spec: Some(v.spec.as_ref().into()),
            created_at_ms: v.created_at.0,
            actor: v.actor.clone(),
        }
    }
}

impl TryFrom<pb::ServiceRevision> for ServiceRevision {
    type Error = ConvertError;
    fn try_from(v: pb::ServiceRevision) -> Result<Self, ConvertError> {
        let spec: ServiceSpec = super::nested(v.spec, "spec")?;
        Ok(Self {
            number: v.number,
            spec: Arc::new(spec),
            created_at: Timestamp(v.created_at_ms),
            actor: v.actor,
        })
    }
}

impl From<&Rollout> for pb::Rollout {
    fn from(v: &Rollout) -> Self {
        Self {
            from: v.from,
            to: v.to,
            state: v.state.number(),
            message: v.message.clone(),
            started_at_ms: v.started_at.0,
            finished_at_ms: v.finished_at.map(|t| t.0),
            batch_at_ms: v.batch_at.0,
            failures: v.failures,
        }
    }
}

impl TryFrom<pb::Rollout> for Rollout {
    type Error = ConvertError;
    fn try_from(v: pb::Rollout) -> Result<Self, ConvertError> {
        Ok(Self {
            from: v.from,
            to: v.to,
            state: WireEnum::read(v.state, "state")?,
            message: v.message,
            started_at: Timestamp(v.started_at_ms),
            finished_at: times(v.finished_at_ms),
            batch_at: Timestamp(v.batch_at_ms),
            failures: v.failures,
        })
    }
}

impl From<&Service> for pb::Service {
    fn from(v: &Service) -> Self {
        // The spec in force is mostly that of its revision: it is written once and shared when read.
        let shared = v.revision_spec(v.revision).is_some_and(|s| *s == v.spec);
        Self {
            id: id_bytes(v.id.0),
            spec: (!shared).then(|| v.spec.as_ref().into()),
            revision: v.revision,
            revisions: v.revisions.iter().map(Into::into).collect(),
            rollout: v.rollout.as_ref().map(Into::into),
            deleting: v.deleting,
            created_at_ms: v.created_at.0,
            updated_at_ms: v.updated_at.0,
            version: v.version.0,
        }
    }
}

impl TryFrom<pb::Service> for Service {
    type Error = ConvertError;
    fn try_from(v: pb::Service) -> Result<Self, ConvertError> {
        let revisions: Vec<ServiceRevision> = super::list(v.revisions, "revisions")?;
        let own: Option<ServiceSpec> = optional(v.spec, "spec")?;
        let in_force = revisions.iter().find(|r| r.number == v.revision);
        let spec = match own {
            Some(spec) => Arc::new(spec),
            None => Arc::clone(&required(in_force, "spec")?.spec),
        };
        Ok(Self {
            id: ServiceId(id_from(&v.id, "id")?),
            spec,
            revision: v.revision,
            revisions,
            rollout: optional(v.rollout, "rollout")?,
            deleting: v.deleting,
            created_at: Timestamp(v.created_at_ms),
            updated_at: Timestamp(v.updated_at_ms),
            version: Revision(v.version),
        })
    }
}
