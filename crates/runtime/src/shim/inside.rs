//! Finishing touches in a container that is created but not started: what libcontainer does not do.
//!
//! Runs in a helper process that joins the container's namespaces, so every path is resolved inside the
//! container, and no program of the image has run yet.

#![allow(
    unsafe_code,
    reason = "mount_setattr and the loopback ioctl have no safe wrappers"
)]

use crate::oci::SECRETS_DIR;
use crate::wire::FileHead;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns};
use std::ffi::CStr;
use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

/// A directory on the secrets' tmpfs for files that belong elsewhere.
const ELSEWHERE: &str = "/run/secrets/.files";

/// Joins the namespaces of `pid` and finishes the container.
pub(super) fn finish(
    pid: i32,
    own_network: bool,
    files: &[(FileHead, Vec<u8>)],
) -> Result<(), String> {
    let open = |name: &str| {
        File::open(format!("/proc/{pid}/ns/{name}")).map_err(|e| format!("namespace {name}: {e}"))
    };
    let (mounts, network) = (open("mnt")?, open("net")?);
    if own_network {
        setns(&network, CloneFlags::CLONE_NEWNET)
            .map_err(|e| format!("join the network namespace: {e}"))?;
        loopback_up().map_err(|e| format!("bring the loopback device up: {e}"))?;
    }
    setns(&mounts, CloneFlags::CLONE_NEWNS)
        .map_err(|e| format!("join the mount namespace: {e}"))?;
    // Device nodes of the image must not open the host's devices; the usual ones are on /dev, another mount.
    set_attributes(c"/", libc::MOUNT_ATTR_NODEV, 0)
        .map_err(|e| format!("forbid devices on /: {e}"))?;
    read_only_below(c"/sys/fs/cgroup")
        .map_err(|e| format!("make /sys/fs/cgroup read-only: {e}"))?;
    if !files.is_empty() {
        place_files(files)?;
        read_only_below(c"/run/secrets")
            .map_err(|e| format!("make {SECRETS_DIR} read-only: {e}"))?;
    }
    Ok(())
}

fn place_files(files: &[(FileHead, Vec<u8>)]) -> Result<(), String> {
    for (number, (head, content)) in files.iter().enumerate() {
        let direct = head.target.starts_with(SECRETS_DIR);
        let path = if direct {
            head.target.clone()
        } else {
            PathBuf::from(ELSEWHERE).join(number.to_string())
        };
        let fail =
            |action: &str, error: io::Error| format!("{action} {}: {error}", head.target.display());
        write_file(&path, head, content).map_err(|e| fail("write", e))?;
        if !direct {
            // libcontainer has put an empty file there, so that this works below a read-only root too.
            bind_read_only(&path, &head.target).map_err(|e| fail("mount", e))?;
        }
    }
    Ok(())
}

fn write_file(path: &Path, head: &FileHead, content: &[u8]) -> io::Result<()> {
    if let Some(parent) = path.parent()
        && !parent.is_dir()
    {
        let mode = if parent == Path::new(ELSEWHERE) {
            0o700
        } else {
            0o755
        };
        fs::DirBuilder::new()
            .recursive(true)
            .mode(mode)
            .create(parent)?;
    }
    let mut file = fs::OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(content)?;
    chown(path, Some(head.uid), Some(head.gid))?;
    // After the change of owner, which clears set-id bits.
    file.set_permissions(Permissions::from_mode(head.mode & 0o7777))
}

fn bind_read_only(source: &Path, target: &Path) -> io::Result<()> {
    mount(
        Some(source),
        target,
        None::<&str>,
        MsFlags::MS_BIND,
        None::<&str>,
    )?;
    let flags = MsFlags::MS_BIND
        | MsFlags::MS_REMOUNT
        | MsFlags::MS_RDONLY
        | MsFlags::MS_NOSUID
        | MsFlags::MS_NODEV
        | MsFlags::MS_NOEXEC;
    Ok(mount(
        None::<&str>,
        target,
        None::<&str>,
        flags,
        None::<&str>,
    )?)
}

/// Makes a mount and all below it read-only. Nothing happens where there is no such path.
fn read_only_below(path: &CStr) -> io::Result<()> {
    match set_attributes(path, libc::MOUNT_ATTR_RDONLY, libc::AT_RECURSIVE) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn set_attributes(path: &CStr, set: u64, flags: i32) -> io::Result<()> {
    // SAFETY: `mount_attr` is plain data for which all zero bytes are valid.
    let mut attributes: libc::mount_attr = unsafe { std::mem::zeroed() };
    attributes.attr_set = set;
    // SAFETY: `path` and `attributes` live through the call and the size is that of `attributes`.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            path.as_ptr(),
            flags | libc::AT_SYMLINK_NOFOLLOW,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

fn loopback_up() -> io::Result<()> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
    // SAFETY: `ifreq` is plain data for which all zero bytes are valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo\0") {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags =
        i16::try_from(libc::IFF_UP | libc::IFF_RUNNING).unwrap_or_default();
    // SAFETY: `request` is a valid `ifreq` that outlives the call.
    match unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
