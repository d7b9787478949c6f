//! What the commands about managers, tokens, keys and backups need of a cluster. The views are also the
//! JSON and YAML form: fields are only ever added.

use super::views::Time;
use crate::args::Hidden;
use crate::error::Result;
use async_trait::async_trait;
use futures::stream::BoxStream;
use serde::Serialize;
use warren_types::{RaftProfile, Role};

/// The answer came from a manager outside the quorum.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StaleView {
    /// How long ago the manager last belonged to the quorum, in milliseconds; `None` = longer than it has
    /// been running.
    pub for_ms: Option<u64>,
}

/// Settings of the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SettingsView {
    /// Log entries between two snapshots.
    pub snapshot_entries: u64,
    /// Log bytes between two snapshots.
    pub snapshot_bytes: u64,
    /// Most bytes of log on disk.
    pub log_bytes_max: u64,
    /// Milliseconds between two heartbeats of a node.
    pub heartbeat_ms: u64,
    /// Milliseconds of silence after which a node is down.
    pub node_down_after_ms: u64,
    /// Times of the consensus protocol; a manager takes them up when it is started.
    pub raft_profile: RaftProfile,
    /// A manager that starts needs the unlock key.
    pub auto_lock: bool,
    /// Number of the data key that seals new data.
    pub data_key_epoch: u32,
}

/// Settings to change; `None` stays as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SettingsChange {
    /// Log entries between two snapshots.
    pub snapshot_entries: Option<u64>,
    /// Log bytes between two snapshots.
    pub snapshot_bytes: Option<u64>,
    /// Most bytes of log on disk.
    pub log_bytes_max: Option<u64>,
    /// Milliseconds between two heartbeats of a node.
    pub heartbeat_ms: Option<u64>,
    /// Milliseconds of silence after which a node is down.
    pub node_down_after_ms: Option<u64>,
    /// Times of the consensus protocol.
    pub raft_profile: Option<RaftProfile>,
}

/// A join token to make.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NewToken {
    /// worker or manager.
    pub role: String,
    /// Life in seconds.
    pub ttl_seconds: u64,
    /// Nodes that may join with it; 0 means no limit.
    pub max_uses: u32,
    /// Every earlier token of this role stops working.
    pub rotate: bool,
}

/// A join token that was just made.
#[derive(Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NewTokenView {
    /// Id.
    pub id: String,
    /// The token.
    pub token: String,
    /// worker or manager.
    pub role: String,
    /// When it ends.
    pub expires_at: Time,
}

impl std::fmt::Debug for NewTokenView {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "NewTokenView({}, {})", self.id, self.role)
    }
}

/// A join token that exists.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TokenView {
    /// Id.
    pub id: String,
    /// worker or manager.
    pub role: String,
    /// active, expired, used up or revoked.
    pub state: String,
    /// Nodes that may still join with it; null means no limit.
    pub uses_left: Option<u32>,
    /// When it was made.
    pub created_at: Time,
    /// When it ends.
    pub expires_at: Time,
}

/// What a recovery begins from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Recovered {
    /// State revision that the manager has.
    pub revision: u64,
    /// Last log entry that it has.
    pub applied_index: u64,
}

/// A new data key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DataKeyView {
    /// Its number.
    pub epoch: u32,
    /// Secrets that are sealed with it now.
    pub secrets_resealed: u32,
}

/// A new certificate authority.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NewAuthority {
    /// SHA-256 of its certificate.
    pub fingerprint: String,
    /// Nodes that still have a certificate of the old one.
    pub waiting: u32,
}

/// A certificate for a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewCertificate {
    /// Viewer, operator or admin.
    pub role: Role,
    /// Whom it names.
    pub name: String,
    /// Life in seconds; 0 means as long as possible.
    pub ttl_seconds: u64,
}

/// A person's certificate with its key.
#[derive(Debug, Clone)]
pub struct UserFiles {
    /// Private key, PEM.
    pub key_pem: Hidden,
    /// Certificate, PEM.
    pub cert_pem: String,
    /// Trusted roots, PEM.
    pub ca_pem: String,
    /// When it ends.
    pub expires_at: Time,
}

/// Managers, tokens, keys and backups.
#[async_trait]
pub trait QuorumApi: Send + Sync {
    /// The last answer came from a manager outside the quorum.
    fn stale(&self) -> Option<StaleView>;

    /// Makes a node a worker, manager or hybrid.
    async fn set_role(&self, name: &str, role: &str) -> Result<()>;
    /// Hands leadership over; `None` means to the manager that is furthest. The name of the new leader.
    async fn transfer_leadership(&self, name: Option<&str>) -> Result<String>;

    /// Makes a join token.
    async fn create_token(&self, token: NewToken) -> Result<NewTokenView>;
    /// All join tokens.
    async fn tokens(&self) -> Result<Vec<TokenView>>;
    /// Makes a join token worthless.
    async fn revoke_token(&self, id: &str) -> Result<()>;

    /// Changes settings; an empty change changes nothing.
    async fn update_settings(&self, change: SettingsChange) -> Result<SettingsView>;

    /// The bytes of a backup.
    async fn backup(&self, passphrase: &Hidden) -> Result<BoxStream<'static, Result<Vec<u8>>>>;
    /// Lets the manager that answers go on alone.
    async fn recover(&self, force: bool) -> Result<Recovered>;

    /// Switches auto-lock; the new unlock key, empty when it was switched off.
    async fn set_auto_lock(&self, enabled: bool, rotate: bool) -> Result<Hidden>;
    /// Gives the locked manager its key.
    async fn unlock(&self, key: &Hidden) -> Result<()>;
    /// Makes a key and has a certificate for it signed.
    async fn issue_certificate(&self, request: &NewCertificate) -> Result<UserFiles>;
    /// Begins the change to a new certificate authority.
    async fn rotate_authority(&self) -> Result<NewAuthority>;
    /// Makes a new data key.
    async fn rotate_data_key(&self) -> Result<DataKeyView>;
}
