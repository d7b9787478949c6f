//! The form of a cluster backup: everything of it is sealed by a passphrase.
//!
//! ```text
//! "WRNBACKP", format (u32), length of the header body (u32)
//! header body: cluster id (16), time (u64 ms), rounds (u32), salt (16), content key (wrapped, 64),
//!              number of data keys (u32), data keys (wrapped, 64 each)
//! SHA-256 of all before (32)
//! pieces: length and flag "last" (u32), ciphertext
//! ```
//!
//! Numbers are little-endian. The passphrase gives the key that wraps the data keys and a content key,
//! fresh for each backup; the content key seals the payload in pieces of [`PIECE_BYTES`] with
//! AES-256-GCM. Number and flag of a piece are its nonce and the header's digest is its associated
//! data: a piece that is missing, moved, cut, or of another backup is found out. The digest in the
//! header only tells a damaged header from a wrong passphrase; what protects it is the sealing.

use crate::sealing::{
    DataKey, KEY_BYTES, Keyring, PASSPHRASE_ROUNDS, SALT_BYTES, WRAPPED_BYTES, WrapKey, WrappedKey,
    aead,
};
use ring::aead::{Aad, LessSafeKey, NONCE_LEN, Nonce};
use std::io::{self, Read, Write};
use warren_types::{ClusterId, Timestamp, limits};
use zeroize::{Zeroize, Zeroizing};

/// Format of the backups that this program writes, and the newest that it reads.
pub const BACKUP_FORMAT: u32 = 1;
/// First bytes of every backup.
pub const BACKUP_MAGIC: [u8; 8] = *b"WRNBACKP";
/// Plaintext of every piece but the last, in bytes: 256 KiB.
pub const PIECE_BYTES: usize = 256 * 1024;
/// Shortest passphrase, in characters.
pub const PASSPHRASE_CHARS_MIN: usize = 8;
/// Most rounds that a reader carries out for a passphrase.
pub const PASSPHRASE_ROUNDS_MAX: u32 = 10_000_000;
const TAG_BYTES: usize = limits::SEAL_TAG_BYTES;
const DIGEST_BYTES: usize = 32;
const HEAD_BYTES: usize = BACKUP_MAGIC.len() + 8;
/// Header body without data keys.
const BODY_BYTES: usize = 16 + 8 + 4 + SALT_BYTES + WRAPPED_BYTES + 4;
const BODY_BYTES_MAX: usize = BODY_BYTES + limits::KEY_EPOCHS_MAX * WRAPPED_BYTES;
/// Flag of the last piece, in its length.
const LAST: u32 = 1 << 31;
/// Data keys count from 1; this is the content key.
const CONTENT_KEY: u32 = 0;

/// Why a backup cannot be made or read.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// Something else altogether.
    #[error(
        "this is not a backup of a Warren cluster: give the file that `warren cluster backup` wrote"
    )]
    NotABackup,
    /// Written by a newer program.
    #[error(
        "this backup has format {found}, the newest that this program knows is {BACKUP_FORMAT}: restore it with a newer version of warren"
    )]
    NewerFormat {
        /// Format of the file.
        found: u32,
    },
    /// The passphrase does not open it.
    #[error(
        "the passphrase does not open this backup of {created_at}: give the one that it was made with"
    )]
    WrongPassphrase {
        /// When the backup was made.
        created_at: Timestamp,
    },
    /// It ends too early.
    #[error(
        "the backup is cut short: it ends in {place}; copy it again, or use an older one (nothing was restored)"
    )]
    CutShort {
        /// Where it ends.
        place: String,
    },
    /// It was altered.
    #[error(
        "the backup is damaged: {place}; copy it again, or use an older one (nothing was restored)"
    )]
    Damaged {
        /// Where.
        place: String,
    },
    /// Too short a passphrase.
    #[error("a passphrase has at least {PASSPHRASE_CHARS_MIN} characters: choose a longer one")]
    WeakPassphrase,
    /// More data keys than a backup can hold.
    #[error(
        "{count} data keys are too many for a backup: the limit is {}",
        limits::KEY_EPOCHS_MAX
    )]
    TooManyKeys {
        /// How many.
        count: usize,
    },
    /// The file cannot be read or written.
    #[error(
        "the backup cannot be read or written: {0}; look at the disk and the file's permissions"
    )]
    Io(#[from] io::Error),
}

/// What anyone can read of a backup without the passphrase. It can be believed once the backup was
/// opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackupInfo {
    /// The cluster.
    pub cluster: ClusterId,
    /// When it was made.
    pub created_at: Timestamp,
}

/// Random bytes of one backup, never used twice.
pub struct BackupRandom {
    /// Salt of the passphrase.
    pub salt: [u8; SALT_BYTES],
    /// Key of the payload.
    pub content_key: [u8; KEY_BYTES],
}

impl Drop for BackupRandom {
    fn drop(&mut self) {
        self.content_key.zeroize();
    }
}

/// Writes a backup: what is written into it becomes the payload. Without [`Self::finish`] it is not
/// whole, and readers say so.
pub struct BackupWriter<W: Write> {
    out: W,
    sealer: Sealer,
    piece: Zeroizing<Vec<u8>>,
}

impl<W: Write> BackupWriter<W> {
    /// Begins a backup. Takes some tenths of a second for the passphrase.
    ///
    /// # Errors
    /// [`BackupError::WeakPassphrase`], [`BackupError::TooManyKeys`], or what `out` says.
    pub fn new(
        out: W,
        info: BackupInfo,
        passphrase: &str,
        keys: &Keyring,
        random: BackupRandom,
    ) -> Result<Self, BackupError> {
        Self::with_rounds(out, info, passphrase, keys, random, PASSPHRASE_ROUNDS)
    }

    fn with_rounds(
        mut out: W,
        info: BackupInfo,
        passphrase: &str,
        keys: &Keyring,
        random: BackupRandom,
        rounds: u32,
    ) -> Result<Self, BackupError> {
        if passphrase.chars().count() < PASSPHRASE_CHARS_MIN {
            return Err(BackupError::WeakPassphrase);
        }
        let count = keys.keys().count();
        if count > limits::KEY_EPOCHS_MAX {
            return Err(BackupError::TooManyKeys { count });
        }
        let wrap_key = WrapKey::derive(passphrase, &random.salt, rounds);
        // The wrapping key is used for this backup alone (its salt is new), so that counting gives
        // nonces that never come twice.
        let mut nonces = 0_u64..;
        let mut wrap = |key: &DataKey| {
            let nonce = nonce(nonces.next().unwrap_or_default(), false);
            wrap_key.wrap(key, nonce).to_bytes()
        };
        let content_key = DataKey::new(CONTENT_KEY, random.content_key);
        let mut body = Vec::with_capacity(BODY_BYTES + count * WRAPPED_BYTES);
        body.extend_from_slice(&info.cluster.as_u128().to_le_bytes());
        body.extend_from_slice(&info.created_at.0.to_le_bytes());
        body.extend_from_slice(&rounds.to_le_bytes());
        body.extend_from_slice(&random.salt);
        body.extend_from_slice(&wrap(&content_key));
        body.extend_from_slice(&length(count).to_le_bytes());
        for key in keys.keys() {
            body.extend_from_slice(&wrap(key));
        }
        let mut header = BACKUP_MAGIC.to_vec();
        header.extend_from_slice(&BACKUP_FORMAT.to_le_bytes());
        header.extend_from_slice(&length(body.len()).to_le_bytes());
        header.extend_from_slice(&body);
        let digest = digest(&header);
        out.write_all(&header)?;
        out.write_all(&digest)?;
        Ok(Self {
            out,
            sealer: Sealer::new(&random.content_key, digest),
            piece: Zeroizing::new(Vec::with_capacity(PIECE_BYTES + TAG_BYTES)),
        })
    }

    /// Writes the last piece; gives `out` back.
    ///
    /// # Errors
    /// What `out` says.
    pub fn finish(mut self) -> io::Result<W> {
        self.put_piece(true)?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn put_piece(&mut self, last: bool) -> io::Result<()> {
        self.sealer.seal(&mut self.piece, last)?;
        let flag = if last { LAST } else { 0 };
        let head = length(self.piece.len()) | flag;
        self.out.write_all(&head.to_le_bytes())?;
        self.out.write_all(&self.piece)?;
        self.piece.clear();
        Ok(())
    }
}

impl<W: Write> Write for BackupWriter<W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        // The piece is sealed when more follows, so that only `finish` writes the last one.
        if self.piece.len() == PIECE_BYTES && !data.is_empty() {
            self.put_piece(false)?;
        }
        let take = data.len().min(PIECE_BYTES - self.piece.len());
        self.piece.extend_from_slice(&data[..take]);
        Ok(take)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Reads a backup, one piece at a time.
pub struct BackupReader<R: Read> {
    input: R,
    info: BackupInfo,
    keys: Keyring,
    sealer: Sealer,
    ended: bool,
}

impl<R: Read> BackupReader<R> {
    /// Reads the header and opens the keys. Takes some tenths of a second for the passphrase.
    ///
    /// # Errors
    /// [`BackupError`] saying why this is no backup, or cannot be opened.
    pub fn open(mut input: R, passphrase: &str) -> Result<Self, BackupError> {
        let header = Header::read(&mut input)?;
        let info = header.info;
        let wrap_key = WrapKey::derive(passphrase, &header.salt, header.rounds);
        let wrong = BackupError::WrongPassphrase {
            created_at: info.created_at,
        };
        let content_key = wrap_key.unwrap(&header.content_key).map_err(|_| wrong)?;
        let mut keys = Keyring::new();
        for wrapped in &header.data_keys {
            let key = wrap_key.unwrap(wrapped);
            keys.insert(key.map_err(|_| damaged(format!("data key {}", wrapped.epoch)))?);
        }
        Ok(Self {
            input,
            info,
            keys,
            sealer: Sealer::new(content_key.expose(), header.digest),
            ended: false,
        })
    }

    /// Whose backup it is, and of when.
    #[must_use]
    pub const fn info(&self) -> BackupInfo {
        self.info
    }

    /// The data keys.
    #[must_use]
    pub const fn keys(&self) -> &Keyring {
        &self.keys
    }

    /// The next piece of the payload; `None` after the last one, and then the backup was whole. Do
    /// nothing with the pieces before that.
    ///
    /// # Errors
    /// [`BackupError::CutShort`], [`BackupError::Damaged`], or what `input` says.
    pub fn piece(&mut self) -> Result<Option<Vec<u8>>, BackupError> {
        if self.ended {
            return Ok(None);
        }
        let place = format!("piece {}", self.sealer.next);
        let mut head = [0; 4];
        fill(&mut self.input, &mut head, &place)?;
        let head = u32::from_le_bytes(head);
        let (len, last) = (size(head & !LAST), head & LAST != 0);
        let full = PIECE_BYTES + TAG_BYTES;
        if len < TAG_BYTES || len > full || (!last && len != full) {
            return Err(damaged(format!("{place} has {len} bytes")));
        }
        let mut bytes = vec![0; len];
        fill(&mut self.input, &mut bytes, &place)?;
        self.sealer
            .open(&mut bytes, last)
            .map_err(|()| damaged(format!("{place} was altered, or is not of this backup")))?;
        if last {
            self.ended = true;
            let mut rest = [0; 1];
            if read(&mut self.input, &mut rest)? != 0 {
                return Err(damaged("something follows its end".to_owned()));
            }
        }
        Ok(Some(bytes))
    }

    /// The whole payload, after all of it was found to be whole.
    ///
    /// # Errors
    /// As [`Self::piece`].
    pub fn payload(&mut self) -> Result<Vec<u8>, BackupError> {
        let mut all = Vec::new();
        while let Some(piece) = self.piece()? {
            all.extend_from_slice(&piece);
        }
        Ok(all)
    }
}

/// Whose backup this is, and of when, without the passphrase. Only the header is read.
///
/// # Errors
/// [`BackupError`] when it does not begin like a backup that this program can read.
pub fn inspect(mut input: impl Read) -> Result<BackupInfo, BackupError> {
    Ok(Header::read(&mut input)?.info)
}

struct Header {
    info: BackupInfo,
    rounds: u32,
    salt: [u8; SALT_BYTES],
    content_key: WrappedKey,
    data_keys: Vec<WrappedKey>,
    digest: [u8; DIGEST_BYTES],
}

impl Header {
    fn read(input: &mut impl Read) -> Result<Self, BackupError> {
        let place = "the header";
        let mut bytes = vec![0; HEAD_BYTES];
        let got = read(input, &mut bytes)?;
        let begins = bytes
            .iter()
            .take(got)
            .zip(&BACKUP_MAGIC)
            .all(|(a, b)| a == b);
        if got == 0 || !begins {
            return Err(BackupError::NotABackup);
        }
        if got < HEAD_BYTES {
            return Err(cut(place));
        }
        let mut head = Fields(&bytes[BACKUP_MAGIC.len()..]);
        let (format, body_len) = (head.u32()?, size(head.u32()?));
        if format > BACKUP_FORMAT {
            return Err(BackupError::NewerFormat { found: format });
        }
        if format == 0 || !(BODY_BYTES..=BODY_BYTES_MAX).contains(&body_len) {
            return Err(damaged(place.to_owned()));
        }
        bytes.resize(HEAD_BYTES + body_len, 0);
        fill(input, &mut bytes[HEAD_BYTES..], place)?;
        let mut found = [0; DIGEST_BYTES];
        fill(input, &mut found, place)?;
        if found != digest(&bytes) {
            return Err(damaged(place.to_owned()));
        }
        Self::parse(&bytes[HEAD_BYTES..], found)
    }

    fn parse(body: &[u8], digest: [u8; DIGEST_BYTES]) -> Result<Self, BackupError> {
        let bad = || damaged("the header".to_owned());
        let mut fields = Fields(body);
        let info = BackupInfo {
            cluster: ClusterId::from_u128(u128::from_le_bytes(fields.take()?)),
            created_at: Timestamp(u64::from_le_bytes(fields.take()?)),
        };
        let rounds = fields.u32()?;
        let salt = fields.take()?;
        let content_key = fields.wrapped()?;
        let count = size(fields.u32()?);
        if !(1..=PASSPHRASE_ROUNDS_MAX).contains(&rounds)
            || fields.0.len() != count.saturating_mul(WRAPPED_BYTES)
        {
            return Err(bad());
        }
        let data_keys = (0..count).map(|_| fields.wrapped());
        Ok(Self {
            info,
            rounds,
            salt,
            content_key,
            data_keys: data_keys.collect::<Result<_, _>>()?,
            digest,
        })
    }
}

/// What is left of some bytes.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], BackupError> {
        let split = self.0.split_first_chunk::<N>();
        let (field, rest) = split.ok_or_else(|| damaged("the header".to_owned()))?;
        self.0 = rest;
        Ok(*field)
    }
    fn u32(&mut self) -> Result<u32, BackupError> {
        Ok(u32::from_le_bytes(self.take()?))
    }
    fn wrapped(&mut self) -> Result<WrappedKey, BackupError> {
        let bytes: [u8; WRAPPED_BYTES] = self.take()?;
        WrappedKey::from_bytes(&bytes).map_err(|e| damaged(e.to_string()))
    }
}

/// Seals or opens pieces one after the other.
struct Sealer {
    key: LessSafeKey,
    /// Digest of the header.
    bound_to: [u8; DIGEST_BYTES],
    /// Number of the next piece.
    next: u64,
}

impl Sealer {
    fn new(key: &[u8; KEY_BYTES], bound_to: [u8; DIGEST_BYTES]) -> Self {
        Self {
            key: aead(key),
            bound_to,
            next: 0,
        }
    }

    fn step(&mut self, last: bool) -> Nonce {
        let number = self.next;
        self.next += 1;
        Nonce::assume_unique_for_key(nonce(number, last))
    }

    fn seal(&mut self, piece: &mut Vec<u8>, last: bool) -> io::Result<()> {
        let nonce = self.step(last);
        self.key
            .seal_in_place_append_tag(nonce, Aad::from(&self.bound_to), piece)
            .map_err(|_| io::Error::other("a piece of the backup could not be sealed"))
    }

    fn open(&mut self, piece: &mut Vec<u8>, last: bool) -> Result<(), ()> {
        let nonce = self.step(last);
        let opened = self
            .key
            .open_in_place(nonce, Aad::from(&self.bound_to), piece)
            .map_err(|_| ())?;
        let len = opened.len();
        piece.truncate(len);
        Ok(())
    }
}

fn nonce(number: u64, last: bool) -> [u8; NONCE_LEN] {
    let mut bytes = [0; NONCE_LEN];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    bytes[8] = u8::from(last);
    bytes
}

fn digest(bytes: &[u8]) -> [u8; DIGEST_BYTES] {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    let mut out = [0; DIGEST_BYTES];
    out.copy_from_slice(digest.as_ref());
    out
}

/// Reads until the buffer is full or the input ends; gives what was read.
fn read(input: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut got = 0;
    while got < buffer.len() {
        match input.read(&mut buffer[got..]) {
            Ok(0) => break,
            Ok(more) => got += more,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(got)
}

fn fill(input: &mut impl Read, buffer: &mut [u8], place: &str) -> Result<(), BackupError> {
    if read(input, buffer)? == buffer.len() {
        Ok(())
    } else {
        Err(cut(place))
    }
}

fn cut(place: &str) -> BackupError {
    BackupError::CutShort {
        place: place.to_owned(),
    }
}

const fn damaged(place: String) -> BackupError {
    BackupError::Damaged { place }
}

/// Lengths here are bounded far below 2^31.
fn length(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(!LAST)
}

fn size(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests;
