//! Passphrases of backups.

use crate::args::{ClusterRestoreFlags, Hidden, PASSPHRASE_BYTES_MAX, PassphraseArgs};
use crate::error::{CliError, Result};
use crate::io::{Io, read_limited};

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
