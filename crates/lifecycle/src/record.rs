//! What the node remembers of one container.

use crate::health::HealthState;
use crate::restart::RestartState;
use crate::text;
use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;
use warren_types::limits::REASON_BYTES_MAX;
use warren_types::{ActualState, ContainerId, ContainerStatus, Duration, ExitInfo, Timestamp};

/// How far a container is on this node. The phases named with `-ing` have an action under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Phase {
    /// Nothing of it is on the node.
    New,
    /// Image, volumes, network and root file system are being made.
    Preparing {
        /// The preparation was told to end.
        cancelled: bool,
    },
    /// All is there but the container itself.
    Prepared,
    /// The runtime makes it.
    Creating,
    /// The runtime has it; its process waits.
    Created,
    /// The runtime starts it.
    Starting,
    /// Its process runs.
    Running {
        /// Process id on the node.
        pid: u32,
        /// When it started.
        started_at: Timestamp,
    },
    /// It was told to end.
    Stopping {
        /// Process id on the node.
        pid: u32,
        /// When it started.
        started_at: Timestamp,
        /// Why.
        cause: StopCause,
        /// When it is killed (again).
        kill_at: Timestamp,
        /// How often it was killed.
        kills: u32,
    },
    /// Its process has ended; what follows is not decided yet.
    Exited {
        /// When it had started, if that is known.
        started_at: Option<Timestamp>,
        /// How it ended; `None` when it vanished (the machine restarted).
        exit: Option<ExitInfo>,
        /// When it ended or was missed.
        at: Timestamp,
        /// Why it was told to end, if it was.
        cause: Option<StopCause>,
    },
    /// It waits for its next try.
    Waiting {
        /// Until when.
        until: Timestamp,
    },
    /// It has ended for good.
    Ended {
        /// How far its remains are removed.
        cleanup: Cleanup,
    },
    /// Its logs are being removed: no assignment names it any more.
    Forgetting,
    /// Nothing of it is left; the record can go.
    Gone,
}

/// Why a running container was told to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StopCause {
    /// The cluster wants it to end.
    Retired,
    /// Its startup or liveness check fails.
    Unhealthy,
}

/// How far the remains of an ended container are removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Cleanup {
    /// Not yet begun.
    Needed,
    /// Under way.
    Running,
    /// It failed; again at this time.
    RetryAt(Timestamp),
    /// Done; only the logs are left.
    Done,
}

/// The node's record of one container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Local {
    /// The container.
    pub id: ContainerId,
    /// Number of the present attempt, from 1. Each start of the process is an attempt of its own.
    pub attempt: u32,
    /// How far it is.
    pub phase: Phase,
    /// State as reported. Within an attempt it only rises.
    pub state: ActualState,
    /// Why it is there, in words.
    pub reason: String,
    /// Something of it may be on the node: it must be cleaned up before the record goes.
    pub dirty: bool,
    /// Root file system, volumes and network are there, so that a new attempt needs no preparation.
    pub prepared: bool,
    /// Grace time of the last assignment seen, for when it is gone from the set.
    pub stop_grace: Option<Duration>,
    /// Its address, once it has one.
    pub address: Option<Ipv4Addr>,
    /// How the last ended attempt ended.
    pub last_exit: Option<ExitInfo>,
    /// When the last ended attempt ended.
    pub finished_at: Option<Timestamp>,
    /// Restarts so far.
    pub restarts: RestartState,
    /// Failed tries of the present step in a row.
    pub tries: u32,
    /// Results of the health checks in this attempt.
    pub health: HealthState,
    /// The last reported status; `None` when the worker should report again.
    pub reported: Option<ContainerStatus>,
}

impl Local {
    /// The record of a container that is new on this node. `attempt_floor` is the highest attempt
    /// that the manager has seen.
    #[must_use]
    pub fn new(id: ContainerId, attempt_floor: u32) -> Self {
        Self {
            id,
            attempt: attempt_floor.saturating_add(1),
            phase: Phase::New,
            state: ActualState::Assigned,
            reason: "waiting for its turn on the node".to_owned(),
            dirty: false,
            prepared: false,
            stop_grace: None,
            address: None,
            last_exit: None,
            finished_at: None,
            restarts: RestartState::default(),
            tries: 0,
            health: HealthState::default(),
            reported: None,
        }
    }

    /// Makes the next step report the status again (a new session with a manager began).
    pub fn report_again(&mut self) {
        self.reported = None;
    }

    /// Sets state and reason; a state never goes back within an attempt.
    pub(crate) fn set(&mut self, state: ActualState, reason: impl AsRef<str>) {
        self.state = self.state.max(state);
        self.reason = text::cut(reason.as_ref(), REASON_BYTES_MAX);
    }

    /// Where the next try of this attempt begins.
    pub(crate) const fn first_phase(&self) -> Phase {
        if self.prepared {
            Phase::Prepared
        } else {
            Phase::New
        }
    }

    /// Begins the next attempt in this state.
    pub(crate) fn next_attempt(&mut self, state: ActualState, reason: impl AsRef<str>) {
        self.attempt = self.attempt.saturating_add(1);
        self.state = state;
        self.reason = text::cut(reason.as_ref(), REASON_BYTES_MAX);
        self.tries = 0;
        self.health = HealthState::default();
    }

    /// The container has ended for good.
    pub(crate) fn end(&mut self, state: ActualState, reason: impl AsRef<str>, cleanup: Cleanup) {
        self.set(state, reason);
        self.phase = Phase::Ended { cleanup };
    }
}
