//! What the commands need of a cluster, in types of their own.
//!
//! [`crate::remote`] implements it with the client; the tests of this crate implement it in memory.
//! The view types are also the JSON and YAML form of `-o json|yaml`: fields are only ever added.

use crate::error::Result;
use async_trait::async_trait;
use futures::stream::BoxStream;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::PathBuf;
use tokio::io::AsyncRead;
use tokio::sync::mpsc;
use warren_types::{Availability, Duration, ExitInfo, PortMapping, ServiceSpec, Timestamp};

/// How to reach a cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Target {
    /// `host:port` of a manager; `None` means the local socket.
    pub manager: Option<String>,
    /// Local socket; `None` means the default one.
    pub socket: Option<PathBuf>,
}

/// Opens connections.
#[async_trait]
pub trait Connector: Send + Sync {
    /// Connects to the target.
    async fn connect(&self, target: &Target) -> Result<Box<dyn Api>>;
}

/// A node.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeView {
    /// Id.
    pub id: String,
    /// Unique name.
    pub name: String,
    /// Host name.
    pub hostname: String,
    /// manager, worker or hybrid.
    pub role: String,
    /// ready, down, draining or unknown.
    pub status: String,
    /// active, pause or drain.
    pub availability: String,
    /// Why it is down.
    pub reason: String,
    /// Where its API answers.
    pub address: String,
    /// Thousandths of a core.
    pub cpu_milli: u32,
    /// Bytes.
    pub memory_bytes: u64,
    /// Bytes.
    pub disk_bytes: u64,
    /// Thousandths of a core kept for containers.
    pub reserved_cpu_milli: u32,
    /// Bytes kept for containers.
    pub reserved_memory_bytes: u64,
    /// Live containers on it.
    pub containers: u32,
    /// Subnet of its containers.
    pub subnet: String,
    /// Operating system and processor, `linux/amd64`.
    pub platform: String,
    /// Version of its program.
    pub program_version: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// When it joined.
    pub created_at: Time,
    /// State revision of the last change.
    pub version: u64,
}

/// A moment; in JSON RFC 3339 or null.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Time(pub Option<Timestamp>);

impl Serialize for Time {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Some(at) => serializer.collect_str(&at),
            None => serializer.serialize_none(),
        }
    }
}

/// State of a rollout.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RolloutView {
    /// Revision rolled out from.
    pub from: u32,
    /// Revision rolled out to.
    pub to: u32,
    /// updating, paused, completed, rolling-back or rolled-back.
    pub state: String,
    /// Why.
    pub message: String,
}

/// A service.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceView {
    /// Id.
    pub id: String,
    /// What the user wants.
    pub spec: ServiceSpec,
    /// Containers it should have.
    pub desired: u32,
    /// Containers that run.
    pub running: u32,
    /// Containers that run and are not unhealthy or starting.
    pub ready: u32,
    /// Why it is not as wanted.
    pub reason: String,
    /// Number of the newest revision.
    pub revision: u32,
    /// Numbers of the revisions that can be rolled back to; only `inspect` has them.
    pub revisions: Vec<u32>,
    /// The rollout under way or the last one.
    pub rollout: Option<RolloutView>,
    /// Deletion was asked for.
    pub deleting: bool,
    /// When it was made.
    pub created_at: Time,
    /// When it was last changed.
    pub updated_at: Time,
    /// State revision of the last change.
    pub version: u64,
}

impl ServiceView {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.spec.name
    }
}

/// A container.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerView {
    /// Id.
    pub id: String,
    /// Service and slot, or service and node.
    pub name: String,
    /// Id of its service.
    pub service_id: String,
    /// Name of its service.
    pub service: String,
    /// Slot from 1; 0 for global services.
    pub slot: u32,
    /// Revision of the service it was made from.
    pub revision: u32,
    /// Id of its node; empty before placement.
    pub node_id: String,
    /// Name of its node.
    pub node: String,
    /// running or shutdown.
    pub desired: String,
    /// pending, assigned, … lost.
    pub state: String,
    /// Why.
    pub reason: String,
    /// healthy, unhealthy, starting or unknown.
    pub health: String,
    /// Image.
    pub image: String,
    /// Address on the node's subnet.
    pub address: String,
    /// Ports of its service.
    pub ports: Vec<PortMapping>,
    /// Process id on the node.
    pub pid: Option<u32>,
    /// How the last attempt ended.
    pub exit: Option<ExitInfo>,
    /// How often it was started again.
    pub restarts: u32,
    /// When the record was made.
    pub created_at: Time,
    /// When its state last changed.
    pub updated_at: Time,
    /// When the running attempt started.
    pub started_at: Time,
    /// When it ended.
    pub finished_at: Time,
}

impl ContainerView {
    /// Nothing comes after its state.
    #[must_use]
    pub fn ended(&self) -> bool {
        matches!(
            self.state.as_str(),
            "complete" | "shutdown" | "failed" | "rejected" | "lost"
        )
    }
}

/// A secret, without its value.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretView {
    /// Id.
    pub id: String,
    /// Name.
    pub name: String,
    /// Bytes of the value.
    pub size: u64,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Services that use it.
    pub used_by: Vec<String>,
    /// When it was made.
    pub created_at: Time,
    /// When its value was last changed.
    pub updated_at: Time,
    /// State revision of the last change.
    pub version: u64,
}

/// A volume.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct VolumeView {
    /// Id.
    pub id: String,
    /// Name.
    pub name: String,
    /// Driver.
    pub driver: String,
    /// Options of the driver.
    pub driver_opts: BTreeMap<String, String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Name of the node that holds the data; empty until first use.
    pub node: String,
    /// Where the data is on that node.
    pub mount_path: String,
    /// Services that use it.
    pub used_by: Vec<String>,
    /// When it was made.
    pub created_at: Time,
    /// State revision of the last change.
    pub version: u64,
}

/// An image on a node.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageView {
    /// Names.
    pub references: Vec<String>,
    /// Digest of its manifest.
    pub digest: String,
    /// Bytes.
    pub size_bytes: u64,
    /// Layers.
    pub layers: u32,
    /// Operating system and processor.
    pub platform: String,
    /// A service or container needs it.
    pub in_use: bool,
    /// Name of the node it is on.
    pub node: String,
    /// When it was made.
    pub created_at: Time,
}

/// All about an image.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageDetails {
    /// What the list shows.
    #[serde(flatten)]
    pub image: ImageView,
    /// Program.
    pub entrypoint: Vec<String>,
    /// Arguments.
    pub cmd: Vec<String>,
    /// Environment.
    pub env: Vec<String>,
    /// Working directory.
    pub working_dir: String,
    /// User.
    pub user: String,
    /// Stop signal.
    pub stop_signal: String,
    /// Ports it says it listens on.
    pub exposed_ports: Vec<String>,
    /// Paths it says are volumes.
    pub volumes: Vec<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Digests of its layers.
    pub layer_digests: Vec<String>,
}

/// A member of the quorum.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MemberView {
    /// Id.
    pub id: String,
    /// Address.
    pub address: String,
    /// Voter, Nonvoter or Staging.
    pub suffrage: String,
}

/// The cluster as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterView {
    /// Id.
    pub id: String,
    /// Name.
    pub name: String,
    /// Id of the leader.
    pub leader_id: String,
    /// Name of the leader.
    pub leader: String,
    /// Address of the leader.
    pub leader_address: String,
    /// Writes are possible.
    pub quorum: bool,
    /// Managers.
    pub managers: u32,
    /// Nodes.
    pub nodes: u32,
    /// Nodes that answer.
    pub nodes_ready: u32,
    /// Services.
    pub services: u32,
    /// Containers.
    pub containers: u32,
    /// Containers that run.
    pub containers_running: u32,
    /// State revision.
    pub revision: u64,
    /// Term of the leader.
    pub term: u64,
    /// SHA-256 of the CA certificate.
    pub ca_fingerprint: String,
    /// Members of the quorum.
    pub members: Vec<MemberView>,
    /// When it was made.
    pub created_at: Time,
}

/// The daemon that answered.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StatusView {
    /// Version of its program.
    pub version: String,
    /// Id of its node.
    pub node_id: String,
    /// Name of its node.
    pub node: String,
    /// Id of its cluster.
    pub cluster_id: String,
    /// manager, worker or hybrid.
    pub role: String,
    /// Ready to serve.
    pub ready: bool,
    /// It leads.
    pub leader: bool,
    /// Why it is not ready.
    pub reason: String,
    /// State revision.
    pub revision: u64,
    /// Where its data is.
    pub data_dir: String,
    /// Where its API answers.
    pub api_address: String,
    /// Process id.
    pub pid: u32,
    /// When it started.
    pub started_at: Time,
}

/// An event.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EventView {
    /// Id.
    pub id: String,
    /// Kind, such as `service.created`.
    #[serde(rename = "type")]
    pub kind: String,
    /// When.
    pub time: Time,
    /// State revision.
    pub revision: u64,
    /// In words.
    pub message: String,
    /// Ids and numbers.
    pub metadata: BTreeMap<String, String>,
}

/// One line of a log.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LogLine {
    /// Id of the container.
    pub container_id: String,
    /// Name of the container.
    pub container: String,
    /// When it was written.
    pub time: Time,
    /// It came from standard error.
    pub stderr: bool,
    /// The line, with its line end.
    pub data: Vec<u8>,
}

/// Whose log, and which lines.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LogQuery {
    /// All containers of this service.
    pub service: Option<String>,
    /// This container.
    pub container: Option<String>,
    /// Go on with new lines.
    pub follow: bool,
    /// Last lines of each container.
    pub tail: Option<u32>,
    /// From this moment on.
    pub since: Option<Timestamp>,
    /// Only standard output.
    pub stdout: bool,
    /// Only standard error.
    pub stderr: bool,
}

/// Which events.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EventQuery {
    /// Kinds; empty means all.
    pub types: Vec<String>,
    /// First the kept ones after this state revision.
    pub since: Option<u64>,
    /// Go on with new ones.
    pub follow: bool,
}

/// A command to run in a container.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ExecStart {
    /// Id of the container.
    pub container: String,
    /// Argument vector.
    pub command: Vec<String>,
    /// Environment variables to add.
    pub env: BTreeMap<String, String>,
    /// User; `None` means the container's.
    pub user: Option<String>,
    /// Directory; `None` means the container's.
    pub workdir: Option<String>,
    /// With a terminal.
    pub tty: bool,
    /// Input will follow.
    pub stdin: bool,
    /// Columns and rows of the terminal.
    pub size: Option<(u16, u16)>,
}

/// Input of a running command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExecInput {
    /// Bytes for its standard input.
    Stdin(Vec<u8>),
    /// New columns and rows of the terminal.
    Resize(u16, u16),
    /// No more input.
    Eof,
}

/// Output of a running command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExecOutput {
    /// Bytes of its standard output.
    Stdout(Vec<u8>),
    /// Bytes of its standard error.
    Stderr(Vec<u8>),
    /// It ended.
    Exit(i32),
}

/// A secret to make.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct NewSecret {
    /// Name.
    pub name: String,
    /// Value.
    pub data: Vec<u8>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
}

impl std::fmt::Debug for NewSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "NewSecret({}, {} bytes)", self.name, self.data.len())
    }
}

/// A volume to make.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NewVolume {
    /// Name.
    pub name: String,
    /// Driver.
    pub driver: String,
    /// Options of the driver.
    pub driver_opts: BTreeMap<String, String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
}

/// A change of a node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodeChange {
    /// New availability.
    pub availability: Option<Availability>,
    /// Labels to set.
    pub labels_set: BTreeMap<String, String>,
    /// Labels to remove.
    pub labels_remove: Vec<String>,
}

/// What the commands need of a cluster. Names are accepted where ids are.
#[async_trait]
pub trait Api: Send + Sync {
    /// The daemon that answers.
    async fn status(&self) -> Result<StatusView>;
    /// Stops the daemon; containers keep running. Returns its process id.
    async fn stop_daemon(&self, grace: Duration) -> Result<u32>;
    /// The cluster.
    async fn cluster(&self) -> Result<ClusterView>;

    /// All nodes.
    async fn nodes(&self) -> Result<Vec<NodeView>>;
    /// One node.
    async fn node(&self, name: &str) -> Result<NodeView>;
    /// Changes a node.
    async fn update_node(&self, name: &str, change: NodeChange) -> Result<NodeView>;
    /// Takes a node out of the cluster.
    async fn remove_node(&self, name: &str, force: bool) -> Result<()>;

    /// All services.
    async fn services(&self) -> Result<Vec<ServiceView>>;
    /// One service.
    async fn service(&self, name: &str) -> Result<ServiceView>;
    /// Makes a service; with `dry_run` only checks.
    async fn create_service(&self, spec: &ServiceSpec, dry_run: bool) -> Result<ServiceView>;
    /// Gives a service a new spec, if its version is still `expected`.
    async fn update_service(
        &self,
        id: &str,
        spec: &ServiceSpec,
        expected: u64,
        dry_run: bool,
    ) -> Result<ServiceView>;
    /// Sets the number of replicas.
    async fn scale_service(&self, name: &str, replicas: u32) -> Result<ServiceView>;
    /// Goes back to a revision; `None` means the one before.
    async fn rollback_service(&self, name: &str, to: Option<u32>) -> Result<ServiceView>;
    /// Deletes a service.
    async fn delete_service(&self, name: &str) -> Result<()>;

    /// Containers, filtered by service and node.
    async fn containers(
        &self,
        service: Option<&str>,
        node: Option<&str>,
        ended: bool,
    ) -> Result<Vec<ContainerView>>;
    /// An item whenever a container of the service changes.
    async fn watch(&self, service: &str) -> Result<BoxStream<'static, Result<()>>>;
    /// Log lines.
    async fn logs(&self, query: LogQuery) -> Result<BoxStream<'static, Result<LogLine>>>;
    /// Runs a command in a container; that it could not be run is an error of the stream.
    async fn exec(
        &self,
        start: ExecStart,
        input: mpsc::Receiver<ExecInput>,
    ) -> Result<BoxStream<'static, Result<ExecOutput>>>;

    /// Takes images out of an archive.
    async fn import_image(
        &self,
        archive: Box<dyn AsyncRead + Send + Unpin>,
        reference: Option<String>,
        node: Option<String>,
    ) -> Result<Vec<ImageView>>;
    /// Images.
    async fn images(&self, node: Option<&str>) -> Result<Vec<ImageView>>;
    /// One image.
    async fn image(&self, reference: &str) -> Result<ImageDetails>;
    /// Removes an image.
    async fn remove_image(&self, reference: &str, node: Option<&str>) -> Result<Vec<ImageView>>;

    /// All secrets.
    async fn secrets(&self) -> Result<Vec<SecretView>>;
    /// Makes a secret.
    async fn create_secret(&self, secret: NewSecret) -> Result<SecretView>;
    /// Gives a secret a new value.
    async fn update_secret(&self, name: &str, data: Vec<u8>) -> Result<SecretView>;
    /// Deletes a secret.
    async fn delete_secret(&self, name: &str) -> Result<()>;

    /// All volumes.
    async fn volumes(&self) -> Result<Vec<VolumeView>>;
    /// Makes a volume.
    async fn create_volume(&self, volume: NewVolume) -> Result<VolumeView>;
    /// Deletes a volume with its data.
    async fn delete_volume(&self, name: &str, force: bool) -> Result<()>;

    /// Events.
    async fn events(&self, query: EventQuery) -> Result<BoxStream<'static, Result<EventView>>>;
}
