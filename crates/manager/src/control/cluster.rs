//! This daemon.

use super::Control;
use crate::manager::ManagerEvent;
use warren_api::{ApiError, ApiResult};
use warren_proto::v1;
use warren_types::{ActualState, Duration, Liveness};

/// Time for open calls to end when the caller names none.
const STOP_GRACE: Duration = Duration::from_secs(5);

pub(super) fn status(control: &Control) -> v1::GetStatusResponse {
    let state = control.state();
    let node = state.node(control.local.node);
    let leadership = control.raft.leadership();
    let leadership = leadership.borrow().clone();
    let connected =
        node.is_some_and(|n| !n.role.runs_containers() || n.liveness == Liveness::Ready);
    let quorum = control.raft.contact().in_quorum;
    let reason = match (quorum, connected) {
        (false, _) => "outside the quorum: no leader is in reach".to_owned(),
        (true, false) => "the node's own worker has not opened its session yet".to_owned(),
        (true, true) => String::new(),
    };
    v1::GetStatusResponse {
        version: control.local.version.clone(),
        node_id: control.local.node.to_string(),
        node_name: control.local.name.clone(),
        cluster_id: state
            .settings()
            .map_or_else(String::new, |s| s.id.to_string()),
        role: node.map_or_else(String::new, |n| n.role.name().to_owned()),
        ready: reason.is_empty(),
        leader: leadership.is_leader,
        revision: state.revision().0,
        data_dir: control.local.data_dir.display().to_string(),
        reason,
        started_at: Some(warren_proto::convert::timestamp_to_api(
            control.local.started_at,
        )),
        pid: std::process::id(),
        api_address: control.local.api_address.clone(),
        quorum,
        removed: state.is_removed(control.local.node).is_some(),
        state_hash: state.hash(),
        ..v1::GetStatusResponse::default()
    }
}

pub(super) async fn stop(
    control: &Control,
    grace: Option<Duration>,
) -> ApiResult<v1::StopDaemonResponse> {
    let state = control.state();
    let here = state.containers_on_node(control.local.node);
    let running = here
        .filter(|c| c.status.state == ActualState::Running)
        .count();
    let asked = control
        .events
        .send(ManagerEvent::StopAsked(grace.unwrap_or(STOP_GRACE)))
        .await;
    asked.map_err(|_| {
        ApiError::unavailable("the daemon is stopping already", "wait until it has ended")
    })?;
    Ok(v1::StopDaemonResponse {
        pid: std::process::id(),
        containers_left: u32::try_from(running).unwrap_or(u32::MAX),
    })
}

/// The quorum is lost for good, says the operator: the daemon stops this manager, makes it the only one, and starts it
/// again.
pub(super) async fn recover(
    control: &Control,
    request: &v1::RecoverClusterRequest,
) -> ApiResult<v1::RecoverClusterResponse> {
    if control.raft.contact().in_quorum && !request.force {
        return Err(ApiError::precondition(
            "the quorum is there: going on alone would lose what the other managers have",
            "nothing needs to be recovered; if you are sure, use --force",
        ));
    }
    let status = control.raft.status();
    let answer = v1::RecoverClusterResponse {
        revision: control.state().revision().0,
        applied_index: status.applied_index.unwrap_or(0),
    };
    let told = control.events.send(ManagerEvent::Recover).await;
    told.map_err(|_| ApiError::unavailable("the daemon is stopping", "start it again first"))?;
    Ok(answer)
}
