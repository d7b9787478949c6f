//! Tests with faults: random crashes, every region flipped or cut, full disks.

#![allow(
    clippy::print_stdout,
    reason = "tests report what they measured and found"
)]

use crate::conformance::{payload, small_log};
use crate::{
    AtomicFile, Bugs, Disk, FaultyDisk, Keyring, LocalBatch, LocalStore, LocalTable, Log, OpenMode,
    RealDisk, Rng, SnapshotStore, StorageError,
};
use std::io::{Read, Write};
use std::sync::Arc;

/// Seeds of the crash tests; `WARREN_STORAGE_SEEDS` overrides.
fn seeds() -> std::ops::Range<u64> {
    let count = std::env::var("WARREN_STORAGE_SEEDS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(1_500);
    0..count
}

fn arc(disk: &FaultyDisk) -> Arc<dyn Disk> {
    Arc::new(disk.clone())
}

#[test]
fn conformance_of_the_faulty_disk() {
    crate::conformance::run(&|| Arc::new(FaultyDisk::new(1)));
}

#[test]
fn conformance_of_the_real_disk() {
    let root = tempfile::tempdir().unwrap();
    let count = std::cell::Cell::new(0);
    crate::conformance::run(&|| {
        count.set(count.get() + 1);
        Arc::new(RealDisk::open(root.path().join(count.get().to_string())).unwrap())
    });
}

#[test]
fn a_lock_that_a_dead_daemon_left_to_a_child_is_waited_for() {
    use std::process::{Command, Stdio};
    let root = tempfile::tempdir().unwrap();
    let disk = RealDisk::open(root.path()).unwrap();
    let mut gone = Command::new("true").spawn().unwrap();
    gone.wait().unwrap();
    let path = root.path().join("LOCK");
    std::fs::write(&path, gone.id().to_string()).unwrap();
    // The child has the locked file as its output; it lives until its input ends.
    let locked = std::fs::File::options().write(true).open(&path).unwrap();
    locked.lock().unwrap();
    let mut child = Command::new("cat")
        .stdin(Stdio::piped())
        .stdout(locked)
        .spawn()
        .unwrap();
    let other = std::fs::File::open(&path).unwrap();
    assert!(other.try_lock().is_err(), "the child holds the lock");
    let waits = std::thread::spawn(move || disk.lock("LOCK").map(drop));
    drop(child.stdin.take());
    child.wait().unwrap();
    waits.join().unwrap().unwrap();
}

#[test]
fn secrets_are_for_the_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let root = tempfile::tempdir().unwrap();
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::open(root.path().join("d")).unwrap());
    Keyring::open(disk, "keyring")
        .unwrap()
        .set("node", b"key")
        .unwrap();
    let mode = |path: &str| {
        std::fs::metadata(root.path().join(path))
            .unwrap()
            .permissions()
            .mode()
            & 0o777
    };
    assert_eq!((mode("d/keyring"), mode("d")), (0o600, 0o700));
}

/// What the log must hold: the value of each index, and which part was acknowledged.
#[derive(Default, Clone)]
struct Model {
    /// Version of each index from 0 on: cuts and new appends raise it.
    values: Vec<u64>,
    purged: u64,
    meta: Vec<u8>,
}

fn value(index: u64, version: u64) -> Vec<u8> {
    let mut bytes = payload(index);
    bytes.extend_from_slice(&version.to_le_bytes());
    bytes
}

/// One life of a log: random operations until the power goes; then what must be true of what comes back.
fn crash_run(seed: u64, bugs: Bugs) -> Result<(), String> {
    let mut rng = Rng::new(seed);
    let disk = FaultyDisk::new(rng.next_u64());
    let mut model = Model::default();
    let mut version: u64 = 0;
    for _life in 0..4 {
        // An operation that the crash interrupted may have happened or not.
        let mut attempted: Option<Model> = None;
        let opened = Log::open(arc(&disk), "log", small_log(bugs));
        let (mut log, _) = opened.map_err(|error| format!("cannot open: {error}"))?;
        check(&log, &model, None)?;
        disk.crash_after(1 + rng.below(60));
        if rng.chance(20) {
            disk.set_capacity(Some(disk.used() + rng.below(20_000)));
        }
        while attempted.is_none() {
            version += 1;
            let mut next = model.clone();
            let end = model.values.len() as u64;
            let result = match rng.below(10) {
                0 if end > model.purged => {
                    let from = model.purged + rng.below(end - model.purged + 1);
                    next.values.truncate(usize::try_from(from).unwrap_or(0));
                    log.cut_from(from)
                }
                1 if end > model.purged => {
                    next.purged = model.purged + rng.below(end - model.purged + 1);
                    if next.purged == 0 {
                        Ok(())
                    } else {
                        log.purge_upto(next.purged - 1, b"m")
                    }
                }
                2 => {
                    next.meta = version.to_le_bytes().to_vec();
                    log.set_meta(&next.meta)
                }
                _ => {
                    if rng.chance(30) {
                        let _ = log.prepare_spare();
                    }
                    let count = 1 + rng.below(5);
                    let entries: Vec<Vec<u8>> = (end..end + count)
                        .map(|index| value(index, version))
                        .collect();
                    next.values.extend(entries.iter().map(|_| version));
                    log.append(end, &entries)
                }
            };
            match result {
                Ok(()) => model = next,
                Err(error) if error.is_full() && !disk.is_down() => {
                    check(&log, &model, None)?;
                    disk.set_capacity(None);
                }
                Err(_) => attempted = Some(next),
            }
        }
        drop(log);
        disk.crash();
        disk.set_capacity(None);
        let (log, _) = Log::open(arc(&disk), "log", small_log(bugs))
            .map_err(|error| format!("cannot open: {error}"))?;
        check(&log, &model, attempted.as_ref())?;
        // What came back is now the truth.
        if let Some(next) = attempted.filter(|_| check(&log, &model, None).is_err()) {
            model = next;
        }
        model.purged = log.first_index();
    }
    Ok(())
}

/// The log holds exactly the model, or, when an operation was interrupted, what it meant to make.
fn check(log: &Log, model: &Model, attempted: Option<&Model>) -> Result<(), String> {
    let holds = |model: &Model| {
        if log.next_index() != model.values.len() as u64 || log.first_index() != model.purged {
            return Err(format!(
                "holds {}..{}, expected {}..{}",
                log.first_index(),
                log.next_index(),
                model.purged,
                model.values.len()
            ));
        }
        if log.meta() != model.meta {
            return Err("the meta is another one".to_owned());
        }
        let entries = log
            .read(log.first_index()..log.next_index(), usize::MAX)
            .map_err(|error| error.to_string())?;
        for (index, entry) in (model.purged..).zip(entries) {
            let version = model.values[usize::try_from(index).unwrap_or(usize::MAX)];
            if entry != value(index, version) {
                return Err(format!("entry {index} is another one"));
            }
        }
        Ok(())
    };
    match (holds(model), attempted) {
        (Ok(()), _) => Ok(()),
        (Err(error), None) => Err(error),
        (Err(error), Some(next)) => {
            holds(next).map_err(|other| format!("{error}; and not the interrupted change: {other}"))
        }
    }
}

#[test]
fn acknowledged_appends_survive_every_crash() {
    for seed in seeds() {
        if let Err(error) = crash_run(seed, Bugs::default()) {
            panic!("seed {seed}: {error}");
        }
    }
}

#[test]
fn a_forgotten_sync_is_found() {
    let found = (0..1_000).find(|seed| crash_run(*seed, Bugs { skip_sync: true }).is_err());
    println!(
        "skip_sync found by seed {}",
        found.expect("1,000 seeds must find a log that does not sync")
    );
}

#[test]
fn atomic_files_are_old_or_new() {
    for seed in seeds() {
        let mut rng = Rng::new(seed);
        let disk = FaultyDisk::new(rng.next_u64());
        let file = AtomicFile::new(arc(&disk), "vote", "-");
        let mut old: Option<Vec<u8>> = None;
        for _ in 0..4 {
            disk.crash_after(1 + rng.below(14));
            let new = loop {
                let len = usize::try_from(rng.below(2_000)).unwrap();
                let new = rng.bytes(len);
                match file.write(&new) {
                    Ok(()) => old = Some(new),
                    Err(_) => break new,
                }
            };
            disk.crash();
            let found = file
                .read()
                .unwrap_or_else(|error| panic!("seed {seed}: {error}"));
            assert!(
                found == old || found.as_ref() == Some(&new),
                "seed {seed}: neither old nor new"
            );
            old = found;
        }
    }
}

#[test]
fn snapshots_are_whole_or_not_there() {
    for seed in seeds() {
        let mut rng = Rng::new(seed);
        let disk = FaultyDisk::new(rng.next_u64());
        let mut newest = 0;
        for _ in 0..3 {
            let store = SnapshotStore::open(arc(&disk), "snap").unwrap();
            disk.crash_after(1 + rng.below(30));
            loop {
                let index = newest + 1 + rng.below(10);
                let write = || -> crate::Result<()> {
                    let mut writer = store.begin(index, b"m")?;
                    writer.add(&vec![u8::try_from(index % 256).unwrap(); 5_000])?;
                    writer.finish().map(|_| ())
                };
                match write() {
                    Ok(()) => newest = index,
                    Err(_) => break,
                }
            }
            disk.crash();
            let store = SnapshotStore::open(arc(&disk), "snap").unwrap();
            store.sweep().unwrap();
            let (info, damaged) = store
                .newest_sound(1)
                .unwrap_or_else(|error| panic!("seed {seed}: {error}"));
            assert!(damaged.is_empty(), "seed {seed}: {damaged:?}");
            let found = info.as_ref().map_or(0, |info| info.index);
            assert!(
                found >= newest,
                "seed {seed}: snapshot {newest} is lost, {found} is the newest"
            );
            newest = found;
        }
    }
}

#[test]
fn the_local_store_survives_every_crash() {
    for seed in 0..seeds().end / 5 {
        let mut rng = Rng::new(seed);
        let disk = FaultyDisk::new(rng.next_u64());
        let mut revision = 0;
        let mut attempted = 0;
        for _ in 0..3 {
            let store = LocalStore::open(&arc(&disk), "local.redb")
                .unwrap_or_else(|error| panic!("seed {seed}: {error}"));
            let found = store.assignments().unwrap().map_or(0, |set| set.revision);
            assert!(
                found == revision || found == attempted,
                "seed {seed}: found {found}, acknowledged {revision}, attempted {attempted}"
            );
            let lease = store
                .get(LocalTable::Leases, b"x")
                .unwrap()
                .map_or(0, |bytes| u64::from_le_bytes(bytes.try_into().unwrap()));
            assert_eq!(lease, found, "seed {seed}: a batch is one");
            revision = found;
            disk.crash_after(1 + rng.below(60));
            loop {
                attempted = revision + 1;
                let mut batch = LocalBatch::new();
                let len = usize::try_from(rng.below(9_000)).unwrap();
                batch.set_assignments(attempted, rng.bytes(len)).put(
                    LocalTable::Leases,
                    *b"x",
                    attempted.to_le_bytes(),
                );
                if store.write(&batch).is_err() {
                    break;
                }
                revision = attempted;
            }
            drop(store);
            disk.crash();
        }
    }
}

/// A stopped node's files: a log of several segments, cut, purged and closed; two snapshots; a vote; a keyring.
fn stopped_node() -> FaultyDisk {
    let disk = FaultyDisk::new(5);
    let (mut log, _) = Log::open(arc(&disk), "log", small_log(Bugs::default())).unwrap();
    for _ in 0..12 {
        let first = log.next_index();
        let entries: Vec<Vec<u8>> = (first..first + 3).map(payload).collect();
        log.append(first, &entries).unwrap();
    }
    log.set_meta(b"vote").unwrap();
    log.purge_upto(9, b"mark").unwrap();
    log.close().unwrap();
    let store = SnapshotStore::open(arc(&disk), "snap").unwrap();
    for index in [9_u64, 20] {
        let mut writer = store.begin(index, b"meta").unwrap();
        writer
            .write_all(&vec![u8::try_from(index).unwrap(); 7_000])
            .unwrap();
        writer.finish().unwrap();
    }
    AtomicFile::new(arc(&disk), "vote", "-")
        .write(b"term 4")
        .unwrap();
    Keyring::open(arc(&disk), "keyring")
        .unwrap()
        .set("node", b"key")
        .unwrap();
    disk
}

/// Reads everything back: an error, or exactly what was stored.
fn read_all(disk: &FaultyDisk) -> Result<(), StorageError> {
    let (log, recovery) = Log::open(arc(disk), "log", small_log(Bugs::default()))?;
    assert_eq!(
        (log.first_index(), log.next_index()),
        (10, 36),
        "after {recovery:?}"
    );
    for (index, entry) in (10..).zip(log.read(10..36, usize::MAX)?) {
        assert_eq!(entry, payload(index), "entry {index}");
    }
    assert_eq!(log.purged().unwrap().mark, b"mark");
    assert_eq!(log.meta(), b"vote");
    let store = SnapshotStore::open(arc(disk), "snap")?;
    let (info, _) = store.newest_sound(log.first_index())?;
    let info = info.expect("one of two snapshots is sound");
    let mut content = Vec::new();
    store.read(&info)?.read_to_end(&mut content).unwrap();
    assert_eq!(content, vec![u8::try_from(info.index).unwrap(); 7_000]);
    assert_eq!(
        AtomicFile::new(arc(disk), "vote", "-").read()?.as_deref(),
        Some(&b"term 4"[..])
    );
    assert_eq!(
        Keyring::open(arc(disk), "keyring")?.get("node"),
        Some(&b"key"[..])
    );
    Ok(())
}

#[test]
fn every_flipped_byte_is_harmless_or_named() {
    let whole = stopped_node();
    read_all(&whole).unwrap();
    let mut named = 0;
    for (path, len) in whole.files() {
        // Every byte where records are, and every seventh elsewhere, to save time.
        for offset in (0..len).step_by(if path.starts_with("log") { 3 } else { 1 }) {
            let disk = whole.copy(1);
            disk.tamper(&path, |data| {
                data[usize::try_from(offset).unwrap()] ^= 1 << (offset % 8)
            });
            if let Err(error) = read_all(&disk) {
                assert!(error.is_corrupt(), "{path} byte {offset}: {error}");
                named += 1;
            }
        }
    }
    assert!(named > 1_000, "only {named} flips were noticed");
}

#[test]
fn every_region_cut_out_is_harmless_or_named() {
    const REGION_BYTES: usize = 512;
    let whole = stopped_node();
    for (path, len) in whole.files() {
        let len = usize::try_from(len).unwrap();
        for from in (0..len).step_by(REGION_BYTES) {
            let zeroed = whole.copy(1);
            zeroed.tamper(&path, |data| {
                data[from..len.min(from + REGION_BYTES)].fill(0)
            });
            let cut = whole.copy(1);
            cut.tamper(&path, |data| data.truncate(from));
            for (what, disk) in [("zeroed", zeroed), ("cut", cut)] {
                if let Err(error) = read_all(&disk) {
                    assert!(error.is_corrupt(), "{path} {what} at {from}: {error}");
                }
            }
        }
    }
}

/// After a clean stop even zeros where the last records stood are no torn tail. Found by the simulator.
#[test]
fn a_zeroed_end_is_noticed_after_a_clean_stop() {
    let whole = stopped_node();
    let logs = whole.files().into_iter();
    let logs: Vec<_> = logs.filter(|(path, _)| path.ends_with(".seg")).collect();
    let mut named = 0;
    for (path, len) in &logs {
        for sector in 0..len / 512 {
            let disk = whole.copy(1);
            let from = usize::try_from(sector * 512).unwrap();
            disk.tamper(path, |data| data[from..].fill(0));
            match read_all(&disk) {
                Ok(()) => {}
                Err(error) => {
                    assert!(error.is_corrupt(), "{path} from {from}: {error}");
                    named += 1;
                }
            }
        }
    }
    assert!(named > logs.len(), "{named}");
    // The newest segment as a whole.
    let (newest, _) = logs.last().unwrap();
    whole.remove(newest).unwrap();
    assert!(read_all(&whole).unwrap_err().is_corrupt());
}

#[test]
fn a_damaged_log_is_left_as_it_was() {
    let disk = stopped_node();
    let (path, _) = disk
        .files()
        .into_iter()
        .find(|(path, _)| path.ends_with(".seg"))
        .unwrap();
    disk.tamper(&path, |data| data[600] ^= 1);
    let before = disk.stats();
    let error = Log::open(arc(&disk), "log", small_log(Bugs::default())).unwrap_err();
    let StorageError::Corrupt {
        file,
        offset,
        remedy,
        ..
    } = &error
    else {
        panic!("{error}")
    };
    assert_eq!((file, *offset), (&path, 512));
    assert!(remedy.contains("restore"));
    assert_eq!(disk.stats(), before);
}

#[test]
fn a_damaged_newest_snapshot_needs_a_log_that_reaches_back() {
    let disk = stopped_node();
    disk.tamper("snap/snap-0000000000000014.snap", |data| data[5_000] ^= 1);
    let store = SnapshotStore::open(arc(&disk), "snap").unwrap();
    let (info, damaged) = store.newest_sound(10).unwrap();
    assert_eq!((info.unwrap().index, damaged.len()), (9, 1));
    let error = store.newest_sound(11).unwrap_err();
    assert!(
        error.to_string().contains("snap-0000000000000014.snap"),
        "{error}"
    );
}

#[test]
fn the_local_store_never_gives_wrong_data() {
    let whole = FaultyDisk::new(1);
    let store = LocalStore::open(&arc(&whole), "local.redb").unwrap();
    for number in 0..20_u8 {
        store
            .put(LocalTable::Containers, &[number], &[number; 300])
            .unwrap();
    }
    store.set_assignments(3, &[9; 5_000]).unwrap();
    drop(store);
    let (_, len) = whole.files()[0];
    let mut named = 0;
    for offset in (0..len).step_by(131) {
        let disk = whole.copy(1);
        disk.tamper("local.redb", |data| {
            data[usize::try_from(offset).unwrap()] ^= 0x10
        });
        let read = || -> crate::Result<()> {
            let store = LocalStore::open(&arc(&disk), "local.redb")?;
            for (key, value) in store.list(LocalTable::Containers)? {
                assert_eq!(value, vec![key[0]; 300]);
            }
            if let Some(set) = store.assignments()? {
                assert_eq!(set.bytes, vec![9; 5_000]);
            }
            Ok(())
        };
        named += u32::from(read().is_err());
    }
    println!("{named} of {} flips were named", len / 131);
}

#[test]
fn a_full_disk_is_no_end() {
    let disk = FaultyDisk::new(3);
    let (mut log, _) = Log::open(arc(&disk), "log", small_log(Bugs::default())).unwrap();
    disk.set_capacity(Some(50_000));
    let error = loop {
        let first = log.next_index();
        if let Err(error) = log.append(first, &[payload(first)]) {
            break error;
        }
    };
    assert!(error.is_full(), "{error}");
    let end = log.next_index();
    for (index, entry) in (0..).zip(log.read(0..end, usize::MAX).unwrap()) {
        assert_eq!(entry, payload(index));
    }
    disk.set_capacity(None);
    log.append(end, &[payload(end)]).unwrap();
    drop(log);
    let (log, _) = Log::open(arc(&disk), "log", small_log(Bugs::default())).unwrap();
    assert_eq!(log.next_index(), end + 1);
}

#[test]
fn with_a_spare_the_next_segment_is_sure() {
    let disk = FaultyDisk::new(3);
    let (mut log, _) = Log::open(arc(&disk), "log", small_log(Bugs::default())).unwrap();
    log.append(0, &[b"a"]).unwrap();
    log.prepare_spare().unwrap();
    disk.set_capacity(Some(disk.used()));
    log.append(1, &[vec![0; 3_000]]).unwrap();
    log.append(2, &[vec![0; 6_000]]).unwrap();
    assert_eq!(log.segment_count(), 2, "the spare was used");
    assert!(log.prepare_spare().unwrap_err().is_full());
    log.append(3, &[b"c"]).unwrap();
}

#[test]
fn after_a_failed_sync_nothing_is_acknowledged() {
    let disk = FaultyDisk::new(3);
    let (mut log, _) = Log::open(arc(&disk), "log", small_log(Bugs::default())).unwrap();
    log.append(0, &[b"a"]).unwrap();
    disk.fail_sync(1);
    assert!(matches!(
        log.append(1, &[b"b"]),
        Err(StorageError::Io { .. })
    ));
    assert!(
        matches!(log.append(1, &[b"b"]), Err(StorageError::Failed { .. })),
        "a failed sync is not retried"
    );
    assert_eq!(log.read(0..1, 10).unwrap(), [b"a"]);
}

#[test]
fn one_sync_per_batch() {
    let disk = FaultyDisk::new(3);
    let (mut log, _) = Log::open(arc(&disk), "log", small_log(Bugs::default())).unwrap();
    log.append(0, &[b"first makes the segment"]).unwrap();
    let before = disk.stats();
    log.append(1, &vec![b"x"; 64]).unwrap();
    let after = disk.stats();
    assert_eq!(
        (after.syncs - before.syncs, after.writes - before.writes),
        (1, 1)
    );
}

#[test]
fn a_segment_of_a_newer_release_is_refused() {
    let disk = FaultyDisk::new(3);
    let (mut log, _) = Log::open(arc(&disk), "log", small_log(Bugs::default())).unwrap();
    log.append(0, &[b"a"]).unwrap();
    drop(log);
    let (path, _) = disk.files().remove(0);
    let file = disk.open(&path, OpenMode::Read).unwrap();
    let mut sector = vec![0; crate::sector::SECTOR_BYTES];
    file.read_at(0, &mut sector).unwrap();
    // The same header with format version 7.
    let mut record = sector[4..crate::sector::SECTOR_BYTES - 4].to_vec();
    record[4] = 7;
    let mut out = Vec::new();
    crate::sector::encode(&mut out, 1, 0, &record);
    disk.tamper(&path, |data| data[..out.len()].copy_from_slice(&out));
    let error = Log::open(arc(&disk), "log", small_log(Bugs::default())).unwrap_err();
    assert!(
        matches!(error, StorageError::Newer { found: 7, .. }),
        "{error}"
    );
}

#[test]
fn sync_latency_of_the_real_disk() {
    let root = tempfile::tempdir().unwrap();
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::open(root.path()).unwrap());
    let (mut log, _) = Log::open(Arc::clone(&disk), "log", crate::LogOptions::default()).unwrap();
    let begin = std::time::Instant::now();
    for index in 0..200 {
        log.append(index, &[payload(7)]).unwrap();
    }
    println!("{:?} per synced append", begin.elapsed() / 200);
    assert_eq!(log.next_index(), 200);
}
