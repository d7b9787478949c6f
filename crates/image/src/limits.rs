//! Every limit of this crate, with its unit.

use warren_types::Bytes;

/// Largest archive that an import reads, in bytes as they come in (compressed or not).
pub const MAX_ARCHIVE_BYTES: u64 = 64 * Bytes::GIB;
/// Largest total of an archive after whole-file decompression, in bytes.
pub const MAX_EXPANDED_ARCHIVE_BYTES: u64 = 128 * Bytes::GIB;
/// Largest layer after decompression, in bytes.
pub const MAX_LAYER_BYTES: u64 = 64 * Bytes::GIB;
/// Most entries in an import archive (blobs and metadata; not the files inside layers).
pub const MAX_ARCHIVE_ENTRIES: usize = 20_000;
/// Most entries in one layer.
pub const MAX_LAYER_ENTRIES: u64 = 2_000_000;
/// Most layers of one image. Overlayfs stacks at most 500; Docker stops at 127.
pub const MAX_LAYERS: usize = 256;
/// Most images in one archive.
pub const MAX_IMAGES_PER_ARCHIVE: usize = 256;
/// Deepest nesting of OCI indexes.
pub const MAX_INDEX_DEPTH: usize = 4;
/// Largest manifest, index or config document, in bytes.
pub const MAX_DOCUMENT_BYTES: u64 = 4 * Bytes::MIB;
/// Longest path of an archive entry and longest link target, in bytes (the kernel's PATH_MAX less its NUL).
pub const MAX_PATH_BYTES: usize = 4095;
/// Longest single name in a path, in bytes (the kernel's NAME_MAX).
pub const MAX_NAME_BYTES: usize = 255;
/// Largest extension header (pax records, GNU long name) of one tar entry, in bytes.
pub const MAX_TAR_EXTENSION_BYTES: u64 = Bytes::MIB;
/// Most extended attributes of one file.
pub const MAX_XATTRS: usize = 128;
/// Largest value of one extended attribute, in bytes (the kernel's XATTR_SIZE_MAX).
pub const MAX_XATTR_BYTES: usize = 64 * 1024;
/// Most bytes of directory paths remembered while unpacking a layer, to set times at the end.
pub const MAX_DIRECTORY_PATH_BYTES: usize = 256 * 1024 * 1024;
/// Symbolic links followed in one path before it counts as a loop (the kernel's MAXSYMLINKS).
pub const MAX_SYMLINKS: usize = 40;
/// Up to this many files of a layer are synced one by one; above, the file system is synced once.
pub const MAX_FILES_SYNCED_SINGLY: u64 = 256;
/// Largest `/etc/passwd` or `/etc/group` that is read, in bytes.
pub const MAX_USER_FILE_BYTES: u64 = 4 * Bytes::MIB;
/// Most names kept for one image.
pub const MAX_NAMES_PER_IMAGE: usize = 128;
/// Longest image reference, in bytes: name (255), tag (128), digest (71), separators.
pub const MAX_REFERENCE_BYTES: usize = 456;
/// Longest repository name with its host, in bytes.
pub const MAX_REPOSITORY_BYTES: usize = 255;
/// Shortest digest prefix that finds an image, in hex digits.
pub const MIN_DIGEST_PREFIX: usize = 12;
/// Size of copy buffers, in bytes.
pub const COPY_BUFFER_BYTES: usize = 256 * 1024;
