//! A service as the cluster keeps it: its spec, numbered revisions and rollout.

use crate::id::ServiceId;
use crate::quantity::{Revision, Timestamp};
use crate::spec::ServiceSpec;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// One numbered revision of a service; its spec is stored once and shared by its containers.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceRevision {
    /// From 1, rising.
    pub number: u32,
    /// The spec.
    pub spec: Arc<ServiceSpec>,
    /// When it was made.
    pub created_at: Timestamp,
    /// Who made it.
    pub actor: String,
}

/// A service of the replicated state.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Service {
    /// Id.
    pub id: ServiceId,
    /// The spec in force: that of `revision`, with the present replica count, labels and update settings.
    pub spec: Arc<ServiceSpec>,
    /// Number of the revision in force: the newest, or the older one that a rollback went to.
    pub revision: u32,
    /// Kept revisions, oldest first. A change of replica count, labels or update settings alone
    /// makes no revision.
    pub revisions: Vec<ServiceRevision>,
    /// The rollout under way or the last one.
    pub rollout: Option<Rollout>,
    /// Deletion was asked for; the record goes when its last container has ended.
    pub deleting: bool,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
    /// State revision of the last change; the version precondition of updates.
    pub version: Revision,
}

impl Service {
    /// Name of the service.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.spec.name
    }
    /// The kept revision with this number.
    #[must_use]
    pub fn revision_spec(&self, number: u32) -> Option<&Arc<ServiceSpec>> {
        self.revisions
            .iter()
            .find(|r| r.number == number)
            .map(|r| &r.spec)
    }
}

/// State of a rollout, kept in the service so that a new leader goes on in the middle.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rollout {
    /// Revision rolled out from.
    pub from: u32,
    /// Revision rolled out to.
    pub to: u32,
    /// Where it is.
    pub state: RolloutState,
    /// Why it is there, in words.
    pub message: String,
    /// When it began.
    pub started_at: Timestamp,
    /// When it ended, if it did.
    pub finished_at: Option<Timestamp>,
    /// When the current batch began (for delay and monitoring).
    pub batch_at: Timestamp,
    /// New containers that failed so far.
    pub failures: u32,
}

/// Where a rollout is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RolloutState {
    /// Going on.
    Updating,
    /// Stopped after failures, waiting for the operator.
    Paused,
    /// Ended well.
    Completed,
    /// Going back to the old revision.
    RollingBack,
    /// Gone back.
    RolledBack,
}

impl RolloutState {
    /// Name in lower case.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Updating => "updating",
            Self::Paused => "paused",
            Self::Completed => "completed",
            Self::RollingBack => "rolling-back",
            Self::RolledBack => "rolled-back",
        }
    }
}
