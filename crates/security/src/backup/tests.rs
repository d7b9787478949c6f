//! A backup opens whole with its passphrase, or says what is wrong; never half, never a panic.

use super::*;
use proptest::prelude::*;

const PASSPHRASE: &str = "correct horse";
/// Few, so that thousands of cases take seconds; that real ones take longer is no matter of the form.
const ROUNDS: u32 = 2;

fn info() -> BackupInfo {
    BackupInfo {
        cluster: ClusterId::from_u128(7),
        created_at: Timestamp(1_790_000_000_000),
    }
}

fn keyring() -> Keyring {
    let mut keys = Keyring::new();
    keys.insert(DataKey::new(1, [1; 32]));
    keys.insert(DataKey::new(2, [2; 32]));
    keys
}

fn random(content_key: u8) -> BackupRandom {
    BackupRandom {
        salt: [4; SALT_BYTES],
        content_key: [content_key; KEY_BYTES],
    }
}

fn sealed_by(payload: &[u8], random: BackupRandom) -> Vec<u8> {
    let begun =
        BackupWriter::with_rounds(Vec::new(), info(), PASSPHRASE, &keyring(), random, ROUNDS);
    let mut writer = begun.unwrap();
    writer.write_all(payload).unwrap();
    writer.finish().unwrap()
}

fn sealed(payload: &[u8]) -> Vec<u8> {
    sealed_by(payload, random(5))
}

fn open(bytes: &[u8]) -> Result<Vec<u8>, BackupError> {
    BackupReader::open(bytes, PASSPHRASE)?.payload()
}

/// Where the pieces begin.
fn header_len(bytes: &[u8]) -> usize {
    let at = BACKUP_MAGIC.len() + 4;
    let body = u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    HEAD_BYTES + size(body) + DIGEST_BYTES
}

const FULL: usize = 4 + PIECE_BYTES + TAG_BYTES;

#[test]
fn a_backup_brings_back_keys_and_payload() {
    for len in [
        0,
        1,
        PIECE_BYTES - 1,
        PIECE_BYTES,
        PIECE_BYTES + 1,
        3 * PIECE_BYTES,
    ] {
        let payload: Vec<u8> = (0..len).map(|n| (n % 251) as u8).collect();
        let bytes = sealed(&payload);
        assert_eq!(inspect(bytes.as_slice()).unwrap(), info());
        let mut reader = BackupReader::open(bytes.as_slice(), PASSPHRASE).unwrap();
        assert_eq!(reader.info(), info());
        let epochs: Vec<u32> = reader.keys().keys().map(DataKey::epoch).collect();
        assert_eq!(epochs, [1, 2]);
        assert!(reader.payload().unwrap() == payload, "of {len} bytes");
        assert!(reader.piece().unwrap().is_none());
        if len > 16 {
            assert!(!bytes.windows(16).any(|w| w == &payload[..16]), "in clear");
        }
    }
}

/// With the rounds that users get.
#[test]
fn a_real_backup_opens_with_its_passphrase_only() {
    let begun = BackupWriter::new(Vec::new(), info(), PASSPHRASE, &keyring(), random(5));
    let mut writer = begun.unwrap();
    writer.write_all(b"state").unwrap();
    let bytes = writer.finish().unwrap();
    assert_eq!(open(&bytes).unwrap(), b"state");
    let wrong = BackupReader::open(bytes.as_slice(), "correct horsf").err();
    let Some(BackupError::WrongPassphrase { created_at }) = wrong else {
        panic!("{wrong:?}");
    };
    assert_eq!(created_at, info().created_at);
}

#[test]
fn each_thing_that_is_wrong_is_named() {
    let bytes = sealed(b"state");
    let text = |result: Result<Vec<u8>, BackupError>| result.unwrap_err().to_string();
    for other in [
        &b""[..],
        b"PK\x03\x04 something else entirely",
        b"WRNSTATE\x01\0\0\0",
    ] {
        assert!(text(open(other)).contains("not a backup"));
    }
    let mut newer = bytes.clone();
    newer[8] = 2;
    assert!(matches!(
        open(&newer),
        Err(BackupError::NewerFormat { found: 2 })
    ));
    let mut altered = bytes.clone();
    altered[HEAD_BYTES + 3] ^= 1;
    assert!(text(open(&altered)).contains("damaged: the header"));
    assert!(text(open(&bytes[..HEAD_BYTES + 5])).contains("cut short: it ends in the header"));
    assert!(text(open(&bytes[..bytes.len() - 1])).contains("cut short: it ends in piece 0"));
    let mut longer = bytes;
    longer.push(0);
    assert!(text(open(&longer)).contains("something follows"));
    let begun = BackupWriter::new(Vec::new(), info(), "short", &keyring(), random(5));
    assert!(matches!(begun.err(), Some(BackupError::WeakPassphrase)));
}

/// What an attacker with the file can do without the passphrase: move whole pieces about.
#[test]
fn pieces_cannot_be_moved_dropped_or_taken_from_another_backup() {
    let payload = vec![7; 3 * PIECE_BYTES];
    let bytes = sealed(&payload);
    let start = header_len(&bytes);
    let piece = |n: usize| start + n * FULL..start + (n + 1) * FULL;
    let mut swapped = bytes.clone();
    swapped[piece(0)].copy_from_slice(&bytes[piece(1)]);
    swapped[piece(1)].copy_from_slice(&bytes[piece(0)]);
    let mut dropped = bytes.clone();
    dropped.drain(piece(1));
    // Cut at a piece's end, and the one before made the last.
    let mut ended = bytes[..piece(1).end].to_vec();
    ended[piece(1).start + 3] |= 0x80;
    let other = sealed_by(&payload, random(6));
    let mut foreign = bytes.clone();
    foreign[piece(1)].copy_from_slice(&other[piece(1)]);
    // The same content key under another header.
    let mut rebound = sealed(&payload);
    let mut elsewhere = info();
    elsewhere.cluster = ClusterId::from_u128(8);
    let begun = BackupWriter::with_rounds(
        Vec::new(),
        elsewhere,
        PASSPHRASE,
        &keyring(),
        random(5),
        ROUNDS,
    );
    let header = begun.unwrap().out;
    rebound.splice(..start, header);
    for (what, bytes) in [
        ("swapped", swapped),
        ("dropped", dropped),
        ("ended", ended),
        ("foreign", foreign),
        ("rebound", rebound),
    ] {
        assert!(
            matches!(open(&bytes), Err(BackupError::Damaged { .. })),
            "{what}"
        );
    }
    let cut = open(&bytes[..piece(1).end]);
    assert!(matches!(cut, Err(BackupError::CutShort { .. })));
}

/// Writing stops half-way: what is there is no backup.
#[test]
fn an_unfinished_backup_is_cut_short() {
    let begun = BackupWriter::with_rounds(
        Vec::new(),
        info(),
        PASSPHRASE,
        &keyring(),
        random(5),
        ROUNDS,
    );
    let mut writer = begun.unwrap();
    writer.write_all(&vec![1; 2 * PIECE_BYTES + 9]).unwrap();
    let unfinished = writer.out;
    assert!(matches!(
        open(&unfinished),
        Err(BackupError::CutShort { .. })
    ));
}

proptest! {
    /// Any flipped bit and any cut are found; nothing is ever restored from such a file.
    #[test]
    fn every_flip_and_cut_is_found(
        len in 0..600_usize,
        position in any::<prop::sample::Index>(),
        bit in 0..8_u8,
        cut in any::<bool>(),
    ) {
        let payload = vec![3; len];
        let mut bytes = sealed(&payload);
        let at = position.index(bytes.len());
        if cut {
            bytes.truncate(at);
        } else {
            bytes[at] ^= 1 << bit;
        }
        let error = open(&bytes).expect_err("was altered");
        prop_assert!(!error.to_string().is_empty());
        if cut && at > 0 {
            prop_assert!(matches!(error, BackupError::CutShort { .. }), "{}", error);
        }
    }

    #[test]
    fn any_bytes_are_refused(mut bytes in proptest::collection::vec(any::<u8>(), 0..400), begin in any::<bool>()) {
        if begin {
            let good = sealed(b"x");
            let n = bytes.len().min(HEAD_BYTES);
            bytes[..n].copy_from_slice(&good[..n]);
        }
        prop_assert!(open(&bytes).is_err());
        let _ = inspect(bytes.as_slice());
    }

    /// Payloads arrive in pieces of any size.
    #[test]
    fn how_it_is_written_does_not_matter(
        parts in proptest::collection::vec(0..120_000_usize, 0..8),
    ) {
        let begun = BackupWriter::with_rounds(Vec::new(), info(), PASSPHRASE, &keyring(), random(5), ROUNDS);
        let mut writer = begun.unwrap();
        for part in &parts {
            writer.write_all(&vec![9; *part]).unwrap();
        }
        let whole = vec![9; parts.iter().sum()];
        prop_assert!(writer.finish().unwrap() == sealed(&whole));
    }
}
