//! Which images an archive holds: OCI layouts and docker-save archives.

use crate::commit::{NewImage, NewLayer};
use crate::compress::{Form, detect};
use crate::digest::Digest;
use crate::error::{ImageError, IoContext, Result};
use crate::limits::{MAX_IMAGES_PER_ARCHIVE, MAX_INDEX_DEPTH};
use crate::manifest::{
    CONTAINERD_NAME, ConfigFile, Descriptor, DockerImage, Index, Manifest, OCI_CONFIG, OCI_LAYER,
    OCI_MANIFEST, REF_NAME,
};
use crate::platform::Platform;
use crate::reference::ImageRef;
use crate::stage::{Stage, Staged};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;

const DOCKER_MANIFEST: &str = "manifest.json";
const OCI_INDEX_FILE: &str = "index.json";
const OCI_LAYOUT_FILE: &str = "oci-layout";

/// All images of the archive that run on `platform`. Nothing is stored yet.
pub(crate) fn find_images(stage: &mut Stage, platform: &Platform) -> Result<Vec<NewImage>> {
    let docker = match stage.find(DOCKER_MANIFEST)? {
        Some(staged) => {
            let bytes = stage.document(DOCKER_MANIFEST, &staged)?;
            Some(stage.parse::<Vec<DockerImage>>(DOCKER_MANIFEST, &bytes)?)
        }
        None => None,
    };
    let images = match (stage.find(OCI_INDEX_FILE)?, docker) {
        (Some(index), docker) => oci_images(stage, &index, &docker.unwrap_or_default(), platform)?,
        (None, Some(docker)) => docker_images(stage, &docker, platform)?,
        (None, None) => {
            return Err(ImageError::BadArchive {
                archive: stage.archive().to_owned(),
                entry: "the top level".to_owned(),
                why: "there is neither index.json (OCI layout) nor manifest.json (docker save)"
                    .to_owned(),
            });
        }
    };
    if images.len() > MAX_IMAGES_PER_ARCHIVE {
        let what = format!("number of images in {}", stage.archive());
        return Err(ImageError::TooLarge {
            what,
            limit: MAX_IMAGES_PER_ARCHIVE as u64,
            unit: "images",
        });
    }
    Ok(images)
}

fn parse_names<'a>(texts: impl IntoIterator<Item = &'a str>) -> Vec<ImageRef> {
    let mut names = Vec::new();
    for text in texts {
        match text.parse::<ImageRef>() {
            Ok(name) if !names.contains(&name) => names.push(name),
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "archive holds a name that is left out"),
        }
    }
    names
}

/// One manifest that an index leads to.
struct Leaf {
    descriptor: Descriptor,
    fit: u32,
}

struct Search<'a> {
    stage: &'a mut Stage,
    platform: &'a Platform,
    /// Platforms that did not fit, for the message.
    others: Vec<Platform>,
}

fn oci_images(
    stage: &mut Stage,
    index: &Staged,
    docker: &[DockerImage],
    platform: &Platform,
) -> Result<Vec<NewImage>> {
    if let Some(marker) = stage.find(OCI_LAYOUT_FILE)? {
        check_layout_version(stage, &marker)?;
    }
    let bytes = stage.document(OCI_INDEX_FILE, index)?;
    let index: Index = stage.parse(OCI_INDEX_FILE, &bytes)?;
    let mut search = Search {
        stage,
        platform,
        others: Vec::new(),
    };
    let mut named: BTreeMap<ImageRef, Option<Leaf>> = BTreeMap::new();
    let mut unnamed: Vec<Leaf> = Vec::new();
    for descriptor in index.manifests {
        let name = name_of(&descriptor);
        let best = search.best(descriptor, 0)?;
        match name {
            Some(name) => {
                let slot = named.entry(name).or_default();
                if best.as_ref().map(|l| l.fit) > slot.as_ref().map(|l| l.fit) {
                    *slot = best;
                }
            }
            None => unnamed.extend(best),
        }
    }
    let others = std::mem::take(&mut search.others);
    let mut images: Vec<NewImage> = Vec::new();
    let unnamed = unnamed.into_iter().map(|leaf| (None, Some(leaf)));
    for (name, leaf) in named.into_iter().map(|(n, l)| (Some(n), l)).chain(unnamed) {
        let Some(leaf) = leaf else {
            return Err(no_platform(stage, platform, &others));
        };
        let mut image = oci_image(stage, &leaf.descriptor)?;
        image.names.extend(name);
        match images.iter_mut().find(|i| i.manifest == image.manifest) {
            Some(known) => known.names.extend(image.names),
            None => images.push(image),
        }
    }
    if images.is_empty() {
        return Err(no_platform(stage, platform, &others));
    }
    add_docker_tags(&mut images, docker);
    Ok(images)
}

fn check_layout_version(stage: &Stage, marker: &Staged) -> Result<()> {
    #[derive(serde::Deserialize)]
    struct Layout {
        #[serde(rename = "imageLayoutVersion")]
        version: String,
    }
    let bytes = stage.document(OCI_LAYOUT_FILE, marker)?;
    let layout: Layout = stage.parse(OCI_LAYOUT_FILE, &bytes)?;
    if layout.version.starts_with("1.") {
        return Ok(());
    }
    Err(ImageError::Unsupported {
        archive: stage.archive().to_owned(),
        entry: OCI_LAYOUT_FILE.to_owned(),
        what: format!("layout version {}", layout.version),
        remedy: "save it with a tool that writes version 1",
    })
}

fn no_platform(stage: &Stage, wanted: &Platform, others: &[Platform]) -> ImageError {
    let mut found: Vec<String> = others.iter().map(Platform::to_string).collect();
    found.sort();
    found.dedup();
    found.truncate(16);
    let found = if found.is_empty() {
        "nothing".to_owned()
    } else {
        found.join(", ")
    };
    ImageError::NoPlatform {
        archive: stage.archive().to_owned(),
        wanted: wanted.clone(),
        found,
    }
}

/// The name an index gives to a descriptor. A bare word is a tag without its image: no name.
fn name_of(descriptor: &Descriptor) -> Option<ImageRef> {
    let get = |key: &str| descriptor.annotations.get(key).map(String::as_str);
    let text = get(CONTAINERD_NAME).or_else(|| get(REF_NAME).filter(|t| t.contains(['/', ':'])))?;
    parse_names([text]).pop()
}

fn add_docker_tags(images: &mut [NewImage], docker: &[DockerImage]) {
    for entry in docker {
        let config = entry
            .config
            .rsplit('/')
            .next()
            .unwrap_or_default()
            .trim_end_matches(".json");
        let Some(digest) = Digest::from_hex(config) else {
            continue;
        };
        for image in images
            .iter_mut()
            .filter(|i| Digest::of(&i.config) == digest)
        {
            for name in parse_names(entry.repo_tags.iter().map(String::as_str)) {
                if !image.names.contains(&name) {
                    image.names.push(name);
                }
            }
        }
    }
}

impl Search<'_> {
    /// The manifest below `descriptor` that fits the platform best.
    fn best(&mut self, descriptor: Descriptor, depth: usize) -> Result<Option<Leaf>> {
        if depth > MAX_INDEX_DEPTH {
            let what = format!("nesting of indexes in {}", self.stage.archive());
            return Err(ImageError::TooLarge {
                what,
                limit: MAX_INDEX_DEPTH as u64,
                unit: "levels",
            });
        }
        if !descriptor.is_index() {
            return self.leaf(descriptor);
        }
        // What the index says of a whole sub-index need not be asked of its parts.
        let name = format!("index {}", descriptor.digest);
        let staged = self.stage.blob(&descriptor.digest, descriptor.size)?;
        let bytes = self.stage.document(&name, &staged)?;
        let index: Index = self.stage.parse(&name, &bytes)?;
        let mut best: Option<Leaf> = None;
        for child in index.manifests {
            let leaf = self.best(child, depth + 1)?;
            if leaf.as_ref().map(|l| l.fit) > best.as_ref().map(|l| l.fit) {
                best = leaf;
            }
        }
        Ok(best)
    }

    fn leaf(&mut self, descriptor: Descriptor) -> Result<Option<Leaf>> {
        let platform = match &descriptor.platform {
            Some(platform) => platform.clone(),
            // The index does not say: the config does.
            None => read_manifest(self.stage, &descriptor)?.2.platform(),
        };
        match self.platform.fit(&platform) {
            Some(fit) => Ok(Some(Leaf { descriptor, fit })),
            None => {
                self.others.push(platform);
                Ok(None)
            }
        }
    }
}

/// Manifest bytes, manifest, config and config bytes.
fn read_manifest(
    stage: &mut Stage,
    descriptor: &Descriptor,
) -> Result<(Vec<u8>, Manifest, ConfigFile, Vec<u8>)> {
    let name = format!("manifest {}", descriptor.digest);
    let staged = stage.blob(&descriptor.digest, descriptor.size)?;
    let bytes = stage.document(&name, &staged)?;
    let manifest: Manifest = stage.parse(&name, &bytes)?;
    let name = format!("config {}", manifest.config.digest);
    let staged = stage.blob(&manifest.config.digest, manifest.config.size)?;
    let config_bytes = stage.document(&name, &staged)?;
    let config: ConfigFile = stage.parse(&name, &config_bytes)?;
    Ok((bytes, manifest, config, config_bytes))
}

fn check_layers(stage: &Stage, entry: &str, layers: usize, config: &ConfigFile) -> Result<()> {
    if layers != config.rootfs.diff_ids.len() {
        let why = format!(
            "it lists {layers} layers, its config {}",
            config.rootfs.diff_ids.len()
        );
        return Err(ImageError::BadArchive {
            archive: stage.archive().to_owned(),
            entry: entry.to_owned(),
            why,
        });
    }
    Ok(())
}

fn oci_image(stage: &mut Stage, descriptor: &Descriptor) -> Result<NewImage> {
    let (manifest_bytes, manifest, config, config_bytes) = read_manifest(stage, descriptor)?;
    check_layers(
        stage,
        &format!("manifest {}", descriptor.digest),
        manifest.layers.len(),
        &config,
    )?;
    let mut layers = Vec::new();
    for (layer, diff_id) in manifest.layers.iter().zip(&config.rootfs.diff_ids) {
        layers.push(NewLayer {
            blob: stage.blob(&layer.digest, layer.size)?,
            diff_id: *diff_id,
        });
    }
    Ok(NewImage {
        names: Vec::new(),
        manifest: manifest_bytes,
        config: config_bytes,
        layers,
    })
}

fn docker_images(
    stage: &mut Stage,
    docker: &[DockerImage],
    platform: &Platform,
) -> Result<Vec<NewImage>> {
    if docker.is_empty() {
        return Err(no_platform(stage, platform, &[]));
    }
    docker
        .iter()
        .map(|entry| docker_image(stage, entry, platform))
        .collect()
}

/// Makes the manifest that a docker-save archive lacks.
fn docker_image(stage: &mut Stage, entry: &DockerImage, platform: &Platform) -> Result<NewImage> {
    let staged = stage.need(&entry.config)?;
    let stem = entry
        .config
        .rsplit('/')
        .next()
        .unwrap_or_default()
        .trim_end_matches(".json");
    if let Some(expected) = Digest::from_hex(stem)
        && expected != staged.digest
    {
        let (archive, entry) = (stage.archive().to_owned(), entry.config.clone());
        return Err(ImageError::DigestMismatch {
            archive,
            entry,
            expected,
            actual: staged.digest,
        });
    }
    let config_bytes = stage.document(&entry.config, &staged)?;
    let config: ConfigFile = stage.parse(&entry.config, &config_bytes)?;
    if platform.fit(&config.platform()).is_none() {
        return Err(no_platform(stage, platform, &[config.platform()]));
    }
    check_layers(stage, &entry.config, entry.layers.len(), &config)?;
    let mut layers = Vec::new();
    let mut descriptors = Vec::new();
    for (name, diff_id) in entry.layers.iter().zip(&config.rootfs.diff_ids) {
        let blob = stage.need(name)?;
        descriptors.push(layer_descriptor(stage, name, &blob)?);
        layers.push(NewLayer {
            blob,
            diff_id: *diff_id,
        });
    }
    let config_descriptor = Descriptor {
        media_type: OCI_CONFIG.to_owned(),
        digest: staged.digest,
        size: staged.size,
        annotations: BTreeMap::new(),
        platform: None,
    };
    let manifest = manifest_bytes(config_descriptor, descriptors);
    let names = parse_names(entry.repo_tags.iter().map(String::as_str));
    Ok(NewImage {
        names,
        manifest,
        config: config_bytes,
        layers,
    })
}

fn layer_descriptor(stage: &Stage, name: &str, blob: &Staged) -> Result<Descriptor> {
    let mut start = Vec::new();
    let file = File::open(&blob.path).at("cannot read", &blob.path)?;
    file.take(8)
        .read_to_end(&mut start)
        .at("cannot read", &blob.path)?;
    let form = detect(&start).map_err(|form| ImageError::Unsupported {
        archive: stage.archive().to_owned(),
        entry: name.to_owned(),
        what: form.0.to_owned(),
        remedy: "save the image again with gzip, zstd or no compression",
    })?;
    Ok(Descriptor {
        media_type: layer_media_type(form),
        digest: blob.digest,
        size: blob.size,
        annotations: BTreeMap::new(),
        platform: None,
    })
}

pub(crate) fn layer_media_type(form: Form) -> String {
    let suffix = match form {
        Form::Plain => "",
        Form::Gzip => "+gzip",
        Form::Zstd => "+zstd",
    };
    format!("{OCI_LAYER}{suffix}")
}

/// A manifest document; the same input always gives the same bytes.
pub(crate) fn manifest_bytes(config: Descriptor, layers: Vec<Descriptor>) -> Vec<u8> {
    let manifest = Manifest {
        schema_version: 2,
        media_type: OCI_MANIFEST.to_owned(),
        config,
        layers,
    };
    serde_json::to_vec(&manifest)
        .expect("a manifest has only text keys, which is all that JSON asks for")
}
