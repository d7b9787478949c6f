//! The JSON documents of images: OCI index, manifest and config, and Docker's variations.
//!
//! Reading is lenient where tools differ (missing, null, extra fields) and strict on what safety
//! hangs on: digests and sizes. What is written is the smallest valid OCI form, with sorted keys.

use crate::digest::Digest;
use crate::platform::Platform;
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeMap;

/// Media type of an OCI manifest.
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Media type of an OCI config.
pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// Media type of an OCI index.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// Media type of an uncompressed OCI layer; compressed ones add `+gzip` or `+zstd`.
pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const DOCKER_MANIFEST_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// Annotation with an image name or a bare tag.
pub const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// Annotation with containerd's full image name.
pub const CONTAINERD_NAME: &str = "io.containerd.image.name";

/// Null, missing and present read alike.
fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// Points to a blob.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    #[serde(default, deserialize_with = "or_default")]
    pub media_type: String,
    pub digest: Digest,
    pub size: u64,
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub annotations: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
}

impl Descriptor {
    pub(crate) fn is_index(&self) -> bool {
        self.media_type == OCI_INDEX || self.media_type == DOCKER_MANIFEST_LIST
    }
}

/// OCI index (`index.json`, manifest list).
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Index {
    #[serde(default)]
    pub schema_version: u32,
    #[serde(default, deserialize_with = "or_default")]
    pub media_type: String,
    #[serde(default, deserialize_with = "or_default")]
    pub manifests: Vec<Descriptor>,
}

/// OCI manifest.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Manifest {
    #[serde(default)]
    pub schema_version: u32,
    #[serde(default, deserialize_with = "or_default")]
    pub media_type: String,
    pub config: Descriptor,
    #[serde(default, deserialize_with = "or_default")]
    pub layers: Vec<Descriptor>,
}

/// One image in the `manifest.json` of a docker-save archive.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct DockerImage {
    pub config: String,
    #[serde(default, deserialize_with = "or_default")]
    pub repo_tags: Vec<String>,
    #[serde(default, deserialize_with = "or_default")]
    pub layers: Vec<String>,
}

/// The config document as it is stored.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct ConfigFile {
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub created: String,
    #[serde(default, deserialize_with = "or_default")]
    pub architecture: String,
    #[serde(default, deserialize_with = "or_default")]
    pub os: String,
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "Option::is_none"
    )]
    pub variant: Option<String>,
    #[serde(default, deserialize_with = "or_default")]
    pub config: RunConfig,
    #[serde(default, deserialize_with = "or_default")]
    pub rootfs: RootFs,
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub history: Vec<HistoryEntry>,
}

impl ConfigFile {
    pub(crate) fn platform(&self) -> Platform {
        Platform {
            os: self.os.clone(),
            architecture: self.architecture.clone(),
            variant: self.variant.clone(),
        }
    }
}

/// Digests of the uncompressed layers, lowest first.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct RootFs {
    #[serde(rename = "type", default, deserialize_with = "or_default")]
    pub kind: String,
    #[serde(default, deserialize_with = "or_default")]
    pub diff_ids: Vec<Digest>,
}

type Set = BTreeMap<String, serde_json::Map<String, serde_json::Value>>;

/// The `config` object inside the config document.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct RunConfig {
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub user: String,
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "Set::is_empty"
    )]
    pub exposed_ports: Set,
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub env: Vec<String>,
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub entrypoint: Vec<String>,
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub cmd: Vec<String>,
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "Set::is_empty"
    )]
    pub volumes: Set,
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub working_dir: String,
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub labels: BTreeMap<String, String>,
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub stop_signal: String,
}

/// One step of an image's making.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryEntry {
    /// When, as RFC 3339 text; may be empty.
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub created: String,
    /// The command that made it.
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub created_by: String,
    /// Free text.
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub comment: String,
    /// Whether the step made no layer.
    #[serde(
        default,
        deserialize_with = "or_default",
        skip_serializing_if = "std::ops::Not::not"
    )]
    pub empty_layer: bool,
}

/// How an image wants to be run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageConfig {
    /// First words of the command line; a container's `command` replaces them.
    pub entrypoint: Vec<String>,
    /// Further words; a container's `args` replace them.
    pub cmd: Vec<String>,
    /// Environment as `NAME=value`, in order.
    pub env: Vec<String>,
    /// Directory the program starts in; empty means `/`.
    pub working_dir: String,
    /// User as text (see [`crate::resolve_user`]); empty means root.
    pub user: String,
    /// Signal that asks the program to stop, such as `SIGQUIT`; `None` means SIGTERM.
    pub stop_signal: Option<String>,
    /// Ports the program listens on, such as `80/tcp`; informative.
    pub exposed_ports: Vec<String>,
    /// Paths meant to be volumes.
    pub volumes: Vec<String>,
    /// Labels of the image.
    pub labels: BTreeMap<String, String>,
}

impl From<RunConfig> for ImageConfig {
    fn from(raw: RunConfig) -> Self {
        Self {
            entrypoint: raw.entrypoint,
            cmd: raw.cmd,
            env: raw.env,
            working_dir: raw.working_dir,
            user: raw.user,
            stop_signal: Some(raw.stop_signal).filter(|s| !s.is_empty()),
            exposed_ports: raw.exposed_ports.into_keys().collect(),
            volumes: raw.volumes.into_keys().collect(),
            labels: raw.labels,
        }
    }
}

impl From<ImageConfig> for RunConfig {
    fn from(config: ImageConfig) -> Self {
        let set = |keys: Vec<String>| {
            keys.into_iter()
                .map(|k| (k, serde_json::Map::new()))
                .collect()
        };
        Self {
            user: config.user,
            exposed_ports: set(config.exposed_ports),
            env: config.env,
            entrypoint: config.entrypoint,
            cmd: config.cmd,
            volumes: set(config.volumes),
            working_dir: config.working_dir,
            labels: config.labels,
            stop_signal: config.stop_signal.unwrap_or_default(),
        }
    }
}

/// Identity of a stack of layers: the lowest layer's diff id, then digests of pairs (OCI's chain id).
pub(crate) fn chain_ids(diff_ids: &[Digest]) -> Vec<Digest> {
    let mut out: Vec<Digest> = Vec::with_capacity(diff_ids.len());
    for diff in diff_ids {
        let next = match out.last() {
            Some(parent) => Digest::of(format!("{parent} {diff}").as_bytes()),
            None => *diff,
        };
        out.push(next);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nulls_and_missing_fields_read_as_empty() {
        let config: ConfigFile = serde_json::from_str(
            r#"{"architecture":"amd64","os":"linux","config":{"Cmd":null,"Env":["A=b"],"ExposedPorts":{"80/tcp":{}},"Volumes":null,
                "Labels":null,"OnBuild":null,"StopSignal":"SIGQUIT"},"rootfs":{"type":"layers","diff_ids":[]},"history":null}"#,
        )
        .unwrap();
        let run = ImageConfig::from(config.config);
        assert_eq!(run.env, ["A=b"]);
        assert_eq!(run.exposed_ports, ["80/tcp"]);
        assert_eq!(run.stop_signal.as_deref(), Some("SIGQUIT"));
        assert!(run.cmd.is_empty());
        let bare: ConfigFile = serde_json::from_str(r#"{"config":null,"rootfs":null}"#).unwrap();
        assert!(bare.rootfs.diff_ids.is_empty());
    }

    #[test]
    fn chain_of_one_is_its_diff() {
        let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
        let chain = chain_ids(&[a, b]);
        assert_eq!(chain[0], a);
        assert_eq!(chain[1], Digest::of(format!("{a} {b}").as_bytes()));
        assert_ne!(chain_ids(&[b, a])[1], chain[1]);
    }
}
