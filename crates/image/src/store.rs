//! The image store: opening, looking up, listing, removing.

use crate::commit::Pins;
use crate::digest::{Digest, Hashing};
use crate::error::{ImageError, IoContext, Result};
use crate::fsutil::{TempDirs, sync_dir};
use crate::index::{ImageIndex, ImageRecord};
use crate::manifest::{ConfigFile, HistoryEntry, ImageConfig};
use crate::platform::Platform;
use crate::reference::ImageRef;
use crate::time::parse_rfc3339;
use nix::fcntl::{Flock, FlockArg};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use warren_types::{Bytes, Timestamp};

/// Locks for containers; two containers rarely share one, and sharing only makes one wait.
const CONTAINER_LOCKS: usize = 64;

/// Images on disk. See the crate's documentation for the layout and what survives what.
pub struct ImageStore {
    root: PathBuf,
    tmp: TempDirs,
    state: Mutex<State>,
    container_locks: Vec<Mutex<()>>,
    /// Held as long as the store is open; the kernel lets go of it however the process ends.
    _lock: Flock<File>,
}

impl std::fmt::Debug for ImageStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ImageStore")
            .field("root", &self.root)
            .finish_non_exhaustive()
    }
}

pub(crate) struct State {
    pub index: ImageIndex,
    pub pins: Pins,
}

/// One line of the image list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageSummary {
    /// Its names, in order; may be empty.
    pub references: Vec<ImageRef>,
    /// Digest of the manifest.
    pub digest: Digest,
    /// Size of the unpacked files; layers shared with other images count in each.
    pub size: Bytes,
    /// When the image was made, if its config says.
    pub created: Option<Timestamp>,
    /// When it came to this node.
    pub imported: Timestamp,
    /// Number of layers.
    pub layers: usize,
    /// What it runs on.
    pub platform: Platform,
}

/// One layer of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerInfo {
    /// Digest of the layer's archive.
    pub digest: Digest,
    /// Digest of the uncompressed archive.
    pub diff_id: Digest,
    /// Size of the archive.
    pub archive_size: Bytes,
    /// Size of the unpacked files.
    pub size: Bytes,
}

/// Everything about an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageInfo {
    /// What the list shows.
    pub summary: ImageSummary,
    /// Digest of the config; what Docker calls the image id.
    pub config_digest: Digest,
    /// How it wants to be run.
    pub config: ImageConfig,
    /// Layers, lowest first.
    pub layers: Vec<LayerInfo>,
    /// How it was made.
    pub history: Vec<HistoryEntry>,
}

/// An image found by its reference, ready to be run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvedImage {
    /// Digest of the manifest: pins exactly this image.
    pub digest: Digest,
    /// How it wants to be run.
    pub config: ImageConfig,
    /// What it runs on.
    pub platform: Platform,
}

/// What a removal did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemovedImage {
    /// Names that are gone.
    pub untagged: Vec<ImageRef>,
    /// The image, if it is gone too; another name may have kept it.
    pub deleted: Option<Digest>,
    /// Disk space that came free.
    pub freed: Bytes,
}

/// Something [`ImageStore::verify`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreProblem {
    /// The image that is affected.
    pub image: Digest,
    /// The file or directory.
    pub path: PathBuf,
    /// What is wrong and what to do.
    pub problem: String,
}

/// Keeps blobs and layers from being collected while it lives.
pub(crate) struct PinGuard<'a> {
    store: &'a ImageStore,
    digests: Vec<Digest>,
}

impl Drop for PinGuard<'_> {
    fn drop(&mut self) {
        let mut state = self.store.state();
        for digest in &self.digests {
            state.pins.remove(digest);
        }
    }
}

impl ImageStore {
    /// Opens the store in `root`, making it if it is not there, and removes what an interrupted
    /// process left behind. Only one process may have it open.
    ///
    /// # Errors
    /// Opened elsewhere, written by a newer program, damaged index, or refused by the system.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self> {
        let root = root.into();
        // Images may hold setuid programs and private files: only root passes.
        let mut private = DirBuilder::new();
        private.recursive(true).mode(0o700);
        for dir in ["", "blobs/sha256", "layers", "containers", "tmp"] {
            let dir = root.join(dir);
            private.create(&dir).at("cannot create directory", &dir)?;
        }
        let root = fs::canonicalize(&root).at("cannot find", &root)?;
        let lock_path = root.join("lock");
        let lock = File::create(&lock_path).at("cannot create", &lock_path)?;
        let lock =
            Flock::lock(lock, FlockArg::LockExclusiveNonblock).map_err(
                |(_, errno)| match errno {
                    nix::errno::Errno::EWOULDBLOCK => ImageError::Locked { path: root.clone() },
                    e => ImageError::io("cannot lock", &lock_path, e.into()),
                },
            )?;
        let index = ImageIndex::load(&root.join("index.json"))?;
        let store = Self {
            tmp: TempDirs::new(root.join("tmp")),
            state: Mutex::new(State {
                index,
                pins: Pins::default(),
            }),
            container_locks: (0..CONTAINER_LOCKS).map(|_| Mutex::new(())).collect(),
            root,
            _lock: lock,
        };
        let leftovers = store.tmp.sweep()?;
        let freed = store.collect_garbage()?;
        if leftovers > 0 || freed.0 > 0 {
            tracing::info!(leftovers, %freed, "image store cleaned up after an interrupted run");
        }
        sync_dir(&store.root)?;
        Ok(store)
    }

    /// The store's directory.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn tmp(&self) -> &TempDirs {
        &self.tmp
    }
    pub(crate) fn blobs_dir(&self) -> PathBuf {
        self.root.join("blobs/sha256")
    }
    pub(crate) fn layers_dir(&self) -> PathBuf {
        self.root.join("layers")
    }
    pub(crate) fn containers_dir(&self) -> PathBuf {
        self.root.join("containers")
    }
    pub(crate) fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.blobs_dir().join(digest.hex())
    }
    pub(crate) fn layer_dir(&self, chain: &Digest) -> PathBuf {
        self.layers_dir().join(chain.hex())
    }
    pub(crate) fn layer_fs(&self, chain: &Digest) -> PathBuf {
        self.layer_dir(chain).join("fs")
    }

    /// The index and pins. Whoever panicked with it changed nothing that was not whole.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn container_lock(&self, id: u128) -> MutexGuard<'_, ()> {
        let at = (id % CONTAINER_LOCKS as u128) as usize;
        self.container_locks[at]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Protects digests from garbage collection until the guard goes.
    pub(crate) fn pin(&self, digests: Vec<Digest>) -> PinGuard<'_> {
        let mut state = self.state();
        for digest in &digests {
            state.pins.add(*digest);
        }
        drop(state);
        PinGuard {
            store: self,
            digests,
        }
    }

    /// Whether an image here holds this layer, packed like this and verified.
    pub(crate) fn knows_layer(&self, blob: &Digest, diff_id: &Digest) -> bool {
        let state = self.state();
        state
            .index
            .images
            .values()
            .flat_map(|i| &i.layers)
            .any(|l| l.blob == *blob && l.diff_id == *diff_id)
    }

    /// Changes the index: on disk first, then in memory; on an error nowhere.
    pub(crate) fn change_index<T>(
        &self,
        change: impl FnOnce(&mut ImageIndex) -> Result<T>,
    ) -> Result<T> {
        let mut state = self.state();
        let mut next = state.index.clone();
        let out = change(&mut next)?;
        next.save(&self.tmp, &self.root.join("index.json"))?;
        state.index = next;
        Ok(out)
    }

    /// All images, those with names first, by name.
    #[must_use]
    pub fn list(&self) -> Vec<ImageSummary> {
        let state = self.state();
        let mut names: BTreeMap<Digest, Vec<ImageRef>> = BTreeMap::new();
        for (name, digest) in &state.index.names {
            names.entry(*digest).or_default().push(name.clone());
        }
        let mut out: Vec<ImageSummary> = state
            .index
            .images
            .values()
            .map(|i| summary(i, names.remove(&i.digest).unwrap_or_default()))
            .collect();
        out.sort_by_cached_key(|i| {
            (
                i.references.is_empty(),
                i.references.first().cloned(),
                i.digest,
            )
        });
        out
    }

    /// Whether an image with exactly this manifest digest is here.
    #[must_use]
    pub fn contains(&self, digest: &Digest) -> bool {
        self.state().index.images.contains_key(digest)
    }

    /// Finds an image by name (short or full), digest or digest prefix (12 digits or more).
    ///
    /// # Errors
    /// Not here, not a reference, or a prefix that fits several.
    pub fn resolve(&self, reference: &str) -> Result<ResolvedImage> {
        let record = self.state().index.find(reference)?.clone();
        let config = self.read_config(&record)?;
        Ok(ResolvedImage {
            digest: record.digest,
            config: config.config.into(),
            platform: record.platform,
        })
    }

    /// Everything about an image, found as by [`Self::resolve`].
    ///
    /// # Errors
    /// As [`Self::resolve`].
    pub fn inspect(&self, reference: &str) -> Result<ImageInfo> {
        let (record, names) = {
            let state = self.state();
            let record = state.index.find(reference)?.clone();
            let names = state.index.names_of(&record.digest);
            (record, names)
        };
        let config = self.read_config(&record)?;
        let layers = record.layers.iter().map(|l| LayerInfo {
            digest: l.blob,
            diff_id: l.diff_id,
            archive_size: Bytes(l.blob_bytes),
            size: Bytes(l.bytes),
        });
        Ok(ImageInfo {
            layers: layers.collect(),
            summary: summary(&record, names),
            config_digest: record.config,
            config: config.config.into(),
            history: config.history,
        })
    }

    /// Gives an image one more name; a name that another image had moves to this one.
    ///
    /// # Errors
    /// As [`Self::resolve`]; disk full.
    pub fn tag(&self, reference: &str, name: &ImageRef) -> Result<()> {
        self.change_index(|index| {
            let digest = index.find(reference)?.digest;
            index.names.insert(name.clone(), digest);
            Ok(())
        })
    }

    fn read_config(&self, record: &ImageRecord) -> Result<ConfigFile> {
        let path = self.blob_path(&record.config);
        let damaged = |why: String| ImageError::Damaged {
            path: path.clone(),
            why,
            remedy: "import the image again",
        };
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Err(damaged("it is missing".to_owned()));
            }
            Err(e) => return Err(e).at("cannot read", &path),
        };
        if Digest::of(&bytes) != record.config {
            return Err(damaged(
                "its content does not have the digest it is named by".to_owned(),
            ));
        }
        serde_json::from_slice(&bytes).map_err(|e| damaged(e.to_string()))
    }

    /// Removes a name, and with its last name (or when given by digest) the image, and whatever
    /// blobs and layers nothing needs any more. `in_use` are digests that must stay: what runs,
    /// previous revisions, what is pinned.
    ///
    /// # Errors
    /// Not here, or in use by `in_use` or a prepared root file system.
    pub fn remove(&self, reference: &str, in_use: &BTreeSet<Digest>) -> Result<RemovedImage> {
        let (untagged, deleted) = {
            let mut state = self.state();
            // Under the lock: a container being prepared is either pinned or in this list.
            let prepared = self.prepared()?;
            let digest = state.index.find(reference)?.digest;
            let names = state.index.names_of(&digest);
            let name = reference
                .parse::<ImageRef>()
                .ok()
                .filter(|n| n.digest().is_none() && names.contains(n));
            let (untagged, deleted) = match name {
                Some(name) if names.len() > 1 => (vec![name], None),
                _ => (names, Some(digest)),
            };
            if deleted.is_some() {
                let holders: Vec<String> = prepared
                    .iter()
                    .filter(|p| p.image == Some(digest))
                    .map(|p| format!("container {}", p.container))
                    .collect();
                let by = match holders.first() {
                    Some(first) if holders.len() > 1 => {
                        format!("{first} and {} more", holders.len() - 1)
                    }
                    Some(first) => first.clone(),
                    None if in_use.contains(&digest) => {
                        "a service or container of the cluster".to_owned()
                    }
                    None if state.pins.holds(&digest) => {
                        "an import or a starting container".to_owned()
                    }
                    None => String::new(),
                };
                if !by.is_empty() {
                    return Err(ImageError::InUse {
                        reference: reference.to_owned(),
                        digest,
                        by,
                    });
                }
            }
            let mut next = state.index.clone();
            next.names.retain(|name, _| !untagged.contains(name));
            if let Some(digest) = deleted {
                next.images.remove(&digest);
            }
            next.save(&self.tmp, &self.root.join("index.json"))?;
            state.index = next;
            (untagged, deleted)
        };
        let freed = if deleted.is_some() {
            self.collect_garbage()?
        } else {
            Bytes(0)
        };
        Ok(RemovedImage {
            untagged,
            deleted,
            freed,
        })
    }

    /// Reads everything and reports what is missing or altered. Slow: it hashes all blobs.
    ///
    /// # Errors
    /// Refused by the system.
    pub fn verify(&self) -> Result<Vec<StoreProblem>> {
        let records: Vec<ImageRecord> = self.state().index.images.values().cloned().collect();
        let mut checked: BTreeMap<Digest, Option<String>> = BTreeMap::new();
        let mut out = Vec::new();
        for record in records {
            let blobs = [record.digest, record.config]
                .into_iter()
                .chain(record.layers.iter().map(|l| l.blob));
            for digest in blobs {
                let path = self.blob_path(&digest);
                let verdict = match checked.get(&digest) {
                    Some(verdict) => verdict.clone(),
                    None => checked
                        .entry(digest)
                        .or_insert(check_blob(&path, &digest)?)
                        .clone(),
                };
                if let Some(problem) = verdict {
                    out.push(StoreProblem {
                        image: record.digest,
                        path,
                        problem,
                    });
                }
            }
            for layer in &record.layers {
                if self.layer_meta(&layer.chain)?.is_none() {
                    let problem = "the unpacked layer is missing; it is made again from its archive when needed".to_owned();
                    out.push(StoreProblem {
                        image: record.digest,
                        path: self.layer_dir(&layer.chain),
                        problem,
                    });
                }
            }
        }
        Ok(out)
    }
}

fn check_blob(path: &Path, digest: &Digest) -> Result<Option<String>> {
    const REMEDY: &str = "remove the image with `warren image remove` and import it again";
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            return Ok(Some(format!("it is missing; {REMEDY}")));
        }
        Err(e) => return Err(e).at("cannot read", path),
    };
    let mut stream = Hashing::new(file);
    io::copy(&mut stream, &mut io::sink()).at("cannot read", path)?;
    let (_, actual, _) = stream.finish();
    Ok((actual != *digest).then(|| format!("its content was altered; {REMEDY}")))
}

fn summary(record: &ImageRecord, references: Vec<ImageRef>) -> ImageSummary {
    ImageSummary {
        references,
        digest: record.digest,
        size: Bytes(record.layers.iter().map(|l| l.bytes).sum()),
        created: parse_rfc3339(&record.created),
        imported: Timestamp(record.imported_ms),
        layers: record.layers.len(),
        platform: record.platform.clone(),
    }
}
