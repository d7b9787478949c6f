//! A server between a joiner and the cluster: it has a certificate for the right name, of another authority.

use std::net::TcpListener;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio_rustls::TlsAcceptor;
use warren_security::{CertificateAuthority, ClientAuth, Identity, SubjectName, server_config};
use warren_testkit::Lab;
use warren_types::{ClusterId, NodeId, Role, Timestamp};

/// How long it listens to one connection.
const LISTEN_LIMIT: Duration = Duration::from_secs(5);
const PORT: u16 = 8443;

/// What it heard.
#[derive(Debug, Default)]
pub struct Heard {
    /// Connections that were opened.
    pub connections: usize,
    /// What was said after the handshake, decrypted.
    pub bytes: Vec<u8>,
}

/// The server.
pub struct Middle {
    /// `host:port`.
    pub address: String,
    stop: Sender<()>,
    thread: JoinHandle<Heard>,
}

impl Middle {
    /// Starts it on the clients' machine. It shows these roots beside its own, as if it were one of theirs.
    pub fn start(lab: &Lab, shown: Vec<String>) -> Self {
        let acceptor = acceptor(shown);
        let (stop, stopped) = channel();
        let (ready, listening) = channel();
        let thread = lab.spawn(move || listen(&acceptor, &stopped, &ready));
        listening
            .recv()
            .unwrap_or_else(|e| panic!("no listener: {e}"));
        Self {
            address: format!("198.51.100.2:{PORT}"),
            stop,
            thread,
        }
    }

    /// Ends it.
    pub fn stop(self) -> Heard {
        drop(self.stop);
        self.thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

fn acceptor(shown: Vec<String>) -> TlsAcceptor {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now = Timestamp(now.map_or(0, |d| d.as_millis() as u64));
    let validity = warren_types::Duration::from_secs(3600);
    let cluster = ClusterId::from_u128(7);
    let authority = CertificateAuthority::generate(cluster, now, validity);
    let authority = authority.unwrap_or_else(|e| panic!("{e}"));
    let identity = Identity {
        cluster,
        role: Role::Manager,
        node: Some(NodeId::from_u128(9)),
        name: "m1".to_owned(),
    };
    let names = [SubjectName::Dns("m1".to_owned())];
    let made = authority.issue_with_key(&identity, &names, now, validity);
    let (cert, key) = made.unwrap_or_else(|e| panic!("{e}"));
    let mut roots = vec![authority.cert_pem().to_owned()];
    roots.extend(shown);
    let config = server_config(&roots, &cert, &key, ClientAuth::Optional);
    let mut config = config.unwrap_or_else(|e| panic!("{e}"));
    config.alpn_protocols = vec![b"h2".to_vec()];
    TlsAcceptor::from(std::sync::Arc::new(config))
}

fn listen(acceptor: &TlsAcceptor, stopped: &Receiver<()>, ready: &Sender<()>) -> Heard {
    let listener = TcpListener::bind(("0.0.0.0", PORT)).unwrap_or_else(|e| panic!("{e}"));
    listener
        .set_nonblocking(true)
        .unwrap_or_else(|e| panic!("{e}"));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.unwrap_or_else(|e| panic!("{e}"));
    ready.send(()).unwrap_or_else(|e| panic!("{e}"));
    let mut heard = Heard::default();
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener);
        let listener = listener.unwrap_or_else(|e| panic!("{e}"));
        while stopped.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
            let accepted = tokio::time::timeout(Duration::from_millis(50), listener.accept()).await;
            let Ok(Ok((stream, _))) = accepted else {
                continue;
            };
            heard.connections += 1;
            // A joiner that does not trust it ends the handshake, or the connection right after it.
            if let Ok(mut stream) = acceptor.accept(stream).await {
                let read = stream.read_to_end(&mut heard.bytes);
                let _ = tokio::time::timeout(LISTEN_LIMIT, read).await;
            }
        }
    });
    heard
}
