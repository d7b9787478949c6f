//! The frame of one log record, and how a byte stream becomes lines.

use crate::driver::{LogLine, LogSource};
use warren_types::Timestamp;

/// Longest line in one record, in bytes; longer ones are cut into several.
pub const MAX_LINE_BYTES: usize = 16 * 1024;
/// Size of a record's header in bytes.
pub const HEADER_BYTES: usize = 16;

const MAGIC: [u8; 2] = *b"WL";
const FLAG_PARTIAL: u8 = 1;

/// Appends one record: `WL`, source, flags, length (u32), milliseconds since 1970 (u64), the line. Little endian.
pub fn encode(out: &mut Vec<u8>, time: Timestamp, source: LogSource, partial: bool, line: &[u8]) {
    debug_assert!(line.len() <= MAX_LINE_BYTES);
    out.extend_from_slice(&MAGIC);
    out.push(match source {
        LogSource::Stdout => 1,
        LogSource::Stderr => 2,
        LogSource::System => 3,
    });
    out.push(if partial { FLAG_PARTIAL } else { 0 });
    out.extend_from_slice(&u32::try_from(line.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(&time.0.to_le_bytes());
    out.extend_from_slice(line);
}

/// What stands at the start of a buffer.
#[derive(Debug, PartialEq, Eq)]
pub enum Decoded {
    /// A record and how many bytes it takes.
    Record(LogLine, usize),
    /// The start of a record; more bytes are needed.
    Incomplete,
    /// No record; this many bytes are to be skipped.
    Damaged(usize),
}

/// Reads the record at the start of `bytes`.
#[must_use]
pub fn decode(bytes: &[u8]) -> Decoded {
    if bytes.len() < HEADER_BYTES {
        let known = bytes.len().min(2);
        return if bytes[..known] == MAGIC[..known] {
            Decoded::Incomplete
        } else {
            Decoded::Damaged(skip(bytes))
        };
    }
    let source = match (bytes[0] == MAGIC[0] && bytes[1] == MAGIC[1], bytes[2]) {
        (true, 1) => LogSource::Stdout,
        (true, 2) => LogSource::Stderr,
        (true, 3) => LogSource::System,
        _ => return Decoded::Damaged(skip(bytes)),
    };
    let length = u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]) as usize;
    if length > MAX_LINE_BYTES || bytes[3] > FLAG_PARTIAL {
        return Decoded::Damaged(skip(bytes));
    }
    if bytes.len() < HEADER_BYTES + length {
        return Decoded::Incomplete;
    }
    let mut time = [0; 8];
    time.copy_from_slice(&bytes[8..HEADER_BYTES]);
    let line = LogLine {
        time: Timestamp(u64::from_le_bytes(time)),
        source,
        bytes: bytes[HEADER_BYTES..HEADER_BYTES + length].to_vec(),
        partial: bytes[3] == FLAG_PARTIAL,
    };
    Decoded::Record(line, HEADER_BYTES + length)
}

/// Bytes up to the next place where a record could begin, at least one.
fn skip(bytes: &[u8]) -> usize {
    bytes
        .iter()
        .skip(1)
        .position(|b| *b == MAGIC[0])
        .map_or(bytes.len(), |at| at + 1)
}

/// Cuts one stream of a container into lines.
#[derive(Debug)]
pub struct LineCutter {
    source: LogSource,
    rest: Vec<u8>,
}

impl LineCutter {
    /// A cutter for one stream.
    #[must_use]
    pub const fn new(source: LogSource) -> Self {
        Self {
            source,
            rest: Vec::new(),
        }
    }

    /// Takes what was read and appends the records of all complete lines to `out`.
    pub fn push(&mut self, mut bytes: &[u8], time: Timestamp, out: &mut Vec<u8>) {
        while !bytes.is_empty() {
            let room = MAX_LINE_BYTES - self.rest.len();
            let window = &bytes[..bytes.len().min(room + 1)];
            if let Some(at) = window.iter().position(|b| *b == b'\n') {
                self.emit(&bytes[..at], false, time, out);
                bytes = &bytes[at + 1..];
            } else if window.len() > room {
                self.emit(&bytes[..room], true, time, out);
                bytes = &bytes[room..];
            } else {
                self.rest.extend_from_slice(bytes);
                return;
            }
        }
    }

    /// Emits a last line that has no newline.
    pub fn finish(&mut self, time: Timestamp, out: &mut Vec<u8>) {
        if !self.rest.is_empty() {
            self.emit(&[], false, time, out);
        }
    }

    fn emit(&mut self, tail: &[u8], partial: bool, time: Timestamp, out: &mut Vec<u8>) {
        if self.rest.is_empty() {
            encode(out, time, self.source, partial, tail);
        } else {
            self.rest.extend_from_slice(tail);
            encode(out, time, self.source, partial, &self.rest);
            self.rest.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lines(mut bytes: &[u8]) -> Vec<LogLine> {
        let mut found = Vec::new();
        while !bytes.is_empty() {
            match decode(bytes) {
                Decoded::Record(line, used) => {
                    found.push(line);
                    bytes = &bytes[used..];
                }
                Decoded::Incomplete => break,
                Decoded::Damaged(used) => bytes = &bytes[used..],
            }
        }
        found
    }

    proptest! {
        #[test]
        fn lines_come_back_however_they_were_read(
            text in proptest::collection::vec(any::<u8>(), 0..60_000),
            cuts in proptest::collection::vec(0_usize..60_000, 0..8),
        ) {
            let mut cutter = LineCutter::new(LogSource::Stdout);
            let mut out = Vec::new();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|c| c.min(text.len())).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            for pair in cuts.windows(2) {
                cutter.push(&text[pair[0]..pair[1]], Timestamp(7), &mut out);
            }
            cutter.finish(Timestamp(7), &mut out);
            let mut joined = Vec::new();
            for line in lines(&out) {
                joined.extend_from_slice(&line.bytes);
                if !line.partial {
                    joined.push(b'\n');
                }
            }
            let mut expected = text.clone();
            if expected.last().is_some_and(|b| *b != b'\n') {
                expected.push(b'\n');
            }
            prop_assert_eq!(joined, expected);
        }

        #[test]
        fn any_bytes_decode_without_panic_and_with_progress(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = lines(&bytes);
        }
    }

    #[test]
    fn a_damaged_record_costs_only_itself() {
        let mut out = Vec::new();
        for n in 0..3_u8 {
            encode(
                &mut out,
                Timestamp(u64::from(n)),
                LogSource::Stderr,
                false,
                &[b'a' + n; 20],
            );
        }
        out[HEADER_BYTES + 20] = 0;
        let found = lines(&out);
        assert_eq!(found.iter().map(|l| l.time.0).collect::<Vec<_>>(), [0, 2]);
    }

    #[test]
    fn endless_line_is_cut() {
        let mut cutter = LineCutter::new(LogSource::Stdout);
        let mut out = Vec::new();
        cutter.push(&vec![b'x'; MAX_LINE_BYTES * 2 + 5], Timestamp(1), &mut out);
        cutter.finish(Timestamp(1), &mut out);
        let found = lines(&out);
        assert_eq!(
            found
                .iter()
                .map(|l| (l.bytes.len(), l.partial))
                .collect::<Vec<_>>(),
            [(MAX_LINE_BYTES, true), (MAX_LINE_BYTES, true), (5, false)]
        );
    }
}
