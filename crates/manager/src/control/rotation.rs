//! New keys for the cluster: its certificate authority and its data key.
//!
//! **CA**: the new root is trusted beside the old one from the first moment, and the old one vouches for it (a cross
//! certificate goes out with everything that the new one signs), so nobody is ever without trust. Nodes renew when they see
//! that their certificate is by another root than the newest; when the last has, the old root goes (`finish`).
//!
//! **Data key**: it is on a quorum's disks before anything is sealed with it, and every secret is sealed again with it.

use super::{Control, failure, info};
use crate::authority;
use crate::edge;
use crate::secrets::SecretBox;
use warren_api::{ApiError, ApiResult, Caller};
use warren_proto::v1;
use warren_raft::RaftHandle;
use warren_security::CertificateAuthority;
use warren_security::ca::CA_VALIDITY;
use warren_state::{Actor, ClusterState, Command, Op};
use warren_types::{ClusterSettings, KeyEpoch, Secret};

/// Secrets sealed again in one command.
const RESEAL_BATCH: usize = 100;

pub(super) async fn authority(
    control: &Control,
    caller: &Caller,
) -> ApiResult<v1::RotateCertificateAuthorityResponse> {
    let state = control.state();
    let before = info::settings(&state)?;
    if before.ca.roots_pem.len() > 1 {
        return Err(ApiError::precondition(
            format!(
                "a rotation is under way: {} nodes have no certificate of the new authority yet",
                info::waiting_for_rotation(&state)
            ),
            "wait for them (`warren cluster info`), or take those that will not come back out with `warren node remove`",
        ));
    }
    let internal = |e: String| ApiError::internal(e);
    let now = edge::now();
    let old = authority::of(&control.secrets, before).map_err(|e| internal(e.to_string()))?;
    let new = CertificateAuthority::generate(before.id, now, CA_VALIDITY)
        .map_err(|e| internal(e.to_string()))?;
    let mut after = before.clone();
    after.ca.cross_pem = old
        .vouch_for(&new, now)
        .map_err(|e| internal(e.to_string()))?;
    after.ca.rotation_started = Some(now);
    after.ca.roots_pem.push(new.cert_pem().to_owned());
    after.ca.key = control
        .secrets
        .seal_ca_key(
            before.id.0,
            after.ca.roots_pem.len() as u64,
            new.key_pem().as_bytes(),
        )
        .map_err(|e| internal(e.to_string()))?;
    super::settings::replace(control, caller, before, after).await?;
    let state = control.state();
    Ok(v1::RotateCertificateAuthorityResponse {
        ca_fingerprint: info::fingerprint(new.cert_pem()),
        nodes_waiting: u32::try_from(info::waiting_for_rotation(&state)).unwrap_or(u32::MAX),
    })
}

/// Ends a rotation of the CA when no node needs the old root any more.
pub(crate) fn finish(state: &ClusterState, secrets: &SecretBox) -> Option<Op> {
    let before = state.settings()?;
    if before.ca.roots_pem.len() < 2 || info::waiting_for_rotation(state) > 0 {
        return None;
    }
    let key = secrets.open_ca_key(before).ok()?;
    let mut after = ClusterSettings::clone(before);
    after.ca.roots_pem = vec![before.ca.roots_pem.last()?.clone()];
    after.ca.cross_pem = String::new();
    after.ca.rotation_started = None;
    after.ca.key = secrets.seal_ca_key(before.id.0, 1, &key).ok()?;
    Some(Op::SettingsUpdate {
        expect: Some(before.version),
        settings: Box::new(after),
    })
}

pub(super) async fn data_key(
    control: &Control,
    caller: &Caller,
) -> ApiResult<v1::RotateDataKeyResponse> {
    let state = control.state();
    let before = info::settings(&state)?;
    let epoch = before.key_epochs.last().map_or(0, |e| e.number) + 1;
    let kept = [(epoch, edge::random::<32>().to_vec())];
    // Only what the settings name seals: until then this is a key that nobody uses.
    let mut after = before.clone();
    after.key_epochs.push(KeyEpoch {
        number: epoch,
        created_at: edge::now(),
    });
    let needed = control.raft.status().voters.len() / 2 + 1;
    let spread = spread(control, &kept).await?;
    if spread + 1 < needed {
        return Err(ApiError::unavailable(
            format!(
                "the new key reached {} of the {needed} managers that must have it",
                spread + 1
            ),
            "bring managers back, then try again; the present key stays in use",
        ));
    }
    super::settings::replace(control, caller, before, after).await?;
    let secrets_resealed = reseal(control).await?;
    Ok(v1::RotateDataKeyResponse {
        epoch,
        secrets_resealed,
    })
}

/// Seals again what an older key sealed. Interrupted, it is gone on with by the next leader.
async fn reseal(control: &Control) -> ApiResult<u32> {
    let mut sealed = 0;
    loop {
        let state = control.state();
        let ops = resealing(&state, &control.secrets);
        if ops.is_empty() {
            return Ok(sealed);
        }
        sealed += u32::try_from(ops.len()).unwrap_or(u32::MAX);
        let command = Command::new(Actor::System, edge::now(), ops);
        match control.raft.propose(&command).await {
            Ok(_) => {}
            // A secret changed meanwhile: it was sealed with the new key then.
            Err(warren_raft::ProposeError::Rejected(_)) => {}
            Err(other) => return Err(failure::proposal(other)),
        }
    }
}

/// Puts a key on the disks of this and the other voters; how many of the others have it.
async fn spread(control: &Control, kept: &[(u32, Vec<u8>)]) -> ApiResult<usize> {
    let own = control.keep_keys(kept.to_vec());
    own.map_err(|e| ApiError::internal(e.to_string()))?;
    let (voters, _) = control.raft.members();
    let others = voters.iter().filter(|(id, _)| **id != control.local.node);
    let offers = others.map(|(id, member)| {
        let peer = control.peers.client(*id, &member.address);
        async move { peer.data_keys(kept).await.is_ok() }
    });
    let kept = futures::future::join_all(offers).await;
    Ok(kept.into_iter().filter(|kept| *kept).count())
}

/// The next secrets, and the CA's key, that an older data key sealed.
pub(crate) fn resealing(state: &ClusterState, secrets: &SecretBox) -> Vec<Op> {
    let Some(settings) = state.settings() else {
        return Vec::new();
    };
    let Some(newest) = settings.key_epochs.last().map(|e| e.number) else {
        return Vec::new();
    };
    if !secrets.has(newest) {
        return Vec::new();
    }
    let mut ops: Vec<Op> = state
        .secrets()
        .filter(|secret| secret.data.epoch < newest)
        .take(RESEAL_BATCH)
        .filter_map(|secret| again(secret, secrets))
        .collect();
    let old = |data: &warren_types::SealedData| data.epoch < newest;
    if (old(&settings.ca.key) || settings.auto_lock && old(&settings.unlock_key))
        && let Some(op) = settings_again(settings, secrets)
    {
        ops.push(op);
    }
    ops
}

fn again(secret: &Secret, secrets: &SecretBox) -> Option<Op> {
    let value = secrets.open(secret).ok()?;
    let data = secrets
        .seal_secret(secret.id.0, secret.updated_at, &value)
        .ok()?;
    Some(Op::SecretReseal {
        id: secret.id,
        expect: Some(secret.version),
        data,
    })
}

fn settings_again(before: &ClusterSettings, secrets: &SecretBox) -> Option<Op> {
    let key = secrets.open_ca_key(before).ok()?;
    let mut after = before.clone();
    let roots = before.ca.roots_pem.len() as u64;
    after.ca.key = secrets.seal_ca_key(before.id.0, roots, &key).ok()?;
    if before.auto_lock {
        let unlock = secrets.open_unlock_key(before).ok()?;
        after.unlock_key = secrets
            .seal_unlock_key(before.id.0, &unlock.reveal())
            .ok()?;
    }
    Some(Op::SettingsUpdate {
        expect: Some(before.version),
        settings: Box::new(after),
    })
}

/// What a leader has to go on with after the one before was interrupted.
pub(crate) async fn go_on(raft: &RaftHandle, secrets: &SecretBox) {
    let state = raft.state();
    let mut ops = resealing(&state, secrets);
    if ops.is_empty() {
        ops.extend(finish(&state, secrets));
    }
    if ops.is_empty() {
        return;
    }
    let command = Command::new(Actor::System, edge::now(), ops);
    if let Err(problem) = raft.propose(&command).await {
        tracing::debug!(%problem, "rotation not gone on with yet");
    }
}
