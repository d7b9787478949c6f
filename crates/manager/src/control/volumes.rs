//! Named volumes.

use super::{Control, failure};
use crate::edge;
use std::sync::Arc;
use warren_api::{ApiError, ApiResult, Caller, ChangeOptions, NewVolume, VolumeView};
use warren_proto::session::{self, reply, request};
use warren_state::{ClusterState, ObjectKind, Op, OpResult};
use warren_types::{Revision, Volume, VolumeId};

/// The volume with this id or name.
pub(super) fn find<'a>(state: &'a ClusterState, target: &str) -> ApiResult<&'a Arc<Volume>> {
    let by_name = state.volume_by_name(target);
    let found = by_name.or_else(|| {
        target
            .parse::<VolumeId>()
            .ok()
            .and_then(|id| state.volume(id))
    });
    found.ok_or_else(|| ApiError::not_found("volume", target))
}

pub(super) fn view(state: &ClusterState, volume: &Arc<Volume>) -> VolumeView {
    let users = state.users_of(ObjectKind::Volume, &volume.name);
    VolumeView {
        volume: volume.clone(),
        node_name: volume
            .node
            .and_then(|id| state.node(id))
            .map_or_else(String::new, |n| n.name.clone()),
        used_by: users.map(|s| s.name().to_owned()).collect(),
    }
}

pub(super) fn list(state: &ClusterState) -> Vec<VolumeView> {
    let mut volumes: Vec<&Arc<Volume>> = state.volumes().collect();
    volumes.sort_by(|a, b| a.name.cmp(&b.name));
    volumes.into_iter().map(|v| view(state, v)).collect()
}

pub(super) async fn create(
    control: &Control,
    caller: &Caller,
    new: NewVolume,
    options: ChangeOptions,
) -> ApiResult<VolumeView> {
    let time = edge::now();
    let volume = Volume {
        id: VolumeId(edge::new_id()),
        name: new.name,
        driver: new.driver,
        driver_opts: new.driver_opts,
        labels: new.labels,
        node: None,
        mount_path: String::new(),
        created_at: time,
        version: Revision(0),
    };
    let op = Op::VolumeCreate(Box::new(volume.clone()));
    let (applied, state) = control.change(caller, time, vec![op], &options).await?;
    let Some(OpResult::Changed { id, version, .. }) = applied.results.first() else {
        return Err(ApiError::internal("the state gave no volume back"));
    };
    // It may have been removed since; made it was.
    let (id, version) = (VolumeId(*id), *version);
    let made = state.volume(id).cloned().unwrap_or_else(|| {
        Arc::new(Volume {
            id,
            version,
            ..volume
        })
    });
    Ok(view(&state, &made))
}

/// The record goes first: after that nothing can mount the volume, so its data can go too.
pub(super) async fn delete(
    control: &Control,
    caller: &Caller,
    target: &str,
    force: bool,
) -> ApiResult<()> {
    let volume = find(&control.state(), target)?.clone();
    if let Some(node) = volume.node
        && !force
        && !control.dispatcher()?.is_connected(node)
    {
        return Err(ApiError::precondition(
            format!(
                "the node that holds the data of volume {:?} is not connected",
                volume.name
            ),
            "wait for it, or use --force, which leaves the data on its disk",
        ));
    }
    control
        .change_now(
            caller,
            Op::VolumeDelete {
                id: volume.id,
                expect: Some(volume.version),
            },
        )
        .await?;
    if let Some(node) = volume.node {
        let removed = remove_data(control, node, &volume).await;
        if let (Err(error), false) = (removed, force) {
            return Err(error);
        }
    }
    Ok(())
}

async fn remove_data(
    control: &Control,
    node: warren_types::NodeId,
    volume: &Volume,
) -> ApiResult<()> {
    let body = request::Body::VolumeRemove(session::VolumeRemove {
        volume_id: volume.id.as_u128().to_be_bytes().to_vec(),
    });
    let mut request = control
        .dispatcher()?
        .ask(node, body)
        .await
        .map_err(failure::node)?;
    match request.next().await {
        Some(reply::Body::Done(_)) => Ok(()),
        Some(reply::Body::Error(error)) => Err(failure::node(error)),
        _ => Err(ApiError::unavailable(
            format!(
                "the record of volume {:?} is removed, but its node did not confirm that the data is",
                volume.name
            ),
            "look below the node's data directory, in volumes",
        )),
    }
}
