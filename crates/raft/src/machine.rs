//! Applies committed entries to the state.

use crate::hashes::{Diverged, Hashes};
use crate::metrics::Meter;
use crate::snapshots::{Candidate, Snapshots, Stored};
use crate::types::{CommandBytes, LogId, Outcome, Payload, SnapshotMeta, StoredMembership, Types};
use crate::view::View;
use futures::{Stream, StreamExt};
use openraft::storage::{EntryResponder, RaftStateMachine, Snapshot};
use openraft::{OptionalSend, RaftSnapshotBuilder};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::time::Instant;
use warren_state::{ChangeSet, ClusterState, Command, Rejection};

type StoredSnapshot =
    Snapshot<crate::types::CommittedLeaderId, warren_types::NodeId, crate::types::Member, Stored>;

/// The state machine of openraft.
pub(crate) struct Machine {
    view: Arc<View>,
    snapshots: Arc<Snapshots>,
    state: ClusterState,
    applied: Option<LogId>,
    membership: StoredMembership,
    hashes: Arc<Hashes>,
    meter: Arc<Meter>,
    log_bytes: Arc<AtomicU64>,
    #[cfg(any(test, feature = "testing"))]
    lab: crate::testing::Lab,
}

impl Machine {
    pub(crate) fn new(
        view: Arc<View>,
        snapshots: Arc<Snapshots>,
        start: Option<Candidate>,
        hashes: Arc<Hashes>,
        meter: Arc<Meter>,
        log_bytes: Arc<AtomicU64>,
        #[cfg(any(test, feature = "testing"))] lab: crate::testing::Lab,
    ) -> Self {
        let (state, meta) = start.map_or_else(Default::default, |start| (start.state, start.meta));
        #[cfg(any(test, feature = "testing"))]
        let meta = lab.start_meta(meta);
        Self {
            view,
            snapshots,
            state,
            applied: meta.last_log_id,
            membership: meta.last_membership,
            hashes,
            meter,
            log_bytes,
            #[cfg(any(test, feature = "testing"))]
            lab,
        }
    }

    fn meta(&self) -> SnapshotMeta {
        SnapshotMeta {
            last_log_id: self.applied,
            last_membership: self.membership.clone(),
        }
    }

    fn stop(&self, index: u64, reason: impl std::fmt::Display) -> io::Error {
        let text = format!(
            "log entry {index} cannot be applied ({reason}); run the newest release that any manager runs"
        );
        self.view.fail(&text);
        io::Error::new(io::ErrorKind::InvalidData, text)
    }

    /// This node holds something else than its leader: it must not go on.
    fn diverged(&self, diverged: Diverged) -> io::Error {
        let text = diverged.to_string();
        tracing::error!("{text}");
        self.view.fail(&text);
        io::Error::new(io::ErrorKind::InvalidData, text)
    }

    /// Applies one command. An error means that this node must not go on: others would come to another state.
    fn command(
        &mut self,
        index: u64,
        command: &CommandBytes,
    ) -> io::Result<(Outcome, Option<Arc<ChangeSet>>)> {
        #[cfg(any(test, feature = "testing"))]
        if index > 0 && self.lab.bugs.skip_command_at == index {
            return Ok((Outcome::Nothing, None));
        }
        let command = Command::decode(&command.bytes).map_err(|error| self.stop(index, error))?;
        match self.state.apply(&command) {
            Ok(applied) => {
                let set = (!applied.replayed).then(|| Arc::clone(&applied.changes));
                Ok((Outcome::Applied(applied), set))
            }
            Err(error @ Rejection::UnsupportedVersion { .. }) => Err(self.stop(index, error)),
            Err(rejection) => Ok((Outcome::Rejected(rejection), None)),
        }
    }
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotData = Stored;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<Types>, io::Error>> + Unpin + OptionalSend,
    {
        let begin = Instant::now();
        let mut answers = Vec::new();
        let mut sets = Vec::new();
        let (mut count, mut bytes) = (0_u32, 0);
        #[cfg(any(test, feature = "testing"))]
        let mut before_last = self.state.clone();
        while let Some(entry) = entries.next().await {
            let (entry, responder) = entry?;
            #[cfg(any(test, feature = "testing"))]
            before_last.clone_from(&self.state);
            let outcome = match &entry.payload {
                Payload::Blank => Outcome::Nothing,
                Payload::Membership(membership) => {
                    self.membership = StoredMembership::new(Some(entry.log_id), membership.clone());
                    Outcome::Nothing
                }
                Payload::Normal(command) => {
                    bytes += command.bytes.len() as u64;
                    if let Some(proposed) = command.proposed.filter(|_| responder.is_some()) {
                        self.meter
                            .commit
                            .observe(begin.saturating_duration_since(proposed));
                    }
                    let (outcome, set) = self.command(entry.log_id.index, command)?;
                    sets.extend(set);
                    outcome
                }
            };
            self.applied = Some(entry.log_id);
            #[cfg(any(test, feature = "testing"))]
            self.lab.applied(&entry, &self.state);
            self.hashes
                .applied(entry.log_id.index, self.state.hash())
                .map_err(|diverged| self.diverged(diverged))?;
            count += 1;
            answers.extend(responder.map(|responder| (responder, outcome)));
        }
        #[cfg(any(test, feature = "testing"))]
        let shown = if self.lab.bugs.published_late {
            &before_last
        } else {
            &self.state
        };
        #[cfg(not(any(test, feature = "testing")))]
        let shown = &self.state;
        self.view.publish(shown, sets, self.applied);
        if let Some(each) = begin.elapsed().checked_div(count) {
            self.meter.apply.observe_many(each, count.into());
        }
        #[cfg(any(test, feature = "testing"))]
        let state = if self.lab.bugs.snapshot_forgets_last_entry {
            before_last
        } else {
            self.state.clone()
        };
        #[cfg(not(any(test, feature = "testing")))]
        let state = self.state.clone();
        self.snapshots.note(
            Candidate {
                state,
                meta: self.meta(),
            },
            count.into(),
            bytes,
            self.log_bytes.load(Ordering::Acquire),
        );
        // Answered only now, so that whoever hears the answer finds its change in the published state.
        for (responder, outcome) in answers {
            responder.send(outcome);
        }
        Ok(())
    }

    async fn try_create_snapshot_builder(&mut self, force: bool) -> Option<Builder> {
        let newest = self.snapshots.newest();
        if newest.is_none() && !force {
            return None;
        }
        Some(Builder {
            snapshots: Arc::clone(&self.snapshots),
            newest,
            now: Candidate {
                state: self.state.clone(),
                meta: self.meta(),
            },
        })
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder {
            snapshots: Arc::clone(&self.snapshots),
            newest: self.snapshots.newest(),
            now: Candidate {
                state: self.state.clone(),
                meta: self.meta(),
            },
        }
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: Stored,
    ) -> Result<(), io::Error> {
        let state = self.snapshots.decode_apart(&snapshot).await;
        let state = state.map_err(|error| {
            self.view.fail(&error.to_string());
            io::Error::other(error)
        })?;
        self.snapshots.keep(snapshot);
        #[cfg(any(test, feature = "testing"))]
        let state = if self.lab.bugs.install_keeps_old_state {
            self.state.clone()
        } else {
            state
        };
        self.state = state;
        self.applied = meta.last_log_id;
        #[cfg(any(test, feature = "testing"))]
        self.lab.installed(meta, &self.state);
        self.membership = meta.last_membership.clone();
        let index = self.applied.map_or(0, |applied| applied.index);
        self.hashes
            .reset(index, self.state.hash())
            .map_err(|diverged| self.diverged(diverged))?;
        self.view.replace(&self.state, self.applied);
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<StoredSnapshot>, io::Error> {
        Ok(self.snapshots.newest().map(|stored| Snapshot {
            meta: stored.meta.clone(),
            snapshot: stored,
        }))
    }
}

/// Hands the newest finished snapshot to openraft; writes one only when it insists and there is none.
pub(crate) struct Builder {
    snapshots: Arc<Snapshots>,
    newest: Option<Stored>,
    now: Candidate,
}

impl RaftSnapshotBuilder<Types> for Builder {
    type SnapshotData = Stored;

    async fn build_snapshot(&mut self) -> Result<StoredSnapshot, io::Error> {
        let stored = match &self.newest {
            Some(stored) => stored.clone(),
            None => self
                .snapshots
                .store_candidate(&self.now)
                .map_err(warren_storage::StorageError::into_io)?,
        };
        Ok(Snapshot {
            meta: stored.meta.clone(),
            snapshot: stored,
        })
    }
}
