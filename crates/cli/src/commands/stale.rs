//! Answers of a manager outside the quorum.

use crate::api::{Api, StaleView};
use crate::error::Result;
use crate::io::Io;
use warren_types::Duration;

/// In words: who answered, how old the answer may be, what to do.
pub(crate) fn stale_text(stale: &StaleView, manager: &str) -> String {
    let who = if manager.is_empty() {
        "the manager that answered".to_owned()
    } else {
        format!("manager {manager}")
    };
    let since = match stale.for_ms {
        Some(ms) => format!("for {}", Duration(ms)),
        None => "since it was started".to_owned(),
    };
    format!(
        "this may be old: {who} has had no quorum {since}, and changes are refused there; \
         ask another with --manager HOST:PORT, or see `warren cluster health`"
    )
}

/// Warns when what was printed may be old.
pub(crate) async fn warn(api: &dyn Api, io: &mut Io) -> Result<()> {
    let Some(stale) = api.stale() else {
        return Ok(());
    };
    let manager = api.status().await.map(|s| s.node).unwrap_or_default();
    io.say(&format!("warning: {}", stale_text(&stale, &manager)))
}
