//! Containers that their node gave up: which are replaced, and when.

use crate::view::{Place, View};
use warren_types::{ActualState, Duration, RestartCondition, ServiceSpec, Timestamp};

/// First wait before a failed container is replaced; doubles with each one that fails soon again.
pub const REPLACE_FIRST: Duration = Duration(1_000);
/// Longest wait before a failed container is replaced.
pub const REPLACE_MAX: Duration = Duration(60_000);
/// A container that lived this long failed for a new reason: waits begin from the first again.
pub const STABLE_AFTER: Duration = Duration(60_000);

/// Clocks of managers may differ by so much before their times are distrusted.
pub const CLOCK_SKEW: Duration = Duration(60_000);

/// Whether the moment `at`, the end of a wait, has come. One that lies further ahead than the whole wait was written by a
/// manager whose clock was far ahead: nobody waits for that.
pub(crate) fn reached(now: Timestamp, at: Timestamp, wait: Duration) -> bool {
    at <= now || at.since(now).0 > wait.0.saturating_add(CLOCK_SKEW.0)
}

/// What becomes of an ended container that was not retired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Its policy says that it is done.
    Done,
    /// It is replaced at this time.
    ReplaceAt(Timestamp),
}

/// Decides about the newest container of a place, which has ended and was not retired.
pub(crate) fn verdict(place: &Place, ended: &View, spec: Option<&ServiceSpec>) -> Verdict {
    let condition = spec.map_or(RestartCondition::Any, |s| s.container.restart.condition);
    let at_once = Verdict::ReplaceAt(ended.ended_at());
    match (ended.state, condition) {
        (ActualState::Complete, RestartCondition::OnFailure) => Verdict::Done,
        // "Never" means that it is run at most once; one that was rejected has not run.
        (ActualState::Rejected, RestartCondition::None) => delayed(place, ended),
        (_, RestartCondition::None) => Verdict::Done,
        // Not its own fault.
        (ActualState::Lost | ActualState::Shutdown, _) => at_once,
        _ => delayed(place, ended),
    }
}

/// The wait doubles the one before it, which is the time between the end of the predecessor and the
/// making of this container; so nothing needs to be counted, and reaping the history does no harm.
fn delayed(place: &Place, ended: &View) -> Verdict {
    let made = ended.container.created_at;
    let end = ended.ended_at();
    let predecessor = place
        .views
        .iter()
        .rev()
        .find(|v| !v.live() && v.container.id < ended.container.id)
        .filter(|v| {
            matches!(
                v.state,
                ActualState::Failed | ActualState::Rejected | ActualState::Complete
            )
        });
    let wait = match predecessor {
        Some(last) if end.since(made) < STABLE_AFTER => {
            Duration(made.since(last.ended_at()).0.saturating_mul(2))
        }
        _ => REPLACE_FIRST,
    };
    Verdict::ReplaceAt(end.plus(wait.clamp(REPLACE_FIRST, REPLACE_MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_from_a_clock_that_was_ahead_is_not_waited_for() {
        let (now, wait) = (Timestamp(1_000_000), Duration(5_000));
        assert!(reached(now, now, wait));
        assert!(!reached(now, now.plus(Duration(1)), wait));
        assert!(!reached(now, now.plus(wait).plus(CLOCK_SKEW), wait));
        assert!(reached(now, now.plus(Duration(90_000_000)), wait));
    }
}
