//! The managers of the cluster in memory.

use super::fake::{Fake, at};
use crate::api::*;
use crate::args::Hidden;
use crate::error::{CliError, Exit, Result};
use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;

/// Managers, tokens and keys.
#[derive(Debug, Default)]
pub(super) struct Quorum {
    pub(super) members: Vec<MemberView>,
    pub(super) lost: bool,
    pub(super) stale: Option<StaleView>,
    pub(super) settings: SettingsView,
    pub(super) tokens: Vec<TokenView>,
    pub(super) warnings: Vec<String>,
    /// Nodes that still have an old certificate.
    pub(super) rotating: u32,
    pub(super) locked: bool,
    pub(super) removed: bool,
    /// Pieces of the backup; `None` breaks it off.
    pub(super) backup: Vec<Option<&'static [u8]>>,
    /// Calls about the cluster that fail before one works.
    pub(super) deaf: u32,
    /// Node that leaves the quorum at the next look.
    pub(super) leaving: Option<String>,
    /// Nobody moves on.
    pub(super) stuck: bool,
}

pub(super) fn voter(id: &str, name: &str, leader: bool) -> MemberView {
    MemberView {
        id: id.into(),
        name: name.into(),
        address: format!("10.0.0.{}:8080", id.trim_start_matches('n')),
        suffrage: "Voter".into(),
        leader,
        reachable: true,
        last_contact_ms: (!leader).then_some(40),
        role: "hybrid".into(),
        version: "0.1.0".into(),
        raft_profile: Some(warren_types::RaftProfile::Lan),
        ..MemberView::default()
    }
}

impl Quorum {
    /// The next step of everything that is under way.
    fn tick(&mut self) {
        self.rotating = self.rotating.saturating_sub(1);
        if self.stuck {
            return;
        }
        if let Some(id) = self.leaving.take() {
            self.members.retain(|m| m.id != id);
        }
        for m in &mut self.members {
            match m.suffrage.as_str() {
                "Staging" => {
                    m.suffrage = "Nonvoter".into();
                    m.lag = 70;
                }
                "Nonvoter" => {
                    m.suffrage = "Voter".into();
                    m.lag = 0;
                    m.reachable = true;
                }
                _ => {}
            }
        }
    }

    /// What a manager says about the cluster now, then everything moves one step on.
    pub(super) fn look(&mut self) -> Result<ClusterView> {
        if self.deaf > 0 {
            self.deaf -= 1;
            return Err(CliError::new(Exit::NoConnection, "nobody leads"));
        }
        let voters: Vec<&MemberView> = self
            .members
            .iter()
            .filter(|m| m.suffrage == "Voter")
            .collect();
        let count = voters.len() as u32;
        // Only a leader knows who answers.
        let healthy = voters.iter().filter(|m| m.reachable && !self.lost).count() as u32;
        let leader = self.members.iter().find(|m| m.leader && !self.lost);
        let view = ClusterView {
            id: "01hzzcluster".into(),
            name: "home".into(),
            leader_id: leader.map(|m| m.id.clone()).unwrap_or_default(),
            leader: leader.map(|m| m.name.clone()).unwrap_or_default(),
            leader_address: leader.map(|m| m.address.clone()).unwrap_or_default(),
            quorum: !self.lost,
            managers: self.members.len() as u32,
            nodes: 2,
            nodes_ready: 1,
            revision: 812,
            term: 4,
            members: self.members.clone(),
            voters: count,
            voters_healthy: healthy,
            quorum_needed: count / 2 + 1,
            failures_tolerated: healthy.saturating_sub(count / 2 + 1),
            leader_changes: 2,
            log_entries: 420,
            log_bytes: 3 << 20,
            snapshot_index: 10_000,
            snapshot_bytes: 700 << 10,
            applied_index: 10_419,
            committed_index: 10_420,
            commit_p99_micros: Some(2345),
            warnings: self.warnings.clone(),
            answered_by: "edge-1".into(),
            settings: self.settings,
            ca_rotation: self.rotating > 0,
            ca_rotation_waiting: self.rotating,
            ca_fingerprint: "ab:cd".into(),
            created_at: at(86_400 * 3),
            ..ClusterView::default()
        };
        self.tick();
        Ok(view)
    }
}

#[async_trait]
impl QuorumApi for Fake {
    fn stale(&self) -> Option<StaleView> {
        self.world().quorum.stale.clone()
    }
    async fn set_role(&self, name: &str, role: &str) -> Result<()> {
        let node = self.node(name).await?;
        self.called(format!("set_role {name} {role}"));
        let mut world = self.world();
        let quorum = &mut world.quorum;
        if role == "worker" {
            if quorum.members.len() == 1 {
                return Err(CliError::general("the last manager cannot be demoted"));
            }
            quorum.leaving = Some(node.id);
        } else {
            quorum.members.push(MemberView {
                suffrage: "Staging".into(),
                reachable: false,
                address: "10.0.0.2:8080".into(),
                ..voter(&node.id, &node.name, false)
            });
        }
        Ok(())
    }
    async fn transfer_leadership(&self, name: Option<&str>) -> Result<String> {
        self.called(format!("transfer {name:?}"));
        Ok(name.unwrap_or("edge-2").to_owned())
    }
    async fn create_token(&self, token: NewToken) -> Result<NewTokenView> {
        self.called(format!("create_token {token:?}"));
        Ok(NewTokenView {
            id: "tok1".into(),
            token: "WRN-1-abc-tok1-secret".into(),
            role: token.role,
            expires_at: Time(Some(
                super::fake::NOW.plus(warren_types::Duration::from_secs(token.ttl_seconds)),
            )),
        })
    }
    async fn tokens(&self) -> Result<Vec<TokenView>> {
        Ok(self.world().quorum.tokens.clone())
    }
    async fn revoke_token(&self, id: &str) -> Result<()> {
        if id == "none" {
            return Err(CliError::not_found("token none does not exist"));
        }
        self.called(format!("revoke {id}"));
        Ok(())
    }
    async fn update_settings(&self, change: SettingsChange) -> Result<SettingsView> {
        self.called(format!("settings {change:?}"));
        let mut world = self.world();
        let settings = &mut world.quorum.settings;
        if let Some(entries) = change.snapshot_entries {
            settings.snapshot_entries = entries;
        }
        settings.raft_profile = change.raft_profile.unwrap_or(settings.raft_profile);
        if let Some(bytes) = change.log_bytes_max {
            settings.log_bytes_max = bytes;
        }
        Ok(*settings)
    }
    async fn backup(&self, passphrase: &Hidden) -> Result<BoxStream<'static, Result<Vec<u8>>>> {
        self.called(format!("backup with {}", passphrase.reveal()));
        let pieces = self.world().quorum.backup.clone();
        let pieces = pieces.into_iter().map(|piece| match piece {
            Some(bytes) => Ok(bytes.to_vec()),
            None => Err(CliError::new(Exit::NoConnection, "the manager went away")),
        });
        Ok(futures::stream::iter(pieces).boxed())
    }
    async fn recover(&self, force: bool) -> Result<Recovered> {
        self.called(format!("recover {force}"));
        let mut world = self.world();
        let quorum = &mut world.quorum;
        if !quorum.lost && !force {
            return Err(CliError::general("a quorum is there"));
        }
        quorum.members.retain(|m| m.id == "n1");
        quorum.lost = false;
        quorum.deaf = 1;
        Ok(Recovered {
            revision: 812,
            applied_index: 10_419,
        })
    }
    async fn set_auto_lock(&self, enabled: bool, rotate: bool) -> Result<Hidden> {
        self.called(format!("auto_lock {enabled} {rotate}"));
        let mut world = self.world();
        let again = enabled && world.quorum.settings.auto_lock && !rotate;
        world.quorum.settings.auto_lock = enabled;
        Ok(Hidden::new(if enabled && !again {
            "UNLOCK-xyz".to_owned()
        } else {
            String::new()
        }))
    }
    async fn unlock(&self, key: &Hidden) -> Result<()> {
        self.called(format!("unlock {}", key.reveal()));
        if key.reveal() != "UNLOCK-xyz" {
            return Err(CliError::new(Exit::Denied, "the unlock key is wrong"));
        }
        self.world().quorum.locked = false;
        Ok(())
    }
    async fn rotate_authority(&self) -> Result<NewAuthority> {
        self.called("rotate_authority");
        self.world().quorum.rotating = 2;
        Ok(NewAuthority {
            fingerprint: "ef:01".into(),
            waiting: 2,
        })
    }
    async fn issue_certificate(&self, request: &NewCertificate) -> Result<UserFiles> {
        self.called(format!("issue_certificate {request:?}"));
        Ok(UserFiles {
            key_pem: Hidden::new("KEY".to_owned()),
            cert_pem: "CERT".to_owned(),
            ca_pem: "CA".to_owned(),
            expires_at: at(0),
        })
    }
    async fn rotate_data_key(&self) -> Result<DataKeyView> {
        self.called("rotate_data_key");
        Ok(DataKeyView {
            epoch: 2,
            secrets_resealed: 5,
        })
    }
}
