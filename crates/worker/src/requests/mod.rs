//! Questions of the manager that ride on the session: logs, exec, images, volumes.

mod exec;
mod images;
mod logs;

use crate::sets::id_from;
use crate::shared::Shared;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use warren_proto::session::{self, Reply, WorkerMessage, reply, request, worker_message};
use warren_types::VolumeId;

/// Further messages of one request that wait to be taken.
const INPUT_WAITING_MAX: usize = 64;

/// gRPC status numbers that answers use.
pub(crate) mod code {
    pub(crate) const INVALID_ARGUMENT: i32 = 3;
    pub(crate) const NOT_FOUND: i32 = 5;
    pub(crate) const RESOURCE_EXHAUSTED: i32 = 8;
    pub(crate) const FAILED_PRECONDITION: i32 = 9;
    pub(crate) const INTERNAL: i32 = 13;
}

/// The requests of one session. Dropping it stops them all.
pub(crate) struct Requests {
    shared: Arc<Shared>,
    outbound: mpsc::Sender<WorkerMessage>,
    open: Arc<Mutex<BTreeMap<u64, Open>>>,
}

struct Open {
    input: Option<mpsc::Sender<request::Body>>,
    task: AbortHandle,
}

impl Requests {
    pub(crate) fn new(shared: Arc<Shared>, outbound: mpsc::Sender<WorkerMessage>) -> Self {
        Self {
            shared,
            outbound,
            open: Arc::default(),
        }
    }

    /// Takes a message: the beginning of a request, more of one, or its end.
    pub(crate) async fn take(&self, message: session::Request) {
        let id = message.request_id;
        let Some(body) = message.body else { return };
        match body {
            request::Body::Cancel(_) => {
                if let Some(open) = self.lock().remove(&id) {
                    open.task.abort();
                }
            }
            body if self.is_open(id) => {
                let input = self.lock().get(&id).and_then(|o| o.input.clone());
                if let Some(input) = input {
                    // A request that has ended meanwhile takes nothing more.
                    let _ = input.send(body).await;
                }
            }
            body => self.begin(id, body),
        }
    }

    fn begin(&self, id: u64, body: request::Body) {
        let (sender, input) = mpsc::channel(INPUT_WAITING_MAX);
        let answer = Answer {
            id,
            outbound: self.outbound.clone(),
        };
        let (shared, open) = (self.shared.clone(), self.open.clone());
        let more = matches!(
            body,
            request::Body::ExecStart(_) | request::Body::ImageImport(_)
        );
        let mut all = self.lock();
        let task = tokio::spawn(async move {
            if let Err(error) = serve(&shared, body, input, &answer).await {
                answer.send(reply::Body::Error(error)).await;
            }
            open.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .remove(&id);
        });
        all.insert(
            id,
            Open {
                input: more.then_some(sender),
                task: task.abort_handle(),
            },
        );
    }

    fn is_open(&self, id: u64) -> bool {
        self.lock().contains_key(&id)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Requests {
    fn drop(&mut self) {
        for open in self.lock().values() {
            open.task.abort();
        }
    }
}

/// Where the replies of one request go.
#[derive(Clone)]
pub(crate) struct Answer {
    id: u64,
    outbound: mpsc::Sender<WorkerMessage>,
}

impl Answer {
    /// Sends a reply; false when the session has ended.
    pub(crate) async fn send(&self, body: reply::Body) -> bool {
        let reply = Reply {
            request_id: self.id,
            body: Some(body),
        };
        let message = WorkerMessage {
            body: Some(worker_message::Body::Reply(reply)),
        };
        self.outbound.send(message).await.is_ok()
    }
}

async fn serve(
    shared: &Arc<Shared>,
    body: request::Body,
    input: mpsc::Receiver<request::Body>,
    answer: &Answer,
) -> Result<(), session::Error> {
    match body {
        request::Body::Log(request) => logs::serve(shared, request, answer).await,
        request::Body::ExecStart(start) => exec::serve(shared, start, input, answer).await,
        request::Body::ImageImport(first) => images::import(shared, first, input, answer).await,
        request::Body::ImageList(_) => images::list(shared, answer).await,
        request::Body::ImageInspect(request) => {
            images::inspect(shared, request.reference, answer).await
        }
        request::Body::ImageRemove(request) => {
            images::remove(shared, request.reference, answer).await
        }
        request::Body::VolumeRemove(request) => {
            remove_volume(shared, &request.volume_id, answer).await
        }
        request::Body::ExecInput(_) | request::Body::Cancel(_) => Ok(()),
    }
}

/// Removes the data of a volume whose record is gone.
async fn remove_volume(
    shared: &Arc<Shared>,
    id: &[u8],
    answer: &Answer,
) -> Result<(), session::Error> {
    let id = VolumeId(
        id_from(id, "volume_id")
            .map_err(|e| error(code::INVALID_ARGUMENT, e.to_string(), "report this"))?,
    );
    if shared.wanted().volumes.values().any(|v| v.id == id) && shared.volume_in_use(id) {
        return Err(error(
            code::FAILED_PRECONDITION,
            "a container still uses the volume".to_owned(),
            "wait until it has stopped",
        ));
    }
    let path = shared.data_dir.join("volumes").join(id.to_string());
    let removed = tokio::task::spawn_blocking(move || match std::fs::remove_dir_all(&path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(format!("{}: {e}", path.display()))
        }
        _ => Ok(()),
    });
    removed
        .await
        .unwrap_or_else(|e| Err(e.to_string()))
        .map_err(|e| error(code::INTERNAL, e, "remove the directory by hand"))?;
    answer.send(reply::Body::Done(session::Done {})).await;
    Ok(())
}

/// An error for the asker.
pub(crate) fn error(code: i32, message: String, remedy: &str) -> session::Error {
    session::Error {
        code,
        message,
        remedy: remedy.to_owned(),
    }
}

/// Splits "what; remedy" or "what: remedy" texts of our own errors; the whole text is the message.
pub(crate) fn runtime_error(problem: &warren_runtime::RuntimeError) -> session::Error {
    use warren_runtime::RuntimeError as E;
    let number = match problem {
        E::NotFound { .. } => code::NOT_FOUND,
        E::WrongState { .. } | E::Exists { .. } => code::FAILED_PRECONDITION,
        E::Invalid { .. } | E::Exec { .. } => code::INVALID_ARGUMENT,
        _ => code::INTERNAL,
    };
    error(
        number,
        problem.to_string(),
        "look at `warren container inspect`",
    )
}
