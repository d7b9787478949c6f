//! Waiting for the cluster with progress.

use crate::error::{CliError, Result};
use crate::io::Io;
use tokio::time::{Duration, Instant, sleep_until};

/// Time between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// A wait with an end.
pub(crate) struct Waiting {
    deadline: Instant,
    timeout: warren_types::Duration,
    shown: String,
}

impl Waiting {
    pub(crate) fn new(timeout: warren_types::Duration) -> Self {
        Self {
            deadline: Instant::now() + timeout.to_std(),
            timeout,
            shown: String::new(),
        }
    }

    /// Shows how far it is, when that has changed, and waits until it is time to look again.
    ///
    /// # Errors
    /// When the time is over: then the error says what it stood at.
    pub(crate) async fn look_again(&mut self, line: String, io: &mut Io) -> Result<()> {
        if line != self.shown {
            io.progress(&line)?;
            self.shown = line;
        }
        if Instant::now() >= self.deadline {
            io.clear()?;
            return Err(CliError::general(format!(
                "not done within {}: {}",
                self.timeout, self.shown
            )));
        }
        sleep_until((Instant::now() + LOOK_EVERY).min(self.deadline)).await;
        Ok(())
    }
}
