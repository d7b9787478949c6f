//! What must hold of every state, checked from scratch.

use crate::apply::{certificate_of, live_specs, missing_references, same_containers};
use crate::change::ObjectKind;
use crate::hash::hash_of;
use crate::index::{self, fits};
use crate::state::{ClusterState, NodeUsage};
use crate::table::{Key, Object, Table};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use warren_types::{
    ActualState, Certificate, ClusterSettings, Config, Container, DesiredState, Id128, Ingress,
    JoinToken, Mode, Network, Node, Secret, Service, Slot, Volume, limits,
};

/// One thing that must never be. A replicated node that finds one stops rather than goes on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invariant {rule} is broken by {kind} {id}: {detail}")]
pub struct Violation {
    /// Short name of the rule.
    pub rule: Rule,
    /// Kind of object.
    pub kind: ObjectKind,
    /// Which object.
    pub id: String,
    /// What was found.
    pub detail: String,
}

macro_rules! rules {
    ($($(#[$doc:meta])* $name:ident = $text:literal),+ $(,)?) => {
        /// The rules that `invariants()` checks.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Rule {
            $($(#[$doc])* $name,)+
        }
        impl fmt::Display for Rule {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $(Self::$name => $text),+ })
            }
        }
    };
}

rules! {
    /// Rows lie under their id, names point at them, versions are not of the future.
    Table = "table",
    /// An index says what the rows say.
    Index = "index",
    /// The sum of hashes is that of the rows.
    Hash = "hash",
    /// What is named exists.
    Reference = "reference",
    /// No node has given away more than it has.
    Overcommit = "overcommit",
    /// One live container a place and revision.
    Slot = "slot",
    /// Node and state of a container agree.
    LifeCycle = "life-cycle",
    /// Revisions of a service are in order.
    Revision = "revision",
    /// A node is listed, or removed, or unknown: never two of it.
    Removed = "removed",
    /// Counts are within their limits.
    Limit = "limit",
}

struct Findings(Vec<Violation>);

impl Findings {
    fn add<T: Object>(&mut self, rule: Rule, object: &T, detail: impl Into<String>) {
        self.0.push(Violation {
            rule,
            kind: T::KIND,
            id: object.label(),
            detail: detail.into(),
        });
    }
    fn add_id(&mut self, rule: Rule, kind: ObjectKind, id: u128, detail: impl Into<String>) {
        self.0.push(Violation {
            rule,
            kind,
            id: Id128(id).text(),
            detail: detail.into(),
        });
    }
}

impl ClusterState {
    /// Everything that is broken; empty on every state that `apply` and `decode_snapshot` make.
    /// Takes time in proportion to the size of the state.
    #[must_use]
    pub fn invariants(&self) -> Vec<Violation> {
        let mut found = Findings(Vec::new());
        self.check_tables(&mut found);
        for service in self.services.values() {
            self.check_service(service, &mut found);
        }
        self.check_containers(&mut found);
        self.check_usage(&mut found);
        self.check_published(&mut found);
        self.check_uses(&mut found);
        for ingress in self.ingresses.values() {
            if let Some(name) = certificate_of(ingress)
                && self.certificates.by_name(name).is_none()
            {
                found.add(
                    Rule::Reference,
                    &**ingress,
                    format!("no certificate {name:?}"),
                );
            }
        }
        found.0
    }

    fn check_tables(&self, found: &mut Findings) {
        let kind_max = limits::OBJECTS_PER_KIND_MAX;
        let mut sum = 0_u64;
        sum = sum.wrapping_add(self.check_table::<ClusterSettings>(1, found));
        sum = sum.wrapping_add(self.check_table::<Node>(limits::NODES_MAX, found));
        sum = sum.wrapping_add(self.check_table::<Service>(limits::SERVICES_MAX, found));
        sum = sum.wrapping_add(self.check_table::<Container>(limits::CONTAINERS_MAX, found));
        sum = sum.wrapping_add(self.check_table::<Secret>(kind_max, found));
        sum = sum.wrapping_add(self.check_table::<Config>(kind_max, found));
        sum = sum.wrapping_add(self.check_table::<Volume>(kind_max, found));
        sum = sum.wrapping_add(self.check_table::<Network>(kind_max, found));
        sum = sum.wrapping_add(self.check_table::<Ingress>(kind_max, found));
        sum = sum.wrapping_add(self.check_table::<Certificate>(kind_max, found));
        sum = sum.wrapping_add(self.check_table::<JoinToken>(limits::TOKENS_MAX, found));
        let kind = ObjectKind::Settings;
        if sum != self.sum {
            let detail = format!("rows give {sum:x}, kept is {:x}", self.sum);
            found.add_id(Rule::Hash, kind, 0, detail);
        }
        if !self.window.is_sound() {
            found.add_id(Rule::Hash, kind, 0, "the idempotency window is wrong");
        }
        if self.window.len() > limits::IDEMPOTENCY_KEYS_KEPT {
            found.add_id(Rule::Limit, kind, 0, "too many idempotency keys");
        }
        self.check_removed(found);
        let managers = self.nodes.values().filter(|n| n.role.is_manager()).count();
        if managers > limits::MANAGERS_MAX {
            let detail = format!("{managers} managers");
            found.add_id(Rule::Limit, ObjectKind::Node, 0, detail);
        }
    }

    fn check_removed(&self, found: &mut Findings) {
        let kind = ObjectKind::Node;
        if !self.removed.is_sound() {
            found.add_id(Rule::Index, kind, 0, "the record of removed nodes is wrong");
        }
        if self.removed.len() > limits::REMOVED_NODES_MAX {
            found.add_id(Rule::Limit, kind, 0, "too many removed nodes");
        }
        for (id, at) in self.removed.entries() {
            if let Some(node) = self.node(id) {
                found.add(Rule::Removed, &**node, format!("was removed at {at}"));
            }
        }
    }

    /// Checks rows and names; gives the sum of the hashes of the rows.
    fn check_table<T: Object>(&self, max: usize, found: &mut Findings) -> u64 {
        let table: &Table<T> = T::table(self);
        if table.len() > max {
            found.add_id(Rule::Limit, T::KIND, 0, format!("{} records", table.len()));
        }
        let mut names = 0;
        let mut sum = 0_u64;
        for (key, row) in &table.rows {
            sum = sum.wrapping_add(hash_of(T::KIND as u64, &**row));
            if row.key() != key.id() {
                found.add(Rule::Table, &**row, "lies under another id");
            }
            if row.version() > self.revision || row.version().0 == 0 {
                found.add(
                    Rule::Table,
                    &**row,
                    format!("has version {}", row.version()),
                );
            }
            if let Some(name) = row.name() {
                names += 1;
                if table.names.get(name) != Some(key) {
                    found.add(Rule::Index, &**row, "its name points elsewhere");
                }
            }
        }
        if table.names.len() != names {
            found.add_id(Rule::Index, T::KIND, 0, "names without rows");
        }
        sum
    }

    fn check_service(&self, service: &Service, found: &mut Findings) {
        if let Err(error) = service.spec.validate() {
            found.add(Rule::Limit, service, error.to_string());
        }
        match service.revision_spec(service.revision) {
            None => found.add(Rule::Revision, service, "the revision in force is not kept"),
            Some(spec) if !same_containers(spec, &service.spec) => {
                found.add(
                    Rule::Revision,
                    service,
                    "the spec is not that of the revision",
                );
            }
            Some(_) => {}
        }
        let numbers: Vec<u32> = service.revisions.iter().map(|r| r.number).collect();
        if !numbers.is_sorted_by(|a, b| a < b) || numbers.first() == Some(&0) {
            let detail = format!("revisions {numbers:?} do not rise from 1");
            found.add(Rule::Revision, service, detail);
        }
        if numbers.len() > limits::SERVICE_REVISIONS_MAX {
            found.add(Rule::Limit, service, format!("{} revisions", numbers.len()));
        }
        if let Some(rollout) = &service.rollout
            && (rollout.to != service.revision || !numbers.contains(&rollout.from))
        {
            let detail = format!(
                "rollout {} to {} fits no revision",
                rollout.from, rollout.to
            );
            found.add(Rule::Revision, service, detail);
        }
        for spec in live_specs(self, service) {
            for missing in missing_references(self, &spec) {
                let detail = format!("{} {:?} does not exist", missing.kind, missing.name);
                found.add(Rule::Reference, service, detail);
            }
        }
    }

    fn check_containers(&self, found: &mut Findings) {
        let mut places: BTreeSet<(u128, u32, Slot)> = BTreeSet::new();
        let mut on_nodes = 0;
        for container in self.containers.values() {
            let Container { service, node, .. } = &**container;
            match self.spec_of(container) {
                None => found.add(Rule::Reference, &**container, "its revision is not kept"),
                Some(spec) => {
                    let global = spec.mode == Mode::Global;
                    if global != matches!(container.slot, Slot::Node(_)) {
                        found.add(Rule::Slot, &**container, "its place does not fit the mode");
                    }
                }
            }
            if !self.by_service.contains(&index::service_key(container)) {
                found.add(Rule::Index, &**container, "is not in the index by service");
            }
            if let Some(node) = node {
                on_nodes += 1;
                if !self
                    .by_node
                    .contains(&(Key::new(node.as_u128()), Key::new(container.id.as_u128())))
                {
                    found.add(Rule::Index, &**container, "is not in the index by node");
                }
            }
            self.check_life(container, found);
            let state = container.status.state;
            if container.desired == DesiredState::Running
                && !state.is_final()
                && !places.insert((
                    service.as_u128(),
                    container.service_revision,
                    container.slot,
                ))
            {
                found.add(
                    Rule::Slot,
                    &**container,
                    "another live container has its place",
                );
            }
        }
        let rows = self.containers.len();
        if self.by_service.len() != rows || self.by_node.len() != on_nodes {
            found.add_id(
                Rule::Index,
                ObjectKind::Container,
                0,
                "index entries without rows",
            );
        }
    }

    fn check_life(&self, container: &Container, found: &mut Findings) {
        let status = &container.status;
        let placed = container.node.is_some();
        let never_placed = matches!(status.state, ActualState::Pending)
            || (status.state == ActualState::Shutdown && !placed);
        if placed == never_placed {
            let detail = format!("is {} and placed: {placed}", status.state);
            found.add(Rule::LifeCycle, container, detail);
        }
        if let Some(node) = container.node {
            if !status.state.is_final() && self.node(node).is_none() {
                found.add(Rule::Reference, container, format!("no node {node}"));
            }
            if let Slot::Node(place) = container.slot
                && place != node
            {
                found.add(Rule::Slot, container, "runs on another node than its own");
            }
        }
        if status.state == ActualState::Pending && container.desired == DesiredState::Shutdown {
            found.add(Rule::LifeCycle, container, "waits although it is unwanted");
        }
        if status.state != ActualState::Running && status.reason.is_empty() {
            found.add(
                Rule::LifeCycle,
                container,
                "does not run and says no reason",
            );
        }
        if status.reason.len() > limits::REASON_BYTES_MAX {
            found.add(Rule::Limit, container, "its reason is too long");
        }
    }

    /// R18: what nodes have given away, computed anew, is what the index says and fits.
    fn check_usage(&self, found: &mut Findings) {
        let mut usage: BTreeMap<u128, NodeUsage> = BTreeMap::new();
        let mut ports: BTreeMap<index::NodePortKey, u128> = BTreeMap::new();
        for container in self.containers.values().filter(|c| index::holds(c)) {
            let (Some(node), Some(spec)) = (container.node, self.spec_of(container)) else {
                continue;
            };
            usage.entry(node.as_u128()).or_default().add(spec);
            for (protocol, port) in index::host_ports(spec) {
                let key = (node.as_u128(), protocol, port);
                if ports.insert(key, container.id.as_u128()).is_some() {
                    let detail = format!("port {port} of its node is held twice");
                    found.add(Rule::Overcommit, &**container, detail);
                }
            }
        }
        for (key, usage) in &usage {
            let Some(node) = self.nodes.get(*key) else {
                continue;
            };
            if !fits(usage, &node.resources) && !self.overbooked.contains(key) {
                let detail = format!("gave away {} CPU and {}", usage.cpu, usage.memory);
                found.add(Rule::Overcommit, &**node, detail);
            }
        }
        let kind = ObjectKind::Node;
        if !usage.iter().eq(self.usage.iter()) {
            found.add_id(Rule::Index, kind, 0, "the usage index is wrong");
        }
        if !ports.iter().eq(self.node_ports.iter()) {
            found.add_id(Rule::Index, kind, 0, "the index of held ports is wrong");
        }
    }

    fn check_uses(&self, found: &mut Findings) {
        let uses: BTreeSet<_> = self
            .services
            .values()
            .flat_map(|service| index::uses(service))
            .collect();
        if !uses.iter().eq(self.uses.iter()) {
            let kind = ObjectKind::Service;
            found.add_id(Rule::Index, kind, 0, "the index of uses is wrong");
        }
    }

    fn check_published(&self, found: &mut Findings) {
        let mut count = 0;
        for service in self.services.values() {
            let global = service.spec.mode == Mode::Global;
            for port in service.spec.ports.iter().filter(|p| p.host_port != 0) {
                count += 1;
                let protocol = index::protocol_key(port.protocol);
                let key = (protocol, port.host_port, service.id.as_u128());
                let mode = port.publish_mode;
                if self.published.get(&key) != Some(&index::Published { mode, global }) {
                    found.add(Rule::Index, &**service, "is not in the index of ports");
                }
            }
        }
        if count != self.published.len() {
            found.add_id(
                Rule::Index,
                ObjectKind::Service,
                0,
                "ports without a service",
            );
        }
        let mut last: Option<(&index::PublishedKey, &index::Published)> = None;
        for (key, published) in &self.published {
            let ingress = warren_types::PublishMode::Ingress;
            if let Some((other, before)) = last
                && (other.0, other.1) == (key.0, key.1)
                && (before.mode == ingress
                    || published.mode == ingress
                    || (before.global && published.global))
            {
                let detail = format!("port {} is published by two services", key.1);
                found.add_id(Rule::Overcommit, ObjectKind::Service, key.2, detail);
            }
            last = Some((key, published));
        }
    }
}
