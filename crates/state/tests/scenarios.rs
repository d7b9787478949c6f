//! What `apply` promises, case by case.

mod common;

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

#[test]
fn a_batch_is_all_or_nothing() {
    let mut world = World::new();
    let before = world.state.clone();
    let good = Op::ServiceCreate {
        id: service_id(0),
        spec: Arc::new(plain("web")),
    };
    let bad = Op::ServiceDelete {
        id: service_id(1),
        expect: None,
    };
    let error = world.all(vec![good, bad]).expect_err("one is bad");
    assert!(matches!(
        error,
        Rejection::NotFound {
            kind: ObjectKind::Service,
            ..
        }
    ));
    assert_eq!(world.state, before);
}

/// SM-05: only what reaches containers makes a revision.
#[test]
fn updates_make_revisions_and_rollouts() {
    let mut world = World::new();
    let id = world.service(&plain("web"));
    let version = world.get(id).version;
    let applied = world.ok(Op::ServiceSetReplicas {
        id,
        expect: Some(version),
        replicas: 5,
    });
    assert!(matches!(
        applied.results[0],
        OpResult::Service {
            revision: 1,
            rollout: false,
            ..
        }
    ));
    assert_eq!(world.get(id).spec.mode, Mode::Replicated { replicas: 5 });
    let stale = world.no(Op::ServiceSetReplicas {
        id,
        expect: Some(version),
        replicas: 6,
    });
    assert!(matches!(stale, Rejection::Conflict { .. }), "{stale}");
    let op = world.update(id, |s| {
        s.labels.insert("a".into(), "b".into()).map_or((), drop)
    });
    world.ok(op);
    assert_eq!(world.get(id).revision, 1);
    assert_eq!(world.get(id).rollout, None);
    let op = world.update(id, |s| s.container.image = "app:2".into());
    let applied = world.ok(op.clone());
    assert!(matches!(
        applied.results[0],
        OpResult::Service {
            revision: 2,
            rollout: true,
            ..
        }
    ));
    let service = world.get(id);
    let rollout = service.rollout.as_ref().expect("a rollout");
    assert_eq!(
        (rollout.from, rollout.to, rollout.state),
        (1, 2, RolloutState::Updating)
    );
    assert!(
        Arc::ptr_eq(&service.spec, &service.revisions[1].spec),
        "the spec is stored once"
    );
    // The same spec again changes nothing.
    world.ok(op);
    assert_eq!(world.get(id).version, service.version);
    // A third revision before the second was proven still comes from the first.
    let op = world.update(id, |s| s.container.image = "app:3".into());
    world.ok(op);
    assert_eq!(
        world.get(id).rollout.as_ref().map(|r| (r.from, r.to)),
        Some((1, 3))
    );
    let op = world.update(id, |s| s.name = "other".into());
    assert!(matches!(world.no(op), Rejection::Invalid(_)));
    let op = world.update(id, |s| s.mode = Mode::Global);
    assert!(matches!(world.no(op), Rejection::Invalid(_)));
}

#[test]
fn rollback_goes_to_a_kept_revision_under_its_number() {
    let mut world = World::new();
    let id = world.service(&plain("web"));
    let back = |to| Op::ServiceRollback {
        id,
        expect: None,
        to,
    };
    assert!(matches!(world.no(back(None)), Rejection::NotNow { .. }));
    let op = world.update(id, |s| s.container.image = "app:2".into());
    world.ok(op);
    world.ok(Op::ServiceSetReplicas {
        id,
        expect: None,
        replicas: 7,
    });
    world.ok(back(None));
    let service = world.get(id);
    assert_eq!(service.revision, 1);
    assert_eq!(service.spec.container.image, "app:1");
    assert_eq!(
        service.spec.mode,
        Mode::Replicated { replicas: 7 },
        "the count stays"
    );
    assert_eq!(
        service.rollout.as_ref().map(|r| r.state),
        Some(RolloutState::RollingBack)
    );
    assert!(matches!(world.no(back(Some(1))), Rejection::NotNow { .. }));
    assert!(matches!(world.no(back(Some(9))), Rejection::NotNow { .. }));
    // A number is never given twice.
    let op = world.update(id, |s| s.container.image = "app:3".into());
    world.ok(op);
    assert_eq!(world.get(id).revision, 3);
    world.ok(back(Some(2)));
    assert_eq!(world.get(id).spec.container.image, "app:2");
}

#[test]
fn old_revisions_go_unless_a_container_uses_them() {
    let mut world = World::new();
    let id = world.service(&plain("web"));
    world.running(id, 1, 0);
    for n in 2..=30 {
        let op = world.update(id, |s| s.container.image = format!("app:{n}"));
        world.ok(op);
        let rollout = world.get(id).rollout.clone().map(|mut r| {
            r.state = RolloutState::Completed;
            r.finished_at = Some(Timestamp(1));
            Box::new(r)
        });
        world.ok(Op::ServiceSetRollout {
            id,
            expect: None,
            rollout,
        });
    }
    let numbers: Vec<u32> = world.get(id).revisions.iter().map(|r| r.number).collect();
    assert_eq!(numbers.len(), limits::SERVICE_REVISIONS_KEPT);
    assert_eq!(numbers.first(), Some(&1), "a container runs it");
    assert_eq!(numbers[1..], (22..=30).collect::<Vec<_>>()[..]);
}

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
fn references_must_exist_and_keep_existing() {
    let mut world = World::new();
    let mut needy = plain("needy");
    needy.container.secrets.push(FileRef {
        source: "password".into(),
        ..FileRef::default()
    });
    needy.networks.push("back".into());
    let error = world.no(Op::ServiceCreate {
        id: service_id(0),
        spec: Arc::new(needy.clone()),
    });
    let text = error.to_string();
    assert!(text.contains("warren secret create password"), "{text}");
    assert!(text.contains("network \"back\""), "{text}");
    needy.networks.clear();
    let secret = Secret {
        id: SecretId::from_u128(1),
        name: "password".into(),
        labels: Default::default(),
        data: SealedData {
            epoch: 1,
            nonce: [0; 12],
            ciphertext: vec![0; 20],
        },
        size: 4,
        created_at: Timestamp(0),
        updated_at: Timestamp(0),
        version: Revision(0),
    };
    world.ok(Op::SecretCreate(Box::new(secret)));
    let id = world.service(&needy);
    let container = world.running(id, 1, 0);
    let op = world.update(id, |s| s.container.secrets.clear());
    world.ok(op);
    let rollout = world.get(id).rollout.clone().map(|mut r| {
        r.finished_at = Some(Timestamp(1));
        Box::new(r)
    });
    world.ok(Op::ServiceSetRollout {
        id,
        expect: None,
        rollout,
    });
    let delete = Op::SecretDelete {
        id: SecretId::from_u128(1),
        expect: None,
    };
    // The old container still has it.
    assert!(matches!(world.no(delete.clone()), Rejection::InUse { .. }));
    world.ok(report(container, 0, ActualState::Failed, 1));
    world.ok(delete);
    let error = world.no(Op::ServiceRollback {
        id,
        expect: None,
        to: Some(1),
    });
    assert!(matches!(error, Rejection::Missing { .. }), "{error}");
}

#[test]
fn ports_of_two_services_do_not_clash() {
    use PublishMode::{Host, Ingress};
    // (first mode, first global, second mode, second global, clash)
    for (a, a_global, b, b_global, clash) in [
        (Ingress, false, Ingress, false, true),
        (Ingress, false, Host, false, true),
        (Host, false, Ingress, true, true),
        (Host, false, Host, false, false),
        (Host, true, Host, false, false),
        (Host, true, Host, true, true),
    ] {
        let mut world = World::new();
        let make = |name: &str, mode, global| {
            let mut spec = plain(name);
            spec.ports.push(published(8080, mode));
            if global {
                spec.mode = Mode::Global;
            }
            spec
        };
        world.service(&make("one", a, a_global));
        let result = world.all(vec![Op::ServiceCreate {
            id: service_id(3),
            spec: Arc::new(make("two", b, b_global)),
        }]);
        match result {
            Err(Rejection::PortTaken { port, by, .. }) => {
                assert!(clash, "{a:?} {b:?}");
                assert_eq!((port, by.as_str()), (8080, "one"));
            }
            other => assert!(!clash && other.is_ok(), "{other:?}"),
        }
    }
}

#[test]
fn idempotency_keys_answer_again() {
    let mut world = World::new();
    let command = |id: u128, name: &str| {
        let op = Op::ServiceCreate {
            id: ServiceId::from_u128(id),
            spec: Arc::new(plain("web")),
        };
        let actor = Actor::Api { name: name.into() };
        Command::new(actor, Timestamp(5), vec![op]).with_key("k")
    };
    let first = world.state.apply(&command(1, "ann")).expect("new");
    let after = world.state.clone();
    // A retry brings new ids; the answer is that of the first.
    let again = world.state.apply(&command(2, "ann")).expect("known key");
    assert!(again.replayed);
    assert_eq!(
        (again.revision, again.results),
        (first.revision, first.results)
    );
    assert_eq!(world.state, after);
    let other = world
        .state
        .apply(&command(3, "bob"))
        .expect_err("another's key");
    assert!(matches!(other, Rejection::AlreadyExists { .. }));
    // The window is bounded: enough newer keys push it out.
    for n in 0..limits::IDEMPOTENCY_KEYS_KEPT {
        let command = Command::new(Actor::System, Timestamp(6), Vec::new());
        let applied = world.state.apply(&command.with_key(n.to_string()));
        assert!(applied.is_ok());
    }
    let late = world
        .state
        .apply(&command(4, "ann"))
        .expect_err("forgotten");
    assert!(matches!(late, Rejection::AlreadyExists { .. }));
}

#[test]
fn tokens_end() {
    let mut world = World::new();
    let mut one = token(0, world.now);
    one.expires_at = Timestamp(world.now + 100);
    one.uses_left = Some(2);
    let id = one.id;
    world.ok(Op::TokenCreate(Box::new(one.clone())));
    world.ok(Op::TokenUse { id });
    world.ok(Op::TokenUse { id });
    let error = world.no(Op::TokenUse { id });
    assert!(error.to_string().contains("used up"), "{error}");
    world.ok(Op::TokenDelete { id });
    one.uses_left = None;
    world.ok(Op::TokenCreate(Box::new(one.clone())));
    world.now += 200;
    let error = world.no(Op::TokenUse { id });
    assert!(error.to_string().contains("has expired"), "{error}");
    world.ok(Op::TokenRevoke { id });
    let error = world.no(Op::TokenUse { id });
    assert!(error.to_string().contains("was revoked"), "{error}");
}

#[test]
fn the_cluster_keeps_a_manager_and_its_settings() {
    let mut world = World::new();
    let error = world.no(Op::NodeRemove {
        id: node_id(0),
        expect: None,
        force: true,
    });
    assert!(error.to_string().contains("only manager"), "{error}");
    world.ok(Op::SettingsInit(Box::new(settings(3))));
    assert!(matches!(
        world.no(Op::SettingsInit(Box::new(settings(4)))),
        Rejection::AlreadyExists { .. }
    ));
    let version = world.state.settings().map(|s| s.version);
    world.ok(Op::SettingsUpdate {
        expect: version,
        settings: Box::new(settings(5)),
    });
    let mut other = node(3);
    other.subnet = "10.89.0.128/25".into();
    let error = world.no(Op::NodeAdd(Box::new(other)));
    assert!(error.to_string().contains("overlaps"), "{error}");
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

#[test]
fn changes_become_events() {
    let mut world = World::new();
    let kinds = |applied: &Applied| -> Vec<EventKind> {
        events(&applied.changes).iter().map(|e| e.kind).collect()
    };
    let mut spec = plain("web");
    spec.mode = Mode::Replicated { replicas: 1 };
    let id = world.service(&spec);
    let applied = world.ok(Op::ServiceSetReplicas {
        id,
        expect: None,
        replicas: 3,
    });
    let list = events(&applied.changes);
    assert_eq!(list[0].kind, EventKind::ServiceUpdated);
    assert_eq!(list[0].metadata["old_replicas"], "1");
    assert_eq!(list[0].metadata["new_replicas"], "3");
    assert_eq!(list[0].metadata["service_name"], "web");
    let op = world.update(id, |s| s.container.image = "app:2".into());
    let applied = world.ok(op);
    assert_eq!(
        kinds(&applied),
        [EventKind::ServiceUpdated, EventKind::RolloutUpdated]
    );
    let list = events(&applied.changes);
    assert!(list[0].id < list[1].id, "ids sort by position");
    assert_eq!(list, events(&applied.changes), "the same on every manager");
    let container = world.create(id, 1);
    let applied = world.assign(container, 0).expect("fits");
    assert_eq!(kinds(&applied), [EventKind::TaskAssigned]);
    let applied = world.ok(report(container, 0, ActualState::Running, 1));
    assert_eq!(kinds(&applied), [EventKind::TaskRunning]);
    let applied = world.ok(report(container, 0, ActualState::Starting, 2));
    assert_eq!(kinds(&applied), [EventKind::TaskRestarted]);
    let mut failed = status(ActualState::Failed, 2);
    failed.reason = "exit status 3".into();
    failed.exit = Some(ExitInfo {
        code: 3,
        ..ExitInfo::default()
    });
    let applied = world.ok(Op::ContainerStatus {
        id: container,
        node: node_id(0),
        status: Box::new(failed),
    });
    let list = events(&applied.changes);
    assert_eq!(list[0].kind, EventKind::TaskFailed);
    assert_eq!(list[0].metadata["exit_code"], "3");
    assert_eq!(list[0].metadata["error"], "exit status 3");
    assert_eq!(list[0].metadata["node_id"], node_id(0).to_string());
    let applied = world.ok(Op::NodeSetLiveness {
        id: node_id(1),
        expect: None,
        liveness: Liveness::Down,
        reason: "silent".into(),
    });
    assert_eq!(kinds(&applied), [EventKind::NodeDown]);
}

/// A snapshot shares specs like the state it came from.
#[test]
fn restored_services_share_their_spec() {
    let mut world = World::new();
    let id = world.service(&plain("web"));
    let bytes = world.state.encode_snapshot();
    let state = ClusterState::decode_snapshot(&bytes).expect("own");
    let service = state.service(id).expect("exists");
    assert!(Arc::ptr_eq(&service.spec, &service.revisions[0].spec));
}

/// Hash of a known state. When this fails, what is hashed has changed: raise `HASH_SCHEME` with it,
/// so that managers of both versions do not compare their hashes.
#[test]
fn the_hash_scheme_is_pinned() {
    let mut world = World::new();
    let mut spec = spec(0, 0x4321);
    spec.container.secrets.clear();
    spec.container.configs.clear();
    spec.container.mounts.clear();
    spec.networks.clear();
    let id = world.service(&spec);
    world.running(id, 1, 0);
    assert_eq!(
        (warren_state::HASH_SCHEME, world.state.hash()),
        (1, 13_812_123_298_871_120_420)
    );
}
