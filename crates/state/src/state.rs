//! The state and its readers.

use crate::change::{ChangeSet, ObjectKind};
use crate::command::OpResult;
use crate::hash::hash_of;
use crate::index::{self, NodePortKey, Published, PublishedKey, UseKey};
use crate::removed::Removed;
use crate::table::{Key, Object, Table};
use crate::window::Window;
use imbl::{OrdMap, OrdSet};
use std::sync::Arc;
use warren_types::{
    Bytes, Certificate, CertificateId, ClusterSettings, Config, ConfigId, Container, ContainerId,
    Ingress, IngressId, JoinToken, MilliCpu, Network, NetworkId, Node, NodeId, Protocol, Revision,
    Secret, SecretId, Service, ServiceId, ServiceSpec, Slot, Timestamp, TokenId, Volume, VolumeId,
};

/// The whole replicated state. `clone` takes O(1) and shares everything.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ClusterState {
    pub(crate) revision: Revision,
    pub(crate) settings: Table<ClusterSettings>,
    pub(crate) nodes: Table<Node>,
    pub(crate) services: Table<Service>,
    pub(crate) containers: Table<Container>,
    pub(crate) secrets: Table<Secret>,
    pub(crate) configs: Table<Config>,
    pub(crate) volumes: Table<Volume>,
    pub(crate) networks: Table<Network>,
    pub(crate) ingresses: Table<Ingress>,
    pub(crate) certificates: Table<Certificate>,
    pub(crate) tokens: Table<JoinToken>,
    pub(crate) window: Window,
    pub(crate) removed: Removed,
    /// (service, slot, container)
    pub(crate) by_service: OrdSet<(Key, u32, Key)>,
    /// (node, container)
    pub(crate) by_node: OrdSet<(Key, Key)>,
    pub(crate) usage: OrdMap<u128, NodeUsage>,
    pub(crate) node_ports: OrdMap<NodePortKey, u128>,
    pub(crate) published: OrdMap<PublishedKey, Published>,
    /// (kind and name of an object, service)
    pub(crate) uses: OrdSet<UseKey>,
    /// Nodes that came back with less than what had been given away.
    pub(crate) overbooked: OrdSet<u128>,
    /// Sum of the hashes of all rows.
    pub(crate) sum: u64,
}

/// What the containers of a node hold that are assigned to it and have not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NodeUsage {
    /// How many.
    pub containers: u32,
    /// Reserved CPU.
    pub cpu: MilliCpu,
    /// Reserved memory.
    pub memory: Bytes,
}

impl NodeUsage {
    pub(crate) fn add(&mut self, spec: &ServiceSpec) {
        let (cpu, memory) = index::reservation(spec);
        self.containers = self.containers.saturating_add(1);
        self.cpu = MilliCpu(self.cpu.0.saturating_add(cpu.0));
        self.memory = Bytes(self.memory.0.saturating_add(memory.0));
    }
    pub(crate) fn remove(&mut self, spec: &ServiceSpec) {
        let (cpu, memory) = index::reservation(spec);
        self.containers = self.containers.saturating_sub(1);
        self.cpu = MilliCpu(self.cpu.0.saturating_sub(cpu.0));
        self.memory = Bytes(self.memory.0.saturating_sub(memory.0));
    }
}

/// What an accepted command did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// Revision of the state after it.
    pub revision: Revision,
    /// One per operation, in order.
    pub results: Vec<OpResult>,
    /// What changed. Publish it to the feed unless `replayed`.
    pub changes: Arc<ChangeSet>,
    /// The idempotency key was known: this is the first answer again (its revision and results),
    /// and nothing changed.
    pub replayed: bool,
}

macro_rules! readers {
    ($($kind:literal: $object:ident, $id:ident, $table:ident, $get:ident, $all:ident $(, $by_name:ident)?);+ $(;)?) => {$(
        #[doc = concat!("The ", $kind, " with this id.")]
        #[must_use]
        pub fn $get(&self, id: $id) -> Option<&Arc<$object>> {
            self.$table.get(id.as_u128())
        }
        #[doc = concat!("Every ", $kind, ", by id (that is, by age).")]
        pub fn $all(&self) -> impl Iterator<Item = &Arc<$object>> {
            self.$table.values()
        }
        $(
            #[doc = concat!("The ", $kind, " with this name.")]
            #[must_use]
            pub fn $by_name(&self, name: &str) -> Option<&Arc<$object>> {
                self.$table.by_name(name)
            }
        )?
    )+};
}

impl ClusterState {
    /// The empty state at revision 0.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Number of accepted commands so far.
    #[must_use]
    pub const fn revision(&self) -> Revision {
        self.revision
    }

    /// Hash of everything that is replicated; equal on all managers at the same revision. Compare it
    /// only between programs with the same [`crate::HASH_SCHEME`]. O(1).
    #[must_use]
    pub fn hash(&self) -> u64 {
        let sums = (self.sum, self.window.sum(), self.removed.sum());
        hash_of(0, &(sums, self.revision))
    }

    /// The cluster's settings, once they were made.
    #[must_use]
    pub fn settings(&self) -> Option<&Arc<ClusterSettings>> {
        self.settings.values().next()
    }

    readers! {
        "node": Node, NodeId, nodes, node, nodes, node_by_name;
        "service": Service, ServiceId, services, service, services, service_by_name;
        "container": Container, ContainerId, containers, container, containers;
        "secret": Secret, SecretId, secrets, secret, secrets, secret_by_name;
        "config": Config, ConfigId, configs, config, configs, config_by_name;
        "volume": Volume, VolumeId, volumes, volume, volumes, volume_by_name;
        "network": Network, NetworkId, networks, network, networks, network_by_name;
        "ingress": Ingress, IngressId, ingresses, ingress, ingresses, ingress_by_name;
        "certificate": Certificate, CertificateId, certificates, certificate, certificates, certificate_by_name;
        "join token": JoinToken, TokenId, tokens, token, tokens;
    }

    /// When this node was removed from the cluster; `None` if it never was, or so long ago
    /// (`REMOVED_NODE_MS_KEPT`) that it is forgotten.
    #[must_use]
    pub fn is_removed(&self, id: NodeId) -> Option<Timestamp> {
        self.removed.get(id)
    }

    /// The removed nodes that are remembered, by id, with the time of their removal.
    pub fn removed_nodes(&self) -> impl Iterator<Item = (NodeId, Timestamp)> {
        self.removed.entries()
    }

    /// The newest container's id. O(log n).
    #[must_use]
    pub fn newest_container(&self) -> Option<ContainerId> {
        self.containers
            .rows
            .get_max()
            .map(|(key, _)| ContainerId::from_u128(key.id()))
    }

    /// Number of container records.
    #[must_use]
    pub fn container_count(&self) -> usize {
        self.containers.len()
    }

    /// The spec of a kept revision of a service.
    #[must_use]
    pub fn service_revision(&self, id: ServiceId, number: u32) -> Option<&Arc<ServiceSpec>> {
        self.service(id)?.revision_spec(number)
    }

    /// The spec that a container was made from.
    #[must_use]
    pub fn spec_of(&self, container: &Container) -> Option<&Arc<ServiceSpec>> {
        self.service_revision(container.service, container.service_revision)
    }

    /// Containers of a service, by slot, then by age; ended ones included. (Places of a global
    /// service are in no particular order.)
    pub fn containers_of_service(&self, id: ServiceId) -> impl Iterator<Item = &Arc<Container>> {
        let key = Key::new(id.as_u128());
        self.by_service
            .range((key, 0, Key::MIN)..=(key, u32::MAX, Key::MAX))
            .filter_map(|(_, _, container)| self.containers.rows.get(container))
    }

    /// Containers of one slot of a service, by age; ended ones included.
    pub fn containers_of_slot(
        &self,
        id: ServiceId,
        slot: Slot,
    ) -> impl Iterator<Item = &Arc<Container>> {
        let (service, place) = (Key::new(id.as_u128()), index::slot_key(slot));
        self.by_service
            .range((service, place, Key::MIN)..=(service, place, Key::MAX))
            .filter_map(|(_, _, container)| self.containers.rows.get(container))
            .filter(move |container| container.slot == slot)
    }

    /// Containers that were placed on a node, by age; ended ones included.
    pub fn containers_on_node(&self, id: NodeId) -> impl Iterator<Item = &Arc<Container>> {
        let key = Key::new(id.as_u128());
        self.by_node
            .range((key, Key::MIN)..=(key, Key::MAX))
            .filter_map(|(_, container)| self.containers.rows.get(container))
    }

    /// Services whose spec in force names this secret, config, volume or network, by id. O(log n) each.
    pub fn users_of(&self, kind: ObjectKind, name: &str) -> impl Iterator<Item = &Arc<Service>> {
        let name: Arc<str> = Arc::from(name);
        self.uses
            .range((kind, Arc::clone(&name), 0)..=(kind, name, u128::MAX))
            .filter_map(|(_, _, service)| self.services.get(*service))
    }

    /// What the live containers of a node hold. O(log n).
    #[must_use]
    pub fn node_usage(&self, id: NodeId) -> NodeUsage {
        self.usage.get(&id.as_u128()).copied().unwrap_or_default()
    }

    /// The live container that holds a host-mode port on a node. O(log n).
    #[must_use]
    pub fn port_holder(&self, node: NodeId, protocol: Protocol, port: u16) -> Option<ContainerId> {
        self.node_ports
            .get(&(node.as_u128(), index::protocol_key(protocol), port))
            .map(|id| ContainerId::from_u128(*id))
    }

    /// Puts, replaces or removes one row with all that hangs on it.
    pub(crate) fn replace<T: Object>(
        &mut self,
        key: u128,
        after: Option<Arc<T>>,
    ) -> Option<Arc<T>> {
        let tag = T::KIND as u64;
        let before = T::table(self).get(key).cloned();
        if let Some(old) = &before {
            self.sum = self.sum.wrapping_sub(hash_of(tag, old.as_ref()));
        }
        if let Some(new) = &after {
            self.sum = self.sum.wrapping_add(hash_of(tag, new.as_ref()));
        }
        let old_name = before.as_ref().and_then(|o| o.name());
        let new_name = after.as_ref().and_then(|o| o.name());
        let table = T::table_mut(self);
        if old_name != new_name {
            if let Some(name) = old_name {
                table.names.remove(name);
            }
            if let Some(name) = new_name {
                table.names.insert(Arc::from(name), Key::new(key));
            }
        }
        match &after {
            Some(new) => table.rows.insert(Key::new(key), Arc::clone(new)),
            None => table.rows.remove(&Key::new(key)),
        };
        T::reindex(self, before.as_deref(), after.as_deref());
        before
    }
}
