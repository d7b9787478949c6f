//! The log and the vote, as openraft wants them.

use crate::error::RaftError;
use crate::fair;
use crate::io::Op;
use crate::metrics::Meter;
use crate::snapshots::Snapshots;
use crate::types::{Entry, LogId, Types, Vote};
use crate::view::View;
use crate::wire::Wire;
use futures::Stream;
use openraft::storage::{IOFlushed, LogState, RaftLogStorage};
use openraft::{OptionalSend, RaftLogReader};
use std::collections::VecDeque;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, Range, RangeBounds};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{mpsc, oneshot};
use warren_storage::Log;

/// Memory for entries that were written lately, in bytes. What is not yet written stays whatever the size.
const CACHE_BYTES: usize = 4 * 1024 * 1024;
/// Entries read at once (and so at most in one message to a follower, save that one entry is always taken), in bytes.
const READ_BYTES: usize = 1024 * 1024;

/// The newest entries.
#[derive(Default)]
struct Cache {
    /// Index of the first entry in memory.
    first: u64,
    entries: VecDeque<(Entry, usize)>,
    bytes: usize,
    /// Index after the last entry that is on disk.
    flushed: u64,
    last: Option<LogId>,
    purged: Option<LogId>,
    vote: Option<Vote>,
}

impl Cache {
    fn next(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    fn shrink(&mut self) {
        while self.bytes > CACHE_BYTES && self.first < self.flushed {
            let Some((_, size)) = self.entries.pop_front() else {
                break;
            };
            self.bytes -= size;
            self.first += 1;
        }
    }
}

/// What the store, its readers and the writer share.
pub(crate) struct LogShared {
    log: Mutex<Log>,
    cache: Mutex<Cache>,
    view: Arc<View>,
    /// Whether there is space for the next segment.
    room: AtomicBool,
    /// Whether the writer waits for space with requests in its hands.
    held: fair::Sender<bool>,
    pub(crate) stopping: AtomicBool,
    log_bytes: Arc<AtomicU64>,
    pub(crate) meter: Arc<Meter>,
    #[cfg(any(test, feature = "testing"))]
    pub(crate) lab: crate::testing::Lab,
}

impl LogShared {
    pub(crate) fn new(
        log: Log,
        view: Arc<View>,
        log_bytes: Arc<AtomicU64>,
        meter: Arc<Meter>,
        #[cfg(any(test, feature = "testing"))] lab: crate::testing::Lab,
    ) -> Result<Self, RaftError> {
        let unreadable = |what, index: u64| RaftError::Unreadable {
            what,
            place: format!("the log at index {index}"),
            reason: "it is not a message of this release".to_owned(),
        };
        let mut cache = Cache {
            first: log.next_index(),
            flushed: log.next_index(),
            ..Cache::default()
        };
        if let Some(purged) = log.purged() {
            let id = LogId::decode(purged.mark.clone().into())
                .map_err(|_| unreadable("purge mark", purged.index))?;
            cache.purged = Some(id);
            cache.last = Some(id);
        }
        if log.next_index() > log.first_index() {
            let index = log.next_index() - 1;
            let last = log
                .read(index..index + 1, usize::MAX)?
                .pop()
                .unwrap_or_default();
            cache.last = Some(
                Entry::decode(last.into())
                    .map_err(|_| unreadable("entry", index))?
                    .log_id,
            );
        }
        if !log.meta().is_empty() {
            cache.vote = Some(
                Vote::decode(log.meta().to_vec().into())
                    .map_err(|_| unreadable("vote", log.next_index()))?,
            );
        }
        let shared = Self {
            log: Mutex::new(log),
            cache: Mutex::new(cache),
            view,
            room: AtomicBool::new(true),
            held: fair::Sender::new(false),
            stopping: AtomicBool::new(false),
            log_bytes,
            meter,
            #[cfg(any(test, feature = "testing"))]
            lab,
        };
        shared.update_sizes();
        Ok(shared)
    }

    pub(crate) fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn cache(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn flushed(&self, next: u64) {
        #[cfg(any(test, feature = "testing"))]
        self.lab.flushed(next);
        let mut cache = self.cache();
        cache.flushed = next;
        cache.shrink();
    }

    pub(crate) fn has_room(&self) -> bool {
        self.room.load(Ordering::Acquire)
    }

    /// Sets whether there is room; true when that is news.
    pub(crate) fn set_room(&self, room: bool) -> bool {
        self.room.swap(room, Ordering::AcqRel) != room
    }

    pub(crate) fn no_room(&self) {
        if self.set_room(false) {
            tracing::warn!("the disk is full: changes are refused until there is space");
        }
    }

    pub(crate) fn set_held(&self, held: bool) {
        self.held
            .send_if_modified(|value| std::mem::replace(value, held) != held);
    }

    pub(crate) fn held(&self) -> fair::Receiver<bool> {
        self.held.subscribe()
    }

    pub(crate) fn fail(&self, reason: &str) {
        tracing::error!(
            reason,
            "the log cannot be written, consensus stops on this node"
        );
        self.view.fail(reason);
    }

    pub(crate) fn update_sizes(&self) {
        let bytes = self.log().disk_bytes();
        self.log_bytes.store(bytes, Ordering::Release);
    }

    /// Disk space taken by the log, in bytes.
    pub(crate) fn log_bytes(&self) -> u64 {
        self.log_bytes.load(Ordering::Acquire)
    }

    /// Index of the last entry.
    pub(crate) fn last_index(&self) -> Option<u64> {
        self.cache().last.map(|last| last.index)
    }

    /// Index up to which the log was purged.
    pub(crate) fn purged_index(&self) -> Option<u64> {
        self.cache().purged.map(|purged| purged.index)
    }

    /// Tells what was found on the disk.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn tell_start(
        &self,
        healing: bool,
        found: Option<&crate::snapshots::Candidate>,
    ) -> Result<(), RaftError> {
        let Some(observer) = &self.lab.observer else {
            return Ok(());
        };
        let log = self.log();
        let records = log.read(log.first_index()..log.next_index(), usize::MAX)?;
        drop(log);
        let entries: Vec<_> = records
            .into_iter()
            .filter_map(|record| Entry::decode(record.into()).ok())
            .map(|entry| crate::testing::entry_info(&entry))
            .collect();
        let cache = self.cache();
        let snapshot = found.and_then(|found| {
            let last = found.meta.last_log_id.as_ref()?;
            Some((crate::testing::entry_id(last), &found.state))
        });
        observer.started(
            healing,
            cache.purged.as_ref().map(crate::testing::entry_id),
            &entries,
            cache.vote.as_ref().map(crate::testing::vote_info),
            snapshot,
        );
        Ok(())
    }

    /// Entries of a range, at most about [`READ_BYTES`] of them when they come from disk.
    fn read_some(&self, range: Range<u64>) -> io::Result<Vec<Entry>> {
        let on_disk_end = {
            let cache = self.cache();
            if range.start >= cache.first {
                let skip = usize::try_from(range.start - cache.first).unwrap_or(usize::MAX);
                let count =
                    usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(usize::MAX);
                let mut bytes = 0;
                return Ok(cache
                    .entries
                    .iter()
                    .skip(skip)
                    .take(count)
                    .take_while(|(_, size)| {
                        let first = bytes == 0;
                        bytes += size;
                        first || bytes <= READ_BYTES
                    })
                    .map(|(entry, _)| entry.clone())
                    .collect());
            }
            range.end.min(cache.first)
        };
        let log = self.log();
        let start = range.start.max(log.first_index());
        if start >= on_disk_end {
            return Ok(Vec::new());
        }
        let records = log.read(start..on_disk_end, READ_BYTES).map_err(|error| {
            self.fail(&error.to_string());
            error.into_io()
        })?;
        drop(log);
        let decode = |record: Vec<u8>| {
            Entry::decode(record.into()).map_err(|_| {
                self.fail("a log entry is not a message of this release");
                io::Error::from(io::ErrorKind::InvalidData)
            })
        };
        records.into_iter().map(decode).collect()
    }

    fn clip(&self, range: &impl RangeBounds<u64>) -> Range<u64> {
        let start = match range.start_bound() {
            Bound::Included(start) => *start,
            Bound::Excluded(start) => start + 1,
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(end) => end + 1,
            Bound::Excluded(end) => *end,
            Bound::Unbounded => u64::MAX,
        };
        let cache = self.cache();
        start.max(cache.purged.map_or(0, |purged| purged.index + 1))..end.min(cache.next())
    }
}

/// The log store of openraft; also its reader.
#[derive(Clone)]
pub(crate) struct LogStore {
    pub(crate) shared: Arc<LogShared>,
    snapshots: Arc<Snapshots>,
    ops: mpsc::UnboundedSender<Op>,
}

impl LogStore {
    pub(crate) fn new(
        shared: Arc<LogShared>,
        snapshots: Arc<Snapshots>,
        ops: mpsc::UnboundedSender<Op>,
    ) -> Self {
        Self {
            shared,
            snapshots,
            ops,
        }
    }

    fn send(&self, op: Op) -> io::Result<()> {
        self.ops
            .send(op)
            .map_err(|_| io::Error::other("the writer of the log has ended"))
    }

    async fn request(
        &self,
        op: impl FnOnce(oneshot::Sender<io::Result<()>>) -> Op,
    ) -> io::Result<()> {
        let (done, answer) = oneshot::channel();
        self.send(op(done))?;
        answer
            .await
            .unwrap_or_else(|_| Err(io::Error::other("the writer of the log has ended")))
    }

    /// Asks the writer to look for space; whether there is some.
    pub(crate) async fn probe(&self) -> bool {
        let (done, answer) = oneshot::channel();
        self.send(Op::Probe { done }).is_ok() && answer.await.unwrap_or(false)
    }

    /// Notes the end of the log and ends the writer.
    pub(crate) async fn close(&self) {
        let (done, answer) = oneshot::channel();
        if self.send(Op::Close { done }).is_ok() {
            // An error means that the writer has ended already.
            let _ = answer.await;
        }
    }
}

impl RaftLogReader<Types> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        let mut range = self.shared.clip(&range);
        let mut entries = Vec::new();
        while range.start < range.end {
            let some = self.shared.read_some(range.clone())?;
            if some.is_empty() {
                break;
            }
            range.start += some.len() as u64;
            entries.extend(some);
        }
        Ok(entries)
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<Entry>, io::Error> {
        self.shared.read_some(self.shared.clip(&(start..end)))
    }

    async fn entries_stream<RB>(
        &mut self,
        range: RB,
    ) -> impl Stream<Item = Result<Entry, io::Error>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let shared = Arc::clone(&self.shared);
        let mut range = shared.clip(&range);
        let mut waiting = VecDeque::new();
        futures::stream::iter(std::iter::from_fn(move || {
            if waiting.is_empty() && range.start < range.end {
                match shared.read_some(range.clone()) {
                    Ok(some) => {
                        range.start += some.len() as u64;
                        waiting.extend(some);
                    }
                    Err(error) => {
                        range.start = range.end;
                        return Some(Err(error));
                    }
                }
            }
            waiting.pop_front().map(Ok)
        }))
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.shared.cache().vote)
    }
}

impl RaftLogStorage<Types> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, io::Error> {
        let cache = self.shared.cache();
        Ok(LogState {
            last_purged_log_id: cache.purged,
            last_log_id: cache.last,
        })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        #[cfg(any(test, feature = "testing"))]
        self.shared.lab.voted(vote);
        let bytes = vote.encode();
        self.request(|done| Op::Vote { bytes, done }).await?;
        self.shared.cache().vote = Some(*vote);
        Ok(())
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut records = Vec::new();
        #[cfg(any(test, feature = "testing"))]
        let mut told = Vec::new();
        let mut cache = self.shared.cache();
        let first = cache.next();
        for entry in entries {
            #[cfg(any(test, feature = "testing"))]
            told.push(crate::testing::entry_info(&entry));
            let record = entry.encode();
            cache.last = Some(entry.log_id);
            cache.bytes += record.len();
            cache.entries.push_back((entry, record.len()));
            records.push(record);
        }
        drop(cache);
        #[cfg(any(test, feature = "testing"))]
        self.shared.lab.appended(&told);
        self.send(Op::Append {
            first,
            records,
            done: vec![callback],
        })
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        let from = last.map_or(0, |last| last.index + 1);
        {
            let mut cache = self.shared.cache();
            while cache.next() > from {
                let Some((_, size)) = cache.entries.pop_back() else {
                    break;
                };
                cache.bytes -= size;
            }
            if cache.entries.is_empty() {
                cache.first = cache.first.min(from);
            }
            cache.last = last;
        }
        #[cfg(any(test, feature = "testing"))]
        self.shared.lab.cut(from);
        self.request(|done| Op::Cut { from, done }).await?;
        #[cfg(any(test, feature = "testing"))]
        self.shared.lab.cut(from);
        // Only now: appends that were under way have reported themselves flushed before the cut was done.
        let mut cache = self.shared.cache();
        cache.flushed = cache.flushed.min(from);
        Ok(())
    }

    async fn purge(&mut self, id: LogId) -> Result<(), io::Error> {
        let beyond_the_end = self
            .shared
            .cache()
            .last
            .is_none_or(|last| id.index > last.index);
        // Kept back to the older snapshot, unless the log has a hole behind which it must begin anew.
        let upto = if beyond_the_end {
            Some(id)
        } else {
            self.snapshots
                .log_not_needed_upto()
                .map(|older| older.min(id))
        };
        let Some(upto) = upto else { return Ok(()) };
        self.request(|done| Op::Purge { upto, done }).await?;
        #[cfg(any(test, feature = "testing"))]
        self.shared.lab.purged(&upto);
        let mut cache = self.shared.cache();
        if cache.purged.is_none_or(|purged| purged < upto) {
            cache.purged = Some(upto);
        }
        if beyond_the_end {
            cache.entries.clear();
            cache.bytes = 0;
            cache.first = upto.index + 1;
            cache.flushed = upto.index + 1;
            cache.last = Some(upto);
        }
        Ok(())
    }
}
