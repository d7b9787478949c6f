//! Indexes that follow the tables: containers by service and node, what each node has given away,
//! which ports are taken, which services name an object.

use crate::apply::references;
use crate::change::ObjectKind;
use crate::state::{ClusterState, NodeUsage};
use crate::table::Key;
use std::collections::BTreeSet;
use std::sync::Arc;
use warren_types::{
    Bytes, Container, MilliCpu, Mode, Node, NodeResources, Protocol, PublishMode, Service,
    ServiceSpec, Slot,
};

/// Key of a published port: protocol, port, service.
pub(crate) type PublishedKey = (u8, u16, u128);
/// Key of a port that a container holds on its node: node, protocol, port.
pub(crate) type NodePortKey = (u128, u8, u16);

/// Key of a use: kind and name of an object, and the service whose spec in force names it.
pub(crate) type UseKey = (ObjectKind, Arc<str>, u128);

/// How a service publishes a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Published {
    pub(crate) mode: PublishMode,
    pub(crate) global: bool,
}

pub(crate) const fn protocol_key(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
    }
}

/// Place of a slot in the order of its service. Two nodes may share one; the reader compares slots.
#[expect(
    clippy::cast_possible_truncation,
    reason = "the random end of an id tells nodes apart well enough"
)]
pub(crate) const fn slot_key(slot: Slot) -> u32 {
    match slot {
        Slot::Replica(number) => number,
        Slot::Node(node) => node.as_u128() as u32,
    }
}

/// Ports that a container of this spec holds on its own node.
pub(crate) fn host_ports(spec: &ServiceSpec) -> impl Iterator<Item = (u8, u16)> {
    spec.ports
        .iter()
        .filter(|p| p.host_port != 0 && p.publish_mode == PublishMode::Host)
        .map(|p| (protocol_key(p.protocol), p.host_port))
}

/// What a container of this spec keeps for itself on its node.
pub(crate) fn reservation(spec: &ServiceSpec) -> (MilliCpu, Bytes) {
    let resources = &spec.container.resources;
    (
        resources.cpu_reservation.unwrap_or_default(),
        resources.memory_reservation.unwrap_or_default(),
    )
}

/// Does what was given away fit into what is there?
pub(crate) fn fits(usage: &NodeUsage, resources: &NodeResources) -> bool {
    usage.cpu <= resources.cpu && usage.memory <= resources.memory
}

/// What a service names.
pub(crate) fn uses(service: &Service) -> BTreeSet<UseKey> {
    let id = service.id.as_u128();
    references(&service.spec)
        .map(|(kind, name)| (kind, Arc::from(name), id))
        .collect()
}

fn used(state: &mut ClusterState, before: Option<&Service>, after: Option<&Service>) {
    if let (Some(old), Some(new)) = (before, after)
        && Arc::ptr_eq(&old.spec, &new.spec)
    {
        return;
    }
    let before = before.map(uses).unwrap_or_default();
    let after = after.map(uses).unwrap_or_default();
    for key in before.difference(&after) {
        state.uses.remove(key);
    }
    for key in after.difference(&before) {
        state.uses.insert(key.clone());
    }
}

pub(crate) fn service(state: &mut ClusterState, before: Option<&Service>, after: Option<&Service>) {
    used(state, before, after);
    let keys = |service: &Service| -> Vec<PublishedKey> {
        service
            .spec
            .ports
            .iter()
            .filter(|p| p.host_port != 0)
            .map(|p| (protocol_key(p.protocol), p.host_port, service.id.as_u128()))
            .collect()
    };
    if let (Some(old), Some(new)) = (before, after)
        && old.spec.ports == new.spec.ports
        && old.spec.mode == new.spec.mode
    {
        return;
    }
    for key in before.map(keys).unwrap_or_default() {
        state.published.remove(&key);
    }
    let Some(after) = after else { return };
    let global = after.spec.mode == Mode::Global;
    for port in after.spec.ports.iter().filter(|p| p.host_port != 0) {
        let key = (
            protocol_key(port.protocol),
            port.host_port,
            after.id.as_u128(),
        );
        let mode = port.publish_mode;
        state.published.insert(key, Published { mode, global });
    }
}

pub(crate) fn node(state: &mut ClusterState, before: Option<&Node>, after: Option<&Node>) {
    match after {
        Some(node) if before.is_none_or(|b| b.resources != node.resources) => {
            overbooked(state, node.id.as_u128());
        }
        Some(_) => {}
        None => {
            if let Some(node) = before {
                state.overbooked.remove(&node.id.as_u128());
            }
        }
    }
}

/// Notes whether a node has given away more than it has. Assignments never do that; a node that
/// comes back with less memory does.
pub(crate) fn overbooked(state: &mut ClusterState, key: u128) {
    let Some(node) = state.nodes.get(key) else {
        return;
    };
    let usage = state.usage.get(&key).copied().unwrap_or_default();
    if fits(&usage, &node.resources) {
        state.overbooked.remove(&key);
    } else {
        state.overbooked.insert(key);
    }
}

pub(crate) fn container(
    state: &mut ClusterState,
    before: Option<&Container>,
    after: Option<&Container>,
) {
    match (before, after) {
        (None, Some(new)) => {
            state.by_service.insert(service_key(new));
        }
        (Some(old), None) => {
            state.by_service.remove(&service_key(old));
        }
        _ => {}
    }
    let node_of = |c: Option<&Container>| c.and_then(|c| c.node);
    let (old_node, new_node) = (node_of(before), node_of(after));
    let id = Key::new(before.or(after).map_or(0, |c| c.id.as_u128()));
    if old_node != new_node {
        if let Some(node) = old_node {
            state.by_node.remove(&(Key::new(node.as_u128()), id));
        }
        if let Some(node) = new_node {
            state.by_node.insert((Key::new(node.as_u128()), id));
        }
    }
    let (old_holds, new_holds) = (before.filter(|c| holds(c)), after.filter(|c| holds(c)));
    match (old_holds, new_holds) {
        (Some(old), None) => release(state, old),
        (None, Some(new)) => hold(state, new),
        _ => {}
    }
}

pub(crate) const fn service_key(container: &Container) -> (Key, u32, Key) {
    (
        Key::new(container.service.as_u128()),
        slot_key(container.slot),
        Key::new(container.id.as_u128()),
    )
}

/// Does the container keep resources of a node? From its assignment until its end.
pub(crate) const fn holds(container: &Container) -> bool {
    container.node.is_some() && !container.status.state.is_final()
}

fn hold(state: &mut ClusterState, container: &Container) {
    let (Some(node), Some(spec)) = (container.node, state.spec_of(container).cloned()) else {
        return;
    };
    let key = node.as_u128();
    let mut usage = state.usage.get(&key).copied().unwrap_or_default();
    usage.add(&spec);
    state.usage.insert(key, usage);
    for (protocol, port) in host_ports(&spec) {
        let holder = container.id.as_u128();
        state.node_ports.insert((key, protocol, port), holder);
    }
}

fn release(state: &mut ClusterState, container: &Container) {
    let (Some(node), Some(spec)) = (container.node, state.spec_of(container).cloned()) else {
        return;
    };
    let key = node.as_u128();
    let mut usage = state.usage.get(&key).copied().unwrap_or_default();
    usage.remove(&spec);
    if usage == NodeUsage::default() {
        state.usage.remove(&key);
    } else {
        state.usage.insert(key, usage);
    }
    for (protocol, port) in host_ports(&spec) {
        state.node_ports.remove(&(key, protocol, port));
    }
    if state.overbooked.contains(&key) {
        overbooked(state, key);
    }
}
