//! Reading a container's log, also while it grows.

use super::format::{Decoded, HEADER_BYTES, MAX_LINE_BYTES, decode};
use super::{file_numbers, file_path};
use crate::driver::{LogLine, LogQuery, LogSource, LogStream};
use crate::error::RuntimeError;
use futures::StreamExt;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::{FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, watch};

/// Most lines that `tail` goes back, in lines.
pub const MAX_TAIL: u64 = 100_000;
/// Read at a time, in bytes.
const CHUNK_BYTES: usize = 128 * 1024;
/// Batches of lines that wait for a slow reader.
const BATCHES: usize = 4;

/// A position in the files of one log. Blocking.
#[derive(Debug)]
pub struct LogCursor {
    dir: PathBuf,
    query: LogQuery,
    number: u64,
    file: Option<File>,
    buffer: Vec<u8>,
}

impl LogCursor {
    /// A cursor at the first wanted line.
    pub fn open(dir: &Path, query: LogQuery) -> io::Result<Self> {
        let first = file_numbers(dir)?.first().copied().unwrap_or(1);
        let mut cursor = Self {
            dir: dir.to_owned(),
            query,
            number: first,
            file: None,
            buffer: Vec::new(),
        };
        if let Some(tail) = query.tail {
            cursor.go_back(tail.min(MAX_TAIL))?;
        }
        Ok(cursor)
    }

    fn wants(&self, line: &LogLine) -> bool {
        let stream = match line.source {
            LogSource::Stdout => self.query.stdout,
            LogSource::Stderr => self.query.stderr,
            LogSource::System => true,
        };
        stream && self.query.since.is_none_or(|since| line.time >= since)
    }

    /// Places the cursor before the last `tail` wanted lines.
    fn go_back(&mut self, tail: u64) -> io::Result<()> {
        let numbers = file_numbers(&self.dir)?;
        let Some(newest) = numbers.last() else {
            return Ok(());
        };
        let mut wanted = tail as usize;
        let mut place = (*newest, u64::MAX);
        for number in numbers.iter().rev() {
            let offsets = match self.offsets(*number, wanted) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                other => other?,
            };
            if let Some(first) = offsets.front() {
                place = (*number, *first);
            }
            wanted -= offsets.len();
            if wanted == 0 {
                break;
            }
        }
        let mut file = File::open(file_path(&self.dir, place.0))?;
        file.seek(if place.1 == u64::MAX {
            SeekFrom::End(0)
        } else {
            SeekFrom::Start(place.1)
        })?;
        self.number = place.0;
        self.file = Some(file);
        Ok(())
    }

    /// Offsets of the last `wanted` wanted lines of one file.
    fn offsets(&self, number: u64, wanted: usize) -> io::Result<VecDeque<u64>> {
        let mut file = File::open(file_path(&self.dir, number))?;
        let (mut offsets, mut buffer, mut start) = (VecDeque::new(), Vec::new(), 0_u64);
        while wanted > 0 && fill(&mut file, &mut buffer)? > 0 {
            let used = parse(&buffer, |line, at| {
                if self.wants(&line) {
                    if offsets.len() == wanted {
                        offsets.pop_front();
                    }
                    offsets.push_back(start + at as u64);
                }
            });
            buffer.drain(..used);
            start += used as u64;
        }
        Ok(offsets)
    }

    /// The next lines, as many as one read gives; none at the present end of the log.
    pub fn next_batch(&mut self) -> io::Result<Vec<LogLine>> {
        loop {
            if self.file.is_none() && !self.open_current()? {
                return Ok(Vec::new());
            }
            let Some(file) = self.file.as_mut() else {
                return Ok(Vec::new());
            };
            if fill(file, &mut self.buffer)? == 0 {
                if !self.go_on()? {
                    return Ok(Vec::new());
                }
                continue;
            }
            let mut lines = Vec::new();
            let used = parse(&self.buffer, |line, _| lines.push(line));
            self.buffer.drain(..used);
            lines.retain(|line| self.wants(line));
            if !lines.is_empty() {
                return Ok(lines);
            }
        }
    }

    fn open_current(&mut self) -> io::Result<bool> {
        match File::open(file_path(&self.dir, self.number)) {
            Ok(file) => {
                self.file = Some(file);
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.next_number(),
            Err(error) => Err(error),
        }
    }

    /// Takes the next file if there is one. The writer finishes a file before it makes the next, but may have
    /// appended between our read and this look, so the old file is read to its end once more.
    fn go_on(&mut self) -> io::Result<bool> {
        let newer = file_numbers(&self.dir)?
            .into_iter()
            .any(|n| n > self.number);
        if !newer {
            return Ok(false);
        }
        if let Some(file) = self.file.as_mut() {
            let here = file.stream_position()?;
            if file.metadata()?.len() > here {
                return Ok(true);
            }
        }
        self.buffer.clear();
        self.file = None;
        self.next_number()
    }

    fn next_number(&mut self) -> io::Result<bool> {
        match file_numbers(&self.dir)?
            .into_iter()
            .find(|n| *n > self.number)
        {
            Some(number) => {
                self.number = number;
                self.file = None;
                self.open_current()
            }
            None => Ok(false),
        }
    }
}

fn fill(file: &mut File, buffer: &mut Vec<u8>) -> io::Result<usize> {
    let before = buffer.len();
    debug_assert!(before < HEADER_BYTES + MAX_LINE_BYTES);
    buffer.resize(before + CHUNK_BYTES, 0);
    let read = file.read(&mut buffer[before..])?;
    buffer.truncate(before + read);
    Ok(read)
}

/// Hands each whole record with its offset to `each`; returns the bytes used.
fn parse(buffer: &[u8], mut each: impl FnMut(LogLine, usize)) -> usize {
    let mut used = 0;
    while used < buffer.len() {
        match decode(&buffer[used..]) {
            Decoded::Record(line, length) => {
                each(line, used);
                used += length;
            }
            Decoded::Incomplete => break,
            Decoded::Damaged(length) => used += length,
        }
    }
    used
}

/// Streams the log in `dir`. A following stream ends after `ended` says true and all is read, or when the
/// directory is removed.
pub(crate) fn stream(dir: PathBuf, query: LogQuery, ended: watch::Receiver<bool>) -> LogStream {
    let (sender, receiver) = mpsc::channel(BATCHES);
    tokio::spawn(async move {
        if let Err(error) = pump(&dir, query, ended, &sender).await {
            let _ = sender
                .send(Err(RuntimeError::io("read the log in", &dir, error)))
                .await;
        }
    });
    futures::stream::unfold(receiver, |mut receiver| async {
        receiver.recv().await.map(|batch| (batch, receiver))
    })
    .flat_map(|batch: Result<Vec<LogLine>, RuntimeError>| {
        futures::stream::iter(match batch {
            Ok(lines) => lines.into_iter().map(Ok).collect(),
            Err(error) => vec![Err(error)],
        })
    })
    .boxed()
}

type Batches = mpsc::Sender<Result<Vec<LogLine>, RuntimeError>>;

async fn pump(
    dir: &Path,
    query: LogQuery,
    mut ended: watch::Receiver<bool>,
    sender: &Batches,
) -> io::Result<()> {
    // The watch begins before the first look, so nothing written in between is missed.
    let changes = if query.follow {
        Some(DirWatch::new(dir)?)
    } else {
        None
    };
    let owned = dir.to_owned();
    let mut cursor = blocking(move || LogCursor::open(&owned, query)).await?;
    loop {
        let was_ended = changes.is_none() || *ended.borrow_and_update();
        loop {
            let (back, batch) = blocking(move || {
                let mut cursor = cursor;
                let batch = cursor.next_batch()?;
                Ok((cursor, batch))
            })
            .await?;
            cursor = back;
            if batch.is_empty() {
                break;
            }
            if sender.send(Ok(batch)).await.is_err() {
                return Ok(());
            }
        }
        let Some(changes) = changes.as_ref().filter(|_| !was_ended) else {
            return Ok(());
        };
        tokio::select! {
            changed = changes.changed() => if !changed? { return Ok(()) },
            gone = ended.changed() => if gone.is_err() { return Ok(()) },
            () = sender.closed() => return Ok(()),
        }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(io::Error::other)?
}

/// Tells when a directory or a file in it changes.
struct DirWatch {
    fd: AsyncFd<OwnedFd>,
}

impl DirWatch {
    #[allow(
        unsafe_code,
        reason = "inotify has no wrapper in the dependencies we have"
    )]
    fn new(dir: &Path) -> io::Result<Self> {
        use std::os::unix::ffi::OsStrExt;
        let path = std::ffi::CString::new(dir.as_os_str().as_bytes())?;
        // SAFETY: no pointers are passed; the result is checked before use.
        let raw = unsafe { libc::inotify_init1(libc::IN_NONBLOCK | libc::IN_CLOEXEC) };
        if raw < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `raw` is a new descriptor that nobody else owns.
        let fd = unsafe { OwnedFd::from_raw_fd(raw) };
        let events = libc::IN_MODIFY | libc::IN_CREATE | libc::IN_DELETE_SELF | libc::IN_ONLYDIR;
        // SAFETY: `path` is a NUL-terminated string that outlives the call.
        if unsafe { libc::inotify_add_watch(raw, path.as_ptr(), events) } < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self {
            fd: crate::ready::register(fd)?,
        })
    }

    /// Waits for a change; false when the directory is gone.
    async fn changed(&self) -> io::Result<bool> {
        loop {
            let mut guard = self.fd.readable().await?;
            let mut buffer = [0_u8; 4096];
            match guard.try_io(|fd| nix::unistd::read(fd, &mut buffer).map_err(io::Error::from)) {
                Ok(read) => return Ok(!names_removal(&buffer[..read?])),
                Err(_would_block) => {}
            }
        }
    }
}

/// Looks for the end of the watched directory among inotify events (watch, mask, cookie, length, name).
fn names_removal(mut events: &[u8]) -> bool {
    const EVENT_BYTES: usize = 16;
    while events.len() >= EVENT_BYTES {
        let word = |at: usize| {
            u32::from_ne_bytes([events[at], events[at + 1], events[at + 2], events[at + 3]])
        };
        if word(4) & (libc::IN_DELETE_SELF | libc::IN_IGNORED) != 0 {
            return true;
        }
        let length = EVENT_BYTES + word(12) as usize;
        events = events.get(length..).unwrap_or_default();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::super::format::encode;
    use super::super::writer::LogWriter;
    use super::*;
    use crate::spec::LogLimits;
    use std::io::Write;
    use warren_types::Timestamp;

    const LIMITS: LogLimits = LogLimits {
        max_bytes: 2000,
        files: 3,
    };

    fn write(writer: &mut LogWriter, numbers: std::ops::Range<u32>) {
        for n in numbers {
            let mut out = Vec::new();
            let source = if n % 2 == 0 {
                LogSource::Stdout
            } else {
                LogSource::Stderr
            };
            encode(
                &mut out,
                Timestamp(u64::from(n)),
                source,
                false,
                n.to_string().as_bytes(),
            );
            writer.append(&out, Timestamp(u64::from(n)));
        }
    }

    fn read(dir: &Path, query: LogQuery) -> Vec<u32> {
        let mut cursor = LogCursor::open(dir, query).unwrap();
        let mut all = Vec::new();
        loop {
            let batch = cursor.next_batch().unwrap();
            if batch.is_empty() {
                return all;
            }
            all.extend(
                batch
                    .iter()
                    .map(|l| String::from_utf8_lossy(&l.bytes).parse::<u32>().unwrap()),
            );
        }
    }

    #[test]
    fn rotation_keeps_the_newest_files_and_reading_gives_one_sequence() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = LogWriter::open(dir.path(), LIMITS).unwrap();
        write(&mut writer, 0..1000);
        let files = file_numbers(dir.path()).unwrap();
        assert_eq!(files.len(), 3);
        let all = read(dir.path(), LogQuery::default());
        assert_eq!(all.last(), Some(&999));
        assert!(
            all.windows(2).all(|w| w[1] == w[0] + 1) && all.len() > 200,
            "{all:?}"
        );
        assert_eq!(
            read(
                dir.path(),
                LogQuery {
                    tail: Some(150),
                    ..LogQuery::default()
                }
            ),
            (850..1000).collect::<Vec<_>>()
        );
        assert_eq!(
            read(
                dir.path(),
                LogQuery {
                    tail: Some(0),
                    ..LogQuery::default()
                }
            ),
            [0_u32; 0]
        );
        let odd = LogQuery {
            stdout: false,
            tail: Some(3),
            ..LogQuery::default()
        };
        assert_eq!(read(dir.path(), odd), [995, 997, 999]);
        let since = LogQuery {
            since: Some(Timestamp(997)),
            ..LogQuery::default()
        };
        assert_eq!(read(dir.path(), since), [997, 998, 999]);
        assert_eq!(
            read(
                dir.path(),
                LogQuery {
                    tail: Some(5000),
                    ..LogQuery::default()
                }
            ),
            all
        );
    }

    #[test]
    fn a_torn_end_is_cut_off_by_the_next_writer() {
        let dir = tempfile::tempdir().unwrap();
        write(&mut LogWriter::open(dir.path(), LIMITS).unwrap(), 0..3);
        let path = file_path(dir.path(), 1);
        let mut torn = Vec::new();
        encode(&mut torn, Timestamp(9), LogSource::Stdout, false, b"77777");
        std::fs::OpenOptions::new()
            .append(true)
            .open(&path)
            .unwrap()
            .write_all(&torn[..18])
            .unwrap();
        write(&mut LogWriter::open(dir.path(), LIMITS).unwrap(), 3..5);
        assert_eq!(read(dir.path(), LogQuery::default()), [0, 1, 2, 3, 4]);
    }

    #[tokio::test]
    async fn following_crosses_rotations_and_ends_with_the_container() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = LogWriter::open(dir.path(), LIMITS).unwrap();
        let (end, ended) = watch::channel(false);
        let mut lines = stream(
            dir.path().to_owned(),
            LogQuery {
                follow: true,
                ..LogQuery::default()
            },
            ended,
        );
        for round in 0..20 {
            write(&mut writer, round * 30..(round + 1) * 30);
            for n in round * 30..(round + 1) * 30 {
                assert_eq!(
                    lines.next().await.unwrap().unwrap().time,
                    Timestamp(u64::from(n))
                );
            }
        }
        write(&mut writer, 600..601);
        end.send(true).unwrap();
        assert_eq!(lines.next().await.unwrap().unwrap().time, Timestamp(600));
        assert!(lines.next().await.is_none());
    }
}
