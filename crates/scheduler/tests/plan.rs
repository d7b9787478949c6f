//! Plans against the real state machine: every operation must be accepted by `apply`.

mod world;

use proptest::prelude::*;
use warren_scheduler::{LOOKED_AT_MAX, WAITING_PER_MS, plan, plan_pending};
use warren_state::{Actor, Command, NodePatch, Op};
use warren_types::*;
use world::{NOW, World};

#[test]
fn equal_nodes_get_equal_shares() {
    for (count, seed) in [(7, 1), (200, 2)] {
        let mut world = World::default();
        for _ in 0..3 {
            world.node(|_| ());
        }
        let web = world.service("web", count, |_| ());
        assert_eq!(world.run(seed).placed, count as usize);
        let shares = world.per_node(web);
        assert!(
            shares.iter().max().unwrap() - shares.iter().min().unwrap() <= 1,
            "{shares:?}"
        );
    }
}

#[test]
fn every_obstacle_is_told() {
    let mut world = World::default();
    let small = |n: &mut Node| n.resources.memory = Bytes(256 * Bytes::MIB);
    world.node(small);
    world.node(small);
    world.node(|n| n.availability = Availability::Drain);
    let web = world.service("web", 2, |s| {
        s.container.resources.memory_reservation = Some(Bytes(512 * Bytes::MIB));
    });
    world.run(0);
    assert_eq!(
        world.reasons(web),
        [
            "no node fits: 2 nodes lack memory (need 512.0 MiB), 1 is drained; add a node or lower the reservation"
        ]
    );
    let mut world = World::default();
    let lonely = world.service("lonely", 1, |_| ());
    world.run(0);
    assert_eq!(
        world.reasons(lonely),
        ["no node fits: the cluster has no nodes; add one with `warren node join`"]
    );

    world.node(|n| n.role = NodeRole::Manager);
    world.node(|n| n.liveness = Liveness::Down);
    world.node(|n| n.availability = Availability::Pause);
    world.node(|n| n.liveness = Liveness::Unknown);
    world.run(0);
    assert_eq!(
        world.reasons(lonely),
        [
            "no node fits: 1 node is paused, 1 is down, 1 has not been heard of yet, 1 runs no containers (manager); set a node to active, or add one"
        ]
    );

    let mut world = World::default();
    world.node(|n| {
        n.labels.insert("zone".to_owned(), "east".to_owned());
    });
    type Edit = fn(&mut ServiceSpec);
    let cases: [(&str, Edit, &str); 4] = [
        (
            "cpu",
            |s| s.container.resources.cpu_reservation = Some(MilliCpu(4001)),
            "1 node lacks CPU (need 4.00 cores)",
        ),
        (
            "zone",
            |s| s.placement.constraints = vec!["node.labels.zone == west".to_owned()],
            "1 node does not satisfy \"node.labels.zone == west\"",
        ),
        (
            "max",
            |s| s.placement.max_per_node = 1,
            "1 node has 1 of the service already",
        ),
        (
            "port",
            |s| {
                s.ports = vec![PortMapping {
                    container_port: 80,
                    host_port: 80,
                    ..PortMapping::default()
                }]
            },
            "1 node has host port 80/tcp in use",
        ),
    ];
    for (name, edit, text) in cases {
        let id = world.service(name, 2, edit);
        world.run(0);
        let reasons = world.reasons(id);
        assert!(
            reasons.len() == 1 && reasons[0].contains(text),
            "{name}: {reasons:?}"
        );
    }
}

#[test]
fn a_full_node_frees_and_the_waiting_go_there() {
    let mut world = World::default();
    let node = world.node(|n| n.resources.memory = Bytes(100));
    let web = world.service("web", 3, |s| {
        s.container.resources.memory_reservation = Some(Bytes(60));
    });
    let first = world.run(0);
    assert_eq!((first.placed, first.waiting), (1, 2));
    let patch = NodePatch {
        resources: Some(NodeResources {
            cpu: MilliCpu(1),
            memory: Bytes(200),
            disk: Bytes(0),
        }),
        ..NodePatch::default()
    };
    world.apply(
        Actor::System,
        vec![Op::NodeUpdate {
            id: node,
            expect: None,
            patch: Box::new(patch),
        }],
    );
    assert_eq!(world.run(0).placed, 2);
    assert_eq!(world.per_node(web), [3]);
}

/// However many wait, a new container costs a look at that one, and a change of a node a look at each, not too often.
#[test]
fn those_that_wait_are_looked_at_when_there_is_news_for_them() {
    let mut world = World::default();
    let node = world.node(|_| ());
    let many = u32::try_from(2 * LOOKED_AT_MAX).unwrap();
    let nowhere = |s: &mut ServiceSpec| {
        s.placement.constraints = vec!["node.labels.zone == west".to_owned()];
    };
    let web = world.service("web", many / 2, nowhere);
    world.service("api", many / 2, nowhere);
    assert_eq!(world.settle(0), [LOOKED_AT_MAX, LOOKED_AT_MAX, 0]);
    assert_eq!(world.settle(0), [0], "nothing has changed");
    world.containers(web, many / 2 + 1, 1);
    assert_eq!(world.settle(0), [1, 0], "only the new one");
    let waiting = 2 * LOOKED_AT_MAX + 1;
    let pause = waiting as u64 / WAITING_PER_MS;
    let change = |world: &mut World, cpu| {
        let patch = NodePatch {
            resources: Some(NodeResources {
                cpu: MilliCpu(cpu),
                memory: Bytes(0),
                disk: Bytes(0),
            }),
            ..NodePatch::default()
        };
        world.apply(
            Actor::System,
            vec![Op::NodeUpdate {
                id: node,
                expect: None,
                patch: Box::new(patch),
            }],
        );
    };
    change(&mut world, 1);
    assert_eq!(world.settle(0).iter().sum::<usize>(), waiting, "at once");
    change(&mut world, 2);
    let begin = world.clock;
    assert_eq!(world.settle(0).iter().sum::<usize>(), waiting, "all again");
    assert_eq!(world.clock - begin, pause, "not at once");
}

#[test]
fn containers_follow_their_volume() {
    let mut world = World::default();
    for _ in 0..4 {
        world.node(|_| ());
    }
    let mount = |s: &mut ServiceSpec| {
        s.container.mounts = vec![Mount::Volume {
            source: "data".to_owned(),
            target: "/data".to_owned(),
            read_only: false,
        }];
    };
    world.volume("data", None);
    let first = world.service("first", 3, mount);
    let second = world.service("second", 2, mount);
    world.run(9);
    let home = world.state.volume_by_name("data").unwrap().node.unwrap();
    for id in [first, second] {
        assert!(
            world
                .state
                .containers_of_service(id)
                .all(|c| c.node == Some(home))
        );
    }
    let patch = NodePatch {
        availability: Some(Availability::Pause),
        ..NodePatch::default()
    };
    world.apply(
        Actor::System,
        vec![Op::NodeUpdate {
            id: home,
            expect: None,
            patch: Box::new(patch),
        }],
    );
    let third = world.service("third", 1, mount);
    world.run(9);
    assert_eq!(
        world.reasons(third),
        [
            "no node fits: 1 node is paused; set a node to active, or add one (only the node that holds volume \"data\" can take it)"
        ]
    );
}

#[test]
fn spread_goes_over_the_values_of_the_label_first() {
    let mut world = World::default();
    for zone in ["a", "a", "a", "b"] {
        world.node(|n| {
            n.labels.insert("zone".to_owned(), zone.to_owned());
        });
    }
    let web = world.service("web", 6, |s| s.placement.spread = Some("zone".to_owned()));
    world.run(4);
    assert_eq!(world.per_node(web), [1, 1, 1, 3]);
}

#[test]
fn global_containers_go_to_their_node_or_wait_for_it() {
    let mut world = World::default();
    let nodes = [
        world.node(|_| ()),
        world.node(|n| n.availability = Availability::Pause),
    ];
    let id = world.service("agent", 0, |s| s.mode = Mode::Global);
    let ops = nodes
        .iter()
        .map(|node| Op::ContainerCreate {
            id: ContainerId::from_u128(world.id()),
            service: id,
            expect_service: None,
            revision: 1,
            slot: Slot::Node(*node),
        })
        .collect();
    world.apply(Actor::Reconciler, ops);
    world.run(0);
    assert_eq!(world.per_node(id), [1, 0]);
    assert_eq!(
        world.reasons(id),
        ["no node fits: 1 node is paused; set a node to active, or add one"]
    );
}

#[test]
fn more_than_one_command_holds_goes_into_several() {
    let mut world = World::default();
    for _ in 0..10 {
        world.node(|_| ());
    }
    let web = world.service("web", 6000, |_| ());
    let api = world.service("api", 6000, |_| ());
    let first = world.run(1);
    assert!(first.truncated && first.ops.len() == limits::OPS_PER_COMMAND_MAX);
    assert!(!world.run(1).truncated);
    assert_eq!(world.per_node(web), [600; 10]);
    assert_eq!(world.per_node(api), [600; 10]);
}

/// Number of cases of a property, unless `PROPTEST_CASES` asks for another.
fn cases(usual: u32) -> u32 {
    std::env::var("PROPTEST_CASES")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(usual)
}

/// What a random cluster is made of.
#[derive(Debug, Clone)]
struct RandomService {
    count: u32,
    cpu: u32,
    memory: u64,
    port: Option<u16>,
    max_per_node: u32,
    spread: bool,
    zone: Option<bool>,
    volume: bool,
}

fn random_service() -> impl Strategy<Value = RandomService> {
    (
        0_u32..40,
        0_u32..1500,
        0_u64..3000,
        proptest::option::of(1_u16..4),
        0_u32..4,
        any::<bool>(),
        proptest::option::weighted(0.3, any::<bool>()),
        proptest::bool::weighted(0.2),
    )
        .prop_map(
            |(count, cpu, memory, port, max_per_node, spread, zone, volume)| RandomService {
                count,
                cpu,
                memory,
                port,
                max_per_node,
                spread,
                zone,
                volume,
            },
        )
}

fn random_node() -> impl Strategy<Value = (u32, u64, bool, u8)> {
    (0_u32..8000, 0_u64..9000, any::<bool>(), 0_u8..12)
}

fn build(nodes: &[(u32, u64, bool, u8)], services: &[RandomService]) -> World {
    let mut world = World::default();
    for (cpu, memory, east, kind) in nodes {
        world.node(|n| {
            n.resources = NodeResources {
                cpu: MilliCpu(*cpu),
                memory: Bytes(*memory),
                disk: Bytes(0),
            };
            n.labels.insert(
                "zone".to_owned(),
                if *east { "east" } else { "west" }.to_owned(),
            );
            match kind {
                0 => n.availability = Availability::Drain,
                1 => n.liveness = Liveness::Down,
                2 => n.role = NodeRole::Manager,
                _ => {}
            }
        });
    }
    world.volume("shared", None);
    for (at, s) in services.iter().enumerate() {
        world.service(&format!("s{at}"), s.count, |spec| {
            spec.container.resources.cpu_reservation = Some(MilliCpu(s.cpu)).filter(|c| c.0 > 0);
            spec.container.resources.memory_reservation = Some(Bytes(s.memory)).filter(|b| b.0 > 0);
            spec.placement.max_per_node = s.max_per_node;
            spec.placement.spread = s.spread.then(|| "zone".to_owned());
            if let Some(east) = s.zone {
                let zone = if east { "east" } else { "west" };
                spec.placement.constraints = vec![format!("node.labels.zone == {zone}")];
            }
            if let Some(port) = s.port {
                spec.ports = vec![PortMapping {
                    container_port: 1,
                    host_port: port,
                    ..PortMapping::default()
                }];
            }
            if s.volume {
                spec.container.mounts = vec![Mount::Volume {
                    source: "shared".to_owned(),
                    target: "/d".to_owned(),
                    read_only: false,
                }];
            }
        });
    }
    world
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases(256)))]

    /// R17, R18: `apply` accepts every plan (so nothing is over-committed, not even against the plan's
    /// own batch), a plan leaves nothing to plan (checked in `run`), and whoever waits has a reason
    /// that is true: a container that one node could take never waits.
    #[test]
    fn plans_are_accepted_settle_and_explain(
        nodes in proptest::collection::vec(random_node(), 0..12),
        services in proptest::collection::vec(random_service(), 1..6),
        seed in any::<u64>(),
    ) {
        let mut world = build(&nodes, &services);
        let before = world.state.clone();
        let made = world.run(seed);
        prop_assert_eq!(&plan(&before, seed), &made, "not deterministic");
        let ids: Vec<ContainerId> = before.containers().map(|c| c.id).rev_order();
        prop_assert_eq!(&plan_pending(&before, &ids, seed), &made, "depends on the order");
        for container in world.state.containers() {
            if container.status.state != ActualState::Pending {
                continue;
            }
            prop_assert!(container.status.reason.starts_with("no node fits: "), "{}", container.status.reason);
            prop_assert!(container.status.reason.contains("; "), "{}", container.status.reason);
            for node in world.state.nodes() {
                let spec = world.state.spec_of(container).unwrap();
                let live = world.state.containers_of_service(container.service)
                    .filter(|c| c.node == Some(node.id)).count();
                let zone_ok = spec.placement.constraints.iter()
                    .all(|c| Constraint::parse(c).unwrap().matches(node));
                if spec.placement.max_per_node > 0 && live >= spec.placement.max_per_node as usize || !zone_ok {
                    continue;
                }
                let op = Op::ContainerAssign { id: container.id, expect: None, node: node.id };
                let taken = world.state.clone().apply(&Command::new(Actor::Scheduler, NOW, vec![op]));
                prop_assert!(taken.is_err(), "{} would take {:?}", node.name, container.status.reason);
            }
        }
    }

    /// What changes put on the agenda is enough: a look at everything finds nothing more.
    #[test]
    fn nothing_is_missing_on_the_agenda(
        nodes in proptest::collection::vec(random_node(), 1..6),
        services in proptest::collection::vec(random_service(), 1..5),
        happenings in proptest::collection::vec((0_u8..6, any::<usize>()), 1..30),
        seed in any::<u64>(),
    ) {
        let mut world = build(&nodes, &services);
        world.settle(seed);
        for (kind, number) in happenings {
            world.happen(kind, number);
            world.settle(seed);
            let everything = plan(&world.state, seed);
            prop_assert!(everything.ops.is_empty(), "after {kind}: {:?}", everything.ops);
        }
    }

    /// Equal nodes, no limits: shares differ by at most one, also when added in two goes.
    #[test]
    fn shares_are_even(
        nodes in 1_usize..20, first in 0_u32..100, second in 0_u32..100, other in 0_u32..40,
        seed in any::<u64>(), zones in 1_usize..4, spread in any::<bool>(),
    ) {
        let mut world = World::default();
        for at in 0..nodes {
            world.node(|n| {
                n.labels.insert("zone".to_owned(), format!("z{}", at % zones));
            });
        }
        world.service("other", other, |_| ());
        world.run(seed);
        let web = world.service("web", first, |s| s.placement.spread = spread.then(|| "zone".to_owned()));
        world.run(seed);
        world.containers(web, first + 1, second);
        world.run(seed);
        let shares = world.per_node(web);
        let range = |v: &[usize]| v.iter().max().unwrap() - v.iter().min().unwrap();
        let mut by_zone = vec![0; zones.min(nodes)];
        for (at, share) in shares.iter().enumerate() {
            by_zone[at % zones] += share;
        }
        if spread {
            prop_assert!(range(&by_zone) <= 1, "{:?}", by_zone);
        } else {
            prop_assert!(range(&shares) <= 1, "{:?}", shares);
        }
        prop_assert_eq!(shares.iter().sum::<usize>() as u32, first + second);
    }
}

trait RevOrder {
    fn rev_order(self) -> Vec<ContainerId>;
}

impl<I: Iterator<Item = ContainerId>> RevOrder for I {
    fn rev_order(self) -> Vec<ContainerId> {
        let mut all: Vec<ContainerId> = self.collect();
        all.reverse();
        all
    }
}
