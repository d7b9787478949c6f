//! Commands about services, and the parsers of their small texts.

use super::objects::LogFlags;
use super::{OutputArgs, WaitArgs};
use crate::flags;
use clap::{Args, Subcommand, ValueEnum};
use std::path::PathBuf;
use warren_types::{
    Bytes, DeployStrategy, Duration, FailureAction, FileRef, MilliCpu, Mount, PortMapping,
    PublishMode, RestartCondition, UpdateOrder,
};

/// `warren service …`.
#[derive(Debug, Subcommand)]
pub enum ServiceCommand {
    /// Make a service and wait until it runs.
    Create(Box<ServiceCreateArgs>),
    /// All services.
    #[command(visible_alias = "ls")]
    List(OutputArgs),
    /// All about services.
    Inspect {
        /// Names or ids.
        #[arg(required = true, value_name = "SERVICE")]
        names: Vec<String>,
        /// Form of the output.
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Containers of services: where they are and why they do not run.
    Ps {
        /// Names or ids.
        #[arg(required = true, value_name = "SERVICE")]
        names: Vec<String>,
        /// Ended ones too.
        #[arg(short = 'a', long)]
        all: bool,
        /// Form of the output.
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Change a service and wait until the change is rolled out.
    Update(Box<ServiceUpdateArgs>),
    /// Change the number of replicas and wait until they run.
    Scale {
        /// SERVICE=REPLICAS, or SERVICE with --replicas; names or ids.
        #[arg(required = true, value_name = "SERVICE[=REPLICAS]")]
        targets: Vec<String>,
        /// Number of replicas for services given without one.
        #[arg(long, value_name = "COUNT")]
        replicas: Option<u32>,
        /// Only show what would change.
        #[arg(long)]
        dry_run: bool,
        /// Waiting.
        #[command(flatten)]
        wait: WaitArgs,
    },
    /// Delete services and wait until their containers have ended.
    #[command(visible_aliases = ["rm", "remove"])]
    Delete {
        /// Names or ids.
        #[arg(required = true, value_name = "SERVICE")]
        names: Vec<String>,
        /// Only show what would be deleted.
        #[arg(long)]
        dry_run: bool,
        /// Waiting.
        #[command(flatten)]
        wait: WaitArgs,
    },
    /// What the containers of a service wrote.
    Logs(ServiceLogsArgs),
    /// Go back to an earlier revision and wait until it is rolled out.
    Rollback {
        /// Name or id.
        #[arg(value_name = "SERVICE")]
        name: String,
        /// Number of the revision [default: the one before].
        #[arg(long, value_name = "NUMBER")]
        to_revision: Option<u32>,
        /// Waiting.
        #[command(flatten)]
        wait: WaitArgs,
    },
}

/// Flags of `service logs`.
#[derive(Debug, Clone, Args)]
pub struct ServiceLogsArgs {
    /// Name or id.
    #[arg(value_name = "SERVICE")]
    pub name: String,
    /// No container names before the lines.
    #[arg(long)]
    pub no_prefix: bool,
    /// What to show.
    #[command(flatten)]
    pub logs: LogFlags,
}

/// Replicated or global.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ModeArg {
    /// A number of equal containers.
    Replicated,
    /// One container on every eligible node.
    Global,
}

/// On which nodes published ports are open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PublishModeArg {
    /// On the container's node.
    Host,
    /// On every node.
    Ingress,
}

impl From<PublishModeArg> for PublishMode {
    fn from(value: PublishModeArg) -> Self {
        match value {
            PublishModeArg::Host => Self::Host,
            PublishModeArg::Ingress => Self::Ingress,
        }
    }
}

/// Flags of `service create`.
#[derive(Debug, Clone, Args)]
pub struct ServiceCreateArgs {
    /// Name: lower-case letters, digits and dashes.
    #[arg(value_name = "NAME")]
    pub name: String,
    /// Image that the containers run.
    #[arg(long, value_name = "REF")]
    pub image: String,
    /// Number of equal containers.
    #[arg(long, value_name = "COUNT")]
    pub replicas: Option<u32>,
    /// Replicated or global.
    #[arg(long, value_enum, value_name = "MODE", default_value = "replicated")]
    pub mode: ModeArg,
    /// Environment variable NAME=VALUE, or NAME to hand on the own one; A=1,B=2 is two of them.
    #[arg(short = 'e', long, value_name = "NAME=VALUE")]
    pub env: Vec<String>,
    /// Environment variables from a file, one NAME=VALUE per line.
    #[arg(long, value_name = "FILE")]
    pub env_file: Vec<PathBuf>,
    /// Open a port of the node: HOST:CONTAINER[/tcp|/udp].
    #[arg(short = 'p', long, visible_aliases = ["port", "ports"], value_name = "HOST:CONTAINER[/PROTO]", value_parser = flags::port)]
    pub publish: Vec<flags::PublishArg>,
    /// Secret as a file below /run/secrets: NAME[:FILE].
    #[arg(long, value_name = "NAME[:FILE]", value_parser = flags::secret)]
    pub secret: Vec<FileRef>,
    /// Named volume NAME:PATH[:ro]; a source that begins with / is a directory of the node.
    #[arg(long, value_name = "NAME:PATH[:ro]", value_parser = flags::volume)]
    pub volume: Vec<Mount>,
    /// Directory or file of the node: SOURCE:PATH[:ro].
    #[arg(long, value_name = "SOURCE:PATH[:ro]", value_parser = flags::bind)]
    pub bind: Vec<Mount>,
    /// File system in memory: PATH[:SIZE].
    #[arg(long, value_name = "PATH[:SIZE]", value_parser = flags::tmpfs)]
    pub tmpfs: Vec<Mount>,
    /// Label of the service, KEY=VALUE.
    #[arg(short = 'l', long, value_name = "KEY=VALUE", value_parser = key_value)]
    pub label: Vec<(String, String)>,
    /// Where it may run, such as 'node.labels.zone == east'.
    #[arg(long, value_name = "EXPRESSION")]
    pub constraint: Vec<String>,
    /// Attach to this network instead of the default one.
    #[arg(long, value_name = "NETWORK")]
    pub network: Vec<String>,
    /// Linux capability to add.
    #[arg(long, value_name = "CAP")]
    pub cap_add: Vec<String>,
    /// Linux capability to take away; ALL takes all.
    #[arg(long, value_name = "CAP")]
    pub cap_drop: Vec<String>,
    /// What runs in the containers.
    #[command(flatten)]
    pub container: ContainerFlags,
    /// Health check.
    #[command(flatten)]
    pub health: HealthFlags,
    /// Restart policy.
    #[command(flatten)]
    pub restart: RestartFlags,
    /// How later changes are rolled out.
    #[command(flatten)]
    pub rollout: RolloutFlags,
    /// Check everything and show the result, but make nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Print the id only.
    #[arg(short = 'q', long)]
    pub quiet: bool,
    /// Waiting.
    #[command(flatten)]
    pub wait: WaitArgs,
    /// Form of the output.
    #[command(flatten)]
    pub output: OutputArgs,
    /// Arguments for the image's program, after `--`.
    #[arg(last = true, value_name = "ARGS")]
    pub args: Vec<String>,
}

/// Flags of `service update`; what is not given stays as it is.
#[derive(Debug, Clone, Args)]
pub struct ServiceUpdateArgs {
    /// Name or id.
    #[arg(value_name = "SERVICE")]
    pub name: String,
    /// Image that the containers run.
    #[arg(long, value_name = "REF")]
    pub image: Option<String>,
    /// Number of equal containers.
    #[arg(long, value_name = "COUNT")]
    pub replicas: Option<u32>,
    /// Set an environment variable NAME=VALUE.
    #[arg(short = 'e', long, visible_alias = "env", value_name = "NAME=VALUE")]
    pub env_add: Vec<String>,
    /// Remove an environment variable.
    #[arg(long, value_name = "NAME")]
    pub env_rm: Vec<String>,
    /// Open a port of the node: HOST:CONTAINER[/tcp|/udp].
    #[arg(short = 'p', long, visible_alias = "publish", value_name = "HOST:CONTAINER[/PROTO]", value_parser = flags::port)]
    pub publish_add: Vec<flags::PublishArg>,
    /// Close a published port, by its number on the node: HOST[/tcp|/udp].
    #[arg(long, value_name = "HOST[/PROTO]", value_parser = flags::published_port)]
    pub publish_rm: Vec<(u16, Option<warren_types::Protocol>)>,
    /// Add a secret: NAME[:FILE].
    #[arg(long, value_name = "NAME[:FILE]", value_parser = flags::secret)]
    pub secret_add: Vec<FileRef>,
    /// Take a secret away.
    #[arg(long, value_name = "NAME")]
    pub secret_rm: Vec<String>,
    /// Add a volume: NAME:PATH[:ro].
    #[arg(long, visible_aliases = ["volume", "volume-add"], value_name = "NAME:PATH[:ro]", value_parser = flags::volume)]
    pub mount_add: Vec<Mount>,
    /// Take away what is mounted at this path.
    #[arg(long, visible_alias = "volume-rm", value_name = "PATH")]
    pub mount_rm: Vec<String>,
    /// Set a label of the service, KEY=VALUE.
    #[arg(short = 'l', long, visible_alias = "label", value_name = "KEY=VALUE", value_parser = key_value)]
    pub label_add: Vec<(String, String)>,
    /// Remove a label of the service.
    #[arg(long, value_name = "KEY")]
    pub label_rm: Vec<String>,
    /// Add a placement constraint.
    #[arg(long, value_name = "EXPRESSION")]
    pub constraint_add: Vec<String>,
    /// Remove a placement constraint.
    #[arg(long, value_name = "EXPRESSION")]
    pub constraint_rm: Vec<String>,
    /// What runs in the containers.
    #[command(flatten)]
    pub container: ContainerFlags,
    /// Arguments for the image's program, as one text; quotes keep words together.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true, value_parser = flags::words)]
    pub args: Option<flags::Words>,
    /// Health check.
    #[command(flatten)]
    pub health: HealthFlags,
    /// No health check any more.
    #[arg(long)]
    pub no_health: bool,
    /// Restart policy.
    #[command(flatten)]
    pub restart: RestartFlags,
    /// How changes are rolled out.
    #[command(flatten)]
    pub rollout: RolloutFlags,
    /// Replace the containers even when nothing else changes.
    #[arg(long, visible_alias = "force-recreate")]
    pub force: bool,
    /// Only show what would change, field by field.
    #[arg(long)]
    pub dry_run: bool,
    /// Waiting.
    #[command(flatten)]
    pub wait: WaitArgs,
}

/// What runs in the containers: flags that `create` and `update` share.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Container options")]
pub struct ContainerFlags {
    /// Program instead of the image's entrypoint, as one text; quotes keep words together.
    #[arg(long, visible_alias = "entrypoint", value_name = "TEXT", value_parser = flags::words)]
    pub command: Option<flags::Words>,
    /// User, `user[:group]` or `uid[:gid]`.
    #[arg(short = 'u', long, value_name = "USER")]
    pub user: Option<String>,
    /// Working directory.
    #[arg(short = 'w', long, value_name = "DIR")]
    pub workdir: Option<String>,
    /// Host name inside.
    #[arg(long, value_name = "NAME")]
    pub hostname: Option<String>,
    /// The root file system cannot be written.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub read_only: Option<bool>,
    /// Most cores it may use, such as 0.5.
    #[arg(long, visible_aliases = ["cpu-limit", "limit-cpu"], value_name = "CORES")]
    pub cpus: Option<MilliCpu>,
    /// Most memory it may use, such as 256m; beyond it the kernel kills.
    #[arg(long, visible_aliases = ["memory-limit", "limit-memory"], value_name = "SIZE")]
    pub memory: Option<Bytes>,
    /// Cores that its node keeps for it.
    #[arg(long, value_name = "CORES")]
    pub reserve_cpus: Option<MilliCpu>,
    /// Memory that its node keeps for it.
    #[arg(long, value_name = "SIZE")]
    pub reserve_memory: Option<Bytes>,
    /// Most processes and threads.
    #[arg(long, visible_alias = "limit-pids", value_name = "COUNT")]
    pub pids_limit: Option<u32>,
    /// Time between the stop signal and SIGKILL; a bare number is seconds.
    #[arg(long, visible_alias = "stop-grace-period", value_name = "TIME", value_parser = flags::seconds_or_duration)]
    pub stop_timeout: Option<Duration>,
    /// Signal that asks it to end.
    #[arg(long, value_name = "SIGNAL")]
    pub stop_signal: Option<String>,
    /// Nodes on which published ports are open; goes with --publish.
    #[arg(long, value_enum, value_name = "MODE")]
    pub publish_mode: Option<PublishModeArg>,
    /// Most containers of the service on one node; 0 is no limit.
    #[arg(long, visible_alias = "replicas-max-per-node", value_name = "COUNT")]
    pub max_per_node: Option<u32>,
    /// Node label over whose values replicas are spread.
    #[arg(long, value_name = "LABEL")]
    pub spread: Option<String>,
}

/// Health check; of several kinds the first of HTTP, TCP and command is taken.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Health check")]
pub struct HealthFlags {
    /// HTTP GET: PATH (port of --health-port, else 80), [:]PORT/PATH or http[s]://localhost:PORT/PATH.
    #[arg(long, value_name = "PATH")]
    pub health_http: Option<String>,
    /// Port of --health-http.
    #[arg(long, value_name = "PORT")]
    pub health_port: Option<u16>,
    /// TCP connection to this port.
    #[arg(long, value_name = "[:]PORT")]
    pub health_tcp: Option<String>,
    /// Command inside: a shell line, or words separated by commas and no spaces around them.
    #[arg(long, value_name = "COMMAND")]
    pub health_cmd: Option<String>,
    /// Time between two checks; a bare number is seconds [default: 30s].
    #[arg(long, value_name = "TIME", value_parser = flags::seconds_or_duration)]
    pub health_interval: Option<Duration>,
    /// Limit of one check [default: 10s].
    #[arg(long, value_name = "TIME", value_parser = flags::seconds_or_duration)]
    pub health_timeout: Option<Duration>,
    /// Failures in a row that count [default: 3].
    #[arg(long, value_name = "COUNT")]
    pub health_retries: Option<u32>,
    /// Failures in this time after the start do not count [default: 0s].
    #[arg(long, value_name = "TIME", value_parser = flags::seconds_or_duration)]
    pub health_start_period: Option<Duration>,
}

/// Restart policy.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Restart policy")]
pub struct RestartFlags {
    /// When it is started again: any (always), on-failure, none (never).
    #[arg(long, visible_alias = "restart", value_name = "WHEN", value_parser = flags::restart_condition)]
    pub restart_condition: Option<RestartCondition>,
    /// Most restarts within the window; 0 is no limit.
    #[arg(long, value_name = "COUNT")]
    pub restart_max_attempts: Option<u32>,
    /// First wait before a restart; doubles up to 30s.
    #[arg(long, value_name = "TIME", value_parser = flags::seconds_or_duration)]
    pub restart_delay: Option<Duration>,
    /// Time over which restarts are counted.
    #[arg(long, value_name = "TIME", value_parser = flags::seconds_or_duration)]
    pub restart_window: Option<Duration>,
}

/// How changes are rolled out.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Rollout")]
pub struct RolloutFlags {
    /// rolling, blue-green or canary.
    #[arg(long, visible_alias = "update-strategy", value_name = "HOW", value_parser = flags::strategy)]
    pub strategy: Option<DeployStrategy>,
    /// Containers replaced at once.
    #[arg(long, visible_aliases = ["parallel", "update-parallelism"], value_name = "COUNT")]
    pub parallelism: Option<u32>,
    /// Pause between batches.
    #[arg(long, visible_alias = "update-delay", value_name = "TIME", value_parser = flags::seconds_or_duration)]
    pub delay: Option<Duration>,
    /// Which goes first: stop-first or start-first.
    #[arg(long, visible_alias = "update-order", value_name = "ORDER", value_parser = flags::order)]
    pub order: Option<UpdateOrder>,
    /// When too many new containers fail: pause, continue or rollback.
    #[arg(long, visible_alias = "update-failure-action", value_name = "ACTION", value_parser = flags::failure_action)]
    pub failure_action: Option<FailureAction>,
    /// How long a new container is watched before it counts as good.
    #[arg(long, visible_aliases = ["update-monitor", "health-grace-period"], value_name = "TIME", value_parser = flags::seconds_or_duration)]
    pub monitor: Option<Duration>,
    /// Containers above the wanted number during an update.
    #[arg(long, value_name = "COUNT")]
    pub max_surge: Option<u32>,
    /// Containers below the wanted number during an update.
    #[arg(long, value_name = "COUNT")]
    pub max_unavailable: Option<u32>,
    /// Share of failed new containers in percent that triggers the failure action.
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u32).range(0..=100))]
    pub failure_threshold: Option<u32>,
    /// Rising traffic shares of a canary in percent, such as 10,50,100.
    #[arg(long, value_name = "PERCENT,…", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=100))]
    pub canary_steps: Vec<u32>,
    /// Watch time of each canary step; a bare number is seconds.
    #[arg(long, value_name = "TIME", value_parser = flags::seconds_or_duration)]
    pub canary_window: Option<Duration>,
}

/// The published ports with the mode of `--publish-mode` where the port itself names none.
#[must_use]
pub fn published(ports: &[flags::PublishArg], mode: Option<PublishModeArg>) -> Vec<PortMapping> {
    ports
        .iter()
        .map(|p| PortMapping {
            publish_mode: p.mode.or(mode.map(Into::into)).unwrap_or_default(),
            ..p.mapping.clone()
        })
        .collect()
}

/// `KEY=VALUE`.
///
/// # Errors
/// When there is no `=` or nothing before it.
pub fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write KEY=VALUE".to_owned()),
    }
}
