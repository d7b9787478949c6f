//! Batches, keys, tokens, settings, events, hash.

use super::*;

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
        (2, 8_017_318_846_635_403_121)
    );
}
