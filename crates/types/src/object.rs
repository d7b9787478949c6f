//! The other objects of the cluster: secrets, configs, volumes, networks, ingresses, certificates.

use crate::id::{CertificateId, ConfigId, IngressId, NetworkId, NodeId, SecretId, VolumeId};
use crate::quantity::{Revision, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// Data sealed with the data key of an epoch: AES-256-GCM, bound to the owner's id and version.
/// Neither `Debug` nor the JSON form shows the bytes.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct SealedData {
    /// Number of the data key.
    pub epoch: u32,
    /// 96-bit nonce.
    pub nonce: [u8; 12],
    /// Ciphertext with its 16-byte tag.
    pub ciphertext: Vec<u8>,
}

impl fmt::Debug for SealedData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "SealedData(epoch {}, {} bytes)",
            self.epoch,
            self.ciphertext.len()
        )
    }
}

/// A secret; its plaintext exists only in a worker's memory and the container's tmpfs.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Secret {
    /// Id.
    pub id: SecretId,
    /// Unique name.
    pub name: String,
    /// Free labels.
    pub labels: BTreeMap<String, String>,
    /// The sealed value.
    #[serde(skip)]
    pub data: SealedData,
    /// Length of the plaintext in bytes.
    pub size: u64,
    /// When it was made.
    pub created_at: Timestamp,
    /// When its value was last changed.
    pub updated_at: Timestamp,
    /// State revision of the last change.
    pub version: Revision,
}

/// A config: like a secret, but readable.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Config {
    /// Id.
    pub id: ConfigId,
    /// Unique name.
    pub name: String,
    /// Free labels.
    pub labels: BTreeMap<String, String>,
    /// The value.
    pub data: Vec<u8>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
    /// State revision of the last change.
    pub version: Revision,
}

/// A named volume.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Volume {
    /// Id.
    pub id: VolumeId,
    /// Unique name.
    pub name: String,
    /// Driver; `local` is a directory on one node.
    pub driver: String,
    /// Options of the driver.
    pub driver_opts: BTreeMap<String, String>,
    /// Free labels.
    pub labels: BTreeMap<String, String>,
    /// The node that holds the data; set at first use, and containers follow it.
    pub node: Option<NodeId>,
    /// Where the data is on that node.
    pub mount_path: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// State revision of the last change.
    pub version: Revision,
}

/// A named network.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Network {
    /// Id.
    pub id: NetworkId,
    /// Unique name.
    pub name: String,
    /// Driver; `bridge` on one host, `wireguard` between hosts.
    pub driver: String,
    /// Subnet in CIDR form.
    pub subnet: String,
    /// Gateway address.
    pub gateway: String,
    /// No way out of the cluster.
    pub internal: bool,
    /// Free labels.
    pub labels: BTreeMap<String, String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// State revision of the last change.
    pub version: Revision,
}

/// Routing of HTTP requests to services.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ingress {
    /// Id.
    pub id: IngressId,
    /// Unique name.
    pub name: String,
    /// Rules in order.
    pub rules: Vec<IngressRule>,
    /// TLS settings.
    pub tls: Option<IngressTls>,
    /// Free labels.
    pub labels: BTreeMap<String, String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
    /// State revision of the last change.
    pub version: Revision,
}

/// Routes of one host.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IngressRule {
    /// Exact host, `*.domain`, or empty for every host.
    pub host: String,
    /// Paths.
    pub paths: Vec<IngressPath>,
}

/// One route.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IngressPath {
    /// Path, beginning with `/`.
    pub path: String,
    /// How it is compared.
    pub path_type: PathType,
    /// Name of the service behind it.
    pub service: String,
    /// Port inside its containers.
    pub port: u16,
}

/// How a path is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PathType {
    /// The path and all below it.
    #[default]
    Prefix,
    /// The path alone.
    Exact,
}

/// TLS of an ingress.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IngressTls {
    /// TLS is on.
    pub enabled: bool,
    /// Name of the certificate object.
    pub secret_name: String,
    /// Hosts that TLS covers.
    pub hosts: Vec<String>,
    /// Ask an ACME authority.
    pub auto_tls: bool,
    /// Contact for the ACME authority.
    pub email: String,
}

/// A TLS certificate for ingress.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Certificate {
    /// Id.
    pub id: CertificateId,
    /// Unique name.
    pub name: String,
    /// Hosts it is valid for.
    pub hosts: Vec<String>,
    /// Chain in PEM.
    pub cert_pem: String,
    /// The sealed private key in PEM.
    #[serde(skip)]
    pub key: SealedData,
    /// Common name of the issuer.
    pub issuer: String,
    /// Valid from.
    pub not_before: Timestamp,
    /// Valid until.
    pub not_after: Timestamp,
    /// Renewed by the cluster.
    pub auto_renew: bool,
    /// Free labels.
    pub labels: BTreeMap<String, String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
    /// State revision of the last change.
    pub version: Revision,
}
