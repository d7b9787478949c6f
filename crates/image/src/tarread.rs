//! Streaming tar reader with bounds on everything.
//!
//! Reads ustar, GNU and pax. Our own rather than the `tar` crate's because that one reads extension
//! headers of any size into memory; here each is bounded, and errors name archive and entry.

use crate::compress::OverLimit;
use crate::error::{ImageError, Result};
use crate::limits::{
    COPY_BUFFER_BYTES, MAX_PATH_BYTES, MAX_TAR_EXTENSION_BYTES, MAX_XATTR_BYTES, MAX_XATTRS,
};
use std::io::{self, Read, Write};

pub(crate) const BLOCK: usize = 512;
const XATTR_KEY: &str = "SCHILY.xattr.";

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Directory,
    Symlink,
    HardLink,
    CharDevice,
    BlockDevice,
    Fifo,
}

/// One entry; its data is read from the reader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub path: Vec<u8>,
    pub link: Vec<u8>,
    pub kind: Kind,
    /// Bytes of data; zero for all but files.
    pub size: u64,
    /// Permission bits with setuid, setgid and sticky.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Seconds since 1970, may be negative, and nanoseconds.
    pub mtime: (i64, u32),
    pub device: (u32, u32),
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Path bytes for messages.
pub(crate) fn shown(path: &[u8]) -> String {
    let text = String::from_utf8_lossy(path);
    if text.chars().count() > 200 {
        text.chars().take(200).chain("…".chars()).collect()
    } else {
        text.into_owned()
    }
}

/// Turns an error of reading into ours: cut short, over a limit, the source's own, or damaged.
pub(crate) fn read_error(archive: &str, entry: &str, error: io::Error) -> ImageError {
    let (archive, entry) = (archive.to_owned(), entry.to_owned());
    if let Some(over) = error.get_ref().and_then(|e| e.downcast_ref::<OverLimit>()) {
        return ImageError::TooLarge {
            what: format!("{} ({archive})", over.what),
            limit: over.limit,
            unit: "bytes",
        };
    }
    match error.kind() {
        io::ErrorKind::UnexpectedEof => ImageError::Truncated { archive, entry },
        io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput | io::ErrorKind::Other
            if error.raw_os_error().is_none() =>
        {
            ImageError::BadArchive {
                archive,
                entry,
                why: error.to_string(),
            }
        }
        _ => ImageError::Io {
            what: "cannot read",
            path: archive.into(),
            source: error,
        },
    }
}

/// Fields of pax records that replace those of the header.
#[derive(Default)]
struct Extensions {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u32>,
    gid: Option<u32>,
    mtime: Option<(i64, u32)>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// The reader.
pub(crate) struct TarReader<R> {
    inner: R,
    archive: String,
    current: String,
    position: u64,
    data_left: u64,
    padding: u64,
    ended: bool,
}

impl<R: Read> TarReader<R> {
    /// `archive` names it in errors ("archive app.tar", "layer sha256:…").
    pub(crate) fn new(inner: R, archive: String) -> Self {
        Self {
            inner,
            archive,
            current: "the start".to_owned(),
            position: 0,
            data_left: 0,
            padding: 0,
            ended: false,
        }
    }

    fn bad(&self, why: impl Into<String>) -> ImageError {
        ImageError::BadArchive {
            archive: self.archive.clone(),
            entry: format!("{} (byte {})", self.current, self.position),
            why: why.into(),
        }
    }

    fn wrap(&self, error: io::Error) -> ImageError {
        read_error(&self.archive, &self.current, error)
    }

    /// The next entry; what is left of the current one's data is skipped.
    pub(crate) fn next(&mut self) -> Result<Option<Entry>> {
        let mut ext = Extensions::default();
        loop {
            self.skip_data()?;
            let Some(block) = self.header_block()? else {
                return Ok(None);
            };
            let size = number(&block[124..136])
                .ok_or_else(|| self.bad("its size field is not a number"))?;
            let size = u64::try_from(size).map_err(|_| self.bad("its size is negative"))?;
            match block[156] {
                b'x' => {
                    let records = self.extension(size)?;
                    self.pax(&records, &mut ext)?;
                }
                // Global records carry comments in practice (git archive); none are needed here.
                b'g' => drop(self.extension(size)?),
                b'L' => ext.path = Some(until_nul(&self.extension(size)?).to_vec()),
                b'K' => ext.link = Some(until_nul(&self.extension(size)?).to_vec()),
                _ => return self.entry(&block, size, ext).map(Some),
            }
        }
    }

    /// Reads to the end of the stream, so that digests over all of it are complete.
    pub(crate) fn finish(mut self) -> Result<R> {
        let mut buffer = vec![0; COPY_BUFFER_BYTES];
        loop {
            match self.inner.read(&mut buffer) {
                Ok(0) => return Ok(self.inner),
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(self.wrap(e)),
            }
        }
    }

    /// Copies the current entry's data; `write_error` turns a failure to write into ours.
    pub(crate) fn copy_data(
        &mut self,
        out: &mut impl Write,
        buffer: &mut [u8],
        write_error: impl Fn(io::Error) -> ImageError,
    ) -> Result<u64> {
        let mut total = 0;
        while self.data_left > 0 {
            let want = usize::try_from(self.data_left)
                .unwrap_or(usize::MAX)
                .min(buffer.len());
            let n = self.read_some(want, buffer)?;
            out.write_all(&buffer[..n]).map_err(&write_error)?;
            total += n as u64;
        }
        Ok(total)
    }

    fn read_some(&mut self, want: usize, buffer: &mut [u8]) -> Result<usize> {
        loop {
            match self.inner.read(&mut buffer[..want]) {
                Ok(0) => return Err(self.wrap(io::ErrorKind::UnexpectedEof.into())),
                Ok(n) => {
                    self.data_left -= n as u64;
                    self.position += n as u64;
                    return Ok(n);
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(self.wrap(e)),
            }
        }
    }

    fn skip_data(&mut self) -> Result<()> {
        let mut buffer = [0_u8; 8192];
        self.data_left += std::mem::take(&mut self.padding);
        while self.data_left > 0 {
            let want = usize::try_from(self.data_left)
                .unwrap_or(usize::MAX)
                .min(buffer.len());
            self.read_some(want, &mut buffer)?;
        }
        Ok(())
    }

    /// The next header with its checksum verified; `None` at the end.
    fn header_block(&mut self) -> Result<Option<[u8; BLOCK]>> {
        if self.ended {
            return Ok(None);
        }
        let mut block = [0_u8; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            match self.inner.read(&mut block[filled..]) {
                // Some writers leave out the two zero blocks; digests tell whether all was there.
                Ok(0) if filled == 0 => break,
                Ok(0) => return Err(self.wrap(io::ErrorKind::UnexpectedEof.into())),
                Ok(n) => filled += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(self.wrap(e)),
            }
        }
        self.position += filled as u64;
        if filled == 0 || block.iter().all(|b| *b == 0) {
            self.ended = true;
            return Ok(None);
        }
        let stored = number(&block[148..156]).ok_or_else(|| self.bad("no tar header here"))?;
        if stored != checksum(&block) {
            return Err(self.bad("the tar header's checksum is wrong"));
        }
        Ok(Some(block))
    }

    fn extension(&mut self, size: u64) -> Result<Vec<u8>> {
        if size > MAX_TAR_EXTENSION_BYTES {
            let what = format!("extension header at {} in {}", self.current, self.archive);
            return Err(ImageError::TooLarge {
                what,
                limit: MAX_TAR_EXTENSION_BYTES,
                unit: "bytes",
            });
        }
        self.begin_data(size);
        let mut out = Vec::new();
        let mut buffer = [0_u8; 4096];
        self.copy_data(&mut out, &mut buffer, |e| {
            ImageError::io("cannot keep", "memory".as_ref(), e)
        })?;
        Ok(out)
    }

    fn begin_data(&mut self, size: u64) {
        self.data_left = size;
        self.padding = size.next_multiple_of(BLOCK as u64) - size;
    }

    fn pax(&self, mut rest: &[u8], ext: &mut Extensions) -> Result<()> {
        while !rest.is_empty() {
            let (key, value, tail) =
                pax_record(rest).ok_or_else(|| self.bad("its pax records are malformed"))?;
            rest = tail;
            let Ok(key) = std::str::from_utf8(key) else {
                continue;
            };
            let text = || std::str::from_utf8(value).ok();
            let malformed = || self.bad(format!("its pax record {key} is malformed"));
            match key {
                "path" => ext.path = Some(value.to_vec()),
                "linkpath" => ext.link = Some(value.to_vec()),
                "size" => {
                    ext.size = Some(text().and_then(|t| t.parse().ok()).ok_or_else(malformed)?)
                }
                "uid" => ext.uid = Some(text().and_then(|t| t.parse().ok()).ok_or_else(malformed)?),
                "gid" => ext.gid = Some(text().and_then(|t| t.parse().ok()).ok_or_else(malformed)?),
                "mtime" => ext.mtime = Some(text().and_then(decimal_time).ok_or_else(malformed)?),
                _ if key.starts_with("GNU.sparse.") => return Err(self.sparse()),
                _ => {
                    if let Some(name) = key.strip_prefix(XATTR_KEY) {
                        self.xattr(name, value, ext)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn xattr(&self, name: &str, value: &[u8], ext: &mut Extensions) -> Result<()> {
        if ext.xattrs.len() == MAX_XATTRS {
            let what = format!("number of extended attributes at {}", self.current);
            return Err(ImageError::TooLarge {
                what,
                limit: MAX_XATTRS as u64,
                unit: "attributes",
            });
        }
        if value.len() > MAX_XATTR_BYTES {
            let what = format!("extended attribute {name} at {}", self.current);
            return Err(ImageError::TooLarge {
                what,
                limit: MAX_XATTR_BYTES as u64,
                unit: "bytes",
            });
        }
        ext.xattrs.push((name.as_bytes().to_vec(), value.to_vec()));
        Ok(())
    }

    fn sparse(&self) -> ImageError {
        ImageError::Unsupported {
            archive: self.archive.clone(),
            entry: self.current.clone(),
            what: "tar's sparse format".to_owned(),
            remedy: "pack it again without --sparse",
        }
    }

    fn entry(&mut self, block: &[u8; BLOCK], size: u64, ext: Extensions) -> Result<Entry> {
        let path = ext.path.unwrap_or_else(|| header_path(block));
        self.current = shown(&path);
        let link = ext
            .link
            .unwrap_or_else(|| until_nul(&block[157..257]).to_vec());
        for name in [&path, &link] {
            if name.len() > MAX_PATH_BYTES {
                let what = format!("path {} in {}", shown(name), self.archive);
                return Err(ImageError::TooLarge {
                    what,
                    limit: MAX_PATH_BYTES as u64,
                    unit: "bytes",
                });
            }
        }
        let kind = match block[156] {
            // Before POSIX a directory was a file whose name ends in a slash.
            b'0' | 0 | b'7' if path.ends_with(b"/") => Kind::Directory,
            b'0' | 0 | b'7' => Kind::File,
            b'1' => Kind::HardLink,
            b'2' => Kind::Symlink,
            b'3' => Kind::CharDevice,
            b'4' => Kind::BlockDevice,
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            b'S' => return Err(self.sparse()),
            other => return Err(self.bad(format!("its type {:?} is unknown", char::from(other)))),
        };
        let field = |range: std::ops::Range<usize>, name: &str| {
            let value = number(&block[range])
                .ok_or_else(|| self.bad(format!("its {name} field is not a number")))?;
            u32::try_from(value).map_err(|_| self.bad(format!("its {name} is out of range")))
        };
        let mode =
            number(&block[100..108]).ok_or_else(|| self.bad("its mode field is not a number"))?;
        let is_device = matches!(kind, Kind::CharDevice | Kind::BlockDevice);
        let device = if is_device {
            (field(329..337, "device")?, field(337..345, "device")?)
        } else {
            (0, 0)
        };
        let entry = Entry {
            uid: ext.uid.map_or_else(|| field(108..116, "owner"), Ok)?,
            gid: ext.gid.map_or_else(|| field(116..124, "group"), Ok)?,
            mtime: ext.mtime.map_or_else(
                || {
                    number(&block[136..148])
                        .map(|s| (s, 0))
                        .ok_or_else(|| self.bad("its time field is not a number"))
                },
                Ok,
            )?,
            mode: u32::try_from(mode & 0o7777).unwrap_or(0),
            size: if kind == Kind::File {
                ext.size.unwrap_or(size)
            } else {
                0
            },
            path,
            link,
            kind,
            device,
            xattrs: ext.xattrs,
        };
        if i64::try_from(entry.size).is_err() {
            return Err(self.bad("its size is out of range"));
        }
        self.begin_data(entry.size);
        Ok(entry)
    }
}

fn header_path(block: &[u8; BLOCK]) -> Vec<u8> {
    let name = until_nul(&block[..100]);
    let prefix = until_nul(&block[345..500]);
    // GNU's own magic ("ustar  ") means the bytes of the prefix hold something else.
    if &block[257..263] == b"ustar\0" && !prefix.is_empty() {
        [prefix, b"/", name].concat()
    } else {
        name.to_vec()
    }
}

fn until_nul(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    &bytes[..end]
}

/// Sum of a header's bytes with the checksum field read as spaces.
pub(crate) fn checksum(block: &[u8; BLOCK]) -> i64 {
    let all: i64 = block.iter().map(|b| i64::from(*b)).sum();
    let field: i64 = block[148..156].iter().map(|b| i64::from(*b)).sum();
    all - field + 8 * i64::from(b' ')
}

/// A numeric field: octal text, or GNU's base 256 when the first bit is set. Empty counts as zero.
fn number(field: &[u8]) -> Option<i64> {
    if field[0] & 0x80 != 0 {
        // Two's complement; bit 7 is the marker, bit 6 the sign.
        let negative = field[0] & 0x40 != 0;
        let mut value: i128 = if negative { -1 } else { 0 };
        for (at, byte) in field.iter().enumerate() {
            let byte = if at == 0 {
                (byte & 0x7f) | if negative { 0x80 } else { 0 }
            } else {
                *byte
            };
            value = value.checked_mul(256)? | i128::from(byte);
        }
        return i64::try_from(value).ok();
    }
    let text = std::str::from_utf8(until_nul(field))
        .ok()?
        .trim_matches(' ');
    if text.is_empty() {
        Some(0)
    } else {
        u64::from_str_radix(text, 8)
            .ok()
            .and_then(|v| v.try_into().ok())
    }
}

/// One record "LENGTH KEY=VALUE\n": key, value and what follows.
fn pax_record(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = bytes.iter().take(20).position(|b| *b == b' ')?;
    let length: usize = std::str::from_utf8(&bytes[..space]).ok()?.parse().ok()?;
    let record = bytes.get(space + 1..length)?;
    let record = record.strip_suffix(b"\n")?;
    let equals = record.iter().position(|b| *b == b'=')?;
    Some((&record[..equals], &record[equals + 1..], &bytes[length..]))
}

/// "-12.5" as whole seconds rounded down and nanoseconds.
fn decimal_time(text: &str) -> Option<(i64, u32)> {
    let (negative, digits) = text
        .strip_prefix('-')
        .map_or((false, text), |rest| (true, rest));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if !digits.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        return None;
    }
    let seconds: i64 = whole.parse().ok()?;
    let nanos: String = fraction
        .chars()
        .chain(std::iter::repeat('0'))
        .take(9)
        .collect();
    let nanos: u32 = nanos.parse().ok()?;
    match (negative, nanos) {
        (false, _) => Some((seconds, nanos)),
        (true, 0) => Some((-seconds, 0)),
        (true, _) => Some((-seconds - 1, 1_000_000_000 - nanos)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn reader(bytes: &[u8]) -> TarReader<&[u8]> {
        TarReader::new(bytes, "test".to_owned())
    }

    #[test]
    fn numbers_in_both_forms() {
        assert_eq!(number(b"0000644\0"), Some(0o644));
        assert_eq!(number(b"  644 \0 "), Some(0o644));
        assert_eq!(number(&[0; 8]), Some(0));
        assert_eq!(number(&[0x80, 0, 0, 0, 0, 0, 1, 0]), Some(256));
        assert_eq!(number(&[0xff; 12]), Some(-1));
        assert_eq!(
            number(&[
                0x80, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff
            ]),
            None
        );
        assert_eq!(number(b"12x45678"), None);
    }

    #[test]
    fn times() {
        assert_eq!(decimal_time("12.5"), Some((12, 500_000_000)));
        assert_eq!(decimal_time("-0.25"), Some((-1, 750_000_000)));
        assert_eq!(decimal_time("7"), Some((7, 0)));
        for text in ["", "x", "1.2.3", "--1", "+1"] {
            assert_eq!(decimal_time(text), None, "{text}");
        }
    }

    #[test]
    fn reads_what_the_tar_crate_writes() {
        let mut builder = tar::Builder::new(Vec::new());
        let long = format!("{}/{}", "d".repeat(120), "f".repeat(120));
        for (path, data) in [("a", b"one".as_slice()), (long.as_str(), b"two")] {
            let mut header = tar::Header::new_gnu();
            header.set_size(data.len() as u64);
            header.set_mode(0o4755);
            header.set_uid(7);
            header.set_mtime(99);
            header.set_entry_type(tar::EntryType::Regular);
            builder.append_data(&mut header, path, data).unwrap();
        }
        let bytes = builder.into_inner().unwrap();
        let mut r = reader(&bytes);
        let first = r.next().unwrap().unwrap();
        assert_eq!(
            (first.path.as_slice(), first.mode, first.uid, first.mtime),
            (b"a".as_slice(), 0o4755, 7, (99, 0))
        );
        let second = r.next().unwrap().unwrap();
        assert_eq!(second.path, long.as_bytes());
        let mut out = Vec::new();
        r.copy_data(&mut out, &mut [0; 2], |e| panic!("{e}"))
            .unwrap();
        assert_eq!(out, b"two");
        assert!(r.next().unwrap().is_none());
        let mut cut = reader(&bytes[..bytes.len() - 1024 - 100]);
        let error = std::iter::from_fn(|| cut.next().transpose())
            .find_map(std::result::Result::err)
            .unwrap();
        assert!(matches!(error, ImageError::Truncated { .. }), "{error}");
    }

    #[test]
    fn huge_extension_is_refused_before_it_is_read() {
        let mut header = tar::Header::new_gnu();
        header.set_size(1 << 40);
        header.set_entry_type(tar::EntryType::GNULongName);
        header.set_cksum();
        let error = reader(header.as_bytes()).next().unwrap_err();
        assert!(matches!(error, ImageError::TooLarge { .. }), "{error}");
    }

    proptest! {
        #[test]
        fn any_bytes_end_or_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..3000)) {
            let mut r = reader(&bytes);
            while let Ok(Some(_)) = r.next() {}
        }

        #[test]
        fn mutated_headers_end_or_are_refused(flips in proptest::collection::vec((0_usize..2048, any::<u8>()), 0..12), fix in any::<bool>()) {
            let mut builder = tar::Builder::new(Vec::new());
            let mut header = tar::Header::new_ustar();
            header.set_size(3);
            builder.append_pax_extensions([("path", b"long".as_slice()), ("mtime", b"1.5")]).unwrap();
            builder.append_data(&mut header, "x", b"abc".as_slice()).unwrap();
            let mut bytes = builder.into_inner().unwrap();
            for (at, value) in flips {
                let len = bytes.len();
                bytes[at % len] = value;
            }
            if fix {
                // With right checksums the damage reaches the fields behind them.
                for chunk in bytes.chunks_exact_mut(BLOCK) {
                    let mut block: [u8; BLOCK] = chunk.try_into().unwrap();
                    let sum = format!("{:06o}\0 ", checksum(&block));
                    block[148..156].copy_from_slice(sum.as_bytes());
                    chunk.copy_from_slice(&block);
                }
            }
            let mut r = reader(&bytes);
            while let Ok(Some(_)) = r.next() {}
        }
    }
}
