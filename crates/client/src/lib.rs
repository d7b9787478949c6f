//! The typed client that the CLI, workers, tests and third parties use.
//!
//! One [`Client`] holds one HTTP/2 connection to any manager (or the local socket) and makes it again
//! when it breaks, trying the other addresses it knows. Calls have a time limit; only calls that are safe
//! to repeat are repeated.

#![forbid(unsafe_code)]

mod calls;
mod connect;
pub mod error;
pub mod session;
pub mod streams;
pub mod target;

pub use connect::Client;
pub use error::{ClientError, ErrorKind};
pub use session::{GrpcTransport, InProcessTransport, SessionAcceptor, SessionTransport};
pub use streams::{ClientStream, ExecInput, ExecOutput};
pub use target::{DEFAULT_SOCKET, Target, TargetOptions, TlsIdentity};
pub use warren_proto::v1;

/// The client half of the generated services.
mod generated {
    #[allow(
        missing_docs,
        unused_imports,
        clippy::all,
        reason = "generated from warren/v1/api.proto"
    )]
    pub(crate) mod api {
        include!(concat!(env!("OUT_DIR"), "/warren.v1.rs"));
    }
    #[allow(
        missing_docs,
        unused_imports,
        clippy::all,
        reason = "generated from warren/session/v1/session.proto"
    )]
    pub(crate) mod session {
        include!(concat!(env!("OUT_DIR"), "/warren.session.v1.rs"));
    }
}
