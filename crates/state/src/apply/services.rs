//! Operations on services.

use super::containers::service_not_now;
use super::nodes::misrouted;
use super::{Tx, cut};
use crate::change::ObjectKind;
use crate::command::{Op, OpResult};
use crate::index::protocol_key;
use crate::rejection::{MissingReference, Rejection};
use crate::state::ClusterState;
use std::sync::Arc;
use warren_types::{
    Mode, Mount, PublishMode, Revision, Rollout, RolloutState, Service, ServiceId, ServiceRevision,
    ServiceSpec, ValidationError, limits,
};

impl Tx<'_> {
    pub(super) fn service_op(&mut self, op: &Op) -> Result<OpResult, Rejection> {
        match op {
            Op::ServiceCreate { id, spec } => self.service_create(*id, spec),
            Op::ServiceUpdate { id, expect, spec } => {
                let service = self.living_service(*id, *expect)?;
                self.service_update(&service, spec)
            }
            Op::ServiceSetReplicas {
                id,
                expect,
                replicas,
            } => {
                let service = self.living_service(*id, *expect)?;
                self.service_set_replicas(&service, *replicas)
            }
            Op::ServiceSetRollout {
                id,
                expect,
                rollout,
            } => {
                let service = self.expect::<Service>(id.as_u128(), *expect)?;
                self.service_set_rollout(&service, rollout.as_deref())
            }
            Op::ServiceRollback { id, expect, to } => {
                let service = self.living_service(*id, *expect)?;
                self.service_rollback(&service, *to)
            }
            Op::ServiceDelete { id, expect } => {
                let before = self.expect::<Service>(id.as_u128(), *expect)?;
                let mut after = (*before).clone();
                after.deleting = true;
                Ok(self.put_service(&before, after, false))
            }
            Op::ServiceRemove { id, expect } => {
                let service = self.expect::<Service>(id.as_u128(), *expect)?;
                self.service_remove(&service)
            }
            _ => Err(misrouted(op)),
        }
    }

    fn living_service(
        &self,
        id: ServiceId,
        expect: Option<Revision>,
    ) -> Result<Arc<Service>, Rejection> {
        let service = self.expect::<Service>(id.as_u128(), expect)?;
        if service.deleting {
            let remedy = "wait until it is gone, then create it again";
            return Err(service_not_now(&service, "is being deleted", remedy));
        }
        Ok(service)
    }

    fn put_service(&mut self, before: &Service, after: Service, rollout: bool) -> OpResult {
        let (id, revision) = (after.id, after.revision);
        let version = match self.put(before, after) {
            OpResult::Changed { version, .. } => version,
            _ => before.version,
        };
        OpResult::Service {
            id,
            revision,
            version,
            rollout,
        }
    }

    fn service_create(
        &mut self,
        id: ServiceId,
        spec: &Arc<ServiceSpec>,
    ) -> Result<OpResult, Rejection> {
        spec.validate()?;
        if let Some(other) = self.state.service_by_name(&spec.name) {
            let note = if other.deleting {
                " and is being deleted; wait until it is gone"
            } else {
                ""
            };
            return Err(Rejection::AlreadyExists {
                kind: ObjectKind::Service,
                name: spec.name.clone(),
                note: note.to_owned(),
            });
        }
        self.check_references(spec)?;
        self.check_ports(id, spec)?;
        let service = Service {
            id,
            spec: Arc::clone(spec),
            revision: 1,
            revisions: vec![self.service_revision(1, spec)],
            rollout: None,
            deleting: false,
            created_at: self.time,
            updated_at: self.time,
            version: self.revision(),
        };
        self.create(service, limits::SERVICES_MAX, "services")?;
        Ok(OpResult::Service {
            id,
            revision: 1,
            version: self.revision(),
            rollout: false,
        })
    }

    fn service_revision(&self, number: u32, spec: &Arc<ServiceSpec>) -> ServiceRevision {
        ServiceRevision {
            number,
            spec: Arc::clone(spec),
            created_at: self.time,
            actor: cut(&self.actor.to_string(), limits::SHORT_TEXT_BYTES_MAX),
        }
    }

    fn service_update(
        &mut self,
        before: &Service,
        spec: &Arc<ServiceSpec>,
    ) -> Result<OpResult, Rejection> {
        spec.validate()?;
        check_identity(&before.spec, spec)?;
        if before.spec == *spec {
            return Ok(self.put_service(before, before.clone(), false));
        }
        let mut after = before.clone();
        after.spec = Arc::clone(spec);
        if same_containers(&before.spec, spec) {
            return Ok(self.put_service(before, after, false));
        }
        self.check_references(spec)?;
        self.check_ports(before.id, spec)?;
        let newest = before.revisions.last().map_or(0, |r| r.number);
        let number = newest.checked_add(1).ok_or(Rejection::Limit {
            what: "revisions of one service",
            limit: u64::from(u32::MAX),
            remedy: "delete the service and create it again",
        })?;
        after.revisions.push(self.service_revision(number, spec));
        after.revision = number;
        after.rollout = Some(self.new_rollout(proven(before), number, RolloutState::Updating));
        self.forget_revisions(&mut after)?;
        Ok(self.put_service(before, after, true))
    }

    fn new_rollout(&self, from: u32, to: u32, state: RolloutState) -> Rollout {
        let verb = match state {
            RolloutState::RollingBack => "rolling back",
            _ => "updating",
        };
        Rollout {
            from,
            to,
            state,
            message: format!("{verb} from revision {from} to {to}"),
            started_at: self.time,
            finished_at: None,
            batch_at: self.time,
            failures: 0,
        }
    }

    /// Drops the oldest revisions above the kept number, except those that something needs.
    fn forget_revisions(&self, service: &mut Service) -> Result<(), Rejection> {
        if service.revisions.len() <= limits::SERVICE_REVISIONS_KEPT {
            return Ok(());
        }
        let used = self.revisions_in_use(service.id);
        let from = service.rollout.as_ref().map(|r| r.from);
        let newest = service.revisions.last().map(|r| r.number);
        let mut excess = service.revisions.len() - limits::SERVICE_REVISIONS_KEPT;
        let in_force = service.revision;
        service.revisions.retain(|r| {
            let number = Some(r.number);
            // The newest stays so that its number is never given twice.
            let needed = used.contains(&r.number)
                || r.number == in_force
                || number == from
                || number == newest;
            if needed || excess == 0 {
                return true;
            }
            excess -= 1;
            false
        });
        if service.revisions.len() > limits::SERVICE_REVISIONS_MAX {
            return Err(Rejection::Limit {
                what: "revisions of one service that containers still use",
                limit: limits::SERVICE_REVISIONS_MAX as u64,
                remedy: "wait until the running rollout has replaced old containers",
            });
        }
        Ok(())
    }

    fn service_set_replicas(
        &mut self,
        before: &Service,
        replicas: u32,
    ) -> Result<OpResult, Rejection> {
        if before.spec.mode == Mode::Global {
            return Err(ValidationError::one(
                "replicas",
                format!(
                    "service {:?} is global: it runs once on every node",
                    before.name()
                ),
                "change its placement constraints instead",
            )
            .into());
        }
        let mut spec = ServiceSpec::clone(&before.spec);
        spec.mode = Mode::Replicated { replicas };
        spec.validate()?;
        let mut after = before.clone();
        after.spec = Arc::new(spec);
        Ok(self.put_service(before, after, false))
    }

    fn service_set_rollout(
        &mut self,
        before: &Service,
        rollout: Option<&Rollout>,
    ) -> Result<OpResult, Rejection> {
        let mut after = before.clone();
        after.rollout = match rollout {
            None => None,
            Some(rollout) if rollout.to != before.revision => {
                let reason = format!(
                    "has revision {} in force, the rollout goes to {}",
                    before.revision, rollout.to
                );
                return Err(service_not_now(before, &reason, "read the service again"));
            }
            Some(rollout) => {
                let Some(from) = before.revision_spec(rollout.from) else {
                    let reason = format!("has no revision {} to come from", rollout.from);
                    return Err(service_not_now(before, &reason, "read the service again"));
                };
                if rollout.finished_at.is_none() {
                    self.check_references(from)?;
                }
                let mut rollout = rollout.clone();
                rollout.message = cut(&rollout.message, limits::REASON_BYTES_MAX);
                Some(rollout)
            }
        };
        Ok(self.put_service(before, after, false))
    }

    fn service_rollback(
        &mut self,
        before: &Service,
        to: Option<u32>,
    ) -> Result<OpResult, Rejection> {
        let Some(to) = to.or_else(|| previous(before)) else {
            let remedy = "only a service that was updated can be rolled back";
            return Err(service_not_now(before, "has no earlier revision", remedy));
        };
        if to == before.revision {
            let reason = format!("already has revision {to} in force");
            return Err(service_not_now(before, &reason, "choose another revision"));
        }
        let Some(old) = before.revision_spec(to) else {
            let kept: Vec<String> = before
                .revisions
                .iter()
                .map(|r| r.number.to_string())
                .collect();
            let reason = format!("keeps no revision {to}, only {}", kept.join(", "));
            return Err(service_not_now(before, &reason, "choose a kept revision"));
        };
        let mut spec = ServiceSpec::clone(old);
        spec.mode = before.spec.mode;
        spec.labels.clone_from(&before.spec.labels);
        spec.update = before.spec.update.clone();
        let spec = if spec == **old {
            Arc::clone(old)
        } else {
            Arc::new(spec)
        };
        self.check_references(&spec)?;
        self.check_ports(before.id, &spec)?;
        let mut after = before.clone();
        after.spec = spec;
        after.revision = to;
        after.rollout = Some(self.new_rollout(before.revision, to, RolloutState::RollingBack));
        Ok(self.put_service(before, after, true))
    }

    fn service_remove(&mut self, service: &Service) -> Result<OpResult, Rejection> {
        if !service.deleting {
            let remedy = "delete it with `warren service delete`";
            return Err(service_not_now(service, "is not being deleted", remedy));
        }
        let left = self.state.containers_of_service(service.id).count();
        if left > 0 {
            let reason = format!("still has {left} container records");
            let remedy = "wait until its containers have ended";
            return Err(service_not_now(service, &reason, remedy));
        }
        Ok(self.remove::<Service>(service.id.as_u128()))
    }

    pub(super) fn check_references(&self, spec: &ServiceSpec) -> Result<(), Rejection> {
        let missing = missing_references(self.state, spec);
        if missing.is_empty() {
            return Ok(());
        }
        Err(Rejection::Missing {
            kind: ObjectKind::Service,
            name: spec.name.clone(),
            missing,
        })
    }

    /// Two services never publish one port where both would listen: an ingress port is open on
    /// every node, and so is the host port of a global service.
    fn check_ports(&self, id: ServiceId, spec: &ServiceSpec) -> Result<(), Rejection> {
        let global = spec.mode == Mode::Global;
        for port in spec.ports.iter().filter(|p| p.host_port != 0) {
            let (protocol, number) = (protocol_key(port.protocol), port.host_port);
            let range = (protocol, number, 0)..=(protocol, number, u128::MAX);
            for ((_, _, other), published) in self.state.published.range(range) {
                let clash = port.publish_mode == PublishMode::Ingress
                    || published.mode == PublishMode::Ingress
                    || (global && published.global);
                if *other != id.as_u128() && clash {
                    let other = self.get::<Service>(*other)?;
                    return Err(Rejection::PortTaken {
                        port: number,
                        protocol: port.protocol,
                        by: other.name().to_owned(),
                    });
                }
            }
        }
        Ok(())
    }
}

fn check_identity(before: &ServiceSpec, after: &ServiceSpec) -> Result<(), Rejection> {
    if before.name != after.name {
        return Err(ValidationError::one(
            "name",
            format!("a service keeps its name, {:?}", before.name),
            "create a service with the new name and delete the old one",
        )
        .into());
    }
    if matches!(before.mode, Mode::Global) != matches!(after.mode, Mode::Global) {
        return Err(ValidationError::one(
            "mode",
            "a service stays replicated or global",
            "delete the service and create it again",
        )
        .into());
    }
    Ok(())
}

/// Do containers of both specs look the same? Replica count, labels of the service and update
/// settings reach no container.
pub(crate) fn same_containers(a: &ServiceSpec, b: &ServiceSpec) -> bool {
    a.container == b.container
        && a.ports == b.ports
        && a.networks == b.networks
        && a.placement == b.placement
}

/// The revision that last was fully rolled out.
fn proven(service: &Service) -> u32 {
    match &service.rollout {
        Some(rollout)
            if matches!(rollout.state, RolloutState::Updating | RolloutState::Paused)
                && service.revision_spec(rollout.from).is_some() =>
        {
            rollout.from
        }
        _ => service.revision,
    }
}

/// The revision that a plain "roll back" goes to.
fn previous(service: &Service) -> Option<u32> {
    let from = service
        .rollout
        .as_ref()
        .filter(|r| r.to == service.revision && r.from != service.revision)
        .map(|r| r.from)
        .filter(|from| service.revision_spec(*from).is_some());
    from.or_else(|| {
        let older = service.revisions.iter().map(|r| r.number);
        older.filter(|n| *n < service.revision).max()
    })
}

/// Everything that a spec names, with its kind.
pub(crate) fn references(spec: &ServiceSpec) -> impl Iterator<Item = (ObjectKind, &str)> {
    let container = &spec.container;
    let secrets = container.secrets.iter();
    let configs = container.configs.iter();
    let volumes = container.mounts.iter().filter_map(|m| match m {
        Mount::Volume { source, .. } => Some((ObjectKind::Volume, source.as_str())),
        _ => None,
    });
    secrets
        .map(|f| (ObjectKind::Secret, f.source.as_str()))
        .chain(configs.map(|f| (ObjectKind::Config, f.source.as_str())))
        .chain(volumes)
        .chain(
            spec.networks
                .iter()
                .map(|n| (ObjectKind::Network, n.as_str())),
        )
}

pub(crate) fn missing_references(
    state: &ClusterState,
    spec: &ServiceSpec,
) -> Vec<MissingReference> {
    let exists = |kind, name: &str| match kind {
        ObjectKind::Secret => state.secret_by_name(name).is_some(),
        ObjectKind::Config => state.config_by_name(name).is_some(),
        ObjectKind::Volume => state.volume_by_name(name).is_some(),
        _ => state.network_by_name(name).is_some(),
    };
    let mut missing: Vec<MissingReference> = Vec::new();
    for (kind, name) in references(spec).filter(|(kind, name)| !exists(*kind, name)) {
        let one = MissingReference {
            kind,
            name: name.to_owned(),
        };
        if !missing.contains(&one) {
            missing.push(one);
        }
    }
    missing
}

/// The specs of a service that matter now: the one in force, those of live containers, and where a
/// rollout under way came from.
pub(crate) fn live_specs(state: &ClusterState, service: &Service) -> Vec<Arc<ServiceSpec>> {
    let mut specs = vec![Arc::clone(&service.spec)];
    if service.revisions.len() == 1 {
        return specs;
    }
    let live = state
        .containers_of_service(service.id)
        .filter(|c| !c.status.state.is_final())
        .map(|c| c.service_revision);
    let from = service
        .rollout
        .iter()
        .filter(|r| r.finished_at.is_none())
        .map(|r| r.from);
    let numbers: std::collections::BTreeSet<u32> = live.chain(from).collect();
    specs.extend(
        numbers
            .into_iter()
            .filter_map(|n| service.revision_spec(n).cloned()),
    );
    specs
}
