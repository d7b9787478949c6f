//! What one manager asks of another.
//!
//! Three connections: one for the messages of the consensus protocol, one for snapshots and keys, one for forwarded calls, so that
//! neither a snapshot nor a crowd of forwarded calls ever delays a heartbeat.

use crate::error::{ClientError, ErrorKind};
use crate::generated::peer::peer_client::PeerClient as Generated;
use crate::http2::Http2;
use crate::identity::IdentitySource;
use crate::link::{Link, Tuning, Way};
use bytes::Bytes;
use futures::stream;
use std::fmt;
use std::io::Read;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};
use warren_proto::headers::{ENVELOPE_BYTES, PEER_MESSAGE_BYTES_MAX};
use warren_proto::peer;
use warren_types::NodeId;
use zeroize::Zeroizing;

/// Longest time to open a connection to another manager.
const CONNECT_LIMIT: Duration = Duration::from_millis(700);
/// Time limit of the short calls.
const CALL_LIMIT: Duration = Duration::from_secs(5);
/// Bytes of one piece of a snapshot.
const PIECE_BYTES: usize = 512 * 1024;
/// A transfer of which the other side takes nothing for this long is given up; the next one goes on where it ended.
const STALL_LIMIT: Duration = Duration::from_secs(10);
/// Time for the other side to put a snapshot in force after its last byte.
const INSTALL_LIMIT: Duration = Duration::from_secs(120);
/// Silence after which a connection is probed.
const PROBE_AFTER: Duration = Duration::from_secs(1);
/// Time for the answer to a probe.
const PROBE_LIMIT: Duration = Duration::from_secs(2);
/// Bytes that all answers of one connection may have under way; many times what one may have, so that a few whose readers
/// are slow do not stop the others.
const CONNECTION_WINDOW_BYTES: u32 = 64 * 1024 * 1024;
/// Bytes that one answer may have under way.
const STREAM_WINDOW_BYTES: u32 = 256 * 1024;

const TUNING: Tuning = Tuning {
    probe_after: PROBE_AFTER,
    probe_limit: PROBE_LIMIT,
    stream_window: Some(STREAM_WINDOW_BYTES),
    connection_window: Some(CONNECTION_WINDOW_BYTES),
};

/// Another manager. Cloning is cheap and shares the connections.
#[derive(Clone)]
pub struct PeerClient {
    node: NodeId,
    address: String,
    consensus: Arc<Link>,
    snapshots: Arc<Link>,
    forwarding: Arc<Link<Channel>>,
}

impl fmt::Debug for PeerClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PeerClient({} at {})", self.node, self.address)
    }
}

/// A data key as another manager gave it: epoch and key.
pub type DataKey = (u32, Zeroizing<Vec<u8>>);

impl PeerClient {
    /// The manager `expect` at `host:port`. Connections are opened when they are needed, and only used when the
    /// certificate of the other side is that of a manager and of this node.
    #[must_use]
    pub fn connect_lazy(address: String, expect: NodeId, identity: &IdentitySource) -> Self {
        let way = || Way::Tls {
            address: address.clone(),
            identity: identity.clone(),
            expect: Some(expect),
        };
        Self {
            node: expect,
            consensus: Link::new(way(), TUNING),
            snapshots: Link::new(way(), TUNING),
            forwarding: Link::new(way(), TUNING),
            address,
        }
    }

    /// Who has to answer.
    #[must_use]
    pub const fn node(&self) -> NodeId {
        self.node
    }

    /// Where.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// One message of the consensus protocol, and its answer. One attempt: what is to be repeated is for the protocol to
    /// decide.
    ///
    /// # Errors
    /// [`ErrorKind::PermissionDenied`] when another node answers at the address; [`ErrorKind::Removed`] when this node has
    /// been removed; [`ErrorKind::DeadlineExceeded`] after `limit`; else by the other manager's status.
    pub async fn call(
        &self,
        kind: u32,
        message: Bytes,
        limit: Duration,
    ) -> Result<Bytes, ClientError> {
        let request = peer::CallRequest {
            kind,
            message: message.into(),
        };
        let answer = self
            .short(&self.consensus, limit, |mut api| async move {
                api.call(Request::new(request)).await
            })
            .await?;
        Ok(answer.message.into())
    }

    /// What a follower must have applied before it may answer a linearizable read; asked of the leader.
    ///
    /// # Errors
    /// As [`PeerClient::call`]; [`ErrorKind::NotTaken`] when that manager does not lead.
    pub async fn read_index(&self, limit: Duration) -> Result<u64, ClientError> {
        let answer = self
            .short(&self.consensus, limit, |mut api| async move {
                api.read_index(Request::new(peer::ReadIndexRequest {}))
                    .await
            })
            .await?;
        Ok(answer.index)
    }

    /// Offers data keys to be kept there, and gets all that the other manager has.
    ///
    /// # Errors
    /// As [`PeerClient::call`].
    pub async fn data_keys(&self, offered: &[(u32, Vec<u8>)]) -> Result<Vec<DataKey>, ClientError> {
        let offered = offered.iter().map(|(epoch, key)| peer::DataKeyMaterial {
            epoch: *epoch,
            key: key.clone(),
        });
        let request = peer::DataKeysRequest {
            offered: offered.collect(),
        };
        let answer = self
            .short(&self.snapshots, CALL_LIMIT, |mut api| async move {
                api.data_keys(Request::new(request)).await
            })
            .await?;
        let keys = answer.keys.into_iter();
        Ok(keys.map(|k| (k.epoch, Zeroizing::new(k.key))).collect())
    }

    /// A connection for forwarding calls. It is open now; when it breaks, calls on it fail, and this gives another.
    ///
    /// # Errors
    /// Why none can be opened; [`ErrorKind::PermissionDenied`] when another node answers at the address.
    pub async fn channel(&self) -> Result<Channel, ClientError> {
        self.forwarding.channel(CONNECT_LIMIT).await
    }

    /// Sends a snapshot: asks how much of it is there already, and sends the rest as fast as it is taken. Returns what the
    /// other manager says after the snapshot is in force there.
    ///
    /// # Errors
    /// [`ErrorKind::Local`] when reading fails; [`ErrorKind::DeadlineExceeded`] when the other side takes nothing for 10 s;
    /// else as [`PeerClient::call`]. What has arrived need not be sent again.
    pub async fn send_snapshot<R>(&self, header: Bytes, mut data: R) -> Result<Bytes, ClientError>
    where
        R: Read + Send + 'static,
    {
        let begin = peer::SnapshotBeginRequest {
            header: header.to_vec(),
        };
        let begun = self
            .short(&self.snapshots, CALL_LIMIT, |mut api| async move {
                api.snapshot_begin(Request::new(begin)).await
            })
            .await?;
        let offset = begun.have_bytes;
        let data = reading(move || {
            skip(&mut data, offset)?;
            Ok(data)
        });
        let data = data.await.map_err(unreadable)?;
        let (progress, sent) = watch::channel(Progress::Sending);
        let pieces = stream::unfold(
            Some(Unsent {
                header: header.to_vec(),
                data,
                offset,
                progress,
            }),
            next_piece,
        );
        let mut api = self.api(self.snapshots.channel(CONNECT_LIMIT).await?);
        let call = api.snapshot_send(pieces);
        tokio::pin!(call);
        tokio::select! {
            answer = &mut call => Ok(answer?.into_inner().message.into()),
            stopped = given_up(sent) => Err(stopped),
        }
    }

    fn api(&self, channel: Http2) -> Generated<Http2> {
        Generated::new(channel).max_decoding_message_size(PEER_MESSAGE_BYTES_MAX + ENVELOPE_BYTES)
    }

    async fn short<T, F, Fut>(
        &self,
        link: &Link,
        limit: Duration,
        send: F,
    ) -> Result<T, ClientError>
    where
        F: FnOnce(Generated<Http2>) -> Fut,
        Fut: Future<Output = Result<Response<T>, Status>>,
    {
        let call = async {
            let channel = link.channel(CONNECT_LIMIT).await?;
            Ok(send(self.api(channel)).await?.into_inner())
        };
        tokio::time::timeout(limit, call).await.unwrap_or_else(|_| {
            Err(ClientError::new(
                ErrorKind::DeadlineExceeded,
                format!(
                    "manager {} at {} did not answer within {} ms",
                    self.node,
                    self.address,
                    limit.as_millis()
                ),
                "",
            ))
        })
    }
}

/// How far a transfer is.
enum Progress {
    /// Another piece was taken.
    Sending,
    /// All pieces were taken.
    Sent,
    /// Reading failed.
    Unreadable(String),
}

/// Ends when the transfer should not be waited for any longer.
async fn given_up(mut progress: watch::Receiver<Progress>) -> ClientError {
    let mut limit = STALL_LIMIT;
    loop {
        let until = Instant::now() + limit;
        match tokio::time::timeout_at(until, progress.changed()).await {
            Ok(Ok(())) => match &*progress.borrow_and_update() {
                Progress::Sending => {}
                Progress::Sent => limit = INSTALL_LIMIT,
                Progress::Unreadable(why) => {
                    return unreadable(std::io::Error::other(why.clone()));
                }
            },
            // The sender is gone: everything was sent, or the call is over. The time goes on.
            Ok(Err(_)) => {
                tokio::time::sleep_until(until).await;
                return stalled(limit);
            }
            Err(_) => return stalled(limit),
        }
    }
}

fn stalled(limit: Duration) -> ClientError {
    ClientError::new(
        ErrorKind::DeadlineExceeded,
        format!(
            "the other manager did not go on with a snapshot within {} s",
            limit.as_secs()
        ),
        "it is sent again by itself, from where it ended",
    )
}

fn unreadable(error: std::io::Error) -> ClientError {
    ClientError::new(
        ErrorKind::Local,
        format!("the snapshot could not be read: {error}"),
        "another one is made by itself; check the disk",
    )
}

/// What is still to be sent.
struct Unsent<R> {
    /// Empty after the first piece.
    header: Vec<u8>,
    data: R,
    offset: u64,
    progress: watch::Sender<Progress>,
}

/// Reads where that holds nobody up: a disk may be slow.
async fn reading<T: Send + 'static>(
    read: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> std::io::Result<T> {
    tokio::task::spawn_blocking(read)
        .await
        .unwrap_or_else(|_| Err(std::io::Error::other("reading ended without a result")))
}

/// Passes over what the other side has already.
fn skip(data: &mut impl Read, bytes: u64) -> std::io::Result<()> {
    let skipped = std::io::copy(&mut data.take(bytes), &mut std::io::sink())?;
    if skipped == bytes {
        Ok(())
    } else {
        Err(std::io::ErrorKind::UnexpectedEof.into())
    }
}

/// The next piece; shorter than the others only at the end.
fn read_piece(data: &mut impl Read) -> std::io::Result<Vec<u8>> {
    let mut piece = Vec::with_capacity(PIECE_BYTES);
    data.take(PIECE_BYTES as u64).read_to_end(&mut piece)?;
    Ok(piece)
}

async fn next_piece<R: Read + Send + 'static>(
    unsent: Option<Unsent<R>>,
) -> Option<(peer::SnapshotChunk, Option<Unsent<R>>)> {
    let Unsent {
        header,
        mut data,
        offset,
        progress,
    } = unsent?;
    let read = reading(move || {
        let piece = read_piece(&mut data)?;
        Ok((piece, data))
    });
    let (piece, rest) = match read.await {
        Ok(read) => read,
        Err(error) => {
            progress.send_replace(Progress::Unreadable(error.to_string()));
            // The call must end as an error, not as the end of the snapshot; whoever made it ends it now.
            return std::future::pending().await;
        }
    };
    let size = piece.len();
    let last = size < PIECE_BYTES;
    let message = peer::SnapshotChunk {
        header,
        offset,
        last,
        data: piece,
    };
    progress.send_replace(if last {
        Progress::Sent
    } else {
        Progress::Sending
    });
    let unsent = Unsent {
        header: Vec::new(),
        data: rest,
        offset: offset + size as u64,
        progress,
    };
    Some((message, (!last).then_some(unsent)))
}
