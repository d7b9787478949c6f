//! What a user asks for: the desired specification of a service.

use crate::quantity::{Bytes, Duration, MilliCpu};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A service as the user wants it. Names of referenced objects are names, not ids.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceSpec {
    /// Unique name in the cluster, a DNS label.
    pub name: String,
    /// Free labels.
    pub labels: BTreeMap<String, String>,
    /// Replicated or global.
    pub mode: Mode,
    /// What runs in each container.
    pub container: ContainerSpec,
    /// Published ports.
    pub ports: Vec<PortMapping>,
    /// Names of the networks it is attached to; empty means the cluster's default network.
    pub networks: Vec<String>,
    /// Where it may run.
    pub placement: Placement,
    /// How a change is rolled out.
    pub update: UpdateConfig,
}

/// How many containers a service has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Mode {
    /// A number of equal containers.
    Replicated {
        /// How many; zero is allowed.
        replicas: u32,
    },
    /// One container on every eligible node.
    Global,
}

impl Default for Mode {
    fn default() -> Self {
        Self::Replicated { replicas: 1 }
    }
}

/// One environment variable.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct EnvVar {
    /// Name, without `=`.
    pub name: String,
    /// Value, may be empty.
    pub value: String,
}

/// What runs in each container of a service.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerSpec {
    /// Image reference as the user wrote it.
    pub image: String,
    /// Digest the reference was resolved to when the service was deployed (`sha256:…`), if known.
    pub image_digest: Option<String>,
    /// Replaces the image's entrypoint when not empty (and then the image's own command is dropped).
    pub command: Vec<String>,
    /// Replaces the image's command when not empty.
    pub args: Vec<String>,
    /// Added to the image's environment; the later of two equal names wins.
    pub env: Vec<EnvVar>,
    /// Working directory; `None` means the image's.
    pub working_dir: Option<String>,
    /// `user`, `uid`, `user:group` or `uid:gid`; `None` means the image's.
    pub user: Option<String>,
    /// Host name inside; `None` means the container's name.
    pub hostname: Option<String>,
    /// Labels of the container.
    pub labels: BTreeMap<String, String>,
    /// Volumes, bind mounts and temporary file systems.
    pub mounts: Vec<Mount>,
    /// Secrets placed as files, by default `/run/secrets/<name>`.
    pub secrets: Vec<FileRef>,
    /// Configs placed as files.
    pub configs: Vec<FileRef>,
    /// Limits and reservations.
    pub resources: Resources,
    /// The root file system cannot be written.
    pub read_only_root: bool,
    /// Linux capabilities added to the default set, such as `NET_ADMIN`.
    pub cap_add: Vec<String>,
    /// Linux capabilities taken from the default set; `ALL` takes all.
    pub cap_drop: Vec<String>,
    /// Health checks.
    pub health: HealthSpec,
    /// What happens when the main process ends.
    pub restart: RestartPolicy,
    /// Signal that asks the main process to end, such as `SIGTERM`; `None` means the image's, else SIGTERM.
    pub stop_signal: Option<String>,
    /// Time between the stop signal and SIGKILL; `None` means 10 s.
    pub stop_grace: Option<Duration>,
}

/// Something mounted into a container.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Mount {
    /// A named volume.
    Volume {
        /// Name of the volume object.
        source: String,
        /// Absolute path inside.
        target: String,
        /// Not writable from inside.
        read_only: bool,
    },
    /// A path of the node.
    Bind {
        /// Absolute path on the node.
        source: String,
        /// Absolute path inside.
        target: String,
        /// Not writable from inside.
        read_only: bool,
    },
    /// A temporary file system in memory.
    Tmpfs {
        /// Absolute path inside.
        target: String,
        /// Largest size; `None` means 64 MiB.
        size: Option<Bytes>,
    },
}

impl Mount {
    /// Where it is mounted inside the container.
    #[must_use]
    pub fn target(&self) -> &str {
        match self {
            Self::Volume { target, .. }
            | Self::Bind { target, .. }
            | Self::Tmpfs { target, .. } => target,
        }
    }
}

/// A secret or config placed as a file.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FileRef {
    /// Name of the secret or config.
    pub source: String,
    /// File inside the container: a plain name (below `/run/secrets` or `/run/configs`) or, for
    /// configs, an absolute path. `None` means the name of the source.
    pub target: Option<String>,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Permission bits; `None` means 0400 for secrets and 0444 for configs.
    pub mode: Option<u32>,
}

/// Limits (never exceeded) and reservations (kept free by the scheduler).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Resources {
    /// Most CPU it may use.
    pub cpu_limit: Option<MilliCpu>,
    /// Most memory; beyond it the kernel kills.
    pub memory_limit: Option<Bytes>,
    /// CPU the node keeps for it.
    pub cpu_reservation: Option<MilliCpu>,
    /// Memory the node keeps for it.
    pub memory_reservation: Option<Bytes>,
    /// Most processes and threads; `None` means `PIDS_LIMIT_DEFAULT`.
    pub pids_limit: Option<u32>,
}

/// The three kinds of health checks.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HealthSpec {
    /// Until it succeeds the others do not run.
    pub startup: Option<HealthCheck>,
    /// Gates traffic.
    pub readiness: Option<HealthCheck>,
    /// Restarts the container when it fails.
    pub liveness: Option<HealthCheck>,
}

/// One periodic check.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HealthCheck {
    /// What is done.
    pub probe: HealthProbe,
    /// Time between two checks (default 30 s).
    pub interval: Duration,
    /// Limit of one check (default 10 s).
    pub timeout: Duration,
    /// Failures in a row that make it unhealthy (default 3).
    pub retries: u32,
    /// Failures in this time after the start do not count (default 0).
    pub start_period: Duration,
}

/// What a health check does.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum HealthProbe {
    /// An HTTP GET.
    Http {
        /// Path with query.
        path: String,
        /// Port inside the container.
        port: u16,
        /// HTTPS instead of HTTP (the certificate is not verified).
        https: bool,
        /// Extra request headers.
        headers: Vec<(String, String)>,
        /// Lowest status that is healthy (default 200).
        status_min: u16,
        /// Highest status that is healthy (default 399).
        status_max: u16,
    },
    /// A TCP connection.
    Tcp {
        /// Port inside the container.
        port: u16,
    },
    /// A command inside the container; exit status 0 is healthy.
    Exec {
        /// Argument vector.
        command: Vec<String>,
    },
}

/// What happens when the main process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RestartPolicy {
    /// When it is started again.
    pub condition: RestartCondition,
    /// Most restarts within `window`; 0 means no limit.
    pub max_attempts: u32,
    /// First wait before a restart; doubles up to 30 s. `None` means 100 ms.
    pub delay: Option<Duration>,
    /// Time over which restarts are counted; `None` means since the container was made.
    pub window: Option<Duration>,
}

impl Default for RestartPolicy {
    fn default() -> Self {
        Self {
            condition: RestartCondition::Any,
            max_attempts: 0,
            delay: None,
            window: None,
        }
    }
}

/// When a container is started again. The wire accepts both families of names (`api.md`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestartCondition {
    /// Never (`none`, `never`).
    None,
    /// After a failure only.
    OnFailure,
    /// Always (`any`, `always`).
    #[default]
    Any,
}

/// Where containers of a service may run.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Placement {
    /// Expressions such as `node.labels.zone == east`, `node.role != manager`, `node.name == n1`,
    /// `node.platform.arch == arm64`; all must hold.
    pub constraints: Vec<String>,
    /// Node label over whose values replicas are spread, such as `zone`.
    pub spread: Option<String>,
    /// Most containers of the service on one node; 0 means no limit.
    pub max_per_node: u32,
}

/// One published port.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PortMapping {
    /// Optional label.
    pub name: Option<String>,
    /// Port inside the container.
    pub container_port: u16,
    /// Port on the node; 0 means not published.
    pub host_port: u16,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// On which nodes it is open.
    pub publish_mode: PublishMode,
}

/// Transport protocol.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
}

/// On which nodes a published port is open.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum PublishMode {
    /// On the container's node only.
    #[default]
    Host,
    /// On every node.
    Ingress,
}

/// How a change of the service is rolled out.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UpdateConfig {
    /// Rolling, blue-green or canary.
    pub strategy: DeployStrategy,
    /// Containers replaced at once; at least 1.
    pub parallelism: u32,
    /// Pause between batches.
    pub delay: Duration,
    /// What happens when too many new containers fail.
    pub failure_action: FailureAction,
    /// Which of old and new goes first.
    pub order: UpdateOrder,
    /// Containers above the wanted number during the update.
    pub max_surge: u32,
    /// Containers below the wanted number during the update.
    pub max_unavailable: u32,
    /// How long a new container is watched before it counts as good.
    pub monitor: Duration,
    /// Weights of a canary in percent, rising.
    pub canary_steps: Vec<u32>,
    /// Watch time of each canary step.
    pub canary_window: Duration,
    /// How long the old set is kept after a blue-green switch.
    pub blue_green_grace: Duration,
    /// Share of failed new containers, in percent, that triggers the failure action.
    pub failure_threshold_percent: u32,
}

impl Default for UpdateConfig {
    fn default() -> Self {
        Self {
            strategy: DeployStrategy::Rolling,
            parallelism: 1,
            delay: Duration(0),
            failure_action: FailureAction::Pause,
            order: UpdateOrder::StopFirst,
            max_surge: 1,
            max_unavailable: 0,
            monitor: Duration::from_secs(5),
            canary_steps: vec![10, 25, 50, 100],
            canary_window: Duration::from_secs(300),
            blue_green_grace: Duration::from_secs(300),
            failure_threshold_percent: 10,
        }
    }
}

/// Way of replacing old containers by new ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DeployStrategy {
    /// In batches.
    #[default]
    Rolling,
    /// A full second set, then one switch.
    BlueGreen,
    /// A growing share.
    Canary,
}

/// What happens when too many new containers fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FailureAction {
    /// Stop there and wait for the operator.
    #[default]
    Pause,
    /// Go on all the same.
    Continue,
    /// Return to the previous revision.
    Rollback,
}

/// Which of old and new goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UpdateOrder {
    /// The old container stops, then the new one starts.
    #[default]
    StopFirst,
    /// The new container is ready before the old one stops.
    StartFirst,
}
