//! Certificates of people. They stand in no record: what one may do is in its certificate, and ends with it.

use super::{Control, info, tokens};
use crate::authority;
use crate::edge;
use warren_api::{ApiError, ApiResult};
use warren_proto::convert::timestamp_to_api;
use warren_proto::v1;
use warren_security::Identity;
use warren_security::ca::{USER_VALIDITY_MAX, USER_VALIDITY_MIN};
use warren_security::identity::validity;
use warren_types::{Duration, Role};

/// Signs for whom the caller names; that the caller may is the table's business, that the request is whole the handler's.
pub(super) fn issue(
    control: &Control,
    request: v1::IssueUserCertificateRequest,
) -> ApiResult<v1::IssueUserCertificateResponse> {
    let state = control.state();
    let settings = info::settings(&state)?;
    let authority =
        authority::of(&control.secrets, settings).map_err(|e| ApiError::internal(e.to_string()))?;
    let identity = Identity {
        cluster: authority.cluster(),
        role: Role::from_name(&request.role).unwrap_or_default(),
        node: None,
        name: request.name,
    };
    identity
        .check()
        .map_err(|e| ApiError::field("name", e.to_string(), "correct the request"))?;
    let csr = String::from_utf8(request.csr)
        .map_err(|_| ApiError::field("csr", "is no PEM text", "send it in PEM"))?;
    let life = life(request.ttl_seconds)?;
    let certificate = tokens::sign_request(&authority, &csr, &identity, edge::now(), life)?;
    let (_, ends) = validity(&certificate).map_err(|e| ApiError::internal(e.to_string()))?;
    tracing::info!(
        name = %identity.name,
        role = identity.role.name(),
        "a certificate for a person was signed"
    );
    Ok(v1::IssueUserCertificateResponse {
        certificate: certificate.into_bytes(),
        ca_cert: settings.ca.roots_pem.concat().into_bytes(),
        expires_at: Some(timestamp_to_api(ends)),
    })
}

/// How long it is valid; 0 is as long as possible.
fn life(seconds: u64) -> ApiResult<Duration> {
    if seconds == 0 {
        return Ok(USER_VALIDITY_MAX);
    }
    // Before it is counted in milliseconds, in which it might not fit.
    let limits = USER_VALIDITY_MIN.0 / 1_000..=USER_VALIDITY_MAX.0 / 1_000;
    if !limits.contains(&seconds) {
        return Err(ApiError::field(
            "ttl_seconds",
            format!("is {seconds}"),
            format!(
                "give {} to {}, or 0 for the longest",
                limits.start(),
                limits.end()
            ),
        ));
    }
    Ok(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_life_has_limits() {
        assert_eq!(life(0).unwrap(), USER_VALIDITY_MAX);
        for good in [USER_VALIDITY_MIN, USER_VALIDITY_MAX] {
            assert_eq!(life(good.0 / 1_000).unwrap(), good);
        }
        for bad in [
            USER_VALIDITY_MIN.0 / 1_000 - 1,
            USER_VALIDITY_MAX.0 / 1_000 + 1,
            u64::MAX,
        ] {
            let error = life(bad).unwrap_err().to_string();
            assert!(error.contains("ttl_seconds"), "{error}");
        }
    }
}
