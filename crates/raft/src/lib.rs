//! The consensus engine: commands go in, become durable on a quorum, and are applied to the
//! [`ClusterState`](warren_state::ClusterState), in the same order on every manager.
//!
//! [`RaftHandle`] is all that others need. Below it stand openraft and, of ours:
//!
//! - `log_store`, `io`: the log over `warren_storage`; one writer (a thread of its own) turns whatever waits
//!   into one append and one sync, so many concurrent proposals share a sync;
//! - `batches`: proposals that come while others are under way go to the engine together;
//! - `machine`: applies committed commands, publishes the state (O(1) for readers) and the change feed;
//! - `snapshots`: written in the background from the immutable state; the newest two are kept, and the log
//!   back to the older one, so that a damaged snapshot costs nothing;
//! - `transport`, `network`, `wire`: managers talk through the [`Transport`] trait in our own messages.
//!
//! - `home`, `healing`, `offline`: damaged files are set aside and fetched anew; recovery and restoring;
//! - `hashes`: the hash of the state travels with the leader's messages, a manager that differs stops;
//! - `early`: an election before its time when the leader's process is gone;
//! - `serve`, `members`, `reads`, `lease`: what other managers ask, who belongs to the cluster, linearizable reads.
//!
//! *Durable before acknowledged*: [`RaftHandle::propose`] returns after the command is on the disks of a quorum
//! and applied here. *Full disk*: space for the next log segment is taken in advance, so a proposal is refused
//! before anything of it is written, and the node goes on reading. *Idle*: nothing is written.

#![forbid(unsafe_code)]

mod aside;
mod batches;
mod config;
mod early;
mod error;
mod fair;
#[cfg(any(test, feature = "testing"))]
mod gate;
mod grants;
mod handle;
mod hashes;
mod healing;
mod home;
mod io;
mod lease;
mod log_store;
mod machine;
mod members;
mod metrics;
mod network;
mod offline;
mod propose;
mod pulse;
mod reads;
mod runtime;
mod serve;
mod snapshots;
mod start;
mod status;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod transport;
mod types;
mod view;
mod watch;
mod wire;

#[cfg(test)]
mod tests;

pub use config::{IoMode, Profile, RaftConfig};
pub use error::{ProposeError, RaftError, ReadError};
pub use handle::RaftHandle;
pub use home::Owner;
pub use metrics::{BUCKETS, Histogram, RaftMetrics};
pub use offline::{RecoverError, Recovered, recover, restore, stored_state};
pub use propose::{MAX_COMMAND_BYTES, MAX_PROPOSALS_WAITING};
pub use pulse::Contact;
#[cfg(any(test, feature = "testing"))]
pub use runtime::seed_random_numbers;
pub use serve::SnapshotSink;
pub use status::{Leadership, PeerStatus, RaftStatus};
pub use transport::{NoPeers, RpcKind, SnapshotBody, Transport, TransportError};
pub use types::Member;
pub use view::Subscription;

/// Bugs that tests switch on to prove that they would be found. Never set outside tests.
#[cfg(any(test, feature = "testing"))]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Bugs {
    /// Bugs of the storage.
    pub storage: warren_storage::Bugs,
    /// Appends are reported durable before they are written.
    pub acknowledge_before_sync: bool,
    /// A snapshot lacks what the last entry that it claims to hold has changed.
    pub snapshot_forgets_last_entry: bool,
    /// The command of the entry with this index is not applied (0: all are).
    pub skip_command_at: u64,
    /// A manager whose damaged files were set aside takes part as if nothing had happened.
    pub healing_votes: bool,
    /// A candidate who was removed is judged as one of the members whose log is the newest.
    pub removed_elected: bool,
    /// The leader answers linearizable reads without knowing whether it still leads.
    pub stale_read: bool,
    /// A write that finds the disk full is dropped and reported as done.
    pub full_disk_drops_writes: bool,
    /// A vote is not written to the disk.
    pub vote_not_persisted: bool,
    /// What was cut off the log stays on the disk.
    pub cut_not_persisted: bool,
    /// After a start from a snapshot its last entry is applied once more.
    pub snapshot_applied_again: bool,
    /// A snapshot of the leader is stored, but the state in memory stays the old one.
    pub install_keeps_old_state: bool,
    /// Readers see the state without the last entry of which they were told.
    pub published_late: bool,
}
