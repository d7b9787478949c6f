//! The cluster's settings (TR-04, PE-03).

use super::{Control, info};
use crate::edge;
use warren_api::{ApiError, ApiResult, Caller, ChangeOptions};
use warren_proto::v1;
use warren_state::Op;
use warren_types::{ClusterSettings, RaftProfile};

pub(super) async fn update(
    control: &Control,
    caller: &Caller,
    request: v1::UpdateClusterSettingsRequest,
) -> ApiResult<v1::UpdateClusterSettingsResponse> {
    let state = control.state();
    let before = info::settings(&state)?;
    let mut after = before.clone();
    let set = |field: &mut u64, value: Option<u64>| *field = value.unwrap_or(*field);
    set(&mut after.snapshot_entries, request.snapshot_entries);
    set(&mut after.snapshot_bytes, request.snapshot_bytes);
    set(&mut after.log_bytes_max, request.log_bytes_max);
    set(&mut after.heartbeat.0, request.heartbeat_ms);
    set(&mut after.node_down_after.0, request.node_down_after_ms);
    if let Some(name) = &request.raft_profile {
        after.raft_profile = RaftProfile::from_name(name).ok_or_else(|| {
            ApiError::field(
                "raft_profile",
                format!("there is no profile {name:?}"),
                "give \"lan\" or \"wan\"",
            )
        })?;
    }
    let settings = replace(control, caller, before, after).await?;
    Ok(v1::UpdateClusterSettingsResponse {
        settings: Some(info::settings_view(&settings)),
    })
}

/// Puts changed settings in the place of those that they were made from.
pub(super) async fn replace(
    control: &Control,
    caller: &Caller,
    before: &ClusterSettings,
    after: ClusterSettings,
) -> ApiResult<ClusterSettings> {
    let op = Op::SettingsUpdate {
        expect: Some(before.version),
        settings: Box::new(after.clone()),
    };
    let (_, state) = control
        .change(caller, edge::now(), vec![op], &ChangeOptions::default())
        .await?;
    Ok(state.settings().map_or(after, |s| s.as_ref().clone()))
}
