//! `Debug` of the messages that carry secrets: what and how long, never the bytes.

use crate::{peer, session, v1};
use std::fmt;

impl fmt::Debug for v1::Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secret")
            .field("id", &self.id)
            .field("name", &self.name)
            .field("size", &self.size)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for v1::CreateSecretRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CreateSecretRequest")
            .field("name", &self.name)
            .field("bytes", &self.data.len())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for v1::UpdateSecretRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UpdateSecretRequest")
            .field("id", &self.id)
            .field("bytes", &self.data.len())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for v1::TlsCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsCertificate")
            .field("id", &self.id)
            .field("name", &self.name)
            .field("hosts", &self.hosts)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for v1::CreateTlsCertificateRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CreateTlsCertificateRequest")
            .field("name", &self.name)
            .field("hosts", &self.hosts)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for v1::RequestCertificateRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestCertificateRequest")
            .field("node_id", &self.node_id)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for v1::RequestCertificateResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestCertificateResponse")
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for v1::GenerateJoinTokenResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GenerateJoinTokenResponse")
            .field("token_id", &self.token_id)
            .field("role", &self.role)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for session::SecretPayload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecretPayload")
            .field("name", &self.name)
            .field("version", &self.version)
            .field("bytes", &self.data.len())
            .finish()
    }
}

impl fmt::Debug for v1::DataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DataKey")
            .field("epoch", &self.epoch)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for v1::BackupClusterRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BackupClusterRequest")
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for v1::SetAutoLockResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SetAutoLockResponse")
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for v1::UnlockClusterRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UnlockClusterRequest")
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for peer::DataKeyMaterial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DataKeyMaterial")
            .field("epoch", &self.epoch)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for peer::CallRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallRequest")
            .field("kind", &self.kind)
            .field("bytes", &self.message.len())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for peer::CallResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallResponse")
            .field("bytes", &self.message.len())
            .finish_non_exhaustive()
    }
}
