//! Operations on containers.

use super::nodes::misrouted;
use super::{Tx, cut};
use crate::change::ObjectKind;
use crate::command::{Op, OpResult, StatusRefusal};
use crate::index;
use crate::rejection::Rejection;
use std::sync::Arc;
use warren_types::lifecycle;
use warren_types::{
    ActualState, Availability, Container, ContainerId, ContainerStatus, DesiredState, Id128,
    Liveness, Mode, Mount, Node, NodeId, Owner, Service, ServiceId, ServiceSpec, Slot,
    ValidationError, Volume, limits,
};

/// Reason of a fresh container record.
const REASON_NEW: &str = "waiting for the scheduler";
/// Reason of a container that was retired before it was placed.
const REASON_UNWANTED: &str = "no longer wanted, and was never placed";

impl Tx<'_> {
    pub(super) fn container_op(&mut self, op: &Op) -> Result<OpResult, Rejection> {
        match op {
            Op::ContainerCreate {
                id,
                service,
                expect_service,
                revision,
                slot,
            } => {
                let service = self.expect::<Service>(service.as_u128(), *expect_service)?;
                self.container_create(*id, &service, *revision, *slot)
            }
            Op::ContainerAssign { id, expect, node } => {
                let container = self.expect::<Container>(id.as_u128(), *expect)?;
                self.container_assign(&container, *node)
            }
            Op::ContainerSetReason { id, expect, reason } => {
                let before = self.expect::<Container>(id.as_u128(), *expect)?;
                if before.status.state != ActualState::Pending {
                    let reason = format!("it is {}, not pending", before.status.state);
                    return Err(not_now(*id, reason, "read the state again"));
                }
                let mut after = (*before).clone();
                after.status.reason = cut(reason, limits::REASON_BYTES_MAX);
                Ok(self.put(&*before, after))
            }
            Op::ContainerStatus { id, node, status } => self.container_status(*id, *node, status),
            Op::ContainerStatusBatch { node, statuses } => {
                let mut answers = Vec::with_capacity(statuses.len());
                for (id, status) in statuses {
                    answers.push(self.report(*id, *node, status).err());
                }
                Ok(OpResult::Statuses(answers))
            }
            Op::ContainerSetDesired {
                id,
                expect,
                desired,
            } => {
                let container = self.expect::<Container>(id.as_u128(), *expect)?;
                self.container_set_desired(&container, *desired)
            }
            Op::ContainerLost { id, expect, reason } => {
                let container = self.expect::<Container>(id.as_u128(), *expect)?;
                self.container_lost(&container, reason)
            }
            Op::ContainerDelete { id, expect } => {
                let container = self.expect::<Container>(id.as_u128(), *expect)?;
                let state = container.status.state;
                if !state.is_final() && state != ActualState::Pending {
                    let reason = format!("it is {state}");
                    let remedy = "shut it down first; its record can go when it has ended";
                    return Err(not_now(*id, reason, remedy));
                }
                Ok(self.remove::<Container>(id.as_u128()))
            }
            _ => Err(misrouted(op)),
        }
    }

    fn container_create(
        &mut self,
        id: ContainerId,
        service: &Service,
        revision: u32,
        slot: Slot,
    ) -> Result<OpResult, Rejection> {
        if service.deleting {
            return Err(service_not_now(
                service,
                "is being deleted",
                "make no more containers of it",
            ));
        }
        let Some(spec) = service.revision_spec(revision) else {
            let reason = format!("has no revision {revision}");
            return Err(service_not_now(service, &reason, "use a kept revision"));
        };
        self.check_slot(spec, slot)?;
        if revision != service.revision {
            // What an older revision names may have been removed since it was in force.
            self.check_references(spec)?;
        }
        let twin = self.state.containers_of_slot(service.id, slot).any(|c| {
            c.slot == slot
                && c.service_revision == revision
                && c.desired == DesiredState::Running
                && !c.status.state.is_final()
        });
        if twin {
            return Err(Rejection::AlreadyExists {
                kind: ObjectKind::Container,
                name: format!("{} of service {}", slot_text(slot), service.name()),
                note: format!(" at revision {revision}"),
            });
        }
        let status = ContainerStatus {
            reason: REASON_NEW.to_owned(),
            ..ContainerStatus::default()
        };
        let container = Container {
            id,
            service: service.id,
            service_revision: revision,
            slot,
            node: None,
            desired: DesiredState::Running,
            status,
            created_at: self.time,
            updated_at: self.time,
            version: self.revision(),
        };
        self.create(container, limits::CONTAINERS_MAX, "containers")
    }

    fn check_slot(&self, spec: &ServiceSpec, slot: Slot) -> Result<(), Rejection> {
        let problem = match (spec.mode, slot) {
            (Mode::Replicated { .. }, Slot::Replica(number)) => {
                if (1..=limits::REPLICAS_MAX).contains(&number) {
                    return Ok(());
                }
                format!("{number} is out of range")
            }
            (Mode::Global, Slot::Node(node)) => {
                return self.get::<Node>(node.as_u128()).map(|_| ());
            }
            (Mode::Replicated { .. }, Slot::Node(_)) => "is a node, of a replicated service".into(),
            (Mode::Global, Slot::Replica(_)) => "is a number, of a global service".into(),
        };
        let remedy = "use a number from 1 for replicated services and a node for global ones";
        Err(ValidationError::one("slot", problem, remedy).into())
    }

    /// R18: a placement that would over-commit memory, CPU or ports is refused here, whatever the
    /// scheduler believed.
    fn container_assign(
        &mut self,
        before: &Container,
        node: NodeId,
    ) -> Result<OpResult, Rejection> {
        step(before, ActualState::Assigned, Owner::Scheduler)?;
        if before.desired != DesiredState::Running {
            let reason = "it shall not run any more".to_owned();
            return Err(not_now(before.id, reason, "read the state again"));
        }
        let node = self.get::<Node>(node.as_u128())?;
        let service = self.get::<Service>(before.service.as_u128())?;
        if service.deleting {
            return Err(service_not_now(
                &service,
                "is being deleted",
                "place nothing of it",
            ));
        }
        let Some(spec) = service.revision_spec(before.service_revision).cloned() else {
            let reason = format!("has no revision {}", before.service_revision);
            return Err(service_not_now(&service, &reason, "use a kept revision"));
        };
        let refuse = |reason: String| Rejection::Placement {
            container: before.id,
            node: node.name.clone(),
            reason,
        };
        self.check_node(before, &node, &spec).map_err(refuse)?;
        self.bind_volumes(&node, &spec).map_err(refuse)?;
        let mut after = before.clone();
        after.node = Some(node.id);
        after.status.state = ActualState::Assigned;
        after.status.reason = cut(
            &format!("assigned to node {}", node.name),
            limits::REASON_BYTES_MAX,
        );
        after.updated_at = self.time;
        Ok(self.put(before, after))
    }

    fn check_node(
        &self,
        container: &Container,
        node: &Node,
        spec: &ServiceSpec,
    ) -> Result<(), String> {
        if !node.role.runs_containers() {
            return Err("it is a manager and runs no containers".to_owned());
        }
        if node.availability != Availability::Active {
            return Err("it is paused or drained".to_owned());
        }
        if node.liveness != Liveness::Ready {
            return Err("it does not answer".to_owned());
        }
        if let Slot::Node(wanted) = container.slot
            && wanted != node.id
        {
            return Err("the container belongs to another node".to_owned());
        }
        let usage = self.state.node_usage(node.id);
        let (cpu, memory) = index::reservation(spec);
        let cpu_free = node.resources.cpu.0.saturating_sub(usage.cpu.0);
        if cpu.0 > 0 && cpu.0 > cpu_free {
            let free = warren_types::MilliCpu(cpu_free);
            return Err(format!("it has {free} CPU free, {cpu} are reserved"));
        }
        let memory_free = node.resources.memory.0.saturating_sub(usage.memory.0);
        if memory.0 > 0 && memory.0 > memory_free {
            let free = warren_types::Bytes(memory_free);
            return Err(format!(
                "it has {free} of memory free, {memory} are reserved"
            ));
        }
        for (protocol, port) in index::host_ports(spec) {
            let key = (node.id.as_u128(), protocol, port);
            if let Some(holder) = self.state.node_ports.get(&key) {
                let holder = Id128(*holder);
                return Err(format!("port {port} is held by container {holder}"));
            }
        }
        Ok(())
    }

    /// Volumes of the container must be on this node; unbound ones are bound to it, so that no two
    /// nodes ever hold half of the data each.
    fn bind_volumes(&mut self, node: &Node, spec: &ServiceSpec) -> Result<(), String> {
        for mount in &spec.container.mounts {
            let Mount::Volume { source, .. } = mount else {
                continue;
            };
            let Some(volume) = self.state.volume_by_name(source).cloned() else {
                return Err(format!("volume {source:?} does not exist"));
            };
            match volume.node {
                Some(home) if home == node.id => {}
                Some(home) => {
                    let name = self.state.node(home).map(|n| n.name.clone());
                    let name = name.unwrap_or_else(|| format!("{home}, which was removed"));
                    return Err(format!("volume {source:?} is on node {name}"));
                }
                None => {
                    let mut bound = Volume::clone(&volume);
                    bound.node = Some(node.id);
                    self.put(&*volume, bound);
                }
            }
        }
        Ok(())
    }

    fn container_status(
        &mut self,
        id: ContainerId,
        node: NodeId,
        status: &ContainerStatus,
    ) -> Result<OpResult, Rejection> {
        self.report(id, node, status)
            .map_err(|refusal| match refusal {
                StatusRefusal::Unknown => Rejection::NotFound {
                    kind: ObjectKind::Container,
                    id: id.to_string(),
                },
                StatusRefusal::NotAssigned => {
                    let reason = format!("it is not assigned to node {node}");
                    not_now(id, reason, "only its own node may report on it")
                }
                StatusRefusal::Transition(source) => Rejection::Transition {
                    container: id,
                    source,
                },
            })
    }

    fn report(
        &mut self,
        id: ContainerId,
        node: NodeId,
        status: &ContainerStatus,
    ) -> Result<OpResult, StatusRefusal> {
        let before = self.state.container(id).cloned();
        let before = before.ok_or(StatusRefusal::Unknown)?;
        if before.node != Some(node) {
            return Err(StatusRefusal::NotAssigned);
        }
        let old = &before.status;
        lifecycle::check(
            old.state,
            old.attempt,
            status.state,
            status.attempt,
            Owner::Worker,
        )?;
        let mut after = (*before).clone();
        after.status = status.clone();
        after.status.reason = cut(&status.reason, limits::REASON_BYTES_MAX);
        if after.status.reason.is_empty() && status.state != ActualState::Running {
            after.status.reason = status.state.name().to_owned();
        }
        if status.state != old.state {
            after.updated_at = self.time;
        }
        Ok(self.put(&*before, after))
    }

    fn container_set_desired(
        &mut self,
        before: &Container,
        desired: DesiredState,
    ) -> Result<OpResult, Rejection> {
        if desired < before.desired {
            let reason = "it is being shut down".to_owned();
            return Err(not_now(before.id, reason, "make a new container"));
        }
        let mut after = before.clone();
        after.desired = desired;
        if desired != before.desired {
            after.updated_at = self.time;
            if before.status.state == ActualState::Pending {
                step(before, ActualState::Shutdown, Owner::Reconciler)?;
                after.status.state = ActualState::Shutdown;
                after.status.reason = REASON_UNWANTED.to_owned();
                after.status.finished_at = Some(self.time);
            }
        }
        Ok(self.put(before, after))
    }

    pub(super) fn container_lost(
        &mut self,
        before: &Container,
        reason: &str,
    ) -> Result<OpResult, Rejection> {
        step(before, ActualState::Lost, Owner::Reconciler)?;
        let mut after = before.clone();
        after.status.state = ActualState::Lost;
        after.status.reason = cut(reason, limits::REASON_BYTES_MAX);
        after.status.finished_at = Some(self.time);
        after.updated_at = self.time;
        Ok(self.put(before, after))
    }

    /// Numbers of the revisions that container records of a service refer to.
    pub(super) fn revisions_in_use(&self, id: ServiceId) -> std::collections::BTreeSet<u32> {
        self.state
            .containers_of_service(id)
            .map(|c: &Arc<Container>| c.service_revision)
            .collect()
    }
}

fn step(container: &Container, to: ActualState, owner: Owner) -> Result<(), Rejection> {
    let (state, attempt) = (container.status.state, container.status.attempt);
    lifecycle::check(state, attempt, to, attempt, owner).map_err(|source| Rejection::Transition {
        container: container.id,
        source,
    })
}

fn not_now(id: ContainerId, reason: String, remedy: &'static str) -> Rejection {
    Rejection::NotNow {
        kind: ObjectKind::Container,
        id: id.to_string(),
        reason,
        remedy,
    }
}

pub(super) fn service_not_now(service: &Service, reason: &str, remedy: &'static str) -> Rejection {
    Rejection::NotNow {
        kind: ObjectKind::Service,
        id: service.name().to_owned(),
        reason: reason.to_owned(),
        remedy,
    }
}

fn slot_text(slot: Slot) -> String {
    match slot {
        Slot::Replica(number) => format!("replica {number}"),
        Slot::Node(node) => format!("node {node}"),
    }
}
