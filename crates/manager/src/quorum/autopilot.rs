//! Keeps the quorum's members what the nodes' records say, while this manager leads (law 1: the records are the truth,
//! the membership follows).
//!
//! One step at a time, the safest first: a node that is no manager any more loses its vote; a learner that has caught up
//! gets one; a changed address is told to everybody. A demoted leader gives its office away first. Managers without
//! containers have no session; whether they answer is known from the log's traffic.

use crate::control::rotation;
use crate::edge;
use crate::planner::SWEEP;
use crate::secrets::SecretBox;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use warren_raft::{Member, RaftError, RaftHandle, RaftStatus};
use warren_state::{Actor, ClusterState, Command, Op};
use warren_types::{Liveness, NodeId, Timestamp};

/// Entries that a learner may lack when it gets its vote: what is written in one heartbeat on a busy cluster.
pub(crate) const LAG_MAX: u64 = 200;
/// Time between two looks while something is not as it shall be.
const LOOK: Duration = Duration::from_millis(200);
/// Time between two looks at managers without a session.
const WATCH: Duration = Duration::from_secs(2);
/// How long the record of an expired token is kept, so that its refusal can say why.
const TOKEN_KEPT: warren_types::Duration = warren_types::Duration::from_secs(3_600);
/// How long giving the office away may take.
const HAND_OVER_LIMIT: Duration = Duration::from_secs(5);

type Members = BTreeMap<NodeId, Member>;

/// The next thing to do about the members.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    /// This manager is no manager any more: another one has to lead.
    HandOver,
    /// It is no manager any more.
    Remove(NodeId),
    /// It has caught up.
    Promote(NodeId),
    /// It is found elsewhere now.
    Update(NodeId, Member),
}

/// Runs until the office ends.
pub(crate) async fn run(raft: RaftHandle, secrets: Arc<SecretBox>, own: NodeId) {
    let mut revisions = raft.changes();
    let mut watched = Instant::now();
    loop {
        revisions.mark_unchanged();
        let members = raft.members_since();
        let state = raft.state();
        let status = raft.status();
        let step = next(&state, &status.voters, &status.learners, own, |id| {
            raft.caught_up(id, LAG_MAX)
        });
        if let Some(step) = &step
            && let Err(error) = carry_out(&raft, step, &status).await
        {
            tracing::info!(?step, %error, "the members are not changed yet");
        }
        if watched.elapsed() >= WATCH {
            watched = Instant::now();
            settle(&raft, own).await;
            rotation::go_on(&raft, &secrets).await;
        }
        let waits = step.is_some() || !status.learners.is_empty();
        let quiet = if waits { LOOK } else { WATCH.min(SWEEP) };
        tokio::select! {
            changed = revisions.changed() => if changed.is_err() { return },
            // A node that was added is a learner now, which does not show in the records.
            () = raft.members_changed(members) => {}
            () = tokio::time::sleep(quiet) => {}
        }
    }
}

fn next(
    state: &ClusterState,
    voters: &Members,
    learners: &Members,
    own: NodeId,
    caught_up: impl Fn(NodeId) -> bool,
) -> Option<Step> {
    // Before the cluster's first record there is nothing to follow.
    state.settings()?;
    let wanted = |id: &NodeId| state.node(*id).is_some_and(|n| n.role.is_manager());
    let mut members = voters.iter().chain(learners);
    let surplus = |ids: &Members| ids.keys().find(|id| !wanted(id)).copied();
    if let Some(id) = surplus(learners) {
        return Some(Step::Remove(id));
    }
    if let Some(id) = surplus(voters) {
        // One that is going, and cannot be spared, stays until another is there.
        if voters.len() > 1 {
            return Some(if id == own {
                Step::HandOver
            } else {
                Step::Remove(id)
            });
        }
    }
    if let Some(id) = learners.keys().find(|id| caught_up(**id)) {
        return Some(Step::Promote(*id));
    }
    members.find_map(|(id, member)| {
        let node = state.node(*id)?;
        let there = Member {
            name: node.name.clone(),
            address: node.address.clone(),
        };
        (there != *member && !there.address.is_empty()).then_some(Step::Update(*id, there))
    })
}

async fn carry_out(raft: &RaftHandle, step: &Step, status: &RaftStatus) -> Result<(), RaftError> {
    tracing::info!(?step, "changing the members of the quorum");
    match step {
        Step::HandOver => raft.hand_over(HAND_OVER_LIMIT).await.map(drop),
        Step::Remove(id) => raft.remove_member(*id).await,
        Step::Promote(id) => {
            let voters = status.voters.keys().copied().chain([*id]).collect();
            raft.set_voters(voters, true).await
        }
        Step::Update(id, member) => raft.update_member(*id, member.clone()).await,
    }
}

/// Whether managers without containers answer, and what is over and done with: one command for all.
async fn settle(raft: &RaftHandle, own: NodeId) {
    let state = raft.state();
    let now = edge::now();
    let mut ops = liveness(&state, &raft.status(), own);
    ops.extend(over(&state, now));
    if ops.is_empty() {
        return;
    }
    let command = Command::new(Actor::System, now, ops);
    if let Err(problem) = raft.propose(&command).await {
        tracing::debug!(%problem, "not settled yet");
    }
}

fn liveness(state: &ClusterState, status: &RaftStatus, own: NodeId) -> Vec<Op> {
    let Some(settings) = state.settings() else {
        return Vec::new();
    };
    let limit = settings.node_down_after.to_std();
    let managers = state
        .nodes()
        .filter(|n| n.role.is_manager() && !n.role.runs_containers());
    managers
        .filter_map(|node| {
            let silence = match status.peers.get(&node.id) {
                _ if node.id == own => Some(Duration::ZERO),
                Some(peer) => peer.last_contact,
                None => return None,
            };
            let (liveness, reason) = match silence {
                Some(silence) if silence < limit => (Liveness::Ready, String::new()),
                Some(silence) => {
                    let seconds = silence.as_secs();
                    (
                        Liveness::Down,
                        format!("has not answered the leader for {seconds} s"),
                    )
                }
                // Not since this leader took office; the liveness of before stands for a while.
                None => return None,
            };
            (node.liveness != liveness).then(|| Op::NodeSetLiveness {
                id: node.id,
                expect: Some(node.version),
                liveness,
                reason,
            })
        })
        .collect()
}

/// MT-06: tokens that nobody can use any more.
fn over(state: &ClusterState, now: Timestamp) -> Vec<Op> {
    state
        .tokens()
        .filter(|t| now.since(t.expires_at) > TOKEN_KEPT)
        .map(|t| Op::TokenDelete { id: t.id })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use warren_types::{Node, NodeRole};

    fn node(id: u128, role: NodeRole) -> Node {
        Node {
            id: NodeId::from_u128(id),
            name: format!("n{id}"),
            role,
            address: format!("10.0.0.{id}:8080"),
            hostname: String::new(),
            labels: BTreeMap::new(),
            platform: warren_types::Platform::default(),
            resources: warren_types::NodeResources::default(),
            availability: warren_types::Availability::Active,
            liveness: Liveness::Ready,
            reason: String::new(),
            subnet: String::new(),
            version_text: String::new(),
            certificate_root: String::new(),
            created_at: Timestamp(1),
            updated_at: Timestamp(1),
            version: warren_types::Revision(0),
        }
    }

    fn settings() -> warren_types::ClusterSettings {
        warren_types::ClusterSettings {
            id: warren_types::ClusterId::from_u128(7),
            name: "test".to_owned(),
            ca: warren_types::CaMaterial::default(),
            key_epochs: Vec::new(),
            container_pool: crate::init::CONTAINER_POOL.to_owned(),
            node_prefix_len: crate::init::NODE_PREFIX_LEN,
            heartbeat: warren_types::Duration::from_secs(2),
            node_down_after: warren_types::Duration::from_secs(10),
            history_per_slot: 3,
            snapshot_entries: 10_000,
            snapshot_bytes: 64 << 20,
            raft_profile: warren_types::RaftProfile::Lan,
            log_bytes_max: 1 << 30,
            auto_lock: false,
            unlock_key: warren_types::SealedData::default(),
            created_at: Timestamp(1),
            version: warren_types::Revision(0),
        }
    }

    fn cluster(roles: &[(u128, NodeRole)]) -> ClusterState {
        let mut state = ClusterState::default();
        let settings = settings();
        let mut ops = vec![Op::SettingsInit(Box::new(settings))];
        ops.extend(
            roles
                .iter()
                .map(|(id, role)| Op::NodeAdd(Box::new(node(*id, *role)))),
        );
        state
            .apply(&Command::new(Actor::System, Timestamp(1), ops))
            .unwrap();
        state
    }

    fn members(ids: &[u128]) -> Members {
        ids.iter()
            .map(|id| {
                let member = Member {
                    name: format!("n{id}"),
                    address: format!("10.0.0.{id}:8080"),
                };
                (NodeId::from_u128(*id), member)
            })
            .collect()
    }

    fn step(state: &ClusterState, voters: &[u128], learners: &[u128], ready: bool) -> Option<Step> {
        let (voters, learners) = (members(voters), members(learners));
        next(state, &voters, &learners, NodeId::from_u128(1), |_| ready)
    }

    #[test]
    fn members_follow_the_records() {
        use NodeRole::{Hybrid, Manager, Worker};
        let id = NodeId::from_u128;
        let state = cluster(&[(1, Hybrid), (2, Manager), (3, Manager)]);
        assert_eq!(step(&state, &[1, 2, 3], &[], true), None);
        assert_eq!(step(&state, &[1, 2], &[3], false), None);
        assert_eq!(
            step(&state, &[1, 2], &[3], true),
            Some(Step::Promote(id(3)))
        );
        let state = cluster(&[(1, Hybrid), (2, Worker), (3, Manager)]);
        assert_eq!(
            step(&state, &[1, 2, 3], &[], true),
            Some(Step::Remove(id(2)))
        );
        assert_eq!(step(&state, &[1, 3], &[2], true), Some(Step::Remove(id(2))));
        // Removed altogether.
        assert_eq!(
            step(&state, &[1, 3, 9], &[], true),
            Some(Step::Remove(id(9)))
        );
    }

    /// A demoted leader hands over and does not take the quorum with it.
    #[test]
    fn a_demoted_leader_hands_over_first() {
        use NodeRole::{Manager, Worker};
        let state = cluster(&[(1, Worker), (2, Manager)]);
        assert_eq!(step(&state, &[1, 2], &[], true), Some(Step::HandOver));
        assert_eq!(
            step(&state, &[1], &[2], true),
            Some(Step::Promote(NodeId::from_u128(2)))
        );
    }

    #[test]
    fn a_new_address_is_told() {
        let state = cluster(&[(1, NodeRole::Manager), (2, NodeRole::Manager)]);
        let mut voters = members(&[1, 2]);
        if let Some(member) = voters.get_mut(&NodeId::from_u128(2)) {
            member.address = "10.9.9.9:8080".to_owned();
        }
        assert!(matches!(
            next(&state, &voters, &members(&[]), NodeId::from_u128(1), |_| true),
            Some(Step::Update(_, member)) if member.address == "10.0.0.2:8080"
        ));
    }
}
