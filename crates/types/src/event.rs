//! Events: what happened in the cluster, in the words of `behaviour.md` §12 and a few more.

use crate::id::EventId;
use crate::quantity::{Revision, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One event, made from one change of the replicated state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// Id: revision and position in it, so that every manager makes the same.
    pub id: EventId,
    /// What happened.
    pub kind: EventKind,
    /// When the command was made.
    pub time: Timestamp,
    /// State revision that it belongs to.
    pub revision: Revision,
    /// In words, with the reason.
    pub message: String,
    /// Ids and numbers by key (`service_id`, `node_id`, `exit_code`, …).
    pub metadata: BTreeMap<String, String>,
}

macro_rules! event_kinds {
    ($($(#[$doc:meta])* $variant:ident = $name:literal),+ $(,)?) => {
        /// What happened. The first thirteen names are the yardstick's.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum EventKind {
            $($(#[$doc])* #[serde(rename = $name)] $variant,)+
        }
        impl EventKind {
            /// Every kind.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];
            /// Name on the wire, such as `service.created`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),+ }
            }
            /// The kind with this name.
            #[must_use]
            pub fn from_name(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|k| k.name() == name)
            }
        }
    };
}

event_kinds! {
    /// A service was made.
    ServiceCreated = "service.created",
    /// A service was changed.
    ServiceUpdated = "service.updated",
    /// A service is gone.
    ServiceDeleted = "service.deleted",
    /// A container record was made.
    TaskCreated = "task.created",
    /// A container failed.
    TaskFailed = "task.failed",
    /// A container ended well.
    TaskCompleted = "task.completed",
    /// A node joined.
    NodeJoined = "node.joined",
    /// A node was removed.
    NodeLeft = "node.left",
    /// A node fell silent.
    NodeDown = "node.down",
    /// A secret was made.
    SecretCreated = "secret.created",
    /// A secret is gone.
    SecretDeleted = "secret.deleted",
    /// A volume was made.
    VolumeCreated = "volume.created",
    /// A volume is gone.
    VolumeDeleted = "volume.deleted",
    /// A container was placed, or its reason for waiting changed.
    TaskPending = "task.pending",
    /// A container was placed on a node.
    TaskAssigned = "task.assigned",
    /// A container runs.
    TaskRunning = "task.running",
    /// A container was started again on its node.
    TaskRestarted = "task.restarted",
    /// A container ended because the cluster asked for it.
    TaskShutdown = "task.shutdown",
    /// A node answers again.
    NodeReady = "node.ready",
    /// A node was changed.
    NodeUpdated = "node.updated",
    /// A rollout changed its state.
    RolloutUpdated = "rollout.updated",
    /// Another object was made, changed or removed; the metadata says which.
    ObjectChanged = "object.changed",
}
