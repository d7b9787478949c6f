//! The containers of one service as they will be after what was planned so far.

use crate::{IdSource, Plan};
use std::collections::BTreeMap;
use std::sync::Arc;
use warren_state::{ClusterState, Op};
use warren_types::{
    ActualState, Container, ContainerId, DesiredState, HealthVerdict, Liveness, Node, Service,
    ServiceSpec, Slot, Timestamp,
};

/// One container with what was decided about it.
#[derive(Clone)]
pub(crate) struct View {
    pub(crate) container: Arc<Container>,
    pub(crate) desired: DesiredState,
    pub(crate) state: ActualState,
    /// Its node is being drained.
    pub(crate) leaving: bool,
    /// It runs and passes its checks.
    pub(crate) ready: bool,
}

impl View {
    pub(crate) const fn live(&self) -> bool {
        !self.state.is_final()
    }
    pub(crate) fn wanted(&self) -> bool {
        self.desired == DesiredState::Running
    }
    pub(crate) fn staying(&self) -> bool {
        self.live() && self.wanted()
    }
    pub(crate) fn retiring(&self) -> bool {
        self.live() && !self.wanted()
    }
    pub(crate) fn revision(&self) -> u32 {
        self.container.service_revision
    }
    /// When it ended, as far as is known.
    pub(crate) fn ended_at(&self) -> Timestamp {
        // The node's clock may be wrong; what the managers noted is at least not in their future.
        self.container.updated_at
    }
}

/// The containers of one place, oldest first.
#[derive(Default)]
pub(crate) struct Place {
    pub(crate) views: Vec<View>,
}

impl Place {
    pub(crate) fn newest(&self) -> Option<&View> {
        self.views.last()
    }
    pub(crate) fn staying(&self) -> impl Iterator<Item = &View> {
        self.views.iter().filter(|v| v.staying())
    }
    pub(crate) fn has_live(&self) -> bool {
        self.views.iter().any(View::live)
    }
    /// Somebody is or shall be here: a living container, or an ended one that was not retired.
    pub(crate) fn occupied(&self) -> bool {
        self.staying().next().is_some() || self.newest().is_some_and(View::wanted)
    }
    pub(crate) fn ready(&self) -> bool {
        self.staying().any(|v| v.ready)
    }
    /// All that shall run here is on a node that is being drained.
    pub(crate) fn leaving(&self) -> bool {
        self.staying().next().is_some() && self.staying().all(|v| v.leaving)
    }
    /// How bad its loss is: pending goes first, then what is not ready.
    pub(crate) fn worth(&self) -> u8 {
        match (
            self.ready(),
            self.staying().any(|v| v.state > ActualState::Pending),
        ) {
            (true, _) => 2,
            (false, true) => 1,
            (false, false) => 0,
        }
    }
}

/// Everything that planning of one service needs.
pub(crate) struct Ctx<'s, 'p> {
    pub(crate) state: &'s ClusterState,
    pub(crate) service: &'s Service,
    pub(crate) now: Timestamp,
    pub(crate) ids: &'p mut dyn IdSource,
    pub(crate) plan: &'p mut Plan,
    pub(crate) places: BTreeMap<Slot, Place>,
}

impl<'s, 'p> Ctx<'s, 'p> {
    pub(crate) fn new(
        state: &'s ClusterState,
        service: &'s Service,
        now: Timestamp,
        ids: &'p mut dyn IdSource,
        plan: &'p mut Plan,
    ) -> Self {
        let mut ctx = Self {
            state,
            service,
            now,
            ids,
            plan,
            places: BTreeMap::new(),
        };
        for container in state.containers_of_service(service.id) {
            let view = ctx.view(container);
            ctx.places
                .entry(container.slot)
                .or_default()
                .views
                .push(view);
        }
        ctx
    }

    fn view(&mut self, container: &Arc<Container>) -> View {
        let node = container.node.map(|id| self.state.node(id));
        let mut view = View {
            container: Arc::clone(container),
            desired: container.desired,
            state: container.status.state,
            leaving: node.flatten().is_some_and(|n| leaves(n)),
            ready: ready(self.state, container),
        };
        let lost = match node {
            _ if !view.live() => None,
            Some(None) => Some("its node was removed".to_owned()),
            Some(Some(node)) if node.liveness == Liveness::Down => Some(down(node)),
            _ => None,
        };
        if let Some(reason) = lost {
            self.plan.ops.push(Op::ContainerLost {
                id: container.id,
                expect: Some(container.version),
                reason,
            });
            (view.state, view.ready) = (ActualState::Lost, false);
        }
        view
    }

    /// Retires what is in a place: its living containers, and the ended one that holds it.
    pub(crate) fn free(&mut self, slot: Slot) {
        self.retire(slot, |_| true);
    }

    /// Retires those of a place that the test names.
    pub(crate) fn retire(&mut self, slot: Slot, test: impl Fn(&View) -> bool) {
        let Some(place) = self.places.get_mut(&slot) else {
            return;
        };
        let newest = place.views.len().saturating_sub(1);
        for (at, view) in place.views.iter_mut().enumerate() {
            if !view.wanted() || !(view.live() || at == newest) || !test(view) {
                continue;
            }
            self.plan.ops.push(Op::ContainerSetDesired {
                id: view.container.id,
                expect: Some(view.container.version),
                desired: DesiredState::Shutdown,
            });
            view.desired = DesiredState::Shutdown;
            if view.state == ActualState::Pending {
                view.state = ActualState::Shutdown;
            }
        }
    }

    /// Makes a container in a place, unless one of this revision is there.
    pub(crate) fn create(&mut self, slot: Slot, revision: u32) {
        let twin = |place: &Place| place.staying().any(|v| v.revision() == revision);
        if self.places.get(&slot).is_some_and(twin) {
            return;
        }
        let newest = self.places.get(&slot).and_then(Place::newest);
        let id = behind(self.ids.container(), newest.map(|view| view.container.id));
        self.plan.ops.push(Op::ContainerCreate {
            id,
            service: self.service.id,
            expect_service: Some(self.service.version),
            revision,
            slot,
        });
        let container = Container {
            id,
            service: self.service.id,
            service_revision: revision,
            slot,
            node: None,
            desired: DesiredState::Running,
            status: Default::default(),
            created_at: self.now,
            updated_at: self.now,
            version: self.state.revision(),
        };
        let view = View {
            container: Arc::new(container),
            desired: DesiredState::Running,
            state: ActualState::Pending,
            leaving: false,
            ready: false,
        };
        self.places.entry(slot).or_default().views.push(view);
    }

    pub(crate) fn spec(&self) -> &'s ServiceSpec {
        &self.service.spec
    }
}

/// An id that sorts behind the newest of the place: containers are read by age, and the clock that ids are made by may have
/// been set back, or be that of another leader.
fn behind(id: ContainerId, newest: Option<ContainerId>) -> ContainerId {
    const MOMENT: u128 = 1 << 80;
    match newest {
        Some(newest) if newest >= id => {
            let moment = newest.as_u128() / MOMENT + 1;
            ContainerId::from_u128((moment * MOMENT) | (id.as_u128() % MOMENT))
        }
        _ => id,
    }
}

/// Shall the containers of this node go elsewhere?
pub(crate) fn leaves(node: &Node) -> bool {
    node.availability == warren_types::Availability::Drain || !node.role.runs_containers()
}

fn down(node: &Node) -> String {
    if node.reason.is_empty() {
        format!("node {} is down", node.name)
    } else {
        format!("node {} is down: {}", node.name, node.reason)
    }
}

/// Does it run and pass its checks?
fn ready(state: &ClusterState, container: &Container) -> bool {
    if container.status.state != ActualState::Running {
        return false;
    }
    let checked = state.spec_of(container).is_some_and(|spec| {
        let health = &spec.container.health;
        health.startup.is_some() || health.readiness.is_some() || health.liveness.is_some()
    });
    match container.status.health {
        HealthVerdict::Healthy => true,
        HealthVerdict::Unknown => !checked,
        HealthVerdict::Starting | HealthVerdict::Unhealthy => false,
    }
}
