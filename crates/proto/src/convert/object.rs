//! Secrets, configs, volumes, networks, ingresses, certificates, events ⇄ `warren.store.v1`.

use super::container::optional_node;
use super::{ConvertError, WireEnum, id_bytes, id_from, list, nested, port, wire_enum};
use crate::store as pb;
use warren_types::{
    Certificate, CertificateId, Config, ConfigId, Event, EventId, EventKind, Ingress, IngressId,
    IngressPath, IngressRule, IngressTls, Network, NetworkId, PathType, Revision, SealedData,
    Secret, SecretId, Timestamp, Volume, VolumeId,
};

wire_enum!(PathType { Prefix, Exact });

impl From<&SealedData> for pb::SealedData {
    fn from(v: &SealedData) -> Self {
        Self {
            epoch: v.epoch,
            nonce: v.nonce.to_vec(),
            ciphertext: v.ciphertext.clone(),
        }
    }
}

impl TryFrom<pb::SealedData> for SealedData {
    type Error = ConvertError;
    fn try_from(v: pb::SealedData) -> Result<Self, ConvertError> {
        Ok(Self {
            epoch: v.epoch,
            nonce: <[u8; 12]>::try_from(v.nonce.as_slice())
                .map_err(|_| ConvertError::new("nonce", "a nonce has 12 bytes"))?,
            ciphertext: v.ciphertext,
        })
    }
}

impl From<&Secret> for pb::Secret {
    fn from(v: &Secret) -> Self {
        Self {
            id: id_bytes(v.id.0),
            name: v.name.clone(),
            labels: v.labels.clone(),
            data: Some((&v.data).into()),
            size: v.size,
            created_at_ms: v.created_at.0,
            updated_at_ms: v.updated_at.0,
            version: v.version.0,
        }
    }
}

impl TryFrom<pb::Secret> for Secret {
    type Error = ConvertError;
    fn try_from(v: pb::Secret) -> Result<Self, ConvertError> {
        Ok(Self {
            id: SecretId(id_from(&v.id, "id")?),
            name: v.name,
            labels: v.labels,
            data: nested(v.data, "data")?,
            size: v.size,
            created_at: Timestamp(v.created_at_ms),
            updated_at: Timestamp(v.updated_at_ms),
            version: Revision(v.version),
        })
    }
}

impl From<&Config> for pb::Config {
    fn from(v: &Config) -> Self {
        Self {
            id: id_bytes(v.id.0),
            name: v.name.clone(),
            labels: v.labels.clone(),
            data: v.data.clone(),
            created_at_ms: v.created_at.0,
            updated_at_ms: v.updated_at.0,
            version: v.version.0,
        }
    }
}

impl TryFrom<pb::Config> for Config {
    type Error = ConvertError;
    fn try_from(v: pb::Config) -> Result<Self, ConvertError> {
        Ok(Self {
            id: ConfigId(id_from(&v.id, "id")?),
            name: v.name,
            labels: v.labels,
            data: v.data,
            created_at: Timestamp(v.created_at_ms),
            updated_at: Timestamp(v.updated_at_ms),
            version: Revision(v.version),
        })
    }
}

impl From<&Volume> for pb::Volume {
    fn from(v: &Volume) -> Self {
        Self {
            id: id_bytes(v.id.0),
            name: v.name.clone(),
            driver: v.driver.clone(),
            driver_opts: v.driver_opts.clone(),
            labels: v.labels.clone(),
            node: v.node.map(|n| id_bytes(n.0)).unwrap_or_default(),
            mount_path: v.mount_path.clone(),
            created_at_ms: v.created_at.0,
            version: v.version.0,
        }
    }
}

impl TryFrom<pb::Volume> for Volume {
    type Error = ConvertError;
    fn try_from(v: pb::Volume) -> Result<Self, ConvertError> {
        Ok(Self {
            id: VolumeId(id_from(&v.id, "id")?),
            name: v.name,
            driver: v.driver,
            driver_opts: v.driver_opts,
            labels: v.labels,
            node: optional_node(&v.node, "node")?,
            mount_path: v.mount_path,
            created_at: Timestamp(v.created_at_ms),
            version: Revision(v.version),
        })
    }
}

impl From<&Network> for pb::Network {
    fn from(v: &Network) -> Self {
        Self {
            id: id_bytes(v.id.0),
            name: v.name.clone(),
            driver: v.driver.clone(),
            subnet: v.subnet.clone(),
            gateway: v.gateway.clone(),
            internal: v.internal,
            labels: v.labels.clone(),
            created_at_ms: v.created_at.0,
            version: v.version.0,
        }
    }
}

impl TryFrom<pb::Network> for Network {
    type Error = ConvertError;
    fn try_from(v: pb::Network) -> Result<Self, ConvertError> {
        Ok(Self {
            id: NetworkId(id_from(&v.id, "id")?),
            name: v.name,
            driver: v.driver,
            subnet: v.subnet,
            gateway: v.gateway,
            internal: v.internal,
            labels: v.labels,
            created_at: Timestamp(v.created_at_ms),
            version: Revision(v.version),
        })
    }
}

impl From<&IngressPath> for pb::IngressPath {
    fn from(v: &IngressPath) -> Self {
        Self {
            path: v.path.clone(),
            path_type: v.path_type.number(),
            service: v.service.clone(),
            port: u32::from(v.port),
        }
    }
}

impl TryFrom<pb::IngressPath> for IngressPath {
    type Error = ConvertError;
    fn try_from(v: pb::IngressPath) -> Result<Self, ConvertError> {
        Ok(Self {
            path: v.path,
            path_type: WireEnum::read(v.path_type, "path_type")?,
            service: v.service,
            port: port(v.port, "port")?,
        })
    }
}

impl From<&IngressRule> for pb::IngressRule {
    fn from(v: &IngressRule) -> Self {
        Self {
            host: v.host.clone(),
            paths: v.paths.iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<pb::IngressRule> for IngressRule {
    type Error = ConvertError;
    fn try_from(v: pb::IngressRule) -> Result<Self, ConvertError> {
        Ok(Self {
            host: v.host,
            paths: list(v.paths, "paths")?,
        })
    }
}

impl From<&IngressTls> for pb::IngressTls {
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

impl From<pb::IngressTls> for IngressTls {
    fn from(v: pb::IngressTls) -> Self {
        Self {
            enabled: v.enabled,
            secret_name: v.secret_name,
            hosts: v.hosts,
            auto_tls: v.auto_tls,
            email: v.email,
        }
    }
}

impl From<&Ingress> for pb::Ingress {
    fn from(v: &Ingress) -> Self {
        Self {
            id: id_bytes(v.id.0),
            name: v.name.clone(),
            rules: v.rules.iter().map(Into::into).collect(),
            tls: v.tls.as_ref().map(Into::into),
            labels: v.labels.clone(),
            created_at_ms: v.created_at.0,
            updated_at_ms: v.updated_at.0,
            version: v.version.0,
        }
    }
}

impl TryFrom<pb::Ingress> for Ingress {
    type Error = ConvertError;
    fn try_from(v: pb::Ingress) -> Result<Self, ConvertError> {
        Ok(Self {
            id: IngressId(id_from(&v.id, "id")?),
            name: v.name,
            rules: list(v.rules, "rules")?,
            tls: v.tls.map(Into::into),
            labels: v.labels,
            created_at: Timestamp(v.created_at_ms),
            updated_at: Timestamp(v.updated_at_ms),
            version: Revision(v.version),
        })
    }
}

impl From<&Certificate> for pb::Certificate {
    fn from(v: &Certificate) -> Self {
        Self {
            id: id_bytes(v.id.0),
            name: v.name.clone(),
            hosts: v.hosts.clone(),
            cert_pem: v.cert_pem.clone(),
            key: Some((&v.key).into()),
            issuer: v.issuer.clone(),
            not_before_ms: v.not_before.0,
            not_after_ms: v.not_after.0,
            auto_renew: v.auto_renew,
            labels: v.labels.clone(),
            created_at_ms: v.created_at.0,
            updated_at_ms: v.updated_at.0,
            version: v.version.0,
        }
    }
}

impl TryFrom<pb::Certificate> for Certificate {
    type Error = ConvertError;
    fn try_from(v: pb::Certificate) -> Result<Self, ConvertError> {
        Ok(Self {
            id: CertificateId(id_from(&v.id, "id")?),
            name: v.name,
            hosts: v.hosts,
            cert_pem: v.cert_pem,
            key: nested(v.key, "key")?,
            issuer: v.issuer,
            not_before: Timestamp(v.not_before_ms),
            not_after: Timestamp(v.not_after_ms),
            auto_renew: v.auto_renew,
            labels: v.labels,
            created_at: Timestamp(v.created_at_ms),
            updated_at: Timestamp(v.updated_at_ms),
            version: Revision(v.version),
        })
    }
}

impl From<&Event> for pb::Event {
    fn from(v: &Event) -> Self {
        Self {
            id: id_bytes(v.id.0),
            kind: v.kind.name().to_owned(),
            time_ms: v.time.0,
            revision: v.revision.0,
            message: v.message.clone(),
            metadata: v.metadata.clone(),
        }
    }
}

impl TryFrom<pb::Event> for Event {
    type Error = ConvertError;
    fn try_from(v: pb::Event) -> Result<Self, ConvertError> {
        Ok(Self {
            id: EventId(id_from(&v.id, "id")?),
            kind: EventKind::from_name(&v.kind).ok_or_else(|| {
                ConvertError::new("kind", format!("{:?} is no known event", v.kind))
            })?,
            time: Timestamp(v.time_ms),
            revision: Revision(v.revision),
            message: v.message,
            metadata: v.metadata,
        })
    }
}
