//! `warren cluster admin-cert`.

use crate::api::{Api, NewCertificate, UserFiles};
use crate::args::AdminCertArgs;
use crate::error::{CliError, Exit, Result};
use crate::io::Io;
use std::fs::{DirBuilder, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Only its owner may look into the directory.
const DIRECTORY_MODE: u32 = 0o700;
/// Only its owner may read the files.
const FILE_MODE: u32 = 0o600;
/// The files that `WARREN_CONTEXT_DIR` names the directory of; the key last, so that it is never there alone.
const FILES: [&str; 3] = ["ca.crt", "node.crt", "node.key"];

/// Has a certificate signed and writes it with its key into a directory.
pub(crate) async fn run(args: AdminCertArgs, api: &dyn Api, io: &mut Io) -> Result<()> {
    let directory = &args.output;
    let taken = FILES.iter().map(|name| directory.join(name));
    if let Some(taken) = taken.into_iter().find(|path| path.exists())
        && !args.force
    {
        return Err(
            CliError::new(Exit::Exists, format!("{} exists already", taken.display()))
                .remedy("another directory, or --force to replace what is there"),
        );
    }
    let role = args.role.role();
    let request = NewCertificate {
        role,
        name: args.name.unwrap_or_else(|| role.name().to_owned()),
        ttl_seconds: args.ttl.map_or(0, |ttl| ttl.as_millis() / 1_000),
    };
    let made = api.issue_certificate(&request).await?;
    write(directory, &made)?;
    let place = directory.display();
    let until = made.expires_at.0.map(|at| at.to_string());
    io.say(&format!(
        "{} as {}: {place} holds certificate and key, good until {}. Use it with WARREN_CONTEXT_DIR={place} and --manager \
         HOST:PORT; whoever has these files is let in, so keep them where nobody else reads them",
        request.name,
        role.name(),
        until.as_deref().unwrap_or("an unknown time"),
    ))
}

/// All three files, or none that is new under its name.
fn write(directory: &Path, made: &UserFiles) -> Result<()> {
    let wrong = |path: &Path, e: &std::io::Error| {
        CliError::general(format!("cannot write {}: {e}", path.display()))
    };
    DirBuilder::new()
        .recursive(true)
        .mode(DIRECTORY_MODE)
        .create(directory)
        .map_err(|e| wrong(directory, &e))?;
    let texts = [&made.ca_pem, &made.cert_pem, made.key_pem.reveal()];
    let mut drafts: Vec<(PathBuf, PathBuf)> = Vec::new();
    for (name, text) in FILES.into_iter().zip(texts) {
        let draft = directory.join(format!(".{name}.{}.part", std::process::id()));
        let written = draft_file(&draft, text);
        drafts.push((draft, directory.join(name)));
        if let Err(error) = written {
            discard(&drafts);
            return Err(wrong(directory, &error));
        }
    }
    for (draft, path) in &drafts {
        if let Err(error) = std::fs::rename(draft, path) {
            discard(&drafts);
            return Err(wrong(path, &error));
        }
    }
    let synced = std::fs::File::open(directory).and_then(|d| d.sync_all());
    synced.map_err(|e| wrong(directory, &e))
}

fn draft_file(path: &Path, text: &str) -> std::io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(FILE_MODE)
        .open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

fn discard(drafts: &[(PathBuf, PathBuf)]) {
    for (draft, _) in drafts {
        // What cannot be removed bears a name that says what it is.
        let _ = std::fs::remove_file(draft);
    }
}
