//! The command tree: names, flags, defaults and their help.

mod cluster;
mod daemon;
mod objects;
mod quorum;
mod service;

pub use cluster::{
    AvailabilityArg, ClusterCommand, DownArgs, ManagerCommand, NodeCommand, NodeUpdateArgs,
    WorkerCommand,
};
pub use daemon::{
    API_ADDR_DEFAULT, ClusterInitArgs, ClusterRestoreFlags, DATA_DIR_DEFAULT, DataDirArgs, Hidden,
    JOIN_API_ADDR_DEFAULT, JoinArgs, JoinFlags, JoinRole, METRICS_ADDR_DEFAULT, ManagerJoinFlags,
    MetricsAddr, NodeResetArgs, NodeRunArgs, NodeStopArgs, PASSPHRASE_BYTES_MAX, PassphraseArgs,
    RestoreArgs, UpArgs, host_port,
};
pub use objects::{
    ApplyArgs, ContainerCommand, ContainerListArgs, DiffArgs, EventsArgs, ExecArgs, ImageCommand,
    LogFlags, SecretCommand, SecretCreateArgs, VolumeCommand, VolumeCreateArgs,
};
pub use quorum::{
    AdminCertArgs, AutoLockCommand, BackupArgs, CaCommand, DataKeyCommand, JoinTokenArgs,
    LeaveArgs, PromoteArgs, RecoverArgs, Setting, SettingsArgs, SettingsCommand, TokenCommand,
    TokenRoleArg, UnlockArgs,
};
pub use service::{
    ContainerFlags, HealthFlags, ModeArg, PublishModeArg, RestartFlags, RolloutFlags,
    ServiceCommand, ServiceCreateArgs, ServiceLogsArgs, ServiceUpdateArgs, published,
};

use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;
use std::sync::LazyLock;
use warren_types::Duration;

/// Default of `--timeout`: how long a command waits for the cluster to do what it asked.
pub const WAIT_TIMEOUT_DEFAULT: &str = "5m";

/// Version, commit and build time, one per line.
pub static VERSION_LINES: LazyLock<String> = LazyLock::new(|| {
    let build = crate::Build::CURRENT;
    format!(
        "{}\ncommit: {}\nbuilt: {}",
        build.version, build.commit, build.time
    )
});

/// A container orchestrator for edge sites and small teams.
#[derive(Debug, Parser)]
#[command(
    name = "warren",
    version = VERSION_LINES.as_str(),
    disable_version_flag = true,
    propagate_version = false,
    subcommand_required = true,
    arg_required_else_help = true,
    max_term_width = 100,
    after_help = "First steps:\n  warren up                 start a node here and the hello service on it\n  \
                  warren service list       what runs\n  warren apply -f app.yaml  make the cluster as the file says\n\n\
                  Exit status: 0 success, 1 general, 2 usage, 3 no connection, 4 not found, 5 exists already,\n\
                  6 permission denied, 7 rollout failed."
)]
pub struct Cli {
    /// Flags of every command.
    #[command(flatten)]
    pub global: GlobalArgs,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Flags of every command.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub struct GlobalArgs {
    /// Address of any manager, or several separated by commas; without it the local socket is used
    /// [env: WARREN_MANAGER].
    // The client reads both variables, since a socket named by hand is stronger than a manager named
    // by the environment.
    #[arg(long, global = true, value_name = "HOST:PORT")]
    pub manager: Option<String>,
    /// Local socket of the daemon [env: WARREN_SOCKET] [default: /var/run/warren.sock].
    #[arg(long, global = true, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Level of the daemon's and client's own log lines.
    #[arg(
        long,
        global = true,
        value_name = "LEVEL",
        env = "WARREN_LOG_LEVEL",
        hide_env_values = true,
        default_value = "info"
    )]
    pub log_level: LogLevel,
    /// Log lines as JSON.
    #[arg(long, global = true, value_parser = clap::builder::FalseyValueParser::new(), env = "WARREN_LOG_JSON", hide_env_values = true)]
    pub log_json: bool,
    /// Print version, commit and build time.
    #[arg(short = 'v', long, action = clap::ArgAction::Version)]
    pub version: Option<bool>,
}

/// Level of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogLevel {
    /// Everything.
    Debug,
    /// What an operator wants to see.
    Info,
    /// What may need attention.
    Warn,
    /// What failed.
    Error,
}

impl LogLevel {
    /// As it is written on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start a node here if none runs, apply FILE (default: the hello service), wait, say where to look.
    Up(UpArgs),
    /// Take the services away that `up` made.
    Down(DownArgs),
    /// Make the cluster as the files say.
    Apply(ApplyArgs),
    /// Show what `apply` would change.
    Diff(DiffArgs),
    /// Services: what shall run, how often, and how it is updated.
    #[command(subcommand, visible_aliases = ["services", "svc"])]
    Service(ServiceCommand),
    /// Containers: what runs, where, and why not.
    #[command(subcommand, visible_alias = "containers")]
    Container(ContainerCommand),
    /// Images on the node.
    #[command(subcommand, visible_alias = "images")]
    Image(ImageCommand),
    /// Secrets: sealed values, files in containers.
    #[command(subcommand, visible_alias = "secrets")]
    Secret(SecretCommand),
    /// Named volumes.
    #[command(subcommand, visible_alias = "volumes")]
    Volume(VolumeCommand),
    /// Nodes: the machines of the cluster.
    #[command(subcommand, visible_alias = "nodes")]
    Node(NodeCommand),
    /// The cluster as a whole.
    #[command(subcommand)]
    Cluster(ClusterCommand),
    /// Managers: the nodes that keep the state of the cluster.
    #[command(subcommand, visible_alias = "managers")]
    Manager(ManagerCommand),
    /// Workers: the nodes that only run containers.
    #[command(subcommand, visible_alias = "workers")]
    Worker(WorkerCommand),
    /// What happens in the cluster, as it happens.
    Events(EventsArgs),
    /// Write a completion script for a shell to standard output.
    Completion {
        /// bash, elvish, fish, powershell or zsh.
        #[arg(value_name = "SHELL")]
        shell: clap_complete::Shell,
    },
    /// Version of this program and of the daemon.
    Version(OutputArgs),
}

/// Form of what is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Format {
    /// Aligned columns.
    #[default]
    Table,
    /// Aligned columns, more of them, nothing cut.
    Wide,
    /// JSON.
    Json,
    /// YAML.
    Yaml,
}

/// `-o`.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct OutputArgs {
    /// Form of the output.
    #[arg(short = 'o', long = "output", visible_alias = "format", value_enum, default_value_t = Format::Table, value_name = "FORM")]
    pub output: Format,
}

/// Waiting for the cluster.
#[derive(Debug, Clone, Args)]
pub struct WaitArgs {
    /// Do not wait until the cluster has done it.
    #[arg(short = 'd', long)]
    pub detach: bool,
    /// How long to wait, such as 90s or 5m.
    #[arg(long, value_name = "TIME", default_value = WAIT_TIMEOUT_DEFAULT)]
    pub timeout: Duration,
}
