//! Secrets: sealed here, never shown.

use super::Control;
use crate::edge;
use std::collections::BTreeMap;
use std::sync::Arc;
use warren_api::{ApiError, ApiResult, Caller, ChangeOptions, SecretView};
use warren_state::{ClusterState, ObjectKind, Op, OpResult};
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
    let users = state.users_of(ObjectKind::Secret, &secret.name);
    SecretView {
        secret: secret.clone(),
        used_by: users.map(|s| s.name().to_owned()).collect(),
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
        name,
        labels,
        data: sealed,
        size: data.len() as u64,
        created_at: time,
        updated_at: time,
        version: Revision(0),
    };
    let op = Op::SecretCreate(Box::new(secret.clone()));
    let (applied, state) = control.change(caller, time, vec![op], &options).await?;
    written(&state, secret, applied.results.first())
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
        secret: Box::new(secret.clone()),
    };
    let (applied, state) = control.change(caller, time, vec![op], &options).await?;
    written(&state, secret, applied.results.first())
}

/// The answer to a write is what that write made, also when somebody else has changed or removed the secret since: "not
/// found" would say that nothing was done.
fn written(
    state: &ClusterState,
    secret: Secret,
    result: Option<&OpResult>,
) -> ApiResult<SecretView> {
    let Some(OpResult::Changed { id, version, .. }) = result else {
        return Err(ApiError::internal("the state gave no secret back"));
    };
    let (id, version) = (SecretId(*id), *version);
    let now = state.secret(id).filter(|now| now.version == version);
    let written = now.cloned().unwrap_or_else(|| {
        Arc::new(Secret {
            id,
            version,
            ..secret
        })
    });
    Ok(view(state, &written))
}

pub(super) async fn delete(control: &Control, caller: &Caller, target: &str) -> ApiResult<()> {
    let id = find(&control.state(), target)?.id;
    control
        .change_now(caller, Op::SecretDelete { id, expect: None })
        .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use warren_types::Timestamp;

    #[test]
    fn a_write_is_answered_by_what_it_wrote_whatever_came_after_it() {
        let id = SecretId::from_u128(7);
        let secret = Secret {
            id,
            name: "word".to_owned(),
            labels: BTreeMap::new(),
            data: warren_types::SealedData::default(),
            size: 3,
            created_at: Timestamp(1),
            updated_at: Timestamp(1),
            version: Revision(0),
        };
        let result = OpResult::Changed {
            kind: ObjectKind::Secret,
            id: id.0,
            version: Revision(9),
        };
        // It has been removed since.
        let view = written(&ClusterState::default(), secret, Some(&result)).unwrap();
        assert_eq!((view.secret.id, view.secret.version), (id, Revision(9)));
        assert_eq!(view.secret.size, 3);
    }
}
