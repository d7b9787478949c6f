//! Keeps a crowd of strangers from flooding the log.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Length of a window.
const WINDOW: Duration = Duration::from_secs(1);
/// Records in a window.
const RECORDS_MAX: u32 = 20;

/// Lets so many records through in a second, and counts the others.
pub(crate) struct Throttle {
    state: Mutex<State>,
}

struct State {
    began: Option<Instant>,
    records: u32,
    suppressed: u64,
}

impl Throttle {
    pub(crate) const fn new() -> Self {
        Self {
            state: Mutex::new(State {
                began: None,
                records: 0,
                suppressed: 0,
            }),
        }
    }

    /// May a record be written now? `Some` says how many were not, since the last one that was.
    pub(crate) fn admit(&self) -> Option<u64> {
        self.admit_at(Instant::now())
    }

    fn admit_at(&self, now: Instant) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.began.is_none_or(|began| now - began >= WINDOW) {
            state.began = Some(now);
            state.records = 0;
        }
        if state.records >= RECORDS_MAX {
            state.suppressed += 1;
            return None;
        }
        state.records += 1;
        Some(std::mem::take(&mut state.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crowd_leaves_a_few_records_and_their_number() {
        let throttle = Throttle::new();
        let start = Instant::now();
        let admitted = (0..1000).filter_map(|_| throttle.admit_at(start)).count();
        assert_eq!(admitted, RECORDS_MAX as usize);
        let later = start + WINDOW;
        assert_eq!(
            throttle.admit_at(later),
            Some(1000 - u64::from(RECORDS_MAX))
        );
        assert_eq!(throttle.admit_at(later), Some(0));
    }
}
