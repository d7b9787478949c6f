//! The cluster as a whole and this daemon.

use super::Control;
use warren_api::{ApiError, ApiResult};
use warren_proto::v1;
use warren_security::CaDigest;
use warren_types::{ActualState, Duration, Liveness};

/// Time for open calls to end when the caller names none.
const STOP_GRACE: Duration = Duration::from_secs(5);

pub(super) fn info(control: &Control) -> v1::GetClusterInfoResponse {
    let state = control.state();
    let leadership = control.raft.leadership();
    let leadership = leadership.borrow().clone();
    let leader = leadership.leader.and_then(|id| state.node(id));
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let settings = state.settings();
    let live = || state.containers().filter(|c| !c.status.state.is_final());
    let managers: Vec<_> = state.nodes().filter(|n| n.role.is_manager()).collect();
    v1::GetClusterInfoResponse {
        leader_id: leader.map_or_else(String::new, |n| n.id.to_string()),
        leader_addr: leader.map_or_else(String::new, |n| n.address.clone()),
        leader_name: leader.map_or_else(String::new, |n| n.name.clone()),
        servers: managers
            .iter()
            .map(|n| v1::ClusterServer {
                id: n.id.to_string(),
                address: n.address.clone(),
                suffrage: "Voter".to_owned(),
                ..v1::ClusterServer::default()
            })
            .collect(),
        cluster_id: settings.map_or_else(String::new, |s| s.id.to_string()),
        cluster_name: settings.map_or_else(String::new, |s| s.name.clone()),
        nodes: count(state.nodes().count()),
        nodes_ready: count(
            state
                .nodes()
                .filter(|n| n.liveness == Liveness::Ready)
                .count(),
        ),
        managers: count(managers.len()),
        services: count(state.services().count()),
        containers: count(live().count()),
        containers_running: count(
            live()
                .filter(|c| c.status.state == ActualState::Running)
                .count(),
        ),
        quorum: leadership.leader.is_some(),
        revision: state.revision().0,
        term: leadership.term,
        ca_fingerprint: settings
            .and_then(|s| s.ca.roots_pem.last())
            .map_or_else(String::new, |pem| fingerprint(pem)),
        created_at: settings.map(|s| warren_proto::convert::timestamp_to_api(s.created_at)),
        ..v1::GetClusterInfoResponse::default()
    }
}

fn fingerprint(pem: &str) -> String {
    let digest = CaDigest::of_pem(pem);
    digest.map_or_else(
        |_| String::new(),
        |d| d.0.iter().map(|b| format!("{b:02x}")).collect(),
    )
}

pub(super) fn status(control: &Control) -> v1::GetStatusResponse {
    let state = control.state();
    let node = state.node(control.local.node);
    let leadership = control.raft.leadership();
    let leadership = leadership.borrow().clone();
    let connected =
        node.is_some_and(|n| !n.role.runs_containers() || n.liveness == Liveness::Ready);
    let reason = match (leadership.leader.is_some(), connected) {
        (false, _) => "no leader is known yet".to_owned(),
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
        quorum: leadership.leader.is_some(),
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
    let asked = control.stop.send(grace.unwrap_or(STOP_GRACE)).await;
    asked.map_err(|_| {
        ApiError::unavailable("the daemon is stopping already", "wait until it has ended")
    })?;
    Ok(v1::StopDaemonResponse {
        pid: std::process::id(),
        containers_left: u32::try_from(running).unwrap_or(u32::MAX),
    })
}
