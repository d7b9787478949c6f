//! Extended attributes of open files and of names below an open directory.

#![allow(
    unsafe_code,
    reason = "the standard library and nix have no calls for extended attributes"
)]

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Marks a directory that hides what is below it in lower layers.
pub(crate) const OVERLAY_OPAQUE: &str = "trusted.overlay.opaque";

/// Path by which the kernel finds `name`, a single component, below an open directory.
fn proc_path(dir: &impl AsFd, name: &[u8]) -> io::Result<CString> {
    let mut path = format!("/proc/self/fd/{}/", dir.as_fd().as_raw_fd()).into_bytes();
    path.extend_from_slice(name);
    Ok(CString::new(path)?)
}

fn check(result: libc::ssize_t) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// Sets an attribute of an open file or directory (not one opened with `O_PATH`).
pub(crate) fn set_fd(fd: &impl AsFd, key: &[u8], value: &[u8]) -> io::Result<()> {
    let key = CString::new(key)?;
    // SAFETY: the descriptor is open, the key ends in NUL, pointer and length describe `value`.
    let result = unsafe {
        libc::fsetxattr(
            fd.as_fd().as_raw_fd(),
            key.as_ptr(),
            value.as_ptr().cast(),
            value.len(),
            0,
        )
    };
    check(result as libc::ssize_t).map(drop)
}

/// Sets an attribute of `name` in `dir` without following a symbolic link.
pub(crate) fn set_at(dir: &impl AsFd, name: &[u8], key: &[u8], value: &[u8]) -> io::Result<()> {
    let (path, key) = (proc_path(dir, name)?, CString::new(key)?);
    // SAFETY: both strings end in NUL, pointer and length describe `value`.
    let result = unsafe {
        libc::lsetxattr(
            path.as_ptr(),
            key.as_ptr(),
            value.as_ptr().cast(),
            value.len(),
            0,
        )
    };
    check(result as libc::ssize_t).map(drop)
}

/// Value of an attribute of an open file; `None` if it has none of that name.
pub(crate) fn get_fd(fd: &impl AsFd, key: &[u8]) -> io::Result<Option<Vec<u8>>> {
    let key = CString::new(key)?;
    let raw = fd.as_fd().as_raw_fd();
    read_sized(|buffer| {
        // SAFETY: the descriptor is open, the key ends in NUL, pointer and length describe `buffer`.
        unsafe { libc::fgetxattr(raw, key.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len()) }
    })
}

/// Names of all attributes of an open file or directory, sorted.
pub(crate) fn list_fd(fd: &impl AsFd) -> io::Result<Vec<Vec<u8>>> {
    let raw = fd.as_fd().as_raw_fd();
    // SAFETY: the descriptor is open, pointer and length describe `buffer`.
    read_sized(|buffer| unsafe { libc::flistxattr(raw, buffer.as_mut_ptr().cast(), buffer.len()) })
        .map(split_names)
}

/// Names and values of all attributes of a path, without following a symbolic link, sorted by name.
pub(crate) fn all_of_path(path: &Path) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: the path ends in NUL, pointer and length describe `buffer`.
    let names = read_sized(|buffer| unsafe {
        libc::llistxattr(path.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len())
    });
    let mut out = Vec::new();
    for name in split_names(names?) {
        let key = CString::new(name.as_slice())?;
        let value = read_sized(|buffer| {
            // SAFETY: both strings end in NUL, pointer and length describe `buffer`.
            unsafe {
                libc::lgetxattr(
                    path.as_ptr(),
                    key.as_ptr(),
                    buffer.as_mut_ptr().cast(),
                    buffer.len(),
                )
            }
        })?;
        out.extend(value.map(|value| (name, value)));
    }
    Ok(out)
}

fn split_names(names: Option<Vec<u8>>) -> Vec<Vec<u8>> {
    let names = names.unwrap_or_default();
    let mut out: Vec<Vec<u8>> = names
        .split(|b| *b == 0)
        .filter(|n| !n.is_empty())
        .map(<[u8]>::to_vec)
        .collect();
    out.sort();
    out
}

/// Calls with a buffer that is large enough for what the kernel says is there.
fn read_sized(mut call: impl FnMut(&mut [u8]) -> libc::ssize_t) -> io::Result<Option<Vec<u8>>> {
    let mut buffer = vec![0_u8; 256];
    loop {
        match check(call(&mut buffer)) {
            Ok(n) => {
                buffer.truncate(n);
                return Ok(Some(buffer));
            }
            Err(e) => match e.raw_os_error() {
                Some(libc::ERANGE) if buffer.len() < crate::limits::MAX_XATTR_BYTES => {
                    buffer.resize(crate::limits::MAX_XATTR_BYTES, 0);
                }
                Some(libc::ENODATA | libc::EOPNOTSUPP) => return Ok(None),
                _ => return Err(e),
            },
        }
    }
}

/// Whether an attribute of an image may reach the disk, and whether it is copied between layers.
///
/// `trusted.` is left out because `trusted.overlay.*` steers the overlay itself (an image could
/// redirect lookups); `security.` is left out except file capabilities because labels belong to
/// the host's policy, not to the image.
pub(crate) fn is_allowed(key: &[u8]) -> bool {
    let user = key.starts_with(b"user.") && !key.starts_with(b"user.overlay.");
    user || key == b"security.capability"
        || key == b"system.posix_acl_access"
        || key == b"system.posix_acl_default"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlay_attributes_are_not_allowed() {
        for key in [
            "trusted.overlay.redirect",
            "trusted.overlay.opaque",
            "user.overlay.opaque",
            "trusted.x",
            "security.selinux",
        ] {
            assert!(!is_allowed(key.as_bytes()), "{key}");
        }
        for key in ["user.mime", "security.capability"] {
            assert!(is_allowed(key.as_bytes()), "{key}");
        }
    }
}
