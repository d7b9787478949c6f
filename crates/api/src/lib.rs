//! The API server: gRPC over TLS and over the local socket, from one set of handlers.
//!
//! Order of each call: authentication (certificate or socket peer) → authorisation (one table, deny by
//! default) → limits → conversion and validation → the manager's [`ControlPlane`] → status code → audit
//! record. There is no other way in.

#![forbid(unsafe_code)]

pub mod caller;
pub mod control;
pub mod error;

pub use caller::{Caller, Transport};
pub use control::{ApiResult, ApiStream, ControlPlane};
pub use error::ApiError;
