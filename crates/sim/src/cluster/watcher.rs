//! Watchers: a picture of the state, then every change.

use super::bugs::SimBugs;
use super::faults::Kind;
use super::net::Endpoint;
use super::stage::{PREFIX, Stage, items, text};
use crate::history::{Action, Event, HistoryOp, Outcome};
use futures::FutureExt;
use std::sync::Arc;
use tokio::time::sleep_until;
use warren_raft::Subscription;
use warren_state::{Change, ChangeSet};
use warren_storage::Rng;
use warren_types::Config;

/// A watcher.
pub(super) struct Watcher {
    pub(super) number: u64,
    pub(super) rng: Rng,
    pub(super) stage: Arc<Stage>,
    pub(super) bugs: SimBugs,
}

/// What one watch has shown.
struct Watch {
    invoked: u64,
    from: u64,
    items: Vec<crate::history::Item>,
    events: Vec<Event>,
    until: u64,
}

impl Watcher {
    /// Watches one manager after the other until it is over.
    pub(super) async fn run(mut self) {
        while !self.stage.is_over() {
            let pause = self.rng.below(80);
            self.pause(pause).await;
            let managers = self.stage.managers();
            let at = usize::try_from(self.rng.below(managers.len() as u64)).unwrap_or(0);
            let node = managers.get(at).copied();
            if let Some(endpoint) = node.and_then(|node| self.stage.net.endpoint(node)) {
                self.watch(&endpoint).await;
            }
        }
    }

    async fn pause(&self, ms: u64) {
        sleep_until(self.stage.at(self.stage.elapsed_ms() + 1 + ms)).await;
    }

    async fn watch(&mut self, endpoint: &Endpoint) {
        let invoked = self.stage.stamp();
        let mut changes = endpoint.raft.subscribe();
        if self.bugs.watch_picture_too_new {
            self.pause(30).await;
        }
        let picture = if self.bugs.watch_picture_too_new {
            endpoint.raft.state()
        } else {
            Arc::clone(changes.snapshot())
        };
        let from = changes.snapshot().revision().0;
        let mut watch = Watch {
            invoked,
            from,
            items: items(&picture),
            events: Vec::new(),
            until: from,
        };
        for _ in 0..5 + self.rng.below(120) {
            let pause = 4 + self.rng.below(30);
            self.pause(pause).await;
            if !self.drain(endpoint, &mut changes, &mut watch) || self.stage.is_over() {
                break;
            }
        }
        self.stage.record(HistoryOp {
            client: format!("w{}", self.number),
            session: String::new(),
            invoked: watch.invoked,
            completed: Some(self.stage.stamp()),
            action: Action::Watch {
                prefix: PREFIX.to_owned(),
            },
            outcome: Outcome::Watched {
                from: watch.from,
                items: watch.items,
                events: watch.events,
                until: watch.until,
            },
        });
    }

    /// Takes what there is; false when the watch has ended.
    fn drain(&self, endpoint: &Endpoint, changes: &mut Subscription, watch: &mut Watch) -> bool {
        loop {
            match changes.next().now_or_never() {
                Some(Some(Ok(set))) => add(watch, &set),
                Some(Some(Err(_))) => {
                    self.stage.probe.count(Kind::WatchLagged);
                    if self.bugs.watch_skips_when_lagged {
                        *changes = endpoint.raft.subscribe();
                        continue;
                    }
                    return false;
                }
                // The engine is gone.
                Some(None) => return false,
                None => return !endpoint.gate.is_dead(),
            }
        }
    }
}

fn add(watch: &mut Watch, set: &ChangeSet) {
    watch.until = set.revision.0;
    for change in &set.changes {
        if let Change::Config(delta) = change
            && let Some(config) = delta.latest()
            && config.name.starts_with(PREFIX)
        {
            let config: &Config = config;
            let gone = delta.after.is_none();
            watch.events.push(Event {
                revision: set.revision.0,
                name: config.name.clone(),
                value: (!gone).then(|| text(&config.data)),
            });
        }
    }
}
