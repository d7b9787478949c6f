//! A command inside a running container, with its input and output on the session.

use super::{Answer, code, error, runtime_error};
use crate::sets::container_id;
use crate::shared::Shared;
use std::pin::Pin;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use warren_image::resolve_user;
use warren_proto::session::{self, ExecOutput, exec_input, exec_output, reply, request};
use warren_proto::v1::ExecStart;
use warren_runtime::{ExecControl, ExecSpec, UserIds};
use warren_types::ContainerId;

/// Bytes of output in one message.
const PIECE_BYTES: usize = 32 * 1024;

pub(super) async fn serve(
    shared: &Arc<Shared>,
    request: session::ExecStart,
    input: mpsc::Receiver<request::Body>,
    answer: &Answer,
) -> Result<(), session::Error> {
    let wrong = |text: String| error(code::INVALID_ARGUMENT, text, "correct the command");
    let id = container_id(&request.container_id).map_err(|e| wrong(e.to_string()))?;
    let start = request
        .start
        .ok_or_else(|| wrong("no command".to_owned()))?;
    let spec = spec(shared, id, &start)?;
    let run = shared
        .driver
        .exec(id, spec)
        .await
        .map_err(|e| runtime_error(&e))?;
    if let Some(size) = start.size {
        resize(run.control.as_ref(), size.columns, size.rows).await;
    }
    let pump = tokio::spawn(pump_input(run.stdin, run.control.clone(), input));
    let _stop = Stop(pump);
    let stdout = pump_output(run.stdout, answer.clone(), exec_output::Output::Stdout);
    let stderr = async {
        if let Some(stderr) = run.stderr {
            pump_output(stderr, answer.clone(), exec_output::Output::Stderr).await;
        }
    };
    tokio::join!(stdout, stderr);
    let exit = run.exit.await.map_err(|e| runtime_error(&e))?;
    send(answer, exec_output::Output::ExitCode(exit.code)).await;
    Ok(())
}

fn spec(
    shared: &Arc<Shared>,
    id: ContainerId,
    start: &ExecStart,
) -> Result<ExecSpec, session::Error> {
    let user = match start.user.as_str() {
        "" => None,
        text => {
            let found = resolve_user(&shared.images.rootfs_path(id), text);
            let found = found.map_err(|e| {
                error(
                    code::INVALID_ARGUMENT,
                    e.to_string(),
                    "name a user of the image",
                )
            })?;
            Some(UserIds {
                uid: found.uid,
                gid: found.gid,
                additional_gids: found.groups,
            })
        }
    };
    Ok(ExecSpec {
        args: start.command.clone(),
        env: start
            .env
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect(),
        cwd: (!start.working_dir.is_empty()).then(|| start.working_dir.clone().into()),
        user,
        tty: start.tty,
        stdin: start.stdin,
    })
}

/// A task that ends with its owner.
struct Stop(tokio::task::JoinHandle<()>);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn pump_input(
    mut stdin: Option<Pin<Box<dyn AsyncWrite + Send>>>,
    control: Arc<dyn ExecControl>,
    mut input: mpsc::Receiver<request::Body>,
) {
    while let Some(body) = input.recv().await {
        let request::Body::ExecInput(session::ExecInput { input: Some(input) }) = body else {
            continue;
        };
        match input {
            exec_input::Input::Stdin(bytes) => {
                let Some(writer) = stdin.as_mut() else {
                    continue;
                };
                // A command that has closed its input does not want it.
                if writer.write_all(&bytes).await.is_err() || writer.flush().await.is_err() {
                    stdin = None;
                }
            }
            exec_input::Input::Resize(size) => {
                resize(control.as_ref(), size.columns, size.rows).await
            }
            exec_input::Input::Eof(_) => stdin = None,
        }
    }
}

async fn resize(control: &dyn ExecControl, columns: u32, rows: u32) {
    let clip = |n: u32| u16::try_from(n).unwrap_or(u16::MAX);
    if let Err(problem) = control.resize(clip(columns), clip(rows)).await {
        tracing::debug!(%problem, "terminal size not set");
    }
}

async fn pump_output(
    mut from: Pin<Box<dyn AsyncRead + Send>>,
    answer: Answer,
    wrap: impl Fn(Vec<u8>) -> exec_output::Output,
) {
    let mut piece = vec![0_u8; PIECE_BYTES];
    loop {
        match from.read(&mut piece).await {
            // A terminal that is gone reads as an error; both are the end.
            Ok(0) | Err(_) => return,
            Ok(length) => {
                if !send(&answer, wrap(piece[..length].to_vec())).await {
                    return;
                }
            }
        }
    }
}

async fn send(answer: &Answer, output: exec_output::Output) -> bool {
    answer
        .send(reply::Body::Exec(ExecOutput {
            output: Some(output),
        }))
        .await
}
