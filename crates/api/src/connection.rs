//! One accepted connection: its stream of bytes and who is at the other end.

use crate::caller::{Caller, Transport};
use crate::peers::Accounts;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::OwnedSemaphorePermit;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;
use warren_gather::Gather;
use warren_security::identity_from_der;
use warren_types::{ClusterId, Role};

/// An authenticated connection. Authenticated does not mean allowed: that is decided per call.
pub(crate) struct Connection {
    io: Gather<Box<dyn Io>>,
    caller: Caller,
    /// Held while the connection lives, so that their number stays below the limit.
    permit: Option<OwnedSemaphorePermit>,
}

/// With TLS, or the local socket.
trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

impl Connection {
    /// After the handshake, which has verified the certificate, if there is one, against the CA.
    pub(crate) fn tls(
        stream: TlsStream<TcpStream>,
        peer: SocketAddr,
        cluster: Option<ClusterId>,
    ) -> Self {
        let caller = tls_caller(&stream, peer, cluster);
        Self {
            io: Gather::new(Box::new(stream)),
            caller,
            permit: None,
        }
    }

    /// A peer of the local socket; an error when the kernel does not say who it is.
    pub(crate) fn unix(stream: UnixStream) -> io::Result<Self> {
        let peer = stream.peer_cred()?;
        // Read for each connection, so that a new member of the group needs no restart.
        let role = Accounts::read().role(peer.uid(), peer.gid());
        Ok(Self {
            io: Gather::new(Box::new(stream)),
            caller: Caller {
                role,
                name: format!("uid:{}", peer.uid()),
                node: None,
                transport: Transport::Unix {
                    uid: peer.uid(),
                    pid: peer.pid(),
                },
            },
            permit: None,
        })
    }
}

impl Connection {
    /// Does its certificate say manager? What that is worth is looked at for each call.
    pub(crate) fn is_managers(&self) -> bool {
        self.caller.role == Role::Manager
    }

    /// The connection with its place, which it gives back when it ends.
    pub(crate) fn holding(mut self, permit: OwnedSemaphorePermit) -> Self {
        self.permit = Some(permit);
        self
    }
}

fn tls_caller(
    stream: &TlsStream<TcpStream>,
    peer: SocketAddr,
    cluster: Option<ClusterId>,
) -> Caller {
    let transport = Transport::Tls {
        peer: peer.to_string(),
    };
    let nobody = |name: &str| Caller {
        role: Role::None,
        name: name.to_owned(),
        node: None,
        transport: transport.clone(),
    };
    let Some(certificate) = stream
        .get_ref()
        .1
        .peer_certificates()
        .and_then(|chain| chain.first())
    else {
        return nobody("anonymous");
    };
    match identity_from_der(certificate) {
        Ok(identity) if cluster.is_none_or(|c| c == identity.cluster) => Caller {
            role: identity.role,
            name: identity.name,
            node: identity.node,
            transport,
        },
        Ok(_) => nobody("member of another cluster"),
        Err(error) => {
            tracing::warn!(%peer, %error, "a verified certificate names nobody");
            nobody("unknown certificate")
        }
    }
}

impl Connected for Connection {
    type ConnectInfo = Caller;

    fn connect_info(&self) -> Caller {
        self.caller.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
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
