//! Plans against the real state machine, with perfect and faulty nodes in place of workers.

mod world;

use proptest::prelude::*;
use warren_state::{Actor, Op};
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

/// What may happen to a cluster.
#[derive(Debug, Clone)]
enum Happening {
    Scale(u8, u8),
    Update(u8, u8, bool),
    Rollback(u8),
    Delete(u8),
    Down(u8),
    Up(u8),
    Drain(u8),
    Pause(u8),
    Activate(u8),
    AddNode,
    RemoveNode(u8),
    Crash(u16),
    Fail(u16),
    Pass(u32),
    Rounds(u8),
    Partial,
}

fn happening() -> impl Strategy<Value = Happening> {
    use Happening::*;
    prop_oneof![
        4 => (any::<u8>(), 0_u8..6).prop_map(|(s, n)| Scale(s, n)),
        4 => (any::<u8>(), 0_u8..4, any::<bool>()).prop_map(|(s, i, o)| Update(s, i, o)),
        1 => any::<u8>().prop_map(Rollback),
        1 => any::<u8>().prop_map(Delete),
        1 => any::<u8>().prop_map(Down),
        2 => any::<u8>().prop_map(Up),
        1 => any::<u8>().prop_map(Drain),
        1 => any::<u8>().prop_map(Pause),
        2 => any::<u8>().prop_map(Activate),
        1 => Just(AddNode),
        1 => any::<u8>().prop_map(RemoveNode),
        2 => any::<u16>().prop_map(Crash),
        2 => any::<u16>().prop_map(Fail),
        3 => (0_u32..700_000).prop_map(Pass),
        8 => (1_u8..12).prop_map(Rounds),
        2 => Just(Partial),
    ]
}

/// A service for random worlds: 0 plain, 1 start-first, 2 host port, 3 job, 4 global, 5 rolls back.
fn random_spec(kind: u8, at: usize) -> impl Fn(&mut ServiceSpec) {
    move |s| {
        s.mode = replicas(2);
        s.update.parallelism = u32::from(kind % 3) + 1;
        match kind {
            1 => s.update.order = UpdateOrder::StartFirst,
            2 => s.ports = vec![host_port(8080 + at as u16)],
            3 => s.container.restart.condition = RestartCondition::OnFailure,
            4 => s.mode = Mode::Global,
            5 => {
                s.update.order = UpdateOrder::StartFirst;
                s.update.failure_action = FailureAction::Rollback;
                s.update.delay = Duration(2_000);
            }
            _ => {}
        }
    }
}

fn happen(w: &mut World, what: Happening) {
    let services: Vec<_> = w
        .state
        .services()
        .filter(|s| !s.deleting)
        .map(|s| s.id)
        .collect();
    let service = |at: u8| {
        services
            .get(usize::from(at) % services.len().max(1))
            .copied()
    };
    let node = |w: &World, at: u8| w.nodes.get(usize::from(at) % w.nodes.len().max(1)).copied();
    let live = |w: &World, at: u16| {
        let all: Vec<_> = w
            .state
            .containers()
            .filter(|c| c.status.state == ActualState::Running)
            .map(|c| c.id)
            .collect();
        all.get(usize::from(at) % all.len().max(1)).copied()
    };
    let available = |w: &mut World, at: u8, availability| {
        if let Some(id) = node(w, at) {
            w.patch(id, |p| p.availability = Some(availability));
        }
    };
    match what {
        Happening::Scale(at, n) => {
            if let Some(id) =
                service(at).filter(|id| w.state.service(*id).unwrap().spec.mode != Mode::Global)
            {
                w.scale(id, u32::from(n));
            }
        }
        Happening::Update(at, image, start_first) => {
            if let Some(id) = service(at) {
                w.update(id, |s| {
                    s.container.image = format!("image:{image}");
                    if start_first {
                        s.update.order = UpdateOrder::StartFirst;
                    }
                });
            }
        }
        Happening::Rollback(at) => {
            if let Some(id) = service(at) {
                // Refused when there is nothing to go back to.
                let op = Op::ServiceRollback {
                    id,
                    expect: None,
                    to: None,
                };
                let _refused = w.try_apply(Actor::System, vec![op]);
            }
        }
        Happening::Delete(at) => {
            if let Some(id) = service(at).filter(|_| services.len() > 2) {
                w.apply(Actor::System, vec![Op::ServiceDelete { id, expect: None }]);
            }
        }
        Happening::Down(at) => {
            if let Some(id) = node(w, at) {
                w.liveness(id, Liveness::Down);
            }
        }
        Happening::Up(at) => {
            if let Some(id) = node(w, at) {
                w.liveness(id, Liveness::Ready);
            }
        }
        Happening::Drain(at) => available(w, at, Availability::Drain),
        Happening::Pause(at) => available(w, at, Availability::Pause),
        Happening::Activate(at) => available(w, at, Availability::Active),
        Happening::AddNode => {
            w.add_node();
        }
        Happening::RemoveNode(at) => {
            if let Some(id) = node(w, at).filter(|_| w.nodes.len() > 2) {
                w.apply(
                    Actor::System,
                    vec![Op::NodeRemove {
                        id,
                        expect: None,
                        force: true,
                    }],
                );
                w.nodes.retain(|n| *n != id);
            }
        }
        Happening::Crash(at) => {
            if let Some(id) = live(w, at) {
                w.crash(id);
            }
        }
        Happening::Fail(at) => {
            if let Some(id) = live(w, at) {
                w.report(id, |s| {
                    s.state = ActualState::Failed;
                    s.reason = "gave up".to_owned();
                });
            }
        }
        Happening::Pass(millis) => w.pass(u64::from(millis)),
        Happening::Rounds(n) => w.rounds(usize::from(n)),
        // The leader dies after planning, or a plan is cut: only a part is applied.
        Happening::Partial => {
            let plan = w.plan();
            let half = plan.ops.len() / 2;
            w.apply(Actor::Reconciler, plan.ops[..half].to_vec());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases(256)))]

    /// R17, R13: whatever happens, every planned operation (and every prefix of a plan) is accepted
    /// (checked in `World::apply`), no place ever holds two wanted containers of one revision, and
    /// when nothing happens any more the cluster is as desired and nothing is left to plan.
    #[test]
    fn any_history_ends_as_desired(
        kinds in proptest::collection::vec(0_u8..6, 1..4),
        happenings in proptest::collection::vec(happening(), 1..40),
    ) {
        let mut w = World::new(3);
        w.bad_images = vec!["image:3".to_owned()];
        for (at, kind) in kinds.iter().enumerate() {
            w.service(&format!("s{at}"), random_spec(*kind, at));
        }
        for what in happenings {
            happen(&mut w, what);
        }
        w.bad_images.clear();
        for node in w.nodes.clone() {
            w.liveness(node, Liveness::Ready);
            w.patch(node, |p| p.availability = Some(Availability::Active));
        }
        for _ in 0..3 {
            w.add_node();
        }
        w.settle();
        prop_assert!(w.plan().ops.is_empty());
        prop_assert_eq!(w.state.invariants(), vec![]);
        for service in w.state.services() {
            prop_assert!(!service.deleting);
            let wanted = match service.spec.mode {
                Mode::Replicated { replicas } => replicas as usize,
                Mode::Global => w.nodes.len(),
            };
            let paused = service.rollout.as_ref().is_some_and(|r| r.state == RolloutState::Paused);
            // Start-first that was paused keeps the old one beside the new one.
            let running = w.running(service.id);
            prop_assert!(running == wanted || (paused && running >= wanted), "{} of {wanted}: {service:?}", running);
            let unfinished = service.rollout.as_ref().is_some_and(|r| r.finished_at.is_none());
            prop_assert!(paused || !unfinished, "{:?}", service.rollout);
            let current = w.live(service.id).iter().all(|c| c.service_revision == service.revision);
            prop_assert!(paused || current);
        }
    }

    /// R16: a start-first update never leaves fewer ready containers than wanted, a stop-first one
    /// never fewer than wanted less a batch, whatever is good or bad about the new image.
    #[test]
    fn updates_keep_the_service_up(
        count in 1_u32..8, parallelism in 1_u32..4, start_first in any::<bool>(), bad in any::<bool>(),
        back in any::<bool>(), delay in 0_u64..3000, monitor in 0_u64..6000, threshold in 0_u32..101,
    ) {
        let mut w = World::new(3);
        let web = w.service("web", |s| {
            s.mode = replicas(count);
            s.update.parallelism = parallelism;
            s.update.order = if start_first { UpdateOrder::StartFirst } else { UpdateOrder::StopFirst };
            s.update.delay = Duration(delay);
            s.update.monitor = Duration(monitor);
            s.update.failure_threshold_percent = threshold;
            s.update.failure_action = if back { FailureAction::Rollback } else { FailureAction::Pause };
        });
        w.settle();
        if bad {
            w.crash_images = vec!["web:2".to_owned()];
        }
        let least = if start_first { count } else { count.saturating_sub(parallelism) };
        // A bad batch is replaced by the rollback's batch only after it has failed.
        w.watch_ready(web, least as usize);
        w.update(web, |s| s.container.image = "web:2".to_owned());
        w.settle_for(400);
        let state = w.rollout(web).state;
        let wanted = match (bad, back) {
            (false, _) => RolloutState::Completed,
            (true, true) => RolloutState::RolledBack,
            (true, false) => RolloutState::Paused,
        };
        // A high threshold lets a rollout go on until enough places have failed.
        prop_assert!(state == wanted || (bad && threshold >= 10 && state == RolloutState::Updating), "{:?}", w.rollout(web));
        if !bad || back && state == wanted {
            prop_assert_eq!(w.running(web), count as usize);
        }
    }

    /// Services are planned independently: one by one gives the same operations as all at once.
    #[test]
    fn services_do_not_disturb_each_other(
        kinds in proptest::collection::vec(0_u8..6, 2..5),
        happenings in proptest::collection::vec(happening(), 0..15),
        order in any::<u64>(),
    ) {
        let mut w = World::new(3);
        for (at, kind) in kinds.iter().enumerate() {
            w.service(&format!("s{at}"), random_spec(*kind, at));
        }
        for what in happenings {
            happen(&mut w, what);
        }
        let all = w.plan();
        let mut services: Vec<_> = w.state.services().map(|s| s.id).collect();
        let turn = usize::try_from(order % 7).unwrap() % services.len();
        services.rotate_left(turn);
        let mut parts: Vec<Op> = Vec::new();
        for id in services {
            let mut ids = Ids::default();
            parts.extend(warren_reconciler::plan_service(&w.state, id, w.now, &mut ids).ops);
        }
        let key = |op: &Op| match op {
            Op::ContainerCreate { service, slot, revision, .. } => format!("create {service} {slot:?} {revision}"),
            other => format!("{other:?}"),
        };
        let sorted = |ops: &[Op]| {
            let mut texts: Vec<String> = ops.iter().map(key).collect();
            texts.sort();
            texts
        };
        prop_assert_eq!(sorted(&all.ops), sorted(&parts));
    }
}
