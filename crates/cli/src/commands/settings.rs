//! `warren cluster settings`.

use super::cluster::on_off;
use crate::api::{Api, SettingsChange, SettingsView};
use crate::args::{Setting, SettingsArgs, SettingsCommand};
use crate::error::{CliError, Result};
use crate::io::Io;
use crate::output::{self, fields};
use warren_types::{Bytes, Duration};

/// What is left to do after a change of the raft profile.
const RESTART: &str = "raft-profile: a manager takes it up when it is started. Restart them one after another, and wait for each until \
     `warren cluster health` is well again; `warren cluster info` names those that are left";

pub(crate) async fn run(args: SettingsArgs, api: &dyn Api, io: &mut Io) -> Result<()> {
    let (settings, form) = match args.command {
        None => (api.cluster().await?.settings, args.output),
        Some(SettingsCommand::Set { values, output }) => {
            let change = change(&values)?;
            let settings = api.update_settings(change).await?;
            if change.raft_profile.is_some() {
                io.say(RESTART)?;
            }
            (settings, output)
        }
    };
    output::inspect(io, form.output, &[settings], block)
}

fn change(values: &[Setting]) -> Result<SettingsChange> {
    let mut change = SettingsChange::default();
    for value in values {
        let (key, slot, wanted) = match *value {
            Setting::RaftProfile(profile) => {
                if change.raft_profile.replace(profile).is_some() {
                    return Err(CliError::usage("raft-profile is set twice"));
                }
                continue;
            }
            Setting::SnapshotEntries(n) => ("snapshot-entries", &mut change.snapshot_entries, n),
            Setting::SnapshotBytes(b) => ("snapshot-bytes", &mut change.snapshot_bytes, b.0),
            Setting::LogBytesMax(b) => ("log-bytes-max", &mut change.log_bytes_max, b.0),
            Setting::Heartbeat(d) => ("heartbeat", &mut change.heartbeat_ms, d.as_millis()),
            Setting::NodeDownAfter(d) => (
                "node-down-after",
                &mut change.node_down_after_ms,
                d.as_millis(),
            ),
        };
        if slot.replace(wanted).is_some() {
            return Err(CliError::usage(format!("{key} is set twice")));
        }
    }
    Ok(change)
}

fn block(s: &SettingsView) -> String {
    fields(&[
        ("snapshot-entries", s.snapshot_entries.to_string()),
        ("snapshot-bytes", Bytes(s.snapshot_bytes).to_string()),
        ("log-bytes-max", Bytes(s.log_bytes_max).to_string()),
        ("heartbeat", Duration(s.heartbeat_ms).to_string()),
        (
            "node-down-after",
            Duration(s.node_down_after_ms).to_string(),
        ),
        ("raft-profile", s.raft_profile.name().to_owned()),
        ("auto-lock", on_off(s.auto_lock)),
        ("data-key epoch", s.data_key_epoch.to_string()),
    ])
}
