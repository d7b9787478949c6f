//! Faults have stopped: everything must come to rest, as it should be.

use super::manager::Manager;
use super::stage::{PREFIX, items};
use super::world::{Checked, World};
use crate::history::{Action, HistoryOp, Outcome, ReadKind, Summary, check};
use crate::run::unfinished;
use crate::workload::Workload;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{sleep, timeout};
use warren_types::{NodeId, Revision};

/// Time until everything is as it should be, in milliseconds: the longest wait before a failed container is replaced (60 s), as
/// much again when it was written by a manager whose clock was ahead (up to 60 s of that are not told from a longer
/// wait), and some for the rest.
const CALM_MS: u64 = 150_000;
/// Time between two looks.
const LOOK: Duration = Duration::from_millis(40);
/// How long nothing may change before it counts as rest, in milliseconds.
const REST_MS: u64 = 250;

impl World {
    pub(super) async fn calm(&mut self) -> Checked<()> {
        self.trace.add("faults stop".to_owned());
        let deadline = self.stage.elapsed_ms() + CALM_MS;
        self.stage.net.heal();
        self.stage.calm_down();
        self.stage.end();
        for manager in &mut self.managers {
            manager.heal();
            self.stage.set_clock(manager.node, 0);
        }
        let mut rest: Option<(u64, Revision)> = None;
        let mut well = false;
        loop {
            sleep(LOOK).await;
            self.tick().await?;
            let now = self.stage.elapsed_ms();
            let trouble = self.trouble(&mut well).await;
            if trouble.is_none() {
                let revision = self.stage.probe.reference().revision();
                match rest {
                    Some((since, at)) if at == revision && now >= since + REST_MS => break,
                    Some((_, at)) if at == revision => {}
                    _ => rest = Some((now, revision)),
                }
            } else {
                rest = None;
            }
            if now > deadline {
                let what = trouble.unwrap_or_else(|| "the planners never rest".to_owned());
                return Err(format!("without faults for {CALM_MS} ms, and {what}"));
            }
        }
        self.finish().await
    }

    /// How the managers stand, in words.
    fn standing(&self) -> String {
        let all: Vec<String> = self.managers.iter().map(Manager::standing).collect();
        all.join("; ")
    }

    /// Why things are not as they should be yet.
    async fn trouble(&mut self, well: &mut bool) -> Option<String> {
        if self.asking.iter().any(|client| !client.is_finished()) {
            return Some("a client still waits for an answer".to_owned());
        }
        let Some((_, leader)) = self.leader() else {
            return Some(format!("there is no leader: {}", self.standing()));
        };
        if !*well {
            let state = leader.raft.state();
            let mut workload = Workload::of_cluster(self.rng.fork(), 1 << 60);
            workload.set_time(self.stage.clock_ms(self.managers[0].node));
            if state.nodes().next().is_some() {
                let command = workload.all_well(&state);
                *well = leader
                    .gate
                    .wrap(leader.raft.propose(&command))
                    .await
                    .is_ok();
            }
            return Some("the nodes are not all ready".to_owned());
        }
        let (voters, learners) = leader.raft.members();
        let now = self.stage.elapsed_ms();
        for manager in &mut self.managers {
            let member = voters.contains_key(&manager.node) || learners.contains_key(&manager.node);
            if !member && manager.leaves_at.is_none() {
                // It never came in, or was removed without anybody hearing of it.
                manager.leaves_at = Some(now);
            }
        }
        let (last, hash) = self.stage.probe.end()?;
        for manager in self.managers.iter().filter(|m| m.leaves_at.is_none()) {
            let Some(process) = &manager.process else {
                return Some(format!("{} is not up", manager.name));
            };
            let applied = process.raft.status().applied_index;
            if applied != Some(last) {
                return Some(format!(
                    "{} has applied {applied:?} of {last}",
                    manager.name
                ));
            }
            if process.raft.state().hash() != hash {
                return Some(format!("{} has another state", manager.name));
            }
        }
        unfinished(&self.stage.probe.reference())
    }

    /// Everybody reads everything; then what was seen is checked.
    async fn finish(&mut self) -> Checked<()> {
        let here: Vec<NodeId> = self
            .managers
            .iter()
            .filter(|manager| manager.leaves_at.is_none())
            .map(|manager| manager.node)
            .collect();
        for node in here {
            let Some(endpoint) = self.stage.net.endpoint(node) else {
                continue;
            };
            let api = Arc::clone(&endpoint.api);
            let invoked = self.stage.stamp();
            let read = endpoint.gate.wrap(async move { api.read().await });
            let state = match timeout(Duration::from_secs(5), read).await {
                Ok(Ok(state)) => state,
                Ok(Err(error)) => return Err(format!("no read without faults: {error}")),
                Err(_) => return Err("no answer to a read without faults".to_owned()),
            };
            self.stage.record(HistoryOp {
                client: "director".to_owned(),
                session: String::new(),
                invoked,
                completed: Some(self.stage.stamp()),
                action: Action::List {
                    prefix: PREFIX.to_owned(),
                    read: ReadKind::Linearizable,
                },
                outcome: Outcome::Listed {
                    items: items(&state),
                },
            });
        }
        self.look()?;
        let now = self.stage.elapsed_ms();
        let hash = self.stage.probe.reference().hash();
        self.trace
            .add(format!("as it should be after {now} ms, state {hash:016x}"));
        Ok(())
    }

    /// What clients saw must be possible.
    pub(super) fn verdict(&self) -> Checked<Summary> {
        check(&self.stage.history()).map_err(|violation| violation.to_string())
    }
}
