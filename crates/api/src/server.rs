//! Binding, accepting and stopping.

use crate::connection::Connection;
use crate::guard::Guard;
use crate::handlers::Handlers;
use crate::peers::{Accounts, GROUP};
use crate::quorum::Planes;
use arc_swap::ArcSwap;
use rustls::ServerConfig;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::service::Routes;
use warren_proto::headers::{ENVELOPE_BYTES, PEER_MESSAGE_BYTES_MAX};
use warren_types::ClusterId;

/// ALPN name of HTTP/2.
const ALPN_H2: &[u8] = b"h2";
/// Permission bits of the socket: owner and group may connect.
const SOCKET_MODE: u32 = 0o660;
/// Accepted connections waiting to be served.
const INCOMING_QUEUE: usize = 64;
/// Pause after a failed accept (mostly: no free file descriptor).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Silence after which a connection is probed.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(20);
/// Time for the answer to a probe; then the connection is closed.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Largest set of request headers, in bytes.
const HEADER_BYTES_MAX: u32 = 16 * 1024;
/// Streams a peer may open and reset before the connection is closed (rapid reset).
const PENDING_RESETS_MAX: usize = 64;

/// TLS settings that can be exchanged while the server runs.
#[derive(Clone)]
pub struct TlsSettings {
    current: Arc<ArcSwap<ServerConfig>>,
    cluster: Option<ClusterId>,
}

impl TlsSettings {
    /// Settings as `warren_security::server_config` makes them. Certificates of another cluster than
    /// `cluster` name nobody here, even if some day one CA should have signed both.
    #[must_use]
    pub fn new(config: ServerConfig, cluster: Option<ClusterId>) -> Self {
        Self {
            current: Arc::new(ArcSwap::from_pointee(with_alpn(config))),
            cluster,
        }
    }

    /// New connections use these settings from now on (renewed certificate, changed roots).
    pub fn replace(&self, config: ServerConfig) {
        self.current.store(Arc::new(with_alpn(config)));
    }
}

fn with_alpn(mut config: ServerConfig) -> ServerConfig {
    config.alpn_protocols = vec![ALPN_H2.to_vec()];
    config
}

/// Limits of the server. [`Limits::default`] holds the product's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// TLS connections at once; more wait in the kernel's queue.
    pub connections: usize,
    /// Connections to the local socket at once. Counted apart, so that a crowd outside never keeps the
    /// administrator of the machine out.
    pub local_connections: usize,
    /// Open calls of one connection.
    pub streams_per_connection: u32,
    /// Largest request message, in bytes.
    pub message_bytes: usize,
    /// Longest unary call.
    pub call: Duration,
    /// Longest TLS handshake.
    pub handshake: Duration,
    /// Time for open calls to end after the stop signal.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 4096,
            local_connections: 256,
            streams_per_connection: 256,
            message_bytes: 4 * 1024 * 1024,
            call: Duration::from_secs(30),
            handshake: Duration::from_secs(10),
            drain: Duration::from_secs(5),
        }
    }
}

/// Where to listen.
#[derive(Clone, Default)]
pub struct ApiConfig {
    /// Address and TLS settings; port 0 takes a free one.
    pub tcp: Option<(SocketAddr, TlsSettings)>,
    /// Path of the local socket.
    pub unix: Option<PathBuf>,
    /// Limits.
    pub limits: Limits,
}

/// Why the server cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody listens there already.
    #[error(
        "port {} of {} is taken: stop the program that uses it (`ss -ltnp` names it) or choose another with --api-addr",
        .0.port(), .0.ip()
    )]
    PortTaken(SocketAddr),
    /// The address cannot be used.
    #[error("cannot listen on {address}: {source}; choose another with --api-addr")]
    Tcp {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// A daemon answers on the socket.
    #[error(
        "another daemon answers on {0}: `warren node stop` stops it; two cannot share one socket"
    )]
    SocketInUse(PathBuf),
    /// There is something else than a socket.
    #[error("{0} exists and is no socket: remove it or choose another path with --socket")]
    NotASocket(PathBuf),
    /// The socket cannot be made.
    #[error(
        "cannot make the socket {path}: {source}; check that its directory exists and may be written"
    )]
    Unix {
        /// The path.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// Why a running server ended.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The transport gave up.
    #[error("the API server ended: {0}; restart the daemon")]
    Transport(#[from] tonic::transport::Error),
    /// The reflection service cannot be built from our own descriptors.
    #[error("the API descriptions of this build are broken: {0}; report this")]
    Descriptors(String),
}

/// A socket file that is removed when the server ends.
struct SocketFile {
    path: PathBuf,
    inode: u64,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Another daemon may have put its own there meanwhile; that one stays.
        if std::fs::symlink_metadata(&self.path).is_ok_and(|m| m.ino() == self.inode)
            && let Err(error) = std::fs::remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "the socket stays behind");
        }
    }
}

/// A bound server that does not serve yet.
pub struct Server {
    tcp: Option<(TcpListener, TlsSettings)>,
    unix: Option<(UnixListener, SocketFile)>,
    limits: Limits,
}

impl Server {
    /// Takes port and socket, so that what is taken shows early. Nothing is answered before
    /// [`Server::run`]; connections wait.
    ///
    /// # Errors
    /// [`BindError`] says what is taken and what to do.
    pub async fn bind(config: ApiConfig) -> Result<Self, BindError> {
        let tcp = match config.tcp {
            Some((address, tls)) => Some((bind_tcp(address).await?, tls)),
            None => None,
        };
        let unix = match config.unix {
            Some(path) => Some(bind_unix(path).await?),
            None => None,
        };
        Ok(Self {
            tcp,
            unix,
            limits: config.limits,
        })
    }

    /// The TCP address in use, with its real port.
    #[must_use]
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.tcp.as_ref().and_then(|(l, _)| l.local_addr().ok())
    }

    /// Serves until `shutdown` ends, then lets open calls end within the drain limit.
    ///
    /// # Errors
    /// [`ServeError`] when serving is not possible at all.
    pub async fn run(
        self,
        planes: impl Into<Planes>,
        shutdown: impl Future<Output = ()> + Send,
    ) -> Result<(), ServeError> {
        let (stop, stopped) = watch::channel(false);
        let Planes {
            control,
            router: _,
            peers,
        } = planes.into();
        let handlers = Handlers::new(control, peers, self.limits, stopped);
        let routes = routes(handlers, self.limits).await?;
        let (incoming, connections) = mpsc::channel(INCOMING_QUEUE);
        let mut acceptors = JoinSet::new();
        if let Some((listener, tls)) = self.tcp {
            let permits = Arc::new(Semaphore::new(self.limits.connections));
            let incoming = incoming.clone();
            acceptors.spawn(accept_tls(
                listener,
                tls,
                permits,
                incoming,
                self.limits.handshake,
            ));
        }
        // The file goes last, when nobody is served any more.
        let _socket_file = self.unix.map(|(listener, file)| {
            let permits = Arc::new(Semaphore::new(self.limits.local_connections));
            acceptors.spawn(accept_unix(listener, permits, incoming));
            file
        });
        let drain = self.limits.drain;
        let (signal, signalled) = tokio::sync::oneshot::channel::<()>();
        let serve = tonic::transport::Server::builder()
            .max_concurrent_streams(Some(self.limits.streams_per_connection))
            .http2_keepalive_interval(Some(KEEP_ALIVE_INTERVAL))
            .http2_keepalive_timeout(Some(KEEP_ALIVE_TIMEOUT))
            .http2_max_header_list_size(Some(HEADER_BYTES_MAX))
            .http2_max_pending_accept_reset_streams(Some(PENDING_RESETS_MAX))
            .serve_with_incoming_shutdown(
                Guard::new(routes),
                ReceiverStream::new(connections).map(Ok::<_, io::Error>),
                async {
                    // A dropped sender means stop, too.
                    drop(signalled.await);
                },
            );
        tokio::pin!(serve);
        tokio::select! {
            ended = &mut serve => return Ok(ended?),
            () = shutdown => {}
        }
        acceptors.abort_all();
        // Long streams (events, logs, sessions) end by themselves when they see this.
        stop.send_replace(true);
        drop(signal);
        match tokio::time::timeout(drain, serve).await {
            Ok(ended) => Ok(ended?),
            Err(_) => {
                tracing::warn!(
                    limit_ms = drain.as_millis(),
                    "open calls did not end in time"
                );
                Ok(())
            }
        }
    }
}

async fn routes(handlers: Handlers, limits: Limits) -> Result<Routes, ServeError> {
    use crate::generated::api::warren_api_server::WarrenApiServer;
    use crate::generated::peer::peer_server::PeerServer;
    use crate::generated::session::node_session_server::NodeSessionServer;
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(warren_proto::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
        .map_err(|e| ServeError::Descriptors(e.to_string()))?;
    let (health, health_service) = tonic_health::server::health_reporter();
    for service in [warren_proto::API_SERVICE, warren_proto::SESSION_SERVICE] {
        health
            .set_service_status(service, tonic_health::ServingStatus::Serving)
            .await;
    }
    Ok(Routes::new(
        WarrenApiServer::new(handlers.clone()).max_decoding_message_size(limits.message_bytes),
    )
    .add_service(
        NodeSessionServer::new(handlers.clone()).max_decoding_message_size(limits.message_bytes),
    )
    .add_service(
        PeerServer::new(handlers)
            .max_decoding_message_size(PEER_MESSAGE_BYTES_MAX + ENVELOPE_BYTES),
    )
    .add_service(reflection)
    .add_service(health_service))
}

async fn bind_tcp(address: SocketAddr) -> Result<TcpListener, BindError> {
    TcpListener::bind(address).await.map_err(|source| {
        if source.kind() == io::ErrorKind::AddrInUse {
            BindError::PortTaken(address)
        } else {
            BindError::Tcp { address, source }
        }
    })
}

async fn bind_unix(path: PathBuf) -> Result<(UnixListener, SocketFile), BindError> {
    let failed = |source| BindError::Unix {
        path: path.clone(),
        source,
    };
    match std::fs::symlink_metadata(&path) {
        Ok(meta) if !meta.file_type().is_socket() => return Err(BindError::NotASocket(path)),
        Ok(_) => {
            // A socket that nobody answers is what a killed daemon leaves behind.
            if UnixStream::connect(&path).await.is_ok() {
                return Err(BindError::SocketInUse(path));
            }
            std::fs::remove_file(&path).map_err(failed)?;
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(failed(e)),
    }
    let listener = UnixListener::bind(&path).map_err(failed)?;
    let inode = std::fs::symlink_metadata(&path).map_err(failed)?.ino();
    let file = SocketFile {
        path: path.clone(),
        inode,
    };
    open_to_group(&path).map_err(failed)?;
    Ok((listener, file))
}

/// Mode 0660 and, where it exists, the group `warren`. Who connects is checked once more by the peer's
/// credentials, so the moment before this call opens nothing.
fn open_to_group(path: &Path) -> io::Result<()> {
    if let Some(group) = Accounts::read().group_id(GROUP)
        && let Err(error) = std::os::unix::fs::chown(path, None, Some(group))
    {
        tracing::warn!(%error, "the socket could not be given to the group {GROUP}");
    }
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(SOCKET_MODE))
}

async fn accept_tls(
    listener: TcpListener,
    tls: TlsSettings,
    permits: Arc<Semaphore>,
    incoming: mpsc::Sender<Connection>,
    handshake: Duration,
) {
    // Handshakes end with this task.
    let mut handshakes = JoinSet::new();
    loop {
        while handshakes.try_join_next().is_some() {}
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else {
            return;
        };
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let acceptor = TlsAcceptor::from(tls.current.load_full());
        let (incoming, cluster) = (incoming.clone(), tls.cluster);
        handshakes.spawn(async move {
            let shaken = async {
                stream.set_nodelay(true)?;
                acceptor.accept(stream).await
            };
            match tokio::time::timeout(handshake, shaken).await {
                Ok(Ok(stream)) => {
                    let connection = Connection::tls(stream, peer, cluster, permit);
                    // A closed queue means that the server stops.
                    drop(incoming.send(connection).await);
                }
                Ok(Err(error)) => tracing::info!(%peer, %error, "TLS handshake failed"),
                Err(_) => tracing::info!(%peer, "TLS handshake took too long"),
            }
        });
    }
}

async fn accept_unix(
    listener: UnixListener,
    permits: Arc<Semaphore>,
    incoming: mpsc::Sender<Connection>,
) {
    loop {
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else {
            return;
        };
        match listener
            .accept()
            .await
            .and_then(|(stream, _)| Connection::unix(stream, permit))
        {
            Ok(connection) => {
                if incoming.send(connection).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                tracing::warn!(%error, "a local connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}
