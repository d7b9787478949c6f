//! A stream of bytes on which small pieces that are written at the same time go out together.
//!
//! Many calls share one connection, and what speaks HTTP/2 on it flushes whenever it is woken: after each request that is
//! made, after each answer that is ready. So each became a TLS record, a system call and a packet of its own, which cost both
//! sides more than the call did. [`Gather`] keeps what is written, and when it is told to flush it lets the other tasks that
//! are ready have their turn first, once; what they write meanwhile goes out with it. Nobody waits for a clock: on a
//! connection that carries one call at a time the turn is over at once.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Most bytes that are kept: what one TLS record holds.
const KEPT_MAX: usize = 16 * 1024;
/// So many bytes are worth a system call of their own, and wait for nobody.
const ENOUGH: usize = 8 * 1024;

/// A stream of bytes that gathers what is written. It does not show itself: secrets pass through it.
pub struct Gather<I> {
    io: I,
    /// What was taken and not handed on yet, from `handed` on.
    kept: Vec<u8>,
    handed: usize,
    /// The others have had their turn since the flush was asked for.
    waited: bool,
}

impl<I> Gather<I> {
    /// Gathers what is written to `io`.
    pub const fn new(io: I) -> Self {
        Self {
            io,
            kept: Vec::new(),
            handed: 0,
            waited: false,
        }
    }
}

impl<I: AsyncWrite + Unpin> Gather<I> {
    /// Hands on all that is kept.
    fn poll_hand_on(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest @ [_, ..]) = self.kept.get(self.handed..) {
            let written = ready!(Pin::new(&mut self.io).poll_write(cx, rest))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.handed += written;
        }
        self.kept.clear();
        self.handed = 0;
        Poll::Ready(Ok(()))
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Gather<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

/// It says that it does not take several buffers at once: HTTP/2 then copies small frames together by itself, where it would
/// else flush between them.
impl<I: AsyncWrite + Unpin> AsyncWrite for Gather<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if this.kept.len() + buf.len() > KEPT_MAX {
            ready!(this.poll_hand_on(cx))?;
        }
        if this.kept.is_empty() && buf.len() >= ENOUGH {
            return Pin::new(&mut this.io).poll_write(cx, buf);
        }
        this.kept.extend_from_slice(buf);
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !this.waited && (1..ENOUGH).contains(&this.kept.len()) {
            this.waited = true;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        ready!(this.poll_hand_on(cx))?;
        this.waited = false;
        Pin::new(&mut this.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_hand_on(cx))?;
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;
