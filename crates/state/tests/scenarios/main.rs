//! What `apply` promises, case by case.

#[path = "../common/mod.rs"]
mod common;

mod cluster;
mod containers;
mod nodes;
mod services;

use common::{node, node_id, owner, service_id, settings, spec, token};
use std::sync::Arc;
use warren_state::{
    Actor, Applied, ClusterState, Command, NodePatch, ObjectKind, Op, OpResult, Rejection,
    StatusRefusal, events,
};
use warren_types::*;

struct World {
    state: ClusterState,
    now: u64,
}

impl World {
    /// Nodes 0 and 1 (hybrid and worker), each with 2 cores and 1 GiB.
    fn new() -> Self {
        let mut world = Self {
            state: ClusterState::new(),
            now: 1000,
        };
        world.ok(Op::NodeAdd(Box::new(node(0))));
        world.ok(Op::NodeAdd(Box::new(node(1))));
        world
    }
    fn all(&mut self, ops: Vec<Op>) -> Result<Applied, Rejection> {
        self.now += 1;
        let actor = match &ops[..] {
            [op] => owner(op),
            _ => Actor::System,
        };
        let result = self
            .state
            .apply(&Command::new(actor, Timestamp(self.now), ops));
        assert_eq!(self.state.invariants(), Vec::new());
        result
    }
    fn ok(&mut self, op: Op) -> Applied {
        self.all(vec![op]).expect("is accepted")
    }
    fn no(&mut self, op: Op) -> Rejection {
        self.all(vec![op]).expect_err("is rejected")
    }
    fn service(&mut self, spec: &ServiceSpec) -> ServiceId {
        let id = ServiceId::from_u128(u128::from(self.now));
        self.ok(Op::ServiceCreate {
            id,
            spec: Arc::new(spec.clone()),
        });
        id
    }
    fn update(&mut self, id: ServiceId, change: impl FnOnce(&mut ServiceSpec)) -> Op {
        let mut spec = ServiceSpec::clone(&self.get(id).spec);
        change(&mut spec);
        Op::ServiceUpdate {
            id,
            expect: None,
            spec: Arc::new(spec),
        }
    }
    fn create(&mut self, service: ServiceId, slot: u32) -> ContainerId {
        let id = ContainerId::from_u128(u128::from(self.now));
        let revision = self.get(service).revision;
        self.ok(Op::ContainerCreate {
            id,
            service,
            expect_service: None,
            revision,
            slot: Slot::Replica(slot),
        });
        id
    }
    fn assign(&mut self, id: ContainerId, node: u64) -> Result<Applied, Rejection> {
        self.all(vec![Op::ContainerAssign {
            id,
            expect: None,
            node: node_id(node),
        }])
    }
    fn running(&mut self, service: ServiceId, slot: u32, node: u64) -> ContainerId {
        let id = self.create(service, slot);
        self.assign(id, node).expect("it fits");
        self.ok(report(id, node, ActualState::Running, 1));
        id
    }
    fn get(&self, id: ServiceId) -> Arc<Service> {
        Arc::clone(self.state.service(id).expect("exists"))
    }
    fn container(&self, id: ContainerId) -> Arc<Container> {
        Arc::clone(self.state.container(id).expect("exists"))
    }
}

fn plain(name: &str) -> ServiceSpec {
    let mut spec = ServiceSpec {
        name: name.to_owned(),
        ..ServiceSpec::default()
    };
    spec.container.image = "app:1".to_owned();
    spec
}

fn status(state: ActualState, attempt: u32) -> ContainerStatus {
    ContainerStatus {
        state,
        attempt,
        ..ContainerStatus::default()
    }
}

fn report(id: ContainerId, node: u64, state: ActualState, attempt: u32) -> Op {
    Op::ContainerStatus {
        id,
        node: node_id(node),
        status: Box::new(status(state, attempt)),
    }
}

fn published(port: u16, mode: PublishMode) -> PortMapping {
    PortMapping {
        container_port: 80,
        host_port: port,
        publish_mode: mode,
        ..PortMapping::default()
    }
}
