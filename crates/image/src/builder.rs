//! Building small images from files: the hello image from our own binary, test images from trees.
//!
//! Equal input gives equal digests: times are fixed unless asked otherwise, order is by path.

use crate::beneath::{Name, plain_names};
use crate::error::{ImageError, IoContext, Result};
use crate::manifest::ImageConfig;
use crate::platform::Platform;
use crate::tarread::{Kind, shown};
use crate::xattr;
use std::collections::{BTreeMap, HashMap};
use std::fs::{self, Metadata};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Where a file's content comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileSource {
    /// These bytes.
    Bytes(Vec<u8>),
    /// A file on this machine; read when the image is built, it must not change meanwhile.
    Host(PathBuf),
}

impl From<Vec<u8>> for FileSource {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Bytes(bytes)
    }
}

impl From<&str> for FileSource {
    fn from(text: &str) -> Self {
        Self::Bytes(text.as_bytes().to_vec())
    }
}

impl From<PathBuf> for FileSource {
    fn from(path: PathBuf) -> Self {
        Self::Host(path)
    }
}

/// How layer archives are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compression {
    /// Not at all: quickest to make and to unpack.
    #[default]
    None,
    /// gzip.
    Gzip,
    /// Zstandard.
    Zstd,
}

#[derive(Debug, Clone)]
pub(crate) enum Content {
    Directory,
    File(FileSource),
    Symlink(Vec<u8>),
    /// Path of another file of the same layer.
    HardLink(Vec<Name>),
    Device {
        kind: Kind,
        major: u32,
        minor: u32,
    },
}

#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub content: Content,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// `None`: the time of the whole image.
    pub mtime: Option<(i64, u32)>,
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Node {
    fn new(content: Content, mode: u32) -> Self {
        Self {
            content,
            mode,
            uid: 0,
            gid: 0,
            mtime: None,
            xattrs: Vec::new(),
        }
    }
}

pub(crate) type Layer = BTreeMap<Vec<Name>, Node>;

/// Collects files and settings of an image.
#[derive(Debug, Clone)]
pub struct ImageBuilder {
    pub(crate) layers: Vec<Layer>,
    pub(crate) config: ImageConfig,
    pub(crate) platform: Platform,
    pub(crate) compression: Compression,
    pub(crate) timestamp: u32,
    keep_times: bool,
}

impl Default for ImageBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl ImageBuilder {
    /// An image with one empty layer, for this machine's platform.
    #[must_use]
    pub fn new() -> Self {
        Self {
            layers: vec![Layer::new()],
            config: ImageConfig::default(),
            platform: Platform::host(),
            compression: Compression::None,
            timestamp: 0,
            keep_times: false,
        }
    }

    /// Sets the platform.
    pub fn platform(&mut self, platform: Platform) -> &mut Self {
        self.platform = platform;
        self
    }

    /// Sets how layers are compressed.
    pub fn compression(&mut self, compression: Compression) -> &mut Self {
        self.compression = compression;
        self
    }

    /// Sets the time of the image and its files, in seconds since 1970; 0 if not called.
    pub fn timestamp(&mut self, seconds: u32) -> &mut Self {
        self.timestamp = seconds;
        self
    }

    /// Whether [`Self::add_tree`] keeps the files' own times.
    pub fn keep_times(&mut self, keep: bool) -> &mut Self {
        self.keep_times = keep;
        self
    }

    /// Starts another layer on top; what is added from now on goes there.
    pub fn new_layer(&mut self) -> &mut Self {
        self.layers.push(Layer::new());
        self
    }

    fn add(&mut self, path: &str, node: Node) -> &mut Self {
        if let Some(layer) = self.layers.last_mut() {
            layer.insert(plain_names(path.as_bytes()), node);
        }
        self
    }

    /// Adds a file, owned by root. Directories that are missing are made with mode 755.
    pub fn add_file(&mut self, path: &str, source: impl Into<FileSource>, mode: u32) -> &mut Self {
        self.add(path, Node::new(Content::File(source.into()), mode))
    }

    /// Adds a directory, owned by root.
    pub fn add_dir(&mut self, path: &str, mode: u32) -> &mut Self {
        self.add(path, Node::new(Content::Directory, mode))
    }

    /// Adds a symbolic link.
    pub fn add_symlink(&mut self, path: &str, target: &str) -> &mut Self {
        self.add(
            path,
            Node::new(Content::Symlink(target.as_bytes().to_vec()), 0o777),
        )
    }

    /// Adds a hard link to a file of this or a lower layer.
    pub fn add_hard_link(&mut self, path: &str, target: &str) -> &mut Self {
        self.add(
            path,
            Node::new(Content::HardLink(plain_names(target.as_bytes())), 0o644),
        )
    }

    /// Marks a path of a lower layer as deleted.
    pub fn remove(&mut self, path: &str) -> &mut Self {
        let mut names = plain_names(path.as_bytes());
        if let (Some(last), Some(layer)) = (names.last_mut(), self.layers.last_mut()) {
            *last = [b".wh.", last.as_slice()].concat();
            layer.insert(
                names,
                Node::new(Content::File(FileSource::Bytes(Vec::new())), 0o644),
            );
        }
        self
    }

    /// Hides what lower layers hold in a directory.
    pub fn make_opaque(&mut self, path: &str) -> &mut Self {
        self.add(
            &format!("{path}/.wh..wh..opq"),
            Node::new(Content::File(FileSource::Bytes(Vec::new())), 0o644),
        )
    }

    /// Sets the owner of something added to this layer before; nothing happens if it was not.
    pub fn owner(&mut self, path: &str, uid: u32, gid: u32) -> &mut Self {
        if let Some(node) = self
            .layers
            .last_mut()
            .and_then(|l| l.get_mut(&plain_names(path.as_bytes())))
        {
            (node.uid, node.gid) = (uid, gid);
        }
        self
    }

    /// Sets an extended attribute of something added to this layer before.
    pub fn xattr(&mut self, path: &str, key: &str, value: &[u8]) -> &mut Self {
        if let Some(node) = self
            .layers
            .last_mut()
            .and_then(|l| l.get_mut(&plain_names(path.as_bytes())))
        {
            node.xattrs.push((key.as_bytes().to_vec(), value.to_vec()));
        }
        self
    }

    /// Adds a directory of this machine with everything in it: owners, modes, links, attributes.
    /// Sockets are left out.
    ///
    /// # Errors
    /// Something cannot be read.
    pub fn add_tree(&mut self, host: &Path, path: &str) -> Result<&mut Self> {
        let mut seen = HashMap::new();
        let mut stack = vec![(host.to_owned(), plain_names(path.as_bytes()))];
        let mut layer = Layer::new();
        while let Some((host, names)) = stack.pop() {
            let meta = fs::symlink_metadata(&host).at("cannot look at", &host)?;
            let Some(node) = self.host_node(&host, &meta, &names, &mut seen)? else {
                continue;
            };
            layer.insert(names.clone(), node);
            if !meta.is_dir() {
                continue;
            }
            let mut children = Vec::new();
            for child in fs::read_dir(&host).at("cannot list", &host)? {
                children.push(child.at("cannot list", &host)?.file_name());
            }
            // The stack turns the order around: this way the first of several hard links, by name,
            // is the one the others point to, whatever order the file system lists them in.
            children.sort_by(|a, b| b.cmp(a));
            for child in children {
                let names = names
                    .iter()
                    .cloned()
                    .chain([child.as_bytes().to_vec()])
                    .collect();
                stack.push((host.join(child), names));
            }
        }
        if let Some(last) = self.layers.last_mut() {
            last.extend(layer);
        }
        Ok(self)
    }

    fn host_node(
        &self,
        host: &Path,
        meta: &Metadata,
        names: &[Name],
        seen: &mut HashMap<(u64, u64), Vec<Name>>,
    ) -> Result<Option<Node>> {
        let kind = meta.file_type();
        let device = |kind| Content::Device {
            kind,
            major: libc::major(meta.rdev()),
            minor: libc::minor(meta.rdev()),
        };
        let mut content = if kind.is_dir() {
            Content::Directory
        } else if kind.is_file() {
            Content::File(FileSource::Host(host.to_owned()))
        } else if kind.is_symlink() {
            Content::Symlink(
                fs::read_link(host)
                    .at("cannot read", host)?
                    .as_os_str()
                    .as_bytes()
                    .to_vec(),
            )
        } else if kind.is_fifo() {
            device(Kind::Fifo)
        } else if kind.is_char_device() {
            device(Kind::CharDevice)
        } else if kind.is_block_device() {
            device(Kind::BlockDevice)
        } else {
            return Ok(None);
        };
        if meta.nlink() > 1 && !kind.is_dir() {
            if let Some(first) = seen.get(&(meta.dev(), meta.ino())) {
                content = Content::HardLink(first.clone());
            } else {
                seen.insert((meta.dev(), meta.ino()), names.to_vec());
            }
        }
        let mut node = Node::new(content, meta.mode() & 0o7777);
        (node.uid, node.gid) = (meta.uid(), meta.gid());
        if self.keep_times {
            node.mtime = Some((meta.mtime(), u32::try_from(meta.mtime_nsec()).unwrap_or(0)));
        }
        if !kind.is_symlink() {
            let all = xattr::all_of_path(host).at("cannot read attributes of", host)?;
            node.xattrs = all
                .into_iter()
                .filter(|(key, _)| xattr::is_allowed(key))
                .collect();
        }
        Ok(Some(node))
    }

    /// Sets the first words of the command line.
    pub fn entrypoint<S: Into<String>>(&mut self, words: impl IntoIterator<Item = S>) -> &mut Self {
        self.config.entrypoint = words.into_iter().map(Into::into).collect();
        self
    }

    /// Sets further words of the command line, which a container may replace.
    pub fn cmd<S: Into<String>>(&mut self, words: impl IntoIterator<Item = S>) -> &mut Self {
        self.config.cmd = words.into_iter().map(Into::into).collect();
        self
    }

    /// Adds an environment variable.
    pub fn env(&mut self, name: &str, value: &str) -> &mut Self {
        self.config.env.push(format!("{name}={value}"));
        self
    }

    /// Sets the directory the program starts in.
    pub fn working_dir(&mut self, path: &str) -> &mut Self {
        path.clone_into(&mut self.config.working_dir);
        self
    }

    /// Sets the user the program runs as.
    pub fn user(&mut self, user: &str) -> &mut Self {
        user.clone_into(&mut self.config.user);
        self
    }

    /// Sets the signal that asks the program to stop, such as `SIGQUIT`.
    pub fn stop_signal(&mut self, signal: &str) -> &mut Self {
        self.config.stop_signal = Some(signal.to_owned());
        self
    }

    /// Names a port the program listens on, such as `80/tcp`.
    pub fn expose(&mut self, port: &str) -> &mut Self {
        self.config.exposed_ports.push(port.to_owned());
        self
    }

    /// Names a path that is meant to be a volume.
    pub fn volume(&mut self, path: &str) -> &mut Self {
        self.config.volumes.push(path.to_owned());
        self
    }

    /// Sets a label.
    pub fn label(&mut self, name: &str, value: &str) -> &mut Self {
        self.config.labels.insert(name.to_owned(), value.to_owned());
        self
    }

    /// The layers with their missing parent directories filled in, paths checked.
    pub(crate) fn complete_layers(&self) -> Result<Vec<Layer>> {
        let mut known: std::collections::BTreeSet<Vec<Name>> = std::collections::BTreeSet::new();
        let mut out = Vec::new();
        for layer in &self.layers {
            let mut full = layer.clone();
            for names in layer.keys() {
                if names.iter().any(|n| n == b".." || n.contains(&0)) {
                    return Err(ImageError::UnsafePath {
                        archive: "the image being built".to_owned(),
                        entry: shown(&names.join(&b'/')),
                        why: "it holds .. or a NUL byte",
                    });
                }
                for end in 1..names.len() {
                    let parent = &names[..end];
                    if !known.contains(parent) && !full.contains_key(parent) {
                        full.insert(parent.to_vec(), Node::new(Content::Directory, 0o755));
                    }
                }
            }
            known.extend(
                full.iter()
                    .filter(|(_, n)| matches!(n.content, Content::Directory))
                    .map(|(p, _)| p.clone()),
            );
            out.push(full);
        }
        Ok(out)
    }
}
