//! The life of a container on a node, case by case.

mod node;

use node::{Node, *};
use warren_lifecycle::*;
use warren_types::*;

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
