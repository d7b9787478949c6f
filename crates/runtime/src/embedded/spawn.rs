//! Making a container: directory, shim, hand-over of the description.

use super::line;
use super::{Inner, blocking, meta};
use crate::driver::{ContainerInfo, RuntimeState};
use crate::entry::Entry;
use crate::error::{Result, RuntimeError};
use crate::record::ContainerDir;
use crate::shim::SHIM_ARGUMENT;
use crate::spec::{RuntimeMount, RuntimeSpec};
use crate::wire::{self, CreateOrder, FileHead, Reply};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use warren_types::ContainerId;

/// How long the set-up of one container may take.
const CREATE_LIMIT: Duration = Duration::from_secs(60);

/// Makes a container, or the next attempt of one that has ended.
pub(super) async fn create(inner: &Arc<Inner>, spec: RuntimeSpec) -> Result<ContainerInfo> {
    let id = spec.id;
    let before = inner.entries().get(&id).cloned();
    let _turn = match &before {
        Some(entry) => Some(entry.turn.lock().await),
        None => None,
    };
    let next = before
        .as_ref()
        .is_none_or(|e| e.exit().is_some() && spec.attempt > e.meta.attempt);
    if !next {
        let attempt = before.as_ref().map_or(0, |e| e.meta.attempt);
        return Err(RuntimeError::Exists { id, attempt });
    }
    let _creating = Creating::enter(inner, id).ok_or(RuntimeError::Exists {
        id,
        attempt: spec.attempt,
    })?;
    let (work, meta) = (inner.clone(), meta(&spec));
    let pid = blocking(move || set_up(&work, &spec)).await?;
    let fail = |source| RuntimeError::Shim {
        id,
        action: "take over the container",
        source,
    };
    let (state, stream) = line::subscribe(&inner.dir(id)).await.map_err(fail)?;
    let entry = Entry::new(meta, RuntimeState::Created, Some(pid), state.started_at);
    inner.insert(entry.clone(), Some(stream));
    Ok(entry.info())
}

/// Marks an id as being set up, so that a second call for it is refused.
struct Creating<'a> {
    inner: &'a Inner,
    id: ContainerId,
}

impl<'a> Creating<'a> {
    fn enter(inner: &'a Inner, id: ContainerId) -> Option<Self> {
        let mut creating = inner
            .creating
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        creating.insert(id).then_some(Self { inner, id })
    }
}

impl Drop for Creating<'_> {
    fn drop(&mut self) {
        self.inner
            .creating
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.id);
    }
}

/// Blocking part; leaves nothing behind on failure.
fn set_up(inner: &Inner, spec: &RuntimeSpec) -> Result<u32> {
    let id = spec.id;
    missing_part(spec).map_err(|reason| RuntimeError::Create { id, reason })?;
    inner.remove_state(id)?;
    let dir = inner.dir(id);
    let made = start_shim(inner, spec, &dir).map_err(|error| match error {
        RuntimeError::Create { id, reason } => RuntimeError::Create {
            id,
            reason: explain(spec, &reason),
        },
        other => other,
    });
    if made.is_err() {
        // The first failure is the one to report.
        let _ = inner.remove_state(spec.id);
    }
    made
}

/// Looks for what must exist on the host, because libcontainer does not say which it missed.
fn missing_part(spec: &RuntimeSpec) -> std::result::Result<(), String> {
    if !spec.rootfs.is_dir() {
        return Err(format!(
            "its root file system {} is not there; prepare the image again",
            spec.rootfs.display()
        ));
    }
    for mount in &spec.mounts {
        if let RuntimeMount::Bind { source, target, .. } = mount
            && let Err(error) = source.symlink_metadata()
        {
            let (source, target) = (source.display(), target.display());
            return Err(format!(
                "{source}, to be mounted at {target}, cannot be used: {error}; make it first"
            ));
        }
    }
    match &spec.netns {
        Some(path) if !path.exists() => Err(format!(
            "its network namespace {} is not there",
            path.display()
        )),
        _ => Ok(()),
    }
}

/// Makes libcontainer's words useful: without its preamble, and with the usual reason for a bare error.
fn explain(spec: &RuntimeSpec, reason: &str) -> String {
    const PREAMBLES: [&str; 2] = [
        "failed to create container: ",
        "exec process failed with error error in executing process : ",
    ];
    let mut text = reason;
    for preamble in PREAMBLES {
        text = text.strip_prefix(preamble).unwrap_or(text);
    }
    let hidden = spec.mounts.iter().any(|m| spec.cwd.starts_with(m.target()));
    if !hidden
        && !crate::users::open_inside(&spec.rootfs, &spec.cwd)
            .is_ok_and(|f| f.metadata().is_ok_and(|m| m.is_dir()))
    {
        return format!(
            "its working directory {} is not in the image ({text})",
            spec.cwd.display()
        );
    }
    text.to_owned()
}

fn start_shim(inner: &Inner, spec: &RuntimeSpec, dir: &ContainerDir) -> Result<u32> {
    let io_fail = |action| move |e| RuntimeError::io(action, &dir.0, e);
    std::fs::DirBuilder::new()
        .mode(0o700)
        .create(&dir.0)
        .map_err(io_fail("make the directory"))?;
    dir.set_meta(&meta(spec))
        .map_err(io_fail("write the record in"))?;
    let lock = dir.lock().map_err(io_fail("lock"))?;
    let lock = lock.ok_or_else(|| RuntimeError::Busy {
        path: dir.0.clone(),
    })?;
    let create_fail = |reason: String| RuntimeError::Create {
        id: spec.id,
        reason,
    };
    let (ours, theirs) = UnixStream::pair().map_err(io_fail("open a socket for"))?;
    launch(inner, dir, theirs, lock)
        .map_err(|e| create_fail(format!("the shim could not be run: {e}")))?;
    match hand_over(inner, spec, ours) {
        Ok(Reply::Created { pid }) => Ok(pid),
        Ok(Reply::Failed { reason }) => Err(create_fail(reason)),
        Ok(other) => Err(create_fail(format!("the shim answered {other:?}"))),
        Err(error) => {
            let said = std::fs::read_to_string(dir.0.join("shim.err")).unwrap_or_default();
            Err(create_fail(format!(
                "the shim ended or hangs: {error} {}",
                said.trim()
            )))
        }
    }
}

/// Runs the shim; returns when it has left this process's family. The lock goes with it.
fn launch(inner: &Inner, dir: &ContainerDir, socket: UnixStream, lock: File) -> io::Result<()> {
    let status = Command::new(&inner.config.shim_exe)
        .arg(SHIM_ARGUMENT)
        .arg(&dir.0)
        .env_clear()
        .stdin(Stdio::from(OwnedFd::from(socket)))
        .stdout(Stdio::null())
        .stderr(Stdio::from(lock))
        .status()?;
    if status.success() {
        Ok(())
    } else {
        Err(io::Error::other(status.to_string()))
    }
}

fn hand_over(inner: &Inner, spec: &RuntimeSpec, mut socket: UnixStream) -> io::Result<Reply> {
    socket.set_read_timeout(Some(CREATE_LIMIT))?;
    socket.set_write_timeout(Some(CREATE_LIMIT))?;
    let files = spec.files.iter().map(|f| FileHead {
        target: f.target.clone(),
        length: f.content.len(),
        mode: f.mode,
        uid: f.uid,
        gid: f.gid,
    });
    let order = CreateOrder {
        spec: spec.clone(),
        cgroup: inner.cgroup(spec.id),
        log_dir: inner.log_dir(spec.id),
        shim_cgroup: inner.shim_cgroup(),
        files: files.collect(),
    };
    wire::write(&mut socket, &order)?;
    for file in &spec.files {
        socket.write_all(&file.content)?;
    }
    wire::read(&mut socket)
}
