//! What every driver can do. The worker talks to containers through this trait alone.

use crate::error::Result;
use crate::spec::{RuntimeSpec, UserIds};
use async_trait::async_trait;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::broadcast;
use warren_types::{ContainerId, Duration, ExitInfo, Timestamp};

/// Events kept for a subscriber that is slow; one that falls further behind is told so and must `list`.
pub const EVENT_CAPACITY: usize = 1024;

/// How and when a container ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitRecord {
    /// Status, signal, out of memory.
    pub info: ExitInfo,
    /// When the end was seen.
    pub at: Timestamp,
    /// The true status is unknown: the supervising shim vanished and the container was ended by force.
    pub lost: bool,
}

/// Where a container is, seen from the runtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RuntimeState {
    /// Set up completely; its program has not begun.
    Created,
    /// Its program runs.
    Running,
    /// Its program ended.
    Exited(ExitRecord),
}

impl RuntimeState {
    /// Name in lower case.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Exited(_) => "exited",
        }
    }
}

/// One container as the runtime knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerInfo {
    /// Id.
    pub id: ContainerId,
    /// Number of the start, from 1.
    pub attempt: u32,
    /// Name for people.
    pub name: String,
    /// State.
    pub state: RuntimeState,
    /// Process id of the main process on the host while it lives.
    pub pid: Option<u32>,
    /// When its program began.
    pub started_at: Option<Timestamp>,
}

/// Something happened to a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RuntimeEvent {
    /// Its program began.
    Started {
        /// Container.
        id: ContainerId,
        /// Number of the start.
        attempt: u32,
        /// Process id on the host.
        pid: u32,
        /// When.
        at: Timestamp,
    },
    /// Its program ended.
    Exited {
        /// Container.
        id: ContainerId,
        /// Number of the start.
        attempt: u32,
        /// How and when.
        exit: ExitRecord,
    },
}

/// A command to run in a running container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecSpec {
    /// Program and arguments.
    pub args: Vec<String>,
    /// Added to the container's environment, `KEY=VALUE`; replaces entries of the same key.
    pub env: Vec<String>,
    /// Working directory; `None` is the container's.
    pub cwd: Option<PathBuf>,
    /// User; `None` is the container's.
    pub user: Option<UserIds>,
    /// Give it a terminal; stdout and stderr are then one stream.
    pub tty: bool,
    /// The caller writes to its input; otherwise the input is empty.
    pub stdin: bool,
}

impl ExecSpec {
    /// A command without terminal and input.
    #[must_use]
    pub fn new(args: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            args: args.into_iter().map(Into::into).collect(),
            env: Vec::new(),
            cwd: None,
            user: None,
            tty: false,
            stdin: false,
        }
    }
}

/// Acts on a running exec.
#[async_trait]
pub trait ExecControl: Send + Sync {
    /// Sets the terminal's size in characters; without a terminal nothing happens.
    async fn resize(&self, columns: u16, rows: u16) -> Result<()>;
    /// Sends a signal to the process.
    async fn signal(&self, signal: i32) -> Result<()>;
}

/// A running exec. When `control` and `exit` are both dropped, the process is killed.
pub struct ExecHandle {
    /// Its input, if asked for; dropping it is end of input (without a terminal).
    pub stdin: Option<Pin<Box<dyn AsyncWrite + Send>>>,
    /// Its output.
    pub stdout: Pin<Box<dyn AsyncRead + Send>>,
    /// Its error output; `None` with a terminal.
    pub stderr: Option<Pin<Box<dyn AsyncRead + Send>>>,
    /// Acts on it.
    pub control: Arc<dyn ExecControl>,
    /// Resolves when it ends.
    pub exit: BoxFuture<'static, Result<ExitInfo>>,
}

impl std::fmt::Debug for ExecHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ExecHandle")
            .field("stdin", &self.stdin.is_some())
            .field("tty", &self.stderr.is_none())
            .finish()
    }
}

/// Where a log line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogSource {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// The runtime itself, about the log.
    System,
}

/// One line of a container's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// When it was read from the container.
    pub time: Timestamp,
    /// Its stream.
    pub source: LogSource,
    /// The line without its newline.
    pub bytes: Vec<u8>,
    /// The line goes on in the next entry of this stream (it was too long for one).
    pub partial: bool,
}

/// Which lines are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogQuery {
    /// Go on with new lines until the container has ended (or is deleted).
    pub follow: bool,
    /// Only this many of the last lines that are kept, then the new ones.
    pub tail: Option<u64>,
    /// Only lines from this moment on.
    pub since: Option<Timestamp>,
    /// With standard output.
    pub stdout: bool,
    /// With standard error.
    pub stderr: bool,
}

impl Default for LogQuery {
    fn default() -> Self {
        Self {
            follow: false,
            tail: None,
            since: None,
            stdout: true,
            stderr: true,
        }
    }
}

/// Lines in order. Dropping the stream ends the reading.
pub type LogStream = BoxStream<'static, Result<LogLine>>;

/// What a container uses now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ContainerStats {
    /// CPU time used since the start, in microseconds.
    pub cpu_usec: u64,
    /// Memory in use, in bytes, page cache that can be given back not counted.
    pub memory_bytes: u64,
    /// Memory limit in bytes; `None` is unlimited.
    pub memory_limit_bytes: Option<u64>,
    /// Processes and threads.
    pub pids: u64,
}

/// Runs containers on this node.
///
/// All calls may be made concurrently; calls about one container are done one after another.
#[async_trait]
pub trait Driver: Send + Sync {
    /// Name of the driver, such as `embedded`.
    fn name(&self) -> &'static str;

    /// Sets a container up completely, without running its program. A container that has ended is
    /// replaced when `attempt` is higher; its log goes on.
    async fn create(&self, spec: RuntimeSpec) -> Result<ContainerInfo>;

    /// Runs the program of a created container; returns when it truly executes.
    async fn start(&self, id: ContainerId) -> Result<ContainerInfo>;

    /// Sends a signal to the main process.
    async fn signal(&self, id: ContainerId, signal: i32) -> Result<()>;

    /// Ends a container: its stop signal, then after `grace` SIGKILL. A main process for which the kernel
    /// discards the signal (it neither handles, ignores nor blocks it) is killed without waiting.
    async fn stop(&self, id: ContainerId, grace: Duration) -> Result<ExitRecord>;

    /// Waits for the end of a container.
    async fn wait(&self, id: ContainerId) -> Result<ExitRecord>;

    /// Removes a container and all that was made for it, its log included; kills it first if it runs.
    /// Unknown containers are no error.
    async fn delete(&self, id: ContainerId) -> Result<()>;

    /// All containers, by id.
    async fn list(&self) -> Result<Vec<ContainerInfo>>;

    /// One container.
    async fn inspect(&self, id: ContainerId) -> Result<ContainerInfo>;

    /// What happens from now on.
    fn events(&self) -> broadcast::Receiver<RuntimeEvent>;

    /// Runs a command in a running container.
    async fn exec(&self, id: ContainerId, spec: ExecSpec) -> Result<ExecHandle>;

    /// Reads the log.
    async fn logs(&self, id: ContainerId, query: LogQuery) -> Result<LogStream>;

    /// Reads what it uses.
    async fn stats(&self, id: ContainerId) -> Result<ContainerStats>;
}
