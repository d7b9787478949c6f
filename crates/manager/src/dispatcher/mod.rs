//! The manager's end of the nodes' sessions: registration, heartbeats, assignments, statuses, and the
//! questions that ride on a session. Heartbeats live in memory only; liveness changes alone reach
//! the log.

mod assignments;
mod liveness;
mod register;
pub(crate) mod requests;
mod session;
mod statuses;

pub(crate) use requests::{Request, RequestSender};

use crate::secrets::SecretBox;
use requests::Requests;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::mpsc;
use tokio::time::Instant;
use warren_proto::session::{ManagerMessage, WorkerMessage, request};
use warren_raft::RaftHandle;
use warren_types::NodeId;

/// Messages to a node that wait to be sent.
pub(crate) const OUTBOUND_WAITING_MAX: usize = 256;

/// Sessions of all nodes.
#[derive(Clone)]
pub(crate) struct Dispatcher {
    shared: Arc<Shared>,
}

struct Shared {
    raft: RaftHandle,
    secrets: Arc<SecretBox>,
    manager_name: String,
    statuses: mpsc::Sender<statuses::Report>,
    next_session: AtomicU64,
    nodes: Mutex<BTreeMap<NodeId, Known>>,
    begun: Instant,
}

/// What is known of a node, in memory.
struct Known {
    session: u64,
    requests: Option<Arc<Requests>>,
    heard: Instant,
    acknowledged: u64,
}

impl Dispatcher {
    /// Starts the dispatcher's own loops in the leader's scope.
    pub(crate) fn start(
        raft: RaftHandle,
        secrets: Arc<SecretBox>,
        manager_name: String,
        scope: &mut crate::leader::LeaderScope,
    ) -> Self {
        let (sender, receiver) = statuses::queue();
        let shared = Shared {
            raft: raft.clone(),
            secrets,
            manager_name,
            statuses: sender,
            next_session: AtomicU64::new(1),
            nodes: Mutex::default(),
            begun: Instant::now(),
        };
        let dispatcher = Self {
            shared: Arc::new(shared),
        };
        scope.spawn(statuses::run(raft, receiver));
        scope.spawn(liveness::run(dispatcher.clone()));
        dispatcher
    }

    /// Serves one session until either side ends it. `allowed` is the node that the caller may be.
    pub(crate) async fn serve(
        &self,
        allowed: Option<NodeId>,
        inbound: mpsc::Receiver<WorkerMessage>,
        outbound: mpsc::Sender<ManagerMessage>,
    ) {
        session::serve(self, allowed, inbound, outbound).await;
    }

    /// Asks a node something.
    pub(crate) async fn ask(
        &self,
        node: NodeId,
        body: request::Body,
    ) -> Result<Request, warren_proto::session::Error> {
        let requests = self.with_nodes(|nodes| nodes.get(&node).and_then(|k| k.requests.clone()));
        let requests = requests.ok_or_else(requests::gone)?;
        requests.ask(body).await
    }

    /// Registers a session in memory; an older one of the same node is replaced.
    fn open(&self, node: NodeId, requests: Arc<Requests>) -> u64 {
        let session = self.shared.next_session.fetch_add(1, Ordering::Relaxed);
        let known = Known {
            session,
            requests: Some(requests),
            heard: Instant::now(),
            acknowledged: 0,
        };
        let old = self.with_nodes(|nodes| nodes.insert(node, known));
        if let Some(requests) = old.and_then(|k| k.requests) {
            requests.close();
        }
        session
    }

    /// Forgets the session's requests, unless a newer session has taken its place.
    fn close(&self, node: NodeId, session: u64) {
        let requests = self.with_nodes(|nodes| {
            let known = nodes.get_mut(&node).filter(|k| k.session == session)?;
            known.requests.take()
        });
        if let Some(requests) = requests {
            requests.close();
        }
    }

    /// The node was heard; false when a newer session has taken this one's place.
    fn heard(&self, node: NodeId, session: u64) -> bool {
        self.with_nodes(|nodes| match nodes.get_mut(&node) {
            Some(known) if known.session == session => {
                known.heard = Instant::now();
                true
            }
            _ => false,
        })
    }

    fn acknowledged(&self, node: NodeId, session: u64, revision: u64) {
        self.with_nodes(|nodes| {
            if let Some(known) = nodes.get_mut(&node).filter(|k| k.session == session) {
                known.acknowledged = known.acknowledged.max(revision);
            }
        });
    }

    /// When the node was last heard, or when this manager began to listen.
    fn last_heard(&self, node: NodeId) -> Instant {
        self.with_nodes(|nodes| nodes.get(&node).map_or(self.shared.begun, |k| k.heard))
    }

    /// Does the node have an open session?
    pub(crate) fn is_connected(&self, node: NodeId) -> bool {
        self.with_nodes(|nodes| nodes.get(&node).is_some_and(|k| k.requests.is_some()))
    }

    /// How long the node has not been heard; `None` when it never was by this manager.
    pub(crate) fn silence(&self, node: NodeId) -> Option<std::time::Duration> {
        self.with_nodes(|nodes| nodes.get(&node).map(|k| k.heard.elapsed()))
    }

    fn with_nodes<T>(&self, work: impl FnOnce(&mut BTreeMap<NodeId, Known>) -> T) -> T {
        work(
            &mut self
                .shared
                .nodes
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        )
    }
}
