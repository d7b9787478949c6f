//! What the commands need of a cluster, in types of their own.
//!
//! [`crate::remote`] implements it with the client; the tests of this crate implement it in memory.
//! The view types are also the JSON and YAML form of `-o json|yaml`: fields are only ever added.

use crate::error::Result;
mod quorum;
mod views;

pub use quorum::{
    DataKeyView, NewAuthority, NewCertificate, NewToken, NewTokenView, QuorumApi, Recovered,
    SettingsChange, SettingsView, StaleView, TokenView, UserFiles,
};
pub use views::{
    ClusterView, ContainerView, EventView, ImageDetails, ImageView, MemberView, NodeView,
    RolloutView, SecretView, ServiceView, StatusView, Time, VolumeView,
};

use async_trait::async_trait;
use futures::stream::BoxStream;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::pin::Pin;
use std::task::Poll;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::mpsc;
use warren_types::{Availability, Duration, ServiceSpec, Timestamp};

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

/// An image archive being read.
pub struct Archive(Box<dyn AsyncRead + Send + Unpin>);

impl Archive {
    /// Wraps a reader.
    pub fn new(reader: impl AsyncRead + Send + Unpin + 'static) -> Self {
        Self(Box::new(reader))
    }
}

impl std::fmt::Debug for Archive {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Archive")
    }
}

impl AsyncRead for Archive {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_read(cx, buf)
    }
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
pub trait Api: QuorumApi {
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
        archive: Archive,
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
