//! Secrets and volumes.

use super::Handlers;
use super::checks::{name_and_labels, options, secret_value, target};
use crate::caller::Caller;
use crate::control::{ApiResult, NewVolume, SecretView, VolumeView};
use warren_proto::convert::{secret_to_api, volume_to_api};
use warren_proto::v1;
use warren_types::{Revision, Timestamp, Volume, VolumeId};

/// Driver of a volume when the request names none.
const VOLUME_DRIVER_DEFAULT: &str = "local";

fn secret_answer(view: &SecretView) -> v1::Secret {
    secret_to_api(&view.secret, &view.used_by)
}

fn volume_answer(view: &VolumeView) -> v1::Volume {
    volume_to_api(&view.volume, &view.node_name, &view.used_by)
}

impl Handlers {
    pub(super) async fn create_secret_inner(
        self,
        caller: Caller,
        request: v1::CreateSecretRequest,
    ) -> ApiResult<v1::CreateSecretResponse> {
        name_and_labels(&request.name, &request.labels)?;
        secret_value(&request.data)?;
        let options = options(0, request.idempotency_key, false)?;
        let view = self
            .control
            .create_secret(&caller, request.name, request.labels, request.data, options)
            .await?;
        Ok(v1::CreateSecretResponse {
            secret: Some(secret_answer(&view)),
        })
    }

    pub(super) async fn update_secret_inner(
        self,
        caller: Caller,
        request: v1::UpdateSecretRequest,
    ) -> ApiResult<v1::UpdateSecretResponse> {
        let name = target(&request.id, "")?;
        secret_value(&request.data)?;
        let options = options(request.expected_version, String::new(), false)?;
        let view = self
            .control
            .update_secret(&caller, name, request.data, options)
            .await?;
        Ok(v1::UpdateSecretResponse {
            secret: Some(secret_answer(&view)),
        })
    }

    pub(super) async fn delete_secret_inner(
        self,
        caller: Caller,
        request: v1::DeleteSecretRequest,
    ) -> ApiResult<v1::DeleteSecretResponse> {
        let name = target(&request.id, "")?;
        self.control.delete_secret(&caller, name).await?;
        Ok(v1::DeleteSecretResponse {
            status: "ok".to_owned(),
        })
    }

    pub(super) async fn get_secret_by_name_inner(
        self,
        caller: Caller,
        request: v1::GetSecretByNameRequest,
    ) -> ApiResult<v1::GetSecretByNameResponse> {
        let name = target(&request.name, "")?;
        let view = self.control.get_secret(&caller, name).await?;
        Ok(v1::GetSecretByNameResponse {
            secret: Some(secret_answer(&view)),
        })
    }

    pub(super) async fn list_secrets_inner(
        self,
        caller: Caller,
        _request: v1::ListSecretsRequest,
    ) -> ApiResult<v1::ListSecretsResponse> {
        let views = self.control.list_secrets(&caller).await?;
        Ok(v1::ListSecretsResponse {
            secrets: views.iter().map(secret_answer).collect(),
        })
    }

    pub(super) async fn create_volume_inner(
        self,
        caller: Caller,
        request: v1::CreateVolumeRequest,
    ) -> ApiResult<v1::CreateVolumeResponse> {
        let driver = if request.driver.is_empty() {
            VOLUME_DRIVER_DEFAULT.to_owned()
        } else {
            request.driver
        };
        let volume = NewVolume {
            name: request.name,
            driver,
            driver_opts: request.driver_opts,
            labels: request.labels,
        };
        check_volume(&volume)?;
        let options = options(0, request.idempotency_key, false)?;
        let view = self.control.create_volume(&caller, volume, options).await?;
        Ok(v1::CreateVolumeResponse {
            volume: Some(volume_answer(&view)),
        })
    }

    pub(super) async fn delete_volume_inner(
        self,
        caller: Caller,
        request: v1::DeleteVolumeRequest,
    ) -> ApiResult<v1::DeleteVolumeResponse> {
        let name = target(&request.id, "")?;
        self.control
            .delete_volume(&caller, name, request.force)
            .await?;
        Ok(v1::DeleteVolumeResponse {
            status: "ok".to_owned(),
        })
    }

    pub(super) async fn get_volume_by_name_inner(
        self,
        caller: Caller,
        request: v1::GetVolumeByNameRequest,
    ) -> ApiResult<v1::GetVolumeByNameResponse> {
        let name = target(&request.name, "")?;
        let view = self.control.get_volume(&caller, name).await?;
        Ok(v1::GetVolumeByNameResponse {
            volume: Some(volume_answer(&view)),
        })
    }

    pub(super) async fn list_volumes_inner(
        self,
        caller: Caller,
        _request: v1::ListVolumesRequest,
    ) -> ApiResult<v1::ListVolumesResponse> {
        let views = self.control.list_volumes(&caller).await?;
        Ok(v1::ListVolumesResponse {
            volumes: views.iter().map(volume_answer).collect(),
        })
    }
}

/// The rules of the stored object, before it has an id.
fn check_volume(new: &NewVolume) -> ApiResult<()> {
    Volume {
        id: VolumeId::default(),
        name: new.name.clone(),
        driver: new.driver.clone(),
        driver_opts: new.driver_opts.clone(),
        labels: new.labels.clone(),
        node: None,
        mount_path: String::new(),
        created_at: Timestamp::default(),
        version: Revision::default(),
    }
    .validate()?;
    Ok(())
}
