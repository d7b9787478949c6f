//! Shared by the tests of this crate.
#![allow(dead_code, reason = "each test program uses a part")]
#![allow(
    unsafe_code,
    reason = "the standard library has no calls for extended attributes"
)]

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use warren_image::{ImageRef, ImageStore, ImportOptions};
use warren_types::ContainerId;

/// Whether the test can run; says loudly that it does not.
pub fn root() -> bool {
    if nix::unistd::geteuid().is_root() {
        return true;
    }
    eprintln!("SKIPPED (needs root): unpacking sets owners and devices, mounting needs privileges");
    false
}

pub fn name(text: &str) -> ImageRef {
    text.parse().unwrap()
}

pub fn options() -> ImportOptions {
    ImportOptions::new("test.tar")
}

/// A container id no other test of this process uses.
pub fn container() -> ContainerId {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    ContainerId::from_parts(
        u64::from(std::process::id()),
        u128::from(NEXT.fetch_add(1, Ordering::Relaxed)),
    )
}

/// A store in a directory of its own; root file systems still there are released at the end.
pub struct TestStore {
    pub store: Option<ImageStore>,
    pub dir: tempfile::TempDir,
}

impl TestStore {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self {
            store: Some(ImageStore::open(dir.path().join("store")).unwrap()),
            dir,
        }
    }

    pub fn reopen(&mut self) {
        self.store = None;
        self.store = Some(ImageStore::open(self.dir.path().join("store")).unwrap());
    }

    pub fn path(&self, inside: &str) -> PathBuf {
        self.dir.path().join("store").join(inside)
    }
}

impl std::ops::Deref for TestStore {
    type Target = ImageStore;
    fn deref(&self) -> &ImageStore {
        self.store.as_ref().unwrap()
    }
}

impl Drop for TestStore {
    fn drop(&mut self) {
        if let Some(store) = &self.store {
            for prepared in store.prepared().unwrap_or_default() {
                if let Err(error) = store.release(prepared.container) {
                    eprintln!("cannot release {}: {error}", prepared.container);
                }
            }
        }
    }
}

/// Everything that is observable about a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub kind: String,
    pub mode: u32,
    pub owner: (u32, u32),
    pub mtime: (i64, i64),
    pub content: Vec<u8>,
    /// First path, in order, of the same inode.
    pub same_as: Option<Vec<u8>>,
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// A tree by path, relative to `root`.
pub fn tree(root: &Path) -> BTreeMap<Vec<u8>, Seen> {
    let mut out = BTreeMap::new();
    let mut stack = vec![root.to_owned()];
    let mut inodes: BTreeMap<u64, Vec<Vec<u8>>> = BTreeMap::new();
    while let Some(path) = stack.pop() {
        let meta = fs::symlink_metadata(&path).unwrap();
        let kind = meta.file_type();
        let relative = path
            .strip_prefix(root)
            .unwrap()
            .as_os_str()
            .as_bytes()
            .to_vec();
        let (label, content) = if kind.is_dir() {
            stack.extend(fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
            ("dir".to_owned(), Vec::new())
        } else if kind.is_symlink() {
            (
                "link".to_owned(),
                fs::read_link(&path)
                    .unwrap()
                    .as_os_str()
                    .as_bytes()
                    .to_vec(),
            )
        } else if kind.is_file() {
            ("file".to_owned(), fs::read(&path).unwrap())
        } else {
            let letter = if kind.is_fifo() {
                "fifo"
            } else if kind.is_char_device() {
                "char"
            } else {
                "block"
            };
            (format!("{letter} {}", meta.rdev()), Vec::new())
        };
        if !kind.is_dir() && meta.nlink() > 1 {
            inodes.entry(meta.ino()).or_default().push(relative.clone());
        }
        let seen = Seen {
            kind: label,
            mode: meta.mode() & 0o7777,
            owner: (meta.uid(), meta.gid()),
            mtime: (meta.mtime(), meta.mtime_nsec()),
            content,
            same_as: None,
            xattrs: if kind.is_symlink() {
                Vec::new()
            } else {
                xattrs(&path)
            },
        };
        out.insert(relative, seen);
    }
    for mut paths in inodes.into_values().filter(|p| p.len() > 1) {
        paths.sort();
        for path in &paths[1..] {
            out.get_mut(path).unwrap().same_as = Some(paths[0].clone());
        }
    }
    out
}

/// Attributes of a path that matter to images.
fn xattrs(path: &Path) -> Vec<(Vec<u8>, Vec<u8>)> {
    let path = CString::new(path.as_os_str().as_bytes()).unwrap();
    let mut names = vec![0_u8; 65536];
    // SAFETY: the path ends in NUL, pointer and length describe the buffer.
    let n = unsafe { libc::llistxattr(path.as_ptr(), names.as_mut_ptr().cast(), names.len()) };
    names.truncate(usize::try_from(n).unwrap());
    let mut out = Vec::new();
    for key in names.split(|b| *b == 0) {
        if key.starts_with(b"user.")
            || key.starts_with(b"trusted.")
            || key == b"security.capability"
        {
            out.push((key.to_vec(), get_xattr(&path, key).unwrap()));
        }
    }
    out.sort();
    out
}

fn get_xattr(path: &CString, key: &[u8]) -> Option<Vec<u8>> {
    let key = CString::new(key).unwrap();
    let mut value = vec![0_u8; 65536];
    // SAFETY: both strings end in NUL, pointer and length describe the buffer.
    let n = unsafe {
        libc::lgetxattr(
            path.as_ptr(),
            key.as_ptr(),
            value.as_mut_ptr().cast(),
            value.len(),
        )
    };
    value.truncate(usize::try_from(n).ok()?);
    Some(value)
}

/// Value of an attribute.
pub fn xattr(path: &Path, key: &str) -> Option<Vec<u8>> {
    get_xattr(
        &CString::new(path.as_os_str().as_bytes()).unwrap(),
        key.as_bytes(),
    )
}

/// Sets an attribute.
pub fn set_xattr(path: &Path, key: &str, value: &[u8]) {
    let path = CString::new(path.as_os_str().as_bytes()).unwrap();
    let key = CString::new(key).unwrap();
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
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

/// One hand-made tar entry: name, type, mode, link target, content.
#[derive(Debug, Clone)]
pub struct Raw<'a> {
    pub name: &'a str,
    pub kind: u8,
    pub link: &'a str,
    pub data: &'a [u8],
}

pub fn raw<'a>(name: &'a str, kind: u8, link: &'a str, data: &'a [u8]) -> Raw<'a> {
    Raw {
        name,
        kind,
        link,
        data,
    }
}

/// A tar archive written byte by byte, so that it may hold what no honest writer writes.
pub fn raw_tar(entries: &[Raw<'_>]) -> Vec<u8> {
    let mut out = Vec::new();
    for entry in entries {
        let mut block = [0_u8; 512];
        block[..entry.name.len()].copy_from_slice(entry.name.as_bytes());
        block[100..107].copy_from_slice(b"0000755");
        block[108..115].copy_from_slice(b"0000000");
        block[116..123].copy_from_slice(b"0000000");
        block[124..135].copy_from_slice(format!("{:011o}", entry.data.len()).as_bytes());
        block[136..147].copy_from_slice(b"00000000000");
        block[148..156].copy_from_slice(b"        ");
        block[156] = entry.kind;
        block[157..157 + entry.link.len()].copy_from_slice(entry.link.as_bytes());
        block[257..265].copy_from_slice(b"ustar\x0000");
        let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        out.extend_from_slice(&block);
        out.extend_from_slice(entry.data);
        out.resize(out.len().next_multiple_of(512), 0);
    }
    out.resize(out.len() + 1024, 0);
    out
}

/// A docker-save archive around layers given as tar bytes.
pub fn docker_archive(layers: &[Vec<u8>], tag: &str) -> Vec<u8> {
    let diff_ids: Vec<String> = layers
        .iter()
        .map(|l| format!("\"{}\"", warren_image::Digest::of(l)))
        .collect();
    let platform = warren_image::Platform::host();
    let config = format!(
        r#"{{"architecture":"{}","os":"linux","config":{{}},"rootfs":{{"type":"layers","diff_ids":[{}]}}}}"#,
        platform.architecture,
        diff_ids.join(",")
    );
    let names: Vec<String> = (0..layers.len())
        .map(|at| format!("{at}/layer.tar"))
        .collect();
    let quoted: Vec<String> = names.iter().map(|n| format!("\"{n}\"")).collect();
    let manifest = format!(
        r#"[{{"Config":"config.json","RepoTags":["{tag}"],"Layers":[{}]}}]"#,
        quoted.join(",")
    );
    let mut entries = vec![
        raw("config.json", b'0', "", config.as_bytes()),
        raw("manifest.json", b'0', "", manifest.as_bytes()),
    ];
    for (name, layer) in names.iter().zip(layers) {
        entries.push(raw(name, b'0', "", layer));
    }
    raw_tar(&entries)
}

/// A reader that yields the bytes in small odd pieces, as a network stream does.
pub struct Trickle<'a>(pub &'a [u8]);

impl Read for Trickle<'_> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let n = buf.len().min(self.0.len()).min(777);
        buf[..n].copy_from_slice(&self.0[..n]);
        self.0 = &self.0[n..];
        Ok(n)
    }
}
