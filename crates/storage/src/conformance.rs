//! What everything durable must do, on whatever disk.
//!
//! Each case gets a fresh disk from `make` and panics with a message when it is not met. "Reopened" means: all
//! handles dropped and opened again on the same disk, as a restarted daemon does.

use crate::{
    AtomicFile, Bugs, DirGuard, Disk, Keyring, LocalBatch, LocalStore, LocalTable, Log, LogOptions,
    OpenMode, SnapshotStore, StorageError,
};
use std::io::{Read, Write};
use std::sync::Arc;

/// Options that make a log of small segments, so that tests cross their borders often.
#[must_use]
pub fn small_log(bugs: Bugs) -> LogOptions {
    LogOptions {
        segment_bytes: 8 * 1024,
        bugs,
    }
}

/// Runs all cases; `make` gives an empty disk each time.
///
/// # Panics
/// When a case is not met.
pub fn run(make: &dyn Fn() -> Arc<dyn Disk>) {
    disk_basics(&*make());
    lock_is_exclusive(&make());
    atomic_file(make());
    keyring(make());
    log_appends_and_reads(&make());
    log_cuts_and_purges(&make());
    log_refuses_gaps(&make());
    snapshots(make());
    local_store(&make());
    format_is_checked(&make());
}

fn disk_basics(disk: &dyn Disk) {
    disk.create_dir_all("a/b").unwrap();
    assert!(
        matches!(
            disk.open("a/none", OpenMode::Read),
            Err(StorageError::NotFound { .. })
        ),
        "a missing file is NotFound"
    );
    let file = disk.open("a/b/file", OpenMode::Create).unwrap();
    assert!(file.is_empty().unwrap());
    file.write_at(3, b"xyz").unwrap();
    assert_eq!(file.len().unwrap(), 6);
    let mut bytes = [9; 6];
    file.read_at(0, &mut bytes).unwrap();
    assert_eq!(&bytes, b"\0\0\0xyz", "a hole reads as zeros");
    assert!(
        file.read_at(4, &mut bytes).is_err(),
        "reading past the end is an error"
    );
    file.preallocate(10_000).unwrap();
    assert!(
        file.len().unwrap() >= 10_000,
        "preallocation makes the file longer"
    );
    file.set_len(4).unwrap();
    file.preallocate(2).unwrap();
    assert_eq!(
        file.len().unwrap(),
        4,
        "preallocation never makes the file shorter"
    );
    file.sync_data().unwrap();
    disk.rename("a/b/file", "a/b/other").unwrap();
    assert_eq!(disk.list("a/b").unwrap(), ["other"]);
    assert_eq!(
        disk.list("a").unwrap(),
        Vec::<String>::new(),
        "directories are not listed"
    );
    assert_eq!(disk.list("nowhere").unwrap(), Vec::<String>::new());
    disk.remove("a/b/other").unwrap();
    disk.remove("a/b/other").unwrap();
    disk.sync_dir("a/b").unwrap();
    assert_eq!(disk.list("a/b").unwrap(), Vec::<String>::new());
}

fn lock_is_exclusive(disk: &Arc<dyn Disk>) {
    let first = DirGuard::acquire(disk, "data", "test").unwrap();
    assert!(first.is_fresh());
    let second = DirGuard::acquire(disk, "data", "test").unwrap_err();
    let StorageError::Locked { pid, .. } = &second else {
        panic!("expected Locked, found {second}")
    };
    assert_eq!(*pid, Some(std::process::id()));
    drop(first);
    assert!(!DirGuard::acquire(disk, "data", "test").unwrap().is_fresh());
    assert!(
        DirGuard::acquire(disk, "data", "other kind")
            .unwrap_err()
            .is_corrupt()
    );
}

fn format_is_checked(disk: &Arc<dyn Disk>) {
    drop(DirGuard::acquire(disk, "data", "test").unwrap());
    AtomicFile::new(Arc::clone(disk), "data/FORMAT", "-")
        .write(b"999 test")
        .unwrap();
    let before = disk.stats();
    let error = DirGuard::acquire(disk, "data", "test").unwrap_err();
    assert!(
        matches!(error, StorageError::Newer { found: 999, .. }),
        "{error}"
    );
    assert_eq!(
        disk.stats(),
        before,
        "data of a newer version is not touched"
    );
    disk.remove("data/FORMAT").unwrap();
    disk.open("data/something", OpenMode::Create).unwrap();
    assert!(
        DirGuard::acquire(disk, "data", "test")
            .unwrap_err()
            .is_corrupt(),
        "a format file that is gone is noticed"
    );
}

fn atomic_file(disk: Arc<dyn Disk>) {
    let file = AtomicFile::new(disk, "vote", "-");
    assert_eq!(file.read().unwrap(), None);
    for content in [&b"one"[..], b"", &[7; 3000], b"two"] {
        file.write(content).unwrap();
        assert_eq!(file.read().unwrap().as_deref(), Some(content));
    }
    file.remove().unwrap();
    assert_eq!(file.read().unwrap(), None);
}

fn keyring(disk: Arc<dyn Disk>) {
    let mut ring = Keyring::open(Arc::clone(&disk), "keyring").unwrap();
    ring.update(&[("node", Some(b"n")), ("ca", Some(b"c"))])
        .unwrap();
    ring.set("node", b"n2").unwrap();
    ring.remove("ca").unwrap();
    let ring = Keyring::open(disk, "keyring").unwrap();
    assert_eq!(ring.get("node"), Some(&b"n2"[..]));
    assert_eq!(ring.names().collect::<Vec<_>>(), ["node"]);
}

fn open_log(disk: &Arc<dyn Disk>) -> Log {
    let (log, recovery) = Log::open(Arc::clone(disk), "log", small_log(Bugs::default())).unwrap();
    assert_eq!(recovery.torn, None, "nothing was torn");
    log
}

/// The payload that tests expect at an index.
#[must_use]
pub fn payload(index: u64) -> Vec<u8> {
    let len = usize::try_from(index * 37 % 1500).unwrap_or(0);
    let mut bytes = index.to_le_bytes().to_vec();
    bytes.resize(8 + len, u8::try_from(index % 251).unwrap_or(0));
    bytes
}

fn append(log: &mut Log, count: u64) {
    let first = log.next_index();
    let entries: Vec<Vec<u8>> = (first..first + count).map(payload).collect();
    log.append(first, &entries).unwrap();
}

fn check_entries(log: &Log, from: u64, to: u64) {
    assert_eq!((log.first_index(), log.next_index()), (from, to));
    let found = log.read(from..to, usize::MAX).unwrap();
    assert_eq!(found.len() as u64, to - from);
    for (index, entry) in (from..to).zip(found) {
        assert_eq!(entry, payload(index), "entry {index}");
    }
}

fn log_appends_and_reads(disk: &Arc<dyn Disk>) {
    let mut log = open_log(disk);
    check_entries(&log, 0, 0);
    for round in 0..30 {
        append(&mut log, 1 + round % 7);
        if round % 5 == 0 {
            drop(log);
            log = open_log(disk);
        }
    }
    let end = log.next_index();
    check_entries(&log, 0, end);
    assert!(log.segment_count() > 3, "the log has several segments");
    assert_eq!(
        log.read(5..9, 1).unwrap().len(),
        1,
        "at least one entry, however small the limit"
    );
    log.append(end, &[vec![1; 100_000]]).unwrap();
    log.append(end + 1, &[Vec::new()]).unwrap();
    log.close().unwrap();
    let written = disk.stats();
    log.close().unwrap();
    assert_eq!(disk.stats(), written, "closing twice writes once");
    let log = open_log(disk);
    assert_eq!(
        log.read(end..end + 2, usize::MAX).unwrap(),
        [vec![1; 100_000], Vec::new()]
    );
}

fn log_cuts_and_purges(disk: &Arc<dyn Disk>) {
    let mut log = open_log(disk);
    append(&mut log, 40);
    log.cut_from(25).unwrap();
    check_entries(&log, 0, 25);
    append(&mut log, 30);
    check_entries(&open_log(disk), 0, 55);
    log = open_log(disk);
    let before = log.segment_count();
    log.purge_upto(37, b"term 3").unwrap();
    assert!(log.segment_count() < before, "purging removes files");
    check_entries(&log, 38, 55);
    drop(log);
    log = open_log(disk);
    check_entries(&log, 38, 55);
    assert_eq!(
        log.purged().map(|purged| purged.mark.clone()),
        Some(b"term 3".to_vec())
    );
    log.cut_from(38).unwrap();
    check_entries(&log, 38, 38);
    log.purge_upto(1000, b"term 4").unwrap();
    check_entries(&log, 1001, 1001);
    append(&mut log, 20);
    drop(log);
    log = open_log(disk);
    check_entries(&log, 1001, 1021);
    assert!(log.segment_count() <= 6);
}

fn log_refuses_gaps(disk: &Arc<dyn Disk>) {
    let mut log = open_log(disk);
    append(&mut log, 3);
    for index in [0, 2, 4] {
        assert!(matches!(
            log.append(index, &[b"x"]),
            Err(StorageError::OutOfRange { .. })
        ));
    }
    assert!(matches!(
        log.read(2..5, 10),
        Err(StorageError::OutOfRange { .. })
    ));
    log.purge_upto(1, b"").unwrap();
    assert!(matches!(
        log.read(1..3, 10),
        Err(StorageError::OutOfRange { .. })
    ));
    assert!(matches!(
        log.cut_from(1),
        Err(StorageError::OutOfRange { .. })
    ));
    let large = vec![0; usize::try_from(crate::MAX_ENTRY_BYTES + 1).unwrap()];
    assert!(matches!(
        log.append(3, &[large]),
        Err(StorageError::TooLarge { .. })
    ));
    check_entries(&log, 2, 3);
}

fn snapshots(disk: Arc<dyn Disk>) {
    let store = SnapshotStore::open(Arc::clone(&disk), "snap").unwrap();
    assert!(store.newest_sound(0).unwrap().0.is_none());
    for index in [10_u64, 20, 30] {
        let mut writer = store
            .begin(index, format!("meta {index}").as_bytes())
            .unwrap();
        writer
            .write_all(&vec![u8::try_from(index).unwrap(); 600_000])
            .unwrap();
        let info = writer.finish().unwrap();
        assert_eq!(info.index, index);
    }
    drop(store.begin(40, b"given up").unwrap());
    let store = SnapshotStore::open(disk, "snap").unwrap();
    store.sweep().unwrap();
    let found = store.list().unwrap();
    assert_eq!(
        found.iter().map(|(index, _)| *index).collect::<Vec<_>>(),
        [30, 20],
        "the newest two are kept"
    );
    assert_eq!(store.oldest_index().unwrap(), Some(20));
    let (info, damaged) = store.newest_sound(21).unwrap();
    let info = info.unwrap();
    assert!(damaged.is_empty());
    assert_eq!((info.index, info.meta.as_slice()), (30, &b"meta 30"[..]));
    let mut content = Vec::new();
    store
        .read(&info)
        .unwrap()
        .read_to_end(&mut content)
        .unwrap();
    assert_eq!(content, vec![30; 600_000]);
    let empty = store.begin(50, b"").unwrap().finish().unwrap();
    store.validate(&empty).unwrap();
}

fn local_store(disk: &Arc<dyn Disk>) {
    let store = LocalStore::open(disk, "local.redb").unwrap();
    assert_eq!(store.assignments().unwrap(), None);
    assert!(store.list(LocalTable::Containers).unwrap().is_empty());
    let mut batch = LocalBatch::new();
    batch
        .put(LocalTable::Containers, *b"c1", *b"one")
        .put(LocalTable::Leases, *b"c1", *b"10.0.0.1")
        .set_assignments(7, *b"set");
    store.write(&batch).unwrap();
    store.put(LocalTable::Containers, b"c2", b"").unwrap();
    store.put(LocalTable::Misc, b"k", b"v").unwrap();
    store.remove(LocalTable::Misc, b"k").unwrap();
    let before = disk.stats();
    store.write(&LocalBatch::new()).unwrap();
    assert_eq!(disk.stats(), before, "an empty batch writes nothing");
    drop(store);
    let store = LocalStore::open(disk, "local.redb").unwrap();
    assert_eq!(
        store.list(LocalTable::Containers).unwrap(),
        [
            (b"c1".to_vec(), b"one".to_vec()),
            (b"c2".to_vec(), Vec::new())
        ]
    );
    assert_eq!(
        store.get(LocalTable::Leases, b"c1").unwrap().as_deref(),
        Some(&b"10.0.0.1"[..])
    );
    assert_eq!(store.get(LocalTable::Misc, b"k").unwrap(), None);
    let set = store.assignments().unwrap().unwrap();
    assert_eq!((set.revision, set.bytes), (7, b"set".to_vec()));
}
