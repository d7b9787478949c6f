//! Garbage collection: blobs and layers that no image, no container and no running import needs.

use crate::digest::Digest;
use crate::error::{IoContext, Result};
use crate::fsutil::Temp;
use crate::store::ImageStore;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use warren_types::Bytes;

impl ImageStore {
    /// Removes what nothing needs; returns the space it took.
    ///
    /// Under the lock garbage is only renamed away, so that nothing new can come to need it;
    /// deleting trees, which may take long, happens after.
    pub(crate) fn collect_garbage(&self) -> Result<Bytes> {
        let mut freed = 0;
        let mut rubbish: Vec<Temp> = Vec::new();
        let state = self.state();
        let (mut blobs, mut layers) = (BTreeSet::new(), BTreeSet::new());
        for image in state.index.images.values() {
            blobs.extend([image.digest, image.config]);
            blobs.extend(image.layers.iter().map(|l| l.blob));
            layers.extend(image.layers.iter().map(|l| l.chain));
        }
        blobs.extend(state.pins.iter());
        layers.extend(state.pins.iter());
        layers.extend(self.layers_of_containers()?);
        for path in unneeded(&self.blobs_dir(), &blobs)? {
            freed += fs::symlink_metadata(&path).map_or(0, |m| m.len());
            rubbish.extend(self.tmp().set_aside(&path)?);
        }
        for path in unneeded(&self.layers_dir(), &layers)? {
            let chain = path
                .file_name()
                .and_then(|n| n.to_str())
                .and_then(Digest::from_hex);
            let meta = chain.and_then(|c| self.layer_meta(&c).ok().flatten());
            freed += meta.map_or(0, |m| m.bytes);
            rubbish.extend(self.tmp().set_aside(&path)?);
        }
        drop(state);
        drop(rubbish);
        Ok(Bytes(freed))
    }
}

fn unneeded(dir: &Path, needed: &BTreeSet<Digest>) -> Result<Vec<std::path::PathBuf>> {
    let mut out = Vec::new();
    for entry in fs::read_dir(dir).at("cannot list", dir)? {
        let entry = entry.at("cannot list", dir)?;
        let digest = entry.file_name().to_str().and_then(Digest::from_hex);
        if digest.is_none_or(|d| !needed.contains(&d)) {
            out.push(entry.path());
        }
    }
    Ok(out)
}
