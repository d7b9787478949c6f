//! Renewal of a node's certificate with proof of its old key.
//!
//! A node that was away for longer than its certificate lives cannot open a TLS connection with it any
//! more. It sends the old certificate, a request for a new one, and a signature of both by the old
//! key. Whether the node is still listed is for the caller to look up; who it is, is said here.

use crate::ca::{CSR_BYTES_MAX, CaError, generate_key_and_csr};
use crate::identity::{Identity, IdentityError, identity_from_der, public_key, validity_of_der};
use crate::tls::{certificates, pem_certificates, provider, root_store};
use rcgen::{CertificateSigningRequestParams, KeyPair, PKCS_ECDSA_P256_SHA256, SigningKey};
use ring::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
use rustls::pki_types::{CertificateDer, CertificateSigningRequestDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::pem::PemObject;
use std::sync::Arc;
use warren_types::limits;
use zeroize::Zeroizing;

/// Largest proof, in bytes: an ECDSA P-256 signature in DER has 72 at most.
pub const PROOF_BYTES_MAX: usize = 80;
const PURPOSE: &[u8] = b"warren-renewal-1\0";

/// What a node sends to renew its certificate, and the key that it keeps.
pub struct Renewal {
    /// The new private key, PKCS#8 PEM; stays on the node.
    pub key_pem: Zeroizing<String>,
    /// The request for it, PEM.
    pub csr_pem: String,
    /// Signature by the old key.
    pub proof: Vec<u8>,
}

/// Why a renewal cannot be made or is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RenewalError {
    /// The old certificate is none of a Warren cluster.
    #[error("the old certificate is refused: {0}")]
    NotOurs(#[from] IdentityError),
    /// The old certificate is a person's.
    #[error("the old certificate is not a node's: people get a new one from an operator")]
    NotANode,
    /// The old certificate is not by this cluster's CA.
    #[error(
        "the old certificate was not issued by this cluster's CA, or by one that was rotated out: let the node join again with a token"
    )]
    Untrusted,
    /// The proof was not made by the old key for this request.
    #[error("the proof is not by the key of the old certificate: let the node join again")]
    BadProof,
    /// The request is no good.
    #[error("the certificate request is refused: {what}; make a new key and request and try again")]
    BadRequest {
        /// What is wrong.
        what: String,
    },
    /// The node's own old key cannot be used.
    #[error("this node's old key cannot be used: {what}; let the node join again with a token")]
    OldKey {
        /// What is wrong.
        what: String,
    },
    /// No new key could be made.
    #[error(transparent)]
    Crypto(#[from] CaError),
    /// The cluster's own roots cannot be read.
    #[error("the cluster's roots cannot be used: {what}; restore them from a backup")]
    Roots {
        /// What is wrong.
        what: String,
    },
}

/// A new key, the request for its certificate, and the proof that the old key is here.
///
/// # Errors
/// [`RenewalError::OldKey`] when key and certificate do not belong together or cannot be read.
pub fn make_renewal(old_cert_pem: &str, old_key_pem: &str) -> Result<Renewal, RenewalError> {
    let old_key = |what: String| RenewalError::OldKey { what };
    let key = KeyPair::from_pem(old_key_pem).map_err(|e| old_key(e.to_string()))?;
    let chain =
        pem_certificates(old_cert_pem, "old certificate").map_err(|e| old_key(e.to_string()))?;
    let cert = chain
        .first()
        .ok_or_else(|| old_key("there is none".into()))?;
    if public_key(cert)? != key.public_key_raw() {
        return Err(old_key("it is not that of the certificate".to_owned()));
    }
    let made = generate_key_and_csr()?;
    let csr = request_der(&made.csr_pem)?;
    let proof = key
        .sign(&signed_bytes(cert, &csr))
        .map_err(|e| old_key(e.to_string()))?;
    Ok(Renewal {
        key_pem: made.key_pem,
        csr_pem: made.csr_pem,
        proof,
    })
}

/// Who asks for the renewal: the node of the old certificate, if a trusted root has signed that
/// certificate (however long it has been over) and the proof is by its key and for this request.
///
/// The caller looks up whether the node is still listed, and issues for the role that it has there: the
/// old certificate says what the node was, not what it is.
///
/// # Errors
/// [`RenewalError`] saying what is not accepted.
pub fn verify_renewal(
    roots_pem: &[String],
    old_cert_pem: &str,
    csr_pem: &str,
    proof: &[u8],
) -> Result<Identity, RenewalError> {
    if old_cert_pem.len() > limits::PEM_BYTES_MAX || proof.len() > PROOF_BYTES_MAX {
        return Err(RenewalError::BadProof);
    }
    let no_pem = IdentityError::NotACertificate {
        what: "no PEM certificate",
    };
    let chain = pem_certificates(old_cert_pem, "old certificate").map_err(|_| no_pem.clone())?;
    let (cert, intermediates) = chain.split_first().ok_or(no_pem)?;
    let identity = identity_from_der(cert)?;
    if identity.node.is_none() {
        return Err(RenewalError::NotANode);
    }
    check_chain(roots_pem, cert, intermediates)?;
    let csr = request_der(csr_pem)?;
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, public_key(cert)?)
        .verify(&signed_bytes(cert, &csr), proof)
        .map_err(|_| RenewalError::BadProof)?;
    Ok(identity)
}

/// Is the certificate by one of the roots? Judged in the middle of its life, whatever the time is now.
fn check_chain(
    roots_pem: &[String],
    cert: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
) -> Result<(), RenewalError> {
    let unusable = |what: String| RenewalError::Roots { what };
    let roots = certificates(roots_pem, "CA certificate").map_err(|e| unusable(e.to_string()))?;
    let store = root_store(&roots).map_err(|e| unusable(e.to_string()))?;
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(store), provider())
        .build()
        .map_err(|e| unusable(e.to_string()))?;
    let (from, until) = validity_of_der(cert)?;
    let middle = from.0 / 2 + until.0 / 2;
    let then = UnixTime::since_unix_epoch(std::time::Duration::from_millis(middle));
    verifier
        .verify_client_cert(cert, intermediates, then)
        .map(|_| ())
        .map_err(|_| RenewalError::Untrusted)
}

/// The request in DER, if it is one for an ECDSA P-256 key, signed by that key.
fn request_der(csr_pem: &str) -> Result<CertificateSigningRequestDer<'static>, RenewalError> {
    let bad = |what: String| RenewalError::BadRequest { what };
    if csr_pem.len() > CSR_BYTES_MAX {
        return Err(bad(format!("it is longer than {CSR_BYTES_MAX} bytes")));
    }
    let der = CertificateSigningRequestDer::from_pem_slice(csr_pem.as_bytes())
        .map_err(|e| bad(e.to_string()))?;
    let request =
        CertificateSigningRequestParams::from_der(&der).map_err(|e| bad(e.to_string()))?;
    if rcgen::PublicKeyData::algorithm(&request.public_key) != &PKCS_ECDSA_P256_SHA256 {
        return Err(bad("its key is not ECDSA P-256".to_owned()));
    }
    Ok(der)
}

/// What the old key signs: purpose, then digests of both parts, each of fixed length.
fn signed_bytes(cert: &[u8], csr: &[u8]) -> Vec<u8> {
    let mut bytes = PURPOSE.to_vec();
    for part in [cert, csr] {
        let digest = ring::digest::digest(&ring::digest::SHA256, part);
        bytes.extend_from_slice(digest.as_ref());
    }
    bytes
}
