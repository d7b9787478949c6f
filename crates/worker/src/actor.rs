//! One task per container: ask `lifecycle` for the next step, carry it out, tell it what came of it.

use crate::actions;
use crate::edge;
use crate::net::Part;
use crate::shared::Shared;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, mpsc};
use tokio::task::{AbortHandle, JoinSet};
use warren_lifecycle::{Action, Local, Observation, Phase, step};
use warren_netplan::serves;
use warren_types::{ContainerId, ContainerStatus};

/// Observations that wait for a container's task, in messages.
const OBSERVATIONS_WAITING_MAX: usize = 64;
/// Longest wait for the network to serve a container before it is reported as running.
const SETTLE_LIMIT: Duration = Duration::from_secs(2);

/// The tasks of all containers.
#[derive(Default)]
pub(crate) struct Actors {
    all: Mutex<BTreeMap<ContainerId, Handle>>,
}

struct Handle {
    wake: Arc<Notify>,
    observe: mpsc::Sender<Observation>,
    task: AbortHandle,
}

impl Actors {
    /// Ids of all containers that have a task.
    pub(crate) fn ids(&self) -> Vec<ContainerId> {
        self.lock().keys().copied().collect()
    }

    /// Wakes the task of a container, starting one when there is none.
    pub(crate) fn wake_or_begin(&self, shared: &Arc<Shared>, id: ContainerId) {
        let mut all = self.lock();
        if let Some(handle) = all.get(&id) {
            handle.wake.notify_one();
            return;
        }
        let Some(assignment) = shared.assignment(id) else {
            return;
        };
        let local = Local::new(id, assignment.attempt_floor);
        all.insert(id, begin(shared, local));
    }

    /// Starts the task of a container with what is known of it.
    pub(crate) fn begin(&self, shared: &Arc<Shared>, local: Local) {
        let id = local.id;
        self.lock().insert(id, begin(shared, local));
    }

    /// Tells a container's task something; nobody's container has nobody to tell.
    pub(crate) async fn observe(&self, id: ContainerId, observation: Observation) {
        let sender = self.lock().get(&id).map(|h| h.observe.clone());
        if let Some(sender) = sender {
            // A task that has ended needs no news.
            let _ = sender.send(observation).await;
        }
    }

    /// Stops all tasks; the containers stay as they are.
    pub(crate) fn stop(&self) {
        for handle in std::mem::take(&mut *self.lock()).into_values() {
            handle.task.abort();
        }
    }

    fn remove(&self, id: ContainerId) {
        self.lock().remove(&id);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<ContainerId, Handle>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn begin(shared: &Arc<Shared>, local: Local) -> Handle {
    let wake = Arc::new(Notify::new());
    let (observe, observations) = mpsc::channel(OBSERVATIONS_WAITING_MAX);
    let actor = Actor {
        shared: shared.clone(),
        kept: Some(essence(&local)),
        local,
        observe: observe.clone(),
        wake: wake.clone(),
        running: JoinSet::new(),
        prepare: None,
    };
    let task = tokio::spawn(actor.run(observations));
    Handle {
        wake,
        observe,
        task: task.abort_handle(),
    }
}

/// What of a record is worth a write: health results and the last report are worked out anew.
fn essence(local: &Local) -> Local {
    let mut essence = local.clone();
    essence.health = Default::default();
    essence.reported = None;
    essence
}

struct Actor {
    shared: Arc<Shared>,
    local: Local,
    kept: Option<Local>,
    observe: mpsc::Sender<Observation>,
    wake: Arc<Notify>,
    running: JoinSet<()>,
    prepare: Option<AbortHandle>,
}

impl Actor {
    async fn run(mut self, mut observations: mpsc::Receiver<Observation>) {
        loop {
            let now = edge::now();
            let desired = self.shared.assignment(self.local.id);
            let next = step(desired.as_ref(), &self.local, now);
            self.local = next.local;
            self.keep().await;
            if let Some(status) = next.status {
                self.report(desired.as_ref(), status).await;
            }
            if next.gone {
                return self.end(desired.is_some()).await;
            }
            if let Some(action) = next.action {
                self.carry_out(action, desired);
                continue;
            }
            let wait = next.wake_at.map(|at| at.since(edge::now()).to_std());
            tokio::select! {
                observation = observations.recv() => {
                    let Some(observation) = observation else { return };
                    self.local.observe(observation, edge::now());
                }
                () = self.wake.notified() => {}
                () = sleep(wait) => {}
                Some(_) = self.running.join_next() => {}
            }
        }
    }

    /// The record is on disk before the action that it speaks of begins.
    async fn keep(&mut self) {
        let essence = essence(&self.local);
        if self.kept.as_ref() != Some(&essence) {
            self.shared.keep.record(essence.clone()).await;
            self.kept = Some(essence);
        }
    }

    /// The network learns first: a container that is reported as running can be reached, and one that
    /// is stopping gets no new connections.
    async fn report(
        &self,
        desired: Option<&warren_lifecycle::Assignment>,
        status: ContainerStatus,
    ) {
        let part = desired
            .zip(status.address)
            .filter(|_| !status.state.is_final())
            .map(|(a, address)| Part {
                service: a.service,
                address,
                serving: serves(&status),
                ports: a.ports.clone(),
            });
        let serving = part
            .as_ref()
            .is_some_and(|p| p.serving && p.ports.iter().any(|m| m.host_port != 0));
        self.shared.network.set_part(self.local.id, part);
        if serving {
            self.shared.network.settled(SETTLE_LIMIT).await;
        }
        self.shared.outbox.put(self.local.id, status);
    }

    fn carry_out(&mut self, action: Action, desired: Option<warren_lifecycle::Assignment>) {
        let (shared, id, observe) = (self.shared.clone(), self.local.id, self.observe.clone());
        let work = actions::Work {
            shared,
            id,
            local: self.local.clone(),
            desired,
        };
        match action {
            Action::Cancel => {
                if let Some(prepare) = self.prepare.take() {
                    prepare.abort();
                }
                // What the preparation had made until now is removed by the cleanup.
                self.local.observe(Observation::Cancelled, edge::now());
            }
            Action::Prepare => {
                let task = self.running.spawn(async move {
                    let observation = work.prepare().await;
                    let _ = observe.send(observation).await;
                });
                self.prepare = Some(task);
            }
            other => {
                self.running.spawn(async move {
                    if let Some(observation) = work.run(other).await {
                        // The task of the container may have ended meanwhile; then nobody asks.
                        let _ = observe.send(observation).await;
                    }
                });
            }
        }
    }

    /// Nothing of the container is left on the node.
    async fn end(self, assigned_again: bool) {
        let id = self.local.id;
        self.shared.network.set_part(id, None);
        self.shared.keep.forget(id).await;
        self.shared.outbox.forget(id);
        self.shared.actors.remove(id);
        if assigned_again {
            self.shared.actors.wake_or_begin(&self.shared, id);
        }
    }
}

async fn sleep(wait: Option<Duration>) {
    match wait {
        Some(wait) => tokio::time::sleep(wait).await,
        None => std::future::pending().await,
    }
}

/// Is a record worth keeping when the node starts?
pub(crate) fn is_live(local: &Local) -> bool {
    local.phase != Phase::Gone
}
