//! Services: revisions, rollouts, references, ports.

use super::*;

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
    world.service(&plain("other"));
    let users = |world: &World, kind, name: &str| -> Vec<String> {
        let users = world.state.users_of(kind, name);
        users.map(|s| s.name().to_owned()).collect()
    };
    assert_eq!(users(&world, ObjectKind::Secret, "password"), ["needy"]);
    assert!(users(&world, ObjectKind::Config, "password").is_empty());
    assert!(users(&world, ObjectKind::Secret, "passwor").is_empty());
    let container = world.running(id, 1, 0);
    let op = world.update(id, |s| s.container.secrets.clear());
    world.ok(op);
    assert!(users(&world, ObjectKind::Secret, "password").is_empty());
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

/// A planner decides on one snapshot: all its operations carry the versions of that snapshot.
#[test]
fn operations_of_one_command_expect_the_state_before_it() {
    let mut world = World::new();
    let id = world.service(&plain("web"));
    let expect = Some(world.get(id).version);
    let set = |expect, replicas| Op::ServiceSetReplicas {
        id,
        expect,
        replicas,
    };
    world
        .all(vec![set(expect, 2), set(expect, 3)])
        .expect("both were decided on the same version");
    assert_eq!(world.get(id).spec.mode, Mode::Replicated { replicas: 3 });
    let error = world.all(vec![set(expect, 4)]).expect_err("it has changed");
    assert!(matches!(error, Rejection::Conflict { .. }), "{error}");
}

/// A rollout that has ended does not come back when what its old revision names is gone.
#[test]
fn an_ended_rollout_is_not_reopened_without_its_references() {
    let mut world = World::new();
    world.ok(Op::VolumeCreate(Box::new(common::volume(1))));
    let volume = world.state.volume_by_name("volume-1").expect("exists").id;
    let mut spec = plain("web");
    spec.container.mounts.push(Mount::Volume {
        source: "volume-1".into(),
        target: "/data".into(),
        read_only: false,
    });
    let id = world.service(&spec);
    let op = world.update(id, |s| s.container.mounts.clear());
    world.ok(op);
    let rollout = world.get(id).rollout.clone().expect("a rollout");
    let set = |finished_at| Op::ServiceSetRollout {
        id,
        expect: None,
        rollout: Some(Box::new(Rollout {
            finished_at,
            ..rollout.clone()
        })),
    };
    let delete = Op::VolumeDelete {
        id: volume,
        expect: None,
    };
    assert!(matches!(world.no(delete.clone()), Rejection::InUse { .. }));
    world.ok(set(Some(Timestamp(1))));
    world.ok(delete);
    assert!(matches!(world.no(set(None)), Rejection::Missing { .. }));
}
