//! Commands about containers, images, secrets, volumes, events and manifests.

use super::service::key_value;
use super::{OutputArgs, WaitArgs};
use clap::{Args, Subcommand};
use std::path::PathBuf;

/// `warren container …`.
#[derive(Debug, Subcommand)]
pub enum ContainerCommand {
    /// Containers of the cluster.
    #[command(visible_aliases = ["ls", "ps"])]
    List(ContainerListArgs),
    /// All about containers.
    Inspect {
        /// Ids, ends of ids, or SERVICE.SLOT.
        #[arg(required = true, value_name = "CONTAINER")]
        names: Vec<String>,
        /// Form of the output.
        #[command(flatten)]
        output: OutputArgs,
    },
    /// What a container wrote.
    Logs {
        /// Id, end of an id, or SERVICE.SLOT.
        #[arg(value_name = "CONTAINER")]
        name: String,
        /// What to show.
        #[command(flatten)]
        logs: LogFlags,
    },
    /// Run a command in a running container.
    Exec(ExecArgs),
}

/// Flags of `container list`.
#[derive(Debug, Clone, Args)]
pub struct ContainerListArgs {
    /// Those of this service only.
    #[arg(long, value_name = "SERVICE")]
    pub service: Option<String>,
    /// Those on this node only.
    #[arg(long, value_name = "NODE")]
    pub node: Option<String>,
    /// Ended ones too.
    #[arg(short = 'a', long)]
    pub all: bool,
    /// Form of the output.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// Which log lines.
#[derive(Debug, Clone, Args)]
pub struct LogFlags {
    /// Go on with new lines until interrupted.
    #[arg(short = 'f', long)]
    pub follow: bool,
    /// Only the last lines of each container.
    #[arg(short = 'n', long, value_name = "LINES")]
    pub tail: Option<u32>,
    /// Only lines of this last span of time, such as 10m.
    #[arg(long, value_name = "TIME")]
    pub since: Option<warren_types::Duration>,
    /// Put the time before each line.
    #[arg(short = 't', long)]
    pub timestamps: bool,
    /// Only standard output.
    #[arg(long, conflicts_with = "stderr")]
    pub stdout: bool,
    /// Only standard error.
    #[arg(long)]
    pub stderr: bool,
}

/// Flags of `container exec`.
#[derive(Debug, Clone, Args)]
pub struct ExecArgs {
    /// Hand standard input on.
    #[arg(short = 'i', long)]
    pub interactive: bool,
    /// Give the command a terminal.
    #[arg(short = 't', long)]
    pub tty: bool,
    /// Set an environment variable, NAME=VALUE.
    #[arg(short = 'e', long, value_name = "NAME=VALUE", value_parser = key_value)]
    pub env: Vec<(String, String)>,
    /// Run as this user, `user[:group]` or `uid[:gid]`.
    #[arg(short = 'u', long, value_name = "USER")]
    pub user: Option<String>,
    /// Run in this directory.
    #[arg(short = 'w', long, value_name = "DIR")]
    pub workdir: Option<String>,
    /// Id, end of an id, SERVICE.SLOT, or SERVICE for one of its running containers.
    #[arg(value_name = "CONTAINER")]
    pub name: String,
    /// Command and its arguments.
    #[arg(
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "COMMAND"
    )]
    pub command: Vec<String>,
}

/// `warren image …`.
#[derive(Debug, Subcommand)]
pub enum ImageCommand {
    /// Take images out of an OCI or docker-save archive, plain or compressed.
    #[command(visible_alias = "load")]
    Import {
        /// Archive, or `-` for standard input.
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Name for an archive that carries none.
        #[arg(long, visible_alias = "name", value_name = "REF")]
        tag: Option<String>,
        /// Only to this node [default: every live node].
        #[arg(long, value_name = "NODE")]
        node: Option<String>,
        /// Form of the output.
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Images of all nodes.
    #[command(visible_alias = "ls")]
    List {
        /// Only those of this node.
        #[arg(long, value_name = "NODE")]
        node: Option<String>,
        /// Form of the output.
        #[command(flatten)]
        output: OutputArgs,
    },
    /// All about images.
    Inspect {
        /// Names or digests.
        #[arg(required = true, value_name = "IMAGE")]
        names: Vec<String>,
        /// Form of the output.
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Remove images.
    #[command(visible_aliases = ["rm", "delete"])]
    Remove {
        /// Names or digests.
        #[arg(required = true, value_name = "IMAGE")]
        names: Vec<String>,
        /// Only from this node [default: every node].
        #[arg(long, value_name = "NODE")]
        node: Option<String>,
    },
}

/// `warren secret …`.
#[derive(Debug, Subcommand)]
pub enum SecretCommand {
    /// Make a secret.
    Create(SecretCreateArgs),
    /// All secrets; values are never shown.
    #[command(visible_alias = "ls")]
    List(OutputArgs),
    /// All about secrets but their values.
    Inspect {
        /// Names or ids.
        #[arg(required = true, value_name = "SECRET")]
        names: Vec<String>,
        /// Form of the output.
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Delete secrets that no service uses.
    #[command(visible_aliases = ["rm", "remove"])]
    Delete {
        /// Names or ids.
        #[arg(required = true, value_name = "SECRET")]
        names: Vec<String>,
    },
}

/// Flags of `secret create`.
#[derive(Debug, Clone, Args)]
#[command(group(clap::ArgGroup::new("value").required(true).args(["from_file", "from_literal", "from_stdin"])))]
pub struct SecretCreateArgs {
    /// Name.
    #[arg(value_name = "NAME")]
    pub name: String,
    /// Read the value from a file, byte for byte; `-` is standard input.
    #[arg(long, value_name = "FILE")]
    pub from_file: Option<PathBuf>,
    /// The value itself (it stays in the shell's history: prefer the others).
    #[arg(long, value_name = "TEXT")]
    pub from_literal: Option<String>,
    /// Read the value from standard input, byte for byte.
    #[arg(long)]
    pub from_stdin: bool,
    /// Set a label, KEY=VALUE.
    #[arg(short = 'l', long, value_name = "KEY=VALUE", value_parser = key_value)]
    pub label: Vec<(String, String)>,
    /// Form of the output.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// `warren volume …`.
#[derive(Debug, Subcommand)]
pub enum VolumeCommand {
    /// Make a volume.
    Create(VolumeCreateArgs),
    /// All volumes.
    #[command(visible_alias = "ls")]
    List(OutputArgs),
    /// All about volumes.
    Inspect {
        /// Names or ids.
        #[arg(required = true, value_name = "VOLUME")]
        names: Vec<String>,
        /// Form of the output.
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Delete volumes that no service uses, with their data.
    #[command(visible_aliases = ["rm", "remove"])]
    Delete {
        /// Names or ids.
        #[arg(required = true, value_name = "VOLUME")]
        names: Vec<String>,
        /// Delete it though its node is down.
        #[arg(long)]
        force: bool,
    },
}

/// Flags of `volume create`.
#[derive(Debug, Clone, Args)]
pub struct VolumeCreateArgs {
    /// Name.
    #[arg(value_name = "NAME")]
    pub name: String,
    /// Driver.
    #[arg(long, value_name = "DRIVER", default_value = "local")]
    pub driver: String,
    /// Option of the driver, KEY=VALUE.
    #[arg(long, visible_alias = "option", value_name = "KEY=VALUE", value_parser = key_value)]
    pub opt: Vec<(String, String)>,
    /// Set a label, KEY=VALUE.
    #[arg(short = 'l', long, value_name = "KEY=VALUE", value_parser = key_value)]
    pub label: Vec<(String, String)>,
    /// Form of the output.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// Flags of `events`.
#[derive(Debug, Clone, Args)]
pub struct EventsArgs {
    /// Only events of these kinds, such as service.created (repeat, or separate by commas).
    #[arg(long = "type", value_name = "KIND", value_delimiter = ',')]
    pub types: Vec<String>,
    /// Begin after this state revision.
    #[arg(long, value_name = "REVISION")]
    pub since: Option<u64>,
    /// Print what is kept and end, instead of waiting for more.
    #[arg(long)]
    pub no_follow: bool,
    /// Follow (the default; accepted for scripts that say so).
    #[arg(short = 'f', long, conflicts_with = "no_follow")]
    pub follow: bool,
    /// Form of the output; JSON is one object per line.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// Flags of `apply`.
#[derive(Debug, Clone, Args)]
pub struct ApplyArgs {
    /// Manifest, directory (its .yaml, .yml and .json files) or `-` for standard input; may be repeated.
    #[arg(short = 'f', long = "file", required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Only show what would change, field by field.
    #[arg(long)]
    pub dry_run: bool,
    /// Set secrets that exist already to the values of the files (Warren cannot read a secret back to compare it).
    #[arg(long)]
    pub force_secrets: bool,
    /// Waiting.
    #[command(flatten)]
    pub wait: WaitArgs,
}

/// Flags of `diff`.
#[derive(Debug, Clone, Args)]
pub struct DiffArgs {
    /// Manifest, directory or `-` for standard input; may be repeated.
    #[arg(short = 'f', long = "file", required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// End with status 1 when something would change.
    #[arg(long)]
    pub exit_code: bool,
}
