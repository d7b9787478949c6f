//! The one writer of the log.
//!
//! Requests come through a queue, so that they reach the disk in the order in which openraft made them. All appends
//! that wait become one append and one sync. When the disk is full the writer holds what it has and tries again: nothing
//! that openraft believes to be under way is dropped.

use crate::log_store::LogShared;
use crate::types::{LogId, Types};
use crate::wire::Wire;
use openraft::storage::IOFlushed;
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use warren_storage::StorageError;

/// Most bytes of entries written with one sync.
const MAX_BATCH_BYTES: usize = 4 * 1024 * 1024;
/// Time between attempts on a full disk.
const FULL_RETRY: Duration = Duration::from_millis(200);

type Done = oneshot::Sender<io::Result<()>>;

/// A request to the writer.
pub(crate) enum Op {
    /// Append entries from index `first` on.
    Append {
        first: u64,
        records: Vec<Vec<u8>>,
        done: Vec<IOFlushed<Types>>,
    },
    /// Store the vote.
    Vote { bytes: Vec<u8>, done: Done },
    /// Cut the log from an index on.
    Cut { from: u64, done: Done },
    /// Purge the log up to an entry.
    Purge { upto: LogId, done: Done },
    /// Look whether there is room again.
    Probe { done: oneshot::Sender<bool> },
    /// Leave a note of the end, and end.
    Close { done: oneshot::Sender<()> },
}

#[derive(Debug, PartialEq, Eq)]
enum Step {
    Done,
    /// The disk is full; what was taken waits at the front of the queue.
    Held,
    Closed,
}

/// The writer.
pub(crate) struct Writer {
    shared: Arc<LogShared>,
    ops: mpsc::UnboundedReceiver<Op>,
    waiting: VecDeque<Op>,
}

impl Writer {
    pub(crate) fn new(shared: Arc<LogShared>, ops: mpsc::UnboundedReceiver<Op>) -> Self {
        Self {
            shared,
            ops,
            waiting: VecDeque::new(),
        }
    }

    /// Runs on a thread of its own until closed.
    pub(crate) fn run_thread(mut self) {
        loop {
            if self.waiting.is_empty() {
                match self.ops.blocking_recv() {
                    Some(op) => self.waiting.push_back(op),
                    None => return,
                }
            }
            match self.step() {
                Step::Done => {}
                Step::Held => std::thread::sleep(FULL_RETRY),
                Step::Closed => return,
            }
        }
    }

    /// Runs as a task until closed.
    pub(crate) async fn run_task(mut self) {
        loop {
            if self.waiting.is_empty() {
                match self.ops.recv().await {
                    Some(op) => self.waiting.push_back(op),
                    None => return,
                }
            }
            // As with a thread, others go on meanwhile and may add to the batch.
            tokio::task::yield_now().await;
            #[cfg(any(test, feature = "testing"))]
            self.shared.lab.slow().await;
            #[cfg(any(test, feature = "testing"))]
            if self.shared.lab.bugs.acknowledge_before_sync {
                self.acknowledge_first();
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            match self.step() {
                Step::Done => {}
                Step::Held => tokio::time::sleep(FULL_RETRY).await,
                Step::Closed => return,
            }
        }
    }

    /// The planted bug: says that appends are durable before they are.
    #[cfg(any(test, feature = "testing"))]
    fn acknowledge_first(&mut self) {
        self.fill();
        for op in &mut self.waiting {
            if let Op::Append { done, .. } = op {
                done.drain(..).for_each(|done| done.io_completed(Ok(())));
            }
        }
    }

    fn fill(&mut self) {
        while let Ok(op) = self.ops.try_recv() {
            self.waiting.push_back(op);
        }
    }

    fn step(&mut self) -> Step {
        self.fill();
        let Some(op) = self.waiting.pop_front() else {
            return Step::Done;
        };
        let step = match op {
            Op::Append {
                first,
                records,
                done,
            } => self.append(first, records, done),
            Op::Vote { bytes, done } => {
                #[cfg(any(test, feature = "testing"))]
                if self.shared.lab.bugs.vote_not_persisted {
                    return self.finish(Ok(()), done, |done| Op::Vote { bytes, done });
                }
                let result = self.shared.log().set_meta(&bytes);
                self.finish(result, done, |done| Op::Vote { bytes, done })
            }
            Op::Cut { from, done } => {
                #[cfg(any(test, feature = "testing"))]
                if self.shared.lab.bugs.cut_not_persisted {
                    return self.finish(Ok(()), done, |done| Op::Cut { from, done });
                }
                let result = self.shared.log().cut_from(from);
                self.finish(result, done, |done| Op::Cut { from, done })
            }
            Op::Purge { upto, done } => {
                let result = self.shared.log().purge_upto(upto.index, &upto.encode());
                self.finish(result, done, |done| Op::Purge { upto, done })
            }
            Op::Probe { done } => {
                self.look_for_room();
                // Whoever asked may have given up.
                let _ = done.send(self.shared.has_room());
                Step::Done
            }
            Op::Close { done } => {
                if let Err(error) = self.shared.log().close() {
                    tracing::warn!(%error, "cannot note the end of the log; nothing is lost");
                }
                self.give_up("the engine was stopped");
                let _ = done.send(());
                return Step::Closed;
            }
        };
        self.shared.update_sizes();
        if step == Step::Held && self.shared.stopping.load(Ordering::Acquire) {
            let closing = self.give_up("the engine was stopped while the disk was full");
            return if closing { Step::Closed } else { Step::Done };
        }
        self.shared.set_held(step == Step::Held);
        step
    }

    fn append(&mut self, first: u64, records: Vec<Vec<u8>>, done: Vec<IOFlushed<Types>>) -> Step {
        let mut bytes: usize = records.iter().map(Vec::len).sum();
        let mut batch = records;
        let mut answers = done;
        while bytes < MAX_BATCH_BYTES {
            match self.waiting.pop_front() {
                Some(Op::Append {
                    first: next,
                    records,
                    done,
                }) if next == first + batch.len() as u64 => {
                    bytes += records.iter().map(Vec::len).sum::<usize>();
                    batch.extend(records);
                    answers.extend(done);
                }
                Some(other) => {
                    self.waiting.push_front(other);
                    break;
                }
                None => break,
            }
        }
        let begin = Instant::now();
        let result = self.shared.log().append(first, &batch);
        self.shared.meter.fsync.observe(begin.elapsed());
        #[cfg(any(test, feature = "testing"))]
        let result = match result {
            Err(error) if error.is_full() && self.shared.lab.bugs.full_disk_drops_writes => Ok(()),
            result => result,
        };
        match result {
            Ok(()) => {
                self.shared.flushed(first + batch.len() as u64);
                for done in answers {
                    done.io_completed(Ok(()));
                }
                self.look_for_room();
                Step::Done
            }
            Err(error) if error.is_full() => {
                self.shared.no_room();
                self.waiting.push_front(Op::Append {
                    first,
                    records: batch,
                    done: answers,
                });
                Step::Held
            }
            Err(error) => {
                let text = error.to_string();
                self.shared.fail(&text);
                for done in answers {
                    done.io_completed(Err(io::Error::other(text.clone())));
                }
                Step::Done
            }
        }
    }

    fn finish(
        &mut self,
        result: Result<(), StorageError>,
        done: Done,
        again: impl FnOnce(Done) -> Op,
    ) -> Step {
        match result {
            Ok(()) => {
                let _ = done.send(Ok(()));
                Step::Done
            }
            Err(error) if error.is_full() => {
                self.shared.no_room();
                self.waiting.push_front(again(done));
                Step::Held
            }
            Err(error) => {
                self.shared.fail(&error.to_string());
                let _ = done.send(Err(error.into_io()));
                Step::Done
            }
        }
    }

    /// Takes the space for the next segment, so that proposals can be refused before the disk is really full.
    fn look_for_room(&self) {
        let result = self.shared.log().prepare_spare();
        match result {
            Ok(()) => {
                self.shared.set_room(true);
            }
            Err(error) if error.is_full() => {
                if self.shared.set_room(false) {
                    tracing::warn!(%error, "no space for the next log segment: changes are refused until there is some");
                }
            }
            // The disk has other troubles: the next append will meet them, and says so.
            Err(error) => tracing::warn!(%error, "cannot take space for the next log segment"),
        }
    }

    /// Refuses all that waits; whether the request to end was among it.
    fn give_up(&mut self, reason: &str) -> bool {
        let mut closing = false;
        for op in self.waiting.drain(..) {
            match op {
                Op::Append { done, .. } => {
                    done.into_iter().for_each(|done| {
                        done.io_completed(Err(io::Error::other(reason.to_owned())))
                    });
                }
                Op::Vote { done, .. } | Op::Cut { done, .. } | Op::Purge { done, .. } => {
                    let _ = done.send(Err(io::Error::other(reason.to_owned())));
                }
                Op::Probe { done } => drop(done.send(false)),
                Op::Close { done } => {
                    closing = true;
                    // Whoever asked may have given up.
                    let _ = done.send(());
                }
            }
        }
        closing
    }
}
