//! Deterministic tar writer: equal entries give equal bytes.

use crate::tarread::{BLOCK, Entry, Kind, checksum};
use std::io::{self, Read, Write};

const MAX_OCTAL_ID: u32 = 0o777_7777;
const MAX_OCTAL_SIZE: u64 = 0o777_7777_7777;
const NAME_BYTES: usize = 100;

/// The writer. Call [`TarWriter::finish`] at the end.
pub(crate) struct TarWriter<W: Write> {
    out: W,
}

impl<W: Write> TarWriter<W> {
    pub(crate) fn new(out: W) -> Self {
        Self { out }
    }

    /// Writes an entry; `data` must yield at least `entry.size` bytes, of which as many are taken.
    pub(crate) fn entry(&mut self, entry: &Entry, data: &mut dyn Read) -> io::Result<()> {
        self.start(entry)?;
        let copied = io::copy(&mut data.take(entry.size), &mut self.out)?;
        if copied != entry.size {
            let text = format!(
                "{} changed while it was packed",
                String::from_utf8_lossy(&entry.path)
            );
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, text));
        }
        self.end(entry.size)
    }

    /// Where the data of an entry that was started goes.
    pub(crate) fn data(&mut self) -> &mut W {
        &mut self.out
    }

    /// Writes the headers of an entry; its `size` bytes of data and [`Self::end`] must follow.
    pub(crate) fn start(&mut self, entry: &Entry) -> io::Result<()> {
        let records = pax_records(entry);
        if !records.is_empty() {
            let mut header = [0_u8; BLOCK];
            put(&mut header, 0..NAME_BYTES, b"pax");
            self.header(&mut header, b'x', records.len() as u64, 0o644, (0, 0), 0)?;
            self.out.write_all(&records)?;
            self.end(records.len() as u64)?;
        }
        let mut header = [0_u8; BLOCK];
        put(&mut header, 0..NAME_BYTES, &entry.path);
        put(&mut header, 157..257, &entry.link);
        if matches!(entry.kind, Kind::CharDevice | Kind::BlockDevice) {
            octal(&mut header[329..337], u64::from(entry.device.0));
            octal(&mut header[337..345], u64::from(entry.device.1));
        }
        let ids = (entry.uid.min(MAX_OCTAL_ID), entry.gid.min(MAX_OCTAL_ID));
        let seconds = u64::try_from(entry.mtime.0)
            .unwrap_or(0)
            .min(MAX_OCTAL_SIZE);
        let size = if entry.size > MAX_OCTAL_SIZE {
            0
        } else {
            entry.size
        };
        self.header(
            &mut header,
            type_flag(entry.kind),
            size,
            entry.mode,
            ids,
            seconds,
        )
    }

    /// Ends the archive.
    pub(crate) fn finish(mut self) -> io::Result<W> {
        self.out.write_all(&[0; 2 * BLOCK])?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn header(
        &mut self,
        block: &mut [u8; BLOCK],
        flag: u8,
        size: u64,
        mode: u32,
        (uid, gid): (u32, u32),
        seconds: u64,
    ) -> io::Result<()> {
        octal(&mut block[100..108], u64::from(mode & 0o7777));
        octal(&mut block[108..116], u64::from(uid));
        octal(&mut block[116..124], u64::from(gid));
        octal(&mut block[124..136], size);
        octal(&mut block[136..148], seconds);
        block[156] = flag;
        block[257..265].copy_from_slice(b"ustar\x0000");
        let sum = checksum(block).unsigned_abs();
        octal(&mut block[148..155], sum);
        block[155] = b' ';
        self.out.write_all(block)
    }

    /// Ends an entry of `size` bytes.
    pub(crate) fn end(&mut self, size: u64) -> io::Result<()> {
        let missing = (size.next_multiple_of(BLOCK as u64) - size) as usize;
        self.out.write_all(&[0; BLOCK][..missing])
    }
}

fn type_flag(kind: Kind) -> u8 {
    match kind {
        Kind::File => b'0',
        Kind::HardLink => b'1',
        Kind::Symlink => b'2',
        Kind::CharDevice => b'3',
        Kind::BlockDevice => b'4',
        Kind::Directory => b'5',
        Kind::Fifo => b'6',
    }
}

fn put(block: &mut [u8; BLOCK], range: std::ops::Range<usize>, bytes: &[u8]) {
    let n = bytes.len().min(range.len());
    block[range.start..range.start + n].copy_from_slice(&bytes[..n]);
}

/// Octal digits with leading zeros and a NUL at the end; the value fits by the caller's care.
fn octal(field: &mut [u8], mut value: u64) {
    let digits = field.len() - 1;
    for slot in field[..digits].iter_mut().rev() {
        *slot = b'0' + (value & 7) as u8;
        value >>= 3;
    }
    field[digits] = 0;
}

fn pax_records(entry: &Entry) -> Vec<u8> {
    let mut out = Vec::new();
    if entry.path.len() > NAME_BYTES {
        record(&mut out, b"path", &entry.path);
    }
    if entry.link.len() > NAME_BYTES {
        record(&mut out, b"linkpath", &entry.link);
    }
    if entry.size > MAX_OCTAL_SIZE {
        record(&mut out, b"size", entry.size.to_string().as_bytes());
    }
    for (key, id) in [(b"uid", entry.uid), (b"gid", entry.gid)] {
        if id > MAX_OCTAL_ID {
            record(&mut out, key, id.to_string().as_bytes());
        }
    }
    let (seconds, nanos) = entry.mtime;
    if nanos != 0 || seconds < 0 || seconds.unsigned_abs() > MAX_OCTAL_SIZE {
        record(&mut out, b"mtime", time_text(seconds, nanos).as_bytes());
    }
    for (name, value) in &entry.xattrs {
        record(
            &mut out,
            &[b"SCHILY.xattr.".as_slice(), name].concat(),
            value,
        );
    }
    out
}

fn time_text(seconds: i64, nanos: u32) -> String {
    match (seconds < 0, nanos) {
        (_, 0) => seconds.to_string(),
        (false, _) => format!("{seconds}.{nanos:09}"),
        // -0.25 s is kept as -1 s and 0.75 s.
        (true, _) => format!(
            "-{}.{:09}",
            seconds.unsigned_abs() - 1,
            1_000_000_000 - nanos
        ),
    }
}

/// Appends "LENGTH KEY=VALUE\n", where LENGTH counts itself.
fn record(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let body = key.len() + value.len() + 3;
    let mut length = body + 1;
    while length != body + length.to_string().len() {
        length = body + length.to_string().len();
    }
    out.extend_from_slice(length.to_string().as_bytes());
    out.push(b' ');
    out.extend_from_slice(key);
    out.push(b'=');
    out.extend_from_slice(value);
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tarread::TarReader;
    use proptest::prelude::*;

    fn entries() -> impl Strategy<Value = (Entry, Vec<u8>)> {
        let name = proptest::collection::vec(1_u8..=255, 1..300);
        let kind = prop_oneof![
            Just(Kind::File),
            Just(Kind::Symlink),
            Just(Kind::HardLink),
            Just(Kind::CharDevice),
            Just(Kind::BlockDevice),
            Just(Kind::Fifo)
        ];
        let xattrs = proptest::collection::vec(
            (
                "user\\.[a-z]{1,9}",
                proptest::collection::vec(any::<u8>(), 0..120),
            ),
            0..3,
        );
        let ids = (
            any::<u32>(),
            any::<u32>(),
            any::<i32>(),
            0_u32..1_000_000_000,
            0_u32..0o7777,
        );
        (
            name.clone(),
            name,
            kind,
            ids,
            xattrs,
            proptest::collection::vec(any::<u8>(), 0..1500),
        )
            .prop_map(
                |(path, link, kind, (uid, gid, seconds, nanos, mode), xattrs, data)| {
                    let data = if kind == Kind::File { data } else { Vec::new() };
                    let link = if matches!(kind, Kind::Symlink | Kind::HardLink) {
                        link
                    } else {
                        Vec::new()
                    };
                    let device = if matches!(kind, Kind::CharDevice | Kind::BlockDevice) {
                        (uid & 0xfff, gid & 0xfff)
                    } else {
                        (0, 0)
                    };
                    let mut path = path;
                    path.push(b'x'); // A trailing slash would read back as a directory.
                    let xattrs = xattrs
                        .into_iter()
                        .map(|(k, v)| (k.into_bytes(), v))
                        .collect();
                    let size = data.len() as u64;
                    (
                        Entry {
                            path,
                            link,
                            kind,
                            size,
                            mode,
                            uid,
                            gid,
                            mtime: (i64::from(seconds), nanos),
                            device,
                            xattrs,
                        },
                        data,
                    )
                },
            )
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(list in proptest::collection::vec(entries(), 0..6)) {
            let mut writer = TarWriter::new(Vec::new());
            for (entry, data) in &list {
                writer.entry(entry, &mut data.as_slice()).unwrap();
            }
            let bytes = writer.finish().unwrap();
            let mut reader = TarReader::new(bytes.as_slice(), "test".to_owned());
            for (entry, data) in &list {
                prop_assert_eq!(&reader.next().unwrap().unwrap(), entry);
                let mut back = Vec::new();
                reader.copy_data(&mut back, &mut [0; 512], |e| panic!("{e}")).unwrap();
                prop_assert_eq!(&back, data);
            }
            prop_assert!(reader.next().unwrap().is_none());
            // The tar crate must agree on names and sizes, but its pax reader stops at a newline in a value.
            let newline = |bytes: &[u8]| bytes.contains(&b'\n');
            if list.iter().any(|(e, _)| newline(&e.path) || newline(&e.link) || e.xattrs.iter().any(|(_, v)| newline(v))) {
                return Ok(());
            }
            let mut other = tar::Archive::new(bytes.as_slice());
            for (theirs, (ours, _)) in other.entries().unwrap().zip(&list) {
                let theirs = theirs.unwrap();
                prop_assert_eq!(theirs.path_bytes().to_vec(), ours.path.clone());
                prop_assert_eq!(theirs.size(), ours.size);
            }
        }
    }

    #[test]
    fn record_length_counts_itself() {
        let mut out = Vec::new();
        record(&mut out, b"path", &[b'a'; 90]);
        let text = String::from_utf8(out).unwrap();
        let (length, _) = text.split_once(' ').unwrap();
        assert_eq!(length.parse::<usize>().unwrap(), text.len());
    }
}
