//! Exec: a stream that rides on the session of the container's node.

use super::{Control, containers, failure};
use crate::dispatcher::{Request, RequestSender};
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use warren_api::{ApiError, ApiResult, ApiStream, Caller, ExecInput, ExecOutput};
use warren_proto::session::{self, exec_input, exec_output, reply, request};
use warren_proto::v1;
use warren_types::ActualState;

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
