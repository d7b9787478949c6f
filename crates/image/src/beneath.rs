//! Working below a directory without ever leaving it.
//!
//! Every path is walked one component at a time from an open directory, with `O_NOFOLLOW`; symbolic
//! links are read and walked the same way, absolute ones from the root we were given, `..` never
//! above it. So no link, planted before or while we walk, leads outside. Needs no `openat2`, which
//! older kernels and some sandboxes lack.

use crate::error::{ImageError, Result};
use crate::limits::{MAX_NAME_BYTES, MAX_SYMLINKS};
use crate::tarread::shown;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstatat};
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

/// One name in a path.
pub(crate) type Name = Vec<u8>;

/// Splits the path of an archive entry into names. Absolute paths and `..` are refused, `.` and
/// doubled slashes mean nothing.
pub(crate) fn entry_names(archive: &str, path: &[u8]) -> Result<Vec<Name>> {
    let unsafe_path = |why| ImageError::UnsafePath {
        archive: archive.to_owned(),
        entry: shown(path),
        why,
    };
    if path.starts_with(b"/") {
        return Err(unsafe_path("it is absolute"));
    }
    if path.contains(&0) {
        return Err(unsafe_path("it holds a NUL byte"));
    }
    let names: Vec<Name> = plain_names(path);
    if names.iter().any(|n| n == b"..") {
        return Err(unsafe_path("it holds .."));
    }
    match names.iter().find(|n| n.len() > MAX_NAME_BYTES) {
        Some(name) => Err(ImageError::TooLarge {
            what: format!("name {} in {archive}", shown(name)),
            limit: MAX_NAME_BYTES as u64,
            unit: "bytes",
        }),
        None => Ok(names),
    }
}

/// Names of a path without empty ones and `.`; `..` stays.
pub(crate) fn plain_names(path: &[u8]) -> Vec<Name> {
    path.split(|b| *b == b'/')
        .filter(|n| !n.is_empty() && *n != b".")
        .map(<[u8]>::to_vec)
        .collect()
}

/// Names joined by slashes.
pub(crate) fn joined(names: &[Name]) -> Vec<u8> {
    names.join(&b'/')
}

/// Type bits of a mode.
pub(crate) fn file_type(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits())
}

/// Overlayfs marks a deleted name by a character device with number 0:0.
pub(crate) fn is_whiteout(stat: &FileStat) -> bool {
    file_type(stat) == SFlag::S_IFCHR && stat.st_rdev == 0
}

/// What a name in an open directory is.
pub(crate) enum Child {
    Missing,
    Dir(OwnedFd),
    Symlink(Vec<u8>),
    Other(FileStat),
}

/// Looks at `name` in `dir` without following it.
pub(crate) fn child(dir: &impl AsFd, name: &[u8]) -> io::Result<Child> {
    // Bounded: only somebody renaming under our hands can make the two looks disagree.
    for _ in 0..MAX_SYMLINKS {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        match openat(dir, name, flags, Mode::empty()) {
            Ok(fd) => return Ok(Child::Dir(fd)),
            Err(Errno::ENOENT) => return Ok(Child::Missing),
            Err(Errno::ENOTDIR | Errno::ELOOP) => {}
            Err(e) => return Err(e.into()),
        }
        match fstatat(dir, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(stat) if file_type(&stat) == SFlag::S_IFLNK => match readlinkat(dir, name) {
                Ok(target) => return Ok(Child::Symlink(target.into_vec())),
                Err(Errno::EINVAL | Errno::ENOENT) => {}
                Err(e) => return Err(e.into()),
            },
            Ok(stat) if file_type(&stat) != SFlag::S_IFDIR => return Ok(Child::Other(stat)),
            Ok(_) | Err(Errno::ENOENT) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Err(Errno::EAGAIN.into())
}

/// Opens a directory by its path, which is trusted.
pub(crate) fn open_dir(path: &Path) -> io::Result<OwnedFd> {
    Ok(nix::fcntl::open(
        path,
        OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC,
        Mode::empty(),
    )?)
}

/// Opens a regular file for reading as a process with `root` as its root directory would;
/// `None` if there is none.
pub(crate) fn open_file_in_root(root: &Path, path: &[u8]) -> io::Result<Option<File>> {
    let mut stack = vec![open_dir(root)?];
    let mut queue: VecDeque<Name> = plain_names(path).into();
    let mut links = 0;
    while let Some(name) = queue.pop_front() {
        let Some(current) = stack.last() else {
            return Err(Errno::ENOENT.into());
        };
        if name == b".." {
            if stack.len() > 1 {
                stack.pop();
            }
            continue;
        }
        match child(current, &name)? {
            Child::Missing => return Ok(None),
            Child::Dir(fd) => stack.push(fd),
            Child::Symlink(target) => {
                links += 1;
                if links > MAX_SYMLINKS {
                    return Err(Errno::ELOOP.into());
                }
                if target.starts_with(b"/") {
                    stack.truncate(1);
                }
                for part in plain_names(&target).into_iter().rev() {
                    queue.push_front(part);
                }
            }
            Child::Other(_) if !queue.is_empty() => return Ok(None),
            Child::Other(stat) if file_type(&stat) != SFlag::S_IFREG => return Ok(None),
            Child::Other(_) => {
                // Non-blocking, lest a fifo put here meanwhile hold us for ever.
                let flags =
                    OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
                let file = File::from(openat(current, name.as_slice(), flags, Mode::empty())?);
                return Ok(file.metadata()?.is_file().then_some(file));
            }
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Read;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_stay_below_the_root() {
        let outer = tempfile::tempdir().unwrap();
        let root = outer.path().join("root");
        std::fs::create_dir_all(root.join("etc")).unwrap();
        std::fs::create_dir_all(root.join("usr/etc")).unwrap();
        std::fs::write(outer.path().join("secret"), "outside").unwrap();
        std::fs::write(root.join("usr/etc/passwd"), "inside").unwrap();
        symlink("/usr/etc/passwd", root.join("etc/passwd")).unwrap();
        symlink("../../../../usr/etc/passwd", root.join("up")).unwrap();
        symlink("../secret", root.join("escape")).unwrap();
        symlink(outer.path().join("secret"), root.join("absolute")).unwrap();
        symlink("loop", root.join("loop")).unwrap();
        let read = |path: &str| {
            let mut text = String::new();
            open_file_in_root(&root, path.as_bytes())
                .map(|f| f.map(|mut f| f.read_to_string(&mut text).map(|_| text).unwrap()))
        };
        assert_eq!(read("/etc/passwd").unwrap().as_deref(), Some("inside"));
        assert_eq!(read("up").unwrap().as_deref(), Some("inside"));
        assert_eq!(read("escape").unwrap(), None);
        assert_eq!(read("absolute").unwrap(), None);
        assert_eq!(read("../secret").unwrap(), None);
        assert_eq!(read("etc").unwrap(), None, "a directory is no file");
        assert!(read("loop").is_err());
        nix::unistd::mkfifo(&root.join("fifo"), Mode::S_IRWXU).unwrap();
        assert_eq!(read("fifo").unwrap(), None);
    }

    proptest! {
        #[test]
        fn names_are_plain_or_refused(path in "[a-c./]{0,24}") {
            match entry_names("test", path.as_bytes()) {
                Ok(names) => {
                    prop_assert!(!path.starts_with('/'));
                    prop_assert!(names.iter().all(|n| !n.is_empty() && n != b"." && n != b".." && !n.contains(&b'/')));
                }
                Err(_) => prop_assert!(path.starts_with('/') || path.split('/').any(|p| p == "..")),
            }
        }
    }
}
