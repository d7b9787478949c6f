//! The life of a container on a node, with a small machine in place of the runtime.

use proptest::prelude::*;
use std::sync::Arc;
use warren_lifecycle::*;
use warren_types::*;

const ID: ContainerId = ContainerId::from_u128(7);
const T0: Timestamp = Timestamp(1_000_000);

fn assignment(edit: impl FnOnce(&mut ContainerSpec)) -> Assignment {
    let mut spec = ContainerSpec::default();
    edit(&mut spec);
    Assignment {
        id: ID,
        service: ServiceId::from_u128(1),
        service_name: "web".to_owned(),
        service_revision: 1,
        slot: Slot::Replica(1),
        desired: DesiredState::Running,
        spec: Arc::new(spec),
        ports: Vec::new(),
        networks: Vec::new(),
        attempt_floor: 0,
    }
}

fn exit(code: i32) -> ExitInfo {
    ExitInfo {
        code,
        signal: None,
        oom: false,
    }
}

/// A worker in miniature: keeps the record, checks each status against the life-cycle table.
struct Node {
    desired: Option<Assignment>,
    local: Local,
    now: Timestamp,
    last: ContainerStatus,
    seen: Vec<ContainerStatus>,
    gone: bool,
    wake_at: Option<Timestamp>,
}

impl Node {
    fn new(assignment: Assignment) -> Self {
        let local = Local::new(assignment.id, assignment.attempt_floor);
        let last = ContainerStatus {
            attempt: assignment.attempt_floor,
            state: ActualState::Assigned,
            ..ContainerStatus::default()
        };
        Self {
            desired: Some(assignment),
            local,
            now: T0,
            last,
            seen: vec![],
            gone: false,
            wake_at: None,
        }
    }

    /// One step; checks R10 and that a second step says nothing new.
    fn step(&mut self) -> Option<Action> {
        let made = step(self.desired.as_ref(), &self.local, self.now);
        if let Some(status) = &made.status {
            let (from, to) = (&self.last, status);
            lifecycle::check(
                from.state,
                from.attempt,
                to.state,
                to.attempt,
                Owner::Worker,
            )
            .unwrap_or_else(|e| panic!("{e}: {from:?} -> {to:?}"));
            assert!(
                to.state == ActualState::Running || !to.reason.is_empty(),
                "{to:?}"
            );
            self.last = status.clone();
            self.seen.push(status.clone());
        }
        if let Some(at) = made.wake_at {
            assert!(
                made.action.is_some() || at > self.now,
                "wakes in the past: {:?}",
                made.local
            );
        }
        let stored: Local =
            serde_json::from_str(&serde_json::to_string(&made.local).unwrap()).unwrap();
        assert_eq!(stored, made.local);
        if made.action.is_none() || !matches!(made.action, Some(Action::RunProbe { .. })) {
            let again = step(self.desired.as_ref(), &made.local, self.now);
            let cancel_only = matches!(again.action, None | Some(Action::Cancel));
            assert!(
                cancel_only && again.status.is_none(),
                "not quiet: {again:?}"
            );
        }
        self.gone = made.gone;
        self.wake_at = made.wake_at;
        self.local = made.local;
        made.action
    }

    fn see(&mut self, observation: Observation) {
        self.local.observe(observation, self.now);
    }

    /// Carries actions out as a perfect runtime until nothing is to be done.
    fn settle(&mut self) {
        for _ in 0..20 {
            let Some(action) = self.step() else { return };
            match action {
                Action::Prepare => self.see(Observation::Prepared {
                    address: Some([10, 0, 0, 2].into()),
                }),
                Action::Cancel => self.see(Observation::Cancelled),
                Action::Create { .. } => self.see(Observation::Created),
                Action::Start { .. } => {
                    self.see(Observation::Started {
                        pid: 42,
                        started_at: self.now,
                    });
                }
                Action::Cleanup => self.see(Observation::Cleaned),
                Action::Forget => self.see(Observation::Forgotten),
                Action::RunProbe { attempt, kind } => self.see(Observation::Probe {
                    attempt,
                    kind,
                    healthy: true,
                    message: String::new(),
                }),
                Action::SendStop { .. } | Action::Kill => return,
            }
        }
        panic!("does not settle: {:?}", self.local);
    }

    fn dies(&mut self, how: ExitInfo) {
        let attempt = self.local.attempt;
        self.see(Observation::Exited {
            attempt,
            exit: how,
            at: self.now,
        });
    }

    fn to(&mut self, millis: u64) -> &mut Self {
        self.now = self.now.plus(Duration(millis));
        self
    }
}

#[test]
fn a_crash_is_started_again_within_100_ms() {
    let mut node = Node::new(assignment(|_| ()));
    node.settle();
    assert_eq!(
        (node.last.state, node.last.attempt, node.last.pid),
        (ActualState::Running, 1, Some(42))
    );
    node.to(5_000).dies(exit(1));
    assert_eq!(node.step(), None);
    assert_eq!(
        (node.last.state, node.last.attempt),
        (ActualState::Starting, 2)
    );
    assert_eq!(
        node.last.reason,
        "restarting in 0.1 s after exit status 1 (attempt 2)"
    );
    assert!(node.wake_at.unwrap().since(node.now) <= Duration(100));
    node.now = node.wake_at.unwrap();
    assert_eq!(node.step(), Some(Action::Create { attempt: 2 }));
    node.see(Observation::Created);
    assert_eq!(node.step(), Some(Action::Start { attempt: 2 }));
}

#[test]
fn policies_decide_who_is_started_again() {
    use RestartCondition::{Any, None as Never, OnFailure};
    let cases = [
        (Any, 0, 0, ActualState::Starting),
        (Any, 3, 0, ActualState::Starting),
        (OnFailure, 0, 0, ActualState::Complete),
        (OnFailure, 3, 0, ActualState::Starting),
        (Never, 0, 0, ActualState::Complete),
        (Never, 3, 0, ActualState::Failed),
    ];
    for (condition, code, max_attempts, wanted) in cases {
        let mut node = Node::new(assignment(|s| {
            s.restart.condition = condition;
            s.restart.max_attempts = max_attempts;
        }));
        node.settle();
        node.to(10).dies(exit(code));
        node.settle();
        assert_eq!(node.last.state, wanted, "{condition:?} {code}");
    }
    let mut node = Node::new(assignment(|s| s.restart.max_attempts = 1));
    node.settle();
    node.dies(exit(7));
    node.settle();
    node.to(1000).settle();
    node.dies(exit(7));
    node.settle();
    assert_eq!(node.last.state, ActualState::Failed);
    assert_eq!(
        node.last.reason,
        "gave up after 1 restarts; the last end was exit status 7"
    );
}

#[test]
fn retired_gets_its_grace_then_is_killed_then_cleaned_then_forgotten() {
    let mut node = Node::new(assignment(|s| s.stop_grace = Some(Duration(2_000))));
    node.settle();
    node.desired = None; // gone from the set: the grace is remembered
    assert_eq!(
        node.step(),
        Some(Action::SendStop {
            grace: Duration(2_000)
        })
    );
    assert_eq!(node.last.state, ActualState::Stopping);
    assert_eq!(node.to(1_999).step(), None);
    assert_eq!(node.to(1).step(), Some(Action::Kill));
    assert_eq!(node.to(KILL_AGAIN_AFTER.0).step(), Some(Action::Kill));
    node.dies(ExitInfo {
        code: 137,
        signal: Some(9),
        oom: false,
    });
    assert_eq!(node.step(), Some(Action::Cleanup));
    assert_eq!(node.last.state, ActualState::Shutdown);
    node.see(Observation::Failed {
        permanent: false,
        reason: "busy".to_owned(),
    });
    assert_eq!(node.step(), None);
    assert_eq!(node.to(100).step(), Some(Action::Cleanup));
    node.see(Observation::Cleaned);
    assert_eq!(node.step(), Some(Action::Forget));
    node.see(Observation::Forgotten);
    assert!(node.step().is_none() && node.gone);
}

#[test]
fn a_preparation_can_be_cancelled() {
    let mut node = Node::new(assignment(|_| ()));
    assert_eq!(node.step(), Some(Action::Prepare));
    node.see(Observation::Progress {
        reason: "pulling: 40 %".to_owned(),
    });
    node.step();
    assert_eq!(node.last.reason, "pulling: 40 %");
    node.desired.as_mut().unwrap().desired = DesiredState::Shutdown;
    assert_eq!(node.step(), Some(Action::Cancel));
    node.see(Observation::Failed {
        permanent: true,
        reason: "interrupted".to_owned(),
    });
    assert_eq!(node.step(), Some(Action::Cleanup));
    assert_eq!(node.last.state, ActualState::Shutdown);
}

#[test]
fn permanent_errors_reject_and_others_are_tried_again() {
    for starting in [false, true] {
        let mut node = Node::new(assignment(|_| ()));
        node.step();
        if starting {
            node.see(Observation::Prepared { address: None });
            node.step();
            node.see(Observation::Created);
            assert_eq!(node.step(), Some(Action::Start { attempt: 1 }));
        }
        node.see(Observation::Failed {
            permanent: false,
            reason: "disk full".to_owned(),
        });
        assert_eq!(node.step(), None);
        assert_eq!(node.last.reason, "disk full; next try in 0.1 s (try 1)");
        let again = if starting {
            Action::Create { attempt: 1 }
        } else {
            Action::Prepare
        };
        assert_eq!(node.to(100).step(), Some(again));
        node.see(Observation::Failed {
            permanent: true,
            reason: "no user \"x\"; name one".to_owned(),
        });
        assert_eq!(node.step(), Some(Action::Cleanup));
        assert_eq!(
            (node.last.state, node.last.reason.as_str()),
            (ActualState::Rejected, "no user \"x\"; name one")
        );
    }
}

/// Law 7: the daemon dies, the container does not notice.
#[test]
fn running_containers_are_adopted_with_their_start_time() {
    let mut node = Node::new(assignment(|_| ()));
    node.settle();
    let before = node.last.clone();
    let started_at = before.started_at.unwrap();
    let view = RuntimeView::Running {
        attempt: 1,
        pid: 42,
        started_at,
    };
    node.to(60_000).see(Observation::Recovered {
        view: view.clone(),
        intact: true,
    });
    assert_eq!(node.step(), None);
    assert_eq!(node.last, before);
    // The record was lost too: the runtime and the manager's floor suffice.
    let mut fresh = Node::new(Assignment {
        attempt_floor: 1,
        ..assignment(|_| ())
    });
    fresh.last = before;
    fresh.see(Observation::Recovered { view, intact: true });
    assert_eq!(fresh.step(), None);
    assert_eq!(
        (fresh.last.attempt, fresh.last.started_at),
        (1, Some(started_at))
    );
}

#[test]
fn after_a_reboot_everything_is_prepared_and_started_again_at_once() {
    let mut node = Node::new(assignment(|s| s.restart.max_attempts = 1));
    node.settle();
    node.to(1000).see(Observation::Recovered {
        view: RuntimeView::Absent,
        intact: false,
    });
    assert_eq!(node.step(), Some(Action::Prepare));
    assert_eq!(
        (node.last.attempt, node.last.state),
        (2, ActualState::Preparing)
    );
    // kill -9 of the daemon in the middle of the preparation: again, same attempt
    node.see(Observation::Recovered {
        view: RuntimeView::Absent,
        intact: false,
    });
    node.settle();
    assert_eq!(
        (node.last.attempt, node.last.state),
        (2, ActualState::Running)
    );
    assert_eq!(node.local.restarts, RestartState::default());
}

#[test]
fn the_end_of_a_container_while_the_daemon_was_away_is_seen() {
    let mut node = Node::new(assignment(|_| ()));
    node.settle();
    let at = node.now.plus(Duration(500));
    let view = RuntimeView::Exited {
        attempt: 1,
        started_at: None,
        exit: exit(3),
        at,
    };
    node.to(90_000)
        .see(Observation::Recovered { view, intact: true });
    assert_eq!(
        node.step(),
        Some(Action::Create { attempt: 2 }),
        "the wait is over long ago"
    );
}

#[test]
fn a_stray_is_stopped_and_removed() {
    let mut node = Node::new(assignment(|_| ()));
    node.desired = None;
    let view = RuntimeView::Running {
        attempt: 4,
        pid: 9,
        started_at: T0,
    };
    node.see(Observation::Recovered { view, intact: true });
    assert_eq!(
        node.step(),
        Some(Action::SendStop {
            grace: STOP_GRACE_DEFAULT
        })
    );
    node.see(Observation::Exited {
        attempt: 4,
        exit: exit(0),
        at: node.now,
    });
    node.settle();
    assert!(node.gone);
    let mut node = Node::new(assignment(|_| ()));
    node.desired = None;
    node.see(Observation::Recovered {
        view: RuntimeView::Absent,
        intact: true,
    });
    assert_eq!(
        node.step(),
        Some(Action::Cleanup),
        "mounts may have been left"
    );
}

#[test]
fn a_failing_liveness_check_restarts() {
    let check = HealthCheck {
        probe: HealthProbe::Tcp { port: 1 },
        interval: Duration(1_000),
        timeout: Duration(100),
        retries: 2,
        start_period: Duration(0),
    };
    let mut node = Node::new(assignment(|s| s.health.liveness = Some(check)));
    node.settle();
    assert_eq!(node.last.health, HealthVerdict::Healthy);
    for _ in 0..2 {
        node.now = node.wake_at.unwrap();
        let Some(Action::RunProbe { attempt, kind }) = node.step() else {
            panic!()
        };
        node.see(Observation::Probe {
            attempt,
            kind,
            healthy: false,
            message: "refused".to_owned(),
        });
        if node.local.health.liveness.failures == 0 {
            assert!(node.step().is_none());
        }
    }
    assert!(matches!(node.step(), Some(Action::SendStop { .. })));
    assert_eq!(
        node.last.reason,
        "stopping: liveness check failed 2 times: refused"
    );
    node.dies(exit(0));
    assert_eq!(node.step(), None);
    assert_eq!(
        node.last.reason,
        "restarting in 0.1 s after a failed health check (attempt 2)"
    );
    node.to(100).settle();
    assert_eq!(node.last.health, HealthVerdict::Healthy);
}

/// Things that can happen to a container, in any order, sensible or not.
#[derive(Debug, Clone)]
enum Happening {
    Later(u64),
    Do,
    FailAction(bool),
    Die(i32),
    LateEvent,
    Retire,
    Drop,
    CrashOfDaemon,
    Reboot,
    NewSession,
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        6 => Just(Happening::Do),
        3 => (0_u64..40_000).prop_map(Happening::Later),
        3 => (0_i32..3).prop_map(Happening::Die),
        1 => any::<bool>().prop_map(Happening::FailAction),
        1 => Just(Happening::LateEvent),
        1 => Just(Happening::CrashOfDaemon),
        1 => Just(Happening::Reboot),
        1 => Just(Happening::NewSession),
        1 => prop_oneof![6 => Just(Happening::LateEvent), 1 => Just(Happening::Retire), 1 => Just(Happening::Drop)],
    ]
}

/// The machine: what truly is there, as the runtime would tell.
#[derive(Default)]
struct Machine {
    view: Option<RuntimeView>,
    prepared: bool,
    underway: Option<Action>,
}

impl Machine {
    fn finish(&mut self, node: &mut Node) {
        let Some(action) = self.underway.take() else {
            return;
        };
        let (attempt, now) = (node.local.attempt, node.now);
        let told = match action {
            Action::Prepare => {
                self.prepared = true;
                Observation::Prepared { address: None }
            }
            Action::Cancel => Observation::Cancelled,
            Action::Create { attempt } => {
                assert!(self.prepared, "made without preparation");
                assert!(
                    !matches!(self.view, Some(RuntimeView::Running { .. })),
                    "two at once"
                );
                self.view = Some(RuntimeView::Created { attempt });
                Observation::Created
            }
            Action::Start { attempt } => {
                assert_eq!(self.view, Some(RuntimeView::Created { attempt }));
                self.view = Some(RuntimeView::Running {
                    attempt,
                    pid: 1,
                    started_at: now,
                });
                Observation::Started {
                    pid: 1,
                    started_at: now,
                }
            }
            Action::SendStop { .. } => return,
            Action::Kill => return self.die(node, 137),
            Action::Cleanup => {
                (self.view, self.prepared) = (None, false);
                Observation::Cleaned
            }
            Action::Forget => Observation::Forgotten,
            Action::RunProbe { kind, .. } => Observation::Probe {
                attempt,
                kind,
                healthy: now.0 % 3 != 0,
                message: "no".to_owned(),
            },
        };
        node.see(told);
    }

    fn die(&mut self, node: &mut Node, code: i32) {
        if let Some(RuntimeView::Running {
            attempt,
            started_at,
            ..
        }) = self.view
        {
            let (exit, at) = (exit(code), node.now);
            self.view = Some(RuntimeView::Exited {
                attempt,
                started_at: Some(started_at),
                exit,
                at,
            });
            node.see(Observation::Exited { attempt, exit, at });
        }
    }

    fn apply(&mut self, node: &mut Node, what: Happening) {
        match what {
            Happening::Later(millis) => {
                node.to(millis);
            }
            Happening::Do => self.finish(node),
            Happening::FailAction(permanent) => {
                let cannot_fail = matches!(
                    self.underway,
                    None | Some(
                        Action::SendStop { .. }
                            | Action::Kill
                            | Action::RunProbe { .. }
                            | Action::Cancel
                    )
                );
                if !cannot_fail {
                    self.underway = None;
                    node.see(Observation::Failed {
                        permanent,
                        reason: "it failed".to_owned(),
                    });
                }
            }
            Happening::Die(code) => self.die(node, code),
            Happening::LateEvent => {
                let attempt = node.local.attempt.saturating_sub(1);
                node.see(Observation::Exited {
                    attempt,
                    exit: exit(9),
                    at: node.now,
                });
                node.see(Observation::Probe {
                    attempt,
                    kind: ProbeKind::Liveness,
                    healthy: false,
                    message: String::new(),
                });
            }
            Happening::Retire => {
                if let Some(assignment) = &mut node.desired {
                    assignment.desired = DesiredState::Shutdown;
                }
            }
            Happening::Drop => node.desired = None,
            Happening::CrashOfDaemon | Happening::Reboot => {
                self.underway = None;
                let rebooted = matches!(what, Happening::Reboot);
                if rebooted {
                    (self.view, self.prepared) = (None, false);
                }
                let view = self.view.clone().unwrap_or(RuntimeView::Absent);
                node.see(Observation::Recovered {
                    view,
                    intact: self.prepared,
                });
            }
            Happening::NewSession => node.local.report_again(),
        }
    }

    /// Steps until nothing more is to be done at once.
    fn steps(&mut self, node: &mut Node) {
        for _ in 0..10 {
            match node.step() {
                None => return,
                Some(
                    action @ (Action::SendStop { .. } | Action::Kill | Action::RunProbe { .. }),
                ) => {
                    self.underway = Some(action);
                    if !matches!(action, Action::SendStop { .. }) {
                        self.finish(node);
                    }
                }
                Some(Action::Cancel) => self.underway = Some(Action::Cancel),
                Some(action) => {
                    assert!(
                        self.underway
                            .is_none_or(|u| matches!(u, Action::SendStop { .. })),
                        "{:?} beside {action:?}",
                        self.underway
                    );
                    self.underway = Some(action);
                    return;
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// R10 and more (checked inside `Node::step`): statuses follow the table, attempts never go back,
    /// a second step is quiet, records survive being stored; nothing is made twice; and when
    /// everything works again, the container gets where it is wanted.
    #[test]
    fn any_life_follows_the_rules(
        happenings in proptest::collection::vec(happening(), 1..60),
        condition in prop_oneof![Just(RestartCondition::Any), Just(RestartCondition::OnFailure), Just(RestartCondition::None)],
        max_attempts in 0_u32..4, checked in any::<bool>(), floor in 0_u32..3,
    ) {
        let check = HealthCheck {
            probe: HealthProbe::Tcp { port: 1 }, interval: Duration(3_000), timeout: Duration(1_000),
            retries: 2, start_period: Duration(1_000),
        };
        let mut wanted = assignment(|s| {
            s.restart.condition = condition;
            s.restart.max_attempts = max_attempts;
            s.health.liveness = checked.then_some(check);
        });
        wanted.attempt_floor = floor;
        let mut node = Node::new(wanted);
        let mut machine = Machine::default();
        machine.steps(&mut node);
        let mut attempt = node.local.attempt;
        for what in happenings {
            machine.apply(&mut node, what);
            machine.steps(&mut node);
            prop_assert!(node.local.attempt >= attempt);
            attempt = node.local.attempt;
            if let (Phase::Waiting { until }, Some(at)) = (&node.local.phase, node.wake_at) {
                prop_assert_eq!(*until, at);
                prop_assert!(until.since(node.now) <= BACKOFF_MAX);
            }
        }
        // Faults stop; the clock is moved to a time at which every probe succeeds.
        for _ in 0..60 {
            machine.finish(&mut node);
            if matches!(node.local.phase, Phase::Stopping { .. }) {
                machine.die(&mut node, 0);
            }
            node.now = Timestamp((node.now.0 + 30_000) / 3 * 3 + 1);
            machine.steps(&mut node);
        }
        let ended = node.last.state.is_final();
        match &node.desired {
            None => prop_assert!(node.gone && machine.view.is_none()),
            Some(a) if a.wants_running() => {
                prop_assert!(ended || node.last.state == ActualState::Running, "{:?}", node.local);
                prop_assert!(!ended || machine.view.is_none());
                if ended && condition == RestartCondition::Any && max_attempts == 0 {
                    prop_assert_eq!(node.last.state, ActualState::Rejected);
                }
            }
            Some(_) => prop_assert!(ended && machine.view.is_none(), "{:?}", node.local),
        }
    }
}
