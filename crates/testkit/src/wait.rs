//! Waiting for conditions instead of sleeping.

use std::time::{Duration, Instant};

/// Longest wait of [`eventually`].
pub const PATIENCE: Duration = Duration::from_secs(30);
/// Time between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Looks until `look` answers, at most [`PATIENCE`].
///
/// # Panics
/// When it never does; the message holds `what` and the last refusal.
pub fn eventually<T>(what: &str, look: impl FnMut() -> Result<T, String>) -> T {
    eventually_within(PATIENCE, what, look)
}

/// Looks until `look` answers, at most `patience`.
///
/// # Panics
/// When it never does; the message holds `what` and the last refusal.
pub fn eventually_within<T>(
    patience: Duration,
    what: &str,
    mut look: impl FnMut() -> Result<T, String>,
) -> T {
    let begin = Instant::now();
    loop {
        match look() {
            Ok(found) => return found,
            Err(last) => assert!(
                begin.elapsed() < patience,
                "not within {patience:?}: {what}: {last}"
            ),
        }
        std::thread::sleep(LOOK_EVERY);
    }
}
