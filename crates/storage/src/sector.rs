//! Sectors: the unit that a disk writes whole or not at all.
//!
//! Files that are written in place consist of sectors of 512 bytes. Each carries the number of the
//! sector at which its record begins and a checksum that is never zero. So three cases can be told apart
//! without help from anywhere else:
//!
//! - all zeros: never written (or torn off by a crash);
//! - checksum right: written as meant;
//! - anything else: damaged after it was written.

/// Size of a sector in bytes.
pub(crate) const SECTOR_BYTES: usize = 512;
/// Payload of a sector in bytes.
pub(crate) const SECTOR_PAYLOAD: usize = SECTOR_BYTES - 8;

/// What a sector turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Sector<'a> {
    /// Nothing was ever written here.
    Blank,
    /// Sound: the sector where its record begins, and its part of the record.
    Sound { start: u32, payload: &'a [u8] },
    /// Damaged.
    Bad,
}

fn checksum(file_tag: u64, number: u32, head_and_payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&file_tag.to_le_bytes());
    hasher.update(&number.to_le_bytes());
    hasher.update(head_and_payload);
    // Zero is the mark of "never written".
    hasher.finalize().max(1)
}

/// Number of sectors that a record of `len` bytes takes.
pub(crate) fn sectors_for(len: usize) -> usize {
    len.div_ceil(SECTOR_PAYLOAD).max(1)
}

/// Writes a record as whole sectors into `out`, the first being sector `start` of the file with tag `file_tag`.
pub(crate) fn encode(out: &mut Vec<u8>, file_tag: u64, start: u32, record: &[u8]) {
    out.clear();
    out.reserve(sectors_for(record.len()) * SECTOR_BYTES);
    let chunks: Box<dyn Iterator<Item = &[u8]>> = if record.is_empty() {
        Box::new(std::iter::once(record))
    } else {
        Box::new(record.chunks(SECTOR_PAYLOAD))
    };
    for (number, chunk) in (start..).zip(chunks) {
        let from = out.len();
        out.extend_from_slice(&start.to_le_bytes());
        out.extend_from_slice(chunk);
        out.resize(from + SECTOR_BYTES - 4, 0);
        let sum = checksum(file_tag, number, &out[from..]);
        out.extend_from_slice(&sum.to_le_bytes());
    }
}

/// Looks at one sector (`bytes` has exactly [`SECTOR_BYTES`]).
pub(crate) fn decode(file_tag: u64, number: u32, bytes: &[u8]) -> Sector<'_> {
    let (content, sum) = bytes.split_at(SECTOR_BYTES - 4);
    let sum = u32::from_le_bytes([sum[0], sum[1], sum[2], sum[3]]);
    if sum == 0 && content.iter().all(|byte| *byte == 0) {
        return Sector::Blank;
    }
    if sum != checksum(file_tag, number, content) {
        return Sector::Bad;
    }
    let start = u32::from_le_bytes([content[0], content[1], content[2], content[3]]);
    Sector::Sound {
        start,
        payload: &content[4..],
    }
}

/// Reads little-endian numbers and byte strings off a slice; `None` once it ends.
pub(crate) struct Cursor<'a>(pub(crate) &'a [u8]);

impl<'a> Cursor<'a> {
    pub(crate) fn bytes(&mut self, len: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(head)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.bytes(4)
            .and_then(|bytes| bytes.try_into().ok())
            .map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.bytes(8)
            .and_then(|bytes| bytes.try_into().ok())
            .map(u64::from_le_bytes)
    }

    pub(crate) fn prefixed(&mut self) -> Option<&'a [u8]> {
        let len = self.u32()?;
        self.bytes(usize::try_from(len).ok()?)
    }
}

/// Appends a byte string with its length before it.
pub(crate) fn put_prefixed(out: &mut Vec<u8>, bytes: &[u8]) {
    // Callers bound every string far below 4 GiB; a longer one would be cut here and caught by its checksum.
    out.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(bytes);
}
