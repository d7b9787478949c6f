//! Importing archives and layout directories.

use crate::digest::Digest;
use crate::error::{ImageError, IoContext, Result};
use crate::layout::find_images;
use crate::limits::MAX_ARCHIVE_BYTES;
use crate::platform::Platform;
use crate::reference::ImageRef;
use crate::stage::Stage;
use crate::store::ImageStore;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// How to import.
#[derive(Debug, Clone)]
pub struct ImportOptions {
    /// Name for the image instead of those in the archive; only if the archive holds one image.
    pub name: Option<ImageRef>,
    /// Platform to choose from an image made for several.
    pub platform: Platform,
    /// Most bytes to read from the input.
    pub max_bytes: u64,
    /// What to call the archive in errors, such as its file name.
    pub label: String,
}

impl ImportOptions {
    /// Names from the archive, this machine's platform, the default size limit. `label` names the
    /// archive in errors.
    #[must_use]
    pub fn new(label: impl Into<String>) -> Self {
        Self {
            name: None,
            platform: Platform::host(),
            max_bytes: MAX_ARCHIVE_BYTES,
            label: label.into(),
        }
    }
}

/// What an import brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportedImage {
    /// Names the image now has from this import; empty if the archive had none.
    pub references: Vec<ImageRef>,
    /// Digest of its manifest.
    pub digest: Digest,
    /// Whether the very same image was here already.
    pub already_present: bool,
}

impl ImageStore {
    /// Imports all images of an archive (OCI layout or docker save; plain, gzip or zstd), which is
    /// read from start to end. Either all are in the store and durable when this returns, or an
    /// error tells why none is.
    ///
    /// # Errors
    /// Damaged, cut, altered, unsafe or oversized archives; no image for the platform; disk full.
    pub fn import(
        &self,
        archive: impl Read,
        options: &ImportOptions,
    ) -> Result<Vec<ImportedImage>> {
        let stage = Stage::from_stream(self.tmp(), &options.label, archive, options.max_bytes)?;
        self.import_stage(stage, options)
    }

    /// Imports from a path: an archive file, or a directory that holds an OCI layout.
    ///
    /// # Errors
    /// As [`Self::import`], and if the path cannot be read.
    pub fn import_path(&self, path: &Path, options: &ImportOptions) -> Result<Vec<ImportedImage>> {
        if path.is_dir() {
            let stage = Stage::from_directory(self.tmp(), path)?;
            return self.import_stage(stage, options);
        }
        self.import(File::open(path).at("cannot open", path)?, options)
    }

    fn import_stage(
        &self,
        mut stage: Stage,
        options: &ImportOptions,
    ) -> Result<Vec<ImportedImage>> {
        let mut images = find_images(&mut stage, &options.platform)?;
        if let Some(name) = &options.name {
            match images.as_mut_slice() {
                [image] => image.names = vec![name.clone()],
                many => {
                    let archive = stage.archive().to_owned();
                    return Err(ImageError::NameForMany {
                        archive,
                        count: many.len(),
                    });
                }
            }
        }
        self.commit(&images, stage.archive())
    }
}
