//! Taking in an archive or a layout directory: its entries become files in a private directory,
//! digests checked on the way, before anything is believed.

use crate::beneath::{entry_names, joined, open_file_in_root, plain_names};
use crate::compress::{Bounded, Plain};
use crate::digest::{Digest, Hashing};
use crate::error::{ImageError, IoContext, Result};
use crate::fsutil::{Temp, TempDirs};
use crate::limits::{
    COPY_BUFFER_BYTES, MAX_ARCHIVE_ENTRIES, MAX_DOCUMENT_BYTES, MAX_EXPANDED_ARCHIVE_BYTES,
    MAX_SYMLINKS,
};
use crate::tarread::{Entry, Kind, TarReader, read_error, shown};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

const BLOBS: &str = "blobs/sha256/";

/// One file taken in.
#[derive(Debug, Clone)]
pub(crate) struct Staged {
    pub path: PathBuf,
    pub size: u64,
    pub digest: Digest,
}

/// Where entries come from by name.
pub(crate) struct Stage {
    archive: String,
    temp: Temp,
    count: usize,
    files: BTreeMap<String, Staged>,
    links: BTreeMap<String, String>,
    /// Set for a directory: entries are taken in when asked for.
    directory: Option<PathBuf>,
}

impl Stage {
    fn new(tmp: &TempDirs, archive: &str, directory: Option<PathBuf>) -> Result<Self> {
        let temp = tmp.dir()?;
        let (files, links) = (BTreeMap::new(), BTreeMap::new());
        Ok(Self {
            archive: archive.to_owned(),
            temp,
            count: 0,
            files,
            links,
            directory,
        })
    }

    /// Takes in a whole archive, compressed or not.
    pub(crate) fn from_stream(
        tmp: &TempDirs,
        archive: &str,
        stream: impl Read,
        max_bytes: u64,
    ) -> Result<Self> {
        let mut stage = Self::new(tmp, archive, None)?;
        let fail = |e| read_error(archive, "the start", e);
        let bounded = Bounded::new(stream, max_bytes, "the archive");
        let plain = Plain::new(bounded)
            .map_err(fail)?
            .map_err(|form| ImageError::Unsupported {
                archive: archive.to_owned(),
                entry: "the file".to_owned(),
                what: form.0.to_owned(),
                remedy: "decompress it first; gzip and zstd are read as they are",
            })?;
        let bounded = Bounded::new(
            plain,
            MAX_EXPANDED_ARCHIVE_BYTES,
            "the decompressed archive",
        );
        let mut reader = TarReader::new(bounded, archive.to_owned());
        let mut buffer = vec![0; COPY_BUFFER_BYTES];
        while let Some(entry) = reader.next()? {
            stage.take(&entry, &mut reader, &mut buffer)?;
        }
        // A cut or altered compressed stream shows at its very end.
        reader.finish()?;
        if stage.count == 0 {
            return Err(ImageError::BadArchive {
                archive: archive.to_owned(),
                entry: "the start".to_owned(),
                why: "it is empty".to_owned(),
            });
        }
        Ok(stage)
    }

    /// Uses a directory that holds an OCI layout.
    pub(crate) fn from_directory(tmp: &TempDirs, directory: &Path) -> Result<Self> {
        let archive = format!("directory {}", directory.display());
        Self::new(tmp, &archive, Some(directory.to_owned()))
    }

    /// The archive's name for messages.
    pub(crate) fn archive(&self) -> &str {
        &self.archive
    }

    fn take<R: Read>(
        &mut self,
        entry: &Entry,
        reader: &mut TarReader<R>,
        buffer: &mut [u8],
    ) -> Result<()> {
        let names = entry_names(&self.archive, &entry.path)?;
        self.count += 1;
        if self.count > MAX_ARCHIVE_ENTRIES {
            let what = format!("number of entries in {}", self.archive);
            return Err(ImageError::TooLarge {
                what,
                limit: MAX_ARCHIVE_ENTRIES as u64,
                unit: "entries",
            });
        }
        let Ok(name) = String::from_utf8(joined(&names)) else {
            // Nothing in an image archive refers to such a name.
            return Ok(());
        };
        match entry.kind {
            Kind::Directory => Ok(()),
            Kind::File => {
                let staged = self.write(&name, |out, path| {
                    reader
                        .copy_data(out, buffer, |e| ImageError::io("cannot write", path, e))
                        .map(drop)
                })?;
                self.links.remove(&name);
                self.files.insert(name, staged);
                Ok(())
            }
            Kind::Symlink => {
                let base = names.split_last().map_or(&[][..], |(_, dirs)| dirs);
                let target = self.link_target(base, &entry.link, &entry.path)?;
                self.links.insert(name, target);
                Ok(())
            }
            Kind::HardLink => {
                let target = self.link_target(&[], &entry.link, &entry.path)?;
                self.links.insert(name, target);
                Ok(())
            }
            Kind::CharDevice | Kind::BlockDevice | Kind::Fifo => Err(ImageError::BadArchive {
                archive: self.archive.clone(),
                entry: name,
                why: "an image archive holds no devices".to_owned(),
            }),
        }
    }

    /// Older docker-save archives point to layers of other images by `../<id>/layer.tar`: fine as
    /// long as it stays inside the archive.
    fn link_target(&self, base: &[Vec<u8>], target: &[u8], path: &[u8]) -> Result<String> {
        let unsafe_path = |why| ImageError::UnsafePath {
            archive: self.archive.clone(),
            entry: shown(path),
            why,
        };
        if target.starts_with(b"/") {
            return Err(unsafe_path("it is a link to an absolute path"));
        }
        let mut at: Vec<Vec<u8>> = base.to_vec();
        for name in plain_names(target) {
            if name != b".." {
                at.push(name);
            } else if at.pop().is_none() {
                return Err(unsafe_path("it is a link out of the archive"));
            }
        }
        String::from_utf8(joined(&at)).map_err(|_| unsafe_path("its link target is not text"))
    }

    /// Writes one file of the stage, hashing it; a blob must have the digest it is named by.
    fn write(
        &self,
        name: &str,
        fill: impl FnOnce(&mut Hashing<File>, &Path) -> Result<()>,
    ) -> Result<Staged> {
        let path = self
            .temp
            .path()
            .join(format!("e{}-{}", self.count, self.files.len()));
        let mut out = Hashing::new(File::create(&path).at("cannot create", &path)?);
        fill(&mut out, &path)?;
        let (_, digest, size) = out.finish();
        if let Some(expected) = name.strip_prefix(BLOBS).and_then(Digest::from_hex)
            && expected != digest
        {
            return Err(ImageError::DigestMismatch {
                archive: self.archive.clone(),
                entry: name.to_owned(),
                expected,
                actual: digest,
            });
        }
        Ok(Staged { path, size, digest })
    }

    /// The file of that name, if there is one.
    pub(crate) fn find(&mut self, name: &str) -> Result<Option<Staged>> {
        let mut name = joined(&plain_names(name.as_bytes()));
        for _ in 0..MAX_SYMLINKS {
            let Ok(text) = std::str::from_utf8(&name) else {
                return Ok(None);
            };
            if let Some(staged) = self.files.get(text) {
                return Ok(Some(staged.clone()));
            }
            match self.links.get(text) {
                Some(target) => name = target.clone().into_bytes(),
                None => return self.take_from_disk(&String::from_utf8_lossy(&name)),
            }
        }
        Ok(None)
    }

    fn take_from_disk(&mut self, name: &str) -> Result<Option<Staged>> {
        let Some(directory) = &self.directory else {
            return Ok(None);
        };
        let place = directory.join(name);
        let Some(file) = open_file_in_root(directory, name.as_bytes()).at("cannot read", &place)?
        else {
            return Ok(None);
        };
        let staged = self.write(name, |out, path| copy(file, &place, out, path))?;
        self.files.insert(name.to_owned(), staged.clone());
        Ok(Some(staged))
    }

    /// The file of that name, or an error that says it is missing.
    pub(crate) fn need(&mut self, name: &str) -> Result<Staged> {
        let missing = ImageError::MissingEntry {
            archive: self.archive.clone(),
            entry: name.to_owned(),
        };
        self.find(name)?.ok_or(missing)
    }

    /// The blob with that digest.
    pub(crate) fn blob(&mut self, digest: &Digest, size: u64) -> Result<Staged> {
        let name = format!("{BLOBS}{}", digest.hex());
        let staged = self.need(&name)?;
        if staged.size != size {
            let why = format!(
                "it has {} bytes, the document that names it says {size}",
                staged.size
            );
            return Err(ImageError::BadArchive {
                archive: self.archive.clone(),
                entry: name,
                why,
            });
        }
        Ok(staged)
    }

    /// Content of a JSON document.
    pub(crate) fn document(&self, name: &str, staged: &Staged) -> Result<Vec<u8>> {
        if staged.size > MAX_DOCUMENT_BYTES {
            let what = format!("{name} in {}", self.archive);
            return Err(ImageError::TooLarge {
                what,
                limit: MAX_DOCUMENT_BYTES,
                unit: "bytes",
            });
        }
        std::fs::read(&staged.path).at("cannot read", &staged.path)
    }

    /// Reads a JSON document as `T`.
    pub(crate) fn parse<T: serde::de::DeserializeOwned>(
        &self,
        name: &str,
        bytes: &[u8],
    ) -> Result<T> {
        serde_json::from_slice(bytes).map_err(|e| ImageError::BadArchive {
            archive: self.archive.clone(),
            entry: name.to_owned(),
            why: e.to_string(),
        })
    }
}

fn copy(mut from: File, from_path: &Path, out: &mut impl Write, to_path: &Path) -> Result<()> {
    let mut buffer = vec![0; COPY_BUFFER_BYTES];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(n) => out.write_all(&buffer[..n]).at("cannot write", to_path)?,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e).at("cannot read", from_path),
        }
    }
}
