//! What can go wrong with images: every text says what, where and what to do.

use crate::digest::Digest;
use crate::platform::Platform;
use std::io;
use std::path::{Path, PathBuf};
use warren_types::ContainerId;

/// Result with [`ImageError`].
pub type Result<T, E = ImageError> = std::result::Result<T, E>;

/// Coarse class of an error, for status codes and exit codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The image, user or group does not exist.
    NotFound,
    /// What was handed in is wrong: reference, archive, platform.
    InvalidInput,
    /// The state forbids it now: image in use, store opened elsewhere.
    FailedPrecondition,
    /// Disk full or over a limit.
    ResourceExhausted,
    /// Stored data is damaged.
    DataLoss,
    /// The operating system refused.
    Internal,
}

/// Error of the image store.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// No image of that name or digest here.
    #[error("image {reference} is not on this node: import it with `warren image import FILE`")]
    NotFound {
        /// The reference as it was looked up.
        reference: String,
    },
    /// A digest prefix that fits several images.
    #[error("{prefix:?} fits {count} images: write more digits of the digest or the image name")]
    Ambiguous {
        /// What was looked up.
        prefix: String,
        /// How many images it fits.
        count: usize,
    },
    /// Text that is not an image reference.
    #[error(
        "{text:?} is not an image reference: {why}; write [HOST/]NAME[:TAG][@sha256:DIGEST] such as nginx:1.27"
    )]
    InvalidReference {
        /// The text, cut to 80 characters.
        text: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Text that is not a digest.
    #[error("{text:?} is not a digest: expected sha256: and 64 hex digits")]
    InvalidDigest {
        /// The text, cut to 80 characters.
        text: String,
    },
    /// Removal of an image that something uses.
    #[error("image {reference} ({digest}) is in use by {by}: stop what uses it first")]
    InUse {
        /// The reference as given.
        reference: String,
        /// Its digest.
        digest: Digest,
        /// Who uses it, in words.
        by: String,
    },
    /// The archive ends too early.
    #[error("{archive} is cut short at {entry}: copy or save it again")]
    Truncated {
        /// Which archive or layer.
        archive: String,
        /// The entry where it ended.
        entry: String,
    },
    /// The archive holds something it must not, or is damaged.
    #[error(
        "{archive} is damaged or not an image archive, at {entry}: {why}; save it again with `docker save` or an OCI tool"
    )]
    BadArchive {
        /// Which archive or layer.
        archive: String,
        /// The entry, or where in the file.
        entry: String,
        /// What is wrong.
        why: String,
    },
    /// Content that does not have the digest it is named by.
    #[error(
        "{entry} in {archive} was altered: expected {expected}, found {actual}; fetch the archive again"
    )]
    DigestMismatch {
        /// Which archive.
        archive: String,
        /// The entry.
        entry: String,
        /// What it should be.
        expected: Digest,
        /// What it is.
        actual: Digest,
    },
    /// A path that would leave the place it belongs to.
    #[error(
        "{archive} holds the unsafe path {entry:?} ({why}): nothing was imported; do not trust this archive"
    )]
    UnsafePath {
        /// Which archive or layer.
        archive: String,
        /// The path.
        entry: String,
        /// What is unsafe about it.
        why: &'static str,
    },
    /// A format this program does not read.
    #[error("{entry} in {archive} uses {what}, which is not supported: {remedy}")]
    Unsupported {
        /// Which archive.
        archive: String,
        /// The entry.
        entry: String,
        /// The format.
        what: String,
        /// What to do.
        remedy: &'static str,
    },
    /// The archive refers to something it does not hold.
    #[error("{archive} does not hold {entry}, which it refers to: it is incomplete, save it again")]
    MissingEntry {
        /// Which archive.
        archive: String,
        /// The entry.
        entry: String,
    },
    /// No variant for the platform.
    #[error("{archive} holds no image for {wanted}, only for {found}: get the image for {wanted}")]
    NoPlatform {
        /// Which archive.
        archive: String,
        /// The platform of this node.
        wanted: Platform,
        /// What there is, in words.
        found: String,
    },
    /// Over a limit of this crate.
    #[error("{what} is over the limit of {limit} {unit}")]
    TooLarge {
        /// What.
        what: String,
        /// The limit.
        limit: u64,
        /// Unit of the limit.
        unit: &'static str,
    },
    /// A name was given for an archive that holds several images.
    #[error("{archive} holds {count} images, so one name does not fit: import it without a name")]
    NameForMany {
        /// Which archive.
        archive: String,
        /// How many images it holds.
        count: usize,
    },
    /// No space or quota left.
    #[error("disk full while {what} ({path}): free some space, for example with `warren image remove`, and try again", path = path.display())]
    DiskFull {
        /// What was being done.
        what: &'static str,
        /// Where.
        path: PathBuf,
    },
    /// The store's own data does not fit together.
    #[error("image store damaged at {path}: {why}; {remedy}", path = path.display())]
    Damaged {
        /// Where.
        path: PathBuf,
        /// What is wrong.
        why: String,
        /// What to do.
        remedy: &'static str,
    },
    /// Another process has the store open.
    #[error("image store {path} is in use by another process: stop the other warren daemon or use another data directory", path = path.display())]
    Locked {
        /// The store.
        path: PathBuf,
    },
    /// Written by a newer program.
    #[error("image store {path} has format {found}, this program knows up to {supported}: use a newer warren", path = path.display())]
    NewerFormat {
        /// The store's index.
        path: PathBuf,
        /// Format found.
        found: u32,
        /// Highest format known.
        supported: u32,
    },
    /// A container already has a root file system of another image.
    #[error(
        "container {container} already has a root file system of {present}, not of {wanted}: release it first"
    )]
    OtherImage {
        /// The container.
        container: ContainerId,
        /// Image of the present root file system.
        present: Digest,
        /// Image asked for.
        wanted: Digest,
    },
    /// A container's root file system is mounted with the other mode.
    #[error(
        "the root file system of container {container} is already mounted {present}: release it first"
    )]
    OtherMode {
        /// The container.
        container: ContainerId,
        /// How it is mounted: "read-only" or "writable".
        present: &'static str,
    },
    /// The overlay could not be mounted.
    #[error(
        "cannot mount the root file system of container {container}: {source}; run as root, with the data directory on ext4, xfs or btrfs"
    )]
    Mount {
        /// The container.
        container: ContainerId,
        /// The refusal.
        source: io::Error,
    },
    /// The user of the container does not exist in the image.
    #[error(
        "user {user:?}: {part:?} is not in {file} of the image: use a number or a name that the image knows"
    )]
    UnknownUser {
        /// The whole user text.
        user: String,
        /// The part that was looked up.
        part: String,
        /// The file it is missing from.
        file: &'static str,
    },
    /// The operating system refused.
    #[error("{what} {path}: {source}", path = path.display())]
    Io {
        /// What was being done ("cannot write").
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// The refusal.
        source: io::Error,
    },
}

impl ImageError {
    /// Coarse class, for status codes.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound { .. } | Self::UnknownUser { .. } => ErrorKind::NotFound,
            Self::Ambiguous { .. }
            | Self::InvalidReference { .. }
            | Self::InvalidDigest { .. }
            | Self::Truncated { .. }
            | Self::BadArchive { .. }
            | Self::DigestMismatch { .. }
            | Self::UnsafePath { .. }
            | Self::Unsupported { .. }
            | Self::MissingEntry { .. }
            | Self::NameForMany { .. }
            | Self::NoPlatform { .. } => ErrorKind::InvalidInput,
            Self::InUse { .. }
            | Self::Locked { .. }
            | Self::OtherImage { .. }
            | Self::OtherMode { .. }
            | Self::NewerFormat { .. } => ErrorKind::FailedPrecondition,
            Self::TooLarge { .. } | Self::DiskFull { .. } => ErrorKind::ResourceExhausted,
            Self::Damaged { .. } => ErrorKind::DataLoss,
            Self::Mount { .. } | Self::Io { .. } => ErrorKind::Internal,
        }
    }

    /// An IO error of the store itself; a full disk gets its own variant.
    pub(crate) fn io(what: &'static str, path: &Path, source: io::Error) -> Self {
        match source.raw_os_error() {
            Some(libc::ENOSPC | libc::EDQUOT) => Self::DiskFull {
                what,
                path: path.to_owned(),
            },
            _ => Self::Io {
                what,
                path: path.to_owned(),
                source,
            },
        }
    }
}

/// Turns `io::Result` and `nix::Result` into ours, naming the deed and the place.
pub(crate) trait IoContext<T> {
    /// Adds what was being done and where.
    fn at(self, what: &'static str, path: &Path) -> Result<T>;
}

impl<T, E: Into<io::Error>> IoContext<T> for std::result::Result<T, E> {
    fn at(self, what: &'static str, path: &Path) -> Result<T> {
        self.map_err(|e| ImageError::io(what, path, e.into()))
    }
}
