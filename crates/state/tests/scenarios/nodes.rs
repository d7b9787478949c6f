//! Managers, removed nodes, data-key rotation, forks of the state.

use super::*;
use common::{certificate, secret};
use warren_state::{FORK_REVISIONS, FORK_REVISIONS_PER_SECOND};

const KEPT_MS: u64 = limits::REMOVED_NODE_MS_KEPT;

fn manager(n: u64) -> Node {
    let mut node = node(0);
    node.id = NodeId::from_u128(1000 + u128::from(n));
    node.name = format!("manager-{n}");
    node.role = NodeRole::Manager;
    node.subnet = String::new();
    node
}

fn patch(id: NodeId, patch: NodePatch) -> Op {
    Op::NodeUpdate {
        id,
        expect: None,
        patch: Box::new(patch),
    }
}

fn role(id: NodeId, role: NodeRole) -> Op {
    let role = Some(role);
    patch(
        id,
        NodePatch {
            role,
            ..NodePatch::default()
        },
    )
}

fn remove(id: NodeId) -> Op {
    Op::NodeRemove {
        id,
        expect: None,
        force: false,
    }
}

/// AR-01: seven managers, not eight, whichever way the eighth comes; and never none.
#[test]
fn an_eighth_manager_is_refused_and_the_last_one_stays() {
    let mut world = World::new();
    for n in 1..limits::MANAGERS_MAX as u64 {
        world.ok(Op::NodeAdd(Box::new(manager(n))));
    }
    let refused = [
        Op::NodeAdd(Box::new(manager(7))),
        role(node_id(1), NodeRole::Manager),
        role(node_id(1), NodeRole::Hybrid),
    ];
    for op in refused {
        let error = world.no(op);
        let limit = matches!(error, Rejection::Limit { limit: 7, .. });
        assert!(
            limit && error.to_string().contains("as a worker"),
            "{error}"
        );
    }
    // One goes, another may come; a manager may change between manager and hybrid at the limit.
    world.ok(role(manager(1).id, NodeRole::Hybrid));
    world.ok(role(manager(1).id, NodeRole::Worker));
    world.ok(role(node_id(1), NodeRole::Hybrid));
    for n in 1..7 {
        world.ok(remove(manager(n).id));
    }
    world.ok(role(node_id(1), NodeRole::Worker));
    for op in [role(node_id(0), NodeRole::Worker), remove(node_id(0))] {
        let error = world.no(op).to_string();
        assert!(error.contains("only manager"), "{error}");
        assert!(error.contains("warren node promote"), "{error}");
    }
}

#[test]
fn a_node_changes_its_address_and_its_certificates_root() {
    let mut world = World::new();
    let root = "0123456789abcdef".repeat(4);
    let change = NodePatch {
        address: Some("10.0.0.9:8080".into()),
        certificate_root: Some(root.clone()),
        ..NodePatch::default()
    };
    world.ok(patch(node_id(1), change));
    let node = world.state.node(node_id(1)).expect("listed");
    assert_eq!(
        (node.address.as_str(), &node.certificate_root),
        ("10.0.0.9:8080", &root)
    );
    for bad in ["x", &root.to_uppercase(), &root[1..]] {
        let certificate_root = Some(bad.to_owned());
        let error = world.no(patch(
            node_id(1),
            NodePatch {
                certificate_root,
                ..NodePatch::default()
            },
        ));
        assert!(error.to_string().contains("certificateRoot"), "{error}");
    }
    // A node's own session may say where it is, not what it is.
    let own = Actor::Dispatcher { node: node_id(1) };
    let address = NodePatch {
        address: Some("10.0.0.8:8080".into()),
        ..NodePatch::default()
    };
    assert!(patch(node_id(1), address).is_owned_by(&own));
    assert!(!role(node_id(1), NodeRole::Manager).is_owned_by(&own));
}

/// MM: a removed node is told so, and its id is not given again while a certificate of it may live.
#[test]
fn a_removed_node_is_remembered_for_the_life_of_its_certificate() {
    let mut world = World::new();
    world.ok(remove(node_id(1)));
    let at = Timestamp(world.now);
    assert_eq!(world.state.is_removed(node_id(1)), Some(at));
    assert_eq!(world.state.is_removed(node_id(0)), None);
    let error = world.no(Op::NodeAdd(Box::new(node(1))));
    assert_eq!(error, Rejection::NodeRemoved { id: node_id(1), at });
    assert!(error.to_string().contains("warren node reset"), "{error}");
    // The same name under a new id is another node.
    let mut again = node(1);
    again.id = NodeId::from_u128(5);
    world.ok(Op::NodeAdd(Box::new(again)));
    let bytes = world.state.encode_snapshot();
    let read = ClusterState::decode_snapshot(&bytes).expect("own snapshot");
    assert_eq!((read.hash(), &read), (world.state.hash(), &world.state));
    assert_eq!(read.removed_nodes().collect::<Vec<_>>(), [(node_id(1), at)]);
    world.now = at.0 + KEPT_MS - 1;
    world.ok(role(node_id(0), NodeRole::Manager));
    assert!(world.state.is_removed(node_id(1)).is_some(), "not yet");
    world.now = at.0 + KEPT_MS + 1;
    let before = world.state.hash();
    world.ok(role(node_id(0), NodeRole::Hybrid));
    assert_eq!(world.state.is_removed(node_id(1)), None);
    assert_ne!(before, world.state.hash());
}

#[test]
fn the_oldest_removals_are_forgotten_first() {
    let mut world = World::new();
    const BATCH: u64 = 500;
    let total = limits::REMOVED_NODES_MAX as u64 + BATCH;
    for start in (0..total).step_by(BATCH as usize) {
        let ids = start..start + BATCH;
        let mut ops = Vec::new();
        for n in ids.clone() {
            let mut node = manager(n);
            node.role = NodeRole::Worker;
            ops.push(Op::NodeAdd(Box::new(node)));
        }
        ops.extend(ids.map(|n| remove(manager(n).id)));
        // Not through `World::all`: its check of everything takes time.
        world.now += 1;
        let command = Command::new(Actor::System, Timestamp(world.now), ops);
        world.state.apply(&command).expect("is accepted");
    }
    assert_eq!(world.state.invariants(), Vec::new());
    let kept: Vec<_> = world.state.removed_nodes().collect();
    assert_eq!(kept.len(), limits::REMOVED_NODES_MAX);
    assert_eq!(kept[0].0, manager(BATCH).id);
}

/// SEC-09: rotating the data key changes the sealing and nothing else.
#[test]
fn a_secret_is_sealed_anew_under_the_same_context() {
    let mut world = World::new();
    world.ok(Op::SecretCreate(Box::new(secret(1))));
    world.ok(Op::CertificateCreate(Box::new(certificate(1))));
    let before = Arc::clone(world.state.secret(secret(1).id).expect("made"));
    let seal = |epoch: u32, len: usize| SealedData {
        epoch,
        nonce: [3; 12],
        ciphertext: vec![7; len],
    };
    let reseal = |expect, data| Op::SecretReseal {
        id: secret(1).id,
        expect,
        data,
    };
    world.ok(reseal(Some(before.version), seal(2, 17)));
    let after = Arc::clone(world.state.secret(before.id).expect("there"));
    assert!(after.version > before.version);
    let expected = Secret {
        data: seal(2, 17),
        version: after.version,
        ..(*before).clone()
    };
    assert_eq!(*after, expected);
    assert!(matches!(
        world.no(reseal(Some(before.version), seal(3, 17))),
        Rejection::Conflict { .. }
    ));
    for (data, word) in [
        (seal(1, 17), "older"),
        (seal(3, 18), "not the value"),
        (seal(3, 0), "not the value"),
    ] {
        let error = world.no(reseal(None, data)).to_string();
        assert!(error.contains(word), "{error}");
    }
    let api = Actor::Api { name: "a".into() };
    assert!(!reseal(None, seal(3, 17)).is_owned_by(&api));
    let certificate = Op::CertificateReseal {
        id: certificate(1).id,
        expect: None,
        data: seal(2, 17),
    };
    assert!(!certificate.is_owned_by(&api));
    world.ok(certificate);
}

#[test]
fn a_data_key_in_use_cannot_leave_the_list() {
    let mut world = World::new();
    let epochs = |numbers: &[u32]| {
        let mut settings = settings(0);
        let created_at = Timestamp(1);
        let keys = numbers.iter().map(|n| KeyEpoch {
            number: *n,
            created_at,
        });
        settings.key_epochs = keys.collect();
        Op::SettingsUpdate {
            expect: None,
            settings: Box::new(settings),
        }
    };
    world.ok(Op::SettingsInit(Box::new(settings(0))));
    world.ok(Op::SecretCreate(Box::new(secret(1))));
    world.ok(epochs(&[1, 2]));
    let error = world.no(epochs(&[2])).to_string();
    assert!(error.contains("still seals secret \"secret-1\""), "{error}");
    assert!(world.no(epochs(&[1])).to_string().contains("the newest"));
    let data = SealedData {
        epoch: 2,
        ..secret(1).data
    };
    world.ok(Op::SecretReseal {
        id: secret(1).id,
        expect: None,
        data,
    });
    world.ok(epochs(&[2]));
}

type Edit = dyn Fn(&mut ClusterSettings);

fn root() -> String {
    "-----BEGIN CERTIFICATE-----\n".to_owned()
}

/// TR-04: thresholds are settings, within bounds.
#[test]
fn settings_have_ranges() {
    let mut world = World::new();
    world.ok(Op::SettingsInit(Box::new(settings(0))));
    let update = |change: &Edit| {
        let mut settings = settings(0);
        change(&mut settings);
        Op::SettingsUpdate {
            expect: None,
            settings: Box::new(settings),
        }
    };
    let good: [&Edit; 7] = [
        &|s| s.raft_profile = warren_types::RaftProfile::Wan,
        &|s| s.snapshot_entries = limits::SNAPSHOT_ENTRIES_MIN,
        &|s| s.snapshot_entries = limits::SNAPSHOT_ENTRIES_MAX,
        &|s| (s.snapshot_bytes, s.log_bytes_max) = (limits::SNAPSHOT_BYTES_MAX, 16 << 30),
        &|s| s.log_bytes_max = limits::LOG_BYTES_MAX,
        &|s| s.heartbeat = Duration(limits::HEARTBEAT_MS_MIN),
        &|s| {
            s.auto_lock = true;
            s.ca.roots_pem = vec![root(), root()];
            s.ca.rotation_started = Some(Timestamp(7));
        },
    ];
    for change in good {
        world.ok(update(change));
    }
    assert!(world.state.settings().is_some_and(|s| s.auto_lock));
    let bad: [(&Edit, &str); 7] = [
        (&|s| s.snapshot_entries = 9, "snapshotEntries"),
        (&|s| s.snapshot_entries = 10_000_001, "snapshotEntries"),
        (&|s| s.snapshot_bytes = 1, "snapshotBytes"),
        (&|s| s.log_bytes_max = s.snapshot_bytes - 1, "logBytesMax"),
        (
            &|s| s.log_bytes_max = limits::LOG_BYTES_MAX + 1,
            "logBytesMax",
        ),
        (&|s| s.node_down_after = s.heartbeat, "nodeDownAfter"),
        (
            &|s| {
                s.ca.roots_pem = vec![root()];
                s.ca.rotation_started = Some(Timestamp(7));
            },
            "ca.rotationStarted",
        ),
    ];
    for (change, field) in bad {
        let error = world.no(update(change)).to_string();
        assert!(error.starts_with(field), "{error}");
    }
    let error = world.no(update(&|s| s.id = ClusterId::from_u128(99)));
    assert!(matches!(error, Rejection::NotFound { .. }), "{error}");
}

/// R24: what a restored or recovered cluster begins with.
#[test]
fn a_fork_keeps_the_work_and_forgets_the_quorum() {
    let mut world = World::new();
    world.ok(Op::NodeAdd(Box::new(manager(1))));
    world.ok(Op::TokenCreate(Box::new(token(3, world.now))));
    let mut spec = plain("web");
    spec.mode = Mode::Replicated { replicas: 1 };
    let service = world.service(&spec);
    let container = world.running(service, 1, 1);
    let now = Timestamp(1_790_000_000_000);
    let fork = world.state.forked(now, Some(node_id(0)));
    assert_eq!(fork.invariants(), Vec::new());
    assert_eq!(fork.tokens().count(), 0);
    let keep = fork.node(node_id(0)).expect("kept");
    assert_eq!(Some(keep), world.state.node(node_id(0)));
    let lost = fork.node(manager(1).id).expect("listed");
    assert_eq!(
        (lost.role, lost.liveness, lost.version),
        (NodeRole::Worker, Liveness::Unknown, fork.revision())
    );
    // Its node may well be alive, so the container is not given up.
    assert_eq!(fork.container(container), world.state.container(container));
    let worker = fork.node(node_id(1)).expect("listed");
    assert_eq!(worker.liveness, Liveness::Unknown);
    assert!(worker.reason.contains("restored"));
    let bytes = fork.encode_snapshot();
    assert_eq!(ClusterState::decode_snapshot(&bytes), Ok(fork));
}

/// Whatever was handed out before a fork is older than everything after, even when the same backup
/// is restored twice with work in between.
#[test]
fn a_later_fork_is_newer_whatever_came_between() {
    let world = World::new();
    let first = world.state.forked(Timestamp(1000), None);
    assert_eq!(
        first.revision().0,
        world.state.revision().0 + FORK_REVISIONS
    );
    let start = 1_790_000_000_000;
    let first = world.state.forked(Timestamp(start), None);
    // Two million changes a second for an hour, then the same backup again.
    let busy = first.revision().0 + 3600 * FORK_REVISIONS_PER_SECOND - 1;
    let again = world.state.forked(Timestamp(start + 3_600_000), None);
    assert!(again.revision().0 > busy);
    assert!(again.revision().0 < 1 << 53, "JSON readers keep it exactly");
    let of_the_fork = first.forked(Timestamp(start), None);
    assert!(of_the_fork.revision().0 >= first.revision().0 + FORK_REVISIONS);
}
