//! Containers: placement, reports, retirement, owners.

use super::*;

/// R18.
#[test]
fn nothing_is_over_committed() {
    let mut world = World::new();
    let mut big = plain("big");
    big.container.resources.memory_reservation = Some(Bytes(600 * Bytes::MIB));
    big.ports.push(published(9000, PublishMode::Host));
    let id = world.service(&big);
    let first = world.create(id, 1);
    world.assign(first, 0).expect("fits");
    assert_eq!(
        world.state.node_usage(node_id(0)).memory,
        Bytes(600 * Bytes::MIB)
    );
    assert_eq!(
        world.state.port_holder(node_id(0), Protocol::Tcp, 9000),
        Some(first)
    );
    let second = world.create(id, 2);
    let error = world.assign(second, 0).expect_err("memory");
    assert!(error.to_string().contains("of memory free"), "{error}");
    let mut small = plain("small");
    small.ports.push(published(9000, PublishMode::Host));
    let small = world.service(&small);
    let third = world.create(small, 1);
    let error = world.assign(third, 0).expect_err("port");
    assert!(error.to_string().contains("port 9000"), "{error}");
    world.assign(third, 1).expect("free there");
    world.ok(report(first, 0, ActualState::Failed, 1));
    assert_eq!(world.state.node_usage(node_id(0)).containers, 0);
    world
        .assign(second, 0)
        .expect("the failed one holds nothing");
    // A node that comes back with less memory is a fact, not a violation; it gets nothing more.
    world.ok(Op::NodeUpdate {
        id: node_id(0),
        expect: None,
        patch: Box::new(NodePatch {
            resources: Some(NodeResources::default()),
            ..NodePatch::default()
        }),
    });
    let fourth = world.create(id, 4);
    assert!(matches!(
        world.assign(fourth, 0),
        Err(Rejection::Placement { .. })
    ));
    let bytes = world.state.encode_snapshot();
    assert_eq!(
        ClusterState::decode_snapshot(&bytes).expect("own"),
        world.state
    );
}

#[test]
fn placement_asks_the_node() {
    let mut world = World::new();
    let id = world.service(&plain("web"));
    let container = world.create(id, 1);
    for patch in [Availability::Pause, Availability::Drain] {
        world.ok(Op::NodeUpdate {
            id: node_id(1),
            expect: None,
            patch: Box::new(NodePatch {
                availability: Some(patch),
                ..NodePatch::default()
            }),
        });
        assert!(matches!(
            world.assign(container, 1),
            Err(Rejection::Placement { .. })
        ));
    }
    world.ok(Op::NodeAdd(Box::new(node(2))));
    let error = world.assign(container, 2).expect_err("a pure manager");
    assert!(error.to_string().contains("runs no containers"), "{error}");
    world.ok(Op::NodeSetLiveness {
        id: node_id(0),
        expect: None,
        liveness: Liveness::Down,
        reason: "silent for 10 s".into(),
    });
    assert!(matches!(
        world.assign(container, 0),
        Err(Rejection::Placement { .. })
    ));
    assert!(matches!(
        world.assign(container, 3),
        Err(Rejection::NotFound { .. })
    ));
}

/// Containers follow their data: the first placement binds an unbound volume.
#[test]
fn volumes_pin_containers() {
    let mut world = World::new();
    world.ok(Op::VolumeCreate(Box::new(common::volume(1))));
    let mut spec = plain("db");
    spec.container.mounts.push(Mount::Volume {
        source: "volume-1".into(),
        target: "/data".into(),
        read_only: false,
    });
    let id = world.service(&spec);
    let first = world.create(id, 1);
    world.assign(first, 1).expect("anywhere");
    let volume = world
        .state
        .volume_by_name("volume-1")
        .cloned()
        .expect("exists");
    assert_eq!(volume.node, Some(node_id(1)));
    let second = world.create(id, 2);
    let error = world.assign(second, 0).expect_err("the data is elsewhere");
    assert!(error.to_string().contains("is on node node-1"), "{error}");
    let error = world.no(Op::VolumeBind {
        id: volume.id,
        expect: None,
        node: node_id(0),
        mount_path: String::new(),
    });
    assert!(matches!(error, Rejection::NotNow { .. }), "{error}");
    let error = world.no(Op::VolumeDelete {
        id: volume.id,
        expect: None,
    });
    assert!(error.to_string().contains("service \"db\""), "{error}");
    let error = world.no(Op::NodeRemove {
        id: node_id(1),
        expect: None,
        force: false,
    });
    assert!(error.to_string().contains("volume \"volume-1\""), "{error}");
    world.ok(Op::NodeRemove {
        id: node_id(1),
        expect: None,
        force: true,
    });
    assert_eq!(world.container(first).status.state, ActualState::Lost);
    let error = world.assign(second, 0).expect_err("the data is gone");
    assert!(error.to_string().contains("which was removed"), "{error}");
}

/// R10: only the table's steps, only by their owner, only from the container's own node.
#[test]
fn statuses_follow_the_life_cycle() {
    let mut world = World::new();
    let id = world.service(&plain("web"));
    let container = world.running(id, 1, 0);
    assert!(matches!(
        world.no(report(container, 0, ActualState::Preparing, 1)),
        Rejection::Transition { .. }
    ));
    assert!(matches!(
        world.no(report(container, 1, ActualState::Failed, 1)),
        Rejection::NotNow { .. }
    ));
    world.ok(report(container, 0, ActualState::Starting, 2));
    assert!(matches!(
        world.no(report(container, 0, ActualState::Running, 1)),
        Rejection::Transition { .. }
    ));
    let version = world.container(container).version;
    world.ok(report(container, 0, ActualState::Starting, 2));
    assert_eq!(
        world.container(container).version,
        version,
        "nothing new, nothing changed"
    );
    let op = report(container, 0, ActualState::Running, 2);
    let stranger = Actor::Dispatcher { node: node_id(1) };
    let command = Command::new(stranger, Timestamp(1), vec![op]);
    let error = world
        .state
        .apply(&command)
        .expect_err("another node's session");
    assert!(matches!(error, Rejection::NotOwner { .. }));
}

#[test]
fn a_batch_of_statuses_takes_what_it_can() {
    let mut world = World::new();
    let id = world.service(&plain("web"));
    let (a, b) = (world.running(id, 1, 0), world.running(id, 2, 1));
    let gone = ContainerId::from_u128(99);
    let applied = world.ok(Op::ContainerStatusBatch {
        node: node_id(0),
        statuses: vec![
            (gone, status(ActualState::Running, 1)),
            (b, status(ActualState::Failed, 1)),
            (a, status(ActualState::Assigned, 1)),
            (a, status(ActualState::Complete, 1)),
        ],
    });
    let OpResult::Statuses(answers) = &applied.results[0] else {
        panic!("{:?}", applied.results);
    };
    assert_eq!(answers[0], Some(StatusRefusal::Unknown));
    assert_eq!(answers[1], Some(StatusRefusal::NotAssigned));
    assert!(matches!(answers[2], Some(StatusRefusal::Transition(_))));
    assert_eq!(answers[3], None);
    assert_eq!(world.container(a).status.state, ActualState::Complete);
    assert_eq!(
        world.container(a).status.reason,
        "complete",
        "never without a reason"
    );
    assert_eq!(applied.changes.changes.len(), 1);
}

#[test]
fn containers_are_retired_in_order() {
    let mut world = World::new();
    let id = world.service(&plain("web"));
    let running = world.running(id, 1, 0);
    let twin = Op::ContainerCreate {
        id: ContainerId::from_u128(5),
        service: id,
        expect_service: None,
        revision: 1,
        slot: Slot::Replica(1),
    };
    assert!(matches!(
        world.no(twin.clone()),
        Rejection::AlreadyExists { .. }
    ));
    let waiting = world.create(id, 2);
    let delete = |id| Op::ContainerDelete { id, expect: None };
    let stop = |id| Op::ContainerSetDesired {
        id,
        expect: None,
        desired: DesiredState::Shutdown,
    };
    assert!(matches!(
        world.no(delete(running)),
        Rejection::NotNow { .. }
    ));
    world.ok(stop(waiting));
    assert_eq!(world.container(waiting).status.state, ActualState::Shutdown);
    world.ok(delete(waiting));
    world.ok(stop(running));
    let error = world.no(Op::ContainerSetDesired {
        id: running,
        expect: None,
        desired: DesiredState::Running,
    });
    assert!(matches!(error, Rejection::NotNow { .. }));
    world.ok(twin);
    world.ok(report(running, 0, ActualState::Shutdown, 1));
    world.ok(Op::ServiceDelete { id, expect: None });
    let remove = Op::ServiceRemove { id, expect: None };
    let error = world.no(remove.clone());
    assert!(error.to_string().contains("2 container records"), "{error}");
    world.ok(delete(running));
    world.ok(delete(ContainerId::from_u128(5)));
    let error = world.no(Op::ServiceCreate {
        id: service_id(2),
        spec: Arc::new(plain("web")),
    });
    assert!(error.to_string().contains("is being deleted"), "{error}");
    world.ok(remove);
    world.service(&plain("web"));
}

#[test]
fn owners_are_enforced() {
    let mut world = World::new();
    let id = world.service(&plain("web"));
    let container = world.create(id, 1);
    let ops = [
        Op::ContainerAssign {
            id: container,
            expect: None,
            node: node_id(0),
        },
        Op::ContainerDelete {
            id: container,
            expect: None,
        },
        Op::ServiceDelete { id, expect: None },
        report(container, 0, ActualState::Running, 1),
    ];
    let actors = [
        Actor::Api { name: "x".into() },
        Actor::Scheduler,
        Actor::Reconciler,
        Actor::Dispatcher { node: node_id(0) },
    ];
    for op in ops {
        let owners = actors.iter().filter(|a| op.is_owned_by(a)).count();
        assert_eq!(owners, 1, "{}", op.name());
        for actor in actors.iter().filter(|a| !op.is_owned_by(a)) {
            let command = Command::new(actor.clone(), Timestamp(1), vec![op.clone()]);
            let result = world.state.apply(&command);
            assert!(
                matches!(result, Err(Rejection::NotOwner { .. })),
                "{actor} {}",
                op.name()
            );
        }
    }
}
