//! What a node shall run, worked out from the state: a pure comparison of what it was sent with what
//! it should have. A node gets its own containers and the secrets, configs and volumes *they* need,
//! and nothing else (law 10).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use warren_state::{Change, ChangeSet, ClusterState};
use warren_types::{
    Config, Container, ContainerId, DesiredState, Mount, NodeId, Revision, Secret, ServiceSpec,
    Volume,
};

/// What a node was sent last.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Sent {
    containers: BTreeMap<ContainerId, (DesiredState, u32)>,
    secrets: BTreeMap<String, Revision>,
    configs: BTreeMap<String, Revision>,
    volumes: BTreeMap<String, Revision>,
}

/// What a node has to be sent.
#[derive(Debug, Default)]
pub(crate) struct Delta {
    pub(crate) upserts: Vec<(Arc<Container>, Arc<ServiceSpec>, DesiredState)>,
    pub(crate) removed: Vec<ContainerId>,
    pub(crate) secrets: Vec<Arc<Secret>>,
    pub(crate) configs: Vec<Arc<Config>>,
    pub(crate) volumes: Vec<Arc<Volume>>,
}

impl Delta {
    /// Nothing to send.
    pub(crate) fn is_empty(&self) -> bool {
        self.upserts.is_empty()
            && self.removed.is_empty()
            && self.secrets.is_empty()
            && self.configs.is_empty()
            && self.volumes.is_empty()
    }
}

/// May this change what `node` has to be sent? Asked for every session at every change, so it looks at the change alone.
pub(crate) fn concerns(set: &ChangeSet, node: NodeId) -> bool {
    set.changes.iter().any(|change| match change {
        Change::Container(delta) => {
            let mut sides = delta.before.iter().chain(&delta.after);
            sides.any(|container| container.node == Some(node))
        }
        // Whose containers use it is not worth keeping: they change seldom.
        Change::Secret(_) | Change::Config(_) | Change::Volume(_) => true,
        // A container's spec is that of its revision, which never changes.
        Change::Node(_)
        | Change::Service(_)
        | Change::Network(_)
        | Change::Ingress(_)
        | Change::Certificate(_)
        | Change::Token(_)
        | Change::Settings(_) => false,
    })
}

/// Compares what `node` was sent with what the state wants of it.
pub(crate) fn compare(state: &ClusterState, node: NodeId, sent: &Sent) -> (Sent, Delta) {
    let mut next = Sent::default();
    let mut delta = Delta::default();
    let mut needs = Needs::default();
    for container in state.containers_on_node(node) {
        let Some(spec) = state.spec_of(container) else {
            continue;
        };
        let desired = wanted(container);
        if desired == DesiredState::Running {
            needs.add(spec);
        }
        let key = (desired, container.service_revision);
        if sent.containers.get(&container.id) != Some(&key) {
            delta
                .upserts
                .push((container.clone(), spec.clone(), desired));
        }
        next.containers.insert(container.id, key);
    }
    let gone = |id: &&ContainerId| !next.containers.contains_key(id);
    delta.removed = sent.containers.keys().filter(gone).copied().collect();
    pick(
        &needs.secrets,
        &sent.secrets,
        &mut next.secrets,
        &mut delta.secrets,
        |name| state.secret_by_name(name).map(|s| (s, s.version)),
    );
    pick(
        &needs.configs,
        &sent.configs,
        &mut next.configs,
        &mut delta.configs,
        |name| state.config_by_name(name).map(|c| (c, c.version)),
    );
    pick(
        &needs.volumes,
        &sent.volumes,
        &mut next.volumes,
        &mut delta.volumes,
        |name| state.volume_by_name(name).map(|v| (v, v.version)),
    );
    (next, delta)
}

/// An ended container is kept on its node for its logs, but is never to be started again, whatever
/// the record's wish was when it ended.
fn wanted(container: &Container) -> DesiredState {
    if container.status.state.is_final() {
        DesiredState::Shutdown
    } else {
        container.desired
    }
}

/// Names that the running containers of a node refer to.
#[derive(Default)]
struct Needs {
    secrets: BTreeSet<String>,
    configs: BTreeSet<String>,
    volumes: BTreeSet<String>,
}

impl Needs {
    fn add(&mut self, spec: &ServiceSpec) {
        let container = &spec.container;
        let names = |refs: &[warren_types::FileRef]| {
            refs.iter()
                .map(|r| r.source.clone())
                .collect::<Vec<String>>()
        };
        self.secrets.extend(names(&container.secrets));
        self.configs.extend(names(&container.configs));
        for mount in &container.mounts {
            if let Mount::Volume { source, .. } = mount {
                self.volumes.insert(source.clone());
            }
        }
    }
}

fn pick<'a, T: 'a>(
    names: &BTreeSet<String>,
    sent: &BTreeMap<String, Revision>,
    next: &mut BTreeMap<String, Revision>,
    out: &mut Vec<Arc<T>>,
    find: impl Fn(&str) -> Option<(&'a Arc<T>, Revision)>,
) {
    for name in names {
        let Some((object, version)) = find(name) else {
            continue;
        };
        if sent.get(name) != Some(&version) {
            out.push(object.clone());
        }
        next.insert(name.clone(), version);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use warren_state::{Actor, Delta as Changed};
    use warren_types::{ServiceId, Slot, Timestamp};

    fn container(node: Option<NodeId>) -> Arc<Container> {
        Arc::new(Container {
            id: ContainerId::from_u128(1),
            service: ServiceId::from_u128(2),
            service_revision: 1,
            slot: Slot::Replica(1),
            node,
            desired: DesiredState::Running,
            status: warren_types::ContainerStatus::default(),
            created_at: Timestamp(0),
            updated_at: Timestamp(0),
            version: Revision(0),
        })
    }

    fn set(before: Option<NodeId>, after: Option<NodeId>) -> ChangeSet {
        ChangeSet {
            revision: Revision(1),
            time: Timestamp(0),
            actor: Actor::System,
            changes: vec![Change::Container(Changed {
                before: Some(container(before)),
                after: after.map(|node| container(Some(node))),
            })],
        }
    }

    #[test]
    fn a_session_hears_of_its_own_containers_only() {
        let (own, other) = (NodeId::from_u128(7), NodeId::from_u128(8));
        assert!(concerns(&set(None, Some(own)), own), "assigned");
        assert!(concerns(&set(Some(own), None), own), "removed");
        assert!(!concerns(&set(None, Some(other)), own));
        assert!(!concerns(&set(Some(other), None), own));
        let mut volume = set(None, None);
        volume.changes = vec![Change::Volume(Changed {
            before: None,
            after: None,
        })];
        assert!(
            concerns(&volume, own),
            "it may be one that a container uses"
        );
    }
}
