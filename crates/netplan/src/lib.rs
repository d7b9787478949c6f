//! The desired network of a node as a value, and the decisions that lead to it.
//!
//! Pure: addresses, subnets, published ports and their backends are worked out from what is handed
//! in; nothing here touches a kernel, a clock or a random source. `network` makes a kernel match
//! the value.

#![forbid(unsafe_code)]

pub mod desired;
pub mod ipam;
pub mod names;
pub mod plan;
pub mod subnet;
pub mod subnets;

pub use desired::{Backend, BridgeNetwork, Endpoint, HostPort, InvalidNetwork, NodeNetwork};
pub use ipam::{Ipam, IpamError};
pub use plan::{NodePlan, PlanIssue, PlannedContainer, plan_node, serves};
pub use subnet::{Subnet, SubnetError};
pub use subnets::{PoolError, next_node_subnet};
