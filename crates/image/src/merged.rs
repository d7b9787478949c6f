//! A stack of unpacked layers seen as overlayfs would show it, without mounting it.

use crate::beneath::{Child, Name, child, is_whiteout, open_dir};
use crate::xattr;
use nix::sys::stat::FileStat;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

/// What a path in the stack is.
pub(crate) enum Found {
    Dir(OwnedFd),
    Symlink(Vec<u8>),
    /// A file or device, named within its open directory.
    Other {
        dir: OwnedFd,
        name: Name,
        stat: FileStat,
    },
}

/// Open layers, highest first.
pub(crate) struct Stack {
    layers: Vec<OwnedFd>,
}

/// Outcome of looking into one layer.
enum Step {
    Found(Found),
    /// Not here; lower layers show through.
    Through,
    /// Not here, and this layer hides what is below.
    Hidden,
}

impl Stack {
    /// Opens the layers' directories, highest first.
    pub(crate) fn open(paths: &[PathBuf]) -> io::Result<Self> {
        Ok(Self {
            layers: paths
                .iter()
                .map(|p| open_dir(p))
                .collect::<io::Result<_>>()?,
        })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.layers.is_empty()
    }

    /// Root directory of the highest layer.
    pub(crate) fn top(&self) -> Option<&OwnedFd> {
        self.layers.first()
    }

    /// Looks a path up. Symbolic links are not followed: the directories on the way must be ones.
    pub(crate) fn find(&self, names: &[Name]) -> io::Result<Option<Found>> {
        for layer in &self.layers {
            match look(layer, names)? {
                Step::Found(found) => return Ok(Some(found)),
                Step::Through => {}
                Step::Hidden => return Ok(None),
            }
        }
        Ok(None)
    }
}

fn look(layer: &OwnedFd, names: &[Name]) -> io::Result<Step> {
    let mut current = layer.try_clone()?;
    let mut opaque = false;
    for (at, name) in names.iter().enumerate() {
        let last = at + 1 == names.len();
        match child(&current, name)? {
            Child::Missing => return Ok(if opaque { Step::Hidden } else { Step::Through }),
            Child::Dir(fd) => {
                opaque |= xattr::get_fd(&fd, xattr::OVERLAY_OPAQUE.as_bytes())?
                    .is_some_and(|v| v == b"y");
                current = fd;
            }
            Child::Symlink(target) if last => return Ok(Step::Found(Found::Symlink(target))),
            Child::Other(stat) if last && !is_whiteout(&stat) => {
                return Ok(Step::Found(Found::Other {
                    dir: current,
                    name: name.clone(),
                    stat,
                }));
            }
            // Deleted here, or something other than a directory in the middle of the path.
            Child::Symlink(_) | Child::Other(_) => return Ok(Step::Hidden),
        }
    }
    Ok(Step::Found(Found::Dir(current)))
}
