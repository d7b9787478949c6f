//! The control plane of one manager: the replicated state behind the API, the planners that act on
//! it while this manager leads, and the sessions of the nodes.

#![forbid(unsafe_code)]

mod control;
mod dispatcher;
pub mod edge;
mod identity;
pub mod init;
mod leader;
mod manager;
mod planner;
mod secrets;

pub use init::{InitError, Joined, LocalIdentity, NewNode, NodeFacts, Renewed, Who};
pub use manager::{Manager, ManagerConfig, ManagerError};
