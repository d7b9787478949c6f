//! Properties over random histories of a cluster, with the real state machine.

mod world;

use proptest::prelude::*;
use warren_state::{Actor, Op};
use warren_types::*;
use world::*;

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
    /// never fewer than wanted less a batch, whatever is good or bad about the new image. (Whoever wants new containers watched for
    /// no time at all gets that: one that crashes after it has run counts as good then.)
    #[test]
    fn updates_keep_the_service_up(
        count in 1_u32..8, parallelism in 1_u32..4, start_first in any::<bool>(), bad in any::<bool>(),
        back in any::<bool>(), delay in 0_u64..3000, monitor in 1_u64..6000, threshold in 0_u32..101, stop_every in 1_u64..5,
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
        w.stop_every = stop_every;
        if bad {
            w.crash_images = vec!["web:2".to_owned()];
        }
        let least = if start_first { count } else { count.saturating_sub(parallelism) };
        // A bad batch is replaced by the rollback's batch only after it has failed.
        let most = if start_first { count + parallelism } else { count };
        w.watch(web, least as usize, most as usize);
        w.update(web, |s| s.container.image = "web:2".to_owned());
        w.settle_for(500);
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
