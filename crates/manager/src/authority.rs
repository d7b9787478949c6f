//! The cluster's certificate authority, opened with the data key: any leader can sign.

use crate::secrets::SecretBox;
use warren_security::{CaError, CertificateAuthority, SealError};
use warren_types::ClusterSettings;

/// Why the authority cannot be used here.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AuthorityError {
    /// Its key cannot be opened.
    #[error(transparent)]
    Sealed(#[from] SealError),
    /// What was opened is no key.
    #[error("the key of the certificate authority is no text")]
    Text(#[from] std::str::Utf8Error),
    /// Key and root do not fit.
    #[error(transparent)]
    Ca(#[from] CaError),
}

/// The authority that signs now: that of the last root.
pub(crate) fn of(
    secrets: &SecretBox,
    settings: &ClusterSettings,
) -> Result<CertificateAuthority, AuthorityError> {
    let key = secrets.open_ca_key(settings)?;
    let key = std::str::from_utf8(&key)?;
    let root = settings.ca.roots_pem.last().map(String::as_str);
    let authority = CertificateAuthority::load(root.unwrap_or_default(), key)?;
    Ok(authority.with_cross(&settings.ca.cross_pem)?)
}
