//! Commands about the cluster, its nodes, and the daemon of this machine.

use super::daemon::{
    ClusterInitArgs, ClusterRestoreFlags, JoinFlags, ManagerJoinFlags, NodeResetArgs, NodeRunArgs,
    NodeStopArgs,
};
use super::quorum::{
    AdminCertArgs, AutoLockCommand, BackupArgs, CaCommand, DataKeyCommand, JoinTokenArgs,
    LeaveArgs, PromoteArgs, RecoverArgs, SettingsArgs, TokenCommand, UnlockArgs,
};
use super::{OutputArgs, WaitArgs};
use clap::{Args, Subcommand, ValueEnum};
use std::path::PathBuf;
use warren_types::Availability;

/// `warren cluster …`.
#[derive(Debug, Subcommand)]
pub enum ClusterCommand {
    /// Make a new cluster with this machine as its first manager, and run it until stopped.
    Init(ClusterInitArgs),
    /// The cluster, its managers and the health of its quorum.
    #[command(visible_alias = "inspect")]
    Info(OutputArgs),
    /// Say whether the cluster is healthy, and why not; exit status 1 when it is not.
    Health(OutputArgs),
    /// Make a token for a new node, and print the command to run there.
    JoinToken(JoinTokenArgs),
    /// Join tokens that exist.
    #[command(subcommand, visible_alias = "tokens")]
    Token(TokenCommand),
    /// Show or change settings of the cluster.
    #[command(visible_alias = "config")]
    Settings(SettingsArgs),
    /// Let another manager lead.
    #[command(visible_alias = "hand-over")]
    TransferLeadership {
        /// Name or id of the manager [default: the one that is furthest].
        #[arg(value_name = "NODE")]
        name: Option<String>,
    },
    /// Write everything that the cluster knows, secrets included, into a file sealed with a passphrase.
    Backup(BackupArgs),
    /// Make this machine the first manager of a cluster from a backup, and run it until stopped.
    Restore(ClusterRestoreFlags),
    /// After the majority of the managers is lost for good: let this manager go on alone.
    Recover(RecoverArgs),
    /// Give a locked manager its unlock key.
    Unlock(UnlockArgs),
    /// Whether a manager that starts needs an unlock key.
    #[command(subcommand)]
    AutoLock(AutoLockCommand),
    /// The certificate authority of the cluster.
    #[command(subcommand)]
    Ca(CaCommand),
    /// Write a certificate and key with which a person uses the cluster from another machine into a directory.
    #[command(visible_alias = "user-cert")]
    AdminCert(AdminCertArgs),
    /// The key that seals secrets.
    #[command(subcommand)]
    DataKey(DataKeyCommand),
}

/// `warren manager …`.
#[derive(Debug, Subcommand)]
pub enum ManagerCommand {
    /// Make this machine a further manager of a cluster, and run it until stopped.
    Join(ManagerJoinFlags),
}

/// `warren worker …`.
#[derive(Debug, Subcommand)]
pub enum WorkerCommand {
    /// Make this machine a worker of a cluster, and run it until stopped.
    #[command(visible_alias = "join")]
    Start(JoinFlags),
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
    /// Make a worker a manager.
    Promote(PromoteArgs),
    /// Make a manager a worker; its containers stay.
    Demote {
        /// Name or id.
        #[arg(value_name = "NODE")]
        name: String,
        /// Waiting.
        #[command(flatten)]
        wait: WaitArgs,
    },
    /// Take this machine out of the cluster and stop its daemon.
    Leave(LeaveArgs),
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
    /// Make this machine a node of a cluster, of the role that the token is for, and run it until stopped.
    Join(ManagerJoinFlags),
    /// Run the node of this machine in the foreground, on data that was made here before.
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
