//! Secrets: sealed here, never shown.

use super::Control;
use crate::edge;
use std::collections::BTreeMap;
use std::sync::Arc;
use warren_api::{ApiError, ApiResult, Caller, ChangeOptions, SecretView};
use warren_state::{ClusterState, Op};
use warren_types::{Revision, Secret, SecretId};

/// The secret with this id or name.
pub(super) fn find<'a>(state: &'a ClusterState, target: &str) -> ApiResult<&'a Arc<Secret>> {
    let by_name = state.secret_by_name(target);
    let found = by_name.or_else(|| {
        target
            .parse::<SecretId>()
            .ok()
            .and_then(|id| state.secret(id))
    });
    found.ok_or_else(|| ApiError::not_found("secret", target))
}

pub(super) fn view(state: &ClusterState, secret: &Arc<Secret>) -> SecretView {
    let uses = |service: &&Arc<warren_types::Service>| {
        service
            .spec
            .container
            .secrets
            .iter()
            .any(|r| r.source == secret.name)
    };
    SecretView {
        secret: secret.clone(),
        used_by: state
            .services()
            .filter(uses)
            .map(|s| s.name().to_owned())
            .collect(),
    }
}

pub(super) fn list(state: &ClusterState) -> Vec<SecretView> {
    let mut secrets: Vec<&Arc<Secret>> = state.secrets().collect();
    secrets.sort_by(|a, b| a.name.cmp(&b.name));
    secrets.into_iter().map(|s| view(state, s)).collect()
}

pub(super) async fn create(
    control: &Control,
    caller: &Caller,
    name: String,
    labels: BTreeMap<String, String>,
    data: Vec<u8>,
    options: ChangeOptions,
) -> ApiResult<SecretView> {
    let time = edge::now();
    let id = edge::new_id();
    let sealed = control
        .secrets
        .seal_secret(id, time, &data)
        .map_err(|e| ApiError::internal(e.to_string()))?;
    let secret = Secret {
        id: SecretId(id),
        name: name.clone(),
        labels,
        data: sealed,
        size: data.len() as u64,
        created_at: time,
        updated_at: time,
        version: Revision(0),
    };
    let (_, state) = control
        .change(
            caller,
            time,
            vec![Op::SecretCreate(Box::new(secret))],
            &options,
        )
        .await?;
    find(&state, &name).map(|s| view(&state, s))
}

pub(super) async fn update(
    control: &Control,
    caller: &Caller,
    target: &str,
    data: Vec<u8>,
    options: ChangeOptions,
) -> ApiResult<SecretView> {
    let time = edge::now();
    let old = find(&control.state(), target)?.clone();
    let sealed = control
        .secrets
        .seal_secret(old.id.0, time, &data)
        .map_err(|e| ApiError::internal(e.to_string()))?;
    let secret = Secret {
        data: sealed,
        size: data.len() as u64,
        updated_at: time,
        ..old.as_ref().clone()
    };
    let op = Op::SecretUpdate {
        expect: options.expect,
        secret: Box::new(secret),
    };
    let (_, state) = control.change(caller, time, vec![op], &options).await?;
    find(&state, &old.name).map(|s| view(&state, s))
}

pub(super) async fn delete(control: &Control, caller: &Caller, target: &str) -> ApiResult<()> {
    let id = find(&control.state(), target)?.id;
    control
        .change_now(caller, Op::SecretDelete { id, expect: None })
        .await?;
    Ok(())
}
