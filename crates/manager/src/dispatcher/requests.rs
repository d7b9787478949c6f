//! Questions to a node that ride on its session: logs, exec, images.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::mpsc;
use warren_proto::session::{self, ManagerMessage, manager_message, reply, request};

/// Replies of one request that wait for their reader, in messages. A reader slower than that makes
/// the session wait for it for a moment, and is cut off after [`SLOW_READER`].
const REPLIES_WAITING_MAX: usize = 256;
/// Requests under way on one session.
const REQUESTS_MAX: usize = 1024;
/// How long a session waits for the reader of a full reply queue.
const SLOW_READER: std::time::Duration = std::time::Duration::from_secs(5);

/// gRPC's number for "unavailable" (the node is gone).
pub(crate) const UNAVAILABLE: i32 = 14;
/// gRPC's number for "resource exhausted".
const RESOURCE_EXHAUSTED: i32 = 8;

/// The open requests of one session.
#[derive(Debug)]
pub(crate) struct Requests {
    outbound: mpsc::Sender<ManagerMessage>,
    open: Arc<Mutex<Open>>,
}

#[derive(Debug, Default)]
struct Open {
    last_id: u64,
    readers: BTreeMap<u64, mpsc::Sender<reply::Body>>,
}

impl Requests {
    pub(crate) fn new(outbound: mpsc::Sender<ManagerMessage>) -> Self {
        Self {
            outbound,
            open: Arc::default(),
        }
    }

    /// Sends a request; its replies come out of the handle.
    pub(crate) async fn ask(&self, body: request::Body) -> Result<Request, session::Error> {
        let (sender, replies) = mpsc::channel(REPLIES_WAITING_MAX);
        let id = {
            let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            if open.readers.len() >= REQUESTS_MAX {
                return Err(error(
                    RESOURCE_EXHAUSTED,
                    format!("{REQUESTS_MAX} requests to this node are under way"),
                    "wait until some have ended",
                ));
            }
            open.last_id += 1;
            let id = open.last_id;
            open.readers.insert(id, sender);
            id
        };
        let request = Request {
            id,
            outbound: self.outbound.clone(),
            open: self.open.clone(),
            replies,
        };
        request.send(body).await?;
        Ok(request)
    }

    /// Hands a reply to its reader. A reply nobody waits for is dropped.
    pub(crate) async fn answer(&self, reply: session::Reply) {
        let reader = {
            let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            open.readers.get(&reply.request_id).cloned()
        };
        let (Some(reader), Some(body)) = (reader, reply.body) else {
            return;
        };
        let handed = tokio::time::timeout(SLOW_READER, reader.send(body)).await;
        if !matches!(handed, Ok(Ok(()))) {
            let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            open.readers.remove(&reply.request_id);
        }
    }

    /// The session has ended: every reader sees the end of its replies.
    pub(crate) fn close(&self) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.readers.clear();
    }
}

/// One request under way. Dropping it tells the node to stop.
#[derive(Debug)]
pub(crate) struct Request {
    id: u64,
    outbound: mpsc::Sender<ManagerMessage>,
    open: Arc<Mutex<Open>>,
    replies: mpsc::Receiver<reply::Body>,
}

impl Request {
    /// More of the same request (input of an exec, chunks of an image).
    pub(crate) async fn send(&self, body: request::Body) -> Result<(), session::Error> {
        send(&self.outbound, self.id, body).await
    }

    /// The next reply; `None` when the session has ended.
    pub(crate) async fn next(&mut self) -> Option<reply::Body> {
        self.replies.recv().await
    }

    /// A way to send more while somebody else reads the replies.
    pub(crate) fn sender(&self) -> RequestSender {
        RequestSender {
            id: self.id,
            outbound: self.outbound.clone(),
        }
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        let known = {
            let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            open.readers.remove(&self.id).is_some()
        };
        if known {
            let cancel = message(self.id, request::Body::Cancel(session::Cancel {}));
            if let Err(mpsc::error::TrySendError::Full(cancel)) = self.outbound.try_send(cancel) {
                let outbound = self.outbound.clone();
                tokio::spawn(async move {
                    // A closed session needs no cancel.
                    let _ = outbound.send(cancel).await;
                });
            }
        }
    }
}

/// The sending half of a request.
#[derive(Debug, Clone)]
pub(crate) struct RequestSender {
    id: u64,
    outbound: mpsc::Sender<ManagerMessage>,
}

impl RequestSender {
    /// More of the same request.
    pub(crate) async fn send(&self, body: request::Body) -> Result<(), session::Error> {
        send(&self.outbound, self.id, body).await
    }
}

async fn send(
    outbound: &mpsc::Sender<ManagerMessage>,
    id: u64,
    body: request::Body,
) -> Result<(), session::Error> {
    let sent = outbound.send(message(id, body)).await;
    sent.map_err(|_| gone())
}

fn message(id: u64, body: request::Body) -> ManagerMessage {
    let request = session::Request {
        request_id: id,
        body: Some(body),
    };
    ManagerMessage {
        body: Some(manager_message::Body::Request(request)),
    }
}

/// The node's session has ended.
pub(crate) fn gone() -> session::Error {
    error(
        UNAVAILABLE,
        "the node's session has ended".to_owned(),
        "wait until `warren node list` shows it ready, then try again",
    )
}

fn error(code: i32, message: String, remedy: &str) -> session::Error {
    session::Error {
        code,
        message,
        remedy: remedy.to_owned(),
    }
}
