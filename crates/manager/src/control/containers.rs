//! Containers: look-ups and the watch.

use super::{Control, changes};
use futures::{StreamExt, stream};
use std::sync::Arc;
use warren_api::{ApiError, ApiResult, ApiStream, Caller, ContainerChange, ContainerFilter};
use warren_proto::convert::ContainerView;
use warren_state::{Change, ClusterState};
use warren_types::{Container, ContainerId, NodeId, Role, ServiceId, Slot};

/// A container with the names it refers to.
pub(super) fn view(state: &ClusterState, container: &Arc<Container>) -> ContainerView {
    ContainerView {
        container: container.clone(),
        service_name: state
            .service(container.service)
            .map_or_else(String::new, |s| s.name().to_owned()),
        spec: state.spec_of(container).cloned(),
        node_name: container
            .node
            .and_then(|id| state.node(id))
            .map_or_else(String::new, |n| n.name.clone()),
    }
}

/// The container with this id, unique beginning of an id, or name (`service.slot`: the newest in it).
/// A worker finds its own only.
pub(super) fn find(
    state: &ClusterState,
    caller: &Caller,
    target: &str,
) -> ApiResult<Arc<Container>> {
    let found = by_id(state, target)
        .or_else(|| by_name(state, target))
        .or_else(|| by_beginning(state, target));
    found
        .filter(|c| may_see(caller, c))
        .ok_or_else(|| ApiError::not_found("container", target))
}

fn by_id(state: &ClusterState, target: &str) -> Option<Arc<Container>> {
    state
        .container(target.parse::<ContainerId>().ok()?)
        .cloned()
}

fn by_name(state: &ClusterState, target: &str) -> Option<Arc<Container>> {
    let (service, place) = target.rsplit_once('.')?;
    let service = state.service_by_name(service)?.id;
    let slot = match place.parse::<u32>() {
        Ok(number) => Slot::Replica(number),
        Err(_) => Slot::Node(state.node_by_name(place)?.id),
    };
    let mut newest: Option<&Arc<Container>> = None;
    for container in state.containers_of_slot(service, slot) {
        // A living one is meant before an ended one, a younger before an older.
        let rank = |c: &Container| (!c.status.state.is_final(), c.id);
        if newest.is_none_or(|n| rank(n) < rank(container)) {
            newest = Some(container);
        }
    }
    newest.cloned()
}

/// Shortest beginning of an id that is looked for, in characters.
const BEGINNING_CHARS_MIN: usize = 6;

fn by_beginning(state: &ClusterState, target: &str) -> Option<Arc<Container>> {
    if target.len() < BEGINNING_CHARS_MIN {
        return None;
    }
    let mut matching = state
        .containers()
        .filter(|c| c.id.to_string().starts_with(target));
    let first = matching.next()?;
    matching.next().is_none().then(|| first.clone())
}

fn may_see(caller: &Caller, container: &Container) -> bool {
    caller.role != Role::Worker || container.node == caller.node
}

/// The filter with ids in the place of names.
#[derive(Clone)]
struct Resolved {
    service: Option<ServiceId>,
    node: Option<NodeId>,
    include_ended: bool,
    caller: Caller,
}

impl Resolved {
    fn new(state: &ClusterState, caller: &Caller, filter: &ContainerFilter) -> ApiResult<Self> {
        let service = filter
            .service
            .as_deref()
            .map(|t| super::services::find(state, t).map(|s| s.id));
        let node = filter
            .node
            .as_deref()
            .map(|t| super::nodes::find(state, t).map(|n| n.id));
        Ok(Self {
            service: service.transpose()?,
            node: node.transpose()?,
            include_ended: filter.include_ended,
            caller: caller.clone(),
        })
    }

    fn takes(&self, container: &Container) -> bool {
        self.service.is_none_or(|id| container.service == id)
            && self.node.is_none_or(|id| container.node == Some(id))
            && (self.include_ended || !container.status.state.is_final())
            && may_see(&self.caller, container)
    }
}

/// Containers by service and slot.
pub(super) fn list(
    state: &ClusterState,
    caller: &Caller,
    filter: &ContainerFilter,
) -> ApiResult<Vec<ContainerView>> {
    let filter = Resolved::new(state, caller, filter)?;
    Ok(select(state, &filter))
}

fn select(state: &ClusterState, filter: &Resolved) -> Vec<ContainerView> {
    let found: Vec<&Arc<Container>> = match (filter.service, filter.node) {
        (Some(service), _) => state
            .containers_of_service(service)
            .filter(|c| filter.takes(c))
            .collect(),
        (None, Some(node)) => state
            .containers_on_node(node)
            .filter(|c| filter.takes(c))
            .collect(),
        (None, None) => state.containers().filter(|c| filter.takes(c)).collect(),
    };
    let mut views: Vec<ContainerView> = found.into_iter().map(|c| view(state, c)).collect();
    views.sort_by(|a, b| {
        let key = |v: &ContainerView| (v.service_name.clone(), v.container.slot, v.container.id);
        key(a).cmp(&key(b))
    });
    views
}

/// First what there is, then each change.
pub(super) fn watch(
    control: &Control,
    caller: &Caller,
    filter: ContainerFilter,
) -> ApiResult<ApiStream<ContainerChange>> {
    let state = control.state();
    let filter = Resolved::new(&state, caller, &filter)?;
    let now: Vec<_> = select(&state, &filter)
        .into_iter()
        .map(|v| Ok(ContainerChange::Added(v)))
        .collect();
    let raft = control.raft.clone();
    let later = changes::follow(control.raft.clone(), state.revision()).flat_map(move |set| {
        let changes = match set {
            Ok(set) => {
                let state = raft.state();
                set.changes
                    .iter()
                    .filter_map(|c| change_of(&state, &filter, c))
                    .map(Ok)
                    .collect()
            }
            Err(error) => vec![Err(error)],
        };
        stream::iter(changes)
    });
    Ok(stream::iter(now).chain(later).boxed())
}

fn change_of(state: &ClusterState, filter: &Resolved, change: &Change) -> Option<ContainerChange> {
    let Change::Container(delta) = change else {
        return None;
    };
    let was = delta.before.as_ref().is_some_and(|c| filter.takes(c));
    // A container that ends is shown once more even to a watch of the living, so that its end is seen.
    let is = delta
        .after
        .as_ref()
        .is_some_and(|c| filter.takes(c) || (was && c.status.state.is_final()));
    let latest = delta.latest()?;
    match (was, is) {
        (false, true) => Some(ContainerChange::Added(view(state, latest))),
        (true, true) => Some(ContainerChange::Updated(view(state, latest))),
        (true, false) => Some(ContainerChange::Deleted(view(state, latest))),
        (false, false) => None,
    }
}
