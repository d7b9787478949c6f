//! The line between the driver and the shims: connections, messages, news.

use super::{Inner, blocking};
use crate::driver::RuntimeEvent;
use crate::entry::{Change, Entry};
use crate::error::RuntimeError;
use crate::record::{ContainerDir, SOCKET};
use crate::wire::{self, Reply, Request, ShimState};
use serde::de::DeserializeOwned;
use std::io;
use std::sync::{Arc, Weak};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::broadcast;

/// Connects to the shim in a directory.
pub(super) fn connect(dir: &ContainerDir) -> io::Result<UnixStream> {
    let stream = wire::connect(&dir.0, SOCKET)?;
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}

/// Writes one message.
pub(super) async fn write(stream: &mut UnixStream, message: &Request) -> io::Result<()> {
    stream.write_all(&wire::encode(message)?).await
}

/// Cuts a stream into messages. Dropping a pending `next` loses nothing.
#[derive(Debug, Default)]
pub(super) struct Frames {
    buffer: Vec<u8>,
}

impl Frames {
    pub(super) async fn next<T: DeserializeOwned>(
        &mut self,
        stream: &mut (impl tokio::io::AsyncRead + Unpin),
    ) -> io::Result<T> {
        loop {
            if let Some((message, used)) = wire::decode(&self.buffer)? {
                self.buffer.drain(..used);
                return Ok(message);
            }
            if stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

/// Asks a shim for its state and for news.
pub(super) async fn subscribe(dir: &ContainerDir) -> io::Result<(ShimState, UnixStream)> {
    let mut stream = connect(dir)?;
    write(&mut stream, &Request::Subscribe).await?;
    // Nothing follows the state unasked in the same moment but whole frames of a start or an end, which
    // `follow` must see: so exactly one frame is read here.
    let mut head = [0; 4];
    stream.read_exact(&mut head).await?;
    let length = u32::from_le_bytes(head) as usize;
    if length > wire::MAX_FRAME_BYTES {
        return Err(io::Error::other("the shim's state is too long"));
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    match serde_json::from_slice(&body)? {
        Reply::State(state) => Ok((state, stream)),
        other => Err(io::Error::other(format!("the shim answered {other:?}"))),
    }
}

/// Takes the news of one shim until it ends; if it ends without a word, cleans up after it. Does not keep the
/// driver alive: when that is dropped, another one may take the container over.
pub(super) async fn follow(
    driver: Weak<Inner>,
    events: broadcast::Sender<RuntimeEvent>,
    entry: Arc<Entry>,
    mut stream: UnixStream,
) {
    let mut frames = Frames::default();
    loop {
        match frames.next(&mut stream).await {
            Ok(Reply::Started { at }) => entry.advance(Change::Started(at), &events),
            Ok(Reply::Exited(exit)) => return entry.advance(Change::Exited(exit), &events),
            Ok(_) => {}
            Err(_) => break,
        }
    }
    let Some(inner) = driver.upgrade() else {
        return;
    };
    let id = entry.id();
    let swept = blocking(move || {
        let dir = inner.dir(id);
        inner
            .sweep(&dir, id)
            .map_err(|e| RuntimeError::io("clean up", &dir.0, e))
    })
    .await;
    match swept {
        Ok(exit) => entry.advance(Change::Exited(exit), &events),
        Err(error) => {
            tracing::error!(container = %id, %error, "the shim vanished and its container could not be ended")
        }
    }
}
