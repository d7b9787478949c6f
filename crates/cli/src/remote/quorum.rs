//! Managers, tokens, keys and backups behind the client.

use super::{Remote, views};
use crate::api::{
    DataKeyView, NewAuthority, NewCertificate, NewToken, NewTokenView, QuorumApi, Recovered,
    SettingsChange, SettingsView, StaleView, Time, TokenView, UserFiles,
};
use crate::args::Hidden;
use crate::error::Result;
use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;
use warren_client::{Staleness, v1};

#[async_trait]
impl QuorumApi for Remote {
    fn stale(&self) -> Option<StaleView> {
        let for_ms = match self.client.last_stale()? {
            Staleness::For(span) => u64::try_from(span.as_millis()).ok(),
            Staleness::Unknown => None,
        };
        Some(StaleView { for_ms })
    }

    async fn set_role(&self, name: &str, role: &str) -> Result<()> {
        let request = v1::UpdateNodeRequest {
            id: name.to_owned(),
            role: Some(role.to_owned()),
            ..Default::default()
        };
        self.client.update_node(request).await?;
        Ok(())
    }

    async fn transfer_leadership(&self, name: Option<&str>) -> Result<String> {
        let request = v1::TransferLeadershipRequest {
            node: name.unwrap_or_default().to_owned(),
        };
        let answer = self.client.transfer_leadership(request).await?;
        Ok(if answer.leader_name.is_empty() {
            answer.leader_id
        } else {
            answer.leader_name
        })
    }

    async fn create_token(&self, token: NewToken) -> Result<NewTokenView> {
        let request = v1::GenerateJoinTokenRequest {
            role: token.role,
            ttl_seconds: token.ttl_seconds,
            max_uses: token.max_uses,
            rotate: token.rotate,
        };
        Ok(views::new_token(
            self.client.generate_join_token(request).await?,
        ))
    }

    async fn tokens(&self) -> Result<Vec<TokenView>> {
        let request = v1::ListJoinTokensRequest {};
        let answer = self.client.list_join_tokens(request).await?;
        Ok(answer.tokens.into_iter().map(views::token).collect())
    }

    async fn revoke_token(&self, id: &str) -> Result<()> {
        let request = v1::RevokeJoinTokenRequest { id: id.to_owned() };
        self.client.revoke_join_token(request).await?;
        Ok(())
    }

    async fn update_settings(&self, change: SettingsChange) -> Result<SettingsView> {
        let request = v1::UpdateClusterSettingsRequest {
            snapshot_entries: change.snapshot_entries,
            snapshot_bytes: change.snapshot_bytes,
            log_bytes_max: change.log_bytes_max,
            heartbeat_ms: change.heartbeat_ms,
            node_down_after_ms: change.node_down_after_ms,
            raft_profile: change.raft_profile.map(|p| p.name().to_owned()),
        };
        let answer = self.client.update_cluster_settings(request).await?;
        let settings = answer.settings.ok_or_else(|| views::missing("settings"))?;
        Ok(views::settings(settings))
    }

    async fn backup(&self, passphrase: &Hidden) -> Result<BoxStream<'static, Result<Vec<u8>>>> {
        let request = v1::BackupClusterRequest {
            passphrase: passphrase.reveal().to_owned(),
        };
        let stream = self.client.backup_cluster(request).await?;
        Ok(stream
            .map(|item| item.map(|chunk| chunk.data).map_err(Into::into))
            .boxed())
    }

    async fn recover(&self, force: bool) -> Result<Recovered> {
        let request = v1::RecoverClusterRequest { force };
        let answer = self.client.recover_cluster(request).await?;
        Ok(Recovered {
            revision: answer.revision,
            applied_index: answer.applied_index,
        })
    }

    async fn set_auto_lock(&self, enabled: bool, rotate: bool) -> Result<Hidden> {
        let request = v1::SetAutoLockRequest { enabled, rotate };
        let answer = self.client.set_auto_lock(request).await?;
        Ok(Hidden::new(answer.unlock_key))
    }

    async fn unlock(&self, key: &Hidden) -> Result<()> {
        let request = v1::UnlockClusterRequest {
            unlock_key: key.reveal().to_owned(),
        };
        self.client.unlock_cluster(request).await?;
        Ok(())
    }

    async fn rotate_authority(&self) -> Result<NewAuthority> {
        let request = v1::RotateCertificateAuthorityRequest {};
        let answer = self.client.rotate_certificate_authority(request).await?;
        Ok(NewAuthority {
            fingerprint: answer.ca_fingerprint,
            waiting: answer.nodes_waiting,
        })
    }

    async fn issue_certificate(&self, request: &NewCertificate) -> Result<UserFiles> {
        let user = warren_client::NewUser {
            role: request.role,
            name: request.name.clone(),
            ttl_seconds: request.ttl_seconds,
        };
        let made = self.client.new_user_certificate(&user).await?;
        Ok(UserFiles {
            key_pem: Hidden::new(made.key_pem.to_string()),
            cert_pem: made.cert_pem,
            ca_pem: made.ca_pem,
            expires_at: Time(Some(made.expires_at)),
        })
    }

    async fn rotate_data_key(&self) -> Result<DataKeyView> {
        let answer = self
            .client
            .rotate_data_key(v1::RotateDataKeyRequest {})
            .await?;
        Ok(DataKeyView {
            epoch: answer.epoch,
            secrets_resealed: answer.secrets_resealed,
        })
    }
}
