//! How fast join tokens may be tried: 100,000 bad joins must cost the leader nothing that others would notice.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use warren_api::{ApiError, ApiResult};

/// Refused tokens per window before further ones are turned away unread.
const REFUSED_PER_WINDOW_MAX: u32 = 50;
/// The window.
const WINDOW: Duration = Duration::from_secs(1);

/// Counts refused tokens.
#[derive(Debug, Default)]
pub(crate) struct JoinGate(Mutex<Option<Window>>);

#[derive(Debug, Clone, Copy)]
struct Window {
    begun: Instant,
    refused: u32,
    turned_away: u64,
}

impl JoinGate {
    /// Lets a join through, or turns it away unread when too many were refused just now.
    pub(super) fn enter(&self) -> ApiResult<()> {
        let mut window = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(now) = window.as_mut() else {
            return Ok(());
        };
        if now.begun.elapsed() >= WINDOW {
            report(*now);
            *window = None;
            return Ok(());
        }
        if now.refused < REFUSED_PER_WINDOW_MAX {
            return Ok(());
        }
        now.turned_away += 1;
        Err(ApiError::Exhausted {
            what: format!(
                "more than {REFUSED_PER_WINDOW_MAX} joins were refused within {} s",
                WINDOW.as_secs()
            ),
            remedy: "try again in a moment".to_owned(),
        })
    }

    /// A token was refused.
    pub(super) fn refused(&self) {
        let mut window = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = window.get_or_insert(Window {
            begun: Instant::now(),
            refused: 0,
            turned_away: 0,
        });
        now.refused += 1;
    }
}

fn report(window: Window) {
    tracing::warn!(
        refused = window.refused,
        turned_away = window.turned_away,
        "joins with bad tokens"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_joins_are_turned_away_after_the_limit() {
        let gate = JoinGate::default();
        for _ in 0..REFUSED_PER_WINDOW_MAX {
            gate.enter().unwrap();
            gate.refused();
        }
        assert!(matches!(gate.enter(), Err(ApiError::Exhausted { .. })));
    }
}
