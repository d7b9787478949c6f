//! What stands in the sectors of a log segment.

use crate::sector::{Cursor, put_prefixed};

/// Version of the segment format that this release writes.
pub(super) const SEGMENT_VERSION: u32 = 1;
/// Longest mark that a purge may carry, in bytes: it has to fit into a segment's first sector.
pub(super) const MAX_MARK_BYTES: usize = 256;

/// Longest value of [`super::Log::set_meta`], in bytes.
pub(super) const MAX_META_BYTES: usize = 128;

const HEADER_MAGIC: u32 = 0x474c_5257;
const RECORD_MAGIC: u32 = 0x4452_5257;
/// Bytes of a record before its body.
pub(super) const RECORD_HEAD_BYTES: usize = 4 + 4 + 4 + 4 + 8 + 4;

/// Up to where the log was purged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Purged {
    /// Last index purged.
    pub index: u64,
    /// What the caller wanted remembered about it (its term, say).
    pub mark: Vec<u8>,
}

/// The first sector of a segment: everything known before its first record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    /// Number of the segment; they are contiguous.
    pub seq: u64,
    /// Size of the file in sectors, taken from the disk when the segment was begun.
    pub sectors: u32,
    /// Checksum of the last record of the segment before.
    pub prev_chain: u32,
    /// Sector where the segment before ends.
    pub prev_end: u32,
    /// Index after the last entry before this segment.
    pub next: u64,
    /// What was purged before this segment.
    pub purged: Option<Purged>,
    /// The caller's value in force before this segment.
    pub meta: Vec<u8>,
}

/// Why a header could not be read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum HeaderError {
    Damaged,
    Newer(u32),
}

impl SegmentHeader {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend_from_slice(&HEADER_MAGIC.to_le_bytes());
        out.extend_from_slice(&SEGMENT_VERSION.to_le_bytes());
        out.extend_from_slice(&self.seq.to_le_bytes());
        out.extend_from_slice(&self.sectors.to_le_bytes());
        out.extend_from_slice(&self.prev_chain.to_le_bytes());
        out.extend_from_slice(&self.prev_end.to_le_bytes());
        out.extend_from_slice(&self.next.to_le_bytes());
        match &self.purged {
            Some(purged) => {
                out.extend_from_slice(&1_u32.to_le_bytes());
                out.extend_from_slice(&purged.index.to_le_bytes());
                put_prefixed(&mut out, &purged.mark);
            }
            None => out.extend_from_slice(&0_u32.to_le_bytes()),
        }
        put_prefixed(&mut out, &self.meta);
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, HeaderError> {
        let mut cursor = Cursor(bytes);
        let mut read = || {
            if cursor.u32()? != HEADER_MAGIC {
                return None;
            }
            let version = cursor.u32()?;
            if version > SEGMENT_VERSION {
                return Some(Err(HeaderError::Newer(version)));
            }
            let (seq, sectors) = (cursor.u64()?, cursor.u32()?);
            let (prev_chain, prev_end, next) = (cursor.u32()?, cursor.u32()?, cursor.u64()?);
            let purged = match cursor.u32()? {
                0 => None,
                _ => Some(Purged {
                    index: cursor.u64()?,
                    mark: cursor.prefixed()?.to_vec(),
                }),
            };
            let meta = cursor.prefixed()?.to_vec();
            Some(Ok(Self {
                seq,
                sectors,
                prev_chain,
                prev_end,
                next,
                purged,
                meta,
            }))
        };
        read().unwrap_or(Err(HeaderError::Damaged))
    }
}

/// Kinds of records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Entries from `index` on.
    Entries,
    /// Entries from `index` on are void.
    Cut,
    /// Entries up to `index` are no longer needed; the body is the mark.
    Purge,
    /// Nothing. Earlier builds left it at a clean stop.
    Checkpoint,
    /// A new value of what the caller keeps beside its entries; the body is the value.
    Meta,
}

/// The fixed part of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RecordHead {
    pub kind: Kind,
    /// Length of the body in bytes.
    pub body_len: u32,
    /// Number of entries in the body.
    pub count: u32,
    pub index: u64,
    /// Checksum of the record before.
    pub prev_chain: u32,
}

impl RecordHead {
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&RECORD_MAGIC.to_le_bytes());
        let kind: u32 = match self.kind {
            Kind::Entries => 1,
            Kind::Cut => 2,
            Kind::Purge => 3,
            Kind::Checkpoint => 4,
            Kind::Meta => 5,
        };
        out.extend_from_slice(&kind.to_le_bytes());
        out.extend_from_slice(&self.body_len.to_le_bytes());
        out.extend_from_slice(&self.count.to_le_bytes());
        out.extend_from_slice(&self.index.to_le_bytes());
        out.extend_from_slice(&self.prev_chain.to_le_bytes());
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut cursor = Cursor(bytes);
        if cursor.u32()? != RECORD_MAGIC {
            return None;
        }
        let kind = match cursor.u32()? {
            1 => Kind::Entries,
            2 => Kind::Cut,
            3 => Kind::Purge,
            4 => Kind::Checkpoint,
            5 => Kind::Meta,
            _ => return None,
        };
        Some(Self {
            kind,
            body_len: cursor.u32()?,
            count: cursor.u32()?,
            index: cursor.u64()?,
            prev_chain: cursor.u32()?,
        })
    }

    /// Length of the whole record in bytes.
    pub(super) fn record_len(&self) -> usize {
        RECORD_HEAD_BYTES + self.body_len as usize
    }
}

/// Splits the body of an entries record.
pub(super) fn entries(count: u32, body: &[u8]) -> Option<Vec<&[u8]>> {
    let mut cursor = Cursor(body);
    // The count is not trusted for the allocation: a body holds at most one entry per four bytes.
    let mut out = Vec::with_capacity((count as usize).min(body.len() / 4 + 1));
    for _ in 0..count {
        out.push(cursor.prefixed()?);
    }
    cursor.0.is_empty().then_some(out)
}
