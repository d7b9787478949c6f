//! Flags of the commands about managers, tokens, keys and backups.

use super::daemon::PassphraseArgs;
use super::{OutputArgs, WaitArgs};
use clap::{Args, Subcommand, ValueEnum};
use std::path::PathBuf;
use std::str::FromStr;
use warren_types::{Bytes, Duration, RaftProfile, Role};

/// Default life of a join token.
pub const TOKEN_TTL_DEFAULT: &str = "1h";

/// What a join token is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TokenRoleArg {
    /// A node that only runs containers.
    Worker,
    /// A node that is one of the managers too.
    Manager,
}

impl TokenRoleArg {
    /// Name on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Worker => "worker",
            Self::Manager => "manager",
        }
    }
}

/// Flags of `cluster join-token`.
#[derive(Debug, Clone, Args)]
pub struct JoinTokenArgs {
    /// What the new node will be.
    #[arg(value_enum, value_name = "ROLE")]
    pub role: TokenRoleArg,
    /// How long the token can be used.
    #[arg(long, value_name = "TIME", default_value = TOKEN_TTL_DEFAULT)]
    pub ttl: Duration,
    /// How many nodes may join with it [default: no limit].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_uses: Option<u32>,
    /// Every earlier token of this role stops working.
    #[arg(long)]
    pub rotate: bool,
    /// Print the token and nothing else.
    #[arg(short, long, conflicts_with = "output")]
    pub quiet: bool,
    /// Form of the output.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// `warren cluster token …`.
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// All join tokens; their secrets are kept nowhere and cannot be shown again.
    #[command(visible_alias = "ls")]
    List(OutputArgs),
    /// Make join tokens worthless.
    #[command(visible_alias = "rm")]
    Revoke {
        /// Ids, as `cluster token list` shows them.
        #[arg(required = true, value_name = "ID")]
        ids: Vec<String>,
    },
}

/// Flags of `cluster backup`.
#[derive(Debug, Clone, Args)]
pub struct BackupArgs {
    /// File to write.
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    /// Passphrase.
    #[command(flatten)]
    pub passphrase: PassphraseArgs,
    /// Replace the file if it exists.
    #[arg(long)]
    pub force: bool,
}

/// What a person may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum UserRoleArg {
    /// Everything.
    #[default]
    Admin,
    /// Read, and change workloads.
    Operator,
    /// Read.
    Viewer,
}

impl UserRoleArg {
    /// The role.
    #[must_use]
    pub const fn role(self) -> Role {
        match self {
            Self::Admin => Role::Admin,
            Self::Operator => Role::Operator,
            Self::Viewer => Role::Viewer,
        }
    }
}

/// Flags of `cluster admin-cert`.
#[derive(Debug, Clone, Args)]
pub struct AdminCertArgs {
    /// What its holder may do.
    #[arg(long, value_enum, value_name = "ROLE", default_value_t)]
    pub role: UserRoleArg,
    /// Name of its holder, for the audit record [default: that of the role].
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Directory to write ca.crt, node.crt and node.key into.
    #[arg(short, long, value_name = "DIR")]
    pub output: PathBuf,
    /// How long it is valid, 5m to 90d [default: 90d]. It cannot be taken back before, short of `cluster ca rotate`.
    #[arg(long, value_name = "TIME")]
    pub ttl: Option<Duration>,
    /// Replace the files if they exist.
    #[arg(long)]
    pub force: bool,
}

/// Flags of `cluster recover`.
#[derive(Debug, Clone, Args)]
pub struct RecoverArgs {
    /// Also when a quorum seems to be there.
    #[arg(long)]
    pub force: bool,
    /// Do not ask.
    #[arg(short = 'y', long)]
    pub yes: bool,
    /// How long to wait until writes are possible again.
    #[arg(long, value_name = "TIME", default_value = "60s")]
    pub timeout: Duration,
}

/// Flags of `cluster unlock`.
#[derive(Debug, Clone, Args)]
pub struct UnlockArgs {
    /// File whose first line is the unlock key. Without it the key is asked on the terminal, or is the
    /// first line of standard input.
    #[arg(long, value_name = "FILE")]
    pub key_file: Option<PathBuf>,
    /// Waiting.
    #[command(flatten)]
    pub wait: WaitArgs,
}

/// `warren cluster auto-lock …`.
#[derive(Debug, Clone, Copy, Subcommand)]
pub enum AutoLockCommand {
    /// From now on a manager that starts needs the unlock key, which is printed once.
    On(OutputArgs),
    /// Managers start by themselves again.
    Off,
    /// Replace the unlock key; the new one is printed once.
    Rotate(OutputArgs),
}

/// `warren cluster ca …`.
#[derive(Debug, Clone, Subcommand)]
pub enum CaCommand {
    /// Replace the certificate authority, and wait until every node has a certificate of the new one.
    Rotate(WaitArgs),
}

/// `warren cluster data-key …`.
#[derive(Debug, Clone, Copy, Subcommand)]
pub enum DataKeyCommand {
    /// Make a new data key and seal every secret with it.
    Rotate(OutputArgs),
}

/// Flags of `cluster settings`.
#[derive(Debug, Clone, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct SettingsArgs {
    /// What to do; without it the settings are shown.
    #[command(subcommand)]
    pub command: Option<SettingsCommand>,
    /// Form of the output.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// `warren cluster settings …`.
#[derive(Debug, Clone, Subcommand)]
pub enum SettingsCommand {
    /// Change settings: snapshot-entries=N, snapshot-bytes=SIZE, log-bytes-max=SIZE, heartbeat=TIME,
    /// node-down-after=TIME, raft-profile=lan|wan.
    Set {
        /// What to set.
        #[arg(required = true, value_name = "KEY=VALUE")]
        values: Vec<Setting>,
        /// Form of the output.
        #[command(flatten)]
        output: OutputArgs,
    },
}

/// One setting of the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Setting {
    /// Log entries between two snapshots.
    SnapshotEntries(u64),
    /// Log bytes between two snapshots.
    SnapshotBytes(Bytes),
    /// Most bytes of log on disk.
    LogBytesMax(Bytes),
    /// Time between two heartbeats of a node.
    Heartbeat(Duration),
    /// Silence after which a node is down.
    NodeDownAfter(Duration),
    /// Times of the consensus protocol.
    RaftProfile(RaftProfile),
}

impl FromStr for Setting {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (key, value) = text
            .split_once('=')
            .ok_or_else(|| format!("'{text}' is not KEY=VALUE"))?;
        let size = || value.parse::<Bytes>().map_err(|e| e.to_string());
        let time = || value.parse::<Duration>().map_err(|e| e.to_string());
        Ok(match key {
            "snapshot-entries" => Self::SnapshotEntries(
                value
                    .parse()
                    .map_err(|_| format!("'{value}' is not a number of log entries"))?,
            ),
            "snapshot-bytes" => Self::SnapshotBytes(size()?),
            "log-bytes-max" => Self::LogBytesMax(size()?),
            "heartbeat" => Self::Heartbeat(time()?),
            "node-down-after" => Self::NodeDownAfter(time()?),
            "raft-profile" => Self::RaftProfile(
                RaftProfile::from_name(value)
                    .ok_or_else(|| format!("'{value}' is neither lan nor wan"))?,
            ),
            _ => {
                return Err(format!(
                    "there is no setting '{key}'; there are snapshot-entries, snapshot-bytes, \
                     log-bytes-max, heartbeat, node-down-after, raft-profile"
                ));
            }
        })
    }
}

/// Flags of `node promote`.
#[derive(Debug, Clone, Args)]
pub struct PromoteArgs {
    /// Name or id.
    #[arg(value_name = "NODE")]
    pub name: String,
    /// It shall run no containers from then on.
    #[arg(long)]
    pub manager_only: bool,
    /// Waiting.
    #[command(flatten)]
    pub wait: WaitArgs,
}

/// Flags of `node leave`.
#[derive(Debug, Clone, Args)]
pub struct LeaveArgs {
    /// Do not move the containers of this node away first.
    #[arg(long)]
    pub force: bool,
    /// Do not ask.
    #[arg(short = 'y', long)]
    pub yes: bool,
    /// How long to wait for its containers to move.
    #[arg(long, value_name = "TIME", default_value = super::WAIT_TIMEOUT_DEFAULT)]
    pub timeout: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_have_units() {
        assert_eq!(
            "snapshot-bytes=64m".parse(),
            Ok(Setting::SnapshotBytes(Bytes(64 << 20)))
        );
        assert_eq!(
            "heartbeat=1500ms".parse(),
            Ok(Setting::Heartbeat(Duration(1500)))
        );
        assert_eq!(
            "snapshot-entries=500".parse(),
            Ok(Setting::SnapshotEntries(500))
        );
        for bad in [
            "heartbeat",
            "heartbeat=2",
            "snapshot-entries=1k",
            "log-bytes-max=-1",
            "election=1s",
            "raft-profile=WAN",
        ] {
            assert!(bad.parse::<Setting>().is_err(), "{bad}");
        }
    }
}
