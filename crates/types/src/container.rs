//! One container record: what the cluster wants of it and what its node reports.

use crate::id::{ContainerId, NodeId, ServiceId};
use crate::quantity::{Revision, Timestamp};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::Ipv4Addr;

/// Place of a container within its service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Slot {
    /// N-th replica, from 1.
    Replica(u32),
    /// The one on this node, of a global service.
    Node(NodeId),
}

/// What the cluster wants of a container.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum DesiredState {
    /// It shall run.
    #[default]
    Running,
    /// It shall end.
    Shutdown,
}

/// Where a container is in its life. Ordered: later states are greater.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum ActualState {
    /// Made, not placed yet.
    #[default]
    Pending = 1,
    /// Placed on a node.
    Assigned = 2,
    /// The node gets image, volumes, network ready.
    Preparing = 3,
    /// The main process is being started, or waits for its restart.
    Starting = 4,
    /// The main process runs.
    Running = 5,
    /// It gets no new traffic.
    Draining = 6,
    /// The stop signal was sent.
    Stopping = 7,
    /// Ended by itself with status 0.
    Complete = 8,
    /// Ended because the cluster asked for it.
    Shutdown = 9,
    /// Ended by a failure that the node does not cure.
    Failed = 10,
    /// The node cannot run it (image missing, bad user, …).
    Rejected = 11,
    /// Its node is gone.
    Lost = 12,
}

impl ActualState {
    /// All states in order.
    pub const ALL: [Self; 12] = [
        Self::Pending,
        Self::Assigned,
        Self::Preparing,
        Self::Starting,
        Self::Running,
        Self::Draining,
        Self::Stopping,
        Self::Complete,
        Self::Shutdown,
        Self::Failed,
        Self::Rejected,
        Self::Lost,
    ];

    /// Nothing comes after it.
    #[must_use]
    pub const fn is_final(self) -> bool {
        (self as u8) >= (Self::Complete as u8)
    }

    /// Name in lower case.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Assigned => "assigned",
            Self::Preparing => "preparing",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Draining => "draining",
            Self::Stopping => "stopping",
            Self::Complete => "complete",
            Self::Shutdown => "shutdown",
            Self::Failed => "failed",
            Self::Rejected => "rejected",
            Self::Lost => "lost",
        }
    }

    /// The five words of the yardstick's wire (`api.md`): pending, running, failed, complete, shutdown.
    #[must_use]
    pub const fn legacy_name(self) -> &'static str {
        match self {
            Self::Pending | Self::Assigned | Self::Preparing | Self::Starting => "pending",
            Self::Running | Self::Draining | Self::Stopping => "running",
            Self::Complete => "complete",
            Self::Shutdown => "shutdown",
            Self::Failed | Self::Rejected | Self::Lost => "failed",
        }
    }

    /// The state with this number, if any.
    #[must_use]
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|s| *s as u32 == number)
    }
}

impl fmt::Display for ActualState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for DesiredState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Running => "running",
            Self::Shutdown => "shutdown",
        })
    }
}

/// How the main process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExitInfo {
    /// Exit status; 128 + signal when a signal ended it.
    pub code: i32,
    /// The signal that ended it, if one did.
    pub signal: Option<i32>,
    /// The kernel killed it for lack of memory.
    pub oom: bool,
}

/// Result of the health checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HealthVerdict {
    /// No check, or none has ended yet.
    #[default]
    Unknown,
    /// Startup or readiness not passed yet.
    Starting,
    /// Passing.
    Healthy,
    /// Failing.
    Unhealthy,
}

/// What the node reports about one container.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerStatus {
    /// How often the node has started it, from 1; 0 before the first start.
    pub attempt: u32,
    /// Where it is in its life.
    pub state: ActualState,
    /// Why it is there, in words; never empty while it does not run.
    pub reason: String,
    /// Its address on the node's subnet.
    pub address: Option<Ipv4Addr>,
    /// Process id of the main process on the node.
    pub pid: Option<u32>,
    /// When the running attempt started.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// How the last attempt ended.
    pub exit: Option<ExitInfo>,
    /// Health.
    pub health: HealthVerdict,
}

/// One container record of the replicated state. The spec is that of (`service`, `service_revision`).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Container {
    /// Id.
    pub id: ContainerId,
    /// Its service.
    pub service: ServiceId,
    /// Numbered revision of the service it was made from, from 1.
    pub service_revision: u32,
    /// Its place in the service.
    pub slot: Slot,
    /// Where it was placed.
    pub node: Option<NodeId>,
    /// What the cluster wants.
    pub desired: DesiredState,
    /// What is.
    pub status: ContainerStatus,
    /// When the record was made.
    pub created_at: Timestamp,
    /// When the desired or actual state last changed.
    pub updated_at: Timestamp,
    /// State revision of the last change of this record; the version precondition of updates.
    pub version: Revision,
}
