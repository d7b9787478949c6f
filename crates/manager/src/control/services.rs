//! Services.

use super::Control;
use crate::edge;
use std::sync::Arc;
use warren_api::{ApiError, ApiResult, Caller, ChangeOptions};
use warren_proto::convert::ServiceView;
use warren_state::{ClusterState, Op, OpResult};
use warren_types::{
    ActualState, ContainerId, DesiredState, HealthVerdict, Id128, Mode, Revision, RolloutState,
    Service, ServiceId, ServiceSpec,
};

/// The service with this id or name. One that is being deleted is still shown.
pub(super) fn find<'a>(state: &'a ClusterState, target: &str) -> ApiResult<&'a Arc<Service>> {
    let by_name = state.service_by_name(target);
    let found = by_name.or_else(|| {
        target
            .parse::<ServiceId>()
            .ok()
            .and_then(|id| state.service(id))
    });
    found.ok_or_else(|| ApiError::not_found("service", target))
}

/// All services by name.
pub(super) fn list(state: &ClusterState) -> Vec<ServiceView> {
    let mut services: Vec<_> = state.services().collect();
    services.sort_by(|a, b| a.name().cmp(b.name()));
    services
        .into_iter()
        .map(|service| view(state, service))
        .collect()
}

/// A service with its counts and why it is not as wanted.
pub(super) fn view(state: &ClusterState, service: &Arc<Service>) -> ServiceView {
    let (mut running, mut ready) = (0, 0);
    let mut waiting = None;
    let mut wanted_records = 0;
    for container in state.containers_of_service(service.id) {
        let status = &container.status;
        if status.state == ActualState::Running {
            running += 1;
            if matches!(
                status.health,
                HealthVerdict::Unknown | HealthVerdict::Healthy
            ) {
                ready += 1;
            }
        }
        if container.desired == DesiredState::Running {
            wanted_records += 1;
            if status.state != ActualState::Running && !status.reason.is_empty() {
                waiting = Some(status.reason.clone());
            }
        }
    }
    if waiting.is_none() && !service.deleting {
        // A place without a record waits for its replacement; the planner knows why.
        let plan = warren_reconciler::plan_service(
            state,
            service.id,
            edge::now(),
            &mut ContainerId::default,
        );
        waiting = plan.waits.into_iter().next().map(|wait| wait.reason);
    }
    let desired = match service.spec.mode {
        Mode::Replicated { replicas } => replicas,
        Mode::Global => wanted_records,
    };
    ServiceView {
        service: service.clone(),
        running,
        ready,
        desired: if service.deleting { 0 } else { desired },
        reason: reason(service, waiting),
    }
}

fn reason(service: &Service, waiting: Option<String>) -> String {
    if service.deleting {
        return "being deleted: its containers are stopping".to_owned();
    }
    let troubled = |state: RolloutState| state != RolloutState::Completed;
    match (&service.rollout, waiting) {
        (_, Some(reason)) => reason,
        (Some(rollout), None) if troubled(rollout.state) => rollout.message.clone(),
        _ => String::new(),
    }
}

pub(super) async fn create(
    control: &Control,
    caller: &Caller,
    spec: ServiceSpec,
    options: ChangeOptions,
) -> ApiResult<ServiceView> {
    let op = Op::ServiceCreate {
        id: ServiceId(edge::new_id()),
        spec: Arc::new(spec),
    };
    changed(control, caller, op, &options).await
}

pub(super) async fn update(
    control: &Control,
    caller: &Caller,
    target: &str,
    spec: ServiceSpec,
    options: ChangeOptions,
) -> ApiResult<ServiceView> {
    let id = find(&control.state(), target)?.id;
    let op = Op::ServiceUpdate {
        id,
        expect: options.expect,
        spec: Arc::new(spec),
    };
    changed(control, caller, op, &options).await
}

pub(super) async fn scale(
    control: &Control,
    caller: &Caller,
    target: &str,
    replicas: u32,
    options: ChangeOptions,
) -> ApiResult<ServiceView> {
    let id = find(&control.state(), target)?.id;
    let op = Op::ServiceSetReplicas {
        id,
        expect: options.expect,
        replicas,
    };
    changed(control, caller, op, &options).await
}

pub(super) async fn rollback(
    control: &Control,
    caller: &Caller,
    target: &str,
    to: Option<u32>,
    options: ChangeOptions,
) -> ApiResult<ServiceView> {
    let id = find(&control.state(), target)?.id;
    changed(
        control,
        caller,
        Op::ServiceRollback {
            id,
            expect: options.expect,
            to,
        },
        &options,
    )
    .await
}

pub(super) async fn delete(control: &Control, caller: &Caller, target: &str) -> ApiResult<()> {
    let id = find(&control.state(), target)?.id;
    control
        .change_now(caller, Op::ServiceDelete { id, expect: None })
        .await?;
    Ok(())
}

async fn changed(
    control: &Control,
    caller: &Caller,
    op: Op,
    options: &ChangeOptions,
) -> ApiResult<ServiceView> {
    let spec = match &op {
        Op::ServiceCreate { spec, .. } | Op::ServiceUpdate { spec, .. } => Some(spec.clone()),
        _ => None,
    };
    let (applied, state) = control
        .change(caller, edge::now(), vec![op], options)
        .await?;
    let id = applied.results.first().and_then(service_id);
    let id = id.ok_or_else(|| ApiError::internal("the state gave no service back"))?;
    let version = applied.results.first().and_then(version_of);
    let now = state.service(id);
    if let Some(service) = now.filter(|now| version.is_none_or(|version| now.version == version)) {
        return Ok(view(&state, service));
    }
    let service = written(now, id, spec, version.unwrap_or_default())
        .ok_or_else(|| ApiError::not_found("service", id.to_string()))?;
    Ok(view(&state, &Arc::new(service)))
}

/// A service as a write left it that somebody else has changed or removed since. The answer is about that write: "not
/// found", or the other one's spec, would say that nothing was done. `None` when it is gone and the write had no spec.
fn written(
    now: Option<&Arc<Service>>,
    id: ServiceId,
    spec: Option<Arc<ServiceSpec>>,
    version: Revision,
) -> Option<Service> {
    match (now, spec) {
        (Some(now), spec) => Some(Service {
            spec: spec.unwrap_or_else(|| now.spec.clone()),
            version,
            ..Service::clone(now)
        }),
        (None, Some(spec)) => Some(Service {
            id,
            spec,
            revision: 1,
            revisions: Vec::new(),
            rollout: None,
            deleting: true,
            created_at: edge::now(),
            updated_at: edge::now(),
            version,
        }),
        (None, None) => None,
    }
}

const fn version_of(result: &OpResult) -> Option<Revision> {
    match result {
        OpResult::Service { version, .. } | OpResult::Changed { version, .. } => Some(*version),
        OpResult::Removed { .. } | OpResult::Statuses(_) => None,
    }
}

fn service_id(result: &OpResult) -> Option<ServiceId> {
    let id: Id128 = match result {
        OpResult::Service { id, .. } => id.0,
        OpResult::Changed { id, .. } | OpResult::Removed { id, .. } => *id,
        OpResult::Statuses(_) => return None,
    };
    Some(ServiceId(id))
}
