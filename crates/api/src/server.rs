//! Binding, accepting and stopping.

use crate::accept::{Incoming, SocketFile, accept_tls, accept_unix, bind_tcp, bind_unix};
use crate::connection::Connection;
use crate::guard::Guard;
use crate::handlers::Handlers;
use crate::quorum::Planes;
use arc_swap::ArcSwap;
use rustls::ServerConfig;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::service::Routes;
use warren_proto::headers::{ENVELOPE_BYTES, PEER_MESSAGE_BYTES_MAX};
use warren_types::ClusterId;

/// ALPN name of HTTP/2.
const ALPN_H2: &[u8] = b"h2";
/// Accepted connections waiting to be served.
const INCOMING_QUEUE: usize = 64;
/// Silence after which a connection is probed.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(20);
/// Time for the answer to a probe; then the connection is closed.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Largest set of request headers, in bytes.
const HEADER_BYTES_MAX: u32 = 16 * 1024;
/// Streams a peer may open and reset before the connection is closed (rapid reset).
const PENDING_RESETS_MAX: usize = 64;
/// The same for a manager, which forwards the calls of many.
const MANAGER_PENDING_RESETS_MAX: usize = 4096;
/// Bytes that one call of a manager may have under way towards this side.
const MANAGER_STREAM_WINDOW: u32 = 1024 * 1024;
/// Bytes that all calls of one manager's connection may have under way; many times that of one call, so that a few that are
/// read slowly do not stop the others.
const MANAGER_CONNECTION_WINDOW: u32 = 64 * 1024 * 1024;

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

    pub(crate) fn current(&self) -> Arc<ServerConfig> {
        self.current.load_full()
    }

    pub(crate) const fn cluster(&self) -> Option<ClusterId> {
        self.cluster
    }
}

fn with_alpn(mut config: ServerConfig) -> ServerConfig {
    config.alpn_protocols = vec![ALPN_H2.to_vec()];
    config
}

/// Limits of the server. [`Limits::default`] holds the product's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// TLS connections at once, without those of managers; more wait for a place as long as a handshake may take.
    pub connections: usize,
    /// TLS connections of managers at once. Counted apart, so that a crowd of clients never keeps managers apart.
    pub manager_connections: usize,
    /// TLS connections at once of which it is not known yet whose they are; more wait in the kernel's queue. And as many,
    /// known, may wait for a place.
    pub handshakes: usize,
    /// Connections to the local socket at once. Counted apart, so that a crowd outside never keeps the
    /// administrator of the machine out.
    pub local_connections: usize,
    /// Open calls of one connection.
    pub streams_per_connection: u32,
    /// Open calls of one manager's connection, which carries the forwarded calls of many clients.
    pub streams_per_manager: u32,
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
            manager_connections: 256,
            handshakes: 512,
            local_connections: 256,
            streams_per_connection: 256,
            streams_per_manager: 16_384,
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

    /// Serves until `shutdown` ends, then lets open calls end within the drain limit. Takes a
    /// [`crate::ControlPlane`] alone (every call is carried out here, there are no managers) or [`Planes`].
    ///
    /// # Errors
    /// [`ServeError`] when serving is not possible at all.
    pub async fn run(
        self,
        planes: impl Into<Planes>,
        shutdown: impl Future<Output = ()> + Send,
    ) -> Result<(), ServeError> {
        let Planes {
            control,
            router,
            peers,
        } = planes.into();
        let limits = self.limits;
        let (stop, stopped) = watch::channel(false);
        let handlers = Handlers::new(control, peers, limits, stopped.clone());
        let guard = Guard::new(routes(handlers, limits).await?, router, stopped);
        let (clients, from_clients) = mpsc::channel(INCOMING_QUEUE);
        let (managers, from_managers) = mpsc::channel(INCOMING_QUEUE);
        let mut acceptors = JoinSet::new();
        let incoming = Incoming { clients, managers };
        if let Some((listener, tls)) = self.tcp {
            acceptors.spawn(accept_tls(listener, tls, limits, incoming.clone()));
        }
        // The file goes last, when nobody is served any more.
        let _socket_file = self.unix.map(|(listener, file)| {
            let permits = Arc::new(Semaphore::new(limits.local_connections));
            acceptors.spawn(accept_unix(listener, permits, incoming.clients.clone()));
            file
        });
        // The queues live as long as the acceptors.
        drop(incoming);
        let (signal, signalled) = watch::channel(());
        let serve = futures::future::try_join(
            serve(
                http2_clients(limits),
                guard.clone(),
                from_clients,
                signalled.clone(),
            ),
            serve(http2_managers(limits), guard, from_managers, signalled),
        );
        tokio::pin!(serve);
        tokio::select! {
            ended = &mut serve => return ended.map(drop),
            () = shutdown => {}
        }
        acceptors.abort_all();
        // Long streams (events, logs, sessions) end by themselves when they see this.
        stop.send_replace(true);
        drop(signal);
        match tokio::time::timeout(limits.drain, serve).await {
            Ok(ended) => ended.map(drop),
            Err(_) => {
                tracing::warn!(
                    limit_ms = limits.drain.as_millis(),
                    "open calls did not end in time"
                );
                Ok(())
            }
        }
    }
}

/// Serves the connections of one queue until the sender of `signalled` is dropped, and then to their ends.
async fn serve(
    http2: tonic::transport::Server,
    guard: Guard,
    connections: mpsc::Receiver<Connection>,
    mut signalled: watch::Receiver<()>,
) -> Result<(), ServeError> {
    let stop = async move { while signalled.changed().await.is_ok() {} };
    let connections = ReceiverStream::new(connections).map(Ok::<_, io::Error>);
    http2
        .serve_with_incoming_shutdown(guard, connections, stop)
        .await?;
    Ok(())
}

fn http2(limits: Limits) -> tonic::transport::Server {
    tonic::transport::Server::builder()
        .max_concurrent_streams(Some(limits.streams_per_connection))
        .http2_keepalive_interval(Some(KEEP_ALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEP_ALIVE_TIMEOUT))
        .http2_max_header_list_size(Some(HEADER_BYTES_MAX))
}

fn http2_clients(limits: Limits) -> tonic::transport::Server {
    http2(limits).http2_max_pending_accept_reset_streams(Some(PENDING_RESETS_MAX))
}

fn http2_managers(limits: Limits) -> tonic::transport::Server {
    http2(limits)
        .max_concurrent_streams(Some(limits.streams_per_manager))
        .http2_max_pending_accept_reset_streams(Some(MANAGER_PENDING_RESETS_MAX))
        .initial_stream_window_size(Some(MANAGER_STREAM_WINDOW))
        .initial_connection_window_size(Some(MANAGER_CONNECTION_WINDOW))
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
    let mut services = vec![warren_proto::API_SERVICE, warren_proto::SESSION_SERVICE];
    if handlers.serves_managers() {
        services.push(warren_proto::PEER_SERVICE);
    }
    for service in services {
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
