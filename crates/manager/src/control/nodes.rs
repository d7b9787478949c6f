//! Nodes and their sessions.

use super::{Control, members};
use crate::dispatcher::OUTBOUND_WAITING_MAX;
use crate::edge;
use futures::StreamExt;
use futures::stream::BoxStream;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use warren_api::{ApiError, ApiResult, ApiStream, Caller, ChangeOptions, NodeChange};
use warren_proto::convert::NodeView;
use warren_proto::session::{ManagerMessage, WorkerMessage};
use warren_state::{ClusterState, NodePatch, Op};
use warren_types::{Liveness, Node, NodeId, NodeRole, Role};

/// Messages of a node that wait to be read.
const INBOUND_WAITING_MAX: usize = 256;

/// The node with this id or name.
pub(super) fn find<'a>(state: &'a ClusterState, target: &str) -> ApiResult<&'a Arc<Node>> {
    let by_name = state.node_by_name(target);
    let found = by_name.or_else(|| target.parse::<NodeId>().ok().and_then(|id| state.node(id)));
    found.ok_or_else(|| ApiError::not_found("node", target))
}

fn view(control: &Control, state: &ClusterState, node: &Arc<Node>) -> NodeView {
    let usage = state.node_usage(node.id);
    let heard = control
        .dispatcher
        .borrow()
        .as_ref()
        .and_then(|d| d.silence(node.id));
    NodeView {
        node: node.clone(),
        last_heartbeat: heard.map(|silence| {
            let millis = u64::try_from(silence.as_millis()).unwrap_or(u64::MAX);
            warren_types::Timestamp(edge::now().0.saturating_sub(millis))
        }),
        reserved_cpu: usage.cpu,
        reserved_memory: usage.memory,
        containers: usage.containers,
    }
}

fn may_see(caller: &Caller, node: &Node) -> bool {
    caller.role != Role::Worker || caller.node == Some(node.id)
}

pub(super) fn list(control: &Control, caller: &Caller, role: Option<NodeRole>) -> Vec<NodeView> {
    let state = control.state();
    let wanted = |node: &&Arc<Node>| role.is_none_or(|r| node.role == r) && may_see(caller, node);
    let mut nodes: Vec<&Arc<Node>> = state.nodes().filter(wanted).collect();
    nodes.sort_by(|a, b| a.name.cmp(&b.name));
    nodes
        .into_iter()
        .map(|node| view(control, &state, node))
        .collect()
}

pub(super) fn get(control: &Control, caller: &Caller, target: &str) -> ApiResult<NodeView> {
    let state = control.state();
    let node = find(&state, target)?;
    if !may_see(caller, node) {
        return Err(ApiError::not_found("node", target));
    }
    Ok(view(control, &state, node))
}

pub(super) async fn update(
    control: &Control,
    caller: &Caller,
    target: &str,
    change: NodeChange,
) -> ApiResult<NodeView> {
    let state = control.state();
    let node = find(&state, target)?;
    let mut labels = node.labels.clone();
    labels.extend(change.labels_set);
    labels.retain(|key, _| !change.labels_remove.contains(key));
    if let Some(role) = change.role {
        members::check_role(control, &state, node, role)?;
    }
    let patch = NodePatch {
        role: change.role.filter(|role| *role != node.role),
        availability: change.availability,
        labels: (labels != node.labels).then_some(labels),
        ..NodePatch::default()
    };
    // Labels are merged with those read here, so the change is bound to that version.
    let expect = change.expect.or(Some(node.version));
    let op = Op::NodeUpdate {
        id: node.id,
        expect,
        patch: Box::new(patch),
    };
    let id = node.id;
    let (_, state) = control.change_now(caller, op).await?;
    let node = state
        .node(id)
        .ok_or_else(|| ApiError::not_found("node", target))?;
    Ok(view(control, &state, node))
}

pub(super) async fn remove(
    control: &Control,
    caller: &Caller,
    target: &str,
    force: bool,
) -> ApiResult<()> {
    let state = control.state();
    let node = find(&state, target)?;
    if node.liveness == Liveness::Ready && !force {
        return Err(ApiError::precondition(
            format!("node {:?} is not down", node.name),
            "stop it first, or use --force",
        ));
    }
    if node.role.is_manager() {
        members::spare(&control.raft.status(), &state, node)?;
    }
    let op = Op::NodeRemove {
        id: node.id,
        expect: Some(node.version),
        force,
    };
    control
        .change(caller, edge::now(), vec![op], &ChangeOptions::default())
        .await?;
    Ok(())
}

/// One node's session. The certificate decides which node the caller may be.
pub(super) fn accept_session(
    control: &Control,
    caller: &Caller,
    mut inbound: BoxStream<'static, WorkerMessage>,
) -> ApiResult<ApiStream<ManagerMessage>> {
    let dispatcher = control.dispatcher()?;
    let allowed = caller.node;
    if allowed.is_none() {
        return Err(ApiError::denied(
            "a session needs a node's certificate",
            "join the cluster with a token",
        ));
    }
    let (to_session, from_node) = mpsc::channel(INBOUND_WAITING_MAX);
    let (outbound, to_node) = mpsc::channel(OUTBOUND_WAITING_MAX);
    tokio::spawn(async move {
        while let Some(message) = inbound.next().await {
            if to_session.send(message).await.is_err() {
                return;
            }
        }
    });
    tokio::spawn(async move { dispatcher.serve(allowed, from_node, outbound).await });
    Ok(ReceiverStream::new(to_node).map(Ok).boxed())
}
