//! Recognising and undoing compression, and bounding what a reader may yield.

use flate2::read::MultiGzDecoder;
use std::fmt;
use std::io::{self, BufRead, BufReader, Read};

const GZIP_MAGIC: &[u8] = &[0x1f, 0x8b];
const ZSTD_MAGIC: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
const XZ_MAGIC: &[u8] = &[0xfd, b'7', b'z', b'X', b'Z', 0];
const BZIP2_MAGIC: &[u8] = b"BZh";
const BUFFER_BYTES: usize = 128 * 1024;
/// Longest magic that is looked at, in bytes.
const MAGIC_BYTES: u64 = 6;

/// Form of a byte stream, by its first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Plain,
    Gzip,
    Zstd,
}

/// A compression that is recognised but not read.
#[derive(Debug)]
pub(crate) struct UnsupportedForm(pub &'static str);

/// Looks at the first bytes of a stream.
pub(crate) fn detect(start: &[u8]) -> Result<Form, UnsupportedForm> {
    if start.starts_with(GZIP_MAGIC) {
        return Ok(Form::Gzip);
    }
    if start.starts_with(ZSTD_MAGIC) {
        return Ok(Form::Zstd);
    }
    if start.starts_with(XZ_MAGIC) {
        return Err(UnsupportedForm("xz compression"));
    }
    if start.starts_with(BZIP2_MAGIC) {
        return Err(UnsupportedForm("bzip2 compression"));
    }
    Ok(Form::Plain)
}

/// A stream with its compression undone.
pub(crate) enum Plain<R: Read> {
    AsIs(BufReader<Prefixed<R>>),
    Gzip(Box<BufReader<MultiGzDecoder<BufReader<Prefixed<R>>>>>),
    Zstd(Box<BufReader<zstd::Decoder<'static, BufReader<Prefixed<R>>>>>),
}

impl<R: Read> Plain<R> {
    /// Reads the first bytes and sets up the decoder they call for.
    pub(crate) fn new(mut inner: R) -> io::Result<Result<Self, UnsupportedForm>> {
        let mut start = Vec::new();
        (&mut inner).take(MAGIC_BYTES).read_to_end(&mut start)?;
        let form = match detect(&start) {
            Ok(form) => form,
            Err(e) => return Ok(Err(e)),
        };
        let source = BufReader::with_capacity(
            BUFFER_BYTES,
            Prefixed {
                start,
                at: 0,
                inner,
            },
        );
        Ok(Ok(match form {
            Form::Plain => Self::AsIs(source),
            Form::Gzip => Self::Gzip(Box::new(BufReader::with_capacity(
                BUFFER_BYTES,
                MultiGzDecoder::new(source),
            ))),
            Form::Zstd => Self::Zstd(Box::new(BufReader::with_capacity(
                BUFFER_BYTES,
                zstd::Decoder::with_buffer(source)?,
            ))),
        }))
    }
}

impl<R: Read> Read for Plain<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::AsIs(r) => r.read(buf),
            Self::Gzip(r) => r.read(buf),
            Self::Zstd(r) => r.read(buf),
        }
    }
}

impl<R: Read> BufRead for Plain<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        match self {
            Self::AsIs(r) => r.fill_buf(),
            Self::Gzip(r) => r.fill_buf(),
            Self::Zstd(r) => r.fill_buf(),
        }
    }

    fn consume(&mut self, amount: usize) {
        match self {
            Self::AsIs(r) => r.consume(amount),
            Self::Gzip(r) => r.consume(amount),
            Self::Zstd(r) => r.consume(amount),
        }
    }
}

/// Some bytes already read, then the rest.
pub(crate) struct Prefixed<R> {
    start: Vec<u8>,
    at: usize,
    inner: R,
}

impl<R: Read> Read for Prefixed<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.at == self.start.len() {
            return self.inner.read(buf);
        }
        let n = buf.len().min(self.start.len() - self.at);
        buf[..n].copy_from_slice(&self.start[self.at..self.at + n]);
        self.at += n;
        Ok(n)
    }
}

/// Carried inside an `io::Error` when a stream yields more than it may.
#[derive(Debug)]
pub(crate) struct OverLimit {
    pub what: &'static str,
    pub limit: u64,
}

impl fmt::Display for OverLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is over {} bytes", self.what, self.limit)
    }
}

impl std::error::Error for OverLimit {}

/// A reader that fails, rather than ends, when more than the limit comes.
pub(crate) struct Bounded<R> {
    inner: R,
    left: u64,
    limit: u64,
    what: &'static str,
}

impl<R> Bounded<R> {
    pub(crate) fn new(inner: R, limit: u64, what: &'static str) -> Self {
        Self {
            inner,
            left: limit,
            limit,
            what,
        }
    }
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        match self.left.checked_sub(n as u64) {
            Some(left) => self.left = left,
            None => {
                return Err(io::Error::other(OverLimit {
                    what: self.what,
                    limit: self.limit,
                }));
            }
        }
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn read_all(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        Plain::new(bytes)?
            .unwrap_or_else(|e| panic!("{}", e.0))
            .read_to_end(&mut out)?;
        Ok(out)
    }

    #[test]
    fn all_forms_read_back_and_cut_ones_fail() {
        let data: Vec<u8> = (0..200_000_u32).map(|n| (n * 7 % 251) as u8).collect();
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gz.write_all(&data[..100_000]).unwrap();
        let mut two = gz.finish().unwrap();
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gz.write_all(&data[100_000..]).unwrap();
        two.extend(gz.finish().unwrap());
        let zst = zstd::encode_all(data.as_slice(), 1).unwrap();
        assert_eq!(read_all(&data).unwrap(), data);
        assert_eq!(
            read_all(&two).unwrap(),
            data,
            "several gzip members are one stream"
        );
        assert_eq!(read_all(&zst).unwrap(), data);
        assert!(read_all(&two[..two.len() - 9]).is_err());
        assert!(read_all(&zst[..zst.len() - 9]).is_err());
        assert_eq!(read_all(b"ab").unwrap(), b"ab");
        assert!(Plain::new(b"BZh91AY".as_slice()).unwrap().is_err());
    }

    #[test]
    fn bound_is_exact() {
        let mut out = Vec::new();
        assert_eq!(
            Bounded::new([0_u8; 10].as_slice(), 10, "x")
                .read_to_end(&mut out)
                .unwrap(),
            10
        );
        assert!(
            Bounded::new([0_u8; 11].as_slice(), 10, "x")
                .read_to_end(&mut out)
                .is_err()
        );
    }
}
