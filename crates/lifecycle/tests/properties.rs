//! Random lives of a container on a node, with a small machine in place of the runtime.

mod node;

use node::{Node, *};
use proptest::prelude::*;
use warren_lifecycle::*;
use warren_types::*;

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
