//! `warren container exec`: streams, terminal, exit status.

use super::container::find_running;
use crate::api::{Api, ExecInput, ExecOutput, ExecStart};
use crate::args::ExecArgs;
use crate::error::{CliError, Result};
use crate::io::Io;
use futures::StreamExt;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;

/// Bytes of input sent at once.
const INPUT_CHUNK_BYTES: usize = 16 * 1024;
/// Pieces of input on their way.
const INPUT_QUEUE: usize = 16;

/// Runs the command; the result is its exit status.
pub(crate) async fn run(args: ExecArgs, api: &dyn Api, io: &mut Io) -> Result<u8> {
    if args.tty && args.interactive && !io.in_tty {
        return Err(
            CliError::usage("-t with -i needs a terminal on standard input")
                .remedy("leave -t away"),
        );
    }
    let container = find_running(api, &args.name).await?;
    let (sender, receiver) = mpsc::channel(INPUT_QUEUE);
    let start = ExecStart {
        container: container.id,
        command: args.command,
        env: args.env.into_iter().collect(),
        user: args.user,
        workdir: args.workdir,
        tty: args.tty,
        stdin: args.interactive,
        size: if args.tty { terminal_size() } else { None },
    };
    let mut output = api.exec(start, receiver).await?;
    let raw = if args.tty && args.interactive {
        Some(RawTerminal::enter()?)
    } else {
        None
    };
    let input = args
        .interactive
        .then(|| tokio::spawn(pump_input(sender.clone())));
    let resize = args.tty.then(|| tokio::spawn(pump_size(sender.clone())));
    drop(sender);
    let result = pump_output(&mut output, io).await;
    for task in [input, resize].into_iter().flatten() {
        task.abort();
    }
    drop(raw);
    result
}

async fn pump_output(
    output: &mut futures::stream::BoxStream<'static, Result<ExecOutput>>,
    io: &mut Io,
) -> Result<u8> {
    while let Some(item) = output.next().await {
        match item? {
            ExecOutput::Stdout(bytes) => io.print_bytes(&bytes)?,
            ExecOutput::Stderr(bytes) => io.err_bytes(&bytes)?,
            ExecOutput::Exit(code) => return Ok(u8::try_from(code & 0xff).unwrap_or(u8::MAX)),
        }
    }
    Err(
        CliError::general("the connection ended before the command did")
            .remedy("warren container list"),
    )
}

async fn pump_input(sender: mpsc::Sender<ExecInput>) {
    let mut stdin = tokio::io::stdin();
    let mut buffer = vec![0; INPUT_CHUNK_BYTES];
    loop {
        let item = match stdin.read(&mut buffer).await {
            Ok(0) | Err(_) => ExecInput::Eof,
            Ok(n) => ExecInput::Stdin(buffer[..n].to_vec()),
        };
        let last = item == ExecInput::Eof;
        if sender.send(item).await.is_err() || last {
            return;
        }
    }
}

async fn pump_size(sender: mpsc::Sender<ExecInput>) {
    let kind = tokio::signal::unix::SignalKind::window_change();
    let Ok(mut changes) = tokio::signal::unix::signal(kind) else {
        return;
    };
    while changes.recv().await.is_some() {
        if let Some((columns, rows)) = terminal_size()
            && sender.send(ExecInput::Resize(columns, rows)).await.is_err()
        {
            return;
        }
    }
}

fn terminal_size() -> Option<(u16, u16)> {
    let size = tcgetwinsize(std::io::stdout()).or_else(|_| tcgetwinsize(std::io::stdin()));
    size.ok().map(|s| (s.ws_col, s.ws_row))
}

/// Hands every key on as it is; gives the terminal back as it was when dropped.
struct RawTerminal {
    before: Termios,
}

impl RawTerminal {
    fn enter() -> Result<Self> {
        let fail = |e: rustix::io::Errno| {
            CliError::general(format!("cannot set up the terminal: {e}")).remedy("leave -t away")
        };
        let before = tcgetattr(std::io::stdin()).map_err(fail)?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(std::io::stdin(), OptionalActions::Now, &raw).map_err(fail)?;
        Ok(Self { before })
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        // Nothing can be done when the terminal is gone.
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, &self.before);
    }
}
