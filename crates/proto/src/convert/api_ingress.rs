//! Ingresses and their TLS certificates ⇄ `warren.v1`.

use super::{ConvertError, list, timestamp_to_api};
use crate::v1;
use warren_types::{Certificate, Ingress, IngressPath, IngressRule, IngressTls, PathType};

impl From<&IngressPath> for v1::IngressPath {
    fn from(v: &IngressPath) -> Self {
        Self {
            path: v.path.clone(),
            path_type: match v.path_type {
                PathType::Prefix => "Prefix",
                PathType::Exact => "Exact",
            }
            .to_owned(),
            backend: Some(v1::IngressBackend {
                service_name: v.service.clone(),
                port: i32::from(v.port),
            }),
        }
    }
}

impl TryFrom<v1::IngressPath> for IngressPath {
    type Error = ConvertError;
    fn try_from(v: v1::IngressPath) -> Result<Self, ConvertError> {
        let backend = super::required(v.backend, "backend")?;
        Ok(Self {
            path: if v.path.is_empty() {
                "/".to_owned()
            } else {
                v.path
            },
            path_type: match v.path_type.to_ascii_lowercase().as_str() {
                "" | "prefix" => PathType::Prefix,
                "exact" => PathType::Exact,
                _ => {
                    return Err(ConvertError::new(
                        "path_type",
                        format!("{:?} is neither Prefix nor Exact", v.path_type),
                    ));
                }
            },
            service: backend.service_name,
            port: u16::try_from(backend.port).map_err(|_| {
                ConvertError::new(
                    "backend.port",
                    format!("{} is not between 0 and 65535", backend.port),
                )
            })?,
        })
    }
}

impl From<&IngressRule> for v1::IngressRule {
    fn from(v: &IngressRule) -> Self {
        Self {
            host: v.host.clone(),
            paths: v.paths.iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<v1::IngressRule> for IngressRule {
    type Error = ConvertError;
    fn try_from(v: v1::IngressRule) -> Result<Self, ConvertError> {
        Ok(Self {
            host: v.host,
            paths: list(v.paths, "paths")?,
        })
    }
}

impl From<&IngressTls> for v1::IngressTls {
    fn from(v: &IngressTls) -> Self {
        Self {
            enabled: v.enabled,
            secret_name: v.secret_name.clone(),
            hosts: v.hosts.clone(),
            auto_tls: v.auto_tls,
            email: v.email.clone(),
        }
    }
}

impl From<v1::IngressTls> for IngressTls {
    fn from(v: v1::IngressTls) -> Self {
        Self {
            enabled: v.enabled,
            secret_name: v.secret_name,
            hosts: v.hosts,
            auto_tls: v.auto_tls,
            email: v.email,
        }
    }
}

impl From<&Ingress> for v1::Ingress {
    fn from(v: &Ingress) -> Self {
        Self {
            id: v.id.to_string(),
            name: v.name.clone(),
            rules: v.rules.iter().map(Into::into).collect(),
            tls: v.tls.as_ref().map(Into::into),
            labels: v.labels.clone(),
            created_at: Some(timestamp_to_api(v.created_at)),
            updated_at: Some(timestamp_to_api(v.updated_at)),
        }
    }
}

/// Rules and TLS settings of a request.
///
/// # Errors
/// [`ConvertError`] names the field that is wrong.
pub fn ingress_parts(
    rules: Vec<v1::IngressRule>,
    tls: Option<v1::IngressTls>,
) -> Result<(Vec<IngressRule>, Option<IngressTls>), ConvertError> {
    Ok((list(rules, "rules")?, tls.map(Into::into)))
}

/// A certificate for the wire, with its private key only when `key_pem` is handed in.
#[must_use]
pub fn tls_certificate_to_api(v: &Certificate, key_pem: Option<&[u8]>) -> v1::TlsCertificate {
    v1::TlsCertificate {
        id: v.id.to_string(),
        name: v.name.clone(),
        hosts: v.hosts.clone(),
        cert_pem: v.cert_pem.clone().into_bytes(),
        key_pem: key_pem.unwrap_or_default().to_vec(),
        issuer: v.issuer.clone(),
        not_before: Some(timestamp_to_api(v.not_before)),
        not_after: Some(timestamp_to_api(v.not_after)),
        auto_renew: v.auto_renew,
        labels: v.labels.clone(),
        created_at: Some(timestamp_to_api(v.created_at)),
        updated_at: Some(timestamp_to_api(v.updated_at)),
    }
}
