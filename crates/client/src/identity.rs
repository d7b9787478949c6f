//! Whom to trust and who to be, exchangeable while connections live.

use crate::error::{ClientError, ErrorKind};
use crate::target::TlsIdentity;
use arc_swap::ArcSwap;
use std::fmt;
use std::sync::Arc;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use warren_security::ca::CaDigest;
use warren_security::{identity_from_pem, join_client_config};
use warren_types::ClusterId;

/// ALPN name of HTTP/2.
const ALPN_H2: &[u8] = b"h2";

/// A [`TlsIdentity`] shared by any number of clients. After [`IdentitySource::replace`] every one of them makes its next
/// connection with the new one, and takes no old connection for new calls; open calls go on to their end.
#[derive(Clone)]
pub struct IdentitySource {
    held: Arc<ArcSwap<Held>>,
}

/// One identity with the settings made from it.
pub(crate) struct Held {
    /// Counts up; a connection of an older one is not used for new calls.
    pub(crate) generation: u64,
    pub(crate) tls: TlsConnector,
    /// Cluster of the own certificate.
    pub(crate) cluster: Option<ClusterId>,
    identity: TlsIdentity,
}

impl IdentitySource {
    /// A source that holds this identity.
    ///
    /// # Errors
    /// [`ErrorKind::Local`] for certificates or keys that cannot be used.
    pub fn new(identity: TlsIdentity) -> Result<Self, ClientError> {
        let held = Held::new(identity, 0)?;
        Ok(Self {
            held: Arc::new(ArcSwap::from_pointee(held)),
        })
    }

    /// Trust in the cluster whose CA has this digest, without own certificate: for joining. No byte is sent to a server
    /// that does not show that CA and a manager's certificate signed by it.
    pub(crate) fn pinned(digest: CaDigest) -> Result<Self, ClientError> {
        let config = join_client_config(digest).map_err(local)?;
        let held = Held {
            generation: 0,
            tls: connector(config),
            cluster: None,
            identity: TlsIdentity {
                ca_pem: Vec::new(),
                own: None,
            },
        };
        Ok(Self {
            held: Arc::new(ArcSwap::from_pointee(held)),
        })
    }

    /// Exchanges the identity: renewed certificate, changed roots.
    ///
    /// # Errors
    /// [`ErrorKind::Local`] for certificates or keys that cannot be used; the old identity stays then.
    pub fn replace(&self, identity: TlsIdentity) -> Result<(), ClientError> {
        // Two exchanges at once: the later one wins; both generations differ from the one before.
        let held = Held::new(identity, self.held.load().generation + 1)?;
        self.held.store(Arc::new(held));
        Ok(())
    }

    /// The identity that it holds now.
    #[must_use]
    pub fn current(&self) -> TlsIdentity {
        self.held.load().identity.clone()
    }

    pub(crate) fn held(&self) -> Arc<Held> {
        self.held.load_full()
    }
}

impl fmt::Debug for IdentitySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let held = self.held.load();
        write!(f, "IdentitySource({:?})", held.identity)
    }
}

impl Held {
    fn new(identity: TlsIdentity, generation: u64) -> Result<Self, ClientError> {
        let own = identity
            .own
            .as_ref()
            .map(|(cert, key)| (cert.as_str(), key.as_str()));
        let config = warren_security::client_config(&identity.ca_pem, own).map_err(local)?;
        // A certificate of a form that this program does not know is still one that TLS can use.
        let cluster = own
            .and_then(|(cert, _)| identity_from_pem(cert).ok())
            .map(|identity| identity.cluster);
        Ok(Self {
            generation,
            tls: connector(config),
            cluster,
            identity,
        })
    }
}

fn connector(mut config: ClientConfig) -> TlsConnector {
    config.alpn_protocols = vec![ALPN_H2.to_vec()];
    TlsConnector::from(Arc::new(config))
}

fn local(error: warren_security::TlsError) -> ClientError {
    ClientError::new(ErrorKind::Local, error.to_string(), "")
}
