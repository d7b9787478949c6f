//! What one node does with its containers: pure decisions, no clock, no IO.
//!
//! The worker keeps one [`Local`] record per container and drives it like this:
//!
//! 1. `let Step { local, action, status, wake_at, gone } = step(assignment, &local, now)`;
//! 2. store `local` (it says which action is under way), report `status` if there is one;
//! 3. carry out `action` if there is one, tell its outcome by [`Local::observe`], go to 1;
//! 4. without an action, sleep until `wake_at`, an event of the runtime or a new assignment.
//!
//! [`Action::RunProbe`] is the only action that runs beside others: start it and go on. Every other
//! action is under way alone; until its outcome is observed, [`step`] gives no further one (but
//! [`Action::Cancel`] for a preparation that is no longer wanted).
//!
//! After a crash or reboot the worker tells each record what the runtime has
//! ([`Observation::Recovered`]) and goes on: running containers are adopted with their start time,
//! interrupted steps are done again. Nothing here needs a manager: the last assignments suffice.

#![forbid(unsafe_code)]

mod assignment;
mod health;
mod observe;
mod record;
mod restart;
mod step;
mod text;

pub use assignment::{Assignment, AssignmentSet, SetChange, SetUpdate, StaleSet, diff};
pub use health::{
    CheckState, HealthState, PROBE_FAST_INTERVAL, PROBE_FAST_PERIOD, ProbeKind, ProbeResult,
};
pub use observe::{Observation, RuntimeView};
pub use record::{Cleanup, Local, Phase, StopCause};
pub use restart::{
    BACKOFF_FIRST, BACKOFF_MAX, RESTART_TIMES_KEPT, RestartState, STABLE_AFTER, backoff,
};
pub use step::{Action, KILL_AGAIN_AFTER, STOP_GRACE_DEFAULT, Step, step};
