//! A disk that is a directory of this machine.

use crate::disk::{Disk, DiskFile, DiskLock, DiskStats, OpenMode};
use crate::{Result, StorageError};
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Mode of directories and files: the owner only. Logs and snapshots hold the whole cluster state.
const DIR_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

/// How long a lock of a daemon that is dead is waited for. A child that the daemon was about to start holds its files
/// until it runs its own program: milliseconds, or as long as a loaded machine lets it wait for a processor.
const LEFTOVER_WAIT: Duration = Duration::from_secs(5);
/// Time between attempts to get such a lock.
const LEFTOVER_RETRY: Duration = Duration::from_millis(2);

/// The process that wrote its id into a lock file. It serves the message and the wait; unreadable is no error.
fn holder(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.seek(SeekFrom::Start(0)).ok()?;
    file.read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

/// Whether a process runs; one that waits for its parent to collect it does not.
fn is_alive(pid: u32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else {
        return false;
    };
    // "pid (name) state …", and the name may hold anything.
    let state = stat
        .rsplit_once(") ")
        .and_then(|(_, rest)| rest.chars().next());
    !matches!(state, Some('Z' | 'X'))
}

#[derive(Debug, Default)]
struct Counters {
    writes: AtomicU64,
    written_bytes: AtomicU64,
    syncs: AtomicU64,
}

/// A directory of this machine, made when missing.
#[derive(Debug, Clone)]
pub struct RealDisk {
    root: PathBuf,
    counters: Arc<Counters>,
}

impl RealDisk {
    /// Opens the directory, making it (mode 0700) when missing.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self> {
        let disk = Self {
            root: root.into(),
            counters: Arc::default(),
        };
        disk.create_dir_all("")?;
        Ok(disk)
    }

    /// The directory.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn full(&self, path: &str) -> PathBuf {
        if path.is_empty() {
            self.root.clone()
        } else {
            self.root.join(path)
        }
    }
}

#[derive(Debug)]
struct RealFile {
    file: File,
    name: String,
    counters: Arc<Counters>,
}

impl RealFile {
    fn wrap<T>(&self, op: &'static str, result: std::io::Result<T>) -> Result<T> {
        result.map_err(|error| StorageError::io(op, &self.name, error))
    }
}

impl DiskFile for RealFile {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.wrap("read", self.file.read_exact_at(buf, offset))
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> Result<()> {
        self.counters.writes.fetch_add(1, Relaxed);
        self.counters
            .written_bytes
            .fetch_add(data.len() as u64, Relaxed);
        self.wrap("write", self.file.write_all_at(data, offset))
    }

    fn len(&self) -> Result<u64> {
        Ok(self.wrap("look at", self.file.metadata())?.len())
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.wrap("resize", self.file.set_len(len))
    }

    fn preallocate(&self, len: u64) -> Result<()> {
        let bytes = i64::try_from(len).map_err(|_| StorageError::TooLarge {
            what: "file",
            found: len,
            limit: i64::MAX as u64,
        })?;
        match fallocate(&self.file, FallocateFlags::empty(), 0, bytes) {
            Ok(()) => Ok(()),
            // A file system without fallocate: later writes may find the disk full, which the log copes with.
            Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => {
                if self.len()? < len {
                    self.set_len(len)
                } else {
                    Ok(())
                }
            }
            Err(errno) => Err(StorageError::io("take space for", &self.name, errno.into())),
        }
    }

    fn sync_data(&self) -> Result<()> {
        self.counters.syncs.fetch_add(1, Relaxed);
        self.wrap("sync", self.file.sync_data())
    }

    fn name(&self) -> &str {
        &self.name
    }
}

#[derive(Debug)]
struct RealLock {
    // The kernel releases the lock when the last descriptor is closed.
    _file: File,
}

impl DiskLock for RealLock {}

impl Disk for RealDisk {
    fn open(&self, path: &str, mode: OpenMode) -> Result<Box<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.read(true).mode(FILE_MODE);
        match mode {
            OpenMode::Read => {}
            OpenMode::Write => {
                options.write(true);
            }
            OpenMode::Create => {
                options.write(true).create(true);
            }
            OpenMode::CreateSecret => {
                // Removed first, so that the mode is ours and not that of an older file.
                self.remove(path)?;
                options.write(true).create_new(true);
            }
        }
        let name = self.describe(path);
        let file = options
            .open(self.full(path))
            .map_err(|error| StorageError::io("open", &name, error))?;
        Ok(Box::new(RealFile {
            file,
            name,
            counters: Arc::clone(&self.counters),
        }))
    }

    fn rename(&self, from: &str, to: &str) -> Result<()> {
        fs::rename(self.full(from), self.full(to))
            .map_err(|error| StorageError::io("rename", &self.describe(from), error))
    }

    fn remove(&self, path: &str) -> Result<()> {
        match fs::remove_file(self.full(path)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(StorageError::io("remove", &self.describe(path), error))
            }
            _ => Ok(()),
        }
    }

    fn list(&self, dir: &str) -> Result<Vec<String>> {
        let fail = |error| StorageError::io("list", &self.describe(dir), error);
        let entries = match fs::read_dir(self.full(dir)) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(fail(error)),
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(fail)?;
            if entry.file_type().map_err(fail)?.is_file() {
                names.push(entry.file_name().to_string_lossy().into_owned());
            }
        }
        names.sort();
        Ok(names)
    }

    fn create_dir_all(&self, dir: &str) -> Result<()> {
        let full = self.full(dir);
        if full.is_dir() {
            return Ok(());
        }
        let name = self.describe(dir);
        let fail = |error| StorageError::io("make directory", &name, error);
        fs::DirBuilder::new()
            .recursive(true)
            .mode(DIR_MODE)
            .create(&full)
            .map_err(fail)?;
        // Each new name lives in its parent: sync up to and including the root's parent.
        let top = self.root.parent().unwrap_or(&self.root);
        let mut at = full.as_path();
        while let Some(above) = at.parent() {
            let above = if above.as_os_str().is_empty() {
                Path::new(".")
            } else {
                above
            };
            File::open(above)
                .and_then(|file| file.sync_all())
                .map_err(fail)?;
            if above == top || above == Path::new(".") {
                break;
            }
            at = above;
        }
        Ok(())
    }

    fn sync_dir(&self, dir: &str) -> Result<()> {
        self.counters.syncs.fetch_add(1, Relaxed);
        File::open(self.full(dir))
            .and_then(|file| file.sync_all())
            .map_err(|error| StorageError::io("sync directory", &self.describe(dir), error))
    }

    fn lock(&self, path: &str) -> Result<Box<dyn DiskLock>> {
        let name = self.describe(path);
        let fail = |error| StorageError::io("lock", &name, error);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(FILE_MODE)
            .open(self.full(path))
            .map_err(fail)?;
        let begin = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::Error(error)) => return Err(fail(error)),
                Err(TryLockError::WouldBlock) => {}
            }
            let pid = holder(&mut file);
            if pid.is_none_or(is_alive) || begin.elapsed() >= LEFTOVER_WAIT {
                return Err(StorageError::Locked { file: name, pid });
            }
            std::thread::sleep(LEFTOVER_RETRY);
        }
        file.set_len(0)
            .and_then(|()| file.seek(SeekFrom::Start(0)))
            .map_err(fail)?;
        // A full disk must not keep a node from starting to read: the pid is for messages only.
        let _ = writeln!(file, "{}", std::process::id());
        Ok(Box::new(RealLock { _file: file }))
    }

    fn describe(&self, path: &str) -> String {
        self.full(path).display().to_string()
    }

    fn stats(&self) -> DiskStats {
        DiskStats {
            writes: self.counters.writes.load(Relaxed),
            written_bytes: self.counters.written_bytes.load(Relaxed),
            syncs: self.counters.syncs.load(Relaxed),
        }
    }
}
