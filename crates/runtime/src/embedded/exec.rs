//! Commands in running containers, seen from the daemon. Output does not pass through the shim: the
//! daemon makes the pipes, or gets the terminal.

use super::line::Frames;
use crate::driver::{ExecControl, ExecHandle, ExecSpec};
use crate::error::{Result, RuntimeError};
use crate::record::{ContainerDir, SOCKET};
use crate::wire::{self, Reply, Request};
use async_trait::async_trait;
use futures::FutureExt;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::sync::{mpsc, oneshot};
use warren_types::{ContainerId, ExitInfo};

/// How long the start of a command may take.
const EXEC_START_LIMIT: Duration = Duration::from_secs(30);
/// Signals that wait to be sent to one command.
const SIGNAL_QUEUE: usize = 16;

/// Starts a command.
pub(super) async fn exec(
    id: ContainerId,
    dir: &ContainerDir,
    spec: ExecSpec,
) -> Result<ExecHandle> {
    let fail = |source| RuntimeError::Shim {
        id,
        action: "run a command",
        source,
    };
    let (tty, wants_input) = (spec.tty, spec.stdin);
    let ends = Ends::new(tty, wants_input).map_err(fail)?;
    let (stream, terminal, theirs) = {
        let dir = dir.clone();
        let work = move || begin(&dir, spec, ends.theirs);
        let (stream, terminal) = super::blocking(move || {
            work().map_err(|e| match e {
                Begin::Refused(reason) => RuntimeError::Exec { id, reason },
                Begin::Broken(source) => RuntimeError::Shim {
                    id,
                    action: "run a command",
                    source,
                },
            })
        })
        .await?;
        (stream, terminal, ends.ours)
    };
    stream.set_nonblocking(true).map_err(fail)?;
    let stream = UnixStream::from_std(stream).map_err(fail)?;
    let (signals, queue) = mpsc::channel(SIGNAL_QUEUE);
    let (sender, ended) = oneshot::channel();
    tokio::spawn(attend(stream, queue, sender));
    let terminal = terminal.map(Arc::new);
    let control = Arc::new(Control {
        id,
        signals,
        terminal: terminal.clone(),
    });
    let exit = async move {
        let gone = || RuntimeError::Exec {
            id,
            reason: "its end is not known: the container ended or the shim died".into(),
        };
        ended.await.map_err(|_| gone())
    };
    let mut handle = match terminal {
        Some(terminal) => terminal_handle(&terminal, control).map_err(fail)?,
        None => pipe_handle(theirs, control).map_err(fail)?,
    };
    if !wants_input {
        handle.stdin = None;
    }
    handle.exit = exit.boxed();
    Ok(handle)
}

/// Both ends of the three streams, in the order stdin, stdout, stderr.
struct Ends {
    theirs: Vec<OwnedFd>,
    ours: Option<(Option<OwnedFd>, OwnedFd, OwnedFd)>,
}

impl Ends {
    fn new(tty: bool, wants_input: bool) -> io::Result<Self> {
        if tty {
            return Ok(Self {
                theirs: Vec::new(),
                ours: None,
            });
        }
        let pipe = || nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).map_err(io::Error::from);
        let (out, out_in) = pipe()?;
        let (err, err_in) = pipe()?;
        let (input, input_out) = if wants_input {
            let (read, write) = pipe()?;
            (Some(write), read)
        } else {
            (None, OwnedFd::from(File::open("/dev/null")?))
        };
        Ok(Self {
            theirs: vec![input_out, out_in, err_in],
            ours: Some((input, out, err)),
        })
    }
}

enum Begin {
    Refused(String),
    Broken(io::Error),
}

impl From<io::Error> for Begin {
    fn from(error: io::Error) -> Self {
        Self::Broken(error)
    }
}

/// Sends the order and waits until the command executes. Blocking.
fn begin(
    dir: &ContainerDir,
    spec: ExecSpec,
    fds: Vec<OwnedFd>,
) -> Result<(std::os::unix::net::UnixStream, Option<OwnedFd>), Begin> {
    let stream = wire::connect(&dir.0, SOCKET)?;
    stream.set_read_timeout(Some(EXEC_START_LIMIT))?;
    let raw: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    wire::send_with_fds(&stream, &wire::encode(&Request::Exec(spec))?, &raw)?;
    drop(fds);
    // Byte by byte up to the end of the frame would be slow; a second frame can only be the end of the
    // command, which `attend` must see, so exactly one frame is read.
    let (mut bytes, mut terminal) = (Vec::new(), None);
    loop {
        let wanted = match bytes.first_chunk::<4>() {
            None => 4 - bytes.len(),
            Some(head) => (4 + u32::from_le_bytes(*head) as usize).saturating_sub(bytes.len()),
        };
        let mut buffer = vec![0; wanted.clamp(1, 4096)];
        let (read, received) = wire::receive_with_fds(&stream, &mut buffer)?;
        if read == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        terminal = terminal.or_else(|| received.into_iter().next());
        bytes.extend_from_slice(&buffer[..read]);
        match wire::decode(&bytes)? {
            None => {}
            Some((Reply::ExecStarted, _)) => return Ok((stream, terminal)),
            Some((Reply::Failed { reason }, _)) => return Err(Begin::Refused(reason)),
            Some((other, _)) => {
                return Err(io::Error::other(format!("unexpected answer {other:?}")).into());
            }
        }
    }
}

/// Keeps the connection of a command until it ends, or until nobody is interested any more.
async fn attend(
    mut stream: UnixStream,
    mut signals: mpsc::Receiver<i32>,
    mut sender: oneshot::Sender<ExitInfo>,
) {
    let (mut frames, mut controlled) = (Frames::default(), true);
    let (mut reader, mut writer) = stream.split();
    loop {
        tokio::select! {
            reply = frames.next(&mut reader) => match reply {
                Ok(Reply::ExecExited(info)) => {
                    // Without a listener the end is of no interest.
                    let _ = sender.send(info);
                    return;
                }
                Ok(_) => {}
                Err(_) => return,
            },
            signal = signals.recv(), if controlled => match signal {
                Some(signal) => {
                    let Ok(frame) = wire::encode(&Request::ExecSignal(signal)) else { return };
                    if writer.write_all(&frame).await.is_err() {
                        return;
                    }
                }
                None => controlled = false,
            },
            () = sender.closed(), if !controlled => return,
        }
    }
}

struct Control {
    id: ContainerId,
    signals: mpsc::Sender<i32>,
    terminal: Option<Arc<OwnedFd>>,
}

#[async_trait]
impl ExecControl for Control {
    #[allow(unsafe_code, reason = "the window size is set by ioctl")]
    async fn resize(&self, columns: u16, rows: u16) -> Result<()> {
        let Some(terminal) = &self.terminal else {
            return Ok(());
        };
        let size = libc::winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        // SAFETY: `size` is a valid `winsize` that outlives the call.
        match unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) } {
            0 => Ok(()),
            _ => Err(RuntimeError::Shim {
                id: self.id,
                action: "resize the terminal",
                source: io::Error::last_os_error(),
            }),
        }
    }

    async fn signal(&self, signal: i32) -> Result<()> {
        let ended = || RuntimeError::Exec {
            id: self.id,
            reason: "it has ended".into(),
        };
        self.signals.send(signal).await.map_err(|_| ended())
    }
}

fn pipe_handle(
    ours: Option<(Option<OwnedFd>, OwnedFd, OwnedFd)>,
    control: Arc<Control>,
) -> io::Result<ExecHandle> {
    let Some((input, out, err)) = ours else {
        return Err(io::Error::other("the shim sent no terminal"));
    };
    let stdin: Option<Pin<Box<dyn AsyncWrite + Send>>> = match input {
        Some(fd) => Some(Box::pin(pipe::Sender::from_owned_fd(fd)?)),
        None => None,
    };
    Ok(ExecHandle {
        stdin,
        stdout: Box::pin(pipe::Receiver::from_owned_fd(out)?),
        stderr: Some(Box::pin(pipe::Receiver::from_owned_fd(err)?)),
        control,
        exit: futures::future::pending().boxed(),
    })
}

fn terminal_handle(terminal: &OwnedFd, control: Arc<Control>) -> io::Result<ExecHandle> {
    Ok(ExecHandle {
        stdin: Some(Box::pin(Terminal::new(terminal.try_clone()?)?)),
        stdout: Box::pin(Terminal::new(terminal.try_clone()?)?),
        stderr: None,
        control,
        exit: futures::future::pending().boxed(),
    })
}

/// The master side of a terminal.
struct Terminal {
    fd: AsyncFd<OwnedFd>,
}

impl Terminal {
    fn new(fd: OwnedFd) -> io::Result<Self> {
        use nix::fcntl::{FcntlArg, OFlag, fcntl};
        let flags = OFlag::from_bits_retain(fcntl(&fd, FcntlArg::F_GETFL)?);
        fcntl(&fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        Ok(Self {
            fd: crate::ready::register(fd)?,
        })
    }
}

impl AsyncRead for Terminal {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let mut guard = std::task::ready!(self.fd.poll_read_ready(context))?;
            let into = buffer.initialize_unfilled();
            match guard.try_io(|fd| nix::unistd::read(fd, into).map_err(io::Error::from)) {
                Ok(Ok(read)) => {
                    buffer.advance(read);
                    return Poll::Ready(Ok(()));
                }
                // All holders of the other side are gone: the end.
                Ok(Err(error)) if error.raw_os_error() == Some(libc::EIO) => {
                    return Poll::Ready(Ok(()));
                }
                Ok(Err(error)) => return Poll::Ready(Err(error)),
                Err(_would_block) => {}
            }
        }
    }
}

impl AsyncWrite for Terminal {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = std::task::ready!(self.fd.poll_write_ready(context))?;
            if let Ok(result) =
                guard.try_io(|fd| nix::unistd::write(fd, bytes).map_err(io::Error::from))
            {
                return Poll::Ready(result);
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
