//! When an ended container is started again.

use serde::{Deserialize, Serialize};
use warren_types::{Duration, RestartPolicy, Timestamp};

/// First wait before a restart or a repeated step.
pub const BACKOFF_FIRST: Duration = Duration(100);
/// Longest wait before a restart or a repeated step.
pub const BACKOFF_MAX: Duration = Duration(30_000);
/// A container that ran this long is taken as stable: its waits begin from the first again.
pub const STABLE_AFTER: Duration = Duration(60_000);
/// Times of restarts that are remembered for `window`; a larger `max_attempts` counts as this one.
pub const RESTART_TIMES_KEPT: usize = 1024;

/// The wait before try `number` (from 1) when the first one is `first`: doubles, up to
/// [`BACKOFF_MAX`] or `first`, whichever is longer.
#[must_use]
pub fn backoff(first: Duration, number: u32) -> Duration {
    let most = BACKOFF_MAX.max(first);
    let doublings = number.saturating_sub(1).min(32);
    Duration(first.0.saturating_mul(1 << doublings)).min(most)
}

/// How often a container was restarted, and when.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RestartState {
    /// Ends in a row without a stable run between.
    pub in_a_row: u32,
    /// Restarts since the container was made.
    pub total: u32,
    /// When the last restarts were decided; kept only for policies with a window.
    pub times: Vec<Timestamp>,
}

impl RestartState {
    /// The container ended at `at` after it ran for `ran`; what is the wait before the next start?
    /// `None` when the policy's attempts are used up. Whether the policy restarts at all is not
    /// asked here.
    pub fn next(
        &mut self,
        policy: &RestartPolicy,
        at: Timestamp,
        ran: Duration,
    ) -> Option<Duration> {
        if ran >= STABLE_AFTER {
            self.in_a_row = 0;
        }
        if self.used_up(policy, at) {
            return None;
        }
        self.in_a_row = self.in_a_row.saturating_add(1);
        self.total = self.total.saturating_add(1);
        if policy.window.is_some() && policy.max_attempts > 0 {
            self.times.push(at);
        }
        Some(backoff(
            policy.delay.unwrap_or(BACKOFF_FIRST),
            self.in_a_row,
        ))
    }

    fn used_up(&mut self, policy: &RestartPolicy, at: Timestamp) -> bool {
        if policy.max_attempts == 0 {
            return false;
        }
        let Some(window) = policy.window else {
            return self.total >= policy.max_attempts;
        };
        self.times.retain(|time| at.since(*time) < window);
        let limit = usize::try_from(policy.max_attempts).unwrap_or(usize::MAX);
        self.times.len() >= limit.min(RESTART_TIMES_KEPT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use warren_types::RestartCondition;

    fn policy(max_attempts: u32, window: Option<u64>) -> RestartPolicy {
        RestartPolicy {
            condition: RestartCondition::Any,
            max_attempts,
            delay: None,
            window: window.map(Duration),
        }
    }

    #[test]
    fn waits_double_to_thirty_seconds_and_begin_again_after_a_stable_run() {
        let mut state = RestartState::default();
        let mut waits = Vec::new();
        for _ in 0..11 {
            waits.push(
                state
                    .next(&policy(0, None), Timestamp(0), Duration(5))
                    .unwrap()
                    .0,
            );
        }
        assert_eq!(
            waits,
            [
                100, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 30_000, 30_000
            ]
        );
        assert_eq!(
            state
                .next(&policy(0, None), Timestamp(0), STABLE_AFTER)
                .unwrap()
                .0,
            100
        );
    }

    #[test]
    fn attempts_are_counted_in_the_window() {
        let mut state = RestartState::default();
        let limited = policy(2, Some(1000));
        assert!(state.next(&limited, Timestamp(0), Duration(0)).is_some());
        assert!(state.next(&limited, Timestamp(500), Duration(0)).is_some());
        assert!(state.next(&limited, Timestamp(900), Duration(0)).is_none());
        assert!(state.next(&limited, Timestamp(1000), Duration(0)).is_some());
        let mut state = RestartState::default();
        for _ in 0..2 {
            assert!(
                state
                    .next(&policy(2, None), Timestamp(0), STABLE_AFTER)
                    .is_some()
            );
        }
        assert!(
            state
                .next(&policy(2, None), Timestamp(1 << 40), STABLE_AFTER)
                .is_none()
        );
    }

    proptest! {
        #[test]
        fn waits_are_bounded(first in 0_u64..100_000, number in any::<u32>()) {
            let wait = backoff(Duration(first), number);
            prop_assert!(wait.0 >= first && wait.0 <= BACKOFF_MAX.0.max(first));
            prop_assert!(backoff(Duration(first), number.saturating_add(1)) >= wait);
        }

        /// Within any window there are at most `max_attempts` restarts; memory stays bounded.
        #[test]
        fn window_is_kept(max in 1_u32..5, window in 1_u64..2000, gaps in proptest::collection::vec(0_u64..500, 1..80)) {
            let mut state = RestartState::default();
            let (mut now, mut granted) = (0, Vec::new());
            for gap in gaps {
                now += gap;
                if state.next(&policy(max, Some(window)), Timestamp(now), Duration(0)).is_some() {
                    granted.push(now);
                }
                let recent = granted.iter().filter(|t| now - **t < window).count();
                prop_assert!(recent <= max as usize);
                prop_assert!(state.times.len() <= max as usize);
            }
        }
    }
}
