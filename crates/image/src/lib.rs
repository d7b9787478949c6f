//! Images: import, content store, unpacking, root file systems.
//!
//! [`ImageStore`] keeps everything in one directory:
//!
//! ```text
//! index.json              which image has which name; the only truth, written atomically
//! blobs/sha256/<hex>      manifests, configs, layer archives, named by their digest
//! layers/<chain hex>/fs   one layer unpacked, shared by all images and containers that use it
//! containers/<id>/        upper, work and mount point of one container
//! tmp/                    work in progress and rubbish; emptied at every open
//! ```
//!
//! Everything that lands in `blobs` or `layers` is complete (made in `tmp`, synced, renamed), and
//! nothing there counts until `index.json` names it. So kill -9 at any instant leaves either the
//! state before or the state after, plus rubbish that the next open removes.
//!
//! All calls block; callers in async code use a blocking thread. [`ImageStore`] is `Send + Sync`.

pub mod builder;
pub mod digest;
pub mod error;
pub mod limits;
pub mod manifest;
pub mod platform;
pub mod reference;
pub mod user;

mod beneath;
mod commit;
mod compress;
mod fsutil;
mod gc;
mod import;
mod index;
mod layout;
mod merged;
mod overlay;
mod pack;
mod rootfs;
mod stage;
mod store;
mod tarread;
mod tarwrite;
mod time;
mod unpack;
mod xattr;

pub use builder::{Compression, FileSource, ImageBuilder};
pub use digest::Digest;
pub use error::{ErrorKind, ImageError, Result};
pub use import::{ImportOptions, ImportedImage};
pub use manifest::{HistoryEntry, ImageConfig};
pub use platform::Platform;
pub use reference::ImageRef;
pub use rootfs::{PreparedRootfs, Rootfs, RootfsMode};
pub use store::{
    ImageInfo, ImageStore, ImageSummary, LayerInfo, RemovedImage, ResolvedImage, StoreProblem,
};
pub use user::{ResolvedUser, resolve_user};
