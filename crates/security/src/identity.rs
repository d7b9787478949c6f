//! Who a certificate speaks for: cluster, role, node and name.
//!
//! The subject is `CN=<role>-<name>, O=<cluster id>, OU=<role>`, and the alternative name
//! `URI:warren://<cluster id>/<role>[/<node id>]` repeats it. Both must agree; a certificate that is
//! half ours is nobody's.

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use warren_types::{ClusterId, NodeId, Role, Timestamp};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate, X509Name};

/// Longest name in a certificate, in characters: that of every other name.
pub const NAME_CHARS_MAX: usize = warren_types::limits::NAME_CHARS_MAX;
const URI_SCHEME: &str = "warren://";

/// Whom a certificate names.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Identity {
    /// The cluster it belongs to.
    pub cluster: ClusterId,
    /// What it may do.
    pub role: Role,
    /// The node, for nodes.
    pub node: Option<NodeId>,
    /// Name of the node or of the person.
    pub name: String,
}

/// A certificate that does not name anyone of a Warren cluster, or an identity that cannot be put
/// into one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// Not a certificate.
    #[error(
        "this is not an X.509 certificate ({what}): give a certificate made by the cluster's CA"
    )]
    NotACertificate {
        /// What could not be read.
        what: &'static str,
    },
    /// A certificate, but not one of ours.
    #[error(
        "the certificate has no Warren identity ({what}): use one issued by `warren`, or join the node again"
    )]
    NotOurs {
        /// The field that is missing or wrong.
        what: &'static str,
    },
    /// The name cannot stand in a certificate.
    #[error(
        "{name:?} cannot be the name in a certificate: use 1 to 63 of a-z, A-Z, 0-9, '.', '_', '@' and '-'"
    )]
    BadName {
        /// The name.
        name: String,
    },
    /// Role `none` has no certificate.
    #[error("role none gets no certificate: choose worker, manager, viewer, operator or admin")]
    NoRole,
    /// A node role without a node id, or the other way round.
    #[error("a certificate of role {role} {problem}")]
    NodeMismatch {
        /// The role.
        role: &'static str,
        /// What does not fit.
        problem: &'static str,
    },
}

impl Identity {
    /// Checks that this identity can stand in a certificate.
    ///
    /// # Errors
    /// [`IdentityError`] for an unfit name, role `none`, or a node id that does not fit the role.
    pub fn check(&self) -> Result<(), IdentityError> {
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '@' | '-');
        if self.name.is_empty() || self.name.len() > NAME_CHARS_MAX || !self.name.chars().all(fits)
        {
            return Err(IdentityError::BadName {
                name: self.name.chars().take(NAME_CHARS_MAX).collect(),
            });
        }
        let needs_node = match self.role {
            Role::None => return Err(IdentityError::NoRole),
            Role::Worker | Role::Manager => true,
            Role::Viewer | Role::Operator | Role::Admin => false,
        };
        let problem = match (needs_node, self.node.is_some()) {
            (true, false) => "must name its node: give the node id",
            (false, true) => "belongs to a person, not to a node: leave the node id out",
            _ => return Ok(()),
        };
        Err(IdentityError::NodeMismatch {
            role: self.role.name(),
            problem,
        })
    }

    /// The common name.
    #[must_use]
    pub fn common_name(&self) -> String {
        format!("{}-{}", self.role.name(), self.name)
    }

    /// The alternative name of type URI.
    #[must_use]
    pub fn uri(&self) -> String {
        let (cluster, role) = (self.cluster, self.role.name());
        match self.node {
            Some(node) => format!("{URI_SCHEME}{cluster}/{role}/{node}"),
            None => format!("{URI_SCHEME}{cluster}/{role}"),
        }
    }
}

/// Reads the identity out of a certificate. It says nothing about who signed it: call it only on
/// certificates that TLS has verified against the cluster's CA.
///
/// # Errors
/// [`IdentityError`] when the bytes are no certificate or name nobody of a Warren cluster.
pub fn identity_from_der(der: &[u8]) -> Result<Identity, IdentityError> {
    let cert = parse(der)?;
    let subject = cert.subject();
    let common_name = only(subject, X509Name::iter_common_name, "common name")?;
    let unit = only(
        subject,
        X509Name::iter_organizational_unit,
        "organisational unit",
    )?;
    let organisation = only(subject, X509Name::iter_organization, "organisation")?;
    let role = Role::from_name(unit).ok_or(IdentityError::NotOurs { what: "role" })?;
    let name = common_name
        .strip_prefix(role.name())
        .and_then(|rest| rest.strip_prefix('-'))
        .ok_or(IdentityError::NotOurs {
            what: "common name",
        })?;
    let uri = warren_uri(&cert)?;
    let node = match uri.splitn(3, '/').nth(2) {
        Some(text) => Some(
            text.parse()
                .map_err(|_| IdentityError::NotOurs { what: "node id" })?,
        ),
        None => None,
    };
    let identity = Identity {
        cluster: organisation
            .parse()
            .map_err(|_| IdentityError::NotOurs { what: "cluster id" })?,
        role,
        node,
        name: name.to_owned(),
    };
    identity.check()?;
    // The subject and the URI are two statements of the same thing; they must not differ.
    if identity.uri().strip_prefix(URI_SCHEME) != Some(uri) {
        return Err(IdentityError::NotOurs {
            what: "subject and URI differ",
        });
    }
    Ok(identity)
}

/// Like [`identity_from_der`], of the first certificate in PEM text.
///
/// # Errors
/// As [`identity_from_der`].
pub fn identity_from_pem(pem: &str) -> Result<Identity, IdentityError> {
    identity_from_der(&first_certificate(pem)?)
}

/// From when until when a certificate in PEM is valid.
///
/// # Errors
/// [`IdentityError::NotACertificate`].
pub fn validity(pem: &str) -> Result<(Timestamp, Timestamp), IdentityError> {
    validity_of_der(&first_certificate(pem)?)
}

/// As [`validity`], of a certificate in DER.
pub(crate) fn validity_of_der(der: &[u8]) -> Result<(Timestamp, Timestamp), IdentityError> {
    let cert = parse(der)?;
    let millis = |seconds: i64| Timestamp(u64::try_from(seconds).unwrap_or(0).saturating_mul(1000));
    let validity = cert.validity();
    Ok((
        millis(validity.not_before.timestamp()),
        millis(validity.not_after.timestamp()),
    ))
}

/// When to renew a certificate: at half of its life, spread by up to a tenth of the life so that a
/// cluster made in one minute does not renew in one. `jitter` is a random number, any value.
///
/// # Errors
/// [`IdentityError::NotACertificate`].
pub fn renew_at(pem: &str, jitter: u64) -> Result<Timestamp, IdentityError> {
    let (from, until) = validity(pem)?;
    let life = until.since(from).as_millis();
    let spread = jitter % (life / 10).max(1);
    Ok(Timestamp(
        from.0.saturating_add(life / 2).saturating_add(spread),
    ))
}

/// The public key of a certificate: for ECDSA the point, uncompressed.
pub(crate) fn public_key(der: &[u8]) -> Result<Vec<u8>, IdentityError> {
    let cert = parse(der)?;
    Ok(cert.public_key().subject_public_key.data.to_vec())
}

fn first_certificate(pem: &str) -> Result<CertificateDer<'static>, IdentityError> {
    CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|_| IdentityError::NotACertificate {
        what: "no PEM certificate",
    })
}

fn parse(der: &[u8]) -> Result<X509Certificate<'_>, IdentityError> {
    match X509Certificate::from_der(der) {
        Ok(([], cert)) => Ok(cert),
        Ok(_) => Err(IdentityError::NotACertificate {
            what: "bytes after its end",
        }),
        Err(_) => Err(IdentityError::NotACertificate { what: "bad DER" }),
    }
}

/// The single value of a subject attribute; none or two is an error.
fn only<'a, 'n: 'a, I>(
    subject: &'a X509Name<'n>,
    values: impl Fn(&'a X509Name<'n>) -> I,
    what: &'static str,
) -> Result<&'a str, IdentityError>
where
    I: Iterator<Item = &'a x509_parser::x509::AttributeTypeAndValue<'n>>,
{
    let mut found = values(subject);
    match (found.next(), found.next()) {
        (Some(value), None) => value.as_str().map_err(|_| IdentityError::NotOurs { what }),
        _ => Err(IdentityError::NotOurs { what }),
    }
}

/// What follows `warren://` in the only such alternative name.
fn warren_uri<'a>(cert: &'a X509Certificate<'_>) -> Result<&'a str, IdentityError> {
    let missing = IdentityError::NotOurs {
        what: "alternative name",
    };
    let names = match cert.subject_alternative_name() {
        Ok(Some(names)) => names,
        _ => return Err(missing),
    };
    let mut uris = names
        .value
        .general_names
        .iter()
        .filter_map(|name| match name {
            GeneralName::URI(uri) => uri.strip_prefix(URI_SCHEME),
            _ => None,
        });
    match (uris.next(), uris.next()) {
        (Some(uri), None) => Ok(uri),
        _ => Err(missing),
    }
}
