//! The API server: gRPC over TLS and over the local socket, from one set of handlers.
//!
//! Order of each call: authentication (certificate or socket peer, or a manager that forwards) → what the certificate is
//! worth now → authorisation (one table, deny by default) → here or at the leader → limits → conversion and validation →
//! the manager's [`ControlPlane`] → status code → audit record. There is no other way in.

#![forbid(unsafe_code)]

mod accept;
pub mod caller;
mod connection;
pub mod control;
pub mod error;
mod forward;
mod forwarded;
mod guard;
mod handlers;
pub mod metrics_http;
mod peers;
pub mod quorum;
pub mod server;
mod throttle;
mod to_the_end;

pub use caller::{Caller, Transport};
pub use control::{
    ApiResult, ApiStream, CertificateRequest, ChangeOptions, ContainerChange, ContainerFilter,
    ControlPlane, EventQuery, ExecInput, ExecOutput, IngressChange, IssuedCertificate, IssuedToken,
    LogQuery, NewCertificate, NewVolume, NodeChange, SecretView, VolumeView,
};
pub use error::ApiError;
pub use metrics_http::{Telemetry, serve_metrics};
pub use quorum::{Freshness, PeerPlane, Planes, Route, Router, Stamp, Standing};
pub use server::{ApiConfig, BindError, Limits, ServeError, Server, TlsSettings};

/// The server half of the generated services.
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
