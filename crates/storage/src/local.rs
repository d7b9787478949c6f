//! The worker's local store: what a node needs to go on by itself after a reboot with no manager in reach.
//!
//! One redb file, over [`Disk`] like everything else. Every value carries a checksum that covers its table and
//! key too; every change is one durable transaction.

use crate::disk::{Disk, DiskFile, OpenMode};
use crate::{Result, StorageError};
use redb::{Builder, Database, ReadableDatabase, ReadableTable, StorageBackend, TableDefinition};
use std::fmt;
use std::sync::Arc;

/// Memory that the store may use for pages, in bytes.
const CACHE_BYTES: usize = 4 * 1024 * 1024;
const REMEDY: &str = "stop the daemon, remove the file and start it again: the node gets its assignments from a manager";

/// The tables of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LocalTable {
    /// What the node knows of each of its containers.
    Containers,
    /// Addresses given out by the node.
    Leases,
    /// Everything else, by name.
    Misc,
}

impl LocalTable {
    /// All tables.
    pub const ALL: [Self; 3] = [Self::Containers, Self::Leases, Self::Misc];

    fn name(self) -> &'static str {
        match self {
            Self::Containers => "containers",
            Self::Leases => "leases",
            Self::Misc => "misc",
        }
    }

    fn definition(self) -> TableDefinition<'static, &'static [u8], &'static [u8]> {
        TableDefinition::new(self.name())
    }
}

const ASSIGNMENTS: TableDefinition<'static, &'static [u8], &'static [u8]> =
    TableDefinition::new("assignments");
const CURRENT: &[u8] = b"current";

/// The last set of assignments that the node accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AssignmentSet {
    /// Its revision: older sets are refused.
    pub revision: u64,
    /// The set, encoded.
    pub bytes: Vec<u8>,
}

/// Changes that become durable together or not at all.
#[derive(Debug, Clone, Default)]
pub struct LocalBatch {
    changes: Vec<(LocalTable, Vec<u8>, Option<Vec<u8>>)>,
    assignments: Option<AssignmentSet>,
}

impl LocalBatch {
    /// A batch with nothing in it.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a value.
    pub fn put(
        &mut self,
        table: LocalTable,
        key: impl Into<Vec<u8>>,
        value: impl Into<Vec<u8>>,
    ) -> &mut Self {
        self.changes.push((table, key.into(), Some(value.into())));
        self
    }

    /// Removes a value; one that is not there is no error.
    pub fn remove(&mut self, table: LocalTable, key: impl Into<Vec<u8>>) -> &mut Self {
        self.changes.push((table, key.into(), None));
        self
    }

    /// Replaces the set of assignments.
    pub fn set_assignments(&mut self, revision: u64, bytes: impl Into<Vec<u8>>) -> &mut Self {
        self.assignments = Some(AssignmentSet {
            revision,
            bytes: bytes.into(),
        });
        self
    }

    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.assignments.is_none()
    }
}

/// The store. May be shared between threads.
pub struct LocalStore {
    db: Database,
    file: String,
}

impl fmt::Debug for LocalStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LocalStore({})", self.file)
    }
}

impl LocalStore {
    /// Opens the file, making it when missing. After a kill it is repaired from its last durable transaction.
    pub fn open(disk: &Arc<dyn Disk>, path: &str) -> Result<Self> {
        let name = disk.describe(path);
        let file = disk.open(path, OpenMode::Create)?;
        let fresh = file.is_empty()?;
        let fail = |error: redb::DatabaseError| local(&name, error.into());
        let mut builder = Builder::new();
        // Without the check redb trusts its pages when the file was closed properly.
        builder
            .set_cache_size(CACHE_BYTES)
            .set_check_integrity_on_open(true);
        let db = builder
            .create_with_backend(Backend { file })
            .map_err(fail)?;
        if fresh {
            disk.sync_dir(crate::disk::parent(path))?;
        }
        let store = Self { db, file: name };
        store.check()?;
        Ok(store)
    }

    /// Reads everything once, so that damage is found at the start and not in the middle.
    fn check(&self) -> Result<()> {
        self.assignments()?;
        for table in LocalTable::ALL {
            self.list(table)?;
        }
        Ok(())
    }

    /// The last set of assignments stored.
    pub fn assignments(&self) -> Result<Option<AssignmentSet>> {
        let Some(value) = self.get_in(ASSIGNMENTS, "assignments", CURRENT)? else {
            return Ok(None);
        };
        let (revision, bytes) = value
            .split_first_chunk::<8>()
            .ok_or_else(|| self.damaged("assignments"))?;
        Ok(Some(AssignmentSet {
            revision: u64::from_le_bytes(*revision),
            bytes: bytes.to_vec(),
        }))
    }

    /// Replaces the set of assignments durably.
    pub fn set_assignments(&self, revision: u64, bytes: &[u8]) -> Result<()> {
        let mut batch = LocalBatch::new();
        batch.set_assignments(revision, bytes);
        self.write(&batch)
    }

    /// A value.
    pub fn get(&self, table: LocalTable, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.get_in(table.definition(), table.name(), key)
    }

    /// All values of a table, sorted by key.
    pub fn list(&self, table: LocalTable) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let read = || -> std::result::Result<_, redb::Error> {
            let transaction = self.db.begin_read()?;
            let opened = match transaction.open_table(table.definition()) {
                Err(redb::TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
                opened => opened?,
            };
            let mut out = Vec::new();
            for entry in opened.iter()? {
                let (key, value) = entry?;
                out.push((key.value().to_vec(), value.value().to_vec()));
            }
            Ok(out)
        };
        let rows = read().map_err(|error| local(&self.file, error))?;
        rows.into_iter()
            .map(|(key, stored)| {
                let value = unseal(table.name(), &key, &stored)
                    .ok_or_else(|| self.damaged(table.name()))?;
                Ok((key, value))
            })
            .collect()
    }

    /// Sets one value durably.
    pub fn put(&self, table: LocalTable, key: &[u8], value: &[u8]) -> Result<()> {
        let mut batch = LocalBatch::new();
        batch.put(table, key, value);
        self.write(&batch)
    }

    /// Removes one value durably.
    pub fn remove(&self, table: LocalTable, key: &[u8]) -> Result<()> {
        let mut batch = LocalBatch::new();
        batch.remove(table, key);
        self.write(&batch)
    }

    /// Makes a batch durable, all or nothing. An empty one touches nothing.
    pub fn write(&self, batch: &LocalBatch) -> Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        let run =
            || -> std::result::Result<(), redb::Error> {
                let transaction = self.db.begin_write()?;
                for table in LocalTable::ALL {
                    let mut opened = transaction.open_table(table.definition())?;
                    for (_, key, value) in batch.changes.iter().filter(|(of, ..)| *of == table) {
                        match value {
                            Some(value) => drop(opened.insert(
                                key.as_slice(),
                                seal(table.name(), key, value).as_slice(),
                            )?),
                            None => drop(opened.remove(key.as_slice())?),
                        }
                    }
                }
                if let Some(set) = &batch.assignments {
                    let mut value = set.revision.to_le_bytes().to_vec();
                    value.extend_from_slice(&set.bytes);
                    transaction
                        .open_table(ASSIGNMENTS)?
                        .insert(CURRENT, seal("assignments", CURRENT, &value).as_slice())?;
                }
                transaction.commit()?;
                Ok(())
            };
        run().map_err(|error| local(&self.file, error))
    }

    fn get_in(
        &self,
        table: TableDefinition<'static, &'static [u8], &'static [u8]>,
        name: &str,
        key: &[u8],
    ) -> Result<Option<Vec<u8>>> {
        let read = || -> std::result::Result<_, redb::Error> {
            let transaction = self.db.begin_read()?;
            match transaction.open_table(table) {
                Err(redb::TableError::TableDoesNotExist(_)) => Ok(None),
                opened => Ok(opened?.get(key)?.map(|stored| stored.value().to_vec())),
            }
        };
        let Some(stored) = read().map_err(|error| local(&self.file, error))? else {
            return Ok(None);
        };
        unseal(name, key, &stored)
            .map(Some)
            .ok_or_else(|| self.damaged(name))
    }

    fn damaged(&self, table: &str) -> StorageError {
        // redb does not say where a value lies; the table has to do.
        StorageError::Corrupt {
            file: self.file.clone(),
            offset: 0,
            what: format!("a value of table {table} does not match its checksum"),
            remedy: REMEDY,
        }
    }
}

fn sum(table: &str, key: &[u8], value: &[u8]) -> [u8; 4] {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(table.as_bytes());
    hasher.update(&(key.len() as u64).to_le_bytes());
    hasher.update(key);
    hasher.update(value);
    hasher.finalize().to_le_bytes()
}

fn seal(table: &str, key: &[u8], value: &[u8]) -> Vec<u8> {
    let mut stored = sum(table, key, value).to_vec();
    stored.extend_from_slice(value);
    stored
}

fn unseal(table: &str, key: &[u8], stored: &[u8]) -> Option<Vec<u8>> {
    let (found, value) = stored.split_first_chunk::<4>()?;
    (*found == sum(table, key, value)).then(|| value.to_vec())
}

fn local(file: &str, error: redb::Error) -> StorageError {
    match error {
        redb::Error::Io(error) => StorageError::io("use", file, error),
        redb::Error::Corrupted(what) => StorageError::Corrupt {
            file: file.to_owned(),
            offset: 0,
            what,
            remedy: REMEDY,
        },
        redb::Error::DatabaseAlreadyOpen => StorageError::Locked {
            file: file.to_owned(),
            pid: None,
        },
        redb::Error::PreviousIo => StorageError::Failed {
            file: file.to_owned(),
            reason: "an earlier write failed".to_owned(),
        },
        other => StorageError::Local {
            file: file.to_owned(),
            reason: other.to_string(),
            remedy: REMEDY,
        },
    }
}

#[derive(Debug)]
struct Backend {
    file: Box<dyn DiskFile>,
}

impl StorageBackend for Backend {
    fn len(&self) -> std::result::Result<u64, std::io::Error> {
        self.file.len().map_err(io)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> std::result::Result<(), std::io::Error> {
        self.file.read_at(offset, out).map_err(io)
    }

    fn set_len(&self, len: u64) -> std::result::Result<(), std::io::Error> {
        self.file.set_len(len).map_err(io)
    }

    fn sync_data(&self) -> std::result::Result<(), std::io::Error> {
        self.file.sync_data().map_err(io)
    }

    fn write(&self, offset: u64, data: &[u8]) -> std::result::Result<(), std::io::Error> {
        self.file.write_at(offset, data).map_err(io)
    }
}

fn io(error: StorageError) -> std::io::Error {
    error.into_io()
}
