//! The control plane of one manager: the replicated state behind the API, the planners that act on
//! it while this manager leads, and the sessions of the nodes.

#![forbid(unsafe_code)]

mod authority;
mod control;
mod dispatcher;
pub mod edge;
pub mod expired;
mod identity;
pub mod init;
mod keys;
mod leader;
mod manager;
mod planner;
mod planners;
mod quorum;
pub mod recovery;
mod secrets;
mod sessions;
mod telemetry;
#[cfg(test)]
mod testing;

pub use init::{InitError, Joined, LocalIdentity, NewNode, NodeFacts, Renewed, Who};
pub use manager::{Manager, ManagerConfig, ManagerError, ManagerEvent, RAFT_DIR};
