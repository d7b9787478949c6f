//! Certificates for the members of etcd, made as our own are: ECDSA P-256, both ends show one, TLS 1.3.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio_rustls::TlsConnector;
use warren_security::{
    CertificateAuthority, Identity, SubjectName, ca::CERTIFICATE_VALIDITY, client_config,
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
