//! Join tokens and the certificates that they are exchanged for.

use super::{Control, failure};
use crate::edge;
use warren_api::{
    ApiError, ApiResult, Caller, CertificateRequest, ChangeOptions, IssuedCertificate, IssuedToken,
};
use warren_security::ca::CERTIFICATE_VALIDITY;
use warren_security::token::TOKEN_TTL_DEFAULT;
use warren_security::{
    CaDigest, CertificateAuthority, Identity, NewToken, PresentedToken, issue_token, verify_token,
};
use warren_state::{Actor, ClusterState, Command, Op};
use warren_types::{ClusterSettings, Duration, NodeId, Role, TokenId};

pub(super) async fn generate(
    control: &Control,
    caller: &Caller,
    role: Role,
    ttl: Option<Duration>,
    uses: Option<u32>,
    rotate: bool,
) -> ApiResult<IssuedToken> {
    let now = edge::now();
    let state = control.state();
    let root = settings(&state)?
        .ca
        .roots_pem
        .last()
        .cloned()
        .unwrap_or_default();
    let new = NewToken {
        id: TokenId(edge::new_id()),
        role,
        ca: CaDigest::of_pem(&root).map_err(|e| ApiError::internal(e.to_string()))?,
        ttl: ttl.unwrap_or(TOKEN_TTL_DEFAULT),
        uses,
    };
    let made = issue_token(new, now, edge::random::<16>());
    let (record, token) =
        made.map_err(|e| ApiError::field("token", e.to_string(), "correct the request"))?;
    let expires_at = record.expires_at;
    let mut ops = vec![Op::TokenCreate(Box::new(record))];
    if rotate {
        let earlier = state.tokens().filter(|t| t.role == role && !t.revoked);
        ops.extend(earlier.map(|t| Op::TokenRevoke { id: t.id }));
    }
    control
        .change(caller, now, ops, &ChangeOptions::default())
        .await?;
    Ok(IssuedToken {
        token: token.reveal().to_string(),
        id: new.id,
        role,
        expires_at,
    })
}

/// Checks the token, uses it once, and signs. The use is written before the certificate leaves.
pub(super) async fn request_certificate(
    control: &Control,
    _caller: &Caller,
    request: CertificateRequest,
) -> ApiResult<IssuedCertificate> {
    let now = edge::now();
    let refused =
        |what: String| ApiError::denied(what, "make a new token with `warren cluster join-token`");
    let presented: PresentedToken = request
        .token
        .parse()
        .map_err(|e: warren_security::TokenError| refused(e.to_string()))?;
    let state = control.state();
    let role = verify_token(
        state.token(presented.id).map(AsRef::as_ref),
        &presented,
        now,
    )
    .map_err(|e| refused(e.to_string()))?;
    let authority = authority(control, settings(&state)?)?;
    let identity = Identity {
        cluster: authority.cluster(),
        role,
        node: Some(NodeId(edge::new_id())),
        name: if request.node_name.is_empty() {
            request.node_id.clone()
        } else {
            request.node_name.clone()
        },
    };
    let command = Command::new(Actor::System, now, vec![Op::TokenUse { id: presented.id }]);
    control
        .raft
        .propose(&command)
        .await
        .map_err(failure::proposal)?;
    let failed = |e: warren_security::CaError| {
        ApiError::field(
            "csr",
            e.to_string(),
            "send a PEM request with an ECDSA P-256 key",
        )
    };
    let ca_pem = state
        .settings()
        .map(|s| s.ca.roots_pem.concat())
        .unwrap_or_default();
    let (certificate_pem, key_pem) = match request.csr_pem {
        Some(csr) => {
            let certificate = authority
                .issue(&csr, &identity, &[], now, CERTIFICATE_VALIDITY)
                .map_err(failed)?;
            (certificate, None)
        }
        None => {
            let (certificate, key) = authority
                .issue_with_key(&identity, &[], now, CERTIFICATE_VALIDITY)
                .map_err(failed)?;
            (certificate, Some(key.to_string()))
        }
    };
    Ok(IssuedCertificate {
        certificate_pem,
        key_pem,
        ca_pem,
        node: identity.node,
        cluster: authority.cluster(),
        cluster_name: settings(&state)?.name.clone(),
        role: None,
        managers: Vec::new(),
    })
}

fn settings(state: &ClusterState) -> ApiResult<&ClusterSettings> {
    let settings = state.settings().map(AsRef::as_ref);
    settings
        .ok_or_else(|| ApiError::unavailable("the cluster is being made", "try again in a moment"))
}

fn authority(control: &Control, settings: &ClusterSettings) -> ApiResult<CertificateAuthority> {
    let internal = |e: String| ApiError::internal(e);
    let key = control
        .secrets
        .open_ca_key(settings)
        .map_err(|e| internal(e.to_string()))?;
    let key = std::str::from_utf8(&key).map_err(|e| internal(e.to_string()))?;
    let root = settings
        .ca
        .roots_pem
        .last()
        .map(String::as_str)
        .unwrap_or_default();
    CertificateAuthority::load(root, key).map_err(|e| internal(e.to_string()))
}
