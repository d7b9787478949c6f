//! Mounting overlayfs.
//!
//! All options of a mount must fit in one page, and paths may hold commas and colons, which mean
//! something there. So a thread with a working directory of its own stands in a directory of short
//! links (`0`, `1`, … to the layers, `u`, `w`) and names those: 256 layers take under 1 KiB.

use crate::fsutil::{Temp, TempDirs};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use std::io;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};

/// What to mount.
pub(crate) struct Overlay<'a> {
    /// Highest first; at least two if there is no upper directory.
    pub lowers: &'a [PathBuf],
    /// Upper and work directory; `None` for a read-only mount.
    pub upper: Option<(&'a Path, &'a Path)>,
    pub target: &'a Path,
    /// Shown as the device in the mount table.
    pub source: &'a str,
}

/// Mounts.
pub(crate) fn mount_overlay(tmp: &TempDirs, overlay: &Overlay<'_>) -> io::Result<()> {
    let links = tmp.dir().map_err(io::Error::other)?;
    let mut options = String::from("lowerdir=");
    for (at, lower) in overlay.lowers.iter().enumerate() {
        symlink(lower, links.path().join(at.to_string()))?;
        if at > 0 {
            options.push(':');
        }
        options.push_str(&at.to_string());
    }
    let mut flags = MsFlags::empty();
    match overlay.upper {
        Some((upper, work)) => {
            symlink(upper, links.path().join("u"))?;
            symlink(work, links.path().join("w"))?;
            options.push_str(",upperdir=u,workdir=w");
        }
        None => flags |= MsFlags::MS_RDONLY,
    }
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| mount_in(&links, overlay, flags, &options));
        thread
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the mounting thread panicked")))
    })
}

fn mount_in(links: &Temp, overlay: &Overlay<'_>, flags: MsFlags, options: &str) -> io::Result<()> {
    // From here on this thread's working directory is its own; the thread ends after the mount.
    unshare(CloneFlags::CLONE_FS)?;
    nix::unistd::chdir(links.path())?;
    Ok(mount(
        Some(overlay.source),
        overlay.target,
        Some("overlay"),
        flags,
        Some(options),
    )?)
}

/// Whether something is mounted on `path`: then it is on another device than its parent.
pub(crate) fn is_mounted(path: &Path) -> io::Result<bool> {
    let parent = path.parent().unwrap_or(path);
    match (
        std::fs::symlink_metadata(path),
        std::fs::symlink_metadata(parent),
    ) {
        (Ok(own), Ok(parent)) => Ok(own.dev() != parent.dev()),
        (Err(e), _) | (_, Err(e)) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        (Err(e), _) | (_, Err(e)) => Err(e),
    }
}

/// Unmounts whatever is mounted on `path`, used or not.
pub(crate) fn unmount(path: &Path) -> io::Result<()> {
    while is_mounted(path)? {
        match umount2(path, MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) => {}
            // Still used by somebody: it disappears from here now, and for good with its last user.
            Err(nix::errno::Errno::EBUSY) => {
                umount2(path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW)?
            }
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}
