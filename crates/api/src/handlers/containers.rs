//! Containers: lists, watching, logs, exec.

use super::checks::{optional_target, own_node, target};
use super::{Answers, Handlers};
use crate::caller::Caller;
use crate::control::{
    ApiResult, ApiStream, ContainerChange, ContainerFilter, ExecInput, ExecOutput, LogQuery,
};
use crate::error::ApiError;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use tonic::Streaming;
use warren_proto::convert::{ContainerView, container_to_api, timestamp_from_api};
use warren_proto::v1;
use warren_types::{Role, limits};

/// Largest terminal, in columns or rows.
const TERMINAL_MAX: u32 = 10_000;

/// A worker sees its own node's containers only, whatever it asks for.
fn narrow(caller: &Caller, mut filter: ContainerFilter) -> ContainerFilter {
    if caller.role == Role::Worker {
        filter.node = caller.node.map(|n| n.to_string());
    }
    filter
}

fn visible(caller: &Caller, view: &ContainerView) -> bool {
    own_node(caller, view.container.node).is_ok()
}

fn size(terminal: v1::TerminalSize) -> ApiResult<(u16, u16)> {
    let side = |n: u32| u16::try_from(n).ok().filter(|_| n <= TERMINAL_MAX);
    match (side(terminal.columns), side(terminal.rows)) {
        (Some(columns), Some(rows)) => Ok((columns, rows)),
        _ => Err(ApiError::field(
            "size",
            format!("{} by {} is no terminal", terminal.columns, terminal.rows),
            format!("at most {TERMINAL_MAX} columns and rows"),
        )),
    }
}

impl Handlers {
    pub(super) async fn list_containers_inner(
        self,
        caller: Caller,
        request: v1::ListContainersRequest,
    ) -> ApiResult<v1::ListContainersResponse> {
        let service = if request.service_id.is_empty() {
            request.service_name
        } else {
            request.service_id
        };
        let filter = ContainerFilter {
            service: optional_target("service_id", service)?,
            node: optional_target("node_id", request.node_id)?,
            include_ended: request.include_ended,
        };
        let views = self
            .control
            .list_containers(&caller, narrow(&caller, filter))
            .await?;
        Ok(v1::ListContainersResponse {
            containers: views
                .iter()
                .filter(|v| visible(&caller, v))
                .map(container_to_api)
                .collect(),
        })
    }

    pub(super) async fn get_container_inner(
        self,
        caller: Caller,
        request: v1::GetContainerRequest,
    ) -> ApiResult<v1::GetContainerResponse> {
        let name = target(&request.id, "")?;
        let view = self.control.get_container(&caller, name).await?;
        own_node(&caller, view.container.node)?;
        Ok(v1::GetContainerResponse {
            container: Some(container_to_api(&view)),
        })
    }

    pub(super) async fn watch_inner(
        &self,
        caller: &Caller,
        request: v1::WatchContainersRequest,
    ) -> ApiResult<Answers<v1::ContainerEvent>> {
        let filter = ContainerFilter {
            service: optional_target("service_id", request.service_id)?,
            node: optional_target("node_id", request.node_id)?,
            include_ended: request.include_ended,
        };
        let changes = self
            .control
            .watch_containers(caller, narrow(caller, filter))
            .await?;
        Ok(self.answers(changes, |change| {
            let (kind, view) = match &change {
                ContainerChange::Added(view) => ("add", view),
                ContainerChange::Updated(view) => ("update", view),
                ContainerChange::Deleted(view) => ("delete", view),
            };
            v1::ContainerEvent {
                r#type: kind.to_owned(),
                container: Some(container_to_api(view)),
            }
        }))
    }

    pub(super) async fn logs_inner(
        &self,
        caller: &Caller,
        request: v1::GetLogsRequest,
    ) -> ApiResult<Answers<v1::LogEntry>> {
        let service = optional_target("service", request.service)?;
        let container = optional_target("container", request.container)?;
        if service.is_some() == container.is_some() {
            return Err(ApiError::field(
                "service",
                "exactly one of service and container must be given",
                "name a service or a container",
            ));
        }
        let both = request.stdout == request.stderr;
        let query = LogQuery {
            service,
            container,
            follow: request.follow,
            tail: request.tail,
            since: request.since.map(timestamp_from_api),
            stdout: both || request.stdout,
            stderr: both || request.stderr,
        };
        let lines = self.control.logs(caller, query).await?;
        Ok(self.answers(lines, |line| line))
    }

    pub(super) async fn exec_inner(
        &self,
        caller: &Caller,
        mut input: Streaming<v1::ExecRequest>,
    ) -> ApiResult<(String, ApiResult<Answers<v1::ExecResponse>>)> {
        let first = input.message().await.map_err(|_| {
            ApiError::unavailable("the call ended before its first message", "try again")
        })?;
        let Some(v1::exec_request::Input::Start(start)) = first.and_then(|m| m.input) else {
            return Err(ApiError::field(
                "start",
                "the first message carries no start",
                "send start first",
            ));
        };
        let subject = start.container.clone();
        check_start(&start)?;
        let output = self
            .control
            .exec(caller, start, exec_input(input))
            .await
            .map(|output| self.answers(exec_messages(output), |message| message));
        Ok((subject, output))
    }
}

fn check_start(start: &v1::ExecStart) -> ApiResult<()> {
    target(&start.container, "")?;
    if start.command.is_empty() {
        return Err(ApiError::field(
            "start.command",
            "is empty",
            "name the program to run",
        ));
    }
    if start.command.len() > limits::ARGS_MAX || start.env.len() > limits::ENV_VARS_MAX {
        return Err(ApiError::field(
            "start",
            "has too many words or variables",
            format!(
                "at most {} words and {} variables are allowed",
                limits::ARGS_MAX,
                limits::ENV_VARS_MAX
            ),
        ));
    }
    // NUL ends a C string: what follows would silently be lost.
    let nul = |text: &String| text.contains('\0');
    if start.command.iter().any(nul) || start.env.iter().any(|(k, v)| nul(k) || nul(v)) {
        return Err(ApiError::field(
            "start",
            "holds a NUL byte",
            "take it out of command and environment",
        ));
    }
    start.size.map_or(Ok(()), |s| size(s).map(drop))
}

/// Input until it ends, breaks, or makes no sense.
fn exec_input(input: Streaming<v1::ExecRequest>) -> BoxStream<'static, ExecInput> {
    use v1::exec_request::Input;
    input
        .map(|message| match message.ok()?.input? {
            Input::Stdin(bytes) => Some(ExecInput::Stdin(bytes.into())),
            Input::Resize(to) => size(to)
                .ok()
                .map(|(columns, rows)| ExecInput::Resize { columns, rows }),
            Input::Eof(_) => Some(ExecInput::Eof),
            Input::Start(_) => None,
        })
        .take_while(|input| std::future::ready(input.is_some()))
        .filter_map(std::future::ready)
        .boxed()
}

fn exec_messages(output: ApiStream<ExecOutput>) -> ApiStream<v1::ExecResponse> {
    use v1::exec_response::Output;
    output
        .map(|item| {
            item.map(|output| v1::ExecResponse {
                output: Some(match output {
                    ExecOutput::Stdout(bytes) => Output::Stdout(bytes.into()),
                    ExecOutput::Stderr(bytes) => Output::Stderr(bytes.into()),
                    ExecOutput::Exit(code) => Output::ExitCode(code),
                }),
            })
        })
        .boxed()
}
