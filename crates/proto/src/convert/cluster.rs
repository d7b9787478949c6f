//! Cluster settings and join tokens ⇄ `warren.store.v1`.

use super::{ConvertError, WireEnum, id_bytes, id_from, nested, wire_enum};
use crate::store as pb;
use warren_types::{
    CaMaterial, ClusterId, ClusterSettings, Duration, JoinToken, KeyEpoch, RaftProfile, Revision,
    Role, SealedData, Timestamp, TokenId,
};

wire_enum!(RaftProfile { Lan, Wan });

wire_enum!(Role {
    None,
    Worker,
    Manager,
    Viewer,
    Operator,
    Admin
});

impl From<&CaMaterial> for pb::CaMaterial {
    fn from(v: &CaMaterial) -> Self {
        Self {
            roots_pem: v.roots_pem.clone(),
            key: Some((&v.key).into()),
            cross_pem: v.cross_pem.clone(),
            rotation_started_ms: v.rotation_started.map(|t| t.0),
        }
    }
}

impl TryFrom<pb::CaMaterial> for CaMaterial {
    type Error = ConvertError;
    fn try_from(v: pb::CaMaterial) -> Result<Self, ConvertError> {
        Ok(Self {
            roots_pem: v.roots_pem,
            key: nested(v.key, "key")?,
            cross_pem: v.cross_pem,
            rotation_started: v.rotation_started_ms.map(Timestamp),
        })
    }
}

impl From<&KeyEpoch> for pb::KeyEpoch {
    fn from(v: &KeyEpoch) -> Self {
        Self {
            number: v.number,
            created_at_ms: v.created_at.0,
        }
    }
}

impl From<pb::KeyEpoch> for KeyEpoch {
    fn from(v: pb::KeyEpoch) -> Self {
        Self {
            number: v.number,
            created_at: Timestamp(v.created_at_ms),
        }
    }
}

impl From<&ClusterSettings> for pb::ClusterSettings {
    fn from(v: &ClusterSettings) -> Self {
        Self {
            id: id_bytes(v.id.0),
            name: v.name.clone(),
            ca: Some((&v.ca).into()),
            key_epochs: v.key_epochs.iter().map(Into::into).collect(),
            container_pool: v.container_pool.clone(),
            node_prefix_len: u32::from(v.node_prefix_len),
            heartbeat_ms: v.heartbeat.0,
            node_down_after_ms: v.node_down_after.0,
            history_per_slot: v.history_per_slot,
            snapshot_entries: v.snapshot_entries,
            snapshot_bytes: v.snapshot_bytes,
            log_bytes_max: v.log_bytes_max,
            auto_lock: v.auto_lock,
            unlock_key: v.auto_lock.then(|| (&v.unlock_key).into()),
            created_at_ms: v.created_at.0,
            version: v.version.0,
            raft_profile: v.raft_profile.number(),
        }
    }
}

impl TryFrom<pb::ClusterSettings> for ClusterSettings {
    type Error = ConvertError;
    fn try_from(v: pb::ClusterSettings) -> Result<Self, ConvertError> {
        Ok(Self {
            id: ClusterId(id_from(&v.id, "id")?),
            name: v.name,
            ca: nested(v.ca, "ca")?,
            key_epochs: v.key_epochs.into_iter().map(Into::into).collect(),
            container_pool: v.container_pool,
            node_prefix_len: u8::try_from(v.node_prefix_len)
                .map_err(|_| ConvertError::new("node_prefix_len", "above 255"))?,
            heartbeat: Duration(v.heartbeat_ms),
            node_down_after: Duration(v.node_down_after_ms),
            history_per_slot: v.history_per_slot,
            snapshot_entries: v.snapshot_entries,
            snapshot_bytes: v.snapshot_bytes,
            log_bytes_max: v.log_bytes_max,
            raft_profile: match v.raft_profile {
                // Of a release that knew one profile only.
                0 => RaftProfile::Lan,
                number => WireEnum::read(number, "raft_profile")?,
            },
            auto_lock: v.auto_lock,
            unlock_key: match v.unlock_key {
                Some(sealed) => sealed.try_into()?,
                None => SealedData::default(),
            },
            created_at: Timestamp(v.created_at_ms),
            version: Revision(v.version),
        })
    }
}

impl From<&JoinToken> for pb::JoinToken {
    fn from(v: &JoinToken) -> Self {
        Self {
            id: id_bytes(v.id.0),
            role: v.role.number(),
            secret_hash: v.secret_hash.to_vec(),
            created_at_ms: v.created_at.0,
            expires_at_ms: v.expires_at.0,
            uses_left: v.uses_left,
            revoked: v.revoked,
            version: v.version.0,
        }
    }
}

impl TryFrom<pb::JoinToken> for JoinToken {
    type Error = ConvertError;
    fn try_from(v: pb::JoinToken) -> Result<Self, ConvertError> {
        Ok(Self {
            id: TokenId(id_from(&v.id, "id")?),
            role: WireEnum::read(v.role, "role")?,
            secret_hash: <[u8; 32]>::try_from(v.secret_hash.as_slice())
                .map_err(|_| ConvertError::new("secret_hash", "a hash has 32 bytes"))?,
            created_at: Timestamp(v.created_at_ms),
            expires_at: Timestamp(v.expires_at_ms),
            uses_left: v.uses_left,
            revoked: v.revoked,
            version: Revision(v.version),
        })
    }
}
