//! Work in a forked child of the shim: libcontainer's memory and its changes to process state stay out
//! of the shim, and a hanging kernel call cannot stop the shim's loop.

use super::executor::set_action;
use crate::wire;
use serde::{Deserialize, Serialize};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::panic::AssertUnwindSafe;

/// What a helper found, with the descriptor that may come beside it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Outcome {
    /// It worked; the number is the caller's.
    Done(i32),
    /// It did not.
    Failed(String),
}

/// Result of the work in a helper: a number and possibly a descriptor.
pub(super) type Work = Result<(i32, Option<OwnedFd>), String>;

/// Forks and runs `work` in the child. Its outcome is read from the returned socket.
#[allow(unsafe_code, reason = "fork")]
pub(super) fn spawn(work: impl FnOnce() -> Work) -> io::Result<UnixStream> {
    let (ours, theirs) = UnixStream::pair()?;
    // SAFETY: the shim has one thread, so the child may do anything.
    match unsafe { nix::unistd::fork() }? {
        nix::unistd::ForkResult::Parent { .. } => Ok(ours),
        nix::unistd::ForkResult::Child => {
            drop(ours);
            default_child_signal();
            let result = std::panic::catch_unwind(AssertUnwindSafe(work))
                .unwrap_or_else(|_| Err("the set-up stopped at an internal error".to_owned()));
            let (outcome, fd) = match result {
                Ok((number, fd)) => (Outcome::Done(number), fd),
                Err(reason) => (Outcome::Failed(reason), None),
            };
            let fds: Vec<i32> = fd.iter().map(AsRawFd::as_raw_fd).collect();
            // When the shim is gone, nobody waits for the answer.
            let _ =
                wire::encode(&outcome).and_then(|frame| wire::send_with_fds(&theirs, &frame, &fds));
            // SAFETY: `_exit` takes no pointers and does not return; destructors belong to the parent.
            unsafe { libc::_exit(0) }
        }
    }
}

/// libcontainer waits for its own children; a blocked or ignored SIGCHLD must not be inherited.
fn default_child_signal() {
    use nix::sys::signal::{
        SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal, sigprocmask,
    };
    let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    let _ = set_action(Signal::SIGCHLD, &default);
    let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None);
}

/// Reads the outcome; blocks until it is there or the helper has died.
pub(super) fn outcome(socket: &UnixStream) -> (Outcome, Option<OwnedFd>) {
    let mut buffer = vec![0; 4096];
    let (mut bytes, mut kept) = (Vec::new(), None);
    loop {
        match wire::receive_with_fds(socket, &mut buffer) {
            Ok((0, _)) => return (Outcome::Failed("the set-up process died".to_owned()), None),
            Ok((read, fds)) => {
                bytes.extend_from_slice(&buffer[..read]);
                kept = kept.or_else(|| fds.into_iter().next());
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                return (
                    Outcome::Failed(format!("the set-up process: {error}")),
                    None,
                );
            }
        }
        match wire::decode(&bytes) {
            Ok(Some((outcome, _))) => return (outcome, kept),
            Ok(None) => {}
            Err(error) => {
                return (
                    Outcome::Failed(format!("the set-up process: {error}")),
                    None,
                );
            }
        }
    }
}
