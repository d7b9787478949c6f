//! Certificates of people. The key is made here and goes nowhere.

use crate::connect::Client;
use crate::error::{ClientError, ErrorKind};
use crate::join::identity_of;
use warren_proto::v1;
use warren_security::identity::validity;
use warren_security::{KeyAndCsr, generate_key_and_csr};
use warren_types::{Role, Timestamp};
use zeroize::Zeroizing;

/// Whom a certificate is to name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewUser {
    /// Viewer, operator or admin.
    pub role: Role,
    /// Name, for the audit record.
    pub name: String,
    /// Life in seconds; 0 is as long as the cluster allows.
    pub ttl_seconds: u64,
}

/// A certificate with its key.
pub struct UserCertificate {
    /// Private key, PEM.
    pub key_pem: Zeroizing<String>,
    /// Certificate, PEM.
    pub cert_pem: String,
    /// Roots of the cluster, PEM.
    pub ca_pem: String,
    /// When it ends, as it says itself.
    pub expires_at: Timestamp,
}

impl std::fmt::Debug for UserCertificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "UserCertificate(until {})", self.expires_at)
    }
}

impl Client {
    /// Makes a key and has the cluster sign a certificate for it.
    ///
    /// # Errors
    /// [`ErrorKind::PermissionDenied`] unless the caller is an administrator; [`ErrorKind::InvalidArgument`] for a name, role
    /// or life that cannot be; [`ErrorKind::Local`] without random numbers; else by the manager's status.
    pub async fn new_user_certificate(
        &self,
        user: &NewUser,
    ) -> Result<UserCertificate, ClientError> {
        let made = generate_key_and_csr();
        let KeyAndCsr { key_pem, csr_pem } =
            made.map_err(|e| ClientError::new(ErrorKind::Local, e.to_string(), ""))?;
        let request = v1::IssueUserCertificateRequest {
            csr: csr_pem.into_bytes(),
            role: user.role.name().to_owned(),
            name: user.name.clone(),
            ttl_seconds: user.ttl_seconds,
        };
        let answer = self.issue_user_certificate(request).await?;
        let signed = identity_of(&answer.certificate)?;
        if signed.role != user.role || signed.name != user.name || signed.node.is_some() {
            return Err(ClientError::new(
                ErrorKind::Internal,
                "the manager's answer carries a certificate for somebody else",
                "nothing was kept; look at the manager's log",
            ));
        }
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let cert_pem = text(answer.certificate);
        let ends = validity(&cert_pem);
        let (_, expires_at) =
            ends.map_err(|e| ClientError::new(ErrorKind::Internal, e.to_string(), ""))?;
        Ok(UserCertificate {
            key_pem,
            cert_pem,
            ca_pem: text(answer.ca_cert),
            expires_at,
        })
    }
}
