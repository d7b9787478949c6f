//! The first administrator's certificate and key as files, for use from another machine (`WARREN_CONTEXT_DIR`).
//!
//! They are copies: the keyring has them too. With auto-lock on no private key shall lie in the clear, so the copy of the key
//! goes, and comes back when auto-lock is switched off.

use crate::home::Home;
use std::fs::{DirBuilder, OpenOptions};
use std::io::{ErrorKind, Result, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use warren_manager::LocalIdentity;

const DIRECTORY: &str = "admin";
const KEY_FILE: &str = "node.key";

/// Makes the files what auto-lock says. What somebody else has put there is left alone.
pub(super) fn settle(home: &Home, identity: &LocalIdentity, auto_lock: bool) -> Result<()> {
    let Some((cert, key)) = &identity.admin else {
        return Ok(());
    };
    let directory = home.data_dir.join(DIRECTORY);
    if auto_lock {
        return withdraw(&directory, key);
    }
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&directory)?;
    put(&directory.join("ca.crt"), &identity.roots_text())?;
    put(&directory.join("node.crt"), cert)?;
    put(&directory.join(KEY_FILE), key)
}

fn withdraw(directory: &Path, key: &str) -> Result<()> {
    let path = directory.join(KEY_FILE);
    match std::fs::read_to_string(&path) {
        Ok(there) if there == key => {
            std::fs::remove_file(&path)?;
            std::fs::File::open(directory)?.sync_all()?;
            tracing::warn!(
                file = %path.display(),
                "auto-lock: the administrator's key is kept sealed only; for another machine make one with `warren cluster admin-cert`"
            );
            Ok(())
        }
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

fn put(path: &Path, text: &str) -> Result<()> {
    let made = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    match made {
        Ok(mut file) => {
            file.write_all(text.as_bytes())?;
            file.sync_all()
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_of_somebody_else_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(KEY_FILE);
        withdraw(directory.path(), "ours").unwrap();
        put(&path, "another").unwrap();
        withdraw(directory.path(), "ours").unwrap();
        put(&path, "ours").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "another");
        withdraw(directory.path(), "another").unwrap();
        assert!(!path.exists());
    }
}
