//! The one writer of a container's log.

use super::format::{Decoded, HEADER_BYTES, decode, encode};
use super::{file_numbers, file_path};
use crate::driver::LogSource;
use crate::spec::LogLimits;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use warren_types::Timestamp;

/// Appends records and rotates. Never fails towards the container: what cannot be written is dropped,
/// counted, and said in the log as soon as writing works again.
#[derive(Debug)]
pub struct LogWriter {
    dir: PathBuf,
    limits: LogLimits,
    file: File,
    number: u64,
    size: u64,
    dropped: u64,
}

impl LogWriter {
    /// Opens the log in `dir`, going on after what stands there; a torn last record is cut off.
    pub fn open(dir: &Path, limits: LogLimits) -> io::Result<Self> {
        std::fs::create_dir_all(dir)?;
        let number = file_numbers(dir)?.last().copied().unwrap_or(1);
        let mut file = open_file(&file_path(dir, number))?;
        let size = whole_length(&mut file)?;
        file.set_len(size)?;
        file.seek(SeekFrom::End(0))?;
        Ok(Self {
            dir: dir.to_owned(),
            limits,
            file,
            number,
            size,
            dropped: 0,
        })
    }

    /// Appends encoded records.
    pub fn append(&mut self, records: &[u8], time: Timestamp) {
        if records.is_empty() {
            return;
        }
        if self.dropped > 0 {
            let text = format!(
                "{} bytes of log were lost because the log could not be written",
                self.dropped
            );
            let mut note = Vec::new();
            encode(&mut note, time, LogSource::System, false, text.as_bytes());
            if self.write(&note).is_ok() {
                self.dropped = 0;
            }
        }
        let mut rest = records;
        while !rest.is_empty() {
            let room = self.limits.max_bytes.saturating_sub(self.size);
            let piece = match whole_records(rest, room) {
                0 => whole_records(rest, self.limits.max_bytes).max(first_record(rest)),
                fitting => fitting,
            };
            if self.write(&rest[..piece]).is_err() {
                self.dropped += piece as u64;
            }
            rest = &rest[piece..];
        }
    }

    fn write(&mut self, records: &[u8]) -> io::Result<()> {
        if self.size > 0 && self.size + records.len() as u64 > self.limits.max_bytes {
            self.rotate()?;
        }
        match self.file.write_all(records) {
            Ok(()) => {
                self.size += records.len() as u64;
                Ok(())
            }
            Err(error) => {
                // Half a record would hide the next whole one; a failure here is met again at the next write.
                let _ = self.file.set_len(self.size);
                let _ = self.file.seek(SeekFrom::Start(self.size));
                Err(error)
            }
        }
    }

    fn rotate(&mut self) -> io::Result<()> {
        self.file = open_file(&file_path(&self.dir, self.number + 1))?;
        self.number += 1;
        self.size = 0;
        let keep = u64::from(self.limits.files);
        for old in file_numbers(&self.dir)?
            .into_iter()
            .filter(|n| n + keep <= self.number)
        {
            std::fs::remove_file(file_path(&self.dir, old))?;
        }
        Ok(())
    }
}

/// Length of the first record.
fn first_record(records: &[u8]) -> usize {
    let length = records
        .get(4..8)
        .map_or(0, |l| u32::from_le_bytes([l[0], l[1], l[2], l[3]]));
    (HEADER_BYTES + length as usize).min(records.len())
}

/// Length of the records at the start that fit in `room`.
fn whole_records(records: &[u8], room: u64) -> usize {
    let mut used = 0;
    while used < records.len() {
        let next = used + first_record(&records[used..]);
        if next as u64 > room {
            break;
        }
        used = next;
    }
    used
}

fn open_file(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .mode(0o600)
        .open(path)
}

/// Length of the file up to the end of its last whole record.
fn whole_length(file: &mut File) -> io::Result<u64> {
    const CHUNK: usize = 256 * 1024;
    file.seek(SeekFrom::Start(0))?;
    let (mut buffer, mut end, mut good) = (Vec::new(), 0_u64, 0_u64);
    loop {
        let before = buffer.len();
        buffer.resize(before + CHUNK, 0);
        let read = file.read(&mut buffer[before..])?;
        buffer.truncate(before + read);
        if read == 0 {
            return Ok(good);
        }
        let mut used = 0;
        while used < buffer.len() {
            match decode(&buffer[used..]) {
                Decoded::Record(_, length) => {
                    used += length;
                    good = end + used as u64;
                }
                Decoded::Incomplete => break,
                Decoded::Damaged(length) => used += length,
            }
        }
        buffer.drain(..used);
        end += used as u64;
    }
}
