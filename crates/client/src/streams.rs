//! The streaming calls: events, container changes, logs, exec, image import.

use crate::attempts::Repeat;
use crate::connect::Client;
use crate::error::{ClientError, ErrorKind};
use bytes::Bytes;
use futures::stream::{self, BoxStream, Stream};
use futures::{FutureExt as _, StreamExt as _};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tonic::{Response, Streaming};
use warren_proto::v1;

/// A stream of answers; after an error nothing more comes.
pub type ClientStream<T> = BoxStream<'static, Result<T, ClientError>>;

/// Bytes of one chunk of an image archive.
const IMPORT_CHUNK_BYTES: usize = 256 * 1024;

/// Input of a running exec call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExecInput {
    /// Bytes for standard input.
    Stdin(Bytes),
    /// The terminal has a new size.
    Resize {
        /// Columns.
        columns: u16,
        /// Rows.
        rows: u16,
    },
    /// No more input.
    Eof,
}

/// Output of a running exec call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExecOutput {
    /// Bytes of standard output (or of the terminal).
    Stdout(Bytes),
    /// Bytes of standard error.
    Stderr(Bytes),
    /// It has ended; last message.
    Exit(i32),
}

fn client_stream<T: Send + 'static>(answer: Response<Streaming<T>>) -> ClientStream<T> {
    answer
        .into_inner()
        .map(|item| item.map_err(Into::into))
        .boxed()
}

macro_rules! stream_call {
    ($self:ident, $name:ident, $request:ident) => {{
        let answer = $self
            .open(Repeat::Safe, |channel| {
                let mut api = $self.api_over(channel);
                let request = $self.request($request.clone());
                async move { api.$name(request).await }
            })
            .await?;
        Ok(client_stream(answer))
    }};
}

impl Client {
    /// Events, from now on or from a revision on.
    ///
    /// # Errors
    /// [`ClientError`], by the status code of the manager.
    pub async fn stream_events(
        &self,
        request: v1::StreamEventsRequest,
    ) -> Result<ClientStream<v1::Event>, ClientError> {
        stream_call!(self, stream_events, request)
    }

    /// First every container there is, as `add`, then each change.
    ///
    /// # Errors
    /// [`ClientError`], by the status code of the manager.
    pub async fn watch_containers(
        &self,
        request: v1::WatchContainersRequest,
    ) -> Result<ClientStream<v1::ContainerEvent>, ClientError> {
        stream_call!(self, watch_containers, request)
    }

    /// A backup of the cluster, piece by piece.
    ///
    /// # Errors
    /// [`ClientError`], by the status code of the manager.
    pub async fn backup_cluster(
        &self,
        request: v1::BackupClusterRequest,
    ) -> Result<ClientStream<v1::BackupChunk>, ClientError> {
        stream_call!(self, backup_cluster, request)
    }

    /// Log lines of a service or a container.
    ///
    /// # Errors
    /// [`ClientError`], by the status code of the manager.
    pub async fn logs(
        &self,
        request: v1::GetLogsRequest,
    ) -> Result<ClientStream<v1::LogEntry>, ClientError> {
        stream_call!(self, get_logs, request)
    }

    /// Runs a program inside a container. Drop the answer to end it.
    ///
    /// # Errors
    /// [`ClientError`], by the status code of the manager.
    pub async fn exec(
        &self,
        start: v1::ExecStart,
        input: impl Stream<Item = ExecInput> + Send + 'static,
    ) -> Result<ClientStream<ExecOutput>, ClientError> {
        use v1::exec_request::Input;
        let message = |input| v1::ExecRequest { input: Some(input) };
        let rest = input.map(move |item| {
            message(match item {
                ExecInput::Stdin(bytes) => Input::Stdin(bytes.into()),
                ExecInput::Resize { columns, rows } => Input::Resize(v1::TerminalSize {
                    columns: u32::from(columns),
                    rows: u32::from(rows),
                }),
                ExecInput::Eof => Input::Eof(true),
            })
        });
        // Input follows when a manager has taken the call, so that a refused attempt swallows none.
        let (taken, input) = tokio::sync::oneshot::channel();
        let input = Arc::new(Mutex::new(Some(input)));
        let answer = self
            .open(Repeat::Never, |channel| {
                let mut api = self.api_over(channel);
                let first = message(Input::Start(start.clone()));
                let rest = stream::once(after_taken(Arc::clone(&input))).flatten();
                let request = self.request(stream::once(async move { first }).chain(rest));
                async move { api.exec(request).await }
            })
            .await?
            .into_inner();
        // A call that is over already needs no input.
        drop(taken.send(rest.boxed()));
        Ok(answer
            .map(|item| exec_output(item.map_err(ClientError::from)?))
            .boxed())
    }

    /// Sends an image archive, as it is read.
    ///
    /// # Errors
    /// [`ErrorKind::Local`] when reading fails; else by the status code of the manager.
    pub async fn import_image(
        &self,
        options: v1::ImportOptions,
        archive: impl AsyncRead + Send + Unpin + 'static,
    ) -> Result<Vec<v1::Image>, ClientError> {
        // A read error must end the call as an error, not as the end of the archive: the sending task
        // reports it here and keeps the request stream open until the call is given up.
        let (failed_tx, failed_rx) = tokio::sync::oneshot::channel::<io::Error>();
        let first = v1::ImportImageRequest {
            options: Some(options),
            ..Default::default()
        };
        let chunks = stream::unfold(Some((archive, failed_tx)), next_chunk);
        let request = self.request(stream::once(async move { first }).chain(chunks));
        // One attempt: what has been read of the archive cannot be read again.
        let mut api = self.api_over(self.any_channel().await?);
        let call = api.import_image(request);
        tokio::pin!(call);
        let answer = tokio::select! {
            answer = &mut call => answer,
            Ok(error) = failed_rx => {
                return Err(ClientError::new(
                    ErrorKind::Local,
                    format!("the archive could not be read: {error}"),
                    "check the file; nothing was imported",
                ));
            }
        };
        Ok(answer?.into_inner().images)
    }
}

/// Input that will come.
type Promised<T> = Arc<Mutex<Option<tokio::sync::oneshot::Receiver<BoxStream<'static, T>>>>>;

/// The input of the attempt that was taken; for refused attempts it never begins.
async fn after_taken<T: Send + 'static>(input: Promised<T>) -> BoxStream<'static, T> {
    std::future::poll_fn(move |cx| {
        // The lock is held for a poll only; a refused attempt's stream is dropped before the next one asks.
        let mut input = input.lock().unwrap_or_else(PoisonError::into_inner);
        match input.as_mut().map(|input| input.poll_unpin(cx)) {
            None | Some(Poll::Ready(Err(_))) => Poll::Ready(stream::empty().boxed()),
            Some(Poll::Ready(Ok(stream))) => {
                *input = None;
                Poll::Ready(stream)
            }
            Some(Poll::Pending) => Poll::Pending,
        }
    })
    .await
}

/// What is still to be read, and whom to tell when that fails; `None` after the last message.
type Unread<R> = Option<(R, tokio::sync::oneshot::Sender<io::Error>)>;

async fn next_chunk<R: AsyncRead + Send + Unpin>(
    unread: Unread<R>,
) -> Option<(v1::ImportImageRequest, Unread<R>)> {
    let (mut archive, failed) = unread?;
    let mut chunk = vec![0; IMPORT_CHUNK_BYTES];
    let mut filled = 0;
    while filled < chunk.len() {
        match archive.read(&mut chunk[filled..]).await {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(error) => {
                // When nobody listens any more, the call is over anyway.
                drop(failed.send(error));
                return std::future::pending().await;
            }
        }
    }
    let last = filled < chunk.len();
    chunk.truncate(filled);
    let message = v1::ImportImageRequest {
        options: None,
        chunk,
        last,
    };
    Some((message, (!last).then_some((archive, failed))))
}

fn exec_output(message: v1::ExecResponse) -> Result<ExecOutput, ClientError> {
    use v1::exec_response::Output;
    match message.output {
        Some(Output::Stdout(bytes)) => Ok(ExecOutput::Stdout(bytes.into())),
        Some(Output::Stderr(bytes)) => Ok(ExecOutput::Stderr(bytes.into())),
        Some(Output::ExitCode(code)) => Ok(ExecOutput::Exit(code)),
        Some(Output::Error(text)) => Err(ClientError::new(ErrorKind::FailedPrecondition, text, "")),
        None => Err(ClientError::new(
            ErrorKind::Internal,
            "the manager sent an empty message",
            "client and manager may be of different versions; compare `warren version`",
        )),
    }
}
