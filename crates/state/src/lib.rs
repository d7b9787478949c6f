//! The replicated state machine: [`Command`] → [`ClusterState::apply`] → [`ChangeSet`].
//!
//! Pure: ids and times come with the command, `apply` invents nothing, so every manager that applies
//! the same commands holds the same state, byte for byte. A clone of the state takes O(1) and is a
//! consistent snapshot that blocks nobody.

#![forbid(unsafe_code)]

mod apply;
mod change;
mod codec;
mod command;
mod events;
mod feed;
mod fork;
mod hash;
mod index;
mod invariants;
mod rejection;
mod removed;
mod state;
mod table;
mod window;

pub use apply::KEYED_OPS_MAX;
pub use change::{Change, ChangeSet, Delta, ObjectKind};
pub use codec::{DecodeError, SNAPSHOT_FORMAT};
pub use command::{Actor, COMMAND_VERSION, Command, NodePatch, Op, OpResult, StatusRefusal};
pub use events::{event_id, events};
pub use feed::{FEED_CHANGES_MAX, FEED_SETS_MAX, Feed, Lagged};
pub use fork::{FORK_REVISIONS, FORK_REVISIONS_PER_SECOND};
pub use hash::HASH_SCHEME;
pub use invariants::{Rule, Violation};
pub use rejection::{MissingReference, Rejection};
pub use state::{Applied, ClusterState, NodeUsage};
