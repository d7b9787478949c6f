//! `cluster info`: the health of the quorum, in figures and in words (TR-01..04, HA-09).

use super::{Control, members};
use warren_api::ApiResult;
use warren_proto::v1;
use warren_raft::{BUCKETS, Histogram, RaftStatus};
use warren_security::CaDigest;
use warren_state::ClusterState;
use warren_types::{ActualState, ClusterSettings, Liveness};

/// TR-01: more changes of the leader in an hour of this manager's life are an election storm.
const LEADER_CHANGES_PER_HOUR_MAX: u64 = 6;
/// TR-03: a commit that takes longer is slow, in seconds.
const SLOW_COMMIT_SECONDS: f64 = 0.05;
/// TR-03: a follower that lacks more entries holds the quorum back.
const LAG_SHOWN: u64 = 1_000;
/// TR-04: log entries beyond this many times the threshold are too many.
const LOG_FACTOR_MAX: u64 = 4;

pub(super) fn info(control: &Control) -> v1::GetClusterInfoResponse {
    let state = control.state();
    let status = control.raft.status();
    let leader = status
        .leadership
        .leader
        .filter(|_| control.raft.contact().in_quorum);
    let leader = leader.and_then(|id| state.node(id));
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let settings = state.settings();
    let live = || state.containers().filter(|c| !c.status.state.is_final());
    let is_running =
        |c: &&std::sync::Arc<warren_types::Container>| c.status.state == ActualState::Running;
    let voters = status.voters.len();
    let needed = voters / 2 + 1;
    let healthy = status
        .voters
        .keys()
        .filter(|id| members::answers(&status, **id))
        .count();
    let p99 = quantile(&control.raft.metrics().commit_time, 0.99);
    v1::GetClusterInfoResponse {
        leader_id: leader.map_or_else(String::new, |n| n.id.to_string()),
        leader_addr: leader.map_or_else(String::new, |n| n.address.clone()),
        leader_name: leader.map_or_else(String::new, |n| n.name.clone()),
        servers: members::everybody(control, &state),
        cluster_id: settings.map_or_else(String::new, |s| s.id.to_string()),
        cluster_name: settings.map_or_else(String::new, |s| s.name.clone()),
        nodes: count(state.nodes().count()),
        nodes_ready: count(
            state
                .nodes()
                .filter(|n| n.liveness == Liveness::Ready)
                .count(),
        ),
        managers: count(state.nodes().filter(|n| n.role.is_manager()).count()),
        services: count(state.services().count()),
        containers: count(live().count()),
        containers_running: count(live().filter(is_running).count()),
        quorum: control.raft.contact().in_quorum,
        revision: state.revision().0,
        term: status.leadership.term,
        ca_fingerprint: settings
            .and_then(|s| s.ca.roots_pem.last())
            .map_or_else(String::new, |pem| fingerprint(pem)),
        created_at: settings.map(|s| warren_proto::convert::timestamp_to_api(s.created_at)),
        voters: count(voters),
        voters_healthy: if status.leadership.is_leader {
            count(healthy)
        } else {
            0
        },
        quorum_needed: count(needed),
        failures_tolerated: if status.leadership.is_leader {
            count(healthy.saturating_sub(needed))
        } else {
            0
        },
        leader_changes: status.leader_changes,
        log_entries: status.log_entries,
        log_bytes: status.log_bytes,
        snapshot_index: status.snapshot_index.unwrap_or(0),
        snapshot_bytes: status.snapshot_bytes,
        applied_index: status.applied_index.unwrap_or(0),
        committed_index: status.committed_index.unwrap_or(0),
        warnings: warnings(control, &state, &status, p99),
        answered_by: control.local.name.clone(),
        settings: settings.map(|s| settings_view(s)),
        ca_rotation: settings.is_some_and(|s| s.ca.roots_pem.len() > 1),
        ca_rotation_waiting: count(waiting_for_rotation(&state)),
        commit_p99_seconds: p99.unwrap_or(0.0),
    }
}

/// Nodes whose certificate is not known to be signed by the newest root.
pub(super) fn waiting_for_rotation(state: &ClusterState) -> usize {
    let Some(newest) = state.settings().and_then(|s| s.ca.roots_pem.last()) else {
        return 0;
    };
    let digest = fingerprint(newest);
    state
        .nodes()
        .filter(|n| n.certificate_root != digest)
        .count()
}

pub(super) fn settings_view(settings: &ClusterSettings) -> v1::ClusterSettings {
    v1::ClusterSettings {
        snapshot_entries: settings.snapshot_entries,
        snapshot_bytes: settings.snapshot_bytes,
        log_bytes_max: settings.log_bytes_max,
        heartbeat_ms: settings.heartbeat.0,
        node_down_after_ms: settings.node_down_after.0,
        auto_lock: settings.auto_lock,
        raft_profile: settings.raft_profile.name().to_owned(),
        data_key_epoch: settings.key_epochs.last().map_or(0, |epoch| epoch.number),
    }
}

/// Upper bound of the bucket that a share of all fell below; `None` without any.
fn quantile(of: &Histogram, share: f64) -> Option<f64> {
    if of.count == 0 {
        return None;
    }
    let wanted = share * of.count as f64;
    let mut below = 0;
    for (bound, count) in BUCKETS.iter().zip(of.counts) {
        below += count;
        if below as f64 >= wanted {
            return Some(*bound);
        }
    }
    Some(f64::INFINITY)
}

/// SHA-256 of a root, hexadecimal; empty for what is no certificate.
pub(super) fn fingerprint(pem: &str) -> String {
    let digest = CaDigest::of_pem(pem);
    digest.map_or_else(
        |_| String::new(),
        |d| d.0.iter().map(|b| format!("{b:02x}")).collect(),
    )
}

/// What needs attention, in words, with what to do.
fn warnings(
    control: &Control,
    state: &ClusterState,
    status: &RaftStatus,
    p99: Option<f64>,
) -> Vec<String> {
    let mut found = Vec::new();
    let contact = control.raft.contact();
    if !contact.in_quorum {
        let since = contact.silence.map_or_else(
            || "since it started".to_owned(),
            |silence| format!("for {} s", silence.as_secs()),
        );
        found.push(format!(
            "manager {:?} is outside the quorum {since}: what it shows may be old, and nothing can be changed here; check the network to the other managers, or see `warren cluster recover`",
            control.local.name
        ));
    }
    let voters = status.voters.len();
    if voters == 2 {
        found.push("two managers tolerate no failure: add a third with `warren cluster join-token manager`".to_owned());
    } else if voters > 2 && voters.is_multiple_of(2) {
        found.push(format!(
            "{voters} managers tolerate no more failures than {}: add or demote one",
            voters - 1
        ));
    }
    if status.leadership.is_leader {
        found.extend(about_members(state, status));
    }
    found.extend(about_profiles(control, state, status));
    found.extend(about_speed(control, state, status, p99));
    found.extend(
        status
            .stopped
            .iter()
            .map(|why| format!("consensus has stopped on this manager: {why}")),
    );
    if status.healing {
        found.push("this manager fetches its log anew after damage and does not vote yet; it joins in by itself".to_owned());
    }
    if status.disk_full {
        found.push(
            "the disk of this manager is full: changes are refused until there is space".to_owned(),
        );
    }
    if let Some(error) = &status.snapshot_error {
        found.push(format!("the last snapshot failed: {error}"));
    }
    found
}

fn about_members(state: &ClusterState, status: &RaftStatus) -> Vec<String> {
    let name = |id: &warren_types::NodeId| {
        state
            .node(*id)
            .map_or_else(|| id.to_string(), |n| n.name.clone())
    };
    let mut found = Vec::new();
    for id in status
        .voters
        .keys()
        .filter(|id| !members::answers(status, **id))
    {
        let name = name(id);
        found.push(format!(
            "manager {name:?} does not answer: start it, or take it out with `warren node remove {name}`"
        ));
    }
    for (id, peer) in &status.peers {
        if peer.lag > LAG_SHOWN && members::answers(status, *id) {
            found.push(format!(
                "manager {:?} lacks {} log entries: look at its disk and network",
                name(id),
                peer.lag
            ));
        }
    }
    found
}

/// Managers that have to be started again to take up the cluster's raft profile.
fn about_profiles(control: &Control, state: &ClusterState, status: &RaftStatus) -> Option<String> {
    let wanted = state.settings()?.raft_profile;
    let other: Vec<&str> = state
        .nodes()
        .filter(|n| members::profile(control, status, n.id).is_some_and(|runs| runs != wanted))
        .map(|n| n.name.as_str())
        .collect();
    (!other.is_empty()).then(|| {
        format!(
            "the raft profile is {:?} and not yet in use on {}: restart these managers, one after another, and wait for each until `warren cluster health` is well again (docs/raft-tuning.md)",
            wanted.name(),
            other.join(", ")
        )
    })
}

fn about_speed(
    control: &Control,
    state: &ClusterState,
    status: &RaftStatus,
    p99: Option<f64>,
) -> Vec<String> {
    let mut found = Vec::new();
    let age = crate::edge::now().since(control.local.started_at).to_std();
    let hours = age.as_secs().div_ceil(3_600).max(1);
    if status.leader_changes > LEADER_CHANGES_PER_HOUR_MAX * hours {
        found.push(format!(
            "the leader changed {} times in {} min: look at the network between the managers and at their load (docs/operations.md, TR-01)",
            status.leader_changes,
            age.as_secs() / 60
        ));
    }
    if let Some(p99) = p99.filter(|p99| *p99 > SLOW_COMMIT_SECONDS && status.leadership.is_leader) {
        found.push(format!(
            "one change in a hundred takes longer than {:.0} ms to commit: look for a slow disk or follower (docs/operations.md, TR-03)",
            p99 * 1_000.0
        ));
    }
    let threshold = state.settings().map_or(u64::MAX, |s| s.snapshot_entries);
    if status.log_entries > threshold.saturating_mul(LOG_FACTOR_MAX) {
        found.push(format!(
            "the log has {} entries, snapshots are due every {threshold}: look at the disk (docs/operations.md, TR-04)",
            status.log_entries
        ));
    }
    found
}

/// The error of a read that needs the settings before there are any.
pub(super) fn settings(state: &ClusterState) -> ApiResult<&ClusterSettings> {
    state.settings().map(AsRef::as_ref).ok_or_else(|| {
        warren_api::ApiError::unavailable("the cluster is being made", "try again in a moment")
    })
}
