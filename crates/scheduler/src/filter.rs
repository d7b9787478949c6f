//! Why a node cannot take a container, and how that is told.

use crate::batch::{At, Batch};
use crate::group::Needs;
use std::collections::BTreeMap;
use warren_types::{Availability, Constraint, Liveness, NodeId, Protocol};

/// Why one node cannot take a container. The order is that of the text among equal counts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Obstacle {
    Memory,
    Cpu,
    Port(Protocol, u16),
    MaxPerNode,
    Volume(String),
    Constraint(String),
    Paused,
    Drained,
    Down,
    Unknown,
    ManagerOnly,
}

/// Filters that do not depend on what the group itself places. `home` is the node of its volumes.
pub(crate) struct Fixed {
    constraints: Vec<(Constraint, String)>,
    home: Option<(NodeId, String)>,
}

impl Fixed {
    /// Prepares the filters of a group; `Err` tells why no node at all can take it.
    pub(crate) fn new(batch: &Batch<'_>, needs: &Needs<'_>) -> Result<Self, String> {
        let mut home: Option<(NodeId, String)> = None;
        for name in &needs.volumes {
            let node = batch.volume_home(name).map_err(|()| {
                format!(
                    "volume {name:?} does not exist; create it with `warren volume create {name}`"
                )
            })?;
            let Some(node) = node else { continue };
            match &home {
                Some((other, first)) if *other != node => {
                    return Err(format!(
                        "no node fits: volumes {first:?} and {name:?} are on different nodes; use volumes of one node"
                    ));
                }
                Some(_) => {}
                None => home = Some((node, (*name).to_owned())),
            }
        }
        if let Some((node, name)) = &home
            && batch.find(*node).is_none()
        {
            return Err(format!(
                "no node fits: volume {name:?} is on node {node}, which was removed; delete the volume, or bring the node back"
            ));
        }
        let mut constraints = Vec::new();
        for text in &needs.spec.placement.constraints {
            // Specs are validated, so this is for specs of a newer version only.
            let parsed = Constraint::parse(text).map_err(|e| format!("no node fits: {e}"))?;
            constraints.push((parsed, text.clone()));
        }
        Ok(Self { constraints, home })
    }

    pub(crate) const fn pinned(&self) -> bool {
        self.home.is_some()
    }

    pub(crate) fn home(&self) -> Option<NodeId> {
        self.home.as_ref().map(|(node, _)| *node)
    }

    pub(crate) fn home_volume(&self) -> Option<&str> {
        self.home.as_ref().map(|(_, name)| name.as_str())
    }

    pub(crate) fn obstacle(&self, batch: &Batch<'_>, at: At) -> Option<Obstacle> {
        let node = batch.nodes[at].node;
        if !node.role.runs_containers() {
            return Some(Obstacle::ManagerOnly);
        }
        match (node.liveness, node.availability) {
            (Liveness::Down, _) => return Some(Obstacle::Down),
            (_, Availability::Drain) => return Some(Obstacle::Drained),
            (_, Availability::Pause) => return Some(Obstacle::Paused),
            (Liveness::Unknown, _) => return Some(Obstacle::Unknown),
            (Liveness::Ready, Availability::Active) => {}
        }
        if let Some((_, text)) = self.constraints.iter().find(|(c, _)| !c.matches(node)) {
            return Some(Obstacle::Constraint(text.clone()));
        }
        match &self.home {
            Some((home, name)) if *home != node.id => Some(Obstacle::Volume(name.clone())),
            _ => None,
        }
    }
}

/// Filters that may change with each placement. Within a plan they only ever get stricter.
pub(crate) fn changing(
    batch: &Batch<'_>,
    needs: &Needs<'_>,
    at: At,
    live_of_service: u32,
) -> Option<Obstacle> {
    if needs.memory.0 > 0 && needs.memory > batch.memory_free(at) {
        return Some(Obstacle::Memory);
    }
    if needs.cpu.0 > 0 && needs.cpu > batch.cpu_free(at) {
        return Some(Obstacle::Cpu);
    }
    for (protocol, port) in &needs.ports {
        if batch.port_taken(at, *protocol, *port) {
            return Some(Obstacle::Port(*protocol, *port));
        }
    }
    if needs.max_per_node > 0 && live_of_service >= needs.max_per_node {
        return Some(Obstacle::MaxPerNode);
    }
    None
}

/// Obstacles counted over all nodes.
#[derive(Default)]
pub(crate) struct Obstacles(BTreeMap<Obstacle, usize>);

impl Obstacles {
    pub(crate) fn add(&mut self, obstacle: Obstacle) {
        *self.0.entry(obstacle).or_default() += 1;
    }

    /// `no node fits: 2 nodes lack memory (need 512.0 MiB), 1 is drained; add a node or …`.
    pub(crate) fn explain(&self, needs: &Needs<'_>) -> String {
        let mut found: Vec<(&Obstacle, usize)> = self.0.iter().map(|(o, n)| (o, *n)).collect();
        found.sort_by_key(|(obstacle, count)| (std::cmp::Reverse(*count), (*obstacle).clone()));
        let Some((first, _)) = found.first() else {
            return "no node fits: the cluster has no nodes; add one with `warren node join`"
                .to_owned();
        };
        let parts: Vec<String> = found
            .iter()
            .enumerate()
            .map(|(at, (obstacle, count))| obstacle.text(*count, at == 0, needs))
            .collect();
        format!("no node fits: {}; {}", parts.join(", "), first.remedy())
    }
}

impl Obstacle {
    fn text(&self, count: usize, first: bool, needs: &Needs<'_>) -> String {
        let many = count != 1;
        let who = match (first, many) {
            (true, true) => format!("{count} nodes"),
            (true, false) => format!("{count} node"),
            (false, _) => count.to_string(),
        };
        let verb = |one: &str, several: &str| {
            if many {
                several.to_owned()
            } else {
                one.to_owned()
            }
        };
        let what = match self {
            Self::Memory => format!("{} memory (need {})", verb("lacks", "lack"), needs.memory),
            Self::Cpu => format!("{} CPU (need {} cores)", verb("lacks", "lack"), needs.cpu),
            Self::Port(protocol, port) => {
                let protocol = match protocol {
                    Protocol::Tcp => "tcp",
                    Protocol::Udp => "udp",
                };
                format!("{} host port {port}/{protocol} in use", verb("has", "have"))
            }
            Self::MaxPerNode => {
                let max = needs.max_per_node;
                format!("{} {max} of the service already", verb("has", "have"))
            }
            Self::Volume(name) => format!("{} not hold volume {name:?}", verb("does", "do")),
            Self::Constraint(text) => format!("{} not satisfy {text:?}", verb("does", "do")),
            Self::Paused => format!("{} paused", verb("is", "are")),
            Self::Drained => format!("{} drained", verb("is", "are")),
            Self::Down => format!("{} down", verb("is", "are")),
            Self::Unknown => format!("{} not been heard of yet", verb("has", "have")),
            Self::ManagerOnly => format!("{} no containers (manager)", verb("runs", "run")),
        };
        format!("{who} {what}")
    }

    const fn remedy(&self) -> &'static str {
        match self {
            Self::Memory | Self::Cpu => "add a node or lower the reservation",
            Self::Port(..) => "add a node, or choose another host port or publish mode ingress",
            Self::MaxPerNode => "add a node or raise the maximum per node",
            Self::Volume(_) => "bring the node of the volume back into service",
            Self::Constraint(_) => "label a node accordingly or change the constraint",
            Self::Paused | Self::Drained => "set a node to active, or add one",
            Self::Down | Self::Unknown => "bring a node back, or add one",
            Self::ManagerOnly => "add a worker",
        }
    }
}
