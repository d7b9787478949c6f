//! Taking ports and sockets, and accepting connections from them.
//!
//! Connections of managers go a way of their own, with places of their own: a crowd of clients, or of strangers, never keeps
//! one manager from talking to another.

use crate::connection::Connection;
use crate::peers::{Accounts, GROUP};
use crate::server::{BindError, Limits, TlsSettings};
use crate::throttle::Throttle;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

/// Permission bits of the socket: owner and group may connect.
const SOCKET_MODE: u32 = 0o660;
/// Pause after a failed accept (mostly: no free file descriptor).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Records of failed handshakes.
static HANDSHAKES: Throttle = Throttle::new();

/// A socket file that is removed when the server ends.
pub(crate) struct SocketFile {
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

pub(crate) async fn bind_tcp(address: SocketAddr) -> Result<TcpListener, BindError> {
    TcpListener::bind(address).await.map_err(|source| {
        if source.kind() == io::ErrorKind::AddrInUse {
            BindError::PortTaken(address)
        } else {
            BindError::Tcp { address, source }
        }
    })
}

pub(crate) async fn bind_unix(path: PathBuf) -> Result<(UnixListener, SocketFile), BindError> {
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

/// Where accepted connections go.
#[derive(Clone)]
pub(crate) struct Incoming {
    /// Clients, workers, strangers.
    pub(crate) clients: mpsc::Sender<Connection>,
    /// Managers.
    pub(crate) managers: mpsc::Sender<Connection>,
}

/// Places that TLS connections take.
struct Places {
    /// Until it is known who it is.
    handshakes: Arc<Semaphore>,
    /// Known, and waiting for a place.
    waiting: Arc<Semaphore>,
    clients: Arc<Semaphore>,
    managers: Arc<Semaphore>,
}

pub(crate) async fn accept_tls(
    listener: TcpListener,
    tls: TlsSettings,
    limits: Limits,
    incoming: Incoming,
) {
    let places = Arc::new(Places {
        handshakes: Arc::new(Semaphore::new(limits.handshakes)),
        waiting: Arc::new(Semaphore::new(limits.handshakes)),
        clients: Arc::new(Semaphore::new(limits.connections)),
        managers: Arc::new(Semaphore::new(limits.manager_connections)),
    });
    let mut handshakes = JoinSet::new();
    loop {
        // Finished ones give their memory back.
        while handshakes.try_join_next().is_some() {}
        let Ok(handshake) = Arc::clone(&places.handshakes).acquire_owned().await else {
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
        let (tls, incoming, places) = (tls.clone(), incoming.clone(), Arc::clone(&places));
        let limit = limits.handshake;
        handshakes.spawn(async move {
            let connection = shake(stream, peer, &tls, limit).await;
            drop(handshake);
            if let Some(connection) = connection {
                admit(connection, peer, &places, &incoming, limit).await;
            }
        });
    }
}

async fn shake(
    stream: TcpStream,
    peer: SocketAddr,
    tls: &TlsSettings,
    limit: Duration,
) -> Option<Connection> {
    let acceptor = TlsAcceptor::from(tls.current());
    let shaken = async {
        stream.set_nodelay(true)?;
        acceptor.accept(stream).await
    };
    let failed = match tokio::time::timeout(limit, shaken).await {
        Ok(Ok(stream)) => return Some(Connection::tls(stream, peer, tls.cluster())),
        Ok(Err(error)) => error.to_string(),
        Err(_) => "it took too long".to_owned(),
    };
    if let Some(suppressed) = HANDSHAKES.admit() {
        tracing::info!(%peer, error = failed, suppressed, "TLS handshake failed");
    }
    None
}

/// Gives the connection a place, and to whom it belongs.
async fn admit(
    connection: Connection,
    peer: SocketAddr,
    places: &Places,
    incoming: &Incoming,
    limit: Duration,
) {
    let (permits, queue) = if connection.is_managers() {
        (&places.managers, &incoming.managers)
    } else {
        (&places.clients, &incoming.clients)
    };
    let permit = match Arc::clone(permits).try_acquire_owned() {
        Ok(permit) => permit,
        Err(_) => {
            let Ok(_waits) = places.waiting.try_acquire() else {
                tracing::warn!(%peer, "a connection was closed: too many wait for a place");
                return;
            };
            match tokio::time::timeout(limit, Arc::clone(permits).acquire_owned()).await {
                Ok(Ok(permit)) => permit,
                _ => {
                    tracing::warn!(%peer, "a connection was closed: it waited too long for a place");
                    return;
                }
            }
        }
    };
    // A closed queue means that the server stops.
    drop(queue.send(connection.holding(permit)).await);
}

pub(crate) async fn accept_unix(
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
            .and_then(|(stream, _)| Connection::unix(stream))
        {
            Ok(connection) => {
                if incoming.send(connection.holding(permit)).await.is_err() {
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
