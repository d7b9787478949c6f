//! Operations on nodes.

use super::{Tx, cut};
use crate::change::ObjectKind;
use crate::command::{NodePatch, Op, OpResult};
use crate::index;
use crate::rejection::Rejection;
use warren_types::{
    Container, Liveness, Node, NodeId, NodeRole, Revision, ValidationError, limits, parse_cidr,
};

impl Tx<'_> {
    pub(super) fn node_op(&mut self, op: &Op) -> Result<OpResult, Rejection> {
        match op {
            Op::NodeAdd(node) => self.node_add(node),
            Op::NodeUpdate { id, expect, patch } => self.node_update(*id, *expect, patch),
            Op::NodeSetLiveness {
                id,
                expect,
                liveness,
                reason,
            } => {
                let before = self.expect::<Node>(id.as_u128(), *expect)?;
                let mut node = (*before).clone();
                node.liveness = *liveness;
                node.reason = match liveness {
                    Liveness::Ready => String::new(),
                    _ => cut(reason, limits::REASON_BYTES_MAX),
                };
                Ok(self.put(&*before, node))
            }
            Op::NodeRemove { id, expect, force } => self.node_remove(*id, *expect, *force),
            _ => Err(misrouted(op)),
        }
    }

    fn node_add(&mut self, node: &Node) -> Result<OpResult, Rejection> {
        node.validate()?;
        if let Some(at) = self.state.is_removed(node.id) {
            return Err(Rejection::NodeRemoved { id: node.id, at });
        }
        self.check_managers(node.id, node.role)?;
        self.check_subnet(node)?;
        let mut node = node.clone();
        node.created_at = self.time;
        self.create(node, limits::NODES_MAX, "nodes")
    }

    fn node_update(
        &mut self,
        id: NodeId,
        expect: Option<Revision>,
        patch: &NodePatch,
    ) -> Result<OpResult, Rejection> {
        let before = self.expect::<Node>(id.as_u128(), expect)?;
        let mut node = (*before).clone();
        let NodePatch {
            role,
            address,
            hostname,
            labels,
            platform,
            resources,
            availability,
            subnet,
            version_text,
            certificate_root,
        } = patch.clone();
        node.role = role.unwrap_or(node.role);
        node.address = address.unwrap_or(node.address);
        node.hostname = hostname.unwrap_or(node.hostname);
        node.labels = labels.unwrap_or(node.labels);
        node.platform = platform.unwrap_or(node.platform);
        node.resources = resources.unwrap_or(node.resources);
        node.availability = availability.unwrap_or(node.availability);
        node.subnet = subnet.unwrap_or(node.subnet);
        node.version_text = version_text.unwrap_or(node.version_text);
        node.certificate_root = certificate_root.unwrap_or(node.certificate_root);
        node.validate()?;
        if !before.subnet.is_empty() && node.subnet != before.subnet {
            return Err(ValidationError::one(
                "subnet",
                format!("node {:?} already has {}", node.name, before.subnet),
                "remove the node and let it join again to give it another subnet",
            )
            .into());
        }
        if node.role != before.role {
            self.check_managers(id, node.role)?;
        }
        if node.subnet != before.subnet {
            self.check_subnet(&node)?;
        }
        Ok(self.put(&*before, node))
    }

    /// At most `MANAGERS_MAX` managers, and never none once there was one.
    fn check_managers(&self, id: NodeId, role: NodeRole) -> Result<(), Rejection> {
        let others = self.managers_besides(id);
        if role.is_manager() && others >= limits::MANAGERS_MAX {
            return Err(Rejection::Limit {
                what: "managers",
                limit: limits::MANAGERS_MAX as u64,
                remedy: "add it as a worker, or demote another manager first (`warren node demote`)",
            });
        }
        let was = self.state.node(id).is_some_and(|n| n.role.is_manager());
        if was && !role.is_manager() && others == 0 {
            return Err(last_manager(id));
        }
        Ok(())
    }

    fn managers_besides(&self, id: NodeId) -> usize {
        self.state
            .nodes()
            .filter(|n| n.id != id && n.role.is_manager())
            .count()
    }

    fn check_subnet(&self, node: &Node) -> Result<(), Rejection> {
        let Some((address, len)) = parse_cidr(&node.subnet) else {
            return Ok(());
        };
        let overlaps = |other: &str| {
            parse_cidr(other).is_some_and(|(theirs, their_len)| {
                let shift = 32 - u32::from(len.min(their_len));
                let bits = |a: std::net::Ipv4Addr| u64::from(u32::from(a)) >> shift;
                bits(address) == bits(theirs)
            })
        };
        let mut others = self.state.nodes().filter(|n| n.id != node.id);
        match others.find(|n| overlaps(&n.subnet)) {
            Some(other) => Err(ValidationError::one(
                "subnet",
                format!(
                    "{} overlaps {} of node {:?}",
                    node.subnet, other.subnet, other.name
                ),
                "choose a free subnet of the pool",
            )
            .into()),
            None => Ok(()),
        }
    }

    fn node_remove(
        &mut self,
        id: NodeId,
        expect: Option<Revision>,
        force: bool,
    ) -> Result<OpResult, Rejection> {
        let node = self.expect::<Node>(id.as_u128(), expect)?;
        if node.role.is_manager() && self.managers_besides(id) == 0 {
            return Err(last_manager(id));
        }
        if !force {
            self.check_node_unused(&node)?;
        }
        let live: Vec<Container> = self
            .state
            .containers_on_node(id)
            .filter(|c| index::holds(c))
            .map(|c| (**c).clone())
            .collect();
        let reason = format!("node {} was removed", node.name);
        for container in &live {
            self.container_lost(container, &reason)?;
        }
        self.state.removed.insert(id, self.time);
        Ok(self.remove::<Node>(id.as_u128()))
    }

    fn check_node_unused(&self, node: &Node) -> Result<(), Rejection> {
        let live = self.state.node_usage(node.id).containers;
        let mut by: Vec<String> = Vec::new();
        if live > 0 {
            by.push(format!(
                "{live} running containers (drain the node with `warren node update --availability drain {}`)",
                node.name
            ));
        }
        let volumes = self.state.volumes().filter(|v| v.node == Some(node.id));
        by.extend(volumes.map(|v| format!("volume {:?}", v.name)));
        if by.is_empty() {
            return Ok(());
        }
        Err(Rejection::InUse {
            kind: ObjectKind::Node,
            name: node.name.clone(),
            by,
        })
    }
}

fn last_manager(id: NodeId) -> Rejection {
    Rejection::NotNow {
        kind: ObjectKind::Node,
        id: id.to_string(),
        reason: "it is the only manager".to_owned(),
        remedy: "make another node a manager first (`warren node promote`)",
    }
}

/// Dispatch by kind sends each operation to its table; another one here is a defect of this crate.
pub(super) fn misrouted(op: &Op) -> Rejection {
    ValidationError::one(
        "op",
        format!("{} reached the wrong table", op.name()),
        "report this defect of the program",
    )
    .into()
}
