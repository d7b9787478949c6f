//! Commands about the cluster, its nodes, and the daemon of this machine.

use super::{OutputArgs, WaitArgs};
use clap::{Args, Subcommand, ValueEnum};
use std::net::SocketAddr;
use std::path::PathBuf;
use warren_types::Availability;

/// Where the daemon keeps its data.
pub const DATA_DIR_DEFAULT: &str = "/var/lib/warren";

/// `warren cluster …`.
#[derive(Debug, Subcommand)]
pub enum ClusterCommand {
    /// Make a new cluster with this machine as its first manager, and run it until stopped.
    Init(ClusterInitArgs),
    /// Id, leader, members and counts of the cluster.
    #[command(visible_alias = "inspect")]
    Info(OutputArgs),
}

/// Flags of `cluster init`.
#[derive(Debug, Clone, Args)]
pub struct ClusterInitArgs {
    /// Name of this node [default: the host name].
    #[arg(long, visible_alias = "name", value_name = "NAME")]
    pub node_id: Option<String>,
    /// Name of the cluster.
    #[arg(long, value_name = "NAME", default_value = "warren")]
    pub cluster_name: String,
    /// Address of the API.
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:8080")]
    pub api_addr: SocketAddr,
    /// Directory of all data.
    #[arg(long, value_name = "DIR", env = "WARREN_DATA_DIR", hide_env_values = true, default_value = DATA_DIR_DEFAULT)]
    pub data_dir: PathBuf,
    /// Run no containers on this node.
    #[arg(long)]
    pub manager_only: bool,
}

/// `warren node …`.
#[derive(Debug, Subcommand)]
pub enum NodeCommand {
    /// All nodes.
    #[command(visible_aliases = ["ls", "ps"])]
    List(OutputArgs),
    /// All about nodes.
    Inspect {
        /// Names or ids.
        #[arg(required = true, value_name = "NODE")]
        names: Vec<String>,
        /// Form of the output.
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Change availability or labels of a node.
    Update(NodeUpdateArgs),
    /// Move all containers away from a node.
    Drain {
        /// Name or id.
        #[arg(value_name = "NODE")]
        name: String,
        /// Waiting.
        #[command(flatten)]
        wait: WaitArgs,
    },
    /// Let a drained or paused node take containers again.
    #[command(visible_alias = "undrain")]
    Activate {
        /// Name or id.
        #[arg(value_name = "NODE")]
        name: String,
    },
    /// Take a node that is down out of the cluster.
    #[command(visible_alias = "rm")]
    Remove {
        /// Name or id.
        #[arg(value_name = "NODE")]
        name: String,
        /// Also when it is not down.
        #[arg(long)]
        force: bool,
    },
    /// Run the node of this machine in the foreground, on data that `cluster init` or `up` made.
    #[command(visible_alias = "start")]
    Run(NodeRunArgs),
    /// Stop the daemon of this machine; containers keep running.
    Stop(NodeStopArgs),
    /// Remove everything that Warren made on this machine, data included.
    Reset(NodeResetArgs),
}

/// Flags of `node update`.
#[derive(Debug, Clone, Args)]
#[command(group(clap::ArgGroup::new("change").required(true).multiple(true).args(["availability", "label_add", "label_rm"])))]
pub struct NodeUpdateArgs {
    /// Name or id.
    #[arg(value_name = "NODE")]
    pub name: String,
    /// What the node may do.
    #[arg(long, value_enum, value_name = "HOW")]
    pub availability: Option<AvailabilityArg>,
    /// Set a label, KEY=VALUE.
    #[arg(long, visible_alias = "label", value_name = "KEY=VALUE", value_parser = super::service::key_value)]
    pub label_add: Vec<(String, String)>,
    /// Remove a label.
    #[arg(long, value_name = "KEY")]
    pub label_rm: Vec<String>,
    /// Form of the output.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// What a node may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AvailabilityArg {
    /// Takes containers.
    Active,
    /// Keeps its containers, takes no new ones.
    Pause,
    /// Its containers move away.
    Drain,
}

impl From<AvailabilityArg> for Availability {
    fn from(value: AvailabilityArg) -> Self {
        match value {
            AvailabilityArg::Active => Self::Active,
            AvailabilityArg::Pause => Self::Pause,
            AvailabilityArg::Drain => Self::Drain,
        }
    }
}

/// Flags of `node run`.
#[derive(Debug, Clone, Args)]
pub struct NodeRunArgs {
    /// Directory of all data.
    #[arg(long, value_name = "DIR", env = "WARREN_DATA_DIR", hide_env_values = true, default_value = DATA_DIR_DEFAULT)]
    pub data_dir: PathBuf,
}

/// Flags of `node stop`.
#[derive(Debug, Clone, Args)]
pub struct NodeStopArgs {
    /// How long the daemon may take to end what it does.
    #[arg(long, value_name = "TIME", default_value = "10s")]
    pub grace: warren_types::Duration,
}

/// Flags of `node reset`.
#[derive(Debug, Clone, Args)]
pub struct NodeResetArgs {
    /// Directory of all data.
    #[arg(long, value_name = "DIR", env = "WARREN_DATA_DIR", hide_env_values = true, default_value = DATA_DIR_DEFAULT)]
    pub data_dir: PathBuf,
    /// Do not ask.
    #[arg(short = 'y', long, visible_alias = "force")]
    pub yes: bool,
}

/// Flags of `up`.
#[derive(Debug, Clone, Args)]
pub struct UpArgs {
    /// Manifest, directory or `-`; none means the hello service.
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Stay in the foreground and run the node here.
    #[arg(long)]
    pub foreground: bool,
    /// Directory of all data, for a node that is started now.
    #[arg(long, value_name = "DIR", env = "WARREN_DATA_DIR", hide_env_values = true, default_value = DATA_DIR_DEFAULT)]
    pub data_dir: PathBuf,
    /// Address of the API, for a node that is started now.
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:8080")]
    pub api_addr: SocketAddr,
    /// Port of the hello service on this machine.
    #[arg(long, value_name = "PORT", default_value_t = crate::commands::up::HELLO_HOST_PORT)]
    pub hello_port: u16,
    /// Waiting.
    #[command(flatten)]
    pub wait: WaitArgs,
}

/// Flags of `down`.
#[derive(Debug, Clone, Args)]
pub struct DownArgs {
    /// Take away the services of this manifest instead.
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Take away every service, whoever made it.
    #[arg(long, conflicts_with = "file")]
    pub all: bool,
    /// Only say what would be removed.
    #[arg(long)]
    pub dry_run: bool,
    /// Waiting.
    #[command(flatten)]
    pub wait: WaitArgs,
}
