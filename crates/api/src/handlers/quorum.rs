//! Managers, tokens, keys, backup: checks of the requests, then the control plane.

use super::checks::target;
use super::{Answers, Handlers};
use crate::caller::Caller;
use crate::control::ApiResult;
use crate::error::ApiError;
use warren_proto::v1;
use warren_security::ca::CSR_BYTES_MAX;
use warren_types::Role;
use warren_types::validate::validate_address;

/// Longest proof of an old key, in bytes.
const PROOF_BYTES_MAX: usize = 1024;
/// Shortest and longest passphrase of a backup, in bytes.
const PASSPHRASE_BYTES: std::ops::RangeInclusive<usize> = 8..=1024;
/// Longest unlock key, in bytes.
const UNLOCK_KEY_BYTES_MAX: usize = 256;

fn at_most(field: &'static str, bytes: usize, limit: usize) -> ApiResult<()> {
    if bytes <= limit {
        return Ok(());
    }
    Err(ApiError::field(
        field,
        format!("has {bytes} bytes"),
        format!("at most {limit} are allowed"),
    ))
}

impl Handlers {
    pub(super) async fn join_cluster_inner(
        self,
        caller: Caller,
        request: v1::JoinClusterRequest,
    ) -> ApiResult<v1::JoinClusterResponse> {
        target(&request.node_id, "")?;
        validate_address("bind_addr", &request.bind_addr)?;
        self.control.join_cluster(&caller, request).await
    }

    pub(super) async fn renew_certificate_inner(
        self,
        caller: Caller,
        request: v1::RenewCertificateRequest,
    ) -> ApiResult<v1::RenewCertificateResponse> {
        at_most("certificate", request.certificate.len(), CSR_BYTES_MAX)?;
        at_most("csr", request.csr.len(), CSR_BYTES_MAX)?;
        at_most("proof", request.proof.len(), PROOF_BYTES_MAX)?;
        if request.certificate.is_empty() || request.csr.is_empty() || request.proof.is_empty() {
            return Err(ApiError::field(
                "certificate",
                "certificate, csr and proof are all needed",
                "send the old certificate, a new request, and its signature by the old key",
            ));
        }
        self.control.renew_certificate(&caller, request).await
    }

    pub(super) async fn list_join_tokens_inner(
        self,
        caller: Caller,
        _: v1::ListJoinTokensRequest,
    ) -> ApiResult<v1::ListJoinTokensResponse> {
        self.control.list_join_tokens(&caller).await
    }

    pub(super) async fn revoke_join_token_inner(
        self,
        caller: Caller,
        request: v1::RevokeJoinTokenRequest,
    ) -> ApiResult<v1::RevokeJoinTokenResponse> {
        let id = target(&request.id, "")?;
        self.control.revoke_join_token(&caller, id).await?;
        Ok(v1::RevokeJoinTokenResponse {})
    }

    pub(super) async fn update_cluster_settings_inner(
        self,
        caller: Caller,
        request: v1::UpdateClusterSettingsRequest,
    ) -> ApiResult<v1::UpdateClusterSettingsResponse> {
        self.control.update_cluster_settings(&caller, request).await
    }

    pub(super) async fn transfer_leadership_inner(
        self,
        caller: Caller,
        request: v1::TransferLeadershipRequest,
    ) -> ApiResult<v1::TransferLeadershipResponse> {
        if !request.node.is_empty() {
            target(&request.node, "")?;
        }
        self.control.transfer_leadership(&caller, request).await
    }

    pub(super) async fn backup_inner(
        &self,
        caller: &Caller,
        request: v1::BackupClusterRequest,
    ) -> ApiResult<Answers<v1::BackupChunk>> {
        if !PASSPHRASE_BYTES.contains(&request.passphrase.len()) {
            return Err(ApiError::field(
                "passphrase",
                format!("has {} bytes", request.passphrase.len()),
                format!(
                    "give one of {} to {} bytes",
                    PASSPHRASE_BYTES.start(),
                    PASSPHRASE_BYTES.end()
                ),
            ));
        }
        let backup = self.control.backup_cluster(caller, request).await?;
        Ok(self.answers(backup, |chunk| chunk))
    }

    pub(super) async fn recover_cluster_inner(
        self,
        caller: Caller,
        request: v1::RecoverClusterRequest,
    ) -> ApiResult<v1::RecoverClusterResponse> {
        self.control.recover_cluster(&caller, request).await
    }

    pub(super) async fn set_auto_lock_inner(
        self,
        caller: Caller,
        request: v1::SetAutoLockRequest,
    ) -> ApiResult<v1::SetAutoLockResponse> {
        self.control.set_auto_lock(&caller, request).await
    }

    pub(super) async fn unlock_cluster_inner(
        self,
        caller: Caller,
        request: v1::UnlockClusterRequest,
    ) -> ApiResult<v1::UnlockClusterResponse> {
        at_most("unlock_key", request.unlock_key.len(), UNLOCK_KEY_BYTES_MAX)?;
        self.control.unlock_cluster(&caller, request).await
    }

    pub(super) async fn rotate_certificate_authority_inner(
        self,
        caller: Caller,
        _: v1::RotateCertificateAuthorityRequest,
    ) -> ApiResult<v1::RotateCertificateAuthorityResponse> {
        self.control.rotate_certificate_authority(&caller).await
    }

    pub(super) async fn issue_user_certificate_inner(
        self,
        caller: Caller,
        request: v1::IssueUserCertificateRequest,
    ) -> ApiResult<v1::IssueUserCertificateResponse> {
        let role = Role::from_name(&request.role)
            .filter(|role| matches!(role, Role::Viewer | Role::Operator | Role::Admin));
        if role.is_none() {
            return Err(ApiError::field(
                "role",
                "names no role of a person",
                "give viewer, operator or admin; nodes get theirs by joining",
            ));
        }
        if request.csr.is_empty() {
            return Err(ApiError::field(
                "csr",
                "is missing",
                "make a key and send a PEM request for it",
            ));
        }
        at_most("csr", request.csr.len(), CSR_BYTES_MAX)?;
        self.control.issue_user_certificate(&caller, request).await
    }

    pub(super) async fn rotate_data_key_inner(
        self,
        caller: Caller,
        _: v1::RotateDataKeyRequest,
    ) -> ApiResult<v1::RotateDataKeyResponse> {
        self.control.rotate_data_key(&caller).await
    }
}
