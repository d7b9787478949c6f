//! Root file systems of containers: shared layers below, the container's own changes on top.

use crate::beneath::open_dir;
use crate::commit::LayerSource;
use crate::digest::Digest;
use crate::error::{ImageError, IoContext, Result};
use crate::fsutil::write_atomically;
use crate::index::ImageRecord;
use crate::overlay::{Overlay, is_mounted, mount_overlay, unmount};
use crate::store::ImageStore;
use crate::unpack::copy_dir_metadata;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use warren_types::ContainerId;

/// Whether a container may write to its root file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum RootfsMode {
    /// Changes go to a directory of the container and vanish with [`ImageStore::release`].
    Writable,
    /// Nothing can be written, not even mount points made: prepare writable and let the runtime
    /// make it read-only if the container needs mounts on paths the image does not have.
    ReadOnly,
}

/// A mounted root file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rootfs {
    /// The directory to run the container in.
    pub path: PathBuf,
    /// The image it is made of.
    pub image: Digest,
    /// How it is mounted.
    pub mode: RootfsMode,
}

/// What the store keeps for a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PreparedRootfs {
    /// The container.
    pub container: ContainerId,
    /// Its image; `None` if preparing was interrupted.
    pub image: Option<Digest>,
    /// Whether it is mounted now; after a reboot it is not until prepared again.
    pub mounted: bool,
}

/// Beside a container's directories; written when they are complete.
#[derive(Debug, Serialize, Deserialize)]
struct ContainerMeta {
    image: Digest,
    mode: RootfsMode,
    /// Layers, lowest first.
    chains: Vec<Digest>,
}

struct Paths {
    dir: PathBuf,
    meta: PathBuf,
    upper: PathBuf,
    work: PathBuf,
    merged: PathBuf,
}

impl ImageStore {
    fn container_paths(&self, container: ContainerId) -> Paths {
        let dir = self.containers_dir().join(container.to_string());
        Paths {
            meta: dir.join("meta.json"),
            upper: dir.join("upper"),
            work: dir.join("work"),
            merged: dir.join("merged"),
            dir,
        }
    }

    /// Where the root file system of a container is or would be mounted.
    #[must_use]
    pub fn rootfs_path(&self, container: ContainerId) -> PathBuf {
        self.container_paths(container).merged
    }

    /// Mounts the root file system of a container. If it is mounted already, as after a restart of
    /// the daemon, that one is returned; if only the mount is gone, as after a reboot, the
    /// container finds what it wrote.
    ///
    /// # Errors
    /// Image not here, other image or mode prepared before, or mounting refused.
    pub fn prepare(
        &self,
        container: ContainerId,
        image: &Digest,
        mode: RootfsMode,
    ) -> Result<Rootfs> {
        let _one_at_a_time = self.container_lock(container.as_u128());
        let paths = self.container_paths(container);
        let meta = read_meta(&paths.meta)?;
        let mounted = is_mounted(&paths.merged).at("cannot look at", &paths.merged)?;
        let rootfs = Rootfs {
            path: paths.merged.clone(),
            image: *image,
            mode,
        };
        if let Some(meta) = &meta {
            if meta.image != *image {
                return Err(ImageError::OtherImage {
                    container,
                    present: meta.image,
                    wanted: *image,
                });
            }
            if mounted && meta.mode != mode {
                let present = if meta.mode == RootfsMode::ReadOnly {
                    "read-only"
                } else {
                    "writable"
                };
                return Err(ImageError::OtherMode { container, present });
            }
            if mounted {
                return Ok(rootfs);
            }
        }
        let record = self.state().index.images.get(image).cloned();
        let record = record.ok_or_else(|| ImageError::NotFound {
            reference: image.to_string(),
        })?;
        let chains: Vec<Digest> = record.layers.iter().map(|l| l.chain).collect();
        let _pinned = self.pin(
            chains
                .iter()
                .copied()
                .chain([record.digest])
                .chain(record.layers.iter().map(|l| l.blob))
                .collect(),
        );
        // Between looking it up and pinning, somebody may have removed it.
        if !self.contains(image) {
            return Err(ImageError::NotFound {
                reference: image.to_string(),
            });
        }
        let lowers = self.ensure_layers(&record)?;
        if mounted {
            // Mounted but no word of what: preparing was cut off right there.
            unmount(&paths.merged).at("cannot unmount", &paths.merged)?;
        }
        self.make_dirs(
            &paths,
            mode,
            lowers.first().map(PathBuf::as_path),
            meta.is_none(),
        )?;
        let meta = serde_json::to_vec(&ContainerMeta {
            image: *image,
            mode,
            chains,
        })
        .expect("digests and a mode always go into JSON");
        write_atomically(self.tmp(), &paths.meta, &meta)?;
        self.mount(container, &paths, mode, lowers)?;
        Ok(rootfs)
    }

    fn make_dirs(
        &self,
        paths: &Paths,
        mode: RootfsMode,
        top: Option<&Path>,
        fresh: bool,
    ) -> Result<()> {
        if fresh && paths.dir.exists() {
            self.tmp().discard(&paths.dir)?;
        }
        let mut dirs = vec![&paths.dir, &paths.merged];
        if mode == RootfsMode::Writable {
            dirs.extend([&paths.upper, &paths.work]);
        }
        for dir in dirs {
            match fs::create_dir(dir) {
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => continue,
                other => other.at("cannot create directory", dir)?,
            }
            if *dir == paths.upper {
                // The root directory shows owner and mode of the highest layer: ours.
                let upper = open_dir(dir).at("cannot open", dir)?;
                match top {
                    Some(top) => {
                        open_dir(top).and_then(|top| copy_dir_metadata(&top, &upper).map(drop))
                    }
                    None => fs::set_permissions(
                        dir,
                        std::os::unix::fs::PermissionsExt::from_mode(0o755),
                    ),
                }
                .at("cannot set attributes of", dir)?;
            }
        }
        Ok(())
    }

    fn mount(
        &self,
        container: ContainerId,
        paths: &Paths,
        mode: RootfsMode,
        mut lowers: Vec<PathBuf>,
    ) -> Result<()> {
        let least = if mode == RootfsMode::Writable { 1 } else { 2 };
        if lowers.len() < least {
            // Overlayfs wants that many; an empty directory at the bottom adds nothing.
            for at in lowers.len()..least {
                let empty = paths.dir.join(format!("empty{at}"));
                fs::create_dir_all(&empty).at("cannot create directory", &empty)?;
                lowers.push(empty);
            }
        }
        let overlay = Overlay {
            lowers: &lowers,
            upper: (mode == RootfsMode::Writable).then_some((&paths.upper, &paths.work)),
            target: &paths.merged,
            source: &format!("warren-{container}"),
        };
        mount_overlay(self.tmp(), &overlay).map_err(|source| match source.raw_os_error() {
            Some(libc::ENOSPC | libc::EDQUOT) => {
                ImageError::io("cannot mount", &paths.merged, source)
            }
            _ => ImageError::Mount { container, source },
        })
    }

    /// Directories of an image's layers, highest first; one that is missing is unpacked again.
    fn ensure_layers(&self, record: &ImageRecord) -> Result<Vec<PathBuf>> {
        let mut lowers: Vec<PathBuf> = Vec::new();
        for layer in &record.layers {
            if self.layer_meta(&layer.chain)?.is_none() {
                let blob = self.blob_path(&layer.blob);
                if !blob.exists() {
                    return Err(ImageError::Damaged {
                        path: blob,
                        why: format!("image {} needs it and it is missing", record.digest),
                        remedy: "import the image again",
                    });
                }
                let label = format!("layer {} in the store", layer.blob);
                let source = LayerSource {
                    blob: &blob,
                    diff_id: layer.diff_id,
                    chain: layer.chain,
                    label,
                };
                self.unpack_layer(&source, &lowers)?;
            }
            lowers.insert(0, self.layer_fs(&layer.chain));
        }
        Ok(lowers)
    }

    /// Unmounts the root file system of a container and deletes what it wrote. Not having one is fine.
    ///
    /// # Errors
    /// Refused by the system.
    pub fn release(&self, container: ContainerId) -> Result<()> {
        let paths = self.container_paths(container);
        let image = {
            let _one_at_a_time = self.container_lock(container.as_u128());
            let meta = read_meta(&paths.meta)?;
            unmount(&paths.merged).at("cannot unmount", &paths.merged)?;
            self.tmp().discard(&paths.dir)?;
            meta.map(|m| m.image)
        };
        if image.is_some_and(|digest| !self.contains(&digest)) {
            self.collect_garbage()?;
        }
        Ok(())
    }

    /// Containers whose root file system is mounted now.
    ///
    /// # Errors
    /// Refused by the system.
    pub fn mounted(&self) -> Result<Vec<ContainerId>> {
        Ok(self
            .prepared()?
            .into_iter()
            .filter(|p| p.mounted)
            .map(|p| p.container)
            .collect())
    }

    /// All containers the store keeps something for, mounted or not: what is nobody's is to be
    /// [released](Self::release).
    ///
    /// # Errors
    /// Refused by the system.
    pub fn prepared(&self) -> Result<Vec<PreparedRootfs>> {
        let dir = self.containers_dir();
        let mut out = Vec::new();
        for entry in fs::read_dir(&dir).at("cannot list", &dir)? {
            let name = entry.at("cannot list", &dir)?.file_name();
            let Some(container) = name.to_str().and_then(|n| n.parse::<ContainerId>().ok()) else {
                continue;
            };
            let paths = self.container_paths(container);
            out.push(PreparedRootfs {
                container,
                image: read_meta(&paths.meta)?.map(|m| m.image),
                mounted: is_mounted(&paths.merged).at("cannot look at", &paths.merged)?,
            });
        }
        out.sort_by_key(|p| p.container);
        Ok(out)
    }

    /// Layers that prepared root file systems stand on.
    pub(crate) fn layers_of_containers(&self) -> Result<Vec<Digest>> {
        let dir = self.containers_dir();
        let mut out = Vec::new();
        for entry in fs::read_dir(&dir).at("cannot list", &dir)? {
            let path = entry.at("cannot list", &dir)?.path().join("meta.json");
            out.extend(read_meta(&path)?.into_iter().flat_map(|m| m.chains));
        }
        Ok(out)
    }
}

/// `None` if it is not there or not whole (a power cut may leave it so): then preparing never finished.
fn read_meta(path: &Path) -> Result<Option<ContainerMeta>> {
    match fs::read(path) {
        Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) => Ok(None),
        Err(e) => Err(e).at("cannot read", path),
    }
}
