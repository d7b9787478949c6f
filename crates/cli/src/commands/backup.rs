//! `warren cluster backup`, and the passphrases of backups.

use crate::api::Api;
use crate::args::{BackupArgs, ClusterRestoreFlags, Hidden, PASSPHRASE_BYTES_MAX, PassphraseArgs};
use crate::error::{CliError, Exit, Result};
use crate::io::{Io, read_limited};
use futures::StreamExt;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use warren_types::Bytes;

/// Only its owner may read a backup.
const BACKUP_MODE: u32 = 0o600;
/// Bytes between two lines of progress.
const PROGRESS_BYTES: u64 = 4 * 1024 * 1024;

/// Environment variable with the passphrase.
const PASSPHRASE_VARIABLE: &str = "WARREN_PASSPHRASE";

/// The passphrase for `cluster restore`; the backup must be there before anybody is asked.
pub(crate) fn restore_passphrase(flags: &ClusterRestoreFlags, io: &mut Io) -> Result<Hidden> {
    let shown = flags.input.display();
    let file = std::fs::File::open(&flags.input)
        .map_err(|e| CliError::usage(format!("cannot open the backup {shown}: {e}")))?;
    let kind = file.metadata()?;
    if !kind.is_file() {
        return Err(CliError::usage(format!("the backup {shown} is not a file")));
    }
    passphrase(&flags.passphrase, false, io)
}

/// Reads the passphrase: from the file, the environment, or the terminal (twice when it is a new one).
pub(crate) fn passphrase(args: &PassphraseArgs, new: bool, io: &mut Io) -> Result<Hidden> {
    let text = match given(args)? {
        Some(text) => text,
        None => asked(new, io)?,
    };
    if text.is_empty() {
        return Err(CliError::usage("the passphrase is empty"));
    }
    if text.len() > PASSPHRASE_BYTES_MAX {
        return Err(CliError::usage(format!(
            "the passphrase is longer than {PASSPHRASE_BYTES_MAX} bytes"
        )));
    }
    Ok(Hidden::new(text))
}

fn given(args: &PassphraseArgs) -> Result<Option<String>> {
    let Some(path) = &args.passphrase_file else {
        return Ok(std::env::var(PASSPHRASE_VARIABLE)
            .ok()
            .filter(|text| !text.is_empty()));
    };
    let name = path.display().to_string();
    let mut file = std::fs::File::open(path)
        .map_err(|e| CliError::usage(format!("cannot open the passphrase file {name}: {e}")))?;
    // The limit leaves room for a line end and for lines that are not looked at.
    let bytes = read_limited(&mut file, 4 * PASSPHRASE_BYTES_MAX, &name, "a passphrase")?;
    let text = String::from_utf8(bytes)
        .map_err(|_| CliError::usage(format!("the passphrase in {name} is not UTF-8")))?;
    Ok(Some(text.lines().next().unwrap_or_default().to_owned()))
}

fn asked(new: bool, io: &mut Io) -> Result<String> {
    if !io.in_tty {
        return Err(CliError::usage(
            "the backup needs a passphrase, and nobody is here to be asked",
        )
        .remedy(format!("--passphrase-file FILE, or {PASSPHRASE_VARIABLE}")));
    }
    let first = io.read_secret("Passphrase of the backup: ")?;
    if new && io.read_secret("Once more: ")? != first {
        return Err(CliError::usage("the two passphrases differ").remedy("the command again"));
    }
    Ok(first)
}

/// Writes a backup beside the file and puts it in its place when it is whole and on disk.
pub(crate) async fn run(args: BackupArgs, api: &dyn Api, io: &mut Io) -> Result<()> {
    let target = &args.output;
    if !args.force && target.exists() {
        return Err(exists(target));
    }
    let passphrase = passphrase(&args.passphrase, true, io)?;
    let mut stream = api.backup(&passphrase).await?;
    let mut draft = Draft::create(target)?;
    let mut bytes = 0_u64;
    let mut shown = 0_u64;
    while let Some(piece) = stream.next().await {
        let piece = piece?;
        draft.write(&piece)?;
        bytes += piece.len() as u64;
        if io.err_tty && bytes - shown >= PROGRESS_BYTES {
            shown = bytes;
            io.progress(&format!("{} written", Bytes(bytes)))?;
        }
    }
    if bytes == 0 {
        return Err(CliError::general("the manager sent an empty backup")
            .remedy("look at the log of its daemon"));
    }
    draft.finish(args.force)?;
    io.clear()?;
    io.say(&format!(
        "backup: {}, {}; it is worth nothing without its passphrase, which is kept nowhere",
        target.display(),
        Bytes(bytes)
    ))
}

fn exists(target: &Path) -> CliError {
    CliError::new(Exit::Exists, format!("{} exists already", target.display()))
        .remedy("another name, or --force to replace it")
}

/// The backup while it is being written; it goes away unless it is finished.
struct Draft {
    file: std::fs::File,
    path: PathBuf,
    target: PathBuf,
    directory: PathBuf,
}

impl Draft {
    fn create(target: &Path) -> Result<Self> {
        let wrong = |e: std::io::Error| {
            CliError::general(format!("cannot write the backup {}: {e}", target.display()))
        };
        let name = target
            .file_name()
            .ok_or_else(|| CliError::usage(format!("{} is no file name", target.display())))?;
        let directory = match target.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        let mut draft = std::ffi::OsString::from(".");
        draft.push(name);
        draft.push(format!(".{}.part", std::process::id()));
        let path = directory.join(draft);
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(BACKUP_MODE)
            .open(&path)
            .map_err(wrong)?;
        Ok(Self {
            file,
            path,
            target: target.to_owned(),
            directory,
        })
    }

    fn wrong(&self, error: &std::io::Error) -> CliError {
        CliError::general(format!(
            "cannot write the backup {}: {error}",
            self.target.display()
        ))
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let written = self.file.write_all(bytes);
        written.map_err(|e| self.wrong(&e))
    }

    /// Gives it its name. Unlike renaming, linking never replaces a file that appeared meanwhile; but there
    /// are file systems, such as those of memory sticks, that cannot link.
    fn place(&self) -> std::io::Result<()> {
        match std::fs::hard_link(&self.path, &self.target) {
            Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists && !self.target.exists() => {
                std::fs::rename(&self.path, &self.target)
            }
            linked => linked,
        }
    }

    /// Makes it durable, then visible under its name.
    fn finish(self, replace: bool) -> Result<()> {
        self.file.sync_all().map_err(|e| self.wrong(&e))?;
        if replace {
            std::fs::rename(&self.path, &self.target).map_err(|e| self.wrong(&e))?;
        } else {
            self.place().map_err(|e| {
                if e.kind() == std::io::ErrorKind::AlreadyExists {
                    exists(&self.target)
                } else {
                    self.wrong(&e)
                }
            })?;
        }
        let directory = std::fs::File::open(&self.directory);
        directory
            .and_then(|d| d.sync_all())
            .map_err(|e| self.wrong(&e))
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // After a rename there is nothing left to remove.
        let _ = std::fs::remove_file(&self.path);
    }
}
