//! Who belongs to the quorum: joining, promoting, demoting, removing, handing over.
//!
//! The node's record is changed here; the membership follows it (`quorum::autopilot`). What would cost the quorum is
//! refused before anything is written.

use super::{Control, nodes};
use std::collections::BTreeMap;
use std::time::Duration;
use warren_api::{ApiError, ApiResult, Caller};
use warren_proto::v1;
use warren_raft::{Member, RaftError, RaftStatus};
use warren_state::{ClusterState, NodePatch, Op};
use warren_types::{Node, NodeId, NodeResources, NodeRole, Platform, RaftProfile};

/// A manager that has not answered the leader for longer counts as failed …
const ANSWERS_WITHIN: Duration = Duration::from_secs(2);
/// … and with long times of the protocol: for more heartbeats than this.
const ANSWERS_WITHIN_HEARTBEATS: u64 = 5;
/// How long giving leadership away may take.
const HAND_OVER_LIMIT: Duration = Duration::from_secs(5);

/// Whether a voter answers the leader, which is this manager.
pub(super) fn answers(status: &RaftStatus, id: NodeId) -> bool {
    let heartbeats =
        Duration::from_millis(ANSWERS_WITHIN_HEARTBEATS * status.profile.heartbeat_ms());
    let limit = ANSWERS_WITHIN.max(heartbeats);
    id == status.id
        || status
            .peers
            .get(&id)
            .and_then(|peer| peer.last_contact)
            .is_some_and(|silence| silence < limit)
}

/// The times that a manager runs with; the leader knows everybody's, the others their own.
pub(super) fn profile(control: &Control, status: &RaftStatus, id: NodeId) -> Option<RaftProfile> {
    if id == status.id {
        return Some(control.raft.profile().into());
    }
    status.peers.get(&id)?.profile.map(Into::into)
}

/// MM-03, MM-04: takes a manager into the quorum, as a learner first.
pub(super) async fn join(
    control: &Control,
    caller: &Caller,
    request: v1::JoinClusterRequest,
) -> ApiResult<v1::JoinClusterResponse> {
    let id: NodeId = request.node_id.parse().map_err(|e| {
        ApiError::field("node_id", format!("{e}"), "send the id of the certificate")
    })?;
    if caller.node != Some(id) {
        return Err(ApiError::denied(
            format!("{caller} is not node {id}"),
            "a manager joins with its own certificate",
        ));
    }
    let state = control.state();
    let node = state.node(id).ok_or_else(|| {
        ApiError::denied(
            format!("node {id} is not in the cluster"),
            "reset it with `warren node reset` and join again with a new token",
        )
    })?;
    if !node.role.is_manager() {
        return Err(ApiError::denied(
            format!("node {:?} is a worker", node.name),
            format!("promote it with `warren node promote {}`", node.name),
        ));
    }
    let member = Member {
        name: node.name.clone(),
        address: request.bind_addr.clone(),
    };
    let patch = patch(node, &request);
    if patch != NodePatch::default() {
        let op = Op::NodeUpdate {
            id,
            expect: None,
            patch: Box::new(patch),
        };
        control.change_now(caller, op).await?;
    }
    control
        .raft
        .add_learner(id, member)
        .await
        .map_err(change_failed)?;
    let state = control.state();
    Ok(v1::JoinClusterResponse {
        status: "ok".to_owned(),
        leader_addr: control.local.api_address.clone(),
        data_keys: control
            .secrets
            .export()
            .iter()
            .map(|key| v1::DataKey {
                epoch: key.epoch(),
                key: key.expose().to_vec(),
            })
            .collect(),
        managers: servers(control, &state),
    })
}

/// What the record lacks of what the manager says of itself.
fn patch(node: &Node, request: &v1::JoinClusterRequest) -> NodePatch {
    let changed = |new: &str, old: &str| (!new.is_empty() && new != old).then(|| new.to_owned());
    let resources = request.resources.map(NodeResources::from);
    let platform = request.platform.clone().map(Platform::from);
    NodePatch {
        address: changed(&request.bind_addr, &node.address),
        hostname: changed(&request.hostname, &node.hostname),
        version_text: changed(&request.version, &node.version_text),
        resources: resources.filter(|new| *new != node.resources),
        platform: platform.filter(|new| *new != node.platform),
        ..NodePatch::default()
    }
}

fn change_failed(error: RaftError) -> ApiError {
    match error {
        RaftError::NotLeader { address, .. } => ApiError::NotTaken {
            what: "this manager does not lead any more".to_owned(),
            remedy: "ask the leader".to_owned(),
            leader: (!address.is_empty()).then_some(address),
        },
        other => ApiError::unavailable(
            other.to_string(),
            "look at `warren cluster info`, then try again",
        ),
    }
}

/// Refuses a change of the members after which no quorum would answer.
pub(super) fn spare(status: &RaftStatus, state: &ClusterState, node: &Node) -> ApiResult<()> {
    if !status.voters.contains_key(&node.id) {
        return Ok(());
    }
    let rest: Vec<NodeId> = status
        .voters
        .keys()
        .copied()
        .filter(|id| *id != node.id)
        .collect();
    if rest.is_empty() {
        return Err(ApiError::precondition(
            format!("node {:?} is the only manager", node.name),
            "let another manager join first",
        ));
    }
    let needed = rest.len() / 2 + 1;
    let silent: Vec<String> = rest
        .iter()
        .filter(|id| !answers(status, **id))
        .map(|id| {
            state
                .node(*id)
                .map_or_else(|| id.to_string(), |n| n.name.clone())
        })
        .collect();
    let answering = rest.len() - silent.len();
    if answering >= needed {
        return Ok(());
    }
    Err(ApiError::precondition(
        format!(
            "without node {:?} the quorum would be lost: of the {} managers left {needed} must answer, {answering} do ({} is silent)",
            node.name,
            rest.len(),
            silent.join(", ")
        ),
        "bring the silent managers back, or remove them first with `warren node remove`",
    ))
}

/// What a change of the role needs; the state checks the number of managers.
pub(super) fn check_role(
    control: &Control,
    state: &ClusterState,
    node: &Node,
    role: NodeRole,
) -> ApiResult<()> {
    if role.is_manager() && node.address.is_empty() {
        return Err(ApiError::precondition(
            format!(
                "node {:?} has no address that managers could reach",
                node.name
            ),
            "restart it with `warren node run --advertise-addr HOST:PORT`, then promote it",
        ));
    }
    if node.role.is_manager() && !role.is_manager() {
        return spare(&control.raft.status(), state, node);
    }
    Ok(())
}

/// Gives leadership to another manager (a named one, or the one that is furthest).
pub(super) async fn transfer(
    control: &Control,
    request: v1::TransferLeadershipRequest,
) -> ApiResult<v1::TransferLeadershipResponse> {
    let state = control.state();
    let wanted = match request.node.as_str() {
        "" => None,
        name => Some(nodes::find(&state, name)?.clone()),
    };
    if let Some(node) = wanted.as_ref().filter(|n| n.id == control.local.node) {
        return Ok(answer(&state, node.id));
    }
    let status = control.raft.status();
    if let Some(node) = &wanted {
        if !status.voters.contains_key(&node.id) {
            return Err(ApiError::precondition(
                format!("node {:?} has no vote", node.name),
                "choose a manager that `warren cluster info` shows as Voter",
            ));
        }
        if !answers(&status, node.id) {
            return Err(ApiError::precondition(
                format!("node {:?} does not answer", node.name),
                "choose a manager that is reachable",
            ));
        }
    }
    if status.voters.len() < 2 {
        return Err(ApiError::precondition(
            "there is no other manager with a vote",
            "let another manager join first",
        ));
    }
    let leader = match wanted {
        None => control.raft.hand_over(HAND_OVER_LIMIT).await,
        Some(node) => to(control, node.id).await,
    };
    Ok(answer(&state, leader.map_err(change_failed)?))
}

async fn to(control: &Control, node: NodeId) -> Result<NodeId, RaftError> {
    control.raft.transfer_leadership(node).await?;
    let mut leadership = control.raft.leadership();
    let own = control.local.node;
    let other = leadership.wait_for(|l| l.leader.is_some_and(|leader| leader != own));
    match tokio::time::timeout(HAND_OVER_LIMIT, other).await {
        Ok(Ok(leadership)) => Ok(leadership.leader.unwrap_or(node)),
        _ => Err(RaftError::NoQuorum),
    }
}

fn answer(state: &ClusterState, leader: NodeId) -> v1::TransferLeadershipResponse {
    v1::TransferLeadershipResponse {
        leader_id: leader.to_string(),
        leader_name: state
            .node(leader)
            .map_or_else(String::new, |n| n.name.clone()),
    }
}

/// The managers by their records, as the leader sees them; on others without what only the leader knows.
pub(super) fn servers(control: &Control, state: &ClusterState) -> Vec<v1::ClusterServer> {
    Seen::now(control).managers(state)
}

/// Those, and after them the members of the quorum whose records call them no managers (any more): as long as the
/// membership has not followed, the quorum counts on them.
pub(super) fn everybody(control: &Control, state: &ClusterState) -> Vec<v1::ClusterServer> {
    let seen = Seen::now(control);
    let mut all = seen.managers(state);
    all.extend(seen.surplus(state));
    all
}

/// What this manager sees of the quorum.
struct Seen<'a> {
    control: &'a Control,
    status: RaftStatus,
    /// Members that are on their way out.
    leaving: BTreeMap<NodeId, Member>,
    in_quorum: bool,
}

impl<'a> Seen<'a> {
    fn now(control: &'a Control) -> Self {
        Self {
            control,
            status: control.raft.status(),
            leaving: control.raft.leaving(),
            in_quorum: control.raft.contact().in_quorum,
        }
    }

    fn managers(&self, state: &ClusterState) -> Vec<v1::ClusterServer> {
        let mut managers: Vec<_> = state.nodes().filter(|n| n.role.is_manager()).collect();
        managers.sort_by(|a, b| a.name.cmp(&b.name));
        managers.into_iter().map(|n| self.by_record(n)).collect()
    }

    fn surplus(&self, state: &ClusterState) -> Vec<v1::ClusterServer> {
        let status = &self.status;
        let members = status.voters.iter().chain(&status.learners);
        members
            .chain(&self.leaving)
            .filter_map(|(id, member)| match state.node(*id) {
                Some(node) if node.role.is_manager() => None,
                Some(node) => Some(self.by_record(node)),
                None => Some(v1::ClusterServer {
                    address: member.address.clone(),
                    name: member.name.clone(),
                    ..self.server(*id)
                }),
            })
            .collect()
    }

    fn by_record(&self, node: &Node) -> v1::ClusterServer {
        v1::ClusterServer {
            address: node.address.clone(),
            name: node.name.clone(),
            role: node.role.name().to_owned(),
            version: node.version_text.clone(),
            ..self.server(node.id)
        }
    }

    /// What does not stand in a record.
    fn server(&self, id: NodeId) -> v1::ClusterServer {
        let status = &self.status;
        let leads = self.in_quorum && status.leadership.is_leader;
        let own = id == self.control.local.node;
        let peer = status.peers.get(&id);
        let contact = peer.and_then(|p| p.last_contact);
        let millis = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
        v1::ClusterServer {
            id: id.to_string(),
            suffrage: self.suffrage(id).to_owned(),
            // Outside the quorum nobody is known to lead.
            leader: self.in_quorum && status.leadership.leader == Some(id),
            reachable: own || leads && answers(status, id),
            last_contact_ms: if own { Some(0) } else { contact.map(millis) },
            lag: peer.map_or(0, |p| p.lag),
            raft_profile: profile(self.control, status, id)
                .map_or_else(String::new, |p| p.name().to_owned()),
            ..v1::ClusterServer::default()
        }
    }

    fn suffrage(&self, id: NodeId) -> &'static str {
        if self.status.voters.contains_key(&id) {
            "Voter"
        } else if self.status.learners.contains_key(&id) || self.leaving.contains_key(&id) {
            "Nonvoter"
        } else {
            "Staging"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{OTHER, demoted};

    /// A vote counts until the membership has followed the record, so it is shown; as a manager to dial it is not.
    #[tokio::test]
    async fn a_member_that_is_no_manager_any_more_is_listed() {
        let control = demoted().await;
        let state = control.state();
        let shown = |servers: Vec<v1::ClusterServer>| {
            let shown = servers.into_iter().map(|s| (s.id, s.suffrage, s.role));
            shown.collect::<Vec<_>>()
        };
        let (own, other) = (control.local.node.to_string(), OTHER.to_string());
        let other = (other, "Staging".to_owned(), "manager".to_owned());
        let own = (own, "Voter".to_owned(), "worker".to_owned());
        let all = [other, own];
        assert_eq!(shown(servers(&control, &state)), all[..1]);
        assert_eq!(shown(everybody(&control, &state)), all);
        control.raft.shutdown().await;
    }
}
