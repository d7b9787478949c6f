//! Streams made of the change feed.

use super::Control;
use futures::{Stream, StreamExt, stream};
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::sync::watch;
use warren_api::{ApiError, ApiResult, ApiStream, EventQuery};
use warren_raft::RaftHandle;
use warren_state::ChangeSet;
use warren_types::{Event, Revision};

struct Follow {
    raft: RaftHandle,
    revisions: watch::Receiver<Revision>,
    at: Revision,
    waiting: VecDeque<Arc<ChangeSet>>,
    over: bool,
}

/// Every change set after `from`, each exactly once; ends with an error when the reader is too slow.
pub(super) fn follow(
    raft: RaftHandle,
    from: Revision,
) -> impl Stream<Item = ApiResult<Arc<ChangeSet>>> + Send {
    let revisions = raft.changes();
    let start = Follow {
        raft,
        revisions,
        at: from,
        waiting: VecDeque::new(),
        over: false,
    };
    stream::unfold(start, |mut follow| async move {
        if follow.over {
            return None;
        }
        let next = follow.next().await?;
        follow.over = next.is_err();
        Some((next, follow))
    })
}

impl Follow {
    async fn next(&mut self) -> Option<ApiResult<Arc<ChangeSet>>> {
        loop {
            if let Some(set) = self.waiting.pop_front() {
                self.at = set.revision;
                return Some(Ok(set));
            }
            self.revisions.mark_unchanged();
            match self.raft.changes_since(self.at) {
                Ok(sets) if sets.is_empty() => self.revisions.changed().await.ok()?,
                Ok(sets) => self.waiting = sets.into(),
                Err(lagged) => {
                    let what = lagged.to_string();
                    return Some(Err(ApiError::unavailable(
                        what,
                        "start the watch again: it begins with the present state",
                    )));
                }
            }
        }
    }
}

/// Events: the kept ones after a revision, then new ones.
pub(super) fn events(control: &Control, query: EventQuery) -> ApiResult<ApiStream<Event>> {
    let from = query.since.unwrap_or_else(|| control.state().revision());
    let wanted = move |event: &Event| query.kinds.is_empty() || query.kinds.contains(&event.kind);
    if query.follow {
        let sets = follow(control.raft.clone(), from);
        let events = sets.flat_map(move |set| {
            let events = match set {
                Ok(set) => warren_state::events(&set)
                    .into_iter()
                    .filter(|e| wanted(e))
                    .map(Ok)
                    .collect(),
                Err(error) => vec![Err(error)],
            };
            stream::iter(events)
        });
        return Ok(events.boxed());
    }
    let sets = control.raft.changes_since(from).map_err(|lagged| {
        ApiError::precondition(
            lagged.to_string(),
            "ask for a later revision; `warren cluster info` shows the present one",
        )
    })?;
    let events: Vec<_> = sets
        .iter()
        .flat_map(|set| warren_state::events(set))
        .filter(|e| wanted(e))
        .map(Ok)
        .collect();
    Ok(stream::iter(events).boxed())
}
