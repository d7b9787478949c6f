//! Waiting for a descriptor in the async runtime.

use std::io;
use std::os::fd::OwnedFd;
use tokio::io::unix::AsyncFd;

/// Registers an owned descriptor.
#[allow(
    unsafe_code,
    reason = "tokio cannot know in general that the descriptor stays the same"
)]
pub(crate) fn register(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is one open descriptor for as long as it lives, and `AsyncFd` owns it from here on.
    Ok(unsafe { AsyncFd::register(fd) }?)
}
