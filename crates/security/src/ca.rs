//! The cluster's certificate authority: ECDSA P-256, made at `cluster init`, kept sealed.

use crate::identity::{Identity, IdentityError};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, SanType, SerialNumber,
};
use ring::rand::{SecureRandom, SystemRandom};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use warren_types::{ClusterId, Duration, Id128, Timestamp};
use zeroize::Zeroizing;

/// Life of the root: ten years.
pub const CA_VALIDITY: Duration = Duration::from_secs(3650 * 86_400);
/// Life of a node's or person's certificate: 90 days.
pub const CERTIFICATE_VALIDITY: Duration = Duration::from_secs(90 * 86_400);
/// Longest life of a person's certificate: as a node's. There is no list of revoked ones, so it is the time until a lost
/// key is worth nothing, short of a rotation of the CA.
pub const USER_VALIDITY_MAX: Duration = CERTIFICATE_VALIDITY;
/// Shortest life of a person's certificate: 5 minutes.
pub const USER_VALIDITY_MIN: Duration = Duration::from_secs(300);
/// Life of the certificate by which an old root vouches for the new one: 400 days, longer than any
/// rotation of the CA takes.
pub const CROSS_VALIDITY: Duration = Duration::from_secs(400 * 86_400);
/// Certificates are valid from this long before they were made, so that a joiner whose clock is a
/// day and an hour (a wrong time zone and then some) behind can use its own at once.
pub const CLOCK_SKEW: Duration = Duration::from_secs(25 * 3600);
/// The name under which every manager answers: identity is the certificate, not the address.
pub const SERVER_NAME: &str = "manager.warren";
/// Longest CSR that is looked at, in bytes.
pub const CSR_BYTES_MAX: usize = 16 * 1024;
/// Alternative names beside the identity's own, most in one certificate.
pub const SUBJECT_NAMES_MAX: usize = 64;
const SERIAL_BYTES: usize = 16;
const SECONDS_MAX: u64 = 253_402_300_799; // 9999-12-31T23:59:59Z, the end of X.509 time

/// What can go wrong with the authority.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CaError {
    /// The root certificate or key cannot be read, or they do not belong together.
    #[error(
        "the cluster's CA cannot be loaded: {what}; restore it from a backup (`warren cluster restore`)"
    )]
    Load {
        /// What is wrong.
        what: String,
    },
    /// The request is not a CSR, or its signature is not by its own key.
    #[error("the certificate request is refused: {what}; make a new key and request and try again")]
    BadRequest {
        /// What is wrong.
        what: String,
    },
    /// The identity cannot stand in a certificate.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The identity is of another cluster.
    #[error(
        "the request is for cluster {asked}, this is cluster {own}: check the address you joined"
    )]
    OtherCluster {
        /// Cluster in the identity.
        asked: ClusterId,
        /// Cluster of the authority.
        own: ClusterId,
    },
    /// A DNS name or URI that cannot stand in a certificate.
    #[error("{name:?} cannot stand in a certificate: use a DNS name or an IP address")]
    BadSubjectName {
        /// The name.
        name: String,
    },
    /// The cryptographic library failed.
    #[error(
        "making a key or signature failed: {what}; the system's random source may be unavailable"
    )]
    Crypto {
        /// What it said.
        what: String,
    },
}

/// A host name or address that a certificate is valid for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SubjectName {
    /// DNS name.
    Dns(String),
    /// IP address.
    Ip(IpAddr),
}

impl From<&str> for SubjectName {
    /// An address when it reads as one, else a DNS name.
    fn from(text: &str) -> Self {
        text.parse()
            .map_or_else(|_| Self::Dns(text.to_owned()), Self::Ip)
    }
}

/// SHA-256 of a root certificate in DER: what a join token pins. A token made before a rotation of the
/// CA pins the old root; it works until the rotation is over, and is told so afterwards.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CaDigest(pub [u8; 32]);

impl CaDigest {
    /// Digest of a certificate in DER.
    #[must_use]
    pub fn of_der(der: &[u8]) -> Self {
        let digest = ring::digest::digest(&ring::digest::SHA256, der);
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest.as_ref());
        Self(bytes)
    }
    /// The digest as 64 hex digits: what `Node::certificate_root` keeps, and what operators compare.
    #[must_use]
    pub fn hex(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }
    /// Digest of the first certificate in PEM text.
    ///
    /// # Errors
    /// [`CaError::Load`] when there is none.
    pub fn of_pem(pem: &str) -> Result<Self, CaError> {
        Ok(Self::of_der(&root_der(pem)?))
    }
}

impl fmt::Display for CaDigest {
    /// 52 characters: the two halves in the alphabet of the ids.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let half = |bytes: &[u8]| Id128(bytes.iter().fold(0, |sum, b| (sum << 8) | u128::from(*b)));
        write!(f, "{}{}", half(&self.0[..16]), half(&self.0[16..]))
    }
}

impl fmt::Debug for CaDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for CaDigest {
    type Err = warren_types::IdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (first, second) = text
            .split_at_checked(warren_types::id::ID_TEXT_LEN)
            .ok_or_else(|| warren_types::IdError {
                text: text.chars().take(40).collect(),
            })?;
        let mut bytes = [0; 32];
        bytes[..16].copy_from_slice(&first.parse::<Id128>()?.0.to_be_bytes());
        bytes[16..].copy_from_slice(&second.parse::<Id128>()?.0.to_be_bytes());
        Ok(Self(bytes))
    }
}

/// A fresh private key and the request for its certificate.
pub struct KeyAndCsr {
    /// Private key, PKCS#8 PEM; never leaves the node.
    pub key_pem: Zeroizing<String>,
    /// Certificate signing request, PEM.
    pub csr_pem: String,
}

/// Makes an ECDSA P-256 key and a request for it. The request proves possession of the key; whom
/// the certificate names is decided by the one who issues it.
///
/// # Errors
/// [`CaError::Crypto`] when the system has no random numbers.
pub fn generate_key_and_csr() -> Result<KeyAndCsr, CaError> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(crypto)?;
    let csr_pem = csr_for(&key)?;
    Ok(KeyAndCsr {
        key_pem: Zeroizing::new(key.serialize_pem()),
        csr_pem,
    })
}

/// Makes a request for a key that exists, for a renewal that keeps it.
///
/// # Errors
/// [`CaError::BadRequest`] when the key cannot be read.
pub fn csr_for_key(key_pem: &str) -> Result<String, CaError> {
    let key = KeyPair::from_pem(key_pem).map_err(|e| CaError::BadRequest {
        what: e.to_string(),
    })?;
    csr_for(&key)
}

fn csr_for(key: &KeyPair) -> Result<String, CaError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "warren");
    params
        .serialize_request(key)
        .and_then(|csr| csr.pem())
        .map_err(crypto)
}

/// The authority with its private key. Made at `cluster init`; later loaded from sealed state.
pub struct CertificateAuthority {
    cluster: ClusterId,
    cert_pem: String,
    cert_der: CertificateDer<'static>,
    /// Certificate of this root's key by the root before it, PEM; empty when there is none.
    cross_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl CertificateAuthority {
    /// Makes the root of a new cluster.
    ///
    /// # Errors
    /// [`CaError::Crypto`] when the system has no random numbers.
    pub fn generate(
        cluster: ClusterId,
        now: Timestamp,
        validity: Duration,
    ) -> Result<Self, CaError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(crypto)?;
        let params = root_params(cluster, now, validity)?;
        let cert = params.self_signed(&key).map_err(crypto)?;
        Ok(Self {
            cluster,
            cert_pem: cert.pem(),
            cert_der: cert.der().clone(),
            cross_pem: String::new(),
            issuer: Issuer::new(params, key),
        })
    }

    /// Loads the root from its certificate and key in PEM.
    ///
    /// # Errors
    /// [`CaError::Load`] when one of them cannot be read or they do not belong together.
    pub fn load(cert_pem: &str, key_pem: &str) -> Result<Self, CaError> {
        let load = |what: String| CaError::Load { what };
        let key = KeyPair::from_pem(key_pem).map_err(|e| load(format!("its key: {e}")))?;
        let cert_der = root_der(cert_pem)?;
        let (cluster, public_key) = root_facts(&cert_der)?;
        if public_key != key.public_key_raw() {
            return Err(load(
                "its key and certificate do not belong together".to_owned(),
            ));
        }
        let issuer = Issuer::from_ca_cert_der(&cert_der, key)
            .map_err(|e| load(format!("its certificate: {e}")))?;
        Ok(Self {
            cluster,
            cert_pem: cert_pem.to_owned(),
            cert_der,
            cross_pem: String::new(),
            issuer,
        })
    }

    /// The same authority in a rotation: each certificate that it issues is followed by `cross_pem`
    /// (made by [`Self::vouch_for`] of the root before), so that those who know the old root alone
    /// trust it. An empty text means none.
    ///
    /// # Errors
    /// [`CaError::Load`] when it is not a certificate for this authority's key.
    pub fn with_cross(mut self, cross_pem: &str) -> Result<Self, CaError> {
        if !cross_pem.is_empty() {
            let (cluster, public_key) = root_facts(&root_der(cross_pem)?)?;
            if cluster != self.cluster || public_key != self.issuer.key().public_key_raw() {
                return Err(CaError::Load {
                    what: "its cross certificate is for another key".to_owned(),
                });
            }
        }
        cross_pem.clone_into(&mut self.cross_pem);
        Ok(self)
    }

    /// Certifies the root that follows this one, for the time of the rotation: PEM, valid for
    /// [`CROSS_VALIDITY`].
    ///
    /// # Errors
    /// [`CaError::OtherCluster`] for the root of another cluster, [`CaError::Crypto`].
    pub fn vouch_for(&self, newer: &Self, now: Timestamp) -> Result<String, CaError> {
        if newer.cluster != self.cluster {
            return Err(CaError::OtherCluster {
                asked: newer.cluster,
                own: self.cluster,
            });
        }
        let params = root_params(newer.cluster, now, CROSS_VALIDITY)?;
        let cert = params
            .signed_by(newer.issuer.key(), &self.issuer)
            .map_err(crypto)?;
        Ok(cert.pem())
    }

    /// The root certificate, PEM.
    #[must_use]
    pub fn cert_pem(&self) -> &str {
        &self.cert_pem
    }
    /// The private key, PKCS#8 PEM: only to be sealed.
    #[must_use]
    pub fn key_pem(&self) -> Zeroizing<String> {
        Zeroizing::new(self.issuer.key().serialize_pem())
    }
    /// The cluster it signs for.
    #[must_use]
    pub const fn cluster(&self) -> ClusterId {
        self.cluster
    }
    /// What join tokens pin.
    #[must_use]
    pub fn digest(&self) -> CaDigest {
        CaDigest::of_der(&self.cert_der)
    }

    /// Signs a certificate for the key of a request. Only the public key is taken from the request;
    /// names, roles and validity are those given here. In a rotation the cross certificate follows
    /// the certificate in the same PEM text.
    ///
    /// # Errors
    /// [`CaError`] for a bad request, an unfit identity or name, another cluster.
    pub fn issue(
        &self,
        csr_pem: &str,
        identity: &Identity,
        subject_names: &[SubjectName],
        now: Timestamp,
        validity: Duration,
    ) -> Result<String, CaError> {
        identity.check()?;
        if identity.cluster != self.cluster {
            return Err(CaError::OtherCluster {
                asked: identity.cluster,
                own: self.cluster,
            });
        }
        let bad = |what: String| CaError::BadRequest { what };
        if csr_pem.len() > CSR_BYTES_MAX {
            return Err(bad(format!("it is longer than {CSR_BYTES_MAX} bytes")));
        }
        let request =
            CertificateSigningRequestParams::from_pem(csr_pem).map_err(|e| bad(e.to_string()))?;
        if request.public_key.algorithm() != &PKCS_ECDSA_P256_SHA256 {
            return Err(bad("its key is not ECDSA P-256".to_owned()));
        }
        let params = leaf_params(identity, subject_names, now, validity)?;
        let cert = params
            .signed_by(&request.public_key, &self.issuer)
            .map_err(crypto)?;
        Ok(cert.pem() + &self.cross_pem)
    }

    /// Makes a key and its certificate in one go, for a node or person on this very machine.
    ///
    /// # Errors
    /// As [`Self::issue`].
    pub fn issue_with_key(
        &self,
        identity: &Identity,
        subject_names: &[SubjectName],
        now: Timestamp,
        validity: Duration,
    ) -> Result<(String, Zeroizing<String>), CaError> {
        let KeyAndCsr { key_pem, csr_pem } = generate_key_and_csr()?;
        let cert = self.issue(&csr_pem, identity, subject_names, now, validity)?;
        Ok((cert, key_pem))
    }
}

fn root_params(
    cluster: ClusterId,
    now: Timestamp,
    validity: Duration,
) -> Result<CertificateParams, CaError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, "Warren Root CA");
    params
        .distinguished_name
        .push(DnType::OrganizationName, cluster.to_string());
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    set_validity(&mut params, now, validity);
    params.serial_number = Some(random_serial()?);
    Ok(params)
}

fn leaf_params(
    identity: &Identity,
    subject_names: &[SubjectName],
    now: Timestamp,
    validity: Duration,
) -> Result<CertificateParams, CaError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, identity.common_name());
    params
        .distinguished_name
        .push(DnType::OrganizationName, identity.cluster.to_string());
    params
        .distinguished_name
        .push(DnType::OrganizationalUnitName, identity.role.name());
    params.subject_alt_names = alternative_names(identity, subject_names)?;
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    if identity.node.is_some() {
        params
            .extended_key_usages
            .push(ExtendedKeyUsagePurpose::ServerAuth);
    }
    params.use_authority_key_identifier_extension = true;
    params.serial_number = Some(random_serial()?);
    set_validity(&mut params, now, validity);
    Ok(params)
}

/// The URI of the identity, the well-known server names of the role, then those asked for.
fn alternative_names(
    identity: &Identity,
    subject_names: &[SubjectName],
) -> Result<Vec<SanType>, CaError> {
    if subject_names.len() > SUBJECT_NAMES_MAX {
        return Err(CaError::BadSubjectName {
            name: format!(
                "{} names, more than {SUBJECT_NAMES_MAX}",
                subject_names.len()
            ),
        });
    }
    let mut dns = Vec::new();
    if let Some(node) = identity.node {
        dns.push(format!("{node}.node.warren"));
    }
    if identity.role == warren_types::Role::Manager {
        dns.push(SERVER_NAME.to_owned());
    }
    let mut names = vec![SanType::URI(ia5(&identity.uri())?)];
    for name in &dns {
        names.push(SanType::DnsName(ia5(name)?));
    }
    for name in subject_names {
        names.push(match name {
            SubjectName::Ip(address) => SanType::IpAddress(*address),
            SubjectName::Dns(name) => SanType::DnsName(ia5(checked_dns(name)?)?),
        });
    }
    Ok(names)
}

/// A DNS name that may stand in a certificate; the cluster's own suffix is not for the asking.
fn checked_dns(name: &str) -> Result<&str, CaError> {
    let bad = CaError::BadSubjectName {
        name: name.chars().take(80).collect(),
    };
    let reserved =
        name.eq_ignore_ascii_case("warren") || name.to_ascii_lowercase().ends_with(".warren");
    let label_ok = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    if reserved || name.len() > 253 || !name.split('.').all(label_ok) {
        return Err(bad);
    }
    Ok(name)
}

fn ia5(text: &str) -> Result<rcgen::string::Ia5String, CaError> {
    rcgen::string::Ia5String::try_from(text).map_err(|_| CaError::BadSubjectName {
        name: text.to_owned(),
    })
}

fn set_validity(params: &mut CertificateParams, now: Timestamp, validity: Duration) {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let at = |millis: u64| epoch + std::time::Duration::from_secs((millis / 1000).min(SECONDS_MAX));
    params.not_before = at(now.0.saturating_sub(CLOCK_SKEW.0));
    params.not_after = at(now.0.saturating_add(validity.0));
}

fn random_serial() -> Result<SerialNumber, CaError> {
    let mut bytes = [0_u8; SERIAL_BYTES];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|e| CaError::Crypto {
            what: e.to_string(),
        })?;
    // Positive, never zero, and as long as it looks (RFC 5280, 4.1.2.2).
    bytes[0] = (bytes[0] & 0x7f) | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

fn root_der(pem: &str) -> Result<CertificateDer<'static>, CaError> {
    CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|e| CaError::Load {
        what: format!("its certificate: {e}"),
    })
}

/// Cluster id and public key of a root certificate.
fn root_facts(der: &CertificateDer<'_>) -> Result<(ClusterId, Vec<u8>), CaError> {
    let load = |what: &str| CaError::Load {
        what: what.to_owned(),
    };
    let (_, cert) = x509_parser::parse_x509_certificate(der)
        .map_err(|_| load("its certificate is not X.509"))?;
    if !cert.is_ca() {
        return Err(load("its certificate is not that of an authority"));
    }
    let cluster = cert
        .subject()
        .iter_organization()
        .next()
        .and_then(|o| o.as_str().ok())
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| load("its certificate names no cluster"))?;
    Ok((cluster, cert.public_key().subject_public_key.data.to_vec()))
}

fn crypto(error: rcgen::Error) -> CaError {
    CaError::Crypto {
        what: error.to_string(),
    }
}
