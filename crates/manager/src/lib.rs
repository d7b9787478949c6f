//! The control plane of one manager: the replicated state behind the API, the planners that act on
//! it while this manager leads, and the sessions of the nodes.

#![forbid(unsafe_code)]

mod control;
mod dispatcher;
pub mod edge;
pub mod init;
mod leader;
mod manager;
mod planner;
mod secrets;

pub use init::{InitError, LocalIdentity, NewNode, NodeFacts};
pub use manager::{Manager, ManagerConfig, ManagerError};
