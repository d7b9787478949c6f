//! The wire and the disk in protobuf: messages generated from `proto/`, fallible conversions between
//! them and [`warren_types`], and the authorisation table of every RPC.
//!
//! Pure: the service code (tonic) is generated in the crates `api` and `client` from the same files.

#![forbid(unsafe_code)]

pub mod authz;
pub mod convert;
pub mod headers;
mod redact;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

pub use convert::ConvertError;

/// Messages of the public API (`warren.v1`).
#[allow(
    missing_docs,
    clippy::all,
    reason = "generated from proto/warren/v1/api.proto, where the comments are"
)]
pub mod v1 {
    include!(concat!(env!("OUT_DIR"), "/warren.v1.rs"));
}

/// Messages of log, snapshot and disk (`warren.store.v1`).
pub mod store {
    /// Version 1 of the messages.
    #[allow(
        missing_docs,
        clippy::all,
        reason = "generated from proto/warren/store/v1/store.proto, where the comments are"
    )]
    pub mod v1 {
        include!(concat!(env!("OUT_DIR"), "/warren.store.v1.rs"));
    }
    pub use v1::*;
}

/// Messages between nodes and managers (`warren.session.v1`).
pub mod session {
    /// Version 1 of the messages.
    #[allow(
        missing_docs,
        clippy::all,
        reason = "generated from proto/warren/session/v1/session.proto, where the comments are"
    )]
    pub mod v1 {
        include!(concat!(env!("OUT_DIR"), "/warren.session.v1.rs"));
    }
    pub use v1::*;
}

/// Messages between managers (`warren.peer.v1`).
pub mod peer {
    /// Version 1 of the messages.
    #[allow(
        missing_docs,
        clippy::all,
        reason = "generated from proto/warren/peer/v1/peer.proto, where the comments are"
    )]
    pub mod v1 {
        include!(concat!(env!("OUT_DIR"), "/warren.peer.v1.rs"));
    }
    pub use v1::*;
}

pub use prost;

/// All descriptors of the four files and of what they import, encoded as a `FileDescriptorSet`; for
/// server reflection and for tests that walk every RPC.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// Full name of the public API's service.
pub const API_SERVICE: &str = "warren.v1.WarrenAPI";
/// Full name of the service between managers.
pub const PEER_SERVICE: &str = "warren.peer.v1.Peer";
/// Full name of the node sessions' service.
pub const SESSION_SERVICE: &str = "warren.session.v1.NodeSession";
