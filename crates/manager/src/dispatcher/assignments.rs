//! What a node shall run, worked out from the state: a pure comparison of what it was sent with what
//! it should have. A node gets its own containers and the secrets, configs and volumes *they* need,
//! and nothing else (law 10).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use warren_state::ClusterState;
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
