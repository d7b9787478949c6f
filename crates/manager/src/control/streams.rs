//! Logs and exec: streams that ride on the session of the container's node.

use super::{Control, containers, failure, services};
use crate::dispatcher::{Request, RequestSender};
use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use std::sync::Arc;
use warren_api::{ApiError, ApiResult, ApiStream, Caller, ExecInput, ExecOutput, LogQuery};
use warren_proto::session::{self, exec_input, exec_output, reply, request};
use warren_proto::v1;
use warren_state::ClusterState;
use warren_types::{ActualState, Container};

/// Containers of a service whose logs are read at once.
const LOG_STREAMS_MAX: usize = 256;

pub(super) async fn logs(
    control: &Control,
    caller: &Caller,
    query: LogQuery,
) -> ApiResult<ApiStream<v1::LogEntry>> {
    let state = control.state();
    let meant = match (&query.service, &query.container) {
        (Some(service), _) => of_service(&state, service)?,
        (None, Some(container)) => vec![containers::find(&state, caller, container)?],
        (None, None) => {
            return Err(ApiError::field(
                "service",
                "neither a service nor a container is named",
                "name one",
            ));
        }
    };
    let mut streams = Vec::new();
    for container in meant {
        if container.node.is_some() {
            streams.push(log_stream(control, &state, &container, &query).await?);
        }
    }
    if !query.follow {
        return in_order(streams).await;
    }
    Ok(stream::select_all(streams).boxed())
}

/// Without `follow` the lines of all containers are put in the order of their times.
async fn in_order(streams: Vec<ApiStream<v1::LogEntry>>) -> ApiResult<ApiStream<v1::LogEntry>> {
    let mut entries: Vec<v1::LogEntry> = Vec::new();
    for stream in streams {
        entries.extend(stream.try_collect::<Vec<_>>().await?);
    }
    let key = |e: &v1::LogEntry| e.time.as_ref().map(|t| (t.seconds, t.nanos));
    entries.sort_by_key(key);
    Ok(stream::iter(entries.into_iter().map(Ok)).boxed())
}

fn of_service(state: &ClusterState, target: &str) -> ApiResult<Vec<Arc<Container>>> {
    let service = services::find(state, target)?;
    let found: Vec<_> = state.containers_of_service(service.id).cloned().collect();
    if found.len() > LOG_STREAMS_MAX {
        return Err(ApiError::Exhausted {
            what: format!(
                "service {target:?} has {} containers, logs of at most {LOG_STREAMS_MAX} are read at once",
                found.len()
            ),
            remedy: "name one container".to_owned(),
        });
    }
    Ok(found)
}

async fn log_stream(
    control: &Control,
    state: &ClusterState,
    container: &Arc<Container>,
    query: &LogQuery,
) -> ApiResult<ApiStream<v1::LogEntry>> {
    let view = containers::view(state, container);
    let node = container
        .node
        .ok_or_else(|| ApiError::internal("a container without node has no log"))?;
    let body = request::Body::Log(session::LogRequest {
        container_id: container.id.as_u128().to_be_bytes().to_vec(),
        follow: query.follow,
        tail: query.tail,
        since_ms: query.since.map(|t| t.0),
        stdout: query.stdout,
        stderr: query.stderr,
    });
    let request = control
        .dispatcher()?
        .ask(node, body)
        .await
        .map_err(failure::node)?;
    let (name, node_name) = (view.name(), view.node_name);
    let stream = stream::unfold(Some(request), |request| async move {
        let mut request: Request = request?;
        match request.next().await {
            Some(reply::Body::Log(chunk)) => Some((Ok(chunk.entries), Some(request))),
            // A container whose log is gone has none; its siblings' are shown all the same.
            Some(reply::Body::Error(error)) if error.code == 5 => None,
            Some(reply::Body::Error(error)) => Some((Err(failure::node(error)), None)),
            _ => None,
        }
    });
    let named = stream.map_ok(move |entries| {
        let (name, node_name) = (name.clone(), node_name.clone());
        let entries = entries.into_iter().map(move |e| {
            Ok(v1::LogEntry {
                container_name: name.clone(),
                node_name: node_name.clone(),
                ..e
            })
        });
        stream::iter(entries)
    });
    Ok(named.try_flatten().boxed())
}

pub(super) async fn exec(
    control: &Control,
    caller: &Caller,
    start: v1::ExecStart,
    input: BoxStream<'static, ExecInput>,
) -> ApiResult<ApiStream<ExecOutput>> {
    let state = control.state();
    let container = containers::find(&state, caller, &start.container)?;
    let (Some(node), ActualState::Running) = (container.node, container.status.state) else {
        return Err(ApiError::precondition(
            format!(
                "container {} is {}: {}",
                start.container, container.status.state, container.status.reason
            ),
            "a command can be run in a running container only",
        ));
    };
    let body = request::Body::ExecStart(session::ExecStart {
        container_id: container.id.as_u128().to_be_bytes().to_vec(),
        start: Some(start),
    });
    let request = control
        .dispatcher()?
        .ask(node, body)
        .await
        .map_err(failure::node)?;
    let pump = tokio::spawn(pump_input(request.sender(), input));
    let output = stream::unfold(
        (Some(request), AbortOnDrop(pump)),
        |(request, pump)| async move {
            let mut request: Request = request?;
            let next = match request.next().await {
                Some(reply::Body::Exec(output)) => exec_reply(output),
                Some(reply::Body::Error(error)) => Err(failure::node(error)),
                _ => Err(ApiError::unavailable(
                    "the node ended its session",
                    "look at `warren node list`",
                )),
            };
            let over = !matches!(next, Ok(ExecOutput::Stdout(_) | ExecOutput::Stderr(_)));
            Some((next, ((!over).then_some(request), pump)))
        },
    );
    Ok(output.boxed())
}

/// A task that ends with its owner.
struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn pump_input(sender: RequestSender, mut input: BoxStream<'static, ExecInput>) {
    while let Some(input) = input.next().await {
        let input = match input {
            ExecInput::Stdin(bytes) => exec_input::Input::Stdin(bytes.to_vec()),
            ExecInput::Resize { columns, rows } => exec_input::Input::Resize(v1::TerminalSize {
                columns: u32::from(columns),
                rows: u32::from(rows),
            }),
            ExecInput::Eof => exec_input::Input::Eof(true),
        };
        let body = request::Body::ExecInput(session::ExecInput { input: Some(input) });
        if sender.send(body).await.is_err() {
            return;
        }
    }
}

fn exec_reply(output: session::ExecOutput) -> ApiResult<ExecOutput> {
    match output.output {
        Some(exec_output::Output::Stdout(bytes)) => Ok(ExecOutput::Stdout(Bytes::from(bytes))),
        Some(exec_output::Output::Stderr(bytes)) => Ok(ExecOutput::Stderr(Bytes::from(bytes))),
        Some(exec_output::Output::ExitCode(code)) => Ok(ExecOutput::Exit(code)),
        None => Err(ApiError::internal("the node sent an empty output")),
    }
}
