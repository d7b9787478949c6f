//! The container life cycle as a table: from, to, who may make the step.
//!
//! A state is a Lamport clock: of two observations of the same attempt the greater is right, and no
//! step goes backwards (R10). Restarts on the node begin a new *attempt*, which is the higher digit
//! of that clock. Each step has exactly one owner; the state machine refuses any other.

use crate::container::ActualState::{self, *};
use std::fmt;

/// Who makes a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Owner {
    /// Places pending containers.
    Scheduler,
    /// Makes and retires container records, gives up on lost nodes.
    Reconciler,
    /// Reports what happens on the node.
    Worker,
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Scheduler => "scheduler",
            Self::Reconciler => "reconciler",
            Self::Worker => "worker",
        })
    }
}

/// One allowed step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transition {
    /// State before.
    pub from: ActualState,
    /// State after.
    pub to: ActualState,
    /// The only one who may make it.
    pub owner: Owner,
}

const fn step(from: ActualState, to: ActualState, owner: Owner) -> Transition {
    Transition { from, to, owner }
}

/// Every allowed step. Steps that skip states are the worker's right: statuses are merged in
/// batches, so a fast container may be first heard of when it is running or has ended.
pub const TRANSITIONS: &[Transition] = &[
    step(Pending, Assigned, Owner::Scheduler),
    step(Pending, Shutdown, Owner::Reconciler),
    step(Assigned, Preparing, Owner::Worker),
    step(Assigned, Starting, Owner::Worker),
    step(Assigned, Running, Owner::Worker),
    step(Assigned, Stopping, Owner::Worker),
    step(Assigned, Complete, Owner::Worker),
    step(Assigned, Shutdown, Owner::Worker),
    step(Assigned, Failed, Owner::Worker),
    step(Assigned, Rejected, Owner::Worker),
    step(Assigned, Lost, Owner::Reconciler),
    step(Preparing, Starting, Owner::Worker),
    step(Preparing, Running, Owner::Worker),
    step(Preparing, Stopping, Owner::Worker),
    step(Preparing, Complete, Owner::Worker),
    step(Preparing, Shutdown, Owner::Worker),
    step(Preparing, Failed, Owner::Worker),
    step(Preparing, Rejected, Owner::Worker),
    step(Preparing, Lost, Owner::Reconciler),
    step(Starting, Running, Owner::Worker),
    step(Starting, Draining, Owner::Worker),
    step(Starting, Stopping, Owner::Worker),
    step(Starting, Complete, Owner::Worker),
    step(Starting, Shutdown, Owner::Worker),
    step(Starting, Failed, Owner::Worker),
    step(Starting, Rejected, Owner::Worker),
    step(Starting, Lost, Owner::Reconciler),
    step(Running, Draining, Owner::Worker),
    step(Running, Stopping, Owner::Worker),
    step(Running, Complete, Owner::Worker),
    step(Running, Shutdown, Owner::Worker),
    step(Running, Failed, Owner::Worker),
    step(Running, Lost, Owner::Reconciler),
    step(Draining, Stopping, Owner::Worker),
    step(Draining, Complete, Owner::Worker),
    step(Draining, Shutdown, Owner::Worker),
    step(Draining, Failed, Owner::Worker),
    step(Draining, Lost, Owner::Reconciler),
    step(Stopping, Complete, Owner::Worker),
    step(Stopping, Shutdown, Owner::Worker),
    step(Stopping, Failed, Owner::Worker),
    step(Stopping, Lost, Owner::Reconciler),
];

/// A step that the table does not allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a container cannot go from {from} (attempt {from_attempt}) to {to} (attempt {to_attempt}) by the {owner}"
)]
pub struct TransitionError {
    /// State before.
    pub from: ActualState,
    /// Attempt before.
    pub from_attempt: u32,
    /// Wanted state.
    pub to: ActualState,
    /// Wanted attempt.
    pub to_attempt: u32,
    /// Who asked.
    pub owner: Owner,
}

/// May `owner` take a container from (`from`, `from_attempt`) to (`to`, `to_attempt`)?
///
/// Staying in the same state and attempt is always allowed to the worker (details may change).
/// A higher attempt is the worker's, from any state it owns that is not final, to any state a
/// worker reports.
///
/// # Errors
/// [`TransitionError`] when the table has no such step for this owner.
pub fn check(
    from: ActualState,
    from_attempt: u32,
    to: ActualState,
    to_attempt: u32,
    owner: Owner,
) -> Result<(), TransitionError> {
    let allowed = if to_attempt == from_attempt {
        (from == to && owner == Owner::Worker && from != Pending)
            || TRANSITIONS
                .iter()
                .any(|t| t.from == from && t.to == to && t.owner == owner)
    } else {
        to_attempt > from_attempt
            && owner == Owner::Worker
            && !from.is_final()
            && from != Pending
            && !matches!(to, Pending | Assigned | Lost)
    };
    if allowed {
        Ok(())
    } else {
        Err(TransitionError {
            from,
            from_attempt,
            to,
            to_attempt,
            owner,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// R10: one owner a step, never backwards, nothing out of a final state.
    #[test]
    fn table_has_one_owner_a_step_and_never_goes_back() {
        let mut seen = BTreeMap::new();
        for t in TRANSITIONS {
            assert!(t.from < t.to, "{:?} goes backwards", t);
            assert!(!t.from.is_final(), "{:?} leaves a final state", t);
            assert!(
                seen.insert((t.from, t.to), t.owner).is_none(),
                "{:?} stands twice",
                t
            );
        }
    }

    #[test]
    fn every_state_can_end() {
        for state in ActualState::ALL {
            let ends = state.is_final()
                || TRANSITIONS
                    .iter()
                    .any(|t| t.from == state && t.to.is_final());
            assert!(ends, "{state} has no way to end");
        }
    }

    #[test]
    fn a_new_attempt_is_the_workers() {
        assert!(check(Running, 1, Starting, 2, Owner::Worker).is_ok());
        assert!(check(Running, 2, Running, 1, Owner::Worker).is_err());
        assert!(check(Failed, 1, Running, 2, Owner::Worker).is_err());
        assert!(check(Running, 1, Starting, 2, Owner::Scheduler).is_err());
    }
}
