//! What measuring a large state needs, for the test of the memory budget and for the example `scale`: an allocator that
//! counts, and objects as real clusters have them.

#![allow(dead_code, reason = "each program uses a part of it")]
#![allow(
    unsafe_code,
    reason = "a global allocator can only be implemented unsafely; it exists in measuring programs alone"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use warren_state::{Actor, ClusterState, Command, Op};
use warren_types::*;

struct Counting;
static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is handed to the system allocator unchanged; counting touches no memory of it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let live = LIVE.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(live, Ordering::Relaxed);
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

/// Budgets of SPECIFICATION.md, in bytes for each object.
pub const SERVICE_BYTES_MAX: usize = 2048;
pub const CONTAINER_BYTES_MAX: usize = 512;
pub const NODE_BYTES_MAX: usize = 1024;

/// Bytes in use.
pub fn live() -> usize {
    LIVE.load(Ordering::Relaxed)
}

/// Most bytes in use during the work, beyond those at its beginning.
pub fn peak_of<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = live();
    PEAK.store(before, Ordering::Relaxed);
    let result = work();
    (result, PEAK.load(Ordering::Relaxed).saturating_sub(before))
}

pub fn apply(state: &mut ClusterState, now: Timestamp, ops: Vec<Op>) {
    let command = Command::new(Actor::System, now, ops);
    state.apply(&command).expect("is accepted");
}

/// A ready worker, without labels: the standard library's map takes 550 bytes for its first entry.
pub fn node(id: NodeId, number: u32) -> Node {
    Node {
        id,
        name: format!("node-{number}"),
        role: NodeRole::Worker,
        address: String::new(),
        hostname: format!("node-{number}.example.org"),
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
        subnet: format!("10.{}.{}.0/24", 64 + number / 256, number % 256),
        version_text: "0.1.0".to_owned(),
        certificate_root: "0123456789abcdef".repeat(4),
        created_at: Timestamp(0),
        updated_at: Timestamp(0),
        version: Revision(0),
    }
}

/// A service with four variables.
pub fn service(id: ServiceId, number: u32, replicas: u32, value: impl Fn(u32) -> String) -> Op {
    let mut spec = ServiceSpec {
        name: format!("service-{number}"),
        mode: Mode::Replicated { replicas },
        ..ServiceSpec::default()
    };
    spec.container.image = "registry.example.org/team/app:1.2.3".to_owned();
    spec.container.env = (0..4)
        .map(|i| EnvVar {
            name: format!("VARIABLE_{i}"),
            value: value(i),
        })
        .collect();
    Op::ServiceCreate {
        id,
        spec: Arc::new(spec),
    }
}

/// A container in a place of its service's first revision.
pub fn create(id: ContainerId, service: ServiceId, slot: u32) -> Op {
    Op::ContainerCreate {
        id,
        service,
        expect_service: None,
        revision: 1,
        slot: Slot::Replica(slot),
    }
}

pub fn assign(id: ContainerId, node: NodeId) -> Op {
    Op::ContainerAssign {
        id,
        expect: None,
        node,
    }
}

/// A container that runs, has an address, and was started `attempt` times.
pub fn running(attempt: u32, address: [u8; 4], pid: u32, started_at: Timestamp) -> ContainerStatus {
    ContainerStatus {
        attempt,
        state: ActualState::Running,
        reason: "running".to_owned(),
        address: Some(address.into()),
        pid: Some(pid),
        started_at: Some(started_at),
        ..ContainerStatus::default()
    }
}
