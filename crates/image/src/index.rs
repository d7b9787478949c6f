//! The index: which images there are and how they are called.

use crate::digest::Digest;
use crate::error::{ImageError, IoContext, Result};
use crate::fsutil::{TempDirs, write_durably};
use crate::limits::MIN_DIGEST_PREFIX;
use crate::platform::Platform;
use crate::reference::ImageRef;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::path::Path;

/// Format of the store's files.
const FORMAT: u32 = 1;

/// One layer of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LayerRecord {
    /// Digest of the layer's archive as it came.
    pub blob: Digest,
    /// Size of that archive in bytes.
    pub blob_bytes: u64,
    /// Digest of the uncompressed archive.
    pub diff_id: Digest,
    /// Identity of this layer on top of those below; names the unpacked directory.
    pub chain: Digest,
    /// Size of the unpacked files in bytes.
    pub bytes: u64,
}

/// One image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ImageRecord {
    pub digest: Digest,
    pub config: Digest,
    /// When it was made, as its config says (RFC 3339).
    pub created: String,
    /// When it came here, in milliseconds since 1970.
    pub imported_ms: u64,
    pub platform: Platform,
    /// Lowest first.
    pub layers: Vec<LayerRecord>,
}

/// All images and names.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct ImageIndex {
    format: u32,
    pub images: BTreeMap<Digest, ImageRecord>,
    pub names: BTreeMap<ImageRef, Digest>,
}

impl ImageIndex {
    /// Reads the index; none there means none yet.
    pub(crate) fn load(path: &Path) -> Result<Self> {
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Ok(Self {
                    format: FORMAT,
                    ..Self::default()
                });
            }
            Err(e) => return Err(e).at("cannot read", path),
        };
        let damaged = |why: String| ImageError::Damaged {
            path: path.to_owned(),
            why,
            remedy: "move the store's directory away and import the images again",
        };
        // The format first: a newer one may not read as ours at all.
        #[derive(Deserialize)]
        struct Head {
            format: u32,
        }
        let head: Head = serde_json::from_slice(&bytes).map_err(|e| damaged(e.to_string()))?;
        if head.format > FORMAT {
            return Err(ImageError::NewerFormat {
                path: path.to_owned(),
                found: head.format,
                supported: FORMAT,
            });
        }
        let index: Self = serde_json::from_slice(&bytes).map_err(|e| damaged(e.to_string()))?;
        if let Some((name, digest)) = index
            .names
            .iter()
            .find(|(_, d)| !index.images.contains_key(d))
        {
            return Err(damaged(format!(
                "name {name} points to {digest}, which is not there"
            )));
        }
        Ok(index)
    }

    /// Writes the index durably.
    pub(crate) fn save(&self, tmp: &TempDirs, path: &Path) -> Result<()> {
        let bytes = serde_json::to_vec(self)
            .expect("digests and references are text, which JSON takes as keys");
        write_durably(tmp, path, &bytes)
    }

    /// Names of an image, in order.
    pub(crate) fn names_of(&self, digest: &Digest) -> Vec<ImageRef> {
        self.names
            .iter()
            .filter(|(_, d)| *d == digest)
            .map(|(n, _)| n.clone())
            .collect()
    }

    /// Finds an image by name (short or full), digest, or a prefix of the digest's hex digits.
    pub(crate) fn find(&self, text: &str) -> Result<&ImageRecord> {
        let not_found = || ImageError::NotFound {
            reference: text.to_owned(),
        };
        if let Ok(digest) = text.parse::<Digest>() {
            return self.by_digest(&digest).ok_or_else(not_found);
        }
        let hex = text.strip_prefix("sha256:").unwrap_or(text);
        let is_hex = hex.len() >= MIN_DIGEST_PREFIX
            && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let by_prefix = || -> Result<&ImageRecord> {
            let mut found = self
                .images
                .values()
                .filter(|i| i.digest.hex().starts_with(hex) || i.config.hex().starts_with(hex));
            match (found.next(), found.count()) {
                (Some(image), 0) => Ok(image),
                (Some(_), more) => Err(ImageError::Ambiguous {
                    prefix: text.to_owned(),
                    count: more + 1,
                }),
                (None, _) => Err(not_found()),
            }
        };
        let reference = match text.parse::<ImageRef>() {
            Ok(reference) => reference,
            Err(_) if is_hex => return by_prefix(),
            Err(e) => return Err(e),
        };
        match self.by_reference(&reference) {
            Some(image) => Ok(image),
            None if is_hex => by_prefix(),
            None => Err(ImageError::NotFound {
                reference: reference.short(),
            }),
        }
    }

    /// A digest names the manifest, or, as Docker's image ids do, the config.
    fn by_digest(&self, digest: &Digest) -> Option<&ImageRecord> {
        self.images
            .get(digest)
            .or_else(|| self.images.values().find(|i| i.config == *digest))
    }

    fn by_reference(&self, reference: &ImageRef) -> Option<&ImageRecord> {
        match reference.digest() {
            // The digest decides; the tag beside it is a comment (Docker's rule).
            Some(digest) => self.by_digest(&digest),
            None => self.names.get(reference).and_then(|d| self.images.get(d)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index() -> (ImageIndex, Digest) {
        let mut index = ImageIndex {
            format: FORMAT,
            ..ImageIndex::default()
        };
        let digest = Digest::of(b"manifest");
        let record = ImageRecord {
            digest,
            config: Digest::of(b"config"),
            created: String::new(),
            imported_ms: 1,
            platform: Platform::host(),
            layers: Vec::new(),
        };
        index.images.insert(digest, record);
        index.names.insert("nginx:1.27".parse().unwrap(), digest);
        (index, digest)
    }

    #[test]
    fn found_by_every_form() {
        let (index, digest) = index();
        let config = Digest::of(b"config").to_string();
        for text in [
            "nginx:1.27",
            "docker.io/library/nginx:1.27",
            &digest.to_string(),
            &config,
            &digest.short(),
            &digest.hex(),
            &format!("sha256:{}", digest.short()),
            &format!("nginx@{digest}"),
            &format!("nginx:other@{digest}"),
        ] {
            assert_eq!(index.find(text).unwrap().digest, digest, "{text}");
        }
        for text in ["nginx", "nginx:latest", "redis", "000000000000"] {
            assert!(
                matches!(index.find(text), Err(ImageError::NotFound { .. })),
                "{text}"
            );
        }
        assert!(matches!(
            index.find("no good"),
            Err(ImageError::InvalidReference { .. })
        ));
    }

    #[test]
    fn newer_and_damaged_files_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("index.json");
        std::fs::write(&path, r#"{"format":2,"what":"ever"}"#).unwrap();
        assert!(matches!(
            ImageIndex::load(&path),
            Err(ImageError::NewerFormat { found: 2, .. })
        ));
        for text in ["", "{", "[]", r#"{"format":1}"#] {
            std::fs::write(&path, text).unwrap();
            assert!(
                matches!(ImageIndex::load(&path), Err(ImageError::Damaged { .. })),
                "{text}"
            );
        }
        let (index, digest) = index();
        let tmp = TempDirs::new(dir.path().to_owned());
        index.save(&tmp, &path).unwrap();
        assert_eq!(
            ImageIndex::load(&path)
                .unwrap()
                .find("nginx:1.27")
                .unwrap()
                .digest,
            digest
        );
    }
}
