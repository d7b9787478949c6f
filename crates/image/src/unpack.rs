//! Unpacking one layer into a directory that overlayfs can use as a lower layer.
//!
//! - Deletion marks become overlayfs's own: `.wh.name` a character device 0:0, `.wh..wh..opq` the
//!   attribute `trusted.overlay.opaque`.
//! - Paths resolve as inside a container that runs on the layers below: a symbolic link there or
//!   here is followed within the root. Directories an archive leaves out are made with owner and
//!   mode of the lower layer's, so that a layer holding only `tmp/x` does not close `/tmp`.
//! - A hard link to a file of a lower layer copies that file up, as overlayfs does.
//!
//! The directory is private while it is filled (nobody else writes there); walking with
//! `O_NOFOLLOW` from open directories keeps hostile archives inside.

use crate::beneath::{
    Child, Name, child, entry_names, file_type, is_whiteout, joined, open_dir, plain_names,
};
use crate::error::{ImageError, IoContext, Result};
use crate::limits::{
    COPY_BUFFER_BYTES, MAX_DIRECTORY_PATH_BYTES, MAX_FILES_SYNCED_SINGLY, MAX_LAYER_ENTRIES,
    MAX_SYMLINKS,
};
use crate::merged::{Found, Stack};
use crate::tarread::{Entry, Kind, TarReader, shown};
use crate::xattr;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{
    FchmodatFlags, FileStat, Mode, SFlag, UtimensatFlags, fchmod, fchmodat, fstat, fstatat,
    futimens, makedev, mkdirat, mknodat, utimensat,
};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchown, fchownat, linkat, symlinkat, unlinkat};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;

mod links;
mod walk;

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
const AUFS_METADATA: &[u8] = b".wh..wh.";
const IMPLICIT_DIR_MODE: u32 = 0o755;

/// What a layer came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unpacked {
    /// Bytes of file contents.
    pub bytes: u64,
    /// Number of entries.
    pub entries: u64,
}

/// An open directory of the layer and its path with all links resolved.
struct Dir {
    fd: OwnedFd,
    names: Vec<Name>,
}

/// Unpacks an uncompressed tar stream into `root`, an empty directory, and makes it durable.
/// `lowers` are the unpacked layers below, highest first. Reads the stream to its end.
pub(crate) fn unpack<R: Read>(
    stream: R,
    archive: &str,
    root: &Path,
    lowers: &[PathBuf],
) -> Result<(R, Unpacked)> {
    let mut unpacker = Unpacker::new(archive, root, lowers)?;
    let mut reader = TarReader::new(stream, archive.to_owned());
    while let Some(entry) = reader.next()? {
        unpacker.apply(&entry, &mut reader)?;
    }
    let stream = reader.finish()?;
    let done = unpacker.finish()?;
    Ok((stream, done))
}

struct Unpacker<'a> {
    archive: &'a str,
    path: &'a Path,
    root: Rc<Dir>,
    lowers: Stack,
    /// The directory of the last entry: archives go directory by directory.
    last: Option<(Vec<Name>, Rc<Dir>)>,
    /// Directories whose times are set at the end, when nothing is put into them any more.
    dir_times: Vec<(Vec<Name>, (i64, u32))>,
    dir_bytes: usize,
    files: u64,
    done: Unpacked,
    buffer: Vec<u8>,
}

impl<'a> Unpacker<'a> {
    fn new(archive: &'a str, path: &'a Path, lowers: &[PathBuf]) -> Result<Self> {
        let fd = open_dir(path).at("cannot open", path)?;
        let lowers = Stack::open(lowers).at("cannot open the layers below", path)?;
        let this = Self {
            archive,
            path,
            root: Rc::new(Dir {
                fd,
                names: Vec::new(),
            }),
            lowers,
            last: None,
            dir_times: Vec::new(),
            dir_bytes: 0,
            files: 0,
            done: Unpacked {
                bytes: 0,
                entries: 0,
            },
            buffer: vec![0; COPY_BUFFER_BYTES],
        };
        match this.lowers.top() {
            Some(top) => copy_dir_metadata(top, &this.root.fd)
                .map(drop)
                .at("cannot set attributes of", path)?,
            None => fchmod(&this.root.fd, Mode::from_bits_truncate(IMPLICIT_DIR_MODE))
                .at("cannot set mode of", path)?,
        }
        Ok(this)
    }

    /// Path of a name for messages about the store's own troubles.
    fn place(&self, dir: &Dir, name: &[u8]) -> PathBuf {
        use std::os::unix::ffi::OsStrExt;
        let mut path = self.path.to_owned();
        for part in dir.names.iter().map(Vec::as_slice).chain([name]) {
            path.push(std::ffi::OsStr::from_bytes(part));
        }
        path
    }

    fn bad(&self, entry: &[u8], why: impl Into<String>) -> ImageError {
        ImageError::BadArchive {
            archive: self.archive.to_owned(),
            entry: shown(entry),
            why: why.into(),
        }
    }

    fn apply<R: Read>(&mut self, entry: &Entry, data: &mut TarReader<R>) -> Result<()> {
        self.done.entries += 1;
        if self.done.entries > MAX_LAYER_ENTRIES {
            let what = format!("number of entries in {}", self.archive);
            return Err(ImageError::TooLarge {
                what,
                limit: MAX_LAYER_ENTRIES,
                unit: "entries",
            });
        }
        let mut names = entry_names(self.archive, &entry.path)?;
        let Some(name) = names.pop() else {
            return self.apply_root(entry);
        };
        if name.starts_with(WHITEOUT) {
            return self.whiteout(&names, &name, entry);
        }
        let dir = self.dir(&names, entry)?;
        match entry.kind {
            Kind::File => self.file(&dir, &name, entry, data),
            Kind::Directory => self.directory(&dir, &name, entry),
            Kind::HardLink => self.hard_link(&dir, &name, entry),
            Kind::Symlink => {
                self.clear(&dir, &name)?;
                if entry.link.is_empty() || entry.link.contains(&0) {
                    return Err(
                        self.bad(&entry.path, "its link target is empty or holds a NUL byte")
                    );
                }
                symlinkat(entry.link.as_slice(), &dir.fd, name.as_slice())
                    .at("cannot link", &self.place(&dir, &name))?;
                self.node_metadata(&dir, &name, entry)
            }
            Kind::CharDevice | Kind::BlockDevice | Kind::Fifo => {
                self.clear(&dir, &name)?;
                let (kind, device) = match entry.kind {
                    Kind::CharDevice => (
                        SFlag::S_IFCHR,
                        makedev(u64::from(entry.device.0), u64::from(entry.device.1)),
                    ),
                    Kind::BlockDevice => (
                        SFlag::S_IFBLK,
                        makedev(u64::from(entry.device.0), u64::from(entry.device.1)),
                    ),
                    _ => (SFlag::S_IFIFO, 0),
                };
                mknodat(&dir.fd, name.as_slice(), kind, Mode::empty(), device)
                    .at("cannot make device", &self.place(&dir, &name))?;
                self.node_metadata(&dir, &name, entry)
            }
        }
    }

    fn apply_root(&mut self, entry: &Entry) -> Result<()> {
        if entry.kind != Kind::Directory {
            return Err(self.bad(&entry.path, "it would replace the root directory"));
        }
        let root = Rc::clone(&self.root);
        self.dir_metadata(&root, entry)
    }

    /// Deletion marks. They speak of lower layers only, whatever their order in this one.
    fn whiteout(&mut self, names: &[Name], mark: &[u8], entry: &Entry) -> Result<()> {
        if self.lowers.is_empty() || (mark.starts_with(AUFS_METADATA) && mark != OPAQUE) {
            return Ok(());
        }
        if mark == OPAQUE {
            let dir = self.dir(names, entry)?;
            return self.set_opaque(&dir.fd, &self.place(&dir, b""));
        }
        let name = &mark[WHITEOUT.len()..];
        if name.is_empty() || name == b"." || name == b".." {
            let why = "it is a deletion mark for a name that cannot be";
            return Err(ImageError::UnsafePath {
                archive: self.archive.to_owned(),
                entry: shown(&entry.path),
                why,
            });
        }
        let dir = self.dir(names, entry)?;
        self.last = None;
        let place = self.place(&dir, name);
        match child(&dir.fd, name).at("cannot open", &place)? {
            Child::Dir(fd) => self.set_opaque(&fd, &place),
            Child::Symlink(_) | Child::Other(_) => Ok(()),
            Child::Missing => {
                let full: Vec<Name> = dir.names.iter().cloned().chain([name.to_vec()]).collect();
                if self
                    .lowers
                    .find(&full)
                    .at("cannot read the layers below", self.path)?
                    .is_none()
                {
                    return Ok(());
                }
                mknodat(&dir.fd, name, SFlag::S_IFCHR, Mode::empty(), 0)
                    .at("cannot mark as deleted", &place)
            }
        }
    }

    /// Makes way for a new entry; true if something was there.
    fn clear(&mut self, dir: &Dir, name: &[u8]) -> Result<bool> {
        let place = self.place(dir, name);
        let stat = match fstatat(&dir.fd, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Err(Errno::ENOENT) => {
                // A new name may turn up in paths that were resolved through lower layers.
                self.last = None;
                return Ok(false);
            }
            other => other.at("cannot look at", &place)?,
        };
        self.last = None;
        if file_type(&stat) == SFlag::S_IFDIR {
            use std::os::unix::ffi::OsStrExt;
            // By way of the open directory, so that no link in the path can be followed.
            let path = Path::new(&format!("/proc/self/fd/{}", dir.fd.as_raw_fd()))
                .join(std::ffi::OsStr::from_bytes(name));
            std::fs::remove_dir_all(path).at("cannot replace", &place)?;
        } else {
            unlinkat(&dir.fd, name, UnlinkatFlags::NoRemoveDir).at("cannot replace", &place)?;
        }
        Ok(true)
    }

    fn file<R: Read>(
        &mut self,
        dir: &Dir,
        name: &[u8],
        entry: &Entry,
        data: &mut TarReader<R>,
    ) -> Result<()> {
        let place = self.place(dir, name);
        let file = self.create_file(dir, name, &place)?;
        let mut out = &file;
        self.done.bytes += data.copy_data(&mut out, &mut self.buffer, |e| {
            ImageError::io("cannot write", &place, e)
        })?;
        self.file_metadata(&file, entry)
            .at("cannot set attributes of", &place)?;
        self.sync_file(&file, &place)
    }

    fn create_file(&mut self, dir: &Dir, name: &[u8], place: &Path) -> Result<File> {
        let flags =
            OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let create = || openat(&dir.fd, name, flags, Mode::S_IRUSR | Mode::S_IWUSR);
        match create() {
            Ok(fd) => Ok(File::from(fd)),
            Err(Errno::EEXIST) => {
                self.clear(dir, name)?;
                create().map(File::from).at("cannot create", place)
            }
            Err(e) => Err(e).at("cannot create", place),
        }
    }

    fn sync_file(&mut self, file: &File, place: &Path) -> Result<()> {
        self.files += 1;
        if self.files <= MAX_FILES_SYNCED_SINGLY {
            file.sync_all().at("cannot sync", place)
        } else {
            Ok(())
        }
    }

    fn file_metadata(&self, file: &File, entry: &Entry) -> io::Result<()> {
        // Owner first: changing it clears setuid bits and file capabilities.
        fchown(
            file,
            Some(Uid::from_raw(entry.uid)),
            Some(Gid::from_raw(entry.gid)),
        )?;
        fchmod(file, Mode::from_bits_truncate(entry.mode))?;
        set_xattrs(entry, |key, value| xattr::set_fd(file, key, value))?;
        let time = time_spec(entry.mtime);
        Ok(futimens(file, &time, &time)?)
    }

    fn directory(&mut self, dir: &Dir, name: &[u8], entry: &Entry) -> Result<()> {
        let place = self.place(dir, name);
        let mut opaque = false;
        let fd = match child(&dir.fd, name).at("cannot open", &place)? {
            Child::Dir(fd) => fd,
            other => {
                if !matches!(other, Child::Missing) {
                    // Takes the place of a mark or file that hid what is below: it must go on hiding.
                    opaque = true;
                }
                self.clear(dir, name)?;
                mkdirat(&dir.fd, name, Mode::S_IRWXU).at("cannot make directory", &place)?;
                let flags =
                    OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
                openat(&dir.fd, name, flags, Mode::empty()).at("cannot open", &place)?
            }
        };
        if opaque {
            self.set_opaque(&fd, &place)?;
        }
        let names = dir.names.iter().cloned().chain([name.to_vec()]).collect();
        self.dir_metadata(&Dir { fd, names }, entry)
    }

    fn dir_metadata(&mut self, dir: &Dir, entry: &Entry) -> Result<()> {
        let set = || -> io::Result<()> {
            fchown(
                &dir.fd,
                Some(Uid::from_raw(entry.uid)),
                Some(Gid::from_raw(entry.gid)),
            )?;
            fchmod(&dir.fd, Mode::from_bits_truncate(entry.mode))?;
            set_xattrs(entry, |key, value| xattr::set_fd(&dir.fd, key, value))
        };
        set().at("cannot set attributes of", &self.place(dir, b""))?;
        self.remember_time(dir.names.clone(), entry.mtime)
    }

    /// Owner, mode, attributes and time of a symbolic link, device or fifo just made.
    fn node_metadata(&self, dir: &Dir, name: &[u8], entry: &Entry) -> Result<()> {
        let set = || -> io::Result<()> {
            let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
            fchownat(
                &dir.fd,
                name,
                Some(uid),
                Some(gid),
                AtFlags::AT_SYMLINK_NOFOLLOW,
            )?;
            if entry.kind != Kind::Symlink {
                fchmodat(
                    &dir.fd,
                    name,
                    Mode::from_bits_truncate(entry.mode),
                    FchmodatFlags::FollowSymlink,
                )?;
                set_xattrs(entry, |key, value| xattr::set_at(&dir.fd, name, key, value))?;
            }
            let time = time_spec(entry.mtime);
            Ok(utimensat(
                &dir.fd,
                name,
                &time,
                &time,
                UtimensatFlags::NoFollowSymlink,
            )?)
        };
        set().at("cannot set attributes of", &self.place(dir, name))
    }

    /// Sets the times of directories and makes everything durable.
    fn finish(self) -> Result<Unpacked> {
        let singly = self.files <= MAX_FILES_SYNCED_SINGLY
            && self.dir_times.len() as u64 <= MAX_FILES_SYNCED_SINGLY;
        // A directory may have been listed more than once: the last time counts, as in order.
        for (names, time) in &self.dir_times {
            let dir = match self.reopen(names) {
                Ok(dir) => dir,
                // Replaced by a later entry that is no directory.
                Err(ImageError::Io { source, .. })
                    if matches!(
                        source.raw_os_error(),
                        Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP)
                    ) =>
                {
                    continue;
                }
                Err(e) => return Err(e),
            };
            let time = time_spec(*time);
            futimens(&dir.fd, &time, &time).at("cannot set time of", &self.place(&dir, b""))?;
            if singly {
                nix::unistd::fsync(&dir.fd).at("cannot sync", &self.place(&dir, b""))?;
            }
        }
        if singly {
            nix::unistd::fsync(&self.root.fd).at("cannot sync", self.path)?;
        } else {
            nix::unistd::syncfs(&self.root.fd).at("cannot sync the file system of", self.path)?;
        }
        Ok(self.done)
    }
}

fn time_spec((seconds, nanos): (i64, u32)) -> TimeSpec {
    TimeSpec::new(seconds, i64::from(nanos))
}

/// Sets what the image may set; a file system without such attributes is no reason to fail.
fn set_xattrs(entry: &Entry, set: impl Fn(&[u8], &[u8]) -> io::Result<()>) -> io::Result<()> {
    for (key, value) in &entry.xattrs {
        if !xattr::is_allowed(key) {
            continue;
        }
        match set(key, value) {
            Err(e) if matches!(e.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EPERM)) => {
                tracing::debug!(path = %shown(&entry.path), key = %shown(key), "attribute left out");
            }
            other => other?,
        }
    }
    Ok(())
}

/// Gives a directory owner, mode and attributes of another.
pub(crate) fn copy_dir_metadata(from: &OwnedFd, to: &OwnedFd) -> io::Result<FileStat> {
    let stat = fstat(from)?;
    copy_metadata(from, &stat, to)?;
    Ok(stat)
}

fn copy_metadata(
    from: &impl std::os::fd::AsFd,
    stat: &FileStat,
    to: &impl std::os::fd::AsFd,
) -> io::Result<()> {
    fchown(
        to,
        Some(Uid::from_raw(stat.st_uid)),
        Some(Gid::from_raw(stat.st_gid)),
    )?;
    fchmod(to, Mode::from_bits_truncate(stat.st_mode & 0o7777))?;
    for key in xattr::list_fd(from)? {
        if let (true, Some(value)) = (xattr::is_allowed(&key), xattr::get_fd(from, &key)?) {
            xattr::set_fd(to, &key, &value)?;
        }
    }
    Ok(())
}
