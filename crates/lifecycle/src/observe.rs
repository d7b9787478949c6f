//! What the worker tells the record: outcomes of actions, events of the runtime, recovery.

use crate::health::ProbeKind;
use crate::record::{Cleanup, Local, Phase};
use crate::restart::{BACKOFF_FIRST, backoff};
use crate::text;
use std::net::Ipv4Addr;
use warren_types::{ActualState, ExitInfo, Timestamp};

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Observation {
    /// The preparation goes on; the text says how far ("pulling: 40 %").
    Progress {
        /// In words.
        reason: String,
    },
    /// `Action::Prepare` is done.
    Prepared {
        /// The container's address, if it has a network.
        address: Option<Ipv4Addr>,
    },
    /// `Action::Create` is done.
    Created,
    /// `Action::Start` is done.
    Started {
        /// Process id on the node.
        pid: u32,
        /// When it started.
        started_at: Timestamp,
    },
    /// The action under way failed.
    Failed {
        /// Trying again cannot help (image not present, bad user, bind source missing, …).
        permanent: bool,
        /// What, where and what to do, in words.
        reason: String,
    },
    /// `Action::Cancel` is done: the preparation has ended without result.
    Cancelled,
    /// The process has ended.
    Exited {
        /// Which attempt it was; events of older ones are ignored.
        attempt: u32,
        /// How it ended.
        exit: ExitInfo,
        /// When.
        at: Timestamp,
    },
    /// A probe has ended (timeouts are failures).
    Probe {
        /// Which attempt it was for; results of older ones are ignored.
        attempt: u32,
        /// Which check.
        kind: ProbeKind,
        /// It succeeded.
        healthy: bool,
        /// What it said when it failed.
        message: String,
    },
    /// `Action::Cleanup` is done.
    Cleaned,
    /// `Action::Forget` is done.
    Forgotten,
    /// The worker has started: this is what the runtime has. Tell it once, before the first step.
    Recovered {
        /// What the runtime has.
        view: RuntimeView,
        /// Root file system and network are still there (they are not after a reboot).
        intact: bool,
    },
}

/// What the runtime has of a container when the worker starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RuntimeView {
    /// Nothing.
    Absent,
    /// Made, not started.
    Created {
        /// Which attempt.
        attempt: u32,
    },
    /// Its process runs.
    Running {
        /// Which attempt.
        attempt: u32,
        /// Process id on the node.
        pid: u32,
        /// When it started.
        started_at: Timestamp,
    },
    /// Its process has ended.
    Exited {
        /// Which attempt.
        attempt: u32,
        /// When it had started, if that is known.
        started_at: Option<Timestamp>,
        /// How it ended.
        exit: ExitInfo,
        /// When.
        at: Timestamp,
    },
}

impl Local {
    /// Takes an observation in. One that does not fit the phase (a late event, a result of an older
    /// attempt) changes nothing.
    pub fn observe(&mut self, observation: Observation, now: Timestamp) {
        match observation {
            Observation::Progress { reason } => {
                if matches!(self.phase, Phase::Preparing { .. }) {
                    self.set(ActualState::Preparing, reason);
                }
            }
            Observation::Prepared { address } => {
                if matches!(self.phase, Phase::Preparing { .. }) {
                    self.address = address;
                    self.prepared = true;
                    self.done(Phase::Prepared);
                }
            }
            Observation::Created if self.phase == Phase::Creating => self.done(Phase::Created),
            Observation::Started { pid, started_at } if self.phase == Phase::Starting => {
                self.done(Phase::Running { pid, started_at });
                self.set(ActualState::Running, "");
            }
            Observation::Cancelled if matches!(self.phase, Phase::Preparing { .. }) => {
                self.phase = Phase::Prepared;
            }
            Observation::Failed { permanent, reason } => self.failed(permanent, &reason, now),
            Observation::Exited { attempt, exit, at } if attempt == self.attempt => {
                self.exited(Some(exit), at);
            }
            Observation::Probe {
                attempt,
                kind,
                healthy,
                message,
            } => {
                if attempt == self.attempt && matches!(self.phase, Phase::Running { .. }) {
                    self.health.result(kind, healthy, &message, now);
                }
            }
            Observation::Cleaned => {
                if matches!(self.phase, Phase::Ended { .. }) {
                    self.address = None;
                    (self.dirty, self.prepared) = (false, false);
                    self.done(Phase::Ended {
                        cleanup: Cleanup::Done,
                    });
                }
            }
            Observation::Forgotten if self.phase == Phase::Forgetting => self.done(Phase::Gone),
            Observation::Recovered { view, intact } => self.recovered(view, intact, now),
            Observation::Created
            | Observation::Started { .. }
            | Observation::Cancelled
            | Observation::Exited { .. }
            | Observation::Forgotten => {}
        }
    }

    /// The action under way succeeded.
    fn done(&mut self, phase: Phase) {
        self.phase = phase;
        self.tries = 0;
    }

    /// The action under way failed: for good, or it is tried again after a wait.
    fn failed(&mut self, permanent: bool, reason: &str, now: Timestamp) {
        match self.phase {
            Phase::Preparing { cancelled: true } => {
                self.phase = Phase::Prepared;
                return;
            }
            Phase::Preparing { .. } | Phase::Creating | Phase::Starting => {}
            Phase::Ended {
                cleanup: Cleanup::Running,
            }
            | Phase::Forgetting => {
                let until = self.next_try(now).0;
                self.phase = Phase::Ended {
                    cleanup: Cleanup::RetryAt(until),
                };
                return;
            }
            // A stop or kill that fails is repeated by its deadline; the rest has nothing under way.
            _ => return,
        }
        if permanent {
            self.finished_at = Some(now);
            self.end(ActualState::Rejected, reason, Cleanup::Needed);
            return;
        }
        let (until, wait) = self.next_try(now);
        self.set(
            self.state,
            format!("{reason}; next try in {wait} (try {})", self.tries),
        );
        self.phase = Phase::Waiting { until };
    }

    fn next_try(&mut self, now: Timestamp) -> (Timestamp, String) {
        self.tries = self.tries.saturating_add(1);
        let wait = backoff(BACKOFF_FIRST, self.tries);
        (now.plus(wait), text::wait(wait))
    }

    fn exited(&mut self, exit: Option<ExitInfo>, at: Timestamp) {
        let (started_at, cause) = match self.phase {
            Phase::Running { started_at, .. } => (Some(started_at), None),
            Phase::Stopping {
                started_at, cause, ..
            } => (Some(started_at), Some(cause)),
            // A process that ends at once may be heard of before its start is.
            Phase::Creating | Phase::Created | Phase::Starting => (None, None),
            _ => return,
        };
        self.phase = Phase::Exited {
            started_at,
            exit,
            at,
            cause,
        };
    }

    fn recovered(&mut self, view: RuntimeView, intact: bool, now: Timestamp) {
        let fresh = self.phase == Phase::New && !self.dirty;
        self.health.forget_probes_under_way();
        self.reported = None;
        // Whatever the record says, something may have been left behind.
        self.dirty = true;
        self.prepared = intact && (self.prepared || view != RuntimeView::Absent);
        if !intact {
            self.address = None;
        }
        if let Phase::Ended { .. } | Phase::Forgetting | Phase::Gone = self.phase {
            // Whatever is left of it is removed once more; that is idempotent.
            self.phase = Phase::Ended {
                cleanup: Cleanup::Needed,
            };
            return;
        }
        match view {
            RuntimeView::Running {
                attempt,
                pid,
                started_at,
            } if self.is_mine(attempt, fresh) => {
                self.catch_up(attempt);
                if let Phase::Stopping {
                    pid: known,
                    started_at: since,
                    ..
                } = &mut self.phase
                {
                    (*known, *since) = (pid, started_at);
                } else {
                    self.done(Phase::Running { pid, started_at });
                    self.set(ActualState::Running, "");
                }
            }
            RuntimeView::Exited {
                attempt,
                started_at,
                exit,
                at,
            } if self.is_mine(attempt, fresh) => {
                self.catch_up(attempt);
                let cause = match self.phase {
                    Phase::Stopping { cause, .. } => Some(cause),
                    _ => None,
                };
                self.phase = Phase::Exited {
                    started_at,
                    exit: Some(exit),
                    at,
                    cause,
                };
            }
            RuntimeView::Created { attempt } if intact && self.is_mine(attempt, fresh) => {
                self.catch_up(attempt);
                self.phase = Phase::Created;
            }
            _ => self.resume_without_process(now),
        }
    }

    /// Is what the runtime has the present attempt or a later one? A record just made after the disk
    /// was lost counts from after the attempt that the manager has seen; that one may still run.
    const fn is_mine(&self, attempt: u32, fresh: bool) -> bool {
        attempt >= self.attempt || (fresh && attempt.saturating_add(1) == self.attempt)
    }

    /// The record is not of the attempt that the runtime has: go on from there.
    fn catch_up(&mut self, attempt: u32) {
        if attempt != self.attempt {
            self.attempt = attempt;
            self.state = ActualState::Starting;
            self.health = crate::health::HealthState::default();
        }
    }

    /// The runtime has no process of the present attempt.
    fn resume_without_process(&mut self, now: Timestamp) {
        let vanished = |started_at, cause| Phase::Exited {
            started_at: Some(started_at),
            exit: None,
            at: now,
            cause,
        };
        self.phase = match self.phase.clone() {
            Phase::Running { started_at, .. } => vanished(started_at, None),
            Phase::Stopping {
                started_at, cause, ..
            } => vanished(started_at, Some(cause)),
            Phase::Preparing { .. }
            | Phase::New
            | Phase::Prepared
            | Phase::Creating
            | Phase::Created
            | Phase::Starting => self.first_phase(),
            other => other,
        };
    }
}
