//! TLS 1.3 settings for every connection of the cluster: verified both ways by the cluster's CA.

use crate::ca::{CaDigest, SERVER_NAME};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig,
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

/// Settings of a joiner that knows only the digest of the CA from its token. The handshake fails
/// unless the server shows a root with that digest and a manager's certificate signed by it; so the
/// token's secret is never sent to anyone else. Connect with [`server_name`].
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

/// The certificate with this digest among those a peer has shown.
#[must_use]
pub fn root_with_digest<'a>(
    digest: CaDigest,
    shown: &'a [CertificateDer<'static>],
) -> Option<&'a CertificateDer<'static>> {
    shown.iter().find(|der| CaDigest::of_der(der) == digest)
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
        let unknown = || rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);
        let root = intermediates
            .iter()
            .find(|der| CaDigest::of_der(der) == self.digest)
            .ok_or_else(unknown)?;
        let mut store = RootCertStore::empty();
        store.add(root.clone().into_owned())?;
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(store), self.provider.clone())
                .build()
                .map_err(|_| unknown())?;
        verifier.verify_server_cert(end_entity, &[], server_name, ocsp_response, now)
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

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn unusable(what: &'static str, why: &dyn std::fmt::Display) -> TlsError {
    TlsError::Unusable {
        what,
        why: why.to_string(),
    }
}

fn certificates(
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

fn pem_certificates(
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

fn root_store(roots: &[CertificateDer<'static>]) -> Result<RootCertStore, TlsError> {
    let mut store = RootCertStore::empty();
    for root in roots {
        store
            .add(root.clone())
            .map_err(|e| unusable("CA certificate", &e))?;
    }
    Ok(store)
}
