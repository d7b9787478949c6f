//! Prints how many containers a second are placed on 10,000 nodes, in few large and many small
//! services. Run with `--release`.
#![allow(
    clippy::disallowed_methods,
    reason = "a measuring program reads the clock; the crate itself does not"
)]
#![allow(clippy::print_stdout, reason = "its output is its purpose")]

use std::sync::Arc;
use std::time::Instant;
use warren_state::{Actor, ClusterState, Command, Op};
use warren_types::*;

const NODES: u128 = 10_000;
const CONTAINERS: u32 = 10_000;
const NOW: Timestamp = Timestamp(1_700_000_000_000);

fn apply(state: &mut ClusterState, ops: Vec<Op>) {
    for part in ops.chunks(limits::OPS_PER_COMMAND_MAX) {
        let command = Command::new(Actor::System, NOW, part.to_vec());
        state.apply(&command).expect("the set-up is valid");
    }
}

fn cluster(services: u32) -> ClusterState {
    let mut state = ClusterState::new();
    let node = |n: u128| Node {
        id: NodeId::from_u128(n << 64),
        name: format!("n{n}"),
        role: NodeRole::Worker,
        address: String::new(),
        hostname: String::new(),
        labels: Default::default(),
        platform: Platform::default(),
        resources: NodeResources {
            cpu: MilliCpu(64_000),
            memory: Bytes(1 << 36),
            disk: Bytes(0),
        },
        availability: Availability::Active,
        liveness: Liveness::Ready,
        reason: String::new(),
        subnet: String::new(),
        version_text: String::new(),
        certificate_root: String::new(),
        created_at: NOW,
        updated_at: NOW,
        version: Revision(0),
    };
    let add = |n| Op::NodeAdd(Box::new(node(n)));
    let ready = |n: u128| Op::NodeSetLiveness {
        id: NodeId::from_u128(n << 64),
        expect: None,
        liveness: Liveness::Ready,
        reason: String::new(),
    };
    apply(&mut state, (1..=NODES).map(add).collect());
    apply(&mut state, (1..=NODES).map(ready).collect());
    for number in 1..=services {
        let id = ServiceId::from_u128(u128::from(number));
        let mut spec = ServiceSpec {
            name: format!("s{number}"),
            ..ServiceSpec::default()
        };
        spec.container.image = "demo:1".to_owned();
        spec.container.resources.memory_reservation = Some(Bytes(64 << 20));
        spec.container.resources.cpu_reservation = Some(MilliCpu(100));
        spec.mode = Mode::Replicated {
            replicas: CONTAINERS / services,
        };
        let mut ops = vec![Op::ServiceCreate {
            id,
            spec: Arc::new(spec),
        }];
        ops.extend((1..=CONTAINERS / services).map(|slot| Op::ContainerCreate {
            id: ContainerId::from_u128((u128::from(number) << 64) | u128::from(slot)),
            service: id,
            expect_service: None,
            revision: 1,
            slot: Slot::Replica(slot),
        }));
        for part in ops.chunks(limits::OPS_PER_COMMAND_MAX) {
            apply(&mut state, part.to_vec());
        }
    }
    state
}

fn main() {
    for services in [1, 100, 2_000, 10_000] {
        let state = cluster(services);
        let mut best = f64::MAX;
        let mut placed = 0;
        for seed in 0..5 {
            let start = Instant::now();
            let plan = warren_scheduler::plan(&state, seed);
            best = best.min(start.elapsed().as_secs_f64());
            placed = plan.placed;
        }
        let rate = placed as f64 / best;
        println!(
            "{services:6} services: {placed} containers on {NODES} nodes in {:.1} ms, {rate:.0}/s",
            best * 1000.0
        );
    }
}
