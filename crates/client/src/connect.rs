//! One connection, made again when it breaks, over whichever address answers.

use crate::error::{ClientError, ConnectFailure, ErrorKind};
use crate::generated::api::warren_api_client::WarrenApiClient;
use crate::target::Target;
use hyper_util::rt::TokioIo;
use std::future::Future;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tonic::codegen::Service;
use tonic::transport::{Channel, Endpoint, Uri};

/// Longest time to open a connection to one address, handshake included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Silence after which the connection is probed.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// Time for the answer to a probe; then the connection counts as dead.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// Largest answer that is taken, in bytes.
pub(crate) const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;
/// ALPN name of HTTP/2.
const ALPN_H2: &[u8] = b"h2";

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A client of one cluster. Cloning is cheap and shares the connection.
#[derive(Clone, Debug)]
pub struct Client {
    channel: Channel,
    target: Arc<Target>,
}

impl Client {
    /// Opens a connection. Later the client opens it again by itself when it breaks.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] when nobody answers, [`ErrorKind::PermissionDenied`] when the socket
    /// may not be opened, [`ErrorKind::Local`] for unusable certificates.
    pub async fn connect(target: Target) -> Result<Self, ClientError> {
        let channel = endpoint()?
            .connect_with_connector(connector(&target)?)
            .await?;
        Ok(Self {
            channel,
            target: Arc::new(target),
        })
    }

    /// Like [`Client::connect`], but opens the connection at the first call.
    ///
    /// # Errors
    /// [`ErrorKind::Local`] for unusable certificates.
    pub fn connect_lazy(target: Target) -> Result<Self, ClientError> {
        let channel = endpoint()?.connect_with_connector_lazy(connector(&target)?);
        Ok(Self {
            channel,
            target: Arc::new(target),
        })
    }

    /// Whom this client talks to.
    #[must_use]
    pub fn target(&self) -> &Target {
        &self.target
    }

    pub(crate) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    pub(crate) fn api(&self) -> WarrenApiClient<Channel> {
        WarrenApiClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }
}

fn endpoint() -> Result<Endpoint, ClientError> {
    // The address is the connector's business; this is only the `:authority` of the requests. TLS is
    // done by the connector too, so the scheme here is always http.
    Ok(Endpoint::from_static("http://manager.warren")
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .keep_alive_while_idle(true))
}

/// Opens one connection to the target; used by the channel whenever it needs one.
#[derive(Clone)]
struct Connector {
    target: Arc<Target>,
    tls: Option<TlsConnector>,
    /// Index of the address that answered last.
    last_good: Arc<AtomicUsize>,
}

fn connector(target: &Target) -> Result<Connector, ClientError> {
    let tls = match target {
        Target::Unix(_) => None,
        Target::Tcp { identity, .. } => {
            let own = identity
                .own
                .as_ref()
                .map(|(cert, key)| (cert.as_str(), key.as_str()));
            let mut config = warren_security::client_config(&identity.ca_pem, own)
                .map_err(|e| ClientError::new(ErrorKind::Local, e.to_string(), ""))?;
            config.alpn_protocols = vec![ALPN_H2.to_vec()];
            Some(TlsConnector::from(Arc::new(config)))
        }
    };
    Ok(Connector {
        target: Arc::new(target.clone()),
        tls,
        last_good: Arc::default(),
    })
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Box<dyn Io>>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _uri: Uri) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            this.open()
                .await
                .map(TokioIo::new)
                .map_err(|e| io::Error::other(ConnectFailure(e)))
        })
    }
}

impl Connector {
    async fn open(&self) -> Result<Box<dyn Io>, ClientError> {
        match (self.target.as_ref(), &self.tls) {
            (Target::Unix(path), _) => open_unix(path).await,
            (Target::Tcp { addresses, .. }, Some(tls)) => self.open_any(addresses, tls).await,
            (Target::Tcp { .. }, None) => Err(ClientError::new(
                ErrorKind::Internal,
                "a TLS target without TLS settings",
                "",
            )),
        }
    }

    /// Tries the addresses in order, beginning with the one that answered last.
    async fn open_any(
        &self,
        addresses: &[String],
        tls: &TlsConnector,
    ) -> Result<Box<dyn Io>, ClientError> {
        let first = self.last_good.load(Ordering::Relaxed);
        let mut failed = Vec::new();
        let mut kind = ErrorKind::Unavailable;
        for step in 0..addresses.len() {
            let at = (first + step) % addresses.len();
            let address = &addresses[at];
            let attempt = tokio::time::timeout(CONNECT_TIMEOUT, open_tls(address, tls)).await;
            match attempt {
                Ok(Ok(io)) => {
                    self.last_good.store(at, Ordering::Relaxed);
                    return Ok(io);
                }
                Ok(Err(error)) => {
                    // A certificate that is refused is another matter than nobody at home.
                    if error.kind() == io::ErrorKind::InvalidData {
                        kind = ErrorKind::PermissionDenied;
                    }
                    failed.push(format!("{address}: {error}"));
                }
                Err(_) => failed.push(format!(
                    "{address}: no answer within {} s",
                    CONNECT_TIMEOUT.as_secs()
                )),
            }
        }
        let remedy = if kind == ErrorKind::PermissionDenied {
            "the certificates of this client and of the manager do not belong together; copy those of an admin again"
        } else {
            "check the address and that a manager runs there"
        };
        Err(ClientError::new(
            kind,
            format!("no manager can be reached ({})", failed.join("; ")),
            remedy,
        ))
    }
}

async fn open_tls(address: &str, tls: &TlsConnector) -> io::Result<Box<dyn Io>> {
    let tcp = TcpStream::connect(address).await?;
    tcp.set_nodelay(true)?;
    let stream = tls.connect(warren_security::server_name(), tcp).await?;
    Ok(Box::new(stream))
}

async fn open_unix(path: &Path) -> Result<Box<dyn Io>, ClientError> {
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
