//! One connection to one address, opened when it is needed and opened anew after it broke.
//!
//! A broken connection fails the calls on it at once and no later one; calls that come while it is being opened wait for
//! the same attempt and share its result, so that a dead address costs its time limit once, not once for each call.

use crate::error::{ClientError, ConnectFailure, ErrorKind};
use crate::http2::Http2;
use crate::identity::IdentitySource;
use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared};
use hyper_util::rt::TokioIo;
use std::fmt;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tonic::codegen::Service;
use tonic::transport::{Channel, Endpoint, Uri};
use warren_gather::Gather;
use warren_security::{identity_from_der, pin_error};
use warren_types::{NodeId, Role};

pub(crate) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}
type BoxIo = Box<dyn Io>;

/// How to reach the other side.
#[derive(Clone, Debug)]
pub(crate) enum Way {
    /// The local daemon.
    Unix(PathBuf),
    /// A manager over TLS.
    Tls {
        /// `host:port`.
        address: String,
        identity: IdentitySource,
        /// The manager that has to answer; `None` takes any.
        expect: Option<NodeId>,
    },
}

impl Way {
    fn generation(&self) -> u64 {
        match self {
            Self::Unix(_) => 0,
            Self::Tls { identity, .. } => identity.held().generation,
        }
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "{}", path.display()),
            Self::Tls { address, .. } => f.write_str(address),
        }
    }
}

/// Settings of HTTP/2.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tuning {
    /// Silence after which the connection is probed.
    pub(crate) probe_after: Duration,
    /// Time for the answer to a probe; then the connection counts as dead.
    pub(crate) probe_limit: Duration,
    /// Bytes that one call may have under way towards this side.
    pub(crate) stream_window: Option<u32>,
    /// Bytes that all calls together may have under way towards this side.
    pub(crate) connection_window: Option<u32>,
}

/// What speaks HTTP/2 on a connection.
pub(crate) trait Carrier: Clone + Send + Sync + 'static {
    /// Begins to.
    fn begin(io: Watched, tuning: Tuning)
    -> impl Future<Output = Result<Self, ClientError>> + Send;
}

impl Carrier for Http2 {
    async fn begin(io: Watched, tuning: Tuning) -> Result<Self, ClientError> {
        Self::over(io, tuning).await
    }
}

/// For calls that come with somebody else's time limit, which it keeps.
impl Carrier for Channel {
    async fn begin(io: Watched, tuning: Tuning) -> Result<Self, ClientError> {
        let once = Once(Arc::new(Mutex::new(Some(io))));
        Ok(endpoint(tuning).connect_with_connector(once).await?)
    }
}

/// The connection to one address.
pub(crate) struct Link<C: Carrier = Http2> {
    way: Way,
    tuning: Tuning,
    state: Arc<Mutex<State<C>>>,
}

enum State<C: Carrier> {
    Idle,
    Opening(Opening<C>),
    Open(Live<C>),
}

#[derive(Clone)]
struct Opening<C: Carrier> {
    generation: u64,
    result: Shared<BoxFuture<'static, Result<Live<C>, ClientError>>>,
}

#[derive(Clone)]
struct Live<C> {
    generation: u64,
    channel: C,
    alive: Arc<AtomicBool>,
}

impl<C> Live<C> {
    fn is_usable(&self, generation: u64) -> bool {
        self.generation == generation && self.alive.load(Ordering::Acquire)
    }
}

impl<C: Carrier> Link<C> {
    pub(crate) fn new(way: Way, tuning: Tuning) -> Arc<Self> {
        Arc::new(Self {
            way,
            tuning,
            state: Arc::new(Mutex::new(State::Idle)),
        })
    }

    pub(crate) const fn way(&self) -> &Way {
        &self.way
    }

    /// The open connection, or a new one, which `limit` is for.
    ///
    /// # Errors
    /// What stands against it; nothing was sent then.
    pub(crate) async fn channel(&self, limit: Duration) -> Result<C, ClientError> {
        let generation = self.way.generation();
        let opening = {
            let mut state = lock(&self.state);
            match &*state {
                State::Open(live) if live.is_usable(generation) => return Ok(live.channel.clone()),
                State::Opening(opening) if opening.generation == generation => opening.clone(),
                _ => {
                    let opening = self.begin(generation, limit);
                    *state = State::Opening(opening.clone());
                    opening
                }
            }
        };
        opening.result.await.map(|live| live.channel)
    }

    /// Starts a task, which goes on when the caller that wanted the connection goes away: the next one wants it too.
    fn begin(&self, generation: u64, limit: Duration) -> Opening<C> {
        let (way, tuning, state) = (self.way.clone(), self.tuning, Arc::clone(&self.state));
        let task = tokio::spawn(async move {
            let result = open(&way, tuning, generation, limit).await;
            let mut state = lock(&state);
            // With another identity meanwhile, another attempt has taken this one's place.
            if matches!(&*state, State::Opening(now) if now.generation == generation) {
                *state = match &result {
                    Ok(live) => State::Open(live.clone()),
                    Err(_) => State::Idle,
                };
            }
            result
        });
        let result = async move {
            task.await.unwrap_or_else(|_| {
                Err(ClientError::new(
                    ErrorKind::Unavailable,
                    "this program ends",
                    "start it again",
                ))
            })
        };
        Opening {
            generation,
            result: result.boxed().shared(),
        }
    }
}

fn lock<C: Carrier>(state: &Mutex<State<C>>) -> std::sync::MutexGuard<'_, State<C>> {
    // Nothing that holds it can panic half way through a change.
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn open<C: Carrier>(
    way: &Way,
    tuning: Tuning,
    generation: u64,
    limit: Duration,
) -> Result<Live<C>, ClientError> {
    let io = tokio::time::timeout(limit, dial(way))
        .await
        .unwrap_or_else(|_| {
            Err(ClientError::new(
                ErrorKind::Unavailable,
                format!("{way}: no answer within {} ms", limit.as_millis()),
                "",
            ))
        })?;
    let alive = Arc::new(AtomicBool::new(true));
    let io = Watched {
        io: Gather::new(io),
        alive: Arc::clone(&alive),
    };
    Ok(Live {
        generation,
        channel: C::begin(io, tuning).await?,
        alive,
    })
}

fn endpoint(tuning: Tuning) -> Endpoint {
    // The address is the connector's business; this is only the `:authority` of the requests. TLS is done before, so the
    // scheme here is always http.
    Endpoint::from_static("http://manager.warren")
        .http2_keep_alive_interval(tuning.probe_after)
        .keep_alive_timeout(tuning.probe_limit)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(tuning.stream_window)
        .initial_connection_window_size(tuning.connection_window)
}

async fn dial(way: &Way) -> Result<BoxIo, ClientError> {
    match way {
        Way::Unix(path) => open_unix(path).await,
        Way::Tls {
            address,
            identity,
            expect,
        } => open_tls(address, identity, *expect).await,
    }
}

async fn open_tls(
    address: &str,
    identity: &IdentitySource,
    expect: Option<NodeId>,
) -> Result<BoxIo, ClientError> {
    let held = identity.held();
    let failed = |error: io::Error| {
        // A certificate that is refused is another matter than nobody at home.
        let kind = if error.kind() == io::ErrorKind::InvalidData {
            ErrorKind::PermissionDenied
        } else {
            ErrorKind::Unavailable
        };
        // Of a joiner, which knows no more than the digest of the CA.
        let why = error
            .get_ref()
            .and_then(|inner| inner.downcast_ref())
            .and_then(pin_error)
            .map_or_else(|| error.to_string(), ToString::to_string);
        ClientError::new(kind, format!("{address}: {why}"), "")
    };
    let tcp = TcpStream::connect(address).await.map_err(failed)?;
    tcp.set_nodelay(true).map_err(failed)?;
    let name = warren_security::server_name();
    let stream = held.tls.connect(name, tcp).await.map_err(failed)?;
    if let Some(expect) = expect {
        let shown = stream.get_ref().1.peer_certificates();
        let other = |who: String| {
            ClientError::new(
                ErrorKind::PermissionDenied,
                format!("another node answers at {address}: {who}, not manager {expect}"),
                "check the manager addresses in `warren cluster info`",
            )
        };
        let certificate = shown
            .and_then(|chain| chain.first())
            .ok_or_else(|| other("one without a certificate".to_owned()))?;
        let found = identity_from_der(certificate).map_err(|e| other(e.to_string()))?;
        let of_cluster = held.cluster.is_none_or(|cluster| cluster == found.cluster);
        if found.role != Role::Manager || found.node != Some(expect) || !of_cluster {
            return Err(other(format!("{} {}", found.role.name(), found.name)));
        }
    }
    Ok(Box::new(stream))
}

async fn open_unix(path: &Path) -> Result<BoxIo, ClientError> {
    let shown = path.display();
    match UnixStream::connect(path).await {
        Ok(stream) => Ok(Box::new(stream)),
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => Err(ClientError::new(
            ErrorKind::PermissionDenied,
            format!("the socket {shown} may not be opened by this user"),
            "run the command as root or as a member of the group warren",
        )),
        Err(e)
            if matches!(
                e.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
            ) =>
        {
            Err(ClientError::new(
                ErrorKind::Unavailable,
                format!("no Warren daemon answers on this machine (socket {shown})"),
                "start one with `warren up`, or name a manager with --manager",
            ))
        }
        Err(e) => Err(ClientError::new(
            ErrorKind::Unavailable,
            format!("cannot connect to the socket {shown}: {e}"),
            "check that the daemon runs",
        )),
    }
}

/// Gives the one stream of bytes away. A channel that asks again has lost it: the call that made it ask was not sent.
#[derive(Clone)]
struct Once(Arc<Mutex<Option<Watched>>>);

impl Service<Uri> for Once {
    type Response = TokioIo<Watched>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _uri: Uri) -> Self::Future {
        let io = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        Box::pin(std::future::ready(io.map(TokioIo::new).ok_or_else(|| {
            io::Error::other(ConnectFailure(ClientError::new(
                ErrorKind::Unavailable,
                "the connection to the manager broke before the call was sent",
                "try again",
            )))
        })))
    }
}

/// A stream of bytes that says when it is gone.
pub(crate) struct Watched {
    io: Gather<BoxIo>,
    alive: Arc<AtomicBool>,
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.alive.store(false, Ordering::Release);
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
