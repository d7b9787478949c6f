//! Making images part of the store: blobs, unpacked layers, then the index, in this order.

use crate::compress::{Bounded, Plain};
use crate::digest::{Digest, Hashing};
use crate::error::{ImageError, IoContext, Result};
use crate::fsutil::{sync_dir, write_durably};
use crate::import::ImportedImage;
use crate::index::{ImageRecord, LayerRecord};
use crate::limits::{MAX_LAYER_BYTES, MAX_LAYERS, MAX_NAMES_PER_IMAGE};
use crate::manifest::{ConfigFile, chain_ids};
use crate::reference::ImageRef;
use crate::stage::Staged;
use crate::store::ImageStore;
use crate::tarread::read_error;
use crate::unpack::{Unpacked, unpack};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// A layer about to be stored; its blob has been hashed.
pub(crate) struct NewLayer {
    pub blob: Staged,
    pub diff_id: Digest,
}

/// An image about to be stored.
pub(crate) struct NewImage {
    pub names: Vec<ImageRef>,
    pub manifest: Vec<u8>,
    pub config: Vec<u8>,
    /// Lowest first.
    pub layers: Vec<NewLayer>,
}

/// Stands beside an unpacked layer.
#[derive(Debug, Serialize, Deserialize)]
struct LayerMeta {
    diff_id: Digest,
    bytes: u64,
    entries: u64,
}

/// What a layer is and where its archive lies, for unpacking.
pub(crate) struct LayerSource<'a> {
    pub blob: &'a Path,
    pub diff_id: Digest,
    pub chain: Digest,
    /// For messages: "layer sha256:… of FILE".
    pub label: String,
}

impl ImageStore {
    /// Stores images: all of them are durable when this returns, or none counts.
    pub(crate) fn commit(&self, images: &[NewImage], archive: &str) -> Result<Vec<ImportedImage>> {
        let mut digests = Vec::new();
        for image in images {
            digests.push(Digest::of(&image.manifest));
            digests.push(Digest::of(&image.config));
            digests.extend(image.layers.iter().map(|l| l.blob.digest));
            digests.extend(chain_ids(&diff_ids(image)));
        }
        let pinned = self.pin(digests);
        let result = self.store_all(images, archive);
        drop(pinned);
        if result.is_err()
            && let Err(error) = self.collect_garbage()
        {
            tracing::warn!(%error, "cannot remove what a failed import left; the next start does");
        }
        result
    }

    fn store_all(&self, images: &[NewImage], archive: &str) -> Result<Vec<ImportedImage>> {
        let mut records = Vec::new();
        for image in images {
            records.push(self.store_one(image, archive)?);
        }
        sync_dir(&self.blobs_dir())?;
        sync_dir(&self.layers_dir())?;
        self.change_index(|index| {
            let mut out = Vec::new();
            for (image, record) in images.iter().zip(records) {
                let digest = record.digest;
                let already_present = index.images.contains_key(&digest);
                index.images.entry(digest).or_insert(record);
                for name in &image.names {
                    index.names.insert(name.clone(), digest);
                }
                if index.names_of(&digest).len() > MAX_NAMES_PER_IMAGE {
                    let what = format!("number of names of image {digest}");
                    return Err(ImageError::TooLarge {
                        what,
                        limit: MAX_NAMES_PER_IMAGE as u64,
                        unit: "names",
                    });
                }
                out.push(ImportedImage {
                    references: image.names.clone(),
                    digest,
                    already_present,
                });
            }
            Ok(out)
        })
    }

    fn store_one(&self, image: &NewImage, archive: &str) -> Result<ImageRecord> {
        let config: ConfigFile =
            serde_json::from_slice(&image.config).map_err(|e| ImageError::BadArchive {
                archive: archive.to_owned(),
                entry: "config".to_owned(),
                why: e.to_string(),
            })?;
        if image.layers.len() > MAX_LAYERS {
            let what = format!("number of layers of {archive}");
            return Err(ImageError::TooLarge {
                what,
                limit: MAX_LAYERS as u64,
                unit: "layers",
            });
        }
        let mut layers = Vec::new();
        let mut lowers: Vec<PathBuf> = Vec::new();
        for (layer, chain) in image.layers.iter().zip(chain_ids(&diff_ids(image))) {
            self.put_blob_file(&layer.blob)?;
            let blob = self.blob_path(&layer.blob.digest);
            let label = format!("layer {} of {archive}", layer.blob.digest);
            let source = LayerSource {
                blob: &blob,
                diff_id: layer.diff_id,
                chain,
                label,
            };
            let present = self.layer_meta(&chain)?;
            if present.is_some() && !self.knows_layer(&layer.blob.digest, &layer.diff_id) {
                // Shares its files with a layer that came otherwise packed: check the claim.
                verify_diff(&source)?;
            }
            let done = match present {
                Some(done) => done,
                None => self.unpack_layer(&source, &lowers)?,
            };
            lowers.insert(0, self.layer_fs(&chain));
            layers.push(LayerRecord {
                blob: layer.blob.digest,
                blob_bytes: layer.blob.size,
                diff_id: layer.diff_id,
                chain,
                bytes: done.bytes,
            });
        }
        let digest = self.put_blob_bytes(&image.manifest)?;
        Ok(ImageRecord {
            digest,
            config: self.put_blob_bytes(&image.config)?,
            created: config.created.clone(),
            imported_ms: crate::time::now_ms(),
            platform: config.platform(),
            layers,
        })
    }

    /// Moves a staged file among the blobs, unless it is there already.
    fn put_blob_file(&self, staged: &Staged) -> Result<()> {
        let path = self.blob_path(&staged.digest);
        match fs::metadata(&path) {
            Ok(meta) if meta.len() == staged.size => return Ok(()),
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e).at("cannot look at", &path),
        }
        let sync = || File::open(&staged.path)?.sync_all();
        match sync() {
            Ok(()) => {}
            // The same blob twice in one archive: the first one took the file away.
            Err(e) if e.kind() == io::ErrorKind::NotFound && path.exists() => return Ok(()),
            Err(e) => return Err(e).at("cannot sync", &staged.path),
        }
        fs::rename(&staged.path, &path).at("cannot store", &path)
    }

    fn put_blob_bytes(&self, bytes: &[u8]) -> Result<Digest> {
        let digest = Digest::of(bytes);
        let path = self.blob_path(&digest);
        if fs::read(&path).is_ok_and(|present| present == bytes) {
            return Ok(digest);
        }
        write_durably(self.tmp(), &path, bytes)?;
        Ok(digest)
    }

    /// Size of a layer that is unpacked here; `None` if it is not.
    pub(crate) fn layer_meta(&self, chain: &Digest) -> Result<Option<Unpacked>> {
        let path = self.layer_dir(chain).join("meta.json");
        match fs::read(&path) {
            Ok(bytes) => {
                let meta: LayerMeta =
                    serde_json::from_slice(&bytes).map_err(|e| ImageError::Damaged {
                        path: path.clone(),
                        why: e.to_string(),
                        remedy: "remove the image with `warren image remove` and import it again",
                    })?;
                Ok(Some(Unpacked {
                    bytes: meta.bytes,
                    entries: meta.entries,
                }))
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e).at("cannot read", &path),
        }
    }

    /// Unpacks a layer on top of `lowers` (highest first) and makes it part of the store.
    pub(crate) fn unpack_layer(
        &self,
        source: &LayerSource<'_>,
        lowers: &[PathBuf],
    ) -> Result<Unpacked> {
        let temp = self.tmp().dir()?;
        let root = temp.path().join("fs");
        fs::create_dir(&root).at("cannot create directory", &root)?;
        let stream = Hashing::new(open_layer(source)?);
        let (stream, done) = unpack(stream, &source.label, &root, lowers)?;
        check_diff(source, stream.finish().1)?;
        let meta = LayerMeta {
            diff_id: source.diff_id,
            bytes: done.bytes,
            entries: done.entries,
        };
        let meta = serde_json::to_vec(&meta).expect("digests and numbers always go into JSON");
        write_durably(self.tmp(), &temp.path().join("meta.json"), &meta)?;
        let place = self.layer_dir(&source.chain);
        match fs::rename(temp.path(), &place) {
            Ok(()) => {}
            // Another import was quicker; the layers are equal.
            Err(e) if matches!(e.raw_os_error(), Some(libc::ENOTEMPTY | libc::EEXIST)) => {}
            Err(e) => return Err(e).at("cannot store", &place),
        }
        sync_dir(&self.layers_dir())?;
        Ok(done)
    }
}

fn diff_ids(image: &NewImage) -> Vec<Digest> {
    image.layers.iter().map(|l| l.diff_id).collect()
}

type LayerStream = Bounded<Plain<File>>;

fn open_layer(source: &LayerSource<'_>) -> Result<LayerStream> {
    let file = File::open(source.blob).at("cannot open", source.blob)?;
    let plain = Plain::new(file).map_err(|e| read_error(&source.label, "the start", e))?;
    let plain = plain.map_err(|form| ImageError::Unsupported {
        archive: source.label.clone(),
        entry: "the layer".to_owned(),
        what: form.0.to_owned(),
        remedy: "save the image again with gzip, zstd or no compression",
    })?;
    Ok(Bounded::new(plain, MAX_LAYER_BYTES, "the unpacked layer"))
}

fn check_diff(source: &LayerSource<'_>, actual: Digest) -> Result<()> {
    if actual == source.diff_id {
        return Ok(());
    }
    Err(ImageError::DigestMismatch {
        archive: source.label.clone(),
        entry: "the uncompressed content".to_owned(),
        expected: source.diff_id,
        actual,
    })
}

fn verify_diff(source: &LayerSource<'_>) -> Result<()> {
    let mut stream = Hashing::new(open_layer(source)?);
    io::copy(&mut stream, &mut io::sink())
        .map_err(|e| read_error(&source.label, "its content", e))?;
    check_diff(source, stream.finish().1)
}

/// Counts of users per digest; a pinned blob or layer is not garbage.
#[derive(Debug, Default)]
pub(crate) struct Pins(BTreeMap<Digest, usize>);

impl Pins {
    pub(crate) fn add(&mut self, digest: Digest) {
        *self.0.entry(digest).or_default() += 1;
    }

    pub(crate) fn remove(&mut self, digest: &Digest) {
        if let Some(count) = self.0.get_mut(digest) {
            *count -= 1;
            if *count == 0 {
                self.0.remove(digest);
            }
        }
    }

    pub(crate) fn holds(&self, digest: &Digest) -> bool {
        self.0.contains_key(digest)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Digest> {
        self.0.keys()
    }
}
