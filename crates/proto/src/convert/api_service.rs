//! Services ⇄ `warren.v1`: every older field is filled from the spec, and older requests become a spec.

use super::api_spec::{
    health_from_api, health_to_api, mount_from_api, mount_to_api, seconds, strategy_from_text,
    strategy_text, unsigned, update_from_api, wire_u32,
};
use super::{ConvertError, list, optional, timestamp_to_api};
use crate::v1;
use std::collections::BTreeMap;
use std::sync::Arc;
use warren_types::{
    ContainerSpec, Duration, EnvVar, Mode, Mount, Service, ServiceSpec, UpdateConfig,
};

/// Stop grace that the older field shows when the spec leaves it open.
const STOP_TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);

/// A service with what is known of its containers.
#[derive(Debug, Clone)]
pub struct ServiceView {
    /// The record.
    pub service: Arc<Service>,
    /// Containers whose main process runs.
    pub running: u32,
    /// Of these, the ones that take traffic.
    pub ready: u32,
    /// Containers it should have.
    pub desired: u32,
    /// Why it is not as wanted, in words; empty when it is.
    pub reason: String,
}

/// A service for the wire; `revisions` adds the kept revisions with their specs.
#[must_use]
pub fn service_to_api(view: &ServiceView, revisions: bool) -> v1::Service {
    let service = &view.service;
    let spec = service.spec.as_ref();
    let container = &spec.container;
    v1::Service {
        id: service.id.to_string(),
        name: spec.name.clone(),
        image: container.image.clone(),
        replicas: match spec.mode {
            Mode::Replicated { replicas } => wire_u32(replicas),
            Mode::Global => 0,
        },
        mode: mode_text(spec.mode).to_owned(),
        deploy_strategy: strategy_text(spec.update.strategy).to_owned(),
        update_config: Some((&spec.update).into()),
        health_check: health_to_api(&container.health),
        restart_policy: Some((&container.restart).into()),
        resources: Some((&container.resources).into()),
        networks: spec.networks.clone(),
        volumes: volumes_to_api(container),
        env: env_to_api(container),
        command: container.command.clone(),
        created_at: Some(timestamp_to_api(service.created_at)),
        updated_at: Some(timestamp_to_api(service.updated_at)),
        ports: spec.ports.iter().map(Into::into).collect(),
        stop_timeout: stop_timeout(container),
        spec: Some(spec.into()),
        version: service.version.0,
        revision: service.revision,
        running_count: view.running,
        ready_count: view.ready,
        desired_count: view.desired,
        rollout: service.rollout.as_ref().map(Into::into),
        labels: spec.labels.clone(),
        deleting: service.deleting,
        reason: view.reason.clone(),
        revisions: if revisions {
            service.revisions.iter().map(Into::into).collect()
        } else {
            Vec::new()
        },
    }
}

const fn mode_text(mode: Mode) -> &'static str {
    match mode {
        Mode::Replicated { .. } => "replicated",
        Mode::Global => "global",
    }
}

pub(super) fn volumes_to_api(container: &ContainerSpec) -> Vec<v1::VolumeMount> {
    container.mounts.iter().filter_map(mount_to_api).collect()
}

pub(super) fn env_to_api(container: &ContainerSpec) -> BTreeMap<String, String> {
    container
        .env
        .iter()
        .map(|v| (v.name.clone(), v.value.clone()))
        .collect()
}

pub(super) fn stop_timeout(container: &ContainerSpec) -> i32 {
    seconds(container.stop_grace.unwrap_or(STOP_TIMEOUT_DEFAULT))
}

fn env_from_api(env: BTreeMap<String, String>) -> Vec<EnvVar> {
    env.into_iter()
        .map(|(name, value)| EnvVar { name, value })
        .collect()
}

/// The spec that a create request asks for: `spec` when present, else the older fields.
///
/// # Errors
/// [`ConvertError`] names the field that is no part of a spec. Names and limits are not checked here.
pub fn spec_from_create(request: v1::CreateServiceRequest) -> Result<ServiceSpec, ConvertError> {
    if request.spec.is_some() {
        return super::nested(request.spec, "spec");
    }
    let strategy = strategy_from_text(&request.deploy_strategy)?;
    let stop_timeout = unsigned(request.stop_timeout, "stop_timeout")?;
    Ok(ServiceSpec {
        name: request.name,
        labels: BTreeMap::new(),
        mode: mode_from_api(&request.mode, request.replicas)?,
        container: ContainerSpec {
            image: request.image,
            command: request.command,
            env: env_from_api(request.env),
            mounts: request
                .volumes
                .into_iter()
                .map(mount_from_api)
                .collect::<Vec<Mount>>(),
            resources: optional(request.resources, "resources")?.unwrap_or_default(),
            health: request
                .health_check
                .map(health_from_api)
                .transpose()
                .map_err(|e| e.within("health_check"))?
                .unwrap_or_default(),
            restart: optional(request.restart_policy, "restart_policy")?.unwrap_or_default(),
            stop_grace: (stop_timeout > 0).then(|| Duration::from_secs(u64::from(stop_timeout))),
            ..ContainerSpec::default()
        },
        ports: list(request.ports, "ports")?,
        networks: request.networks,
        placement: warren_types::Placement::default(),
        update: match request.update_config {
            Some(config) => {
                update_from_api(config, strategy).map_err(|e| e.within("update_config"))?
            }
            None => UpdateConfig {
                strategy,
                ..UpdateConfig::default()
            },
        },
    })
}

fn mode_from_api(mode: &str, replicas: i32) -> Result<Mode, ConvertError> {
    match mode {
        "global" => Ok(Mode::Global),
        "" | "replicated" => Ok(Mode::Replicated {
            replicas: unsigned(replicas, "replicas")?,
        }),
        other => Err(ConvertError::new(
            "mode",
            format!("{other:?} is neither replicated nor global"),
        )),
    }
}

/// The spec that an update request asks for, given the present one: `spec` when present, else the
/// older fields over the present spec (replicas 0, empty image and empty env leave it as it is, unless
/// `replicas_set`).
///
/// # Errors
/// [`ConvertError`] names the field that is no part of a spec.
pub fn spec_from_update(
    present: &ServiceSpec,
    request: v1::UpdateServiceRequest,
) -> Result<ServiceSpec, ConvertError> {
    if request.spec.is_some() {
        return super::nested(request.spec, "spec");
    }
    let mut spec = present.clone();
    let wanted = unsigned(request.replicas, "replicas")?;
    if wanted > 0 || request.replicas_set {
        match &mut spec.mode {
            Mode::Replicated { replicas } => *replicas = wanted,
            Mode::Global => {
                return Err(ConvertError::new(
                    "replicas",
                    "the service is global: it has one container on every node",
                ));
            }
        }
    }
    if !request.image.is_empty() {
        spec.container.image = request.image;
        spec.container.image_digest = None;
    }
    if !request.env.is_empty() {
        spec.container.env = env_from_api(request.env);
    }
    Ok(spec)
}

/// The spec that an image update asks for, given the present one; an empty strategy means rolling,
/// and an update message replaces the present settings.
///
/// # Errors
/// [`ConvertError`] names the field that is wrong.
pub fn spec_from_image_update(
    present: &ServiceSpec,
    request: v1::UpdateServiceImageRequest,
) -> Result<ServiceSpec, ConvertError> {
    if request.image.is_empty() {
        return Err(ConvertError::new("image", "missing"));
    }
    let strategy = strategy_from_text(&request.strategy).map_err(|e| ConvertError {
        field: "strategy".to_owned(),
        ..e
    })?;
    let mut spec = present.clone();
    spec.container.image = request.image;
    spec.container.image_digest = None;
    spec.update = match request.update_config {
        Some(config) => update_from_api(config, strategy).map_err(|e| e.within("update_config"))?,
        None => UpdateConfig {
            strategy,
            ..spec.update
        },
    };
    Ok(spec)
}
