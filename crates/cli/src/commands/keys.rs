//! `warren cluster auto-lock`, `unlock`, `ca`, `data-key`.

use super::waiting::Waiting;
use crate::api::Api;
use crate::args::{
    AutoLockCommand, CaCommand, DataKeyCommand, Format, Hidden, OutputArgs, UnlockArgs, WaitArgs,
};
use crate::error::{CliError, Result};
use crate::io::{Io, read_limited};
use crate::output::{self, fields};
use serde_json::json;

/// Longest file with an unlock key, in bytes.
const KEY_FILE_BYTES_MAX: usize = 4096;

pub(crate) async fn auto_lock(command: AutoLockCommand, api: &dyn Api, io: &mut Io) -> Result<()> {
    match command {
        AutoLockCommand::Off => {
            api.set_auto_lock(false, false).await?;
            io.say("auto-lock is off: managers start by themselves")
        }
        AutoLockCommand::On(form) => {
            let key = api.set_auto_lock(true, false).await?;
            if key.reveal().is_empty() {
                return Err(CliError::general(
                    "auto-lock is on already, and its key is shown only once",
                )
                .remedy("warren cluster auto-lock rotate"));
            }
            show_key(&key, form, io)
        }
        AutoLockCommand::Rotate(form) => {
            let key = api.set_auto_lock(true, true).await?;
            show_key(&key, form, io)
        }
    }
}

fn show_key(key: &Hidden, form: OutputArgs, io: &mut Io) -> Result<()> {
    io.say(
        "auto-lock is on: a manager that starts waits for `warren cluster unlock`. Keep this key where the\n\
         managers are not; it is not shown again, and without it a stopped manager does not start.\n\
         The administrator's key that the first manager keeps in its data directory (admin/node.key) is sealed with the rest:\n\
         the file goes. For another machine make one there with `warren cluster admin-cert`; copies made before stay in the clear.",
    )?;
    match form.output {
        Format::Table | Format::Wide => {
            io.print(&fields(&[("Unlock key", key.reveal().to_owned())]))
        }
        form => output::value(io, form, &json!({ "unlockKey": key.reveal() })),
    }
}

/// Gives the manager its key and waits until it has started.
pub(crate) async fn unlock(args: UnlockArgs, api: &dyn Api, io: &mut Io) -> Result<()> {
    let status = api.status().await?;
    if !status.locked {
        return io.say(&format!("{}: not locked", status.node));
    }
    let key = unlock_key(&args, io)?;
    api.unlock(&key).await?;
    if args.wait.detach {
        return io.say("unlocked");
    }
    let mut waiting = Waiting::new(args.wait.timeout);
    loop {
        let line = match api.status().await {
            Ok(status) if status.ready => {
                io.clear()?;
                return io.say(&format!("{}: unlocked and ready", status.node));
            }
            Ok(status) if status.locked => "unlocking".to_owned(),
            Ok(status) if status.reason.is_empty() => "starting".to_owned(),
            Ok(status) => format!("starting: {}", status.reason),
            Err(error) => format!("starting: {}", error.message),
        };
        waiting.look_again(line, io).await?;
    }
}

fn unlock_key(args: &UnlockArgs, io: &mut Io) -> Result<Hidden> {
    let text = match &args.key_file {
        Some(path) => {
            let name = path.display().to_string();
            let mut file = std::fs::File::open(path)
                .map_err(|e| CliError::usage(format!("cannot open the key file {name}: {e}")))?;
            let bytes = read_limited(&mut file, KEY_FILE_BYTES_MAX, &name, "an unlock key")?;
            String::from_utf8_lossy(&bytes).into_owned()
        }
        None if io.in_tty => io.read_secret("Unlock key: ")?,
        None => io.read_line()?,
    };
    // What `auto-lock on` printed may have been kept whole.
    let line = text.lines().next().unwrap_or_default();
    let key = line.strip_prefix("Unlock key:").unwrap_or(line).trim();
    if key.is_empty() {
        return Err(CliError::usage("the unlock key is empty").remedy("--key-file FILE"));
    }
    Ok(Hidden::new(key.to_owned()))
}

pub(crate) async fn authority(command: CaCommand, api: &dyn Api, io: &mut Io) -> Result<()> {
    let CaCommand::Rotate(wait) = command;
    let made = api.rotate_authority().await?;
    io.say(&format!(
        "new certificate authority {}: nodes change to it, both are trusted meanwhile",
        made.fingerprint
    ))?;
    if wait.detach {
        return Ok(());
    }
    authority_done(&made.fingerprint, &wait, api, io)
        .await
        .map_err(|e| {
            if e.remedy.is_some() {
                return e;
            }
            e.remedy("it goes on by itself; `warren cluster info` shows how far it is, and `warren node list` which nodes are down")
        })
}

async fn authority_done(
    fingerprint: &str,
    wait: &WaitArgs,
    api: &dyn Api,
    io: &mut Io,
) -> Result<()> {
    let mut waiting = Waiting::new(wait.timeout);
    loop {
        let line = match api.cluster().await {
            Ok(cluster) if !cluster.ca_rotation => {
                io.clear()?;
                return io.say(&format!(
                    "every node has a certificate of {fingerprint}; the old authority is trusted no more"
                ));
            }
            Ok(cluster) => format!(
                "{} nodes still have a certificate of the old authority",
                cluster.ca_rotation_waiting
            ),
            // Connections are made anew while certificates change.
            Err(error) => error.message,
        };
        waiting.look_again(line, io).await?;
    }
}

pub(crate) async fn data_key(command: DataKeyCommand, api: &dyn Api, io: &mut Io) -> Result<()> {
    let DataKeyCommand::Rotate(form) = command;
    io.progress("sealing every secret with a new key")?;
    let made = api.rotate_data_key().await?;
    io.clear()?;
    output::inspect(io, form.output, &[made], |made| {
        fields(&[
            ("Epoch", made.epoch.to_string()),
            ("Secrets resealed", made.secrets_resealed.to_string()),
        ])
    })
}
