//! Makes the kernel of this host match a desired network (a [`warren_netplan::NodeNetwork`]).
//!
//! Everything goes through netlink and `/proc/sys`; no program of the host is called. What is made:
//!
//! - one bridge with the gateway's address;
//! - per container a named network namespace (a bind-mounted file, so it outlives this process) and a
//!   pair of interfaces, the outer one in the bridge;
//! - one nftables table that translates addresses and keeps what is not published closed.
//!
//! Names follow from the container's id, so nothing has to be remembered: the kernel is compared
//! with the desired value again and again, and what differs is repaired. What is not ours is never
//! changed; what hinders us (a port in use, another firewall that drops) is reported in words.
//!
//! The "host" is the network namespace of the thread that calls [`HostNetwork::open`], which need
//! not be the initial one.

#![forbid(unsafe_code)]

mod bridge;
mod config;
mod conntrack;
mod endpoint;
mod error;
mod foreign;
mod host;
mod ports;
mod report;
mod rules;

pub use config::NetworkConfig;
pub use error::NetworkError;
pub use host::{AttachedContainer, HostNetwork};
pub use ports::PortHolder;
pub use report::{Difference, Report};
