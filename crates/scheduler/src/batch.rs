//! The nodes as they will be after what this plan has placed so far.

use std::collections::{BTreeMap, BTreeSet};
use warren_state::{ClusterState, NodeUsage};
use warren_types::{Bytes, Container, MilliCpu, Node, NodeId, Protocol, ServiceId};

use crate::group::Needs;

/// Place of a node in [`Batch::nodes`].
pub(crate) type At = usize;

/// One node with what is given away of it.
pub(crate) struct View<'s> {
    pub(crate) node: &'s Node,
    pub(crate) usage: NodeUsage,
    /// Breaks ties between equal nodes.
    pub(crate) tie: u64,
}

/// The state plus the placements of this plan.
pub(crate) struct Batch<'s> {
    pub(crate) state: &'s ClusterState,
    pub(crate) nodes: Vec<View<'s>>,
    at: BTreeMap<NodeId, At>,
    /// Nodes that take containers, by (containers, tie, place): the least loaded first.
    pub(crate) by_load: BTreeSet<(u32, u64, At)>,
    ports: BTreeSet<(At, Protocol, u16)>,
    volumes: BTreeMap<&'s str, NodeId>,
    /// Placements of this plan by service.
    placed: BTreeMap<ServiceId, Vec<At>>,
}

impl<'s> Batch<'s> {
    pub(crate) fn new(state: &'s ClusterState, seed: u64) -> Self {
        let nodes: Vec<View<'s>> = state
            .nodes()
            .map(|node| View {
                node,
                usage: state.node_usage(node.id),
                tie: mix(seed, node.id.as_u128()),
            })
            .collect();
        let by_load = nodes
            .iter()
            .enumerate()
            .filter(|(_, view)| view.node.takes_containers())
            .map(|(at, view)| (view.usage.containers, view.tie, at))
            .collect();
        Self {
            state,
            at: nodes
                .iter()
                .enumerate()
                .map(|(at, v)| (v.node.id, at))
                .collect(),
            nodes,
            by_load,
            ports: BTreeSet::new(),
            volumes: BTreeMap::new(),
            placed: BTreeMap::new(),
        }
    }

    pub(crate) fn find(&self, id: NodeId) -> Option<At> {
        self.at.get(&id).copied()
    }

    /// Containers of a service per node: all that have not ended, and those that shall stay.
    pub(crate) fn of_service(&self, service: ServiceId) -> BTreeMap<At, Count> {
        let mut counts: BTreeMap<At, Count> = BTreeMap::new();
        let live = self
            .state
            .containers_of_service(service)
            .filter(|c| !c.status.state.is_final());
        for container in live {
            if let Some(at) = container.node.and_then(|id| self.find(id)) {
                let count = counts.entry(at).or_default();
                count.live += 1;
                count.staying +=
                    u32::from(container.desired == warren_types::DesiredState::Running);
            }
        }
        for at in self.placed.get(&service).into_iter().flatten() {
            let count = counts.entry(*at).or_default();
            count.live += 1;
            count.staying += 1;
        }
        counts
    }

    pub(crate) fn cpu_free(&self, at: At) -> MilliCpu {
        let view = &self.nodes[at];
        MilliCpu(view.node.resources.cpu.0.saturating_sub(view.usage.cpu.0))
    }

    pub(crate) fn memory_free(&self, at: At) -> Bytes {
        let view = &self.nodes[at];
        Bytes(
            view.node
                .resources
                .memory
                .0
                .saturating_sub(view.usage.memory.0),
        )
    }

    pub(crate) fn port_taken(&self, at: At, protocol: Protocol, port: u16) -> bool {
        self.ports.contains(&(at, protocol, port))
            || self
                .state
                .port_holder(self.nodes[at].node.id, protocol, port)
                .is_some()
    }

    /// The node that holds a volume, by the state or by this plan; `Err` when there is no such volume.
    pub(crate) fn volume_home(&self, name: &str) -> Result<Option<NodeId>, ()> {
        let volume = self.state.volume_by_name(name).ok_or(())?;
        Ok(volume.node.or_else(|| self.volumes.get(name).copied()))
    }

    /// Notes a placement.
    pub(crate) fn place(&mut self, at: At, needs: &Needs<'s>, container: &Container) {
        let view = &mut self.nodes[at];
        let before = (view.usage.containers, view.tie, at);
        view.usage.containers += 1;
        view.usage.cpu.0 = view.usage.cpu.0.saturating_add(needs.cpu.0);
        view.usage.memory.0 = view.usage.memory.0.saturating_add(needs.memory.0);
        self.by_load.remove(&before);
        self.by_load.insert((view.usage.containers, view.tie, at));
        let node = view.node.id;
        for (protocol, port) in &needs.ports {
            self.ports.insert((at, *protocol, *port));
        }
        for name in &needs.volumes {
            self.volumes.entry(name).or_insert(node);
        }
        self.placed.entry(container.service).or_default().push(at);
    }
}

/// Containers of one service on one node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Count {
    /// Not ended.
    pub(crate) live: u32,
    /// Not ended and wanted.
    pub(crate) staying: u32,
}

/// A hash of seed and id that looks random (the finalizer of `splitmix64`).
fn mix(seed: u64, id: u128) -> u64 {
    let mut z = seed ^ (id as u64) ^ ((id >> 64) as u64).rotate_left(32);
    z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
