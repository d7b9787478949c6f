//! What a node asks before and beside its sessions: its first certificate, and the next ones.

use crate::attempts::NOBODY;
use crate::connect::Client;
use crate::error::{ClientError, ErrorKind};
use crate::identity::IdentitySource;
use crate::target::TlsIdentity;
use std::time::Duration;
use warren_proto::v1;
use warren_security::ca::CaDigest;
use warren_security::{PresentedToken, identity_from_pem};

/// How long a join is repeated that no manager could take: an election is over by then, and what is still refused is refused
/// for a reason that the operator has to hear.
const JOIN_PATIENCE: Duration = Duration::from_millis(1_500);
/// First line of a certificate in PEM.
const PEM_BEGIN: &str = "-----BEGIN CERTIFICATE-----";

/// What a joining node asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JoinRequest {
    /// Certificate signing request in PEM; its key stays on the node.
    pub csr_pem: String,
    /// Id that the node has already; empty for a new one.
    pub node_id: String,
    /// Name that it wants; empty for one that the cluster chooses.
    pub node_name: String,
    /// `host:port` where its API will answer; empty for a worker that nobody dials.
    pub address: String,
    /// `worker`, `manager` or `hybrid`; empty for what the token says.
    pub role: String,
}

/// Asks one of these managers (`host:port` each) for a node's first certificate. The token names the cluster's CA by its
/// digest: a server that cannot show that CA, and a manager's certificate signed by it, gets nothing, not even the public
/// part of the token. The answer is checked against the same CA.
///
/// # Errors
/// [`ErrorKind::InvalidArgument`] when the text is no token; [`ErrorKind::PermissionDenied`] when a server is not of the
/// token's cluster, or the token is refused; [`ErrorKind::NotTaken`] when nobody could take the request; else by the
/// manager's status. When the outcome is not known, a node of this name may be listed already.
pub async fn request_certificate(
    addresses: &[String],
    token: &str,
    request: JoinRequest,
) -> Result<v1::RequestCertificateResponse, ClientError> {
    let token: PresentedToken = token
        .parse()
        .map_err(|error| ClientError::new(ErrorKind::InvalidArgument, format!("{error}"), ""))?;
    let identity = IdentitySource::pinned(token.ca)?;
    let client = Client::managers(addresses, &identity).with_patience(JOIN_PATIENCE);
    let answer = client
        .request_certificate(v1::RequestCertificateRequest {
            node_id: request.node_id,
            token: token.reveal().to_string(),
            csr: request.csr_pem.into_bytes(),
            node_name: request.node_name,
            address: request.address,
            role: request.role,
        })
        .await
        .map_err(explain_other_ca)?;
    check_answer(token.ca, &answer)?;
    Ok(answer)
}

/// Asks one of these managers for a node's next certificate, with the proof in `request` (as
/// `warren_security` makes it). Goes without client certificate, so that an expired one does not stand in the way.
///
/// # Errors
/// [`ErrorKind::Removed`] when the cluster has removed the node; [`ErrorKind::Local`] for roots that cannot be used; else by
/// the manager's status.
pub async fn renew_certificate(
    addresses: &[String],
    ca_pem: &[String],
    request: v1::RenewCertificateRequest,
) -> Result<v1::RenewCertificateResponse, ClientError> {
    let identity = IdentitySource::new(TlsIdentity {
        ca_pem: ca_pem.to_vec(),
        own: None,
    })?;
    let answer = Client::managers(addresses, &identity)
        .renew_certificate(request)
        .await?;
    identity_of(&answer.certificate)?;
    Ok(answer)
}

/// A joiner has no certificates that could be wrong; and it matters that its secret went to nobody.
fn explain_other_ca(error: ClientError) -> ClientError {
    if error.kind == ErrorKind::PermissionDenied && error.message.starts_with(NOBODY) {
        return ClientError {
            remedy: "the token was sent to nobody".to_owned(),
            ..error
        };
    }
    error
}

fn check_answer(ca: CaDigest, answer: &v1::RequestCertificateResponse) -> Result<(), ClientError> {
    let wrong = |what: &str| {
        ClientError::new(
            ErrorKind::Internal,
            format!("the manager's answer to the join request {what}"),
            "nothing was kept; look at the manager's log, and join again with a new token",
        )
    };
    let roots = String::from_utf8_lossy(&answer.ca_cert);
    let shown = roots
        .match_indices(PEM_BEGIN)
        .any(|(at, _)| CaDigest::of_pem(&roots[at..]).is_ok_and(|digest| digest == ca));
    if !shown {
        return Err(wrong("does not carry the CA of the token"));
    }
    let identity = identity_of(&answer.certificate)?;
    if identity.cluster.to_string() != answer.cluster_id {
        return Err(wrong("names another cluster than its certificate"));
    }
    if identity
        .node
        .map(|node| node.to_string())
        .unwrap_or_default()
        != answer.node_id
    {
        return Err(wrong("names another node than its certificate"));
    }
    Ok(())
}

pub(crate) fn identity_of(certificate: &[u8]) -> Result<warren_security::Identity, ClientError> {
    std::str::from_utf8(certificate)
        .map_err(|e| e.to_string())
        .and_then(|pem| identity_from_pem(pem).map_err(|e| e.to_string()))
        .map_err(|why| {
            ClientError::new(
                ErrorKind::Internal,
                format!("the manager's answer carries an unusable certificate ({why})"),
                "client and manager may be of different versions; compare `warren version`",
            )
        })
}
