//! The state with which a restored or recovered cluster goes on.

use crate::state::ClusterState;
use std::sync::Arc;
use warren_types::{JoinToken, Liveness, Node, NodeId, NodeRole, Revision, Timestamp};

/// Revisions that a fork skips at least. Whatever the lost managers handed out after the state at
/// hand was written down lies in this gap: no cluster makes four thousand million changes between two
/// backups.
pub const FORK_REVISIONS: u64 = 1 << 32;

/// Revisions that a fork counts for each second since 1970. With it a fork made later is the newer
/// one, even when both were made of the same backup: no cluster makes two million changes a second.
/// Up to the year 2106 revisions stay below 2^53, the largest number that JSON readers keep exactly.
pub const FORK_REVISIONS_PER_SECOND: u64 = 1 << 21;

/// Why a node of a forked cluster is not ready.
const NOT_HEARD: &str = "not heard of since the cluster was restored or recovered";

impl ClusterState {
    /// This state as the first one of a cluster that was restored from a backup, or goes on alone
    /// after it lost its quorum.
    ///
    /// - The revision jumps, so that everything that was handed out before (assignments, expected
    ///   versions, positions in the change feed) is older than everything after. Feeds begin anew at
    ///   the new revision; remembered idempotency keys stay.
    /// - Managers other than `keep` become workers: what they knew of the quorum is void, and they
    ///   join again. (A forgotten worker costs nothing; a forgotten voter costs the quorum.)
    /// - Nodes other than `keep` count as not heard of. They are not marked as down, for the
    ///   containers of a node that is down are given up at once, and theirs may well be running: the
    ///   dispatcher gives each its time to come back.
    /// - Join tokens are dropped: whoever holds the backup holds their uses.
    ///
    /// `keep` need not be a node of this state (a restore on a new machine adds itself afterwards).
    #[must_use]
    pub fn forked(&self, now: Timestamp, keep: Option<NodeId>) -> Self {
        let mut next = self.clone();
        next.revision = fork_revision(self.revision, now);
        next.removed.prune(now);
        for node in self.nodes().filter(|n| Some(n.id) != keep) {
            let mut changed = Node::clone(node);
            if changed.role.is_manager() {
                changed.role = NodeRole::Worker;
            }
            changed.liveness = Liveness::Unknown;
            NOT_HEARD.clone_into(&mut changed.reason);
            changed.updated_at = now;
            changed.version = next.revision;
            next.replace(node.id.as_u128(), Some(Arc::new(changed)));
        }
        for token in self.tokens() {
            next.replace::<JoinToken>(token.id.as_u128(), None);
        }
        next
    }
}

fn fork_revision(before: Revision, now: Timestamp) -> Revision {
    let gap = before.0.saturating_add(FORK_REVISIONS);
    let by_time = (now.0 / 1000).saturating_mul(FORK_REVISIONS_PER_SECOND);
    Revision(gap.max(by_time))
}
