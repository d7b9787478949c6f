//! Where log and snapshots are, and what has to be known when they cannot be read.
//!
//! Log and snapshots stand in directories of a *generation*: `log` and `snapshots`, later `log.1` and `snapshots.1`, and so
//! on. One small atomic file, `HOME`, says which generation counts. So a whole new set of files is written beside the old one
//! and taken into use in one step: when damaged files are set aside, and when a cluster is recovered or restored. The
//! generation before stays as it was, for people to look at; older ones are removed.

use crate::config::Profile;
use crate::error::RaftError;
use crate::types::StoredMembership;
use crate::wire::{StoredMembershipMessage, Wire};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use warren_storage::{AtomicFile, Disk, StorageError};
use warren_types::{ClusterId, NodeId};

const REMEDY: &str = "with other managers alive, remove this one from the cluster, reset it (`warren node reset`) and let it join again; \
     else restore a backup (`warren cluster restore`)";

/// What the file holds.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Record {
    /// The generation in use.
    pub(crate) generation: u64,
    /// Whether the log of this generation is being fetched anew after damage.
    pub(crate) healing: bool,
    /// Whether this node was ever among the members.
    pub(crate) member: bool,
    /// The members as this node last knew them.
    pub(crate) membership: StoredMembership,
    /// Whose directory it is; none in a file of an older release, until the cluster's state is known.
    pub(crate) owner: Option<Owner>,
    /// Times to start with; `None` as long as nobody has said which.
    pub(crate) profile: Option<Profile>,
    /// The longest times that this node may have run with when it last promised a leader not to vote for anybody else.
    pub(crate) promised: Profile,
}

/// Whose data a directory holds. Votes and acknowledgements in it are promises of this node to this cluster, and mean something
/// else, or nothing, in the hands of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// The cluster.
    pub cluster: ClusterId,
    /// The node.
    pub node: NodeId,
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node {} of cluster {}", self.node, self.cluster)
    }
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct OwnerMessage {
    #[prost(bytes = "vec", tag = "1")]
    cluster: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    node: Vec<u8>,
}

impl Wire for Owner {
    type Message = OwnerMessage;

    fn to_message(&self) -> OwnerMessage {
        OwnerMessage {
            cluster: self.cluster.as_u128().to_be_bytes().to_vec(),
            node: self.node.as_u128().to_be_bytes().to_vec(),
        }
    }

    fn from_message(message: OwnerMessage) -> Result<Self, crate::wire::Malformed> {
        let id = |bytes: Vec<u8>| {
            let bytes = bytes.try_into().map_err(|_| crate::wire::Malformed);
            bytes.map(u128::from_be_bytes)
        };
        Ok(Self {
            cluster: ClusterId::from_u128(id(message.cluster)?),
            node: NodeId::from_u128(id(message.node)?),
        })
    }
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct RecordMessage {
    #[prost(uint64, tag = "1")]
    generation: u64,
    #[prost(bool, tag = "2")]
    healing: bool,
    #[prost(bool, tag = "3")]
    member: bool,
    #[prost(message, optional, tag = "4")]
    membership: Option<StoredMembershipMessage>,
    /// Lease of the times to start with, in milliseconds; 0 = nobody has said.
    #[prost(uint64, tag = "5")]
    profile_lease_ms: u64,
    /// Lease of the longest times, in milliseconds; 0 = those of the LAN profile.
    #[prost(uint64, tag = "6")]
    promised_lease_ms: u64,
    #[prost(message, optional, tag = "7")]
    owner: Option<OwnerMessage>,
}

impl Default for Record {
    fn default() -> Self {
        Self {
            generation: 0,
            healing: false,
            member: false,
            membership: StoredMembership::default(),
            profile: None,
            promised: Profile::Lan,
            owner: None,
        }
    }
}

impl Wire for Record {
    type Message = RecordMessage;

    fn to_message(&self) -> RecordMessage {
        RecordMessage {
            generation: self.generation,
            healing: self.healing,
            member: self.member,
            membership: Some(self.membership.to_message()),
            owner: self.owner.as_ref().map(Wire::to_message),
            profile_lease_ms: self.profile.map_or(0, Profile::lease_ms),
            promised_lease_ms: self.promised.lease_ms(),
        }
    }

    fn from_message(message: RecordMessage) -> Result<Self, crate::wire::Malformed> {
        Ok(Self {
            generation: message.generation,
            healing: message.healing,
            member: message.member,
            membership: message
                .membership
                .map(StoredMembership::from_message)
                .transpose()?
                .unwrap_or_default(),
            owner: message.owner.map(Owner::from_message).transpose()?,
            profile: (message.profile_lease_ms > 0)
                .then(|| Profile::with_lease_ms(message.profile_lease_ms)),
            promised: Profile::with_lease_ms(message.promised_lease_ms),
        })
    }
}

/// The directory of the engine.
#[derive(Debug)]
pub(crate) struct Home {
    pub(crate) disk: Arc<dyn Disk>,
    dir: String,
    file: AtomicFile,
    record: Mutex<Record>,
    /// Whether the file was there.
    found: bool,
    /// Whose directory it has to be.
    own: Option<Owner>,
}

impl Home {
    pub(crate) fn open(disk: &Arc<dyn Disk>, dir: &str) -> Result<Self, RaftError> {
        let path = format!("{dir}/HOME");
        let file = AtomicFile::new(Arc::clone(disk), path.as_str(), REMEDY);
        let content = file.read()?;
        let found = content.is_some();
        let record = match content {
            None => Record::default(),
            Some(bytes) => Record::decode(bytes.into()).map_err(|_| RaftError::Unreadable {
                what: "record of the members",
                place: disk.describe(&path),
                reason: "it is not a message of this release".to_owned(),
            })?,
        };
        Ok(Self {
            disk: Arc::clone(disk),
            dir: dir.to_owned(),
            file,
            record: Mutex::new(record),
            found,
            own: None,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn record(&self) -> Record {
        self.lock().clone()
    }

    fn place(&self, what: &str, generation: u64) -> String {
        match generation {
            0 => format!("{}/{what}", self.dir),
            number => format!("{}/{what}.{number}", self.dir),
        }
    }

    /// Directory of the log of a generation.
    pub(crate) fn log_dir(&self, generation: u64) -> String {
        self.place("log", generation)
    }

    /// Directory of the snapshots of a generation.
    pub(crate) fn snapshot_dir(&self, generation: u64) -> String {
        self.place("snapshots", generation)
    }

    /// Whether nothing was ever stored here. What an attempt that was broken off has left counts as nothing.
    pub(crate) fn is_empty(&self) -> Result<bool, StorageError> {
        let nothing = |dir: String| self.disk.list(&dir).map(|names| names.is_empty());
        Ok(!self.found && nothing(self.log_dir(0))? && nothing(self.snapshot_dir(0))?)
    }

    /// Refuses a directory that is not `own`, and takes an empty one into possession. Nothing but the record is read or written.
    /// Without an owner (tests) nothing is checked.
    pub(crate) fn claim(&mut self, own: Option<Owner>) -> Result<(), RaftError> {
        self.own = own;
        let Some(own) = own else {
            return Ok(());
        };
        match self.record().owner {
            Some(found) => self.check(found, own),
            None if self.is_empty()? => Ok(self.change(|record| record.owner = Some(own))?),
            None => Ok(()),
        }
    }

    /// Whether this is the directory of an older release, which does not say whose it is.
    pub(crate) fn is_unclaimed(&self) -> bool {
        self.own.is_some() && self.lock().owner.is_none()
    }

    /// Completes the record of an older release: it is of the cluster that the state names.
    pub(crate) fn complete(&self, cluster: ClusterId) -> Result<(), RaftError> {
        let Some(own) = self.own else {
            return Ok(());
        };
        self.check(Owner { cluster, ..own }, own)?;
        Ok(self.change(|record| record.owner = Some(own))?)
    }

    fn check(&self, found: Owner, own: Owner) -> Result<(), RaftError> {
        if found == own {
            return Ok(());
        }
        Err(RaftError::OtherOwner {
            place: self.disk.describe(&self.dir),
            found,
            own,
        })
    }

    /// Changes the record durably.
    pub(crate) fn change(&self, change: impl FnOnce(&mut Record)) -> Result<(), StorageError> {
        let mut record = self.lock();
        let mut next = record.clone();
        change(&mut next);
        if next != *record {
            self.file.write(&next.encode())?;
            *record = next;
        }
        Ok(())
    }

    /// Removes the files of a generation.
    pub(crate) fn clear(&self, generation: u64) -> Result<(), StorageError> {
        for dir in [self.log_dir(generation), self.snapshot_dir(generation)] {
            let names = self.disk.list(&dir)?;
            for name in &names {
                self.disk.remove(&format!("{dir}/{name}"))?;
            }
            if !names.is_empty() {
                self.disk.sync_dir(&dir)?;
            }
        }
        Ok(())
    }

    /// Removes what is older than the generation before.
    pub(crate) fn sweep(&self) -> Result<(), StorageError> {
        for generation in 0..self.lock().generation.saturating_sub(1) {
            self.clear(generation)?;
        }
        Ok(())
    }

    /// Sets the files of this generation aside because they are damaged, and begins a new, empty one. False when that
    /// would lose something: when there are no other managers to fetch everything from.
    pub(crate) fn set_aside(&self, id: NodeId) -> Result<bool, StorageError> {
        let record = self.record();
        let others = voter_sets(&record.membership)
            .iter()
            .flatten()
            .any(|voter| *voter != id);
        if !record.member || !others {
            return Ok(false);
        }
        let next = record.generation + 1;
        self.clear(next)?;
        self.change(|record| {
            record.generation = next;
            record.healing = true;
        })?;
        Ok(true)
    }
}

/// The sets of voters: one, or two while members change.
pub(crate) fn voter_sets(membership: &StoredMembership) -> Vec<BTreeSet<NodeId>> {
    membership.membership().get_joint_config().clone()
}

/// The members and where they are.
pub(crate) fn addresses(membership: &StoredMembership) -> BTreeMap<NodeId, crate::Member> {
    let nodes = membership.membership().nodes();
    nodes.map(|(id, member)| (*id, member.clone())).collect()
}
