//! What daemon and shim say to each other over a unix socket: length-prefixed JSON frames, with file
//! descriptors beside them.

use crate::driver::{ExecSpec, ExitRecord, RuntimeState};
use crate::spec::RuntimeSpec;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use warren_types::{ExitInfo, Timestamp};

/// Largest frame in bytes; arguments and environment are limited to 1 MiB before escaping.
pub const MAX_FRAME_BYTES: usize = 8 * 1024 * 1024;
/// Most descriptors beside one frame.
pub const MAX_FDS: usize = 3;

/// First message to a new shim, followed by the raw contents of the files in order.
#[derive(Debug, Serialize, Deserialize)]
pub struct CreateOrder {
    /// The container.
    pub spec: RuntimeSpec,
    /// Its control group, such as `/warren/ID`.
    pub cgroup: String,
    /// Where its log goes.
    pub log_dir: PathBuf,
    /// Group for the shim itself.
    pub shim_cgroup: String,
    /// The files without their contents.
    pub files: Vec<FileHead>,
}

/// A file of a [`CreateOrder`]; its content follows.
#[derive(Debug, Serialize, Deserialize)]
pub struct FileHead {
    /// Absolute path in the container.
    pub target: PathBuf,
    /// Length of the content in bytes.
    pub length: usize,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// What the daemon asks of a shim.
#[derive(Debug, Serialize, Deserialize)]
pub enum Request {
    /// Send the state now and its changes from now on.
    Subscribe,
    /// Run the program.
    Start,
    /// Send a signal to the main process.
    Signal(i32),
    /// Send a stop signal; the reply says whether the kernel would discard it.
    Stop(i32),
    /// Run a command; stdin, stdout, stderr are beside the frame, or nothing with a terminal.
    Exec(ExecSpec),
    /// Send a signal to the process of this connection's exec.
    ExecSignal(i32),
}

/// What a shim answers or reports.
#[derive(Debug, Serialize, Deserialize)]
pub enum Reply {
    /// The container is set up.
    Created {
        /// Its main process.
        pid: u32,
    },
    /// The state now.
    State(ShimState),
    /// Its program runs.
    Started {
        /// When it began.
        at: Timestamp,
    },
    /// A signal was sent.
    Signalled {
        /// False when the kernel discards it.
        effective: bool,
    },
    /// The exec's process runs; the terminal is beside the frame if one was wanted.
    ExecStarted,
    /// The exec's process ended.
    ExecExited(ExitInfo),
    /// The container ended.
    Exited(ExitRecord),
    /// The request failed.
    Failed {
        /// Why, for people.
        reason: String,
    },
}

/// State as the shim knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShimState {
    /// State.
    pub state: RuntimeState,
    /// Main process.
    pub pid: u32,
    /// When its program began.
    pub started_at: Option<Timestamp>,
}

/// The frame of a message.
pub fn encode(message: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut frame = vec![0; 4];
    serde_json::to_writer(&mut frame, message)?;
    let length = frame.len() - 4;
    if length > MAX_FRAME_BYTES {
        return Err(io::Error::other(format!(
            "a message of {length} bytes is over the limit of {MAX_FRAME_BYTES}"
        )));
    }
    frame[..4].copy_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
    Ok(frame)
}

/// The message at the start of `buffer`, with the bytes it takes; `None` when more are needed.
pub fn decode<T: DeserializeOwned>(buffer: &[u8]) -> io::Result<Option<(T, usize)>> {
    let Some(head) = buffer.first_chunk::<4>() else {
        return Ok(None);
    };
    let length = u32::from_le_bytes(*head) as usize;
    if length > MAX_FRAME_BYTES {
        return Err(io::Error::other(format!(
            "a message of {length} bytes is over the limit of {MAX_FRAME_BYTES}"
        )));
    }
    match buffer.get(4..4 + length) {
        Some(body) => Ok(Some((serde_json::from_slice(body)?, 4 + length))),
        None => Ok(None),
    }
}

/// Writes one message to a blocking stream.
pub fn write(stream: &mut impl Write, message: &impl Serialize) -> io::Result<()> {
    stream.write_all(&encode(message)?)
}

/// Reads one message from a blocking stream.
pub fn read<T: DeserializeOwned>(stream: &mut impl Read) -> io::Result<T> {
    let mut head = [0; 4];
    stream.read_exact(&mut head)?;
    let length = u32::from_le_bytes(head) as usize;
    if length > MAX_FRAME_BYTES {
        return Err(io::Error::other(format!(
            "a message of {length} bytes is over the limit of {MAX_FRAME_BYTES}"
        )));
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok(serde_json::from_slice(&body)?)
}

/// Writes bytes with descriptors beside the first of them.
pub fn send_with_fds(stream: &UnixStream, bytes: &[u8], fds: &[RawFd]) -> io::Result<()> {
    use nix::sys::socket::{ControlMessage, MsgFlags, UnixAddr, sendmsg};
    let control = [ControlMessage::ScmRights(fds)];
    let control = if fds.is_empty() {
        &[][..]
    } else {
        &control[..]
    };
    let sent = sendmsg::<UnixAddr>(
        stream.as_raw_fd(),
        &[IoSlice::new(bytes)],
        control,
        MsgFlags::MSG_NOSIGNAL,
        None,
    )?;
    (&*stream).write_all(&bytes[sent..])
}

/// Reads what is there, with any descriptors.
#[allow(unsafe_code, reason = "received descriptors come as plain numbers")]
pub fn receive_with_fds(
    stream: &UnixStream,
    buffer: &mut [u8],
) -> io::Result<(usize, Vec<OwnedFd>)> {
    use nix::sys::socket::{ControlMessageOwned, MsgFlags, UnixAddr, recvmsg};
    let mut space = nix::cmsg_space!([RawFd; MAX_FDS]);
    let mut parts = [IoSliceMut::new(buffer)];
    let message = recvmsg::<UnixAddr>(
        stream.as_raw_fd(),
        &mut parts,
        Some(&mut space),
        MsgFlags::MSG_CMSG_CLOEXEC,
    )?;
    let mut fds = Vec::new();
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(raw) = control {
            // SAFETY: the kernel has just installed these descriptors for us; nobody else owns them.
            fds.extend(
                raw.into_iter()
                    .map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }),
            );
        }
    }
    Ok((message.bytes, fds))
}

/// Listens at `dir/name`, also where the path is too long for a socket address.
pub fn listen(dir: &Path, name: &str) -> io::Result<UnixListener> {
    let handle = std::fs::File::open(dir)?;
    UnixListener::bind(format!("/proc/self/fd/{}/{name}", handle.as_raw_fd()))
}

/// Connects to `dir/name`, also where the path is too long for a socket address.
pub fn connect(dir: &Path, name: &str) -> io::Result<UnixStream> {
    let handle = std::fs::File::open(dir)?;
    UnixStream::connect(format!("/proc/self/fd/{}/{name}", handle.as_raw_fd()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn frames_round_trip_in_pieces() {
        let frame = encode(&Request::Stop(15)).unwrap();
        for cut in 0..frame.len() {
            assert!(decode::<Request>(&frame[..cut]).unwrap().is_none());
        }
        let (message, used) = decode::<Request>(&frame).unwrap().unwrap();
        assert!(matches!(message, Request::Stop(15)));
        assert_eq!(used, frame.len());
    }

    #[test]
    fn descriptors_travel() {
        let (a, b) = UnixStream::pair().unwrap();
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        send_with_fds(&a, b"x", &[theirs.as_raw_fd()]).unwrap();
        drop(theirs);
        let (read, mut fds) = receive_with_fds(&b, &mut [0; 8]).unwrap();
        assert_eq!((read, fds.len()), (1, 1));
        let mut received = UnixStream::from(fds.remove(0));
        received.write_all(b"hello").unwrap();
        drop(received);
        let mut text = String::new();
        ours.read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello");
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused_or_wait(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = decode::<Request>(&bytes);
        }
    }
}
