//! Bytes of memory per object, counted by the allocator, against the budget of SPECIFICATION.md:
//! 2 KB a service, 0.5 KB a container, 1 KB a node.

mod large;

use large::{CONTAINER_BYTES_MAX, NODE_BYTES_MAX, SERVICE_BYTES_MAX, apply, live};
use warren_state::{ClusterState, Op};
use warren_types::*;

const NODES: u32 = 100;
const SERVICES: u32 = 200;
const CONTAINERS_PER_SERVICE: u32 = 100;
const NOW: Timestamp = Timestamp(1);

fn node_id(number: u32) -> NodeId {
    NodeId::from_parts(1, u128::from(number % NODES))
}

fn service_id(number: u32) -> ServiceId {
    ServiceId::from_parts(2, u128::from(number))
}

/// The life of the containers of a service: made, placed, running with address and times.
fn containers(state: &mut ClusterState, service: u32) {
    let id = |slot: u32| ContainerId::from_parts(3, u128::from(service * 1000 + slot));
    let slots = 1..=CONTAINERS_PER_SERVICE;
    let create = |slot| large::create(id(slot), service_id(service), slot);
    apply(state, NOW, slots.clone().map(create).collect());
    let assign = |slot| large::assign(id(slot), node_id(slot));
    apply(state, NOW, slots.clone().map(assign).collect());
    let run = |slot| Op::ContainerStatus {
        id: id(slot),
        node: node_id(slot),
        status: Box::new(large::running(1, [10, 89, 1, 2], 4711, Timestamp(5))),
    };
    apply(state, NOW, slots.map(run).collect());
}

#[test]
fn objects_stay_within_their_memory_budget() {
    let mut state = ClusterState::new();
    let start = live();
    let nodes = (0..NODES).map(|n| Op::NodeAdd(Box::new(large::node(node_id(n), n))));
    apply(&mut state, NOW, nodes.collect());
    let nodes = live();
    for n in 0..SERVICES {
        let service = large::service(service_id(n), n, 1, |_| "some value".to_owned());
        apply(&mut state, NOW, vec![service]);
    }
    let services = live();
    for n in 0..SERVICES {
        containers(&mut state, n);
    }
    let count = SERVICES as usize * CONTAINERS_PER_SERVICE as usize;
    let a_node = (nodes - start) / NODES as usize;
    let a_service = (services - nodes) / SERVICES as usize;
    let a_container = (live() - services) / count;
    eprintln!("bytes: node {a_node}, service {a_service}, container {a_container}");
    eprintln!(
        "size_of: Container {}, Service {}, ServiceSpec {}, Node {}",
        size_of::<Container>(),
        size_of::<Service>(),
        size_of::<ServiceSpec>(),
        size_of::<Node>()
    );
    assert_eq!(state.container_count(), count);
    assert!(a_node <= NODE_BYTES_MAX, "a node takes {a_node} bytes");
    assert!(
        a_service <= SERVICE_BYTES_MAX,
        "a service takes {a_service} bytes"
    );
    assert!(
        a_container <= CONTAINER_BYTES_MAX,
        "a container takes {a_container} bytes"
    );
    let began = live();
    let copies: Vec<ClusterState> = (0..100).map(|_| state.clone()).collect();
    assert!(live() - began < 100 * 1024, "a clone shares everything");
    drop(copies);
}
