//! TLS 1.3 settings for every connection of the cluster: verified both ways by the cluster's CA.

use crate::ca::{CaDigest, SERVER_NAME};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, OtherError, RootCertStore, ServerConfig,
    SignatureScheme,
};
use rustls_pki_types::pem::PemObject;
use std::sync::Arc;

/// TLS settings that cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TlsError {
    /// A file or record that does not hold what it should.
    #[error("the {what} cannot be used for TLS: {why}; renew it or join the node again")]
    Unusable {
        /// What it is.
        what: &'static str,
        /// What is wrong with it.
        why: String,
    },
}

/// Whether a server wants a certificate from its clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientAuth {
    /// No certificate, no connection.
    Required,
    /// Without one the caller has role none (joining, browsers); a wrong one is still refused.
    Optional,
}

/// The fixed name a client expects: every manager's certificate carries it, at any address.
#[must_use]
pub fn server_name() -> ServerName<'static> {
    ServerName::try_from(SERVER_NAME).expect("the constant is a DNS name, as a test shows")
}

/// Settings of a server. It sends its certificate and the roots, so that a joiner can compare a root
/// with the digest in its token. ALPN is left to the caller.
///
/// # Errors
/// [`TlsError`] when a PEM text holds something else or key and certificate do not match.
pub fn server_config(
    roots_pem: &[String],
    cert_pem: &str,
    key_pem: &str,
    client_auth: ClientAuth,
) -> Result<ServerConfig, TlsError> {
    let roots = certificates(roots_pem, "CA certificate")?;
    let store = Arc::new(root_store(&roots)?);
    let builder = WebPkiClientVerifier::builder_with_provider(store, provider());
    let verifier = match client_auth {
        ClientAuth::Required => builder,
        ClientAuth::Optional => builder.allow_unauthenticated(),
    }
    .build()
    .map_err(|e| unusable("CA certificate", &e))?;
    let mut chain = pem_certificates(cert_pem, "certificate")?;
    for root in roots {
        if !chain.contains(&root) {
            chain.push(root);
        }
    }
    ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|e| unusable("TLS version", &e))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, private_key(key_pem)?)
        .map_err(|e| unusable("certificate or key", &e))
}

/// Settings of a client that knows the cluster's CA, with its own certificate if it has one.
/// Connect with [`server_name`].
///
/// # Errors
/// [`TlsError`] when a PEM text holds something else or key and certificate do not match.
pub fn client_config(
    roots_pem: &[String],
    identity: Option<(&str, &str)>,
) -> Result<ClientConfig, TlsError> {
    let roots = certificates(roots_pem, "CA certificate")?;
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|e| unusable("TLS version", &e))?
        .with_root_certificates(root_store(&roots)?);
    match identity {
        None => Ok(builder.with_no_client_auth()),
        Some((cert_pem, key_pem)) => builder
            .with_client_auth_cert(
                pem_certificates(cert_pem, "certificate")?,
                private_key(key_pem)?,
            )
            .map_err(|e| unusable("certificate or key", &e)),
    }
}

/// Why a joiner does not trust the server that it reached.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PinError {
    /// The server shows no root with the token's digest.
    #[error(
        "the server is not of the cluster that the join token names, or that cluster's CA was rotated since: check the address, or make a new token with `warren cluster join-token`"
    )]
    OtherRoot,
    /// It shows the root, but its certificate is not by it.
    #[error(
        "the server shows the certificate authority that the join token names, but its own certificate is not a manager's signed by it: check the address; somebody may be in between"
    )]
    NotByRoot {
        /// What the verification said.
        why: String,
    },
    /// The certificate is good, but not now.
    #[error(
        "the server's certificate is not valid at this machine's time: set the clock (it may be off by 25 hours at most), or renew the manager's certificate"
    )]
    Clock,
}

/// The reason of a failed handshake of [`join_client_config`], when that is what failed.
#[must_use]
pub fn pin_error(error: &rustls::Error) -> Option<&PinError> {
    match error {
        rustls::Error::InvalidCertificate(CertificateError::Other(other)) => other.0.downcast_ref(),
        _ => None,
    }
}

/// Settings of a joiner that knows only the digest of the CA from its token. The handshake fails
/// (see [`pin_error`]) unless the server shows a root with that digest and a manager's certificate
/// signed by it, so the token's secret is never sent to anyone else. During a rotation of the CA the
/// certificate may be by the new root, for which the pinned one vouches. Connect with [`server_name`].
///
/// # Errors
/// [`TlsError`] when this build has no TLS 1.3.
pub fn join_client_config(digest: CaDigest) -> Result<ClientConfig, TlsError> {
    Ok(ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|e| unusable("TLS version", &e))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(PinnedRoot {
            digest,
            provider: provider(),
        }))
        .with_no_client_auth())
}

/// Verifies a server by the digest of its root alone.
#[derive(Debug)]
struct PinnedRoot {
    digest: CaDigest,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for PinnedRoot {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let root = intermediates
            .iter()
            .find(|der| CaDigest::of_der(der) == self.digest)
            .ok_or_else(|| refused(PinError::OtherRoot))?;
        let mut store = RootCertStore::empty();
        store.add(root.clone().into_owned())?;
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(store), self.provider.clone())
                .build()
                .map_err(|e| refused(PinError::NotByRoot { why: e.to_string() }))?;
        // The root with the digest is the only anchor. The others that the server shows count for
        // nothing unless a chain of signatures leads through them to that one.
        verifier
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
            .map_err(|error| refused(pin_refusal(&error)))
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General(
            "TLS 1.2 is not spoken here".to_owned(),
        ))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

fn refused(why: PinError) -> rustls::Error {
    rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(why))))
}

fn pin_refusal(error: &rustls::Error) -> PinError {
    use CertificateError as E;
    match error {
        rustls::Error::InvalidCertificate(
            E::Expired | E::ExpiredContext { .. } | E::NotValidYet | E::NotValidYetContext { .. },
        ) => PinError::Clock,
        other => PinError::NotByRoot {
            why: other.to_string(),
        },
    }
}

pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn unusable(what: &'static str, why: &dyn std::fmt::Display) -> TlsError {
    TlsError::Unusable {
        what,
        why: why.to_string(),
    }
}

pub(crate) fn certificates(
    pems: &[String],
    what: &'static str,
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let mut all = Vec::new();
    for pem in pems {
        all.extend(pem_certificates(pem, what)?);
    }
    if all.is_empty() {
        return Err(unusable(what, &"there is none"));
    }
    Ok(all)
}

pub(crate) fn pem_certificates(
    pem: &str,
    what: &'static str,
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Vec<_> = CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|e| unusable(what, &e))?;
    if found.is_empty() {
        return Err(unusable(what, &"the PEM text holds no certificate"));
    }
    Ok(found)
}

fn private_key(pem: &str) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|e| unusable("private key", &e))
}

pub(crate) fn root_store(roots: &[CertificateDer<'static>]) -> Result<RootCertStore, TlsError> {
    let mut store = RootCertStore::empty();
    for root in roots {
        store
            .add(root.clone())
            .map_err(|e| unusable("CA certificate", &e))?;
    }
    Ok(store)
}
