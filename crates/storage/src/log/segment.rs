//! One segment file: reading it back, and telling a torn tail from damage.

use super::record::{HeaderError, RECORD_HEAD_BYTES, RecordHead, SEGMENT_VERSION, SegmentHeader};
use crate::disk::DiskFile;
use crate::sector::{self, SECTOR_BYTES, SECTOR_PAYLOAD, Sector};
use crate::{Result, StorageError};

/// What to do about a damaged log.
pub(super) const REMEDY: &str = "with other managers alive, remove this one from the cluster, empty its data directory and let it join again; \
     else restore a backup (`warren cluster restore`)";

/// A segment held in memory while it is replayed.
pub(super) struct Image {
    pub(super) seq: u64,
    name: String,
    data: Vec<u8>,
}

/// What stands at a place of a segment.
pub(super) enum At {
    /// A sound record of so many sectors.
    Record {
        head: RecordHead,
        body: Vec<u8>,
        chain: u32,
        sectors: u32,
    },
    /// No complete record; what is there (up to sector `dirty_end`) was never synced.
    Tail { dirty_end: u32 },
}

impl Image {
    pub(super) fn load(seq: u64, file: &dyn DiskFile) -> Result<Self> {
        let len = file.len()?;
        let mut data = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
        file.read_at(0, &mut data)?;
        Ok(Self {
            seq,
            name: file.name().to_owned(),
            data,
        })
    }

    /// Length of the file in whole sectors.
    pub(super) fn sectors(&self) -> u32 {
        u32::try_from(self.data.len() / SECTOR_BYTES).unwrap_or(u32::MAX)
    }

    fn sector(&self, number: u32) -> Sector<'_> {
        let from = number as usize * SECTOR_BYTES;
        match self.data.get(from..from + SECTOR_BYTES) {
            Some(bytes) => sector::decode(self.seq, number, bytes),
            None => Sector::Blank,
        }
    }

    pub(super) fn corrupt(&self, sector: u32, what: impl Into<String>) -> StorageError {
        corrupt(&self.name, u64::from(sector) * SECTOR_BYTES as u64, what)
    }

    pub(super) fn header(&self) -> Result<SegmentHeader> {
        let Sector::Sound { payload, .. } = self.sector(0) else {
            return Err(self.corrupt(0, "the segment's header is not readable"));
        };
        match SegmentHeader::decode(payload) {
            Ok(header) if header.seq == self.seq && header.sectors <= self.sectors() => Ok(header),
            Ok(header) if header.seq == self.seq => {
                Err(self.corrupt(self.sectors(), "the file is cut short"))
            }
            Ok(_) => Err(self.corrupt(0, "the segment has the number of another one")),
            Err(HeaderError::Damaged) => Err(self.corrupt(0, "the segment's header is not one")),
            Err(HeaderError::Newer(found)) => Err(StorageError::Newer {
                file: self.name.clone(),
                found,
                supported: SEGMENT_VERSION,
            }),
        }
    }

    /// Reads what stands at a sector. Damage to anything that was synced is an error.
    pub(super) fn at(&self, start: u32, prev_chain: u32) -> Result<At> {
        match self.record(start) {
            Ok(Some((head, record))) => {
                if head.prev_chain != prev_chain {
                    return Err(self.corrupt(start, "the record does not continue the one before"));
                }
                let sectors = u32::try_from(sector::sectors_for(record.len())).unwrap_or(u32::MAX);
                let chain = crc32fast::hash(&record);
                Ok(At::Record {
                    head,
                    body: record[RECORD_HEAD_BYTES..].to_vec(),
                    chain,
                    sectors,
                })
            }
            Ok(None) => self.tail(start),
            Err(bad) => Err(self.corrupt(bad, "the checksum does not match")),
        }
    }

    /// A whole record; `None` when a sector of it is blank; the number of the sector when one is damaged.
    fn record(&self, start: u32) -> std::result::Result<Option<(RecordHead, Vec<u8>)>, u32> {
        let head = match self.sector(start) {
            Sector::Blank => return Ok(None),
            Sector::Sound {
                start: begin,
                payload,
            } if begin == start => RecordHead::decode(payload).ok_or(start)?,
            _ => return Err(start),
        };
        let count = sector::sectors_for(head.record_len());
        let mut record =
            Vec::with_capacity(count.min(self.data.len() / SECTOR_BYTES + 1) * SECTOR_PAYLOAD);
        for number in (start..).take(count) {
            match self.sector(number) {
                Sector::Sound {
                    start: begin,
                    payload,
                } if begin == start => record.extend_from_slice(payload),
                Sector::Blank => return Ok(None),
                _ => return Err(number),
            }
        }
        record.truncate(head.record_len());
        Ok(Some((head, record)))
    }

    /// Nothing complete begins at `start`. That is a torn tail only if nothing behind it proves that it was
    /// once synced: a record begins on disk only after the one before was durable.
    fn tail(&self, start: u32) -> Result<At> {
        let mut dirty_end = start;
        for number in start..self.sectors() {
            match self.sector(number) {
                Sector::Blank => {}
                Sector::Sound { start: begin, .. } if begin == start => dirty_end = number + 1,
                Sector::Sound { .. } => {
                    return Err(
                        self.corrupt(start, "a record that was stored before later ones is gone")
                    );
                }
                Sector::Bad => return Err(self.corrupt(number, "the checksum does not match")),
            }
        }
        let whole = self.sectors() as usize * SECTOR_BYTES;
        if self.data[whole..].iter().any(|byte| *byte != 0) {
            return Err(self.corrupt(self.sectors(), "the file ends inside of a sector"));
        }
        Ok(At::Tail { dirty_end })
    }
}

pub(super) fn corrupt(file: &str, offset: u64, what: impl Into<String>) -> StorageError {
    StorageError::Corrupt {
        file: file.to_owned(),
        offset,
        what: what.into(),
        remedy: REMEDY,
    }
}

/// Reads one record back at run time, with all its checks.
pub(super) fn read_record(
    file: &dyn DiskFile,
    seq: u64,
    start: u32,
    sectors: u32,
) -> Result<(RecordHead, Vec<u8>)> {
    let mut data = vec![0; sectors as usize * SECTOR_BYTES];
    file.read_at(u64::from(start) * SECTOR_BYTES as u64, &mut data)?;
    let mut record = Vec::with_capacity(sectors as usize * SECTOR_PAYLOAD);
    for (number, bytes) in (start..).zip(data.chunks(SECTOR_BYTES)) {
        match sector::decode(seq, number, bytes) {
            Sector::Sound {
                start: begin,
                payload,
            } if begin == start => record.extend_from_slice(payload),
            _ => {
                return Err(corrupt(
                    file.name(),
                    u64::from(number) * SECTOR_BYTES as u64,
                    "the checksum does not match",
                ));
            }
        }
    }
    let bad = || {
        corrupt(
            file.name(),
            u64::from(start) * SECTOR_BYTES as u64,
            "the record is not one",
        )
    };
    let head = RecordHead::decode(&record).ok_or_else(bad)?;
    if head.record_len() > record.len() {
        return Err(bad());
    }
    record.truncate(head.record_len());
    record.drain(..RECORD_HEAD_BYTES);
    Ok((head, record))
}
