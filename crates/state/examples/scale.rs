//! What a large cluster costs: 10,000 services, 100,000 containers, 1,000 nodes. Prints a table of
//! container updates a second, memory for each object, and snapshots: time to write and read, size.
//!
//! `cargo run --release -p warren-state --example scale [SERVICES [CONTAINERS]]`
#![allow(
    clippy::disallowed_methods,
    reason = "a measuring program reads the clock; the crate itself does not"
)]
#![allow(clippy::print_stdout, reason = "its output is its purpose")]

#[path = "../tests/large/mod.rs"]
mod large;

use large::{CONTAINER_BYTES_MAX, NODE_BYTES_MAX, SERVICE_BYTES_MAX, live, peak_of};
use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::{Duration as Span, Instant};
use warren_state::{Actor, ClusterState, Command, Op};
use warren_types::*;

const NODES: u32 = 1000;
const SERVICES: u32 = 10_000;
const CONTAINERS: u32 = 100_000;
const NOW: Timestamp = Timestamp(1_790_000_000_000);
/// Updates that each size of batch is measured with, at most.
const UPDATES: u32 = 100_000;
/// Commands that each size of batch is measured with, at most.
const COMMANDS: u32 = 2000;
/// Reader's copies that are measured.
const CLONES: u32 = 1_000_000;
/// Budgets of SPECIFICATION.md.
const UPDATES_PER_SECOND_MIN: f64 = 20_000.0;

fn timed<T>(work: impl FnOnce() -> T) -> (T, Span) {
    let start = Instant::now();
    let result = work();
    (result, start.elapsed())
}

fn apply(state: &mut ClusterState, ops: Vec<Op>) {
    large::apply(state, NOW, ops);
}

/// Noise in the place of randomness (splitmix64), so that snapshots shrink no better than real ones.
const fn noise(number: u32, salt: u64) -> u64 {
    let mut x = (number as u64 + (salt << 40)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// An id as they are made: the time (ten a millisecond), then 80 bits of noise.
fn id(number: u32, salt: u64) -> (u64, u128) {
    let high = u128::from(noise(number, salt)) << 16;
    (
        NOW.0 + u64::from(number / 10),
        high | u128::from(number & 0xffff),
    )
}

fn node_id(number: u32) -> NodeId {
    let (time, random) = id(number % NODES, 1);
    NodeId::from_parts(time, random)
}

fn service_id(number: u32) -> ServiceId {
    let (time, random) = id(number, 2);
    ServiceId::from_parts(time, random)
}

fn service(number: u32, replicas: u32) -> Op {
    large::service(service_id(number), number, replicas, |i| {
        format!("{:x}", noise(number, 4 + u64::from(i)))
    })
}

fn container_id(number: u32) -> ContainerId {
    let (time, random) = id(number, 3);
    ContainerId::from_parts(time, random)
}

fn running(number: u32, attempt: u32) -> ContainerStatus {
    let [a, b, c, d, ..] = noise(number, 9 + u64::from(attempt)).to_le_bytes();
    let started_at = NOW.plus(Duration(u64::from(number)));
    large::running(
        attempt,
        [10, 89, a, b],
        u32::from_le_bytes([c, d, 1, 0]),
        started_at,
    )
}

/// One batch of reports as a node's session makes it: of containers of one node.
fn report(node: u32, containers: impl Iterator<Item = u32>, attempt: u32) -> Op {
    Op::ContainerStatusBatch {
        node: node_id(node),
        statuses: containers
            .map(|n| (container_id(n), running(n, attempt)))
            .collect(),
    }
}

fn build(services: u32, per_service: u32) -> ClusterState {
    let mut state = ClusterState::new();
    let start = live();
    let nodes = (0..NODES).map(|n| Op::NodeAdd(Box::new(large::node(node_id(n), n))));
    apply(&mut state, nodes.collect());
    let with_nodes = live();
    let ((), took) = timed(|| {
        for n in 0..services {
            apply(&mut state, vec![service(n, per_service)]);
        }
    });
    row("services made, one a command", rate(services, took), "");
    let with_services = live();
    let total = per_service * services;
    let ((), took) = timed(|| containers(&mut state, total, per_service));
    let what = "containers made, placed, running";
    row(what, rate(total, took), "three changes each");
    let each = |what: &str, bytes: usize, count: u32, budget: usize| {
        let bytes = bytes as f64 / f64::from(count);
        let note = format!("{:.2} of {budget} B", bytes / budget as f64);
        row(what, format!("{bytes:.0} B"), &note);
    };
    let of_services = with_services - with_nodes;
    each(
        "memory of a node",
        with_nodes - start,
        NODES,
        NODE_BYTES_MAX,
    );
    each(
        "memory of a service",
        of_services,
        services,
        SERVICE_BYTES_MAX,
    );
    each(
        "memory of a container",
        live() - with_services,
        total,
        CONTAINER_BYTES_MAX,
    );
    row("memory of all", mebibytes(live() - start), "");
    state
}

fn containers(state: &mut ClusterState, total: u32, per_service: u32) {
    const BATCH: u32 = 1000;
    for start in (0..total).step_by(BATCH as usize) {
        let numbers = start..(start + BATCH).min(total);
        let create = |n: u32| {
            let slot = n % per_service + 1;
            large::create(container_id(n), service_id(n / per_service), slot)
        };
        let assign = |n: u32| large::assign(container_id(n), node_id(n));
        apply(state, numbers.clone().map(create).collect());
        apply(state, numbers.clone().map(assign).collect());
        apply(state, numbers.map(|n| report(n, n..=n, 1)).collect());
    }
}

/// Updates of containers `first..first + count`, by node, as the log carries them.
fn update_command(first: u32, count: u32) -> Vec<u8> {
    let mut by_node: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for n in first..first + count {
        by_node.entry(n % NODES).or_default().push(n);
    }
    let reports = by_node.into_iter();
    let ops = reports.map(|(node, numbers)| report(node, numbers.into_iter(), 2));
    Command::new(Actor::System, NOW, ops.collect()).encode()
}

/// Updates a second: commands are decoded, then applied.
fn updates(state: &ClusterState, total: u32) {
    for batch in [1, 10, 100, 1000, 5000] {
        let mut state = state.clone();
        let rounds = (UPDATES.min(total) / batch).min(COMMANDS);
        let commands: Vec<Vec<u8>> = (0..rounds)
            .map(|at| update_command(at * batch, batch))
            .collect();
        let (changed, took) = timed(|| {
            let mut changed = 0;
            for bytes in &commands {
                let command = Command::decode(bytes).expect("own bytes");
                let applied = state.apply(&command).expect("is accepted");
                changed += applied.changes.changes.len();
            }
            changed
        });
        assert_eq!(changed, (rounds * batch) as usize, "all are news");
        let ratio = changed as f64 / took.as_secs_f64() / UPDATES_PER_SECOND_MIN;
        let what = format!("container updates, {batch} a command");
        let note = format!("{ratio:.1} x {UPDATES_PER_SECOND_MIN}/s");
        row(&what, rate(rounds * batch, took), &note);
    }
}

fn snapshots(state: &ClusterState) {
    let ((bytes, took), peak) = peak_of(|| timed(|| state.encode_snapshot()));
    let objects = state.services().count() + state.container_count();
    let note = format!("{:.0} B an object", bytes.len() as f64 / objects as f64);
    row("snapshot, size", mebibytes(bytes.len()), &note);
    let note = format!("{} beside the state", mebibytes(peak));
    row("snapshot, written", millis(took), &note);
    let ((read, took), peak) = peak_of(|| timed(|| ClusterState::decode_snapshot(&bytes)));
    let note = format!("{} with the state", mebibytes(peak));
    row("snapshot, read and indexed", millis(took), &note);
    let read = read.expect("own snapshot");
    assert_eq!(read.hash(), state.hash());
    let (fork, took) = timed(|| state.forked(NOW, None));
    row("fork for a restore", millis(took), "");
    let (broken, took) = timed(|| fork.invariants());
    row("all invariants, from scratch", millis(took), "");
    assert_eq!(broken, Vec::new());
    let ((), took) = timed(|| {
        for _ in 0..CLONES {
            black_box(black_box(state).clone());
        }
    });
    let nanos = took.as_nanos() / u128::from(CLONES);
    row("a reader's copy", format!("{nanos} ns"), "");
}

fn row(what: &str, value: String, note: &str) {
    println!("{what:<36} {value:>14}   {note}");
}

fn rate(count: u32, took: Span) -> String {
    format!("{:.0}/s", f64::from(count) / took.as_secs_f64())
}

fn millis(took: Span) -> String {
    format!("{:.1} ms", took.as_secs_f64() * 1000.0)
}

fn mebibytes(bytes: usize) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

fn main() {
    let mut numbers = std::env::args().skip(1).map(|text| text.parse::<u32>());
    let mut number = |default: u32| match numbers.next() {
        None => default,
        Some(Ok(number)) if number > 0 => number,
        Some(_) => {
            println!("usage: scale [SERVICES [CONTAINERS]]");
            std::process::exit(2);
        }
    };
    let services = number(SERVICES);
    let per_service = (number(CONTAINERS) / services).max(1);
    let total = services * per_service;
    println!("{services} services, {total} containers, {NODES} nodes, one thread");
    let state = build(services, per_service);
    updates(&state, total);
    snapshots(&state);
}
