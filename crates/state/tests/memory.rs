//! Bytes of memory per object, counted by the allocator, against the budget of SPECIFICATION.md:
//! 2 KB a service, 0.5 KB a container, 1 KB a node.
#![allow(
    unsafe_code,
    reason = "a global allocator can only be implemented unsafely; it exists in this test alone"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use warren_state::{Actor, ClusterState, Command, Op};
use warren_types::*;

struct Counting;
static LIVE: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is handed to the system allocator unchanged; counting touches no memory of it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller got `at` from `alloc` above, that is from the system allocator.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const NODES: u128 = 100;
const SERVICES: u128 = 200;
const CONTAINERS_PER_SERVICE: u32 = 100;

fn apply(state: &mut ClusterState, ops: Vec<Op>) {
    let command = Command::new(Actor::System, Timestamp(1), ops);
    state.apply(&command).expect("is accepted");
}

fn node(n: u128) -> Node {
    Node {
        id: NodeId::from_parts(1, n),
        name: format!("node-{n}"),
        role: NodeRole::Worker,
        address: format!("10.0.0.{n}:8080"),
        hostname: format!("node-{n}.example.org"),
        // The standard library's map takes 550 bytes for its first entry; a label goes on top.
        labels: BTreeMap::new(),
        platform: Platform {
            os: "linux".to_owned(),
            arch: "amd64".to_owned(),
        },
        resources: NodeResources {
            cpu: MilliCpu(64_000),
            memory: Bytes(256 << 30),
            disk: Bytes(1 << 40),
        },
        availability: Availability::Active,
        liveness: Liveness::Ready,
        reason: String::new(),
        subnet: format!("10.89.{n}.0/24"),
        version_text: "0.1.0".to_owned(),
        certificate_root: String::new(),
        created_at: Timestamp(0),
        updated_at: Timestamp(0),
        version: Revision(0),
    }
}

fn service(n: u128) -> Op {
    let mut spec = ServiceSpec {
        name: format!("service-{n}"),
        ..ServiceSpec::default()
    };
    spec.container.image = "registry.example.org/team/app:1.2.3".to_owned();
    spec.container.env = (0..4)
        .map(|i| EnvVar {
            name: format!("VARIABLE_{i}"),
            value: "some value".to_owned(),
        })
        .collect();
    Op::ServiceCreate {
        id: ServiceId::from_parts(2, n),
        spec: Arc::new(spec),
    }
}

/// The life of one container: made, placed, running with address and times.
fn containers(state: &mut ClusterState, service: u128) {
    let id = |slot: u32| ContainerId::from_parts(3, service * 1000 + u128::from(slot));
    let slots = 1..=CONTAINERS_PER_SERVICE;
    let create = |slot| Op::ContainerCreate {
        id: id(slot),
        service: ServiceId::from_parts(2, service),
        expect_service: None,
        revision: 1,
        slot: Slot::Replica(slot),
    };
    apply(state, slots.clone().map(create).collect());
    let node = |slot: u32| NodeId::from_parts(1, u128::from(slot) % NODES);
    let assign = |slot| Op::ContainerAssign {
        id: id(slot),
        expect: None,
        node: node(slot),
    };
    apply(state, slots.clone().map(assign).collect());
    let run = |slot| Op::ContainerStatus {
        id: id(slot),
        node: node(slot),
        status: Box::new(ContainerStatus {
            attempt: 1,
            state: ActualState::Running,
            reason: "running".to_owned(),
            address: Some([10, 89, 1, 2].into()),
            pid: Some(4711),
            started_at: Some(Timestamp(5)),
            ..ContainerStatus::default()
        }),
    };
    apply(state, slots.map(run).collect());
}

#[test]
fn objects_stay_within_their_memory_budget() {
    let mut state = ClusterState::new();
    let live = || LIVE.load(Ordering::Relaxed);
    let start = live();
    apply(
        &mut state,
        (0..NODES).map(|n| Op::NodeAdd(Box::new(node(n)))).collect(),
    );
    let nodes = live();
    for n in 0..SERVICES {
        apply(&mut state, vec![service(n)]);
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
    assert!(a_node <= 1024, "a node takes {a_node} bytes");
    assert!(a_service <= 2048, "a service takes {a_service} bytes");
    assert!(a_container <= 512, "a container takes {a_container} bytes");
    let began = live();
    let copies: Vec<ClusterState> = (0..100).map(|_| state.clone()).collect();
    assert!(live() - began < 100 * 1024, "a clone shares everything");
    drop(copies);
}
