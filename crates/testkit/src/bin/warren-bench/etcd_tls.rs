//! Certificates for the members of etcd, made as our own are: ECDSA P-256, both ends show one, TLS 1.3.

use hyper_util::rt::TokioIo;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::codegen::{BoxFuture, Service};
use tonic::transport::{Channel, Endpoint, Uri};
use warren_security::{
    CertificateAuthority, Identity, SubjectName, ca::CERTIFICATE_VALIDITY, client_config,
    server_name,
};
use warren_types::{ClusterId, NodeId, Role, Timestamp};

/// The authority of one cluster of etcd.
pub(crate) struct Authority {
    ca: CertificateAuthority,
    cluster: ClusterId,
    now: Timestamp,
}

/// Where a member finds its files.
pub(crate) struct Files {
    pub(crate) ca: PathBuf,
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

impl Authority {
    pub(crate) fn new() -> Result<Self, String> {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = Timestamp(since.map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX)));
        let cluster = ClusterId::from_u128(1);
        let ca = CertificateAuthority::generate(cluster, now, CERTIFICATE_VALIDITY);
        Ok(Self {
            ca: ca.map_err(|e| e.to_string())?,
            cluster,
            now,
        })
    }

    /// Certificate and key of a member at this address, for clients and other members.
    pub(crate) fn member(
        &self,
        directory: &Path,
        number: usize,
        ip: Ipv4Addr,
    ) -> Result<Files, String> {
        let identity = Identity {
            cluster: self.cluster,
            role: Role::Manager,
            node: Some(NodeId::from_u128(number as u128 + 1)),
            name: format!("e{number}"),
        };
        let (certificate, key) = self.certificate(&identity, &[SubjectName::Ip(ip.into())])?;
        let write = |name: &str, text: &str| {
            let path = directory.join(name);
            std::fs::write(&path, text).map_err(|e| format!("{}: {e}", path.display()))?;
            Ok::<PathBuf, String>(path)
        };
        Ok(Files {
            ca: write("etcd-ca.pem", self.ca.cert_pem())?,
            certificate: write("etcd.pem", &certificate)?,
            key: write("etcd-key.pem", &key)?,
        })
    }

    fn certificate(
        &self,
        identity: &Identity,
        names: &[SubjectName],
    ) -> Result<(String, String), String> {
        let made = self
            .ca
            .issue_with_key(identity, names, self.now, CERTIFICATE_VALIDITY);
        let (certificate, key) = made.map_err(|e| e.to_string())?;
        Ok((certificate, key.to_string()))
    }

    /// How clients connect: with the same TLS library and settings as clients of ours.
    pub(crate) fn connector(&self) -> Result<TlsConnector, String> {
        let identity = Identity {
            cluster: self.cluster,
            role: Role::Admin,
            node: None,
            name: "bench".to_owned(),
        };
        let (certificate, key) = self.certificate(&identity, &[])?;
        let roots = [self.ca.cert_pem().to_owned()];
        let config = client_config(&roots, Some((certificate.as_str(), key.as_str())));
        let mut config = config.map_err(|e| e.to_string())?;
        // etcd serves gRPC only when it is asked for HTTP/2.
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(TlsConnector::from(Arc::new(config)))
    }
}

/// One connection to `host:port`.
pub(crate) async fn connect(address: &str, tls: TlsConnector) -> Result<Channel, String> {
    let dialer = Dialer {
        address: address.to_owned(),
        tls,
    };
    Endpoint::from_static("http://etcd.bench")
        .connect_with_connector(dialer)
        .await
        .map_err(|e| e.to_string())
}

/// Opens the stream of bytes, TLS included.
struct Dialer {
    address: String,
    tls: TlsConnector,
}

impl Service<Uri> for Dialer {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = std::io::Error;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let (address, tls) = (self.address.clone(), self.tls.clone());
        Box::pin(async move {
            let tcp = TcpStream::connect(&address).await?;
            tcp.set_nodelay(true)?;
            tls.connect(server_name(), tcp).await.map(TokioIo::new)
        })
    }
}
