//! Turning what a builder collected into layers, documents, archives.

use crate::beneath::{Name, joined};
use crate::builder::{Compression, Content, FileSource, ImageBuilder, Layer, Node};
use crate::commit::{NewImage, NewLayer};
use crate::compress::Form;
use crate::digest::{Digest, Hashing};
use crate::error::{ImageError, IoContext, Result};
use crate::import::ImportedImage;
use crate::layout::{layer_media_type, manifest_bytes};
use crate::limits::COPY_BUFFER_BYTES;
use crate::manifest::{
    CONTAINERD_NAME, ConfigFile, Descriptor, DockerImage, Index, OCI_CONFIG, OCI_INDEX,
    OCI_MANIFEST, RootFs,
};
use crate::reference::ImageRef;
use crate::stage::Staged;
use crate::store::ImageStore;
use crate::tarread::{Entry, Kind};
use crate::tarwrite::TarWriter;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use warren_types::Timestamp;

const ZSTD_LEVEL: i32 = 3;

/// Digests and size of a layer's archive.
struct Measured {
    diff_id: Digest,
    blob: Digest,
    size: u64,
}

/// Documents of a finished image.
struct Documents {
    config: Vec<u8>,
    manifest: Vec<u8>,
}

fn here() -> PathBuf {
    PathBuf::from("the image being built")
}

/// Writes a layer's tar, uncompressed.
fn write_tar<W: Write>(layer: &Layer, timestamp: u32, out: W) -> Result<W> {
    let mut tar = TarWriter::new(out);
    // Hard links after everything else, so that what they point to is there.
    let is_link = |node: &Node| matches!(node.content, Content::HardLink(_));
    let ordered = layer
        .iter()
        .filter(|(_, n)| !is_link(n))
        .chain(layer.iter().filter(|(_, n)| is_link(n)));
    for (names, node) in ordered {
        write_node(&mut tar, names, node, timestamp)?;
    }
    tar.finish().at("cannot write", &here())
}

fn write_node<W: Write>(
    tar: &mut TarWriter<W>,
    names: &[Name],
    node: &Node,
    timestamp: u32,
) -> Result<()> {
    let mut entry = Entry {
        path: joined(names),
        link: Vec::new(),
        kind: Kind::File,
        size: 0,
        mode: node.mode,
        uid: node.uid,
        gid: node.gid,
        mtime: node.mtime.unwrap_or((i64::from(timestamp), 0)),
        device: (0, 0),
        xattrs: node.xattrs.clone(),
    };
    let mut data: Box<dyn Read + '_> = Box::new(io::empty());
    let mut place = here();
    match &node.content {
        Content::Directory => {
            entry.kind = Kind::Directory;
            entry.path = if names.is_empty() {
                b"./".to_vec()
            } else {
                [entry.path.as_slice(), b"/"].concat()
            };
        }
        Content::File(FileSource::Bytes(bytes)) => {
            entry.size = bytes.len() as u64;
            data = Box::new(bytes.as_slice());
        }
        Content::File(FileSource::Host(path)) => {
            let file = File::open(path).at("cannot open", path)?;
            entry.size = file.metadata().at("cannot look at", path)?.len();
            data = Box::new(file);
            place.clone_from(path);
        }
        Content::Symlink(target) => (entry.kind, entry.link) = (Kind::Symlink, target.clone()),
        Content::HardLink(target) => (entry.kind, entry.link) = (Kind::HardLink, joined(target)),
        Content::Device { kind, major, minor } => {
            (entry.kind, entry.device) = (*kind, (*major, *minor))
        }
    }
    tar.entry(&entry, &mut data).at("cannot pack", &place)
}

/// Writes a layer's archive as it goes into the image and says what it came to.
fn write_layer<W: Write>(builder: &ImageBuilder, layer: &Layer, out: W) -> Result<(W, Measured)> {
    let (blob, diff_id) = match builder.compression {
        Compression::None => {
            // One and the same digest: hashed once.
            let (out, diff_id, size) =
                write_tar(layer, builder.timestamp, Hashing::new(out))?.finish();
            return Ok((
                out,
                Measured {
                    diff_id,
                    blob: diff_id,
                    size,
                },
            ));
        }
        Compression::Gzip => {
            let encoder =
                flate2::write::GzEncoder::new(Hashing::new(out), flate2::Compression::default());
            let (encoder, diff_id, _) =
                write_tar(layer, builder.timestamp, Hashing::new(encoder))?.finish();
            (encoder.finish().at("cannot compress", &here())?, diff_id)
        }
        Compression::Zstd => {
            let encoder =
                zstd::Encoder::new(Hashing::new(out), ZSTD_LEVEL).at("cannot compress", &here())?;
            let (encoder, diff_id, _) =
                write_tar(layer, builder.timestamp, Hashing::new(encoder))?.finish();
            (encoder.finish().at("cannot compress", &here())?, diff_id)
        }
    };
    let (out, blob, size) = blob.finish();
    Ok((
        out,
        Measured {
            diff_id,
            blob,
            size,
        },
    ))
}

fn descriptor(media_type: String, digest: Digest, size: u64) -> Descriptor {
    Descriptor {
        media_type,
        digest,
        size,
        annotations: BTreeMap::new(),
        platform: None,
    }
}

fn to_json(document: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec(document)
        .expect("image documents have only text keys, which is all that JSON asks for")
}

fn documents(builder: &ImageBuilder, layers: &[Measured]) -> Documents {
    let config = to_json(&ConfigFile {
        created: Timestamp(u64::from(builder.timestamp) * 1000).to_string(),
        architecture: builder.platform.architecture.clone(),
        os: builder.platform.os.clone(),
        variant: builder.platform.variant.clone(),
        config: builder.config.clone().into(),
        rootfs: RootFs {
            kind: "layers".to_owned(),
            diff_ids: layers.iter().map(|l| l.diff_id).collect(),
        },
        history: Vec::new(),
    });
    let form = match builder.compression {
        Compression::None => Form::Plain,
        Compression::Gzip => Form::Gzip,
        Compression::Zstd => Form::Zstd,
    };
    let media_type = layer_media_type(form);
    let config_descriptor = descriptor(
        OCI_CONFIG.to_owned(),
        Digest::of(&config),
        config.len() as u64,
    );
    let layers = layers
        .iter()
        .map(|l| descriptor(media_type.clone(), l.blob, l.size))
        .collect();
    Documents {
        manifest: manifest_bytes(config_descriptor, layers),
        config,
    }
}

impl ImageBuilder {
    fn measure(&self, layers: &[Layer]) -> Result<Vec<Measured>> {
        layers
            .iter()
            .map(|layer| write_layer(self, layer, io::sink()).map(|(_, m)| m))
            .collect()
    }

    /// Digest the image has, without storing it anywhere.
    ///
    /// # Errors
    /// A file cannot be read, or a path holds `..`.
    pub fn digest(&self) -> Result<Digest> {
        let measured = self.measure(&self.complete_layers()?)?;
        Ok(Digest::of(&documents(self, &measured).manifest))
    }

    /// Puts the image into a store under these names. If it is there already only the names are
    /// set, which takes one pass over the files and writes nothing else.
    ///
    /// # Errors
    /// A file cannot be read, a path holds `..`, disk full.
    pub fn build_into(&self, store: &ImageStore, names: &[ImageRef]) -> Result<ImportedImage> {
        let layers = self.complete_layers()?;
        let measured = self.measure(&layers)?;
        let documents = documents(self, &measured);
        let digest = Digest::of(&documents.manifest);
        if let Some(present) = store.tag_present(&digest, names)? {
            return Ok(present);
        }
        let stage = store.tmp().dir()?;
        let mut new_layers = Vec::new();
        for (at, (layer, expected)) in layers.iter().zip(&measured).enumerate() {
            let path = stage.path().join(format!("layer{at}"));
            let blob = self.write_layer_file(layer, &path)?;
            if blob.diff_id != expected.diff_id {
                return Err(ImageError::BadArchive {
                    archive: "the image being built".to_owned(),
                    entry: format!("layer {at}"),
                    why: "its files changed while they were packed".to_owned(),
                });
            }
            let blob_file = Staged {
                path,
                size: blob.size,
                digest: blob.blob,
            };
            new_layers.push(NewLayer {
                blob: blob_file,
                diff_id: blob.diff_id,
            });
        }
        let image = NewImage {
            names: names.to_vec(),
            manifest: documents.manifest,
            config: documents.config,
            layers: new_layers,
        };
        let mut done = store.commit(&[image], "the image being built")?;
        done.pop().ok_or_else(|| ImageError::NotFound {
            reference: digest.to_string(),
        })
    }

    fn write_layer_file(&self, layer: &Layer, path: &Path) -> Result<Measured> {
        let file = BufWriter::with_capacity(
            COPY_BUFFER_BYTES,
            File::create(path).at("cannot create", path)?,
        );
        let (file, measured) = write_layer(self, layer, file)?;
        file.into_inner()
            .map_err(io::IntoInnerError::into_error)
            .at("cannot write", path)?;
        Ok(measured)
    }

    /// Writes the image as a tar archive of an OCI layout.
    ///
    /// # Errors
    /// A file cannot be read, a path holds `..`, or writing fails.
    pub fn write_oci_archive(&self, out: impl Write, names: &[ImageRef]) -> Result<()> {
        let layers = self.complete_layers()?;
        let measured = self.measure(&layers)?;
        let documents = documents(self, &measured);
        let digest = Digest::of(&documents.manifest);
        let size = documents.manifest.len() as u64;
        let mut manifests: Vec<Descriptor> = Vec::new();
        for name in names {
            let mut one = descriptor(OCI_MANIFEST.to_owned(), digest, size);
            one.platform = Some(self.platform.clone());
            one.annotations
                .insert(CONTAINERD_NAME.to_owned(), name.to_string());
            manifests.push(one);
        }
        if names.is_empty() {
            manifests.push(descriptor(OCI_MANIFEST.to_owned(), digest, size));
        }
        let index = Index {
            schema_version: 2,
            media_type: OCI_INDEX.to_owned(),
            manifests,
        };
        let mut tar = TarWriter::new(BufWriter::with_capacity(COPY_BUFFER_BYTES, out));
        let blob = |digest: Digest| format!("blobs/sha256/{}", digest.hex());
        put(&mut tar, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        put(&mut tar, "index.json", &to_json(&index))?;
        put(&mut tar, &blob(digest), &documents.manifest)?;
        put(
            &mut tar,
            &blob(Digest::of(&documents.config)),
            &documents.config,
        )?;
        self.put_layers(&mut tar, &layers, &measured, |m| blob(m.blob))?;
        tar.finish().at("cannot write", &here()).map(drop)
    }

    /// Writes the image in the form of `docker save`.
    ///
    /// # Errors
    /// A file cannot be read, a path holds `..`, or writing fails.
    pub fn write_docker_archive(&self, out: impl Write, names: &[ImageRef]) -> Result<()> {
        let layers = self.complete_layers()?;
        let measured = self.measure(&layers)?;
        let documents = documents(self, &measured);
        let layer_name = |m: &Measured| format!("{}/layer.tar", m.blob.hex());
        let config_name = format!("{}.json", Digest::of(&documents.config).hex());
        let entry = DockerImage {
            config: config_name.clone(),
            repo_tags: names.iter().map(ImageRef::short).collect(),
            layers: measured.iter().map(layer_name).collect(),
        };
        let mut tar = TarWriter::new(BufWriter::with_capacity(COPY_BUFFER_BYTES, out));
        self.put_layers(&mut tar, &layers, &measured, layer_name)?;
        put(&mut tar, &config_name, &documents.config)?;
        put(&mut tar, "manifest.json", &to_json(&[entry]))?;
        tar.finish().at("cannot write", &here()).map(drop)
    }

    fn put_layers<W: Write>(
        &self,
        tar: &mut TarWriter<W>,
        layers: &[Layer],
        measured: &[Measured],
        name: impl Fn(&Measured) -> String,
    ) -> Result<()> {
        let mut done: Vec<Digest> = Vec::new();
        for (layer, m) in layers.iter().zip(measured) {
            if done.contains(&m.blob) {
                continue;
            }
            done.push(m.blob);
            tar.start(&plain_entry(&name(m), m.size))
                .at("cannot write", &here())?;
            let (_, written) = write_layer(self, layer, tar.data())?;
            if written.blob != m.blob {
                return Err(ImageError::BadArchive {
                    archive: "the image being built".to_owned(),
                    entry: name(m),
                    why: "its files changed while they were packed".to_owned(),
                });
            }
            tar.end(m.size).at("cannot write", &here())?;
        }
        Ok(())
    }
}

fn plain_entry(name: &str, size: u64) -> Entry {
    Entry {
        path: name.as_bytes().to_vec(),
        link: Vec::new(),
        kind: Kind::File,
        size,
        mode: 0o644,
        uid: 0,
        gid: 0,
        mtime: (0, 0),
        device: (0, 0),
        xattrs: Vec::new(),
    }
}

fn put<W: Write>(tar: &mut TarWriter<W>, name: &str, bytes: &[u8]) -> Result<()> {
    tar.entry(&plain_entry(name, bytes.len() as u64), &mut { bytes })
        .at("cannot write", &here())
}

impl ImageStore {
    /// Names an image if it is here with all its layers; `None` if it is not.
    fn tag_present(&self, digest: &Digest, names: &[ImageRef]) -> Result<Option<ImportedImage>> {
        let record = self.state().index.images.get(digest).cloned();
        let Some(record) = record else {
            return Ok(None);
        };
        for layer in &record.layers {
            if self.layer_meta(&layer.chain)?.is_none() || !self.blob_path(&layer.blob).exists() {
                return Ok(None);
            }
        }
        let named = {
            let state = self.state();
            names
                .iter()
                .all(|n| state.index.names.get(n) == Some(digest))
        };
        if !named {
            for name in names {
                self.tag(&digest.to_string(), name)?;
            }
        }
        Ok(Some(ImportedImage {
            references: names.to_vec(),
            digest: *digest,
            already_present: true,
        }))
    }
}
