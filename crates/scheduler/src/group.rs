//! Pending containers in groups of equal needs.

use std::collections::BTreeMap;
use warren_state::ClusterState;
use warren_types::{
    Bytes, Container, MilliCpu, Mount, NodeId, Protocol, PublishMode, Service, ServiceSpec, Slot,
};

/// Pending containers of one service revision (and, for global services, of one node).
pub(crate) struct Group<'s> {
    pub(crate) service: &'s Service,
    pub(crate) needs: Needs<'s>,
    /// By age, at least one.
    pub(crate) members: Vec<&'s Container>,
}

/// What a container of a spec asks of its node.
pub(crate) struct Needs<'s> {
    pub(crate) spec: &'s ServiceSpec,
    pub(crate) cpu: MilliCpu,
    pub(crate) memory: Bytes,
    pub(crate) ports: Vec<(Protocol, u16)>,
    /// Names of its volumes.
    pub(crate) volumes: Vec<&'s str>,
    /// The only node it may go to (global services).
    pub(crate) only: Option<NodeId>,
    /// Most containers of the service on one node; 0 means no limit.
    pub(crate) max_per_node: u32,
}

impl<'s> Needs<'s> {
    fn new(spec: &'s ServiceSpec, slot: Slot) -> Self {
        let resources = &spec.container.resources;
        let only = match slot {
            Slot::Node(node) => Some(node),
            Slot::Replica(_) => None,
        };
        Self {
            spec,
            cpu: resources.cpu_reservation.unwrap_or_default(),
            memory: resources.memory_reservation.unwrap_or_default(),
            ports: spec
                .ports
                .iter()
                .filter(|p| p.host_port != 0 && p.publish_mode == PublishMode::Host)
                .map(|p| (p.protocol, p.host_port))
                .collect(),
            volumes: spec
                .container
                .mounts
                .iter()
                .filter_map(|m| match m {
                    Mount::Volume { source, .. } => Some(source.as_str()),
                    _ => None,
                })
                .collect(),
            only,
            // A global service has one container a node by its nature; a second one there is its
            // replacement.
            max_per_node: if only.is_some() {
                0
            } else {
                spec.placement.max_per_node
            },
        }
    }
}

/// Groups pending containers; the group with the oldest container comes first.
pub(crate) fn groups<'s>(
    state: &'s ClusterState,
    pending: impl Iterator<Item = &'s Container>,
) -> Vec<Group<'s>> {
    let mut by_needs: BTreeMap<_, Vec<&Container>> = BTreeMap::new();
    for container in pending {
        let node = match container.slot {
            Slot::Node(node) => Some(node),
            Slot::Replica(_) => None,
        };
        let key = (container.service, container.service_revision, node);
        by_needs.entry(key).or_default().push(container);
    }
    let mut groups: Vec<Group<'s>> = by_needs
        .into_iter()
        .filter_map(|((service, revision, _), mut members)| {
            members.sort_unstable_by_key(|c| c.id);
            let service = state.service(service).filter(|s| !s.deleting)?;
            let spec = service.revision_spec(revision)?;
            let needs = Needs::new(spec, members.first()?.slot);
            Some(Group {
                service,
                needs,
                members,
            })
        })
        .collect();
    groups.sort_unstable_by_key(|g| g.members.first().map(|c| c.id));
    groups
}
