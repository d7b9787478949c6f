//! Ingresses and their TLS certificates.

use super::Handlers;
use super::checks::{name_and_labels, target};
use crate::caller::Caller;
use crate::control::{ApiResult, IngressChange, NewCertificate};
use crate::error::ApiError;
use warren_proto::convert::{ingress_parts, tls_certificate_to_api};
use warren_proto::v1;
use warren_types::{Ingress, IngressId, Revision, Timestamp, limits};

fn deleted() -> String {
    "deleted".to_owned()
}

/// The rules of the stored object, before it has an id. Rules that stay as they are count as one.
fn check_ingress(change: &IngressChange) -> ApiResult<()> {
    Ingress {
        id: IngressId::default(),
        name: change
            .name
            .clone()
            .unwrap_or_else(|| "unchanged".to_owned()),
        rules: change.rules.clone().unwrap_or_else(|| {
            vec![warren_types::IngressRule {
                host: String::new(),
                paths: vec![warren_types::IngressPath {
                    path: "/".to_owned(),
                    service: "unchanged".to_owned(),
                    port: 1,
                    ..Default::default()
                }],
            }]
        }),
        tls: change.tls.clone(),
        labels: change.labels.clone().unwrap_or_default(),
        created_at: Timestamp::default(),
        updated_at: Timestamp::default(),
        version: Revision::default(),
    }
    .validate()?;
    Ok(())
}

fn pem(field: &str, bytes: Vec<u8>) -> ApiResult<String> {
    if bytes.is_empty() || bytes.len() > limits::PEM_BYTES_MAX {
        return Err(ApiError::field(
            field,
            format!("has {} bytes", bytes.len()),
            format!("1 to {} are allowed", limits::PEM_BYTES_MAX),
        ));
    }
    String::from_utf8(bytes).map_err(|_| ApiError::field(field, "is no PEM text", "send PEM"))
}

impl Handlers {
    pub(super) async fn create_ingress_inner(
        self,
        caller: Caller,
        request: v1::CreateIngressRequest,
    ) -> ApiResult<v1::CreateIngressResponse> {
        let (rules, tls) = ingress_parts(request.rules, request.tls)?;
        let change = IngressChange {
            name: Some(request.name),
            rules: Some(rules),
            tls,
            labels: Some(request.labels),
        };
        check_ingress(&change)?;
        let ingress = self.control.create_ingress(&caller, change).await?;
        Ok(v1::CreateIngressResponse {
            ingress: Some(ingress.as_ref().into()),
        })
    }

    pub(super) async fn update_ingress_inner(
        self,
        caller: Caller,
        request: v1::UpdateIngressRequest,
    ) -> ApiResult<v1::UpdateIngressResponse> {
        let name = target(&request.id, &request.name)?.to_owned();
        let (rules, tls) = ingress_parts(request.rules, request.tls)?;
        // With an id, the name is the new one.
        let new_name = (!request.id.is_empty() && !request.name.is_empty()).then_some(request.name);
        let change = IngressChange {
            name: new_name,
            rules: (!rules.is_empty()).then_some(rules),
            tls,
            labels: (!request.labels.is_empty()).then_some(request.labels),
        };
        check_ingress(&change)?;
        let ingress = self.control.update_ingress(&caller, &name, change).await?;
        Ok(v1::UpdateIngressResponse {
            ingress: Some(ingress.as_ref().into()),
        })
    }

    pub(super) async fn delete_ingress_inner(
        self,
        caller: Caller,
        request: v1::DeleteIngressRequest,
    ) -> ApiResult<v1::DeleteIngressResponse> {
        let name = target(&request.id, &request.name)?;
        self.control.delete_ingress(&caller, name).await?;
        Ok(v1::DeleteIngressResponse { status: deleted() })
    }

    pub(super) async fn get_ingress_inner(
        self,
        caller: Caller,
        request: v1::GetIngressRequest,
    ) -> ApiResult<v1::GetIngressResponse> {
        let name = target(&request.id, &request.name)?;
        let ingress = self.control.get_ingress(&caller, name).await?;
        Ok(v1::GetIngressResponse {
            ingress: Some(ingress.as_ref().into()),
        })
    }

    pub(super) async fn list_ingresses_inner(
        self,
        caller: Caller,
        _request: v1::ListIngressesRequest,
    ) -> ApiResult<v1::ListIngressesResponse> {
        let all = self.control.list_ingresses(&caller).await?;
        Ok(v1::ListIngressesResponse {
            ingresses: all.iter().map(|i| i.as_ref().into()).collect(),
        })
    }

    pub(super) async fn create_tls_certificate_inner(
        self,
        caller: Caller,
        request: v1::CreateTlsCertificateRequest,
    ) -> ApiResult<v1::CreateTlsCertificateResponse> {
        name_and_labels(&request.name, &request.labels)?;
        if request.hosts.is_empty() {
            return Err(ApiError::field("hosts", "is empty", "name at least one"));
        }
        let certificate = self
            .control
            .create_certificate(
                &caller,
                NewCertificate {
                    name: request.name,
                    hosts: request.hosts,
                    cert_pem: pem("cert_pem", request.cert_pem)?,
                    key_pem: pem("key_pem", request.key_pem)?,
                    labels: request.labels,
                },
            )
            .await?;
        Ok(v1::CreateTlsCertificateResponse {
            certificate: Some(tls_certificate_to_api(&certificate, None)),
        })
    }

    pub(super) async fn get_tls_certificate_inner(
        self,
        caller: Caller,
        request: v1::GetTlsCertificateRequest,
    ) -> ApiResult<v1::GetTlsCertificateResponse> {
        let name = target(&request.id, &request.name)?;
        let certificate = self.control.get_certificate(&caller, name).await?;
        Ok(v1::GetTlsCertificateResponse {
            certificate: Some(tls_certificate_to_api(&certificate, None)),
        })
    }

    pub(super) async fn list_tls_certificates_inner(
        self,
        caller: Caller,
        _request: v1::ListTlsCertificatesRequest,
    ) -> ApiResult<v1::ListTlsCertificatesResponse> {
        let all = self.control.list_certificates(&caller).await?;
        Ok(v1::ListTlsCertificatesResponse {
            certificates: all
                .iter()
                .map(|c| tls_certificate_to_api(c, None))
                .collect(),
        })
    }

    pub(super) async fn delete_tls_certificate_inner(
        self,
        caller: Caller,
        request: v1::DeleteTlsCertificateRequest,
    ) -> ApiResult<v1::DeleteTlsCertificateResponse> {
        let name = target(&request.id, &request.name)?;
        self.control.delete_certificate(&caller, name).await?;
        Ok(v1::DeleteTlsCertificateResponse { status: deleted() })
    }
}
