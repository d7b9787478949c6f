//! What a node says of itself when it opens its session, turned into one command.

use crate::edge;
use warren_netplan::{self as netplan, Subnet};
use warren_proto::{ConvertError, session::Hello};
use warren_state::{Actor, ClusterState, Command, NodePatch, Op};
use warren_types::{Id128, Liveness, Node, NodeId, NodeResources, Platform};

/// A session that is not accepted, in words for the node's log.
#[derive(Debug, thiserror::Error)]
pub(super) enum RefusedHello {
    /// The message makes no sense.
    #[error("the hello is not understood: {0}; upgrade the older of node and manager")]
    Malformed(#[from] ConvertError),
    /// The id is not 16 bytes.
    #[error("the node id has {0} bytes instead of 16")]
    BadId(usize),
    /// The certificate belongs to another node.
    #[error(
        "the certificate is that of node {allowed}, not of {asked}; a node may only act as itself"
    )]
    NotItself {
        /// Who the caller is.
        allowed: NodeId,
        /// Who it says it is.
        asked: NodeId,
    },
    /// No such node.
    #[error(
        "node {0} is not in the cluster; it was removed, or belongs to another one: reset it with `warren node reset` and join again"
    )]
    Unknown(NodeId),
    /// No subnet is left.
    #[error(
        "no container subnet is left in the pool {pool}: {problem}; remove unused nodes, or enlarge the pool"
    )]
    NoSubnet {
        /// The pool.
        pool: String,
        /// In words.
        problem: String,
    },
}

/// The node that the hello is of.
pub(super) fn node_id(hello: &Hello, allowed: Option<NodeId>) -> Result<NodeId, RefusedHello> {
    let bytes: [u8; 16] = hello
        .node_id
        .as_slice()
        .try_into()
        .map_err(|_| RefusedHello::BadId(hello.node_id.len()))?;
    let asked = NodeId(Id128(u128::from_be_bytes(bytes)));
    match allowed {
        Some(allowed) if allowed != asked => Err(RefusedHello::NotItself { allowed, asked }),
        _ => Ok(asked),
    }
}

/// The command that brings the node's record in line with its hello; `None` when it is already.
pub(super) fn command(
    state: &ClusterState,
    id: NodeId,
    hello: &Hello,
) -> Result<Option<Command>, RefusedHello> {
    let node = state.node(id).ok_or(RefusedHello::Unknown(id))?;
    let mut ops = Vec::new();
    let patch = patch(state, node, hello)?;
    if patch != NodePatch::default() {
        ops.push(Op::NodeUpdate {
            id,
            expect: Some(node.version),
            patch: Box::new(patch),
        });
    }
    if node.liveness != Liveness::Ready {
        ops.push(Op::NodeSetLiveness {
            id,
            expect: Some(node.version),
            liveness: Liveness::Ready,
            reason: String::new(),
        });
    }
    Ok((!ops.is_empty()).then(|| Command::new(Actor::System, edge::now(), ops)))
}

fn patch(state: &ClusterState, node: &Node, hello: &Hello) -> Result<NodePatch, RefusedHello> {
    let mut patch = NodePatch::default();
    if let Some(platform) = hello.platform.clone() {
        let platform = Platform::from(platform);
        patch.platform = (platform != node.platform).then_some(platform);
    }
    if let Some(resources) = hello.resources {
        let resources = NodeResources::from(resources);
        patch.resources = (resources != node.resources).then_some(resources);
    }
    let changed = |new: &str, old: &str| (!new.is_empty() && new != old).then(|| new.to_owned());
    patch.hostname = changed(&hello.hostname, &node.hostname);
    patch.version_text = changed(&hello.version, &node.version_text);
    patch.address = changed(&hello.address, &node.address);
    if node.subnet.is_empty() && node.role.runs_containers() {
        patch.subnet = Some(subnet(state)?);
    }
    Ok(patch)
}

/// The first free subnet of the cluster's pool.
fn subnet(state: &ClusterState) -> Result<String, RefusedHello> {
    let settings = state.settings();
    let pool = settings.map_or_else(
        || crate::init::CONTAINER_POOL.to_owned(),
        |s| s.container_pool.clone(),
    );
    let prefix = settings.map_or(crate::init::NODE_PREFIX_LEN, |s| s.node_prefix_len);
    let refused = |problem: String| RefusedHello::NoSubnet {
        pool: pool.clone(),
        problem,
    };
    let whole: Subnet = pool
        .parse()
        .map_err(|e: netplan::SubnetError| refused(e.to_string()))?;
    let taken = state.nodes().filter_map(|n| n.subnet.parse().ok());
    let free =
        netplan::next_node_subnet(whole, prefix, taken).map_err(|e| refused(e.to_string()))?;
    Ok(free.to_string())
}
