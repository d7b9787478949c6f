//! The durable log: numbered entries, appended in batches, one `fdatasync` per batch.
//!
//! Segments (`log-<number>.seg`) are preallocated and consist of sectors (see `sector`). A record is a
//! batch of entries, a cut, a purge or a checkpoint; it begins at a sector of its own, so durable
//! sectors are never written again, and it carries the checksum of the record before (a chain). At most one
//! record is on its way to the disk at any time. From that follows how a damaged file is read: an
//! incomplete record is a *torn tail*, and dropped, only if its missing sectors are blank and nothing was
//! written after it; everything else is damage, and an error. What was acknowledged cannot be dropped
//! unless whole sectors at the very end turn to zeros after a crash: [`Log::close`] leaves a note of the end which makes even
//! that visible after a clean stop.
//!
//! Cuts and purges are records too: nothing is ever overwritten, so there is no moment at which a
//! crash could bring back cut entries or lose kept ones. Purged segments are removed as whole files.

mod end;
mod record;
mod replay;
mod segment;
mod space;

use crate::disk::{Disk, DiskFile, join};
use crate::sector::{self, SECTOR_BYTES};
use crate::{Result, StorageError};
pub use record::Purged;
use record::{Kind, MAX_MARK_BYTES, MAX_META_BYTES, RECORD_HEAD_BYTES, RecordHead};
use space::Spare;
use std::collections::VecDeque;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// Largest entry, in bytes.
pub const MAX_ENTRY_BYTES: u64 = 32 * 1024 * 1024;
/// Most bytes of entries in one record; larger batches become several records, each synced.
const MAX_RECORD_BYTES: usize = 40 * 1024 * 1024;

/// Settings of a log.
#[derive(Debug, Clone)]
pub struct LogOptions {
    /// Size of a segment file in bytes, taken from the disk when the segment is begun.
    pub segment_bytes: u64,
    /// Bugs switched on by tests.
    #[cfg(any(test, feature = "testing"))]
    pub bugs: crate::Bugs,
}

impl LogOptions {
    /// Options with this size of segments, in bytes.
    #[must_use]
    pub fn new(segment_bytes: u64) -> Self {
        Self {
            segment_bytes,
            #[cfg(any(test, feature = "testing"))]
            bugs: crate::Bugs::default(),
        }
    }

    /// The same with bugs switched on.
    #[cfg(any(test, feature = "testing"))]
    #[must_use]
    pub fn with_bugs(mut self, bugs: crate::Bugs) -> Self {
        self.bugs = bugs;
        self
    }
}

impl Default for LogOptions {
    fn default() -> Self {
        Self::new(8 * 1024 * 1024)
    }
}

/// A write that a crash cut off, found and removed when the log was opened. It was never acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TornTail {
    /// The segment file.
    pub file: String,
    /// Where the torn record began, in bytes.
    pub offset: u64,
    /// Length of what was removed, in bytes.
    pub bytes: u64,
}

/// What opening the log had to do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogRecovery {
    /// A torn tail that was removed.
    pub torn: Option<TornTail>,
}

/// Where the entries `first..first + count` are stored.
#[derive(Debug, Clone, Copy)]
struct Place {
    first: u64,
    count: u32,
    seq: u64,
    start: u32,
    sectors: u32,
}

impl Place {
    fn end(&self) -> u64 {
        self.first + u64::from(self.count)
    }
}

struct Segment {
    seq: u64,
    path: String,
    file: Box<dyn DiskFile>,
    /// Size of the file, in sectors.
    sectors: u32,
}

/// The log. Calls that change it return when the change is durable.
pub struct Log {
    disk: Arc<dyn Disk>,
    dir: String,
    options: LogOptions,
    segments: VecDeque<Segment>,
    places: VecDeque<Place>,
    spare: Option<Spare>,
    purged: Option<Purged>,
    meta: Vec<u8>,
    next: u64,
    /// Checksum of the last record.
    chain: u32,
    /// Sector of the last segment at which the next record goes.
    end: u32,
    /// A failed write may have left something up to here behind `end`.
    dirty_end: u32,
    /// The end at the last clean stop, as noted on the disk.
    noted: Option<end::End>,
    failed: Option<String>,
    record: Vec<u8>,
    buffer: Vec<u8>,
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Log({} {}..{}, {} segments)",
            self.dir,
            self.first_index(),
            self.next,
            self.segments.len()
        )
    }
}

impl Log {
    /// Opens the log of a directory, making it when there is none. Reads and checks every record before anything
    /// is written; a damaged or newer log is left as it was.
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &str,
        options: LogOptions,
    ) -> Result<(Self, LogRecovery)> {
        disk.create_dir_all(dir)?;
        let mut log = Self {
            disk,
            dir: dir.to_owned(),
            options,
            segments: VecDeque::new(),
            places: VecDeque::new(),
            spare: None,
            purged: None,
            meta: Vec::new(),
            next: 0,
            chain: 0,
            end: 0,
            dirty_end: 0,
            noted: None,
            failed: None,
            record: Vec::new(),
            buffer: Vec::new(),
        };
        let recovery = log.replay()?;
        Ok((log, recovery))
    }

    /// The first index that can be read (equal to [`Log::next_index`] when there is none).
    #[must_use]
    pub fn first_index(&self) -> u64 {
        self.purged
            .as_ref()
            .map_or(0, |purged| purged.index + 1)
            .max(self.places.front().map_or(0, |place| place.first))
    }

    /// The index that the next entry gets.
    #[must_use]
    pub fn next_index(&self) -> u64 {
        self.next
    }

    /// What was purged.
    #[must_use]
    pub fn purged(&self) -> Option<&Purged> {
        self.purged.as_ref()
    }

    /// Disk space taken, in bytes.
    #[must_use]
    pub fn disk_bytes(&self) -> u64 {
        self.segments
            .iter()
            .map(|segment| u64::from(segment.sectors) * SECTOR_BYTES as u64)
            .sum()
    }

    /// Number of segment files.
    #[must_use]
    pub fn segment_count(&self) -> usize {
        self.segments.len()
    }

    /// Appends entries durably; the first gets index `first`, which must be [`Log::next_index`]. After [`StorageError::Full`]
    /// nothing was appended and it may be tried again; after other errors the log has to be opened anew.
    pub fn append<B: AsRef<[u8]>>(&mut self, first: u64, entries: &[B]) -> Result<()> {
        if first != self.next {
            return Err(self.out_of_range("appended", first));
        }
        if let Some(large) = entries
            .iter()
            .map(|entry| entry.as_ref().len() as u64)
            .find(|len| *len > MAX_ENTRY_BYTES)
        {
            return Err(StorageError::TooLarge {
                what: "log entry",
                found: large,
                limit: MAX_ENTRY_BYTES,
            });
        }
        let mut rest = entries;
        while !rest.is_empty() {
            let mut bytes = 0;
            let fitting = rest.iter().take_while(|entry| {
                bytes += entry.as_ref().len() + 4;
                bytes <= MAX_RECORD_BYTES
            });
            let (now, later) = rest.split_at(fitting.count().max(1));
            self.append_record(now)?;
            rest = later;
        }
        Ok(())
    }

    fn append_record<B: AsRef<[u8]>>(&mut self, entries: &[B]) -> Result<()> {
        let count = u32::try_from(entries.len()).unwrap_or(u32::MAX);
        let body_len: usize = entries.iter().map(|entry| entry.as_ref().len() + 4).sum();
        let mut record = std::mem::take(&mut self.record);
        self.begin_record(&mut record, Kind::Entries, self.next, count, body_len);
        for entry in entries {
            sector::put_prefixed(&mut record, entry.as_ref());
        }
        let written = self.write_record(&record);
        self.record = record;
        let (seq, start, sectors) = written?;
        self.places.push_back(Place {
            first: self.next,
            count,
            seq,
            start,
            sectors,
        });
        self.next += u64::from(count);
        Ok(())
    }

    /// Reads the entries of a range. Stops early, but after at least one entry, once they have `max_bytes`.
    pub fn read(&self, range: Range<u64>, max_bytes: usize) -> Result<Vec<Vec<u8>>> {
        if range.is_empty() {
            return Ok(Vec::new());
        }
        if range.start < self.first_index() {
            return Err(self.out_of_range("read", range.start));
        }
        if range.end > self.next {
            return Err(self.out_of_range("read", range.end - 1));
        }
        let mut out = Vec::new();
        let mut bytes = 0;
        let from = self
            .places
            .partition_point(|place| place.end() <= range.start);
        for place in self.places.range(from..) {
            if place.first >= range.end || (bytes >= max_bytes && !out.is_empty()) {
                break;
            }
            let segment = self.segment(place.seq)?;
            let (head, body) =
                segment::read_record(&*segment.file, place.seq, place.start, place.sectors)?;
            let entries = record::entries(head.count, &body)
                .filter(|_| head.kind == Kind::Entries && head.index == place.first)
                .ok_or_else(|| {
                    segment::corrupt(
                        segment.file.name(),
                        u64::from(place.start) * SECTOR_BYTES as u64,
                        "the record is another one",
                    )
                })?;
            for (index, entry) in (place.first..place.end()).zip(entries) {
                if range.contains(&index) && (bytes < max_bytes || out.is_empty()) {
                    bytes += entry.len();
                    out.push(entry.to_vec());
                }
            }
        }
        Ok(out)
    }

    /// Makes the entries from `from` on void, durably.
    pub fn cut_from(&mut self, from: u64) -> Result<()> {
        if from >= self.next {
            return Ok(());
        }
        if from < self.first_index() {
            return Err(self.out_of_range("cut", from));
        }
        self.write_mark(Kind::Cut, from, &[])?;
        self.cut_places(from);
        Ok(())
    }

    /// Forgets entries up to `upto`, durably, and removes the files that hold nothing else. `mark` is kept with
    /// it and comes back from [`Log::purged`]. May go beyond the last entry: the log is empty then and goes on behind `upto`.
    pub fn purge_upto(&mut self, upto: u64, mark: &[u8]) -> Result<()> {
        if mark.len() > MAX_MARK_BYTES {
            return Err(StorageError::TooLarge {
                what: "purge mark",
                found: mark.len() as u64,
                limit: MAX_MARK_BYTES as u64,
            });
        }
        if self
            .purged
            .as_ref()
            .is_some_and(|purged| purged.index >= upto)
        {
            return Ok(());
        }
        self.write_mark(Kind::Purge, upto, mark)?;
        self.purge_places(Purged {
            index: upto,
            mark: mark.to_vec(),
        });
        self.remove_unused()
    }

    /// The value last set by [`Log::set_meta`]; empty when it never was.
    #[must_use]
    pub fn meta(&self) -> &[u8] {
        &self.meta
    }

    /// Stores a small value beside the entries (the vote, say), durably and in order with them.
    pub fn set_meta(&mut self, meta: &[u8]) -> Result<()> {
        if meta.len() > MAX_META_BYTES {
            return Err(StorageError::TooLarge {
                what: "log meta",
                found: meta.len() as u64,
                limit: MAX_META_BYTES as u64,
            });
        }
        self.write_mark(Kind::Meta, self.next, meta)?;
        self.meta = meta.to_vec();
        Ok(())
    }

    fn cut_places(&mut self, from: u64) {
        while self.places.back().is_some_and(|place| place.first >= from) {
            self.places.pop_back();
        }
        if let Some(last) = self.places.back_mut() {
            last.count = last
                .count
                .min(u32::try_from(from - last.first).unwrap_or(u32::MAX));
        }
        self.next = from;
    }

    fn purge_places(&mut self, purged: Purged) {
        while self
            .places
            .front()
            .is_some_and(|place| place.end() <= purged.index + 1)
        {
            self.places.pop_front();
        }
        self.next = self.next.max(purged.index + 1);
        self.purged = Some(purged);
    }

    /// Removes segments before the first that is needed, oldest first.
    fn remove_unused(&mut self) -> Result<()> {
        let last = self.segments.back().map_or(0, |segment| segment.seq);
        let needed = self.places.front().map_or(last, |place| place.seq);
        let mut removed = false;
        while self
            .segments
            .front()
            .is_some_and(|segment| segment.seq < needed)
        {
            if let Some(segment) = self.segments.pop_front() {
                self.disk.remove(&segment.path)?;
                removed = true;
            }
        }
        // Not needed for correctness (they would be skipped at the next start), but the space is to come back.
        if removed {
            self.disk.sync_dir(&self.dir)
        } else {
            Ok(())
        }
    }

    fn segment(&self, seq: u64) -> Result<&Segment> {
        let base = self.segments.front().map_or(0, |segment| segment.seq);
        self.segments
            .get(usize::try_from(seq - base).unwrap_or(usize::MAX))
            .ok_or_else(|| {
                segment::corrupt(&segment_path(&self.dir, seq), 0, "the segment is gone")
            })
    }

    fn out_of_range(&self, op: &'static str, index: u64) -> StorageError {
        StorageError::OutOfRange {
            op,
            index,
            first: self.first_index(),
            next: self.next,
        }
    }

    fn begin_record(&self, out: &mut Vec<u8>, kind: Kind, index: u64, count: u32, body_len: usize) {
        out.clear();
        out.reserve(RECORD_HEAD_BYTES + body_len);
        let body_len = u32::try_from(body_len).unwrap_or(u32::MAX);
        RecordHead {
            kind,
            body_len,
            count,
            index,
            prev_chain: self.chain,
        }
        .put(out);
    }

    fn write_mark(&mut self, kind: Kind, index: u64, body: &[u8]) -> Result<()> {
        let mut record = Vec::new();
        self.begin_record(&mut record, kind, index, 0, body.len());
        record.extend_from_slice(body);
        self.write_record(&record).map(drop)
    }

    /// Writes and syncs one record; says where it is (segment, sector, number of sectors).
    fn write_record(&mut self, record: &[u8]) -> Result<(u64, u32, u32)> {
        if let Some(reason) = &self.failed {
            return Err(StorageError::Failed {
                file: self.disk.describe(&self.dir),
                reason: reason.clone(),
            });
        }
        let result = self.try_write_record(record);
        if let Err(error) = result.as_ref()
            && !error.is_full()
        {
            // After a failed sync the kernel may have dropped the pages: nothing can be said about them any more.
            self.failed = Some(error.to_string());
        }
        result
    }

    fn try_write_record(&mut self, record: &[u8]) -> Result<(u64, u32, u32)> {
        let sectors = u32::try_from(sector::sectors_for(record.len())).unwrap_or(u32::MAX);
        let room = self
            .segments
            .back()
            .map_or(0, |segment| segment.sectors.saturating_sub(self.end));
        if room < sectors {
            self.begin_segment(sectors)?;
        }
        self.blank_leftovers()?;
        let Some(segment) = self.segments.back() else {
            return Err(self.out_of_range("appended", self.next));
        };
        let mut buffer = std::mem::take(&mut self.buffer);
        sector::encode(&mut buffer, segment.seq, self.end, record);
        // Until it is synced, this is a leftover.
        self.dirty_end = self.end + sectors;
        let written = segment
            .file
            .write_at(u64::from(self.end) * SECTOR_BYTES as u64, &buffer);
        if buffer.capacity() > KEPT_BUFFER_BYTES {
            buffer = Vec::new();
        }
        self.buffer = buffer;
        written?;
        #[cfg(any(test, feature = "testing"))]
        let skip_sync = self.options.bugs.skip_sync;
        #[cfg(not(any(test, feature = "testing")))]
        let skip_sync = false;
        if !skip_sync {
            segment.file.sync_data().map_err(unknown_state)?;
        }
        let place = (segment.seq, self.end, sectors);
        self.chain = crc32fast::hash(record);
        self.end += sectors;
        self.dirty_end = self.end;
        Ok(place)
    }

    /// Turns what a failed write left behind `end` into zeros again.
    fn blank_leftovers(&mut self) -> Result<()> {
        if self.dirty_end <= self.end {
            return Ok(());
        }
        if let Some(segment) = self.segments.back() {
            let zeros =
                vec![0; (self.dirty_end.min(segment.sectors) - self.end) as usize * SECTOR_BYTES];
            segment
                .file
                .write_at(u64::from(self.end) * SECTOR_BYTES as u64, &zeros)?;
            segment.file.sync_data().map_err(unknown_state)?;
        }
        self.dirty_end = self.end;
        Ok(())
    }
}

/// Larger write buffers are not kept between appends, in bytes.
const KEPT_BUFFER_BYTES: usize = 1024 * 1024;

/// A sync that found the disk full has left it unknown what is stored: that is no error to go on after.
fn unknown_state(error: StorageError) -> StorageError {
    match error {
        StorageError::Full { op, file } => StorageError::Io {
            op,
            file,
            source: std::io::ErrorKind::StorageFull.into(),
        },
        other => other,
    }
}

fn segment_path(dir: &str, seq: u64) -> String {
    join(dir, &format!("log-{seq:016x}.seg"))
}

fn segment_seq(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("log-")?.strip_suffix(".seg")?;
    (digits.len() == 16)
        .then(|| u64::from_str_radix(digits, 16).ok())
        .flatten()
}
