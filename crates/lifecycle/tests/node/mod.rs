//! A worker in miniature for tests.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::sync::Arc;
use warren_lifecycle::*;
use warren_types::*;

pub const ID: ContainerId = ContainerId::from_u128(7);
pub const T0: Timestamp = Timestamp(1_000_000);

pub fn assignment(edit: impl FnOnce(&mut ContainerSpec)) -> Assignment {
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

pub fn exit(code: i32) -> ExitInfo {
    ExitInfo {
        code,
        signal: None,
        oom: false,
    }
}

/// A worker in miniature: keeps the record, checks each status against the life-cycle table.
pub struct Node {
    pub desired: Option<Assignment>,
    pub local: Local,
    pub now: Timestamp,
    pub last: ContainerStatus,
    pub seen: Vec<ContainerStatus>,
    pub gone: bool,
    pub wake_at: Option<Timestamp>,
}

impl Node {
    pub fn new(assignment: Assignment) -> Self {
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
    pub fn step(&mut self) -> Option<Action> {
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

    pub fn see(&mut self, observation: Observation) {
        self.local.observe(observation, self.now);
    }

    /// Carries actions out as a perfect runtime until nothing is to be done.
    pub fn settle(&mut self) {
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

    pub fn dies(&mut self, how: ExitInfo) {
        let attempt = self.local.attempt;
        self.see(Observation::Exited {
            attempt,
            exit: how,
            at: self.now,
        });
    }

    pub fn to(&mut self, millis: u64) -> &mut Self {
        self.now = self.now.plus(Duration(millis));
        self
    }
}
