//! Recovery and restoring, on a manager that is stopped.

use crate::config::RaftConfig;
use crate::error::RaftError;
use crate::home::{Home, addresses};
use crate::snapshots::{Snapshots, Thresholds};
use crate::start::open_log;
use crate::types::{
    Entry, LeaderId, LogId, Member, Membership, Payload, SnapshotMeta, StoredMembership, Vote,
    log_id,
};
use crate::wire::Wire;
use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::sync::Arc;
use warren_state::{ClusterState, Command, Rejection};
use warren_storage::{DirGuard, Disk, Log, LogOptions, SnapshotStore};
use warren_types::NodeId;

/// By how much the term jumps: more than elections that others may have held since this node last heard of them.
const TERM_JUMP: u64 = 1_000;
/// By how much the index jumps: more than others may have written that this node never saw.
const INDEX_JUMP: u64 = 1 << 20;
/// Bytes of the log read at once.
const READ_BYTES: usize = 4 * 1024 * 1024;

/// What a recovery found and made.
#[derive(Debug, Clone)]
pub struct Recovered {
    /// The state that the cluster goes on with.
    pub state: ClusterState,
    /// Index of the last entry that the new log counts as its past.
    pub index: u64,
    /// The new term.
    pub term: u64,
    /// Index of the last entry found.
    pub found_index: Option<u64>,
    /// The members before.
    pub found_members: BTreeMap<NodeId, Member>,
}

/// Why a recovery did not happen; what was there is as before.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError<E: Error + 'static> {
    /// The files.
    #[error(transparent)]
    Raft(#[from] RaftError),
    /// The caller refused the state that was found.
    #[error(transparent)]
    Edit(E),
}

/// What was stored.
struct Found {
    state: ClusterState,
    last: Option<LogId>,
    membership: StoredMembership,
    term: u64,
}

/// Makes the manager in `dir`, which must be stopped, the only one of its cluster, with everything that it ever stored
/// (also what no quorum confirmed: of that nobody knows whether it was acknowledged). `edit` may change the state. Term and
/// index jump beyond whatever was before. Broken off at any moment, the directory is as before or as after; what was
/// there before is kept beside (see the module `home`).
pub fn recover<E: Error + 'static>(
    disk: &Arc<dyn Disk>,
    config: &RaftConfig,
    member: Member,
    edit: impl FnOnce(ClusterState) -> Result<ClusterState, E>,
) -> Result<Recovered, RecoverError<E>> {
    let raft = RaftError::from;
    let _guard = DirGuard::acquire(disk, &config.dir, "raft log").map_err(raft)?;
    let mut home = Home::open(disk, &config.dir)?;
    // An empty directory is nobody's yet, and the next refusal is about that.
    if home.record().owner.is_some() {
        home.claim(config.owner())?;
    }
    if home.is_empty().map_err(raft)? {
        return Err(RaftError::Membership(
            "this node has no data of a cluster to recover; restore a backup (`warren cluster restore`)".to_owned(),
        )
        .into());
    }
    if home.record().healing {
        return Err(RaftError::Incomplete.into());
    }
    let found = load(&home, config)?;
    let state = edit(found.state).map_err(RecoverError::Edit)?;
    let term = found
        .term
        .max(found.last.map_or(0, |last| last.leader_id.term))
        + TERM_JUMP;
    let index = found.last.map_or(0, |last| last.index) + INDEX_JUMP;
    write(&home, config, member, &state, log_id(term, index))?;
    Ok(Recovered {
        state,
        index,
        term,
        found_index: found.last.map(|last| last.index),
        found_members: addresses(&found.membership),
    })
}

/// Begins a cluster of one manager in the empty directory `dir` from a state. Broken off at any moment, the
/// directory counts as empty, or it is done.
pub fn restore(
    disk: &Arc<dyn Disk>,
    config: &RaftConfig,
    member: Member,
    state: &ClusterState,
) -> Result<Recovered, RaftError> {
    let _guard = DirGuard::acquire(disk, &config.dir, "raft log")?;
    let home = Home::open(disk, &config.dir)?;
    if !home.is_empty()? {
        return Err(RaftError::AlreadyInitialized);
    }
    let index = state.revision().0.saturating_add(INDEX_JUMP);
    let last = log_id(TERM_JUMP, index);
    write(&home, config, member, state, last)?;
    Ok(Recovered {
        state: state.clone(),
        index,
        term: TERM_JUMP,
        found_index: None,
        found_members: BTreeMap::new(),
    })
}

/// The state with everything that the stopped manager in `dir` ever stored, confirmed by a quorum or not; nothing is
/// changed. `None` when it holds nothing, or nothing whole.
pub fn stored_state(
    disk: &Arc<dyn Disk>,
    config: &RaftConfig,
) -> Result<Option<ClusterState>, RaftError> {
    let _guard = DirGuard::acquire(disk, &config.dir, "raft log")?;
    let home = Home::open(disk, &config.dir)?;
    if home.is_empty()? || home.record().healing {
        return Ok(None);
    }
    Ok(Some(load(&home, config)?.state))
}

/// Reads everything: the snapshot, then all of the log.
fn load(home: &Home, config: &RaftConfig) -> Result<Found, RaftError> {
    let generation = home.record().generation;
    let log = open_log(home, config)?;
    let store = SnapshotStore::open(Arc::clone(&home.disk), &home.snapshot_dir(generation))?;
    let limits = Thresholds {
        entries: u64::MAX,
        bytes: u64::MAX,
        log_bytes_max: u64::MAX,
    };
    let start = Snapshots::new(store, limits, config.io).load(log.first_index())?;
    let (state, meta) = start.map_or_else(Default::default, |start| (start.state, start.meta));
    let term = if log.meta().is_empty() {
        0
    } else {
        let vote = Vote::decode(log.meta().to_vec().into());
        vote.map_err(|_| unreadable("vote", log.next_index(), "it is not one"))?
            .leader_id
            .term
    };
    let mut found = Found {
        state,
        last: meta.last_log_id,
        membership: meta.last_membership,
        term,
    };
    let mut next = found.last.map_or(0, |last| last.index + 1);
    next = next.max(log.first_index());
    while next < log.next_index() {
        let records = log.read(next..log.next_index(), READ_BYTES)?;
        for record in records {
            apply(&mut found, next, record)?;
            next += 1;
        }
    }
    Ok(found)
}

fn unreadable(what: &'static str, index: u64, reason: impl ToString) -> RaftError {
    RaftError::Unreadable {
        what,
        place: format!("the log at index {index}"),
        reason: reason.to_string(),
    }
}

fn apply(found: &mut Found, index: u64, record: Vec<u8>) -> Result<(), RaftError> {
    let entry = Entry::decode(record.into())
        .map_err(|_| unreadable("entry", index, "it is not a message of this release"))?;
    match entry.payload {
        Payload::Blank => {}
        Payload::Membership(membership) => {
            found.membership = StoredMembership::new(Some(entry.log_id), membership);
        }
        Payload::Normal(command) => {
            let command = Command::decode(&command.bytes)
                .map_err(|error| unreadable("command", index, error))?;
            // What was refused then is refused now.
            if let Err(error @ Rejection::UnsupportedVersion { .. }) = found.state.apply(&command) {
                return Err(unreadable("command", index, error));
            }
        }
    }
    found.last = Some(entry.log_id);
    Ok(())
}

/// Writes a generation that begins behind `last`, and takes it into use.
fn write(
    home: &Home,
    config: &RaftConfig,
    member: Member,
    state: &ClusterState,
    last: LogId,
) -> Result<(), RaftError> {
    let generation = home.record().generation + 1;
    // An attempt that was broken off may have left something there.
    home.clear(generation)?;
    let voters = BTreeSet::from([config.id]);
    let members = BTreeMap::from([(config.id, member)]);
    let membership = Membership::new(vec![voters], members)
        .map_err(|error| RaftError::Membership(error.to_string()))?;
    let membership = StoredMembership::new(Some(last), membership);
    let meta = SnapshotMeta {
        last_log_id: Some(last),
        last_membership: membership.clone(),
    };
    let store = SnapshotStore::open(Arc::clone(&home.disk), &home.snapshot_dir(generation))?;
    let mut writer = store.begin(last.index, &meta.encode())?;
    state.write_snapshot(&mut writer).map_err(|error| {
        error
            .downcast::<warren_storage::StorageError>()
            .unwrap_or_else(|error| warren_storage::StorageError::io("write", "snapshot", error))
    })?;
    writer.finish()?;
    let vote = Vote {
        leader_id: LeaderId {
            term: last.leader_id.term,
            voted_for: config.id,
        },
        committed: false,
    };
    let options = LogOptions::new(config.segment_bytes);
    let (mut log, _) = Log::open(Arc::clone(&home.disk), &home.log_dir(generation), options)?;
    log.purge_upto(last.index, &last.encode())?;
    log.set_meta(&vote.encode())?;
    log.close()?;
    let profile = state.settings().map(|s| s.raft_profile.into());
    home.change(|record| {
        record.generation = generation;
        record.healing = false;
        record.member = true;
        record.membership = membership;
        record.owner = config.owner().or(record.owner);
        record.profile = profile;
    })?;
    Ok(())
}
