//! The next step of one container.

use crate::assignment::Assignment;
use crate::health::ProbeKind;
use crate::record::{Cleanup, Local, Phase, StopCause};
use crate::text;
use warren_types::{
    ActualState, ContainerStatus, Duration, ExitInfo, HealthVerdict, RestartCondition, Timestamp,
};

/// Time between the stop signal and SIGKILL when the spec names none.
pub const STOP_GRACE_DEFAULT: Duration = Duration(10_000);
/// A killed process that is still there is killed again after this time.
pub const KILL_AGAIN_AFTER: Duration = Duration(5_000);

/// What the worker shall do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Get image, volumes, secrets, network and root file system ready.
    Prepare,
    /// End the preparation under way; answer with `Cancelled`, `Prepared` or `Failed`.
    Cancel,
    /// Make the container in the runtime, after removing what it has of earlier attempts (logs stay).
    Create {
        /// Number of the attempt.
        attempt: u32,
    },
    /// Start it.
    Start {
        /// Number of the attempt.
        attempt: u32,
    },
    /// Send the stop signal. Do not wait for the end: it is an event of its own.
    SendStop {
        /// How long the process has.
        grace: Duration,
    },
    /// Send SIGKILL. Do not wait for the end.
    Kill,
    /// Run one probe, beside everything else.
    RunProbe {
        /// Number of the attempt, to be given back with the result.
        attempt: u32,
        /// Which check.
        kind: ProbeKind,
    },
    /// Remove process, container, mounts, network and files of it; keep its logs. Must be idempotent
    /// and must also work when there is nothing.
    Cleanup,
    /// Remove its logs too: no assignment names it any more.
    Forget,
}

/// A decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The record with the decision in it; store it before doing the action.
    pub local: Local,
    /// What to do, if anything.
    pub action: Option<Action>,
    /// What to report, if it differs from the last report.
    pub status: Option<ContainerStatus>,
    /// When to ask again, if nothing happens before.
    pub wake_at: Option<Timestamp>,
    /// Nothing of it is left: drop the record.
    pub gone: bool,
}

/// Decides what to do with one container. `desired` is its assignment in the set in force, `None`
/// when it has none. Asking again with the returned record and no new observation gives no action
/// and no status.
#[must_use]
pub fn step(desired: Option<&Assignment>, local: &Local, now: Timestamp) -> Step {
    let mut next = local.clone();
    if let Some(assignment) = desired {
        next.stop_grace = assignment.spec.stop_grace;
    }
    let action = next.advance(desired, now);
    let current = next.status(desired);
    // The manager knows of the assignment itself; there is nothing to say before the first step.
    let status = (next.reported.as_ref() != Some(&current) && next.state > ActualState::Assigned)
        .then(|| current.clone());
    if status.is_some() {
        next.reported = Some(current);
    }
    Step {
        wake_at: next.wake_at(desired),
        gone: next.phase == Phase::Gone,
        local: next,
        action,
        status,
    }
}

impl Local {
    /// Moves on until an action is to be done or something must be waited for.
    fn advance(&mut self, desired: Option<&Assignment>, now: Timestamp) -> Option<Action> {
        let wanted = desired.filter(|a| a.wants_running());
        loop {
            match self.phase.clone() {
                Phase::Running { pid, started_at } => {
                    return self.while_running(wanted, pid, started_at, now);
                }
                Phase::Stopping { kill_at, .. } => return self.while_stopping(kill_at, now),
                Phase::Exited {
                    started_at,
                    exit,
                    at,
                    cause,
                } => {
                    self.after_exit(wanted, started_at, exit, at, cause);
                }
                Phase::Ended { cleanup } => return self.while_ended(desired, cleanup, now),
                Phase::Preparing { cancelled: false } if wanted.is_none() => {
                    self.phase = Phase::Preparing { cancelled: true };
                    self.set(self.state, "stopping: its preparation is being ended");
                    return Some(Action::Cancel);
                }
                Phase::Preparing { .. }
                | Phase::Creating
                | Phase::Starting
                | Phase::Forgetting
                | Phase::Gone => return None,
                _ if wanted.is_none() => self.end_unstarted(),
                Phase::Waiting { until } if now < until => return None,
                Phase::Waiting { .. } => self.phase = self.first_phase(),
                Phase::New => {
                    self.phase = Phase::Preparing { cancelled: false };
                    self.dirty = true;
                    self.set(
                        ActualState::Preparing,
                        "preparing image, volumes and network",
                    );
                    return Some(Action::Prepare);
                }
                Phase::Prepared => {
                    self.phase = Phase::Creating;
                    self.set(ActualState::Preparing, "the runtime makes the container");
                    return Some(Action::Create {
                        attempt: self.attempt,
                    });
                }
                Phase::Created => {
                    self.phase = Phase::Starting;
                    self.set(ActualState::Starting, "its main process is being started");
                    return Some(Action::Start {
                        attempt: self.attempt,
                    });
                }
            }
        }
    }

    /// Nobody wants a container that has no process.
    fn end_unstarted(&mut self) {
        let cleanup = if self.dirty {
            Cleanup::Needed
        } else {
            Cleanup::Done
        };
        self.end(
            ActualState::Shutdown,
            "stopped by the cluster before it ran",
            cleanup,
        );
    }

    fn while_running(
        &mut self,
        wanted: Option<&Assignment>,
        pid: u32,
        started_at: Timestamp,
        now: Timestamp,
    ) -> Option<Action> {
        let Some(assignment) = wanted else {
            let reason = "stopping: the cluster wants it to end";
            return Some(self.begin_stop((pid, started_at), StopCause::Retired, reason, now));
        };
        let health = &assignment.spec.health;
        self.health.settle(health, started_at);
        if self.health.demands_restart(health).is_some() {
            let reason = format!("stopping: {}", self.health.reason(health));
            let process = (pid, started_at);
            return Some(self.begin_stop(process, StopCause::Unhealthy, &reason, now));
        }
        self.reason = self.health.reason(health);
        let kind = self.health.due(health, started_at, now)?;
        self.health.begin(kind, now);
        Some(Action::RunProbe {
            attempt: self.attempt,
            kind,
        })
    }

    fn begin_stop(
        &mut self,
        (pid, started_at): (u32, Timestamp),
        cause: StopCause,
        reason: &str,
        now: Timestamp,
    ) -> Action {
        let grace = self.stop_grace.unwrap_or(STOP_GRACE_DEFAULT);
        self.phase = Phase::Stopping {
            pid,
            started_at,
            cause,
            kill_at: now.plus(grace),
            kills: 0,
        };
        self.set(ActualState::Stopping, reason);
        Action::SendStop { grace }
    }

    fn while_stopping(&mut self, at: Timestamp, now: Timestamp) -> Option<Action> {
        if now < at {
            return None;
        }
        if let Phase::Stopping { kill_at, kills, .. } = &mut self.phase {
            *kill_at = now.plus(KILL_AGAIN_AFTER);
            *kills = kills.saturating_add(1);
            let reason = if *kills == 1 {
                "stopping: its time for a clean end is over, it is being killed".to_owned()
            } else {
                format!(
                    "stopping: still there after {} kills; its process may hang in the kernel",
                    *kills - 1
                )
            };
            self.set(ActualState::Stopping, reason);
        }
        Some(Action::Kill)
    }

    fn while_ended(
        &mut self,
        desired: Option<&Assignment>,
        cleanup: Cleanup,
        now: Timestamp,
    ) -> Option<Action> {
        match cleanup {
            Cleanup::Running => None,
            Cleanup::RetryAt(at) if now < at => None,
            Cleanup::Needed | Cleanup::RetryAt(_) => {
                self.phase = Phase::Ended {
                    cleanup: Cleanup::Running,
                };
                Some(Action::Cleanup)
            }
            Cleanup::Done if desired.is_none() => {
                self.phase = Phase::Forgetting;
                Some(Action::Forget)
            }
            Cleanup::Done => None,
        }
    }

    /// The process has ended: for good, or a new attempt follows.
    fn after_exit(
        &mut self,
        wanted: Option<&Assignment>,
        started_at: Option<Timestamp>,
        exit: Option<ExitInfo>,
        at: Timestamp,
        cause: Option<StopCause>,
    ) {
        self.last_exit = exit.or(self.last_exit);
        self.finished_at = Some(at);
        let how = match &exit {
            Some(exit) => text::exit(exit),
            None => "a restart of the node".to_owned(),
        };
        let Some(assignment) = wanted else {
            let text = format!("stopped by the cluster ({how})");
            return self.end(ActualState::Shutdown, text, Cleanup::Needed);
        };
        let unhealthy = cause == Some(StopCause::Unhealthy);
        let clean = !unhealthy && exit.is_some_and(|e| e.code == 0 && e.signal.is_none() && !e.oom);
        let how = if unhealthy {
            "a failed health check".to_owned()
        } else {
            how
        };
        let policy = &assignment.spec.restart;
        let again = match policy.condition {
            RestartCondition::Any => true,
            RestartCondition::OnFailure => !clean,
            RestartCondition::None => false,
        };
        let final_state = if clean {
            ActualState::Complete
        } else {
            ActualState::Failed
        };
        if !again {
            let text = if clean {
                "ended by itself".to_owned()
            } else {
                format!("ended: {how}")
            };
            return self.end(final_state, text, Cleanup::Needed);
        }
        if exit.is_none() && !unhealthy {
            // Not the container's fault: no wait, no attempt of its policy is used up.
            self.next_attempt(
                ActualState::Preparing,
                "starting again after a restart of the node",
            );
            self.phase = self.first_phase();
            return;
        }
        let ran = started_at.map_or(Duration(0), |start| at.since(start));
        let Some(wait) = self.restarts.next(policy, at, ran) else {
            let text = format!(
                "gave up after {} restarts; the last end was {how}",
                self.restarts.total
            );
            return self.end(final_state, text, Cleanup::Needed);
        };
        let (attempt, wait_text) = (self.attempt.saturating_add(1), text::wait(wait));
        let text = format!("restarting in {wait_text} after {how} (attempt {attempt})");
        self.next_attempt(ActualState::Starting, text);
        self.phase = Phase::Waiting {
            until: at.plus(wait),
        };
    }

    fn wake_at(&self, desired: Option<&Assignment>) -> Option<Timestamp> {
        match &self.phase {
            Phase::Waiting { until } => Some(*until),
            Phase::Stopping { kill_at, .. } => Some(*kill_at),
            Phase::Ended {
                cleanup: Cleanup::RetryAt(at),
            } => Some(*at),
            Phase::Running { started_at, .. } => {
                desired.and_then(|a| self.health.next_due(&a.spec.health, *started_at))
            }
            _ => None,
        }
    }

    fn status(&self, desired: Option<&Assignment>) -> ContainerStatus {
        let process = match self.phase {
            Phase::Running { pid, started_at }
            | Phase::Stopping {
                pid, started_at, ..
            } => Some((pid, started_at)),
            _ => None,
        };
        let health = match (self.state, desired) {
            (ActualState::Running, Some(a)) => self.health.verdict(&a.spec.health),
            _ => HealthVerdict::Unknown,
        };
        ContainerStatus {
            attempt: self.attempt,
            state: self.state,
            reason: self.reason.clone(),
            address: self.address,
            pid: process.map(|p| p.0),
            started_at: process.map(|p| p.1),
            finished_at: self.finished_at,
            exit: self.last_exit,
            health,
        }
    }
}
