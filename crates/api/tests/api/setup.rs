//! A running server, certificates of every role, and clients for them.

use crate::memory::{Memory, NODE_A};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use warren_api::{ApiConfig, Limits, ServeError, Server, TlsSettings};
use warren_client::{Client, Target, TlsIdentity};
use warren_security::ca::{CA_VALIDITY, CERTIFICATE_VALIDITY};
use warren_security::{CertificateAuthority, ClientAuth, Identity, server_config};
use warren_types::{ClusterId, NodeId, Role, Timestamp};

/// Longest time that anything in these tests may take.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Timestamp(u64::try_from(since.as_millis()).unwrap())
}

/// A cluster's CA and what it has signed.
pub struct Authority {
    pub ca: CertificateAuthority,
    cluster: ClusterId,
}

impl Authority {
    pub fn new(cluster: u128) -> Self {
        let cluster = ClusterId::from_u128(cluster);
        let ca = CertificateAuthority::generate(cluster, now(), CA_VALIDITY).unwrap();
        Self { ca, cluster }
    }

    pub fn certificate(&self, role: Role) -> (String, String) {
        let node = matches!(role, Role::Worker | Role::Manager);
        let node = node.then_some(if role == Role::Worker {
            NODE_A
        } else {
            NodeId::from_u128(0xc)
        });
        self.certificate_of(role, node, &format!("the-{}", role.name()))
    }

    /// A certificate of one node or person.
    pub fn certificate_of(&self, role: Role, node: Option<NodeId>, name: &str) -> (String, String) {
        let identity = Identity {
            cluster: self.cluster,
            role,
            node,
            name: name.to_owned(),
        };
        let (cert, key) = self
            .ca
            .issue_with_key(&identity, &[], now(), CERTIFICATE_VALIDITY)
            .unwrap();
        (cert, key.to_string())
    }

    /// Trust in this CA, with the certificate of a role (none: without).
    pub fn identity(&self, role: Role) -> TlsIdentity {
        TlsIdentity {
            ca_pem: vec![self.ca.cert_pem().to_owned()],
            own: (role != Role::None).then(|| self.certificate(role)),
        }
    }

    /// Trust in this CA, with the certificate of one node.
    pub fn identity_of(&self, role: Role, node: NodeId) -> TlsIdentity {
        TlsIdentity {
            ca_pem: vec![self.ca.cert_pem().to_owned()],
            own: Some(self.certificate_of(role, Some(node), &format!("n{:x}", node.as_u128()))),
        }
    }

    pub fn server_config(&self) -> rustls::ServerConfig {
        let (cert, key) = self.certificate(Role::Manager);
        self.server_config_of(&cert, &key)
    }

    pub fn server_config_of(&self, cert: &str, key: &str) -> rustls::ServerConfig {
        let roots = [self.ca.cert_pem().to_owned()];
        server_config(&roots, cert, key, ClientAuth::Optional).unwrap()
    }

    pub fn tls_settings(&self) -> TlsSettings {
        TlsSettings::new(self.server_config(), Some(self.cluster))
    }
}

/// A server that runs until it is stopped or dropped.
pub struct Running {
    pub memory: Arc<Memory>,
    pub authority: Authority,
    pub tls: TlsSettings,
    pub address: SocketAddr,
    pub socket: PathBuf,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<Result<(), ServeError>>,
    _dir: TempDir,
}

impl Running {
    pub async fn start() -> Self {
        Self::with_limits(Limits::default()).await
    }

    pub async fn with_limits(limits: Limits) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("warren.sock");
        let authority = Authority::new(1);
        let tls = authority.tls_settings();
        let server = Server::bind(ApiConfig {
            tcp: Some(("127.0.0.1:0".parse().unwrap(), tls.clone())),
            unix: Some(socket.clone()),
            limits,
        })
        .await
        .unwrap();
        let address = server.local_addr().unwrap();
        let memory = Arc::new(Memory::default());
        let (stop, stopped) = oneshot::channel();
        let control = Arc::clone(&memory);
        let task = tokio::spawn(async move {
            server
                .run(control, async {
                    drop(stopped.await);
                })
                .await
        });
        Self {
            memory,
            authority,
            tls,
            address,
            socket,
            stop: Some(stop),
            task,
            _dir: dir,
        }
    }

    pub fn target(&self, role: Role) -> Target {
        self.target_with(self.authority.identity(role))
    }

    pub fn target_with(&self, identity: TlsIdentity) -> Target {
        Target::Tcp {
            addresses: vec![self.address.to_string()],
            identity,
        }
    }

    pub async fn client(&self, role: Role) -> Client {
        Client::connect(self.target(role)).await.unwrap()
    }

    /// The tests run as root, which is admin on the socket.
    pub async fn local(&self) -> Client {
        Client::connect(Target::Unix(self.socket.clone()))
            .await
            .unwrap()
    }

    pub fn calls(&self) -> usize {
        self.memory.calls.lock().unwrap().len()
    }

    pub fn signal_stop(&mut self) {
        drop(self.stop.take());
    }

    pub async fn ended(self) -> Result<(), ServeError> {
        tokio::time::timeout(PATIENCE, self.task)
            .await
            .expect("the server does not stop")
            .unwrap()
    }
}

pub fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|m| {
        use std::os::unix::fs::MetadataExt as _;
        m.uid() == 0
    })
}

/// Says so loudly and returns true when the test needs root and has it not.
pub fn skipped_without_root(test: &str) -> bool {
    let skip = !is_root();
    if skip {
        eprintln!("SKIPPED (needs root): {test}");
    }
    skip
}
