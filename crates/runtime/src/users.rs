//! From the user text of an image or a spec (`redis`, `1000:1000`, `app:www-data`) to numbers, by the
//! image's own `/etc/passwd` and `/etc/group`.

use crate::spec::UserIds;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, FromRawFd};
use std::path::Path;

/// Most of `/etc/passwd` and `/etc/group` that is read, in bytes.
const MAX_TABLE_BYTES: u64 = 1024 * 1024;

/// Resolves `user[:group]`; an empty text is root. The error says what is missing, for people.
pub fn resolve_user(rootfs: &Path, text: &str) -> Result<UserIds, String> {
    if text.is_empty() {
        return Ok(UserIds::default());
    }
    let read = |name: &str| {
        read_inside(rootfs, name).or_else(|error| match error.kind() {
            io::ErrorKind::NotFound => Ok(String::new()),
            _ => Err(format!("/{name} of the image cannot be read: {error}")),
        })
    };
    resolve(text, &read("etc/passwd")?, &read("etc/group")?)
}

fn resolve(text: &str, passwd: &str, group: &str) -> Result<UserIds, String> {
    let (user, group_text) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    let number: Option<u32> = user.parse().ok();
    let entry = passwd
        .lines()
        .map(|l| l.split(':').collect::<Vec<_>>())
        .find(|f| {
            f.len() >= 4
                && if number.is_some() {
                    f[2].parse() == Ok(number.unwrap_or_default())
                } else {
                    f[0] == user
                }
        });
    let uid = match (&entry, number) {
        (_, Some(uid)) => uid,
        (Some(fields), None) => fields[2]
            .parse()
            .map_err(|_| format!("user {user:?} has no number in the image"))?,
        (None, None) => {
            return Err(format!(
                "user {user:?} is not in the image's /etc/passwd; use a number or a known name"
            ));
        }
    };
    let name = entry.as_ref().map(|f| f[0]);
    let gid = match group_text {
        Some(text) => group_id(text, group)?,
        None => entry.as_ref().and_then(|f| f[3].parse().ok()).unwrap_or(0),
    };
    // An explicit group stands alone, as with other engines.
    let additional_gids = match (group_text, name) {
        (None, Some(name)) => memberships(name, group).filter(|g| *g != gid).collect(),
        _ => Vec::new(),
    };
    Ok(UserIds {
        uid,
        gid,
        additional_gids,
    })
}

fn group_id(text: &str, group: &str) -> Result<u32, String> {
    if let Ok(gid) = text.parse() {
        return Ok(gid);
    }
    group
        .lines()
        .map(|l| l.split(':').collect::<Vec<_>>())
        .find(|f| f.len() >= 3 && f[0] == text)
        .and_then(|f| f[2].parse().ok())
        .ok_or_else(|| {
            format!("group {text:?} is not in the image's /etc/group; use a number or a known name")
        })
}

fn memberships<'a>(name: &'a str, group: &'a str) -> impl Iterator<Item = u32> + 'a {
    group.lines().filter_map(move |line| {
        let fields: Vec<&str> = line.split(':').collect();
        let member = fields.len() >= 4 && fields[3].split(',').any(|m| m == name);
        member.then(|| fields[2].parse().ok()).flatten()
    })
}

/// Reads a file of the image.
fn read_inside(rootfs: &Path, name: &str) -> io::Result<String> {
    let mut bytes = Vec::new();
    open_inside(rootfs, Path::new(name))?
        .take(MAX_TABLE_BYTES)
        .read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Opens a file or directory of the image for reading; symbolic links stay inside the image.
#[allow(
    unsafe_code,
    reason = "openat2 with RESOLVE_IN_ROOT has no safe wrapper in the dependencies we have"
)]
pub(crate) fn open_inside(rootfs: &Path, path: &Path) -> io::Result<File> {
    use std::os::unix::ffi::OsStrExt;
    let root = File::open(rootfs)?;
    let path = std::ffi::CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: `open_how` is plain data for which all zero bytes are valid.
    let mut how: libc::open_how = unsafe { std::mem::zeroed() };
    how.flags = u64::from((libc::O_RDONLY | libc::O_CLOEXEC | libc::O_NONBLOCK).unsigned_abs());
    how.resolve = libc::RESOLVE_IN_ROOT | libc::RESOLVE_NO_MAGICLINKS;
    // SAFETY: `path` and `how` live through the call and the size is that of `how`.
    let raw = unsafe {
        libc::syscall(
            libc::SYS_openat2,
            root.as_raw_fd(),
            path.as_ptr(),
            &raw const how,
            size_of::<libc::open_how>(),
        )
    };
    if raw < 0 {
        return Err(io::Error::last_os_error());
    }
    let raw = i32::try_from(raw).map_err(io::Error::other)?;
    // SAFETY: the kernel has just given us this descriptor; nobody else owns it.
    Ok(unsafe { File::from_raw_fd(raw) })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nredis:x:999:998::/:/bin/false\nbroken\n";
    const GROUP: &str = "root:x:0:\nredis:x:998:\nssl:x:110:redis,nginx\nwww:x:33:\n";

    fn ids(uid: u32, gid: u32, more: &[u32]) -> UserIds {
        UserIds {
            uid,
            gid,
            additional_gids: more.to_vec(),
        }
    }

    #[test]
    fn names_and_numbers() {
        assert_eq!(resolve("redis", PASSWD, GROUP), Ok(ids(999, 998, &[110])));
        assert_eq!(resolve("999", PASSWD, GROUP), Ok(ids(999, 998, &[110])));
        assert_eq!(resolve("redis:www", PASSWD, GROUP), Ok(ids(999, 33, &[])));
        assert_eq!(resolve("1234", PASSWD, GROUP), Ok(ids(1234, 0, &[])));
        assert_eq!(resolve("1234:5", "", ""), Ok(ids(1234, 5, &[])));
        assert!(
            resolve("nobody", PASSWD, GROUP)
                .unwrap_err()
                .contains("nobody")
        );
        assert!(
            resolve("root:nogroup", PASSWD, GROUP)
                .unwrap_err()
                .contains("nogroup")
        );
    }

    #[test]
    fn a_link_out_of_the_image_stays_inside() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        std::os::unix::fs::symlink("/etc/hostname", dir.path().join("etc/passwd")).unwrap();
        assert!(
            resolve_user(dir.path(), "root")
                .unwrap_err()
                .contains("root")
        );
        std::fs::write(dir.path().join("etc/hostname"), "root:x:0:7::/:\n").unwrap();
        assert_eq!(resolve_user(dir.path(), "root"), Ok(ids(0, 7, &[])));
    }
}
