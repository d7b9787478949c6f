//! Services.

use super::Handlers;
use super::checks::{options, target};
use crate::caller::Caller;
use crate::control::{ApiResult, ChangeOptions};
use crate::error::ApiError;
use warren_proto::convert::{
    ServiceView, service_to_api, spec_from_create, spec_from_image_update, spec_from_update,
};
use warren_proto::{ConvertError, v1};
use warren_types::{ServiceSpec, limits};

/// Tries of a change that is made of reading and writing, when others change the service meanwhile.
const MERGE_TRIES_MAX: u32 = 5;

impl Handlers {
    pub(super) async fn create_service_inner(
        self,
        caller: Caller,
        mut request: v1::CreateServiceRequest,
    ) -> ApiResult<v1::CreateServiceResponse> {
        let options = options(
            0,
            std::mem::take(&mut request.idempotency_key),
            request.dry_run,
        )?;
        let spec = spec_from_create(request)?;
        spec.validate()?;
        let view = self.control.create_service(&caller, spec, options).await?;
        Ok(v1::CreateServiceResponse {
            service: Some(service_to_api(&view, false)),
        })
    }

    pub(super) async fn update_service_inner(
        self,
        caller: Caller,
        mut request: v1::UpdateServiceRequest,
    ) -> ApiResult<v1::UpdateServiceResponse> {
        let options = options(
            request.expected_version,
            std::mem::take(&mut request.idempotency_key),
            request.dry_run,
        )?;
        let name = target(&request.id, &request.name)?.to_owned();
        let view = if request.spec.is_some() {
            let present = ServiceSpec::default();
            let spec = spec_from_update(&present, request)?;
            spec.validate()?;
            self.control
                .update_service(&caller, &name, spec, options)
                .await?
        } else {
            self.merge(&caller, &name, options, |present| {
                spec_from_update(present, request.clone())
            })
            .await?
        };
        Ok(v1::UpdateServiceResponse {
            service: Some(service_to_api(&view, false)),
        })
    }

    /// Reads, changes and writes a service; again when somebody else was faster, unless the caller
    /// named a version.
    async fn merge(
        &self,
        caller: &Caller,
        name: &str,
        options: ChangeOptions,
        change: impl Fn(&ServiceSpec) -> Result<ServiceSpec, ConvertError> + Send + Sync,
    ) -> ApiResult<ServiceView> {
        let mut tries = 1;
        loop {
            let present = self.control.get_service(caller, name).await?;
            let spec = change(&present.service.spec)?;
            spec.validate()?;
            let fenced = ChangeOptions {
                expect: Some(options.expect.unwrap_or(present.service.version)),
                ..options.clone()
            };
            let id = present.service.id.to_string();
            match self.control.update_service(caller, &id, spec, fenced).await {
                Err(ApiError::Conflict { .. })
                    if options.expect.is_none() && tries < MERGE_TRIES_MAX =>
                {
                    tries += 1;
                }
                result => return result,
            }
        }
    }

    pub(super) async fn update_service_image_inner(
        self,
        caller: Caller,
        request: v1::UpdateServiceImageRequest,
    ) -> ApiResult<v1::UpdateServiceImageResponse> {
        let name = target(&request.id, &request.name)?.to_owned();
        let options = options(request.expected_version, String::new(), false)?;
        self.merge(&caller, &name, options, |present| {
            spec_from_image_update(present, request.clone())
        })
        .await?;
        Ok(v1::UpdateServiceImageResponse {
            status: "deployment initiated".to_owned(),
        })
    }

    pub(super) async fn scale_service_inner(
        self,
        caller: Caller,
        request: v1::ScaleServiceRequest,
    ) -> ApiResult<v1::ScaleServiceResponse> {
        let name = target(&request.id, &request.name)?;
        if request.replicas > limits::REPLICAS_MAX {
            return Err(ApiError::field(
                "replicas",
                format!("{} are too many", request.replicas),
                format!("a service has at most {}", limits::REPLICAS_MAX),
            ));
        }
        let options = options(request.expected_version, String::new(), false)?;
        let view = self
            .control
            .scale_service(&caller, name, request.replicas, options)
            .await?;
        Ok(v1::ScaleServiceResponse {
            service: Some(service_to_api(&view, false)),
        })
    }

    pub(super) async fn rollback_service_inner(
        self,
        caller: Caller,
        request: v1::RollbackServiceRequest,
    ) -> ApiResult<v1::RollbackServiceResponse> {
        let name = target(&request.id, &request.name)?;
        let options = options(request.expected_version, String::new(), false)?;
        let to = (request.to_revision > 0).then_some(request.to_revision);
        let view = self
            .control
            .rollback_service(&caller, name, to, options)
            .await?;
        Ok(v1::RollbackServiceResponse {
            status: "rollback completed".to_owned(),
            service: Some(service_to_api(&view, false)),
        })
    }

    pub(super) async fn delete_service_inner(
        self,
        caller: Caller,
        request: v1::DeleteServiceRequest,
    ) -> ApiResult<v1::DeleteServiceResponse> {
        let name = target(&request.id, &request.name)?;
        self.control.delete_service(&caller, name).await?;
        Ok(v1::DeleteServiceResponse {
            status: "ok".to_owned(),
        })
    }

    pub(super) async fn get_service_inner(
        self,
        caller: Caller,
        request: v1::GetServiceRequest,
    ) -> ApiResult<v1::GetServiceResponse> {
        let name = target(&request.id, &request.name)?;
        let view = self.control.get_service(&caller, name).await?;
        Ok(v1::GetServiceResponse {
            service: Some(service_to_api(&view, true)),
        })
    }

    pub(super) async fn list_services_inner(
        self,
        caller: Caller,
        _request: v1::ListServicesRequest,
    ) -> ApiResult<v1::ListServicesResponse> {
        let views = self.control.list_services(&caller).await?;
        Ok(v1::ListServicesResponse {
            services: views.iter().map(|v| service_to_api(v, false)).collect(),
        })
    }
}
