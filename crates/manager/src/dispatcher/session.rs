//! One session, from hello to its end.

use super::requests::Requests;
use super::{Dispatcher, assignments, register};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use warren_proto::session::{
    self, Assignments, ManagerMessage, WorkerMessage, manager_message, worker_message,
};
use warren_proto::store;
use warren_raft::ProposeError;
use warren_state::ClusterState;
use warren_types::{
    ContainerId, ContainerStatus, DesiredState, Id128, Node, NodeId, NodeRole, Revision,
};

/// How long a new session may take to say who it is.
const HELLO_WITHIN: Duration = Duration::from_secs(10);
/// How often a registration that met a change of its node is tried again.
const REGISTER_TRIES: u32 = 20;
/// Version of the protocol, from 1.
const PROTOCOL: u32 = 1;

pub(super) async fn serve(
    dispatcher: &Dispatcher,
    allowed: Option<NodeId>,
    mut inbound: mpsc::Receiver<WorkerMessage>,
    outbound: mpsc::Sender<ManagerMessage>,
) {
    let hello = tokio::time::timeout(HELLO_WITHIN, inbound.recv()).await;
    let Ok(Some(WorkerMessage {
        body: Some(worker_message::Body::Hello(hello)),
    })) = hello
    else {
        refuse(
            &outbound,
            "the first message of a session is the hello".to_owned(),
        )
        .await;
        return;
    };
    if hello.protocol > PROTOCOL {
        refuse(&outbound, format!("the node speaks session protocol {}, this manager {PROTOCOL}; upgrade the managers first", hello.protocol)).await;
        return;
    }
    let node = match admit(dispatcher, allowed, &hello).await {
        Ok(node) => node,
        Err(reason) => {
            tracing::warn!(reason, "session refused");
            refuse(&outbound, reason).await;
            return;
        }
    };
    let requests = Arc::new(Requests::new(outbound.clone()));
    let session = dispatcher.open(node.id, requests.clone());
    tracing::info!(node = %node.name, session, "session open");
    let running = Session {
        dispatcher,
        node: node.id,
        role: node.role,
        session,
        requests,
        outbound,
    };
    if running.welcome(&node).await.is_ok() {
        running.run(inbound).await;
    }
    dispatcher.close(node.id, session);
    tracing::info!(node = %node.name, session, "session ended");
}

/// Brings the node's record in line and returns it; the error is for the node.
async fn admit(
    dispatcher: &Dispatcher,
    allowed: Option<NodeId>,
    hello: &session::Hello,
) -> Result<Arc<Node>, String> {
    let id = register::node_id(hello, allowed).map_err(|e| e.to_string())?;
    let raft = &dispatcher.shared.raft;
    for _ in 0..REGISTER_TRIES {
        let command = register::command(&raft.state(), id, hello).map_err(|e| e.to_string())?;
        let Some(command) = command else { break };
        match raft.propose(&command).await {
            Ok(_) => break,
            // Somebody changed the node in between: look again.
            Err(ProposeError::Rejected(_)) => {}
            Err(problem) => return Err(problem.to_string()),
        }
    }
    raft.state()
        .node(id)
        .cloned()
        .ok_or_else(|| register::RefusedHello::Unknown(id).to_string())
}

async fn refuse(outbound: &mpsc::Sender<ManagerMessage>, reason: String) {
    let refused = session::Refused {
        reason,
        permanent: false,
    };
    // A caller that has gone needs no reason.
    let _ = outbound
        .send(message(manager_message::Body::Refused(refused)))
        .await;
}

struct Session<'a> {
    dispatcher: &'a Dispatcher,
    node: NodeId,
    /// What the welcome said.
    role: NodeRole,
    session: u64,
    requests: Arc<Requests>,
    outbound: mpsc::Sender<ManagerMessage>,
}

/// The session has ended.
struct Ended;

impl Session<'_> {
    async fn welcome(&self, node: &Node) -> Result<(), Ended> {
        let state = self.dispatcher.shared.raft.state();
        let settings = state.settings();
        let welcome = session::Welcome {
            node: Some(store::Node::from(node)),
            heartbeat_ms: settings.map_or(2000, |s| s.heartbeat.0),
            session_id: self.session,
            cluster_id: settings.map_or_else(String::new, |s| s.id.to_string()),
            manager_name: self.dispatcher.shared.manager_name.clone(),
            node_down_after_ms: settings.map_or(10_000, |s| s.node_down_after.0),
        };
        self.send(manager_message::Body::Welcome(welcome)).await
    }

    async fn run(&self, mut inbound: mpsc::Receiver<WorkerMessage>) {
        let mut revisions = self.dispatcher.shared.raft.changes();
        let mut sent = assignments::Sent::default();
        let mut complete = true;
        let mut seen = None;
        loop {
            revisions.mark_unchanged();
            let state = self.dispatcher.shared.raft.state();
            let news = self.has_news(&state, seen);
            seen = Some(state.revision());
            if let Some(reason) = self.outdated(&state) {
                let shutdown = manager_message::Body::Shutdown(session::Shutdown { reason });
                let _ = self.send(shutdown).await;
                return;
            }
            if news {
                match self.bring_up_to_date(&state, &sent, complete).await {
                    Ok(Some(next)) => (sent, complete) = (next, false),
                    Ok(None) => {}
                    Err(Ended) => return,
                }
            }
            loop {
                tokio::select! {
                    changed = revisions.changed() => {
                        if changed.is_err() { return }
                        break;
                    }
                    got = inbound.recv() => match got {
                        Some(message) => if self.take(message).await.is_err() { return },
                        None => return,
                    },
                    () = self.outbound.closed() => return,
                    // The leader's scope is gone, and the reader of statuses with it: the node dials again
                    // and finds whoever leads now.
                    () = self.dispatcher.shared.statuses.closed() => return,
                }
            }
        }
    }

    /// Has anything changed since then that the node may need? Not known is yes.
    fn has_news(&self, state: &ClusterState, seen: Option<Revision>) -> bool {
        let raft = &self.dispatcher.shared.raft;
        let Some(Ok(sets)) = seen.map(|seen| raft.changes_since(seen)) else {
            return true;
        };
        // What the feed has beyond this state comes with the next one.
        let mut sets = sets
            .iter()
            .take_while(|set| set.revision <= state.revision());
        sets.any(|set| assignments::concerns(set, self.node))
    }

    /// Why the node has to open another session: it learns its role, or that it was removed, from the next welcome.
    fn outdated(&self, state: &ClusterState) -> Option<String> {
        match state.node(self.node) {
            None => Some("the node was removed from the cluster".to_owned()),
            Some(node) if node.role != self.role => {
                Some(format!("the node is a {} now", node.role.name()))
            }
            Some(_) => None,
        }
    }

    /// Sends what the node lacks; returns what it has then, or `None` when nothing was sent.
    async fn bring_up_to_date(
        &self,
        state: &ClusterState,
        sent: &assignments::Sent,
        complete: bool,
    ) -> Result<Option<assignments::Sent>, Ended> {
        let (next, delta) = assignments::compare(state, self.node, sent);
        if delta.is_empty() && !complete {
            return Ok(None);
        }
        let message = self.assignments(state, delta, complete);
        self.send(manager_message::Body::Assignments(message))
            .await?;
        Ok(Some(next))
    }

    fn assignments(
        &self,
        state: &ClusterState,
        delta: assignments::Delta,
        complete: bool,
    ) -> Assignments {
        let upserts = delta
            .upserts
            .iter()
            .map(|(container, spec, desired)| session::Assignment {
                container_id: bytes(container.id.0),
                service_id: bytes(container.service.0),
                service_name: spec.name.clone(),
                slot: Some(store::Slot::from(&container.slot)),
                desired: match desired {
                    DesiredState::Running => store::DesiredState::Running,
                    DesiredState::Shutdown => store::DesiredState::Shutdown,
                }
                .into(),
                service_revision: container.service_revision,
                spec: Some(store::ContainerSpec::from(&spec.container)),
                ports: spec.ports.iter().map(store::PortMapping::from).collect(),
                attempt_floor: container.status.attempt,
                networks: spec.networks.clone(),
            });
        let secrets = delta.secrets.iter().filter_map(|secret| {
            match self.dispatcher.shared.secrets.open(secret) {
                Ok(data) => Some(session::SecretPayload {
                    name: secret.name.clone(),
                    version: secret.version.0,
                    data: data.to_vec(),
                }),
                Err(problem) => {
                    tracing::error!(secret = %secret.name, %problem, "secret cannot be opened");
                    None
                }
            }
        });
        Assignments {
            revision: state.revision().0,
            complete,
            upserts: upserts.collect(),
            removed: delta.removed.iter().map(|id| bytes(id.0)).collect(),
            secrets: secrets.collect(),
            configs: delta
                .configs
                .iter()
                .map(|config| session::ConfigPayload {
                    name: config.name.clone(),
                    version: config.version.0,
                    data: config.data.clone(),
                })
                .collect(),
            volumes: delta
                .volumes
                .iter()
                .map(|volume| store::Volume::from(volume.as_ref()))
                .collect(),
        }
    }

    async fn take(&self, message: WorkerMessage) -> Result<(), Ended> {
        if !self.dispatcher.heard(self.node, self.session) {
            return Err(Ended);
        }
        match message.body {
            Some(worker_message::Body::Statuses(batch)) => {
                let report = (
                    self.node,
                    batch.statuses.into_iter().filter_map(status).collect(),
                );
                self.dispatcher
                    .shared
                    .statuses
                    .send(report)
                    .await
                    .map_err(|_| Ended)?;
            }
            Some(worker_message::Body::Ack(ack)) => {
                self.dispatcher
                    .acknowledged(self.node, self.session, ack.revision);
            }
            Some(worker_message::Body::Reply(reply)) => self.requests.answer(reply).await,
            Some(worker_message::Body::Heartbeat(_) | worker_message::Body::NetworkReady(_)) => {}
            // A second hello, or something of a newer release that was not negotiated.
            Some(worker_message::Body::Hello(_)) | None => return Err(Ended),
        }
        Ok(())
    }

    async fn send(&self, body: manager_message::Body) -> Result<(), Ended> {
        self.outbound.send(message(body)).await.map_err(|_| Ended)
    }
}

fn status(report: session::StatusReport) -> Option<(ContainerId, ContainerStatus)> {
    let id: [u8; 16] = report.container_id.as_slice().try_into().ok()?;
    let id = ContainerId(Id128(u128::from_be_bytes(id)));
    match ContainerStatus::try_from(report.status?) {
        Ok(status) => Some((id, status)),
        Err(problem) => {
            tracing::warn!(container = %id, %problem, "status not understood");
            None
        }
    }
}

fn message(body: manager_message::Body) -> ManagerMessage {
    ManagerMessage { body: Some(body) }
}

fn bytes(id: Id128) -> Vec<u8> {
    id.0.to_be_bytes().to_vec()
}
