//! Snapshots: large streams, checked from end to end, the newest two kept.
//!
//! A snapshot is written to a temporary name, synced, renamed, and its directory synced. Layout: magic, version,
//! index, meta, checksum of those; chunks, each with length and checksum; an empty chunk; then the footer
//! with the total length and a checksum over all chunk checksums. So a snapshot that was cut short, or put
//! together from two, never reads to its end.

use crate::disk::{Disk, DiskFile, OpenMode, join};
use crate::sector::{Cursor, put_prefixed};
use crate::{Result, StorageError};
use std::fmt;
use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// How many snapshots are kept.
pub const SNAPSHOTS_KEPT: usize = 2;
/// Largest description of a snapshot, in bytes.
const MAX_META_BYTES: usize = 1024 * 1024;
/// Size of a chunk, in bytes.
const CHUNK_BYTES: usize = 256 * 1024;

const MAGIC: &[u8; 8] = b"WARRENSN";
const VERSION: u32 = 1;
const FOOTER_BYTES: usize = 8 + 4;
const REMEDY: &str = "remove the file: the node takes the older snapshot if its log reaches back that far; else let it join the cluster again, \
     or restore a backup (`warren cluster restore`)";

/// A snapshot on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotInfo {
    /// Last log index that it contains.
    pub index: u64,
    /// What its writer wanted to know about it without reading it.
    pub meta: Vec<u8>,
    /// Size of the file, in bytes.
    pub bytes: u64,
    path: String,
}

/// What a snapshot's content adds up to: equal for equal content, whoever has written it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotSeal {
    /// Length of the content, in bytes.
    pub total: u64,
    /// Checksum over the checksums of its chunks.
    pub sum: u32,
}

/// The snapshots of one directory.
#[derive(Debug, Clone)]
pub struct SnapshotStore {
    disk: Arc<dyn Disk>,
    dir: String,
    /// Writers begun so far.
    writers: Arc<AtomicU64>,
}

impl SnapshotStore {
    /// Opens the directory, making it when missing.
    pub fn open(disk: Arc<dyn Disk>, dir: &str) -> Result<Self> {
        disk.create_dir_all(dir)?;
        Ok(Self {
            disk,
            dir: dir.to_owned(),
            writers: Arc::default(),
        })
    }

    /// Removes what unfinished writes left behind. To be called once everything else was found sound.
    pub fn sweep(&self) -> Result<()> {
        for name in self.disk.list(&self.dir)? {
            if name.ends_with(".tmp") {
                self.disk.remove(&join(&self.dir, &name))?;
            }
        }
        Ok(())
    }

    /// The snapshots, newest first. One whose head cannot be read stands there as an error, with its index.
    pub fn list(&self) -> Result<Vec<(u64, Result<SnapshotInfo>)>> {
        let mut found = Vec::new();
        for name in self.disk.list(&self.dir)? {
            if let Some(index) = index_of(&name) {
                found.push((index, self.info(index, &join(&self.dir, &name))));
            }
        }
        found.sort_by_key(|(index, _)| std::cmp::Reverse(*index));
        Ok(found)
    }

    fn info(&self, index: u64, path: &str) -> Result<SnapshotInfo> {
        let file = self.disk.open(path, OpenMode::Read)?;
        let (head, _) = read_head(&*file)?;
        if head.index != index {
            return Err(corrupt(&*file, 12, "it has the index of another snapshot"));
        }
        Ok(SnapshotInfo {
            index,
            meta: head.meta,
            bytes: file.len()?,
            path: path.to_owned(),
        })
    }

    /// Begins a snapshot of everything up to `index`.
    pub fn begin(&self, index: u64, meta: &[u8]) -> Result<SnapshotWriter> {
        if meta.len() > MAX_META_BYTES {
            return Err(StorageError::TooLarge {
                what: "snapshot description",
                found: meta.len() as u64,
                limit: MAX_META_BYTES as u64,
            });
        }
        let path = self.path(index);
        // Two of the same index may be on their way (one made here, one received): each has its own file.
        let number = self.writers.fetch_add(1, Ordering::Relaxed);
        let temp = format!("{path}.{number}.tmp");
        let file = self.disk.open(&temp, OpenMode::Create)?;
        let mut writer = SnapshotWriter {
            store: self.clone(),
            file,
            temp,
            info: SnapshotInfo {
                index,
                meta: meta.to_vec(),
                bytes: 0,
                path,
            },
            chunk: Vec::new(),
            at: 0,
            total: 0,
            sums: crc32fast::Hasher::new(),
            done: false,
        };
        writer.file.set_len(0)?;
        let mut head = Vec::new();
        head.extend_from_slice(MAGIC);
        head.extend_from_slice(&VERSION.to_le_bytes());
        head.extend_from_slice(&index.to_le_bytes());
        put_prefixed(&mut head, meta);
        let sum = crc32fast::hash(&head);
        head.extend_from_slice(&sum.to_le_bytes());
        writer.put(&head)?;
        Ok(writer)
    }

    fn path(&self, index: u64) -> String {
        join(&self.dir, &format!("snap-{index:016x}.snap"))
    }

    /// Removes the snapshot of this index, whatever is in its file.
    pub fn discard(&self, index: u64) -> Result<()> {
        self.disk.remove(&self.path(index))?;
        self.disk.sync_dir(&self.dir)
    }

    /// Opens a snapshot for reading.
    pub fn read(&self, info: &SnapshotInfo) -> Result<SnapshotReader> {
        let file = self.disk.open(&info.path, OpenMode::Read)?;
        let (head, at) = read_head(&*file)?;
        if head.index != info.index || head.meta != info.meta {
            return Err(corrupt(&*file, 12, "it is another snapshot than it was"));
        }
        let len = file.len()?;
        Ok(SnapshotReader {
            file,
            at,
            len,
            chunk: Vec::new(),
            used: 0,
            total: 0,
            sums: crc32fast::Hasher::new(),
            done: false,
        })
    }

    /// The seal of a snapshot, read from its end.
    pub fn seal(&self, info: &SnapshotInfo) -> Result<SnapshotSeal> {
        let file = self.disk.open(&info.path, OpenMode::Read)?;
        let at = file
            .len()?
            .checked_sub(FOOTER_BYTES as u64)
            .ok_or_else(|| corrupt(&*file, 0, "the snapshot is cut short"))?;
        let mut footer = [0; FOOTER_BYTES];
        file.read_at(at, &mut footer)?;
        let mut cursor = Cursor(&footer);
        Ok(SnapshotSeal {
            total: cursor.u64().unwrap_or(0),
            sum: cursor.u32().unwrap_or(0),
        })
    }

    /// Reads a whole snapshot and checks every byte.
    pub fn validate(&self, info: &SnapshotInfo) -> Result<()> {
        let mut reader = self.read(info)?;
        while reader.next_chunk()? {}
        Ok(())
    }

    /// The newest snapshot that a node can start from, and what is wrong with newer ones. `log_first` is the first
    /// index that the log still holds: an older snapshot (or none at all) does only if the log goes on right behind it.
    /// When nothing does, the damage to the newest is the error.
    pub fn newest_sound(
        &self,
        log_first: u64,
    ) -> Result<(Option<SnapshotInfo>, Vec<StorageError>)> {
        let mut damaged = Vec::new();
        for (index, info) in self.list()? {
            match info.and_then(|info| self.validate(&info).map(|()| info)) {
                Ok(info) if damaged.is_empty() || log_first <= index + 1 => {
                    return Ok((Some(info), damaged));
                }
                Ok(_) => break,
                Err(error) if error.is_corrupt() => damaged.push(error),
                Err(error) => return Err(error),
            }
        }
        if log_first == 0 || damaged.is_empty() {
            Ok((None, damaged))
        } else {
            Err(damaged.swap_remove(0))
        }
    }

    /// Removes all but the newest [`SNAPSHOTS_KEPT`].
    fn prune(&self) -> Result<()> {
        let mut names: Vec<(u64, String)> = self
            .disk
            .list(&self.dir)?
            .into_iter()
            .filter_map(|name| index_of(&name).map(|index| (index, name)))
            .collect();
        names.sort_by_key(|(index, _)| std::cmp::Reverse(*index));
        for (_, name) in names.iter().skip(SNAPSHOTS_KEPT) {
            self.disk.remove(&join(&self.dir, name))?;
        }
        if names.len() > SNAPSHOTS_KEPT {
            self.disk.sync_dir(&self.dir)
        } else {
            Ok(())
        }
    }

    /// The index of the oldest snapshot kept.
    pub fn oldest_index(&self) -> Result<Option<u64>> {
        Ok(self
            .disk
            .list(&self.dir)?
            .iter()
            .filter_map(|name| index_of(name))
            .min())
    }
}

/// A snapshot being written. Dropped before [`SnapshotWriter::finish`], it leaves nothing.
pub struct SnapshotWriter {
    store: SnapshotStore,
    file: Box<dyn DiskFile>,
    temp: String,
    info: SnapshotInfo,
    chunk: Vec<u8>,
    at: u64,
    total: u64,
    sums: crc32fast::Hasher,
    done: bool,
}

impl fmt::Debug for SnapshotWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "SnapshotWriter({}, {} bytes)",
            self.info.path, self.total
        )
    }
}

impl SnapshotWriter {
    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_at(self.at, bytes)?;
        self.at += bytes.len() as u64;
        Ok(())
    }

    fn put_chunk(&mut self) -> Result<()> {
        let mut chunk = std::mem::take(&mut self.chunk);
        let sum = crc32fast::hash(&chunk);
        self.sums.update(&sum.to_le_bytes());
        self.total += chunk.len() as u64;
        let mut framed = Vec::with_capacity(chunk.len() + 8);
        put_prefixed(&mut framed, &chunk);
        framed.extend_from_slice(&sum.to_le_bytes());
        self.put(&framed)?;
        chunk.clear();
        self.chunk = chunk;
        Ok(())
    }

    /// Bytes added so far.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total + self.chunk.len() as u64
    }

    /// Adds bytes.
    pub fn add(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(CHUNK_BYTES - self.chunk.len()));
            self.chunk.extend_from_slice(now);
            bytes = later;
            if self.chunk.len() == CHUNK_BYTES {
                self.put_chunk()?;
            }
        }
        Ok(())
    }

    /// Like [`SnapshotWriter::finish`], for content that came from elsewhere: it must be what was sent.
    pub fn finish_as(mut self, seal: SnapshotSeal) -> Result<SnapshotInfo> {
        self.end()?;
        let sum = self.sums.clone().finalize();
        if (self.total, sum) != (seal.total, seal.sum) {
            return Err(StorageError::Corrupt {
                file: self.file.name().to_owned(),
                offset: self.total,
                what: "what has come is not the snapshot that was sent".to_owned(),
                remedy: "it is sent again by itself",
            });
        }
        self.publish()
    }

    /// Makes the snapshot durable and visible, and removes those that are no longer kept.
    pub fn finish(mut self) -> Result<SnapshotInfo> {
        self.end()?;
        self.publish()
    }

    /// Writes what waits, and the empty chunk behind the last.
    fn end(&mut self) -> Result<()> {
        if !self.chunk.is_empty() {
            self.put_chunk()?;
        }
        self.put_chunk()
    }

    fn publish(mut self) -> Result<SnapshotInfo> {
        let mut footer = Vec::new();
        footer.extend_from_slice(&self.total.to_le_bytes());
        footer.extend_from_slice(&self.sums.clone().finalize().to_le_bytes());
        self.put(&footer)?;
        self.file.sync_data()?;
        self.store.disk.rename(&self.temp, &self.info.path)?;
        self.done = true;
        self.store.disk.sync_dir(&self.store.dir)?;
        self.info.bytes = self.at;
        self.store.prune()?;
        Ok(self.info.clone())
    }
}

impl Write for SnapshotWriter {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.add(buf).map_err(StorageError::into_io)?;
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for SnapshotWriter {
    fn drop(&mut self) {
        if !self.done {
            // Best effort: what stays is swept at the next start.
            let _ = self.store.disk.remove(&self.temp);
        }
    }
}

/// Reads a snapshot, checking chunk by chunk. The end of the stream is reported only after the footer was checked.
pub struct SnapshotReader {
    file: Box<dyn DiskFile>,
    at: u64,
    len: u64,
    chunk: Vec<u8>,
    used: usize,
    total: u64,
    sums: crc32fast::Hasher,
    done: bool,
}

impl fmt::Debug for SnapshotReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SnapshotReader({} at {})", self.file.name(), self.at)
    }
}

impl SnapshotReader {
    fn take(&mut self, len: usize) -> Result<Vec<u8>> {
        if len as u64 > self.len.saturating_sub(self.at) {
            return Err(corrupt(&*self.file, self.at, "the snapshot is cut short"));
        }
        let mut bytes = vec![0; len];
        self.file.read_at(self.at, &mut bytes)?;
        self.at += len as u64;
        Ok(bytes)
    }

    /// Loads the next chunk; false at the end.
    fn next_chunk(&mut self) -> Result<bool> {
        if self.done {
            return Ok(false);
        }
        let begin = self.at;
        let len = Cursor(&self.take(4)?).u32().unwrap_or(u32::MAX) as usize;
        if len > CHUNK_BYTES {
            return Err(corrupt(
                &*self.file,
                begin,
                "a chunk is longer than chunks are",
            ));
        }
        let mut chunk = self.take(len + 4)?;
        let sum = chunk.split_off(len);
        if crc32fast::hash(&chunk).to_le_bytes() != sum[..] {
            return Err(corrupt(&*self.file, begin, "the checksum does not match"));
        }
        self.sums.update(&sum);
        self.total += len as u64;
        self.chunk = chunk;
        self.used = 0;
        if len == 0 {
            self.check_footer()?;
            self.done = true;
        }
        Ok(len > 0)
    }

    fn check_footer(&mut self) -> Result<()> {
        let begin = self.at;
        let footer = self.take(FOOTER_BYTES)?;
        let mut cursor = Cursor(&footer);
        let whole =
            cursor.u64() == Some(self.total) && cursor.u32() == Some(self.sums.clone().finalize());
        if whole && self.at == self.len {
            Ok(())
        } else {
            Err(corrupt(&*self.file, begin, "the footer does not match"))
        }
    }
}

impl Read for SnapshotReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.used == self.chunk.len() && !self.next_chunk().map_err(StorageError::into_io)? {
            return Ok(0);
        }
        let len = buf.len().min(self.chunk.len() - self.used);
        buf[..len].copy_from_slice(&self.chunk[self.used..self.used + len]);
        self.used += len;
        Ok(len)
    }
}

struct Head {
    index: u64,
    meta: Vec<u8>,
}

/// Reads the head; also says where the chunks begin.
fn read_head(file: &dyn DiskFile) -> Result<(Head, u64)> {
    const FIXED: usize = 8 + 4 + 8 + 4;
    let len = file.len()?;
    let cut = || corrupt(file, len, "the snapshot is cut short");
    if len < FIXED as u64 {
        return Err(cut());
    }
    let mut head = vec![0; FIXED];
    file.read_at(0, &mut head)?;
    if &head[..8] != MAGIC {
        return Err(corrupt(file, 0, "the file does not begin with its mark"));
    }
    let meta_len = Cursor(&head[20..]).u32().unwrap_or(u32::MAX) as usize;
    if meta_len > MAX_META_BYTES {
        return Err(corrupt(
            file,
            20,
            "the description is longer than descriptions are",
        ));
    }
    if len < (FIXED + meta_len + 4) as u64 {
        return Err(cut());
    }
    let mut rest = vec![0; meta_len + 4];
    file.read_at(FIXED as u64, &mut rest)?;
    let sum = rest.split_off(meta_len);
    head.extend_from_slice(&rest);
    if crc32fast::hash(&head).to_le_bytes() != sum[..] {
        return Err(corrupt(file, 0, "the checksum of the head does not match"));
    }
    let mut cursor = Cursor(&head[8..20]);
    let (version, index) = (cursor.u32().unwrap_or(u32::MAX), cursor.u64().unwrap_or(0));
    if version != VERSION {
        return Err(StorageError::Newer {
            file: file.name().to_owned(),
            found: version,
            supported: VERSION,
        });
    }
    Ok((Head { index, meta: rest }, (FIXED + meta_len + 4) as u64))
}

fn corrupt(file: &dyn DiskFile, offset: u64, what: &str) -> StorageError {
    StorageError::Corrupt {
        file: file.name().to_owned(),
        offset,
        what: what.to_owned(),
        remedy: REMEDY,
    }
}

fn index_of(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("snap-")?.strip_suffix(".snap")?;
    (digits.len() == 16)
        .then(|| u64::from_str_radix(digits, 16).ok())
        .flatten()
}
