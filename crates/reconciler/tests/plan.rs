//! Plans against the real state machine, with perfect and faulty nodes in place of workers.

mod world;

use warren_state::{Actor, Command, Op};
use warren_types::*;
use world::*;

#[test]
fn replicas_come_and_go() {
    let mut w = World::new(2);
    let web = w.service("web", |s| s.mode = replicas(3));
    w.settle();
    assert_eq!(w.running(web), 3);
    w.scale(web, 5);
    w.settle();
    assert_eq!(w.slots(web), [1, 2, 3, 4, 5]);
    w.scale(web, 2);
    w.settle();
    assert_eq!(w.slots(web), [1, 2]);
    w.scale(web, 0);
    w.settle();
    assert_eq!(w.running(web), 0);
}

#[test]
fn scaling_down_takes_what_does_not_serve_first() {
    let mut w = World::new(1);
    let web = w.service("web", |s| s.mode = replicas(3));
    w.settle();
    w.crash_looping = vec![web];
    let first = w.live(web)[0].id;
    w.report(first, |s| {
        s.attempt = 2;
        s.state = ActualState::Starting;
        s.reason = "restarting".to_owned();
    });
    w.crash_looping.clear();
    w.frozen = vec![first];
    w.scale(web, 2);
    w.settle_for(5);
    assert_eq!(w.slots(web), [2, 3]);
}

/// Found by seed 545 of the simulator: a container that had ended was taken for the newest of its place, and the rollout
/// waited for it until the clock had caught up.
#[test]
fn a_clock_that_goes_back_keeps_containers_in_the_order_of_their_age() {
    let mut w = World::new(1);
    let web = w.service("web", |s| s.mode = replicas(1));
    w.settle();
    for _ in 0..3 {
        let old = w.live(web)[0].id;
        w.ids.clock_ms -= 1_000;
        w.report(old, |s| s.state = ActualState::Complete);
        w.settle();
        let new = w.live(web)[0].id;
        assert!(new > old, "{new} is younger than {old}");
    }
}

#[test]
fn a_deleted_service_goes_with_all_it_had() {
    let mut w = World::new(2);
    let web = w.service("web", |s| s.mode = replicas(3));
    w.settle();
    w.apply(
        Actor::System,
        vec![Op::ServiceDelete {
            id: web,
            expect: None,
        }],
    );
    w.settle();
    assert!(w.state.service(web).is_none());
    assert_eq!(w.state.container_count(), 0);
}

#[test]
fn a_global_service_follows_the_nodes() {
    let mut w = World::new(2);
    let agent = w.service("agent", |s| {
        s.mode = Mode::Global;
        s.placement.constraints = vec!["node.labels.disk != none".to_owned()];
    });
    w.settle();
    assert_eq!(w.running(agent), 2);
    let third = w.add_node();
    w.settle();
    assert_eq!(w.running(agent), 3);
    w.patch(third, |p| {
        p.labels = Some([("disk".to_owned(), "none".to_owned())].into())
    });
    w.settle();
    assert_eq!(w.running(agent), 2);
    let first = w.nodes[0];
    w.liveness(first, Liveness::Down);
    w.settle();
    assert_eq!(w.running(agent), 1);
    w.liveness(first, Liveness::Ready);
    w.settle();
    assert_eq!(w.running(agent), 2);
}

#[test]
fn the_node_policy_decides_about_replacement() {
    use ActualState::{Complete, Failed, Lost, Rejected};
    use RestartCondition::{Any, None as Never, OnFailure};
    let cases = [
        (Any, Complete, true),
        (Any, Failed, true),
        (Any, Rejected, true),
        (Any, Lost, true),
        (OnFailure, Complete, false),
        (OnFailure, Failed, true),
        (OnFailure, Lost, true),
        (Never, Complete, false),
        (Never, Failed, false),
        (Never, Rejected, true),
        (Never, Lost, false),
    ];
    for (condition, end, replaced) in cases {
        let mut w = World::new(2);
        let job = w.service("job", |s| s.container.restart.condition = condition);
        if end == Rejected {
            w.rejecting = true;
        }
        w.settle_for(3);
        w.rejecting = false;
        let container = w.state.containers_of_service(job).next().unwrap().clone();
        match end {
            Lost => w.liveness(container.node.unwrap(), Liveness::Down),
            Rejected => assert_eq!(container.status.state, Rejected),
            _ => w.report(container.id, |s| {
                s.state = end;
                s.reason = "it ended".to_owned();
            }),
        }
        w.settle();
        assert_eq!(
            w.running(job),
            usize::from(replaced),
            "{condition:?} {end:?}"
        );
        if !replaced {
            // Not even its history being reaped makes a finished job run again.
            w.pass(100_000_000);
            w.settle();
            assert_eq!(w.running(job), 0);
        }
    }
}

/// A service that cannot start does not spin: waits double from 1 s to 60 s, history stays bounded.
#[test]
fn replacements_back_off() {
    let mut w = World::new(1);
    let bad = w.service("bad", |_| ());
    w.rejecting = true;
    let (mut made, mut known) = (Vec::new(), std::collections::BTreeSet::new());
    let start = w.now;
    while w.now.since(start) < Duration::from_secs(600) {
        let before = w.state.revision();
        w.round();
        for container in w.state.containers_of_service(bad) {
            if known.insert(container.id) {
                made.push(container.created_at.since(start).0);
            }
        }
        let count = w.state.containers_of_service(bad).count();
        assert!(
            count <= limits::HISTORY_PER_SLOT_DEFAULT as usize + 2,
            "{count} records"
        );
        assert!(
            w.state.revision() != before || w.rest(),
            "nobody wakes the plan"
        );
    }
    let waits: Vec<u64> = made.windows(2).map(|w| (w[1] - w[0]) / 1000).collect();
    assert_eq!(waits[..7], [1, 2, 4, 8, 16, 32, 60], "{waits:?}");
    w.rounds(1);
    let plan = w.plan();
    assert!(
        plan.waits[0].reason.contains("a new container follows at"),
        "{plan:?}"
    );
    w.rejecting = false;
    w.settle();
    assert_eq!(w.running(bad), 1);
}

#[test]
fn drained_nodes_are_left_with_the_replacement_first() {
    let mut w = World::new(2);
    let web = w.service("web", |s| {
        s.mode = replicas(4);
        s.update.order = UpdateOrder::StartFirst;
    });
    let db = w.service("db", |s| s.ports = vec![host_port(5432)]);
    w.settle();
    w.watch_ready(web, 4);
    let node = w.nodes[0];
    w.patch(node, |p| p.availability = Some(Availability::Drain));
    w.settle();
    assert_eq!((w.running(web), w.running(db)), (4, 1));
    assert!(
        w.live(web)
            .iter()
            .chain(&w.live(db))
            .all(|c| c.node == Some(w.nodes[1]))
    );
}

#[test]
fn a_drain_without_another_node_waits_for_its_deadline() {
    let mut w = World::new(1);
    let web = w.service("web", |s| s.update.order = UpdateOrder::StartFirst);
    w.settle();
    let node = w.nodes[0];
    w.patch(node, |p| p.availability = Some(Availability::Drain));
    w.rounds(20);
    assert_eq!(w.running(web), 1, "still serving");
    w.pass(warren_reconciler::DRAIN_DEADLINE.0);
    w.rounds(20);
    assert_eq!(w.running(web), 0);
    w.patch(node, |p| p.availability = Some(Availability::Active));
    w.settle();
    assert_eq!(w.running(web), 1);
}

#[test]
fn lost_nodes_are_made_up_for() {
    let mut w = World::new(3);
    let web = w.service("web", |s| s.mode = replicas(6));
    w.settle();
    let node = w.nodes[1];
    w.liveness(node, Liveness::Down);
    w.settle();
    assert_eq!(w.running(web), 6);
    w.apply(
        Actor::System,
        vec![Op::NodeRemove {
            id: node,
            expect: None,
            force: true,
        }],
    );
    w.settle();
    assert_eq!(w.running(web), 6);
}

#[test]
fn stop_first_update_replaces_one_after_the_other() {
    let mut w = World::new(2);
    let web = w.service("web", |s| {
        s.mode = replicas(3);
        s.ports = vec![host_port(80)];
        s.placement.constraints = vec![];
    });
    w.settle();
    assert_eq!(w.running(web), 2, "two nodes, one host port each");
    w.scale(web, 2);
    w.settle();
    w.watch_ready(web, 1);
    w.update(web, |s| {
        s.container.image = "web:2".to_owned();
        s.update.order = UpdateOrder::StartFirst;
    });
    w.settle();
    let rollout = w.rollout(web);
    assert_eq!(
        (rollout.state, rollout.message.as_str()),
        (
            RolloutState::Completed,
            "updated from revision 1 to 2: 2 containers"
        )
    );
    assert!(w.live(web).iter().all(|c| c.service_revision == 2));
    assert!(
        w.messages
            .iter()
            .any(|m| m.ends_with("old containers stop first, because it publishes host ports")),
        "{:?}",
        w.messages
    );
}

#[test]
fn a_bad_image_is_rolled_back() {
    for order in [UpdateOrder::StartFirst, UpdateOrder::StopFirst] {
        let mut w = World::new(2);
        let web = w.service("web", |s| {
            s.mode = replicas(4);
            s.update.order = order;
            s.update.failure_action = FailureAction::Rollback;
        });
        w.settle();
        w.watch_ready(
            web,
            if order == UpdateOrder::StartFirst {
                4
            } else {
                3
            },
        );
        w.bad_images = vec!["web:bad".to_owned()];
        w.update(web, |s| s.container.image = "web:bad".to_owned());
        w.settle();
        let rollout = w.rollout(web);
        assert_eq!(
            (rollout.state, rollout.from, rollout.to),
            (RolloutState::RolledBack, 2, 1)
        );
        assert!(
            rollout.message.contains("because 1 of 4 failed; web-"),
            "{}",
            rollout.message
        );
        assert!(
            rollout.message.contains("image \"web:bad\" is not present"),
            "{}",
            rollout.message
        );
        assert_eq!(w.running(web), 4);
        assert!(w.live(web).iter().all(|c| c.service_revision == 1));
    }
}

#[test]
fn a_bad_image_pauses_by_default_and_a_good_one_goes_on() {
    let mut w = World::new(2);
    let web = w.service("web", |s| {
        s.mode = replicas(3);
        s.update.order = UpdateOrder::StartFirst;
    });
    w.settle();
    w.watch_ready(web, 3);
    w.crash_images = vec!["web:bad".to_owned()];
    w.update(web, |s| s.container.image = "web:bad".to_owned());
    w.settle_for(200);
    let rollout = w.rollout(web);
    assert_eq!(rollout.state, RolloutState::Paused);
    assert!(
        rollout
            .message
            .contains("1 of 3 failed; web-1: restarting in"),
        "{}",
        rollout.message
    );
    w.update(web, |s| s.container.image = "web:3".to_owned());
    w.settle();
    assert_eq!(
        (w.rollout(web).state, w.running(web)),
        (RolloutState::Completed, 3)
    );
    assert!(w.live(web).iter().all(|c| c.service_revision == 3));
}

#[test]
fn failures_may_be_ignored() {
    let mut w = World::new(2);
    let web = w.service("web", |s| {
        s.mode = replicas(2);
        s.update.failure_action = FailureAction::Continue;
        s.update.parallelism = 2;
    });
    w.settle();
    w.bad_images = vec!["web:bad".to_owned()];
    w.update(web, |s| s.container.image = "web:bad".to_owned());
    w.settle_for(40);
    assert_eq!(
        (w.rollout(web).state, w.rollout(web).failures),
        (RolloutState::Updating, 2)
    );
    w.bad_images.clear();
    w.settle();
    assert_eq!(
        (w.rollout(web).state, w.running(web)),
        (RolloutState::Completed, 2)
    );
}

#[test]
fn delay_and_monitor_space_the_batches() {
    let mut w = World::new(2);
    let web = w.service("web", |s| {
        s.mode = replicas(4);
        s.update.parallelism = 2;
        s.update.delay = Duration(20_000);
        s.update.monitor = Duration(3_000);
    });
    w.settle();
    w.watch_ready(web, 2);
    let start = w.now;
    w.update(web, |s| s.container.image = "web:2".to_owned());
    w.settle();
    let took = w.rollout(web).finished_at.unwrap().since(start).0;
    assert!((26_000..30_000).contains(&took), "{took} ms");
}

#[test]
fn operators_roll_back_too() {
    let mut w = World::new(2);
    let web = w.service("web", |s| s.mode = replicas(2));
    w.settle();
    w.update(web, |s| s.container.image = "web:2".to_owned());
    w.settle();
    w.apply(
        Actor::System,
        vec![Op::ServiceRollback {
            id: web,
            expect: None,
            to: None,
        }],
    );
    w.settle();
    assert_eq!(
        (w.rollout(web).state, w.running(web)),
        (RolloutState::RolledBack, 2)
    );
    assert!(w.live(web).iter().all(|c| c.service_revision == 1));
}

#[test]
fn a_rollout_that_cannot_be_placed_says_so_and_ends_as_failed() {
    let mut w = World::new(1);
    let web = w.service("web", |s| s.update.order = UpdateOrder::StartFirst);
    w.settle();
    w.unplaceable = true;
    w.update(web, |s| s.container.image = "web:2".to_owned());
    w.rounds(10);
    assert!(
        w.rollout(web).message.contains("web-1 waits: no node fits"),
        "{}",
        w.rollout(web).message
    );
    w.pass(warren_reconciler::PROGRESS_DEADLINE.0);
    w.rounds(10);
    assert_eq!(w.rollout(web).state, RolloutState::Paused);
    assert_eq!(w.running(web), 1);
}

#[test]
fn global_rollouts_do_not_wait_for_nodes_that_are_away() {
    let mut w = World::new(3);
    let agent = w.service("agent", |s| s.mode = Mode::Global);
    w.settle();
    let (down, paused) = (w.nodes[0], w.nodes[1]);
    w.liveness(down, Liveness::Down);
    w.patch(paused, |p| p.availability = Some(Availability::Pause));
    w.settle();
    w.update(agent, |s| s.container.image = "agent:2".to_owned());
    w.settle();
    assert_eq!(
        (w.rollout(agent).state, w.running(agent)),
        (RolloutState::Completed, 2)
    );
    w.liveness(down, Liveness::Ready);
    w.patch(paused, |p| p.availability = Some(Availability::Active));
    w.settle();
    assert_eq!(w.running(agent), 3);
    assert!(w.live(agent).iter().all(|c| c.service_revision == 2));
}

#[test]
fn more_than_one_command_holds_goes_into_several() {
    let mut w = World::new(1);
    let a = w.service("a", |s| s.mode = replicas(7000));
    let b = w.service("b", |s| s.mode = replicas(7000));
    let plan = w.plan();
    assert!(plan.truncated && plan.ops.len() == limits::OPS_PER_COMMAND_MAX);
    w.apply(Actor::Reconciler, plan.ops);
    let plan = w.plan();
    assert!(!plan.truncated);
    w.apply(Actor::Reconciler, plan.ops);
    for id in [a, b] {
        assert_eq!(w.state.containers_of_service(id).count(), 7000);
    }
    assert_eq!(w.plan().ops, vec![]);
}

/// A change costs a look at the services that it concerns, however many there are, and a sweep comes in pieces.
#[test]
fn only_what_a_change_concerns_is_looked_at() {
    use warren_reconciler::{Agenda, LOOKED_AT_MAX};
    let mut w = World::new(3);
    let services: Vec<ServiceId> = (0..40)
        .map(|n| w.service(&format!("s{n}"), |s| s.mode = replicas(500)))
        .collect();
    loop {
        let ops = w.plan().ops;
        if ops.is_empty() {
            break;
        }
        w.apply(Actor::Reconciler, ops);
    }
    let mut agenda = Agenda::default();
    let mut ids = Ids::default();
    agenda.sweep(&w.state);
    let mut turns = Vec::new();
    loop {
        let turn = agenda.turn(&w.state, w.now, &mut ids);
        assert_eq!(turn.parts, Vec::new());
        turns.push(turn.looked_at);
        if !turn.more {
            break;
        }
    }
    assert_eq!(turns.iter().sum::<usize>(), services.len());
    let most = LOOKED_AT_MAX / 500;
    assert!(
        turns.iter().all(|looked_at| *looked_at <= most),
        "{turns:?}"
    );
    let op = Op::ServiceSetReplicas {
        id: services[7],
        expect: None,
        replicas: 501,
    };
    let command = Command::new(Actor::System, w.now, vec![op]);
    let applied = w.state.apply(&command).unwrap();
    agenda.note(&w.state, &applied.changes);
    let turn = agenda.turn(&w.state, w.now, &mut ids);
    assert_eq!((turn.looked_at, turn.more), (1, false));
    assert_eq!(turn.parts.len(), 1);
    assert_eq!((turn.parts[0].0, turn.parts[0].1.len()), (services[7], 1));
    assert_eq!(agenda.turn(&w.state, w.now, &mut ids).looked_at, 0);
    agenda.again([services[7]]);
    assert_eq!(agenda.turn(&w.state, w.now, &mut ids).parts.len(), 1);
}
