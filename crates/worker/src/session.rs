//! The session with a manager: dialled by the node, opened again whenever it ends. The node goes on
//! without one.

use crate::requests::Requests;
use crate::sets::id_bytes;
use crate::shared::{News, Shared};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;
use warren_client::{ErrorKind, SessionTransport};
use warren_proto::session::{
    Ack, Heartbeat, Hello, ManagerMessage, RunningContainer, Welcome, WorkerMessage,
    manager_message, worker_message,
};
use warren_proto::store;

/// First wait before a session is opened again; doubles up to [`REDIAL_MAX`], with jitter.
const REDIAL_MIN: Duration = Duration::from_millis(100);
/// Longest wait before a session is opened again.
const REDIAL_MAX: Duration = Duration::from_secs(5);
/// A session that lived this long makes the wait short again.
const REDIAL_RESET_AFTER: Duration = Duration::from_secs(10);
/// How long a manager may take to welcome the node.
const WELCOME_WITHIN: Duration = Duration::from_secs(10);
/// Time between two heartbeats until the manager says otherwise.
const HEARTBEAT_DEFAULT: Duration = Duration::from_secs(2);
/// Version of the session protocol.
const PROTOCOL: u32 = 1;

/// Keeps a session open until the task is dropped.
pub(crate) async fn run(shared: Arc<Shared>, transport: Arc<dyn SessionTransport>) {
    let mut wait = REDIAL_MIN;
    loop {
        let begun = Instant::now();
        let redialled = tokio::select! {
            () = once(&shared, transport.as_ref()) => false,
            () = shared.line.redial.notified() => true,
        };
        shared
            .line
            .news
            .send_if_modified(|news| std::mem::take(&mut news.connected));
        if redialled || begun.elapsed() >= REDIAL_RESET_AFTER {
            wait = REDIAL_MIN;
        }
        tokio::select! {
            () = tokio::time::sleep(jittered(wait)) => wait = (wait * 2).min(REDIAL_MAX),
            () = shared.line.redial.notified() => wait = REDIAL_MIN,
        }
    }
}

/// One session, from opening to end.
async fn once(shared: &Arc<Shared>, transport: &dyn SessionTransport) {
    match transport.open().await {
        Ok((outbound, inbound)) => {
            let session = Session { shared, outbound };
            let why = session.serve(inbound).await;
            tracing::info!(reason = why, "session with the manager ended");
        }
        Err(problem) if problem.kind == ErrorKind::Removed => {
            let first = shared
                .line
                .news
                .send_if_modified(|news| !std::mem::replace(&mut news.removed, true));
            if first {
                tracing::error!(%problem, "the cluster has removed this node");
            }
        }
        Err(problem) => tracing::debug!(%problem, "no manager in reach"),
    }
}

/// Between half and the whole of `wait`, so that many nodes do not dial at once.
fn jittered(wait: Duration) -> Duration {
    let share = u32::from(crate::edge::random::<1>()[0]);
    wait / 2 + wait / 2 * share / 255
}

struct Session<'a> {
    shared: &'a Arc<Shared>,
    outbound: mpsc::Sender<WorkerMessage>,
}

impl Session<'_> {
    async fn serve(&self, mut inbound: mpsc::Receiver<ManagerMessage>) -> String {
        if self
            .send(worker_message::Body::Hello(self.hello()))
            .await
            .is_err()
        {
            return "closed before the hello".to_owned();
        }
        let welcome = match tokio::time::timeout(WELCOME_WITHIN, inbound.recv()).await {
            Ok(Some(ManagerMessage {
                body: Some(manager_message::Body::Welcome(welcome)),
            })) => welcome,
            Ok(Some(ManagerMessage {
                body: Some(manager_message::Body::Refused(refused)),
            })) => {
                tracing::error!(reason = %refused.reason, "the manager refuses this node");
                return refused.reason;
            }
            _ => return "no welcome".to_owned(),
        };
        if let Err(problem) = self.welcomed(&welcome).await {
            return problem;
        }
        self.shared.outbox.all_again();
        self.exchange(inbound, heartbeat_of(&welcome)).await
    }

    async fn exchange(
        &self,
        mut inbound: mpsc::Receiver<ManagerMessage>,
        every: Duration,
    ) -> String {
        let requests = Requests::new(self.shared.clone(), self.outbound.clone());
        let mut beat = tokio::time::interval(every);
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut sequence = 0;
        loop {
            let sent = tokio::select! {
                got = inbound.recv() => match got.and_then(|m| m.body) {
                    Some(body) => self.take(body, &requests).await,
                    None => return "closed by the manager".to_owned(),
                },
                batch = self.shared.outbox.next() => {
                    let sent = self.send(worker_message::Body::Statuses(batch)).await;
                    sent.map_err(|()| "closed".to_owned())
                }
                _ = beat.tick() => {
                    sequence += 1;
                    let sent = self.send(worker_message::Body::Heartbeat(Heartbeat { sequence })).await;
                    sent.map_err(|()| "closed".to_owned())
                }
            };
            if let Err(reason) = sent {
                return reason;
            }
        }
    }

    async fn take(&self, body: manager_message::Body, requests: &Requests) -> Result<(), String> {
        match body {
            manager_message::Body::Assignments(message) => {
                match self.shared.take_assignments(&message).await {
                    Ok(revision) => {
                        let ack = worker_message::Body::Ack(Ack { revision });
                        self.send(ack).await.map_err(|()| "closed".to_owned())
                    }
                    Err(problem) => {
                        tracing::warn!(%problem, "assignments refused");
                        Err(problem.to_string())
                    }
                }
            }
            manager_message::Body::Request(request) => {
                requests.take(request).await;
                Ok(())
            }
            manager_message::Body::Refused(refused) => Err(refused.reason),
            manager_message::Body::Shutdown(shutdown) => Err(shutdown.reason),
            manager_message::Body::Welcome(_) => Err("a second welcome".to_owned()),
        }
    }

    async fn welcomed(&self, welcome: &Welcome) -> Result<(), String> {
        let node = welcome.node.as_ref().ok_or("the welcome names no node")?;
        // A manager without containers has none.
        if !node.subnet.is_empty() {
            self.shared
                .network
                .set_subnet(&node.subnet)
                .map_err(|e| e.to_string())?;
            self.shared
                .keep
                .set_subnet(&node.subnet)
                .map_err(|e| e.to_string())?;
        }
        tracing::info!(manager = %welcome.manager_name, subnet = %node.subnet, "session with the manager open");
        self.shared.line.news.send_replace(News {
            connected: true,
            manager: welcome.manager_name.clone(),
            role: role_of(node),
            removed: false,
        });
        Ok(())
    }

    fn hello(&self) -> Hello {
        let facts = &self.shared.facts;
        let running = self.shared.running_attempts();
        Hello {
            node_id: id_bytes(facts.node.0),
            name: facts.name.clone(),
            hostname: facts.hostname.clone(),
            platform: Some(store::Platform::from(&facts.platform)),
            resources: Some(store::NodeResources::from(&facts.resources)),
            version: facts.version.clone(),
            last_revision: self.shared.revision(),
            running: running
                .into_iter()
                .map(|(id, attempt)| RunningContainer {
                    container_id: id_bytes(id.0),
                    attempt,
                })
                .collect(),
            role: role(facts.role).into(),
            labels: std::collections::BTreeMap::new(),
            address: facts.address.clone(),
            protocol: PROTOCOL,
        }
    }

    async fn send(&self, body: worker_message::Body) -> Result<(), ()> {
        self.outbound
            .send(WorkerMessage { body: Some(body) })
            .await
            .map_err(|_| ())
    }
}

const fn role(role: warren_types::NodeRole) -> store::NodeRole {
    match role {
        warren_types::NodeRole::Manager => store::NodeRole::Manager,
        warren_types::NodeRole::Worker => store::NodeRole::Worker,
        warren_types::NodeRole::Hybrid => store::NodeRole::Hybrid,
    }
}

/// Role in the node's record; `None` for one that this version does not know.
fn role_of(node: &store::Node) -> Option<warren_types::NodeRole> {
    match store::NodeRole::try_from(node.role).ok()? {
        store::NodeRole::Manager => Some(warren_types::NodeRole::Manager),
        store::NodeRole::Worker => Some(warren_types::NodeRole::Worker),
        store::NodeRole::Hybrid => Some(warren_types::NodeRole::Hybrid),
        store::NodeRole::Unspecified => None,
    }
}

fn heartbeat_of(welcome: &Welcome) -> Duration {
    if welcome.heartbeat_ms == 0 {
        HEARTBEAT_DEFAULT
    } else {
        Duration::from_millis(welcome.heartbeat_ms)
    }
}
