//! Auto-lock: the managers' keyrings are wrapped by a key that only the operator has.
//!
//! The key is in the state, sealed with the data key, so that every manager can wrap its own keyring with it
//! (`quorum::keeper`), also one that joins later or was away when it was changed.

use super::{Control, info, settings};
use crate::edge;
use warren_api::{ApiError, ApiResult, Caller};
use warren_proto::v1;
use warren_security::UnlockKey;
use warren_types::SealedData;

pub(super) async fn set(
    control: &Control,
    caller: &Caller,
    request: v1::SetAutoLockRequest,
) -> ApiResult<v1::SetAutoLockResponse> {
    let state = control.state();
    let before = info::settings(&state)?;
    let mut after = before.clone();
    if !request.enabled {
        after.auto_lock = false;
        after.unlock_key = SealedData::default();
        settings::replace(control, caller, before, after).await?;
        return Ok(v1::SetAutoLockResponse {
            unlock_key: String::new(),
        });
    }
    let key = if before.auto_lock && !request.rotate {
        let known = control.secrets.open_unlock_key(before);
        known.map_err(|e| ApiError::internal(e.to_string()))?
    } else {
        UnlockKey::new(edge::random())
    };
    if !before.auto_lock || request.rotate {
        after.auto_lock = true;
        after.unlock_key = control
            .secrets
            .seal_unlock_key(before.id.0, &key.reveal())
            .map_err(|e| ApiError::internal(e.to_string()))?;
        settings::replace(control, caller, before, after).await?;
    }
    Ok(v1::SetAutoLockResponse {
        unlock_key: key.reveal().to_string(),
    })
}
