//! The typed client that the CLI, workers, tests and third parties use.
//!
//! One [`Client`] knows any number of managers (or the local socket) and talks to one of them over HTTP/2, to another one
//! when that does not answer or names the leader. Calls have a time limit; a call is repeated when it has certainly not
//! been carried out, or when repeating it does no harm.

#![forbid(unsafe_code)]

mod attempts;
mod calls;
mod connect;
pub mod error;
mod http2;
mod identity;
pub mod join;
mod link;
pub mod peer;
mod people;
mod pool;
pub mod session;
pub mod streams;
pub mod target;

pub use connect::{AnswerInfo, Client, Freshness, Staleness};
pub use error::{ClientError, ErrorKind};
pub use http2::Http2;
pub use identity::IdentitySource;
pub use peer::PeerClient;
pub use people::{NewUser, UserCertificate};
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
    #[allow(
        missing_docs,
        unused_imports,
        clippy::all,
        reason = "generated from warren/peer/v1/peer.proto"
    )]
    pub(crate) mod peer {
        include!(concat!(env!("OUT_DIR"), "/warren.peer.v1.rs"));
    }
}
