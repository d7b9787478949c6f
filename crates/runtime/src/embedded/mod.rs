//! Driver `embedded`: containers by libcontainer, each under a shim that outlives this process.

mod adopt;
mod exec;
mod line;
mod spawn;

use crate::cgroup::Cgroups;
use crate::driver::{
    ContainerInfo, ContainerStats, Driver, EVENT_CAPACITY, ExecHandle, ExecSpec, ExitRecord,
    LogQuery, LogStream, RuntimeEvent, RuntimeState,
};
use crate::entry::{Change, Entry};
use crate::error::{Result, RuntimeError};
use crate::record::{ContainerDir, Meta, now, try_lock};
use crate::spec::RuntimeSpec;
use crate::wire::{Reply, Request};
use async_trait::async_trait;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration as StdDuration;
use tokio::sync::broadcast;
use warren_types::{ContainerId, Duration};

/// How long a shim may take to end after its container has.
const SHIM_END_LIMIT: StdDuration = StdDuration::from_secs(5);
/// How long a container may take to end after SIGKILL.
const KILL_LIMIT: StdDuration = StdDuration::from_secs(10);
/// How long a new driver waits for the lock of one that has just ended.
const DRIVER_LOCK_LIMIT: StdDuration = StdDuration::from_secs(1);
/// Pause between two looks at a lock that has no other notification.
const LOCK_PAUSE: StdDuration = StdDuration::from_millis(2);

/// Where and by what the driver works.
#[derive(Debug, Clone)]
pub struct EmbeddedConfig {
    /// Program whose `main` calls [`crate::shim_main`]; normally the running one.
    pub shim_exe: PathBuf,
    /// State of running containers; on a file system that a reboot empties (`/run/...`). Made if missing, mode 0700.
    pub state_dir: PathBuf,
    /// Logs, one directory per container; survives reboots. Made if missing.
    pub log_dir: PathBuf,
    /// Control group below which each container has its own, such as `/warren`. No other program uses it.
    pub cgroup_root: String,
}

/// The driver. One per state directory on a host.
#[derive(Debug)]
pub struct EmbeddedDriver {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: EmbeddedConfig,
    groups: Cgroups,
    entries: Mutex<BTreeMap<ContainerId, Arc<Entry>>>,
    /// Ids whose first set-up goes on right now.
    creating: Mutex<BTreeSet<ContainerId>>,
    events: broadcast::Sender<RuntimeEvent>,
    /// Held while the driver lives: nobody else manages these containers.
    _lock: File,
}

impl EmbeddedDriver {
    /// Opens the state directory and takes over what is there: running containers go on untouched, ended
    /// ones are known with their end, remains of a crash are swept.
    pub async fn open(config: EmbeddedConfig) -> Result<Self> {
        use std::os::unix::fs::DirBuilderExt;
        for dir in [&config.state_dir, &config.log_dir] {
            let made = std::fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(dir);
            made.map_err(|e| RuntimeError::io("make the directory", dir, e))?;
        }
        let lock = take_driver_lock(&config.state_dir).await?;
        let groups = Cgroups::discover().map_err(|e| {
            RuntimeError::io("read the mount table", "/proc/self/mountinfo".as_ref(), e)
        })?;
        let inner = Arc::new(Inner {
            config,
            groups,
            entries: Mutex::new(BTreeMap::new()),
            creating: Mutex::new(BTreeSet::new()),
            events: broadcast::channel(EVENT_CAPACITY).0,
            _lock: lock,
        });
        adopt::adopt_all(&inner).await?;
        Ok(Self { inner })
    }
}

/// Takes the lock of a state directory. A killed predecessor may have left a child between its fork and its
/// exec, which holds the lock for a moment more.
async fn take_driver_lock(state_dir: &Path) -> Result<File> {
    let path = state_dir.join("driver.lock");
    let deadline = tokio::time::Instant::now() + DRIVER_LOCK_LIMIT;
    loop {
        if let Some(lock) = try_lock(&path).map_err(|e| RuntimeError::io("lock", &path, e))? {
            return Ok(lock);
        }
        if tokio::time::Instant::now() > deadline {
            return Err(RuntimeError::Busy {
                path: state_dir.to_owned(),
            });
        }
        tokio::time::sleep(LOCK_PAUSE).await;
    }
}

impl Inner {
    fn entries(&self) -> MutexGuard<'_, BTreeMap<ContainerId, Arc<Entry>>> {
        // A panic while the map was held cannot leave it half changed.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn entry(&self, id: ContainerId) -> Result<Arc<Entry>> {
        self.entries()
            .get(&id)
            .cloned()
            .ok_or(RuntimeError::NotFound { id })
    }

    fn dir(&self, id: ContainerId) -> ContainerDir {
        ContainerDir(self.config.state_dir.join(id.to_string()))
    }

    fn log_dir(&self, id: ContainerId) -> PathBuf {
        self.config.log_dir.join(id.to_string())
    }

    fn cgroup(&self, id: ContainerId) -> String {
        format!("{}/{id}", self.config.cgroup_root)
    }

    fn shim_cgroup(&self) -> String {
        format!("{}/shim", self.config.cgroup_root)
    }

    /// Puts an entry into force and follows its shim.
    fn insert(self: &Arc<Self>, entry: Arc<Entry>, subscription: Option<tokio::net::UnixStream>) {
        self.entries().insert(entry.id(), entry.clone());
        if let Some(stream) = subscription {
            tokio::spawn(line::follow(
                Arc::downgrade(self),
                self.events.clone(),
                entry,
                stream,
            ));
        }
    }

    /// Ends what a dead shim left: processes, control group; records the end if nobody has. Blocking.
    fn sweep(&self, dir: &ContainerDir, id: ContainerId) -> io::Result<ExitRecord> {
        self.groups.destroy(&self.cgroup(id))?;
        if let Some(exit) = dir.exit()? {
            return Ok(exit);
        }
        let signal = libc::SIGKILL;
        let info = warren_types::ExitInfo {
            code: 128 + signal,
            signal: Some(signal),
            oom: false,
        };
        let exit = ExitRecord {
            info,
            at: now(),
            lost: true,
        };
        dir.set_exit(&exit)?;
        Ok(exit)
    }

    /// Removes the state of a container that has ended. Blocking.
    fn remove_state(&self, id: ContainerId) -> Result<()> {
        let dir = self.dir(id);
        let deadline = std::time::Instant::now() + SHIM_END_LIMIT;
        while dir.0.exists() {
            let fail = |e| RuntimeError::io("lock", &dir.0, e);
            if dir.lock().map_err(fail)?.is_some() {
                break;
            }
            if std::time::Instant::now() > deadline
                && let Some(shim) = dir.shim().map_err(fail)?
            {
                // The lock is held, so the process id is still that of the shim.
                let pid = nix::unistd::Pid::from_raw(shim.pid.cast_signed());
                let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
            }
            std::thread::sleep(LOCK_PAUSE);
        }
        let group = self.cgroup(id);
        self.groups
            .destroy(&group)
            .map_err(|e| RuntimeError::io("remove the control group", group.as_ref(), e))?;
        remove_dir(&dir.0)
    }

    fn remove_shared_groups(&self) {
        self.groups.remove_if_empty(&self.shim_cgroup());
        if self.entries().is_empty() {
            self.groups.remove_if_empty(&self.config.cgroup_root);
        }
    }

    /// Ends a container by force and waits until that is known.
    async fn kill(self: &Arc<Self>, entry: &Arc<Entry>) -> Result<ExitRecord> {
        if let Some(exit) = entry.exit() {
            return Ok(exit);
        }
        let id = entry.id();
        // A shim that does not answer is passed by way of the control group below.
        let _ = self
            .ask(id, "kill the container", &Request::Signal(libc::SIGKILL))
            .await;
        if let Ok(exit) = tokio::time::timeout(KILL_LIMIT, entry.wait()).await {
            return exit;
        }
        let (inner, group) = (self.clone(), self.cgroup(id));
        blocking(move || {
            inner
                .groups
                .destroy(&group)
                .map_err(|e| RuntimeError::io("kill the control group", group.as_ref(), e))
        })
        .await?;
        let limit = || RuntimeError::Shim {
            id,
            action: "report the end",
            source: io::ErrorKind::TimedOut.into(),
        };
        tokio::time::timeout(KILL_LIMIT, entry.wait())
            .await
            .map_err(|_| limit())?
    }

    /// One question to a shim on a connection of its own.
    async fn ask(&self, id: ContainerId, action: &'static str, request: &Request) -> Result<Reply> {
        let fail = |source| RuntimeError::Shim { id, action, source };
        let mut stream = line::connect(&self.dir(id)).map_err(fail)?;
        line::write(&mut stream, request).await.map_err(fail)?;
        line::Frames::default()
            .next(&mut stream)
            .await
            .map_err(fail)
    }
}

/// Runs blocking work of the driver.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(RuntimeError::io(
            "finish background work on",
            "the runtime".as_ref(),
            io::Error::other(error),
        )),
    }
}

fn remove_dir(dir: &Path) -> Result<()> {
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(RuntimeError::io("remove", dir, error))
        }
        _ => Ok(()),
    }
}

#[async_trait]
impl Driver for EmbeddedDriver {
    fn name(&self) -> &'static str {
        "embedded"
    }

    async fn create(&self, spec: RuntimeSpec) -> Result<ContainerInfo> {
        spec.validate()?;
        // In a task of its own: a caller that gives up must not leave a container that nobody knows.
        let (inner, id) = (self.inner.clone(), spec.id);
        let made = tokio::spawn(async move { spawn::create(&inner, spec).await }).await;
        made.map_err(|e| RuntimeError::Create {
            id,
            reason: format!("its set-up stopped: {e}"),
        })?
    }

    async fn start(&self, id: ContainerId) -> Result<ContainerInfo> {
        let entry = self.inner.entry(id)?;
        let _turn = entry.turn.lock().await;
        let info = entry.info();
        if info.state != RuntimeState::Created {
            return Err(RuntimeError::WrongState {
                id,
                state: info.state.name(),
                action: "start",
            });
        }
        match self
            .inner
            .ask(id, "start the container", &Request::Start)
            .await?
        {
            Reply::Started { at } => {
                entry.advance(Change::Started(at), &self.inner.events);
                Ok(entry.info())
            }
            Reply::Failed { reason } => Err(RuntimeError::Start { id, reason }),
            other => Err(unexpected(id, "start the container", &other)),
        }
    }

    async fn signal(&self, id: ContainerId, signal: i32) -> Result<()> {
        let entry = self.inner.entry(id)?;
        if !(1..=64).contains(&signal) {
            return Err(RuntimeError::Invalid {
                id,
                field: "signal",
                reason: format!("{signal} is not 1 to 64"),
            });
        }
        let refuse = |state: RuntimeState| RuntimeError::WrongState {
            id,
            state: state.name(),
            action: "signal",
        };
        if entry.exit().is_some() {
            return Err(refuse(entry.info().state));
        }
        match self
            .inner
            .ask(id, "send the signal", &Request::Signal(signal))
            .await
        {
            Ok(Reply::Signalled { .. }) => Ok(()),
            Ok(other) => Err(unexpected(id, "send the signal", &other)),
            // It ended while we asked.
            Err(error) => Err(if entry.exit().is_some() {
                refuse(entry.info().state)
            } else {
                error
            }),
        }
    }

    async fn stop(&self, id: ContainerId, grace: Duration) -> Result<ExitRecord> {
        let entry = self.inner.entry(id)?;
        if let Some(exit) = entry.exit() {
            return Ok(exit);
        }
        let asked = self
            .inner
            .ask(
                id,
                "stop the container",
                &Request::Stop(entry.meta.stop_signal),
            )
            .await;
        if matches!(asked, Ok(Reply::Signalled { effective: true }))
            && entry.info().state == RuntimeState::Running
            && let Ok(exit) = tokio::time::timeout(grace.to_std(), entry.wait()).await
        {
            return exit;
        }
        self.inner.kill(&entry).await
    }

    async fn wait(&self, id: ContainerId) -> Result<ExitRecord> {
        self.inner.entry(id)?.wait().await
    }

    async fn delete(&self, id: ContainerId) -> Result<()> {
        let inner = self.inner.clone();
        if let Ok(entry) = inner.entry(id) {
            let _turn = entry.turn.lock().await;
            inner.kill(&entry).await?;
            let work = inner.clone();
            blocking(move || {
                work.remove_state(id)?;
                remove_dir(&work.log_dir(id))
            })
            .await?;
            inner.entries().remove(&id);
            entry.removed();
        } else {
            remove_dir(&inner.log_dir(id))?;
        }
        inner.remove_shared_groups();
        Ok(())
    }

    async fn list(&self) -> Result<Vec<ContainerInfo>> {
        Ok(self.inner.entries().values().map(|e| e.info()).collect())
    }

    async fn inspect(&self, id: ContainerId) -> Result<ContainerInfo> {
        Ok(self.inner.entry(id)?.info())
    }

    fn events(&self) -> broadcast::Receiver<RuntimeEvent> {
        self.inner.events.subscribe()
    }

    async fn exec(&self, id: ContainerId, spec: ExecSpec) -> Result<ExecHandle> {
        let entry = self.inner.entry(id)?;
        let state = entry.info().state;
        if state != RuntimeState::Running {
            return Err(RuntimeError::WrongState {
                id,
                state: state.name(),
                action: "run a command in",
            });
        }
        exec::exec(id, &self.inner.dir(id), spec).await
    }

    async fn logs(&self, id: ContainerId, query: LogQuery) -> Result<LogStream> {
        let entry = self.inner.entry(id)?;
        let dir = self.inner.log_dir(id);
        std::fs::create_dir_all(&dir)
            .map_err(|e| RuntimeError::io("make the directory", &dir, e))?;
        Ok(crate::logs::reader::stream(dir, query, entry.ended()))
    }

    async fn stats(&self, id: ContainerId) -> Result<ContainerStats> {
        let entry = self.inner.entry(id)?;
        let state = entry.info().state;
        if entry.exit().is_some() {
            return Err(RuntimeError::WrongState {
                id,
                state: state.name(),
                action: "measure",
            });
        }
        let group = self.inner.cgroup(id);
        self.inner
            .groups
            .stats(&group)
            .map_err(|e| RuntimeError::io("read the control group", group.as_ref(), e))
    }
}

fn unexpected(id: ContainerId, action: &'static str, reply: &Reply) -> RuntimeError {
    let text = match reply {
        Reply::Failed { reason } => reason.clone(),
        other => format!("unexpected answer {other:?}"),
    };
    RuntimeError::Shim {
        id,
        action,
        source: io::Error::other(text),
    }
}

/// What is kept about a container for taking it over.
fn meta(spec: &RuntimeSpec) -> Meta {
    Meta {
        id: spec.id,
        attempt: spec.attempt,
        name: spec.name.clone(),
        stop_signal: spec.stop_signal,
    }
}
