//! Taking over what an earlier daemon left: running, ended, and broken containers.

use super::line;
use super::{Inner, blocking};
use crate::driver::RuntimeState;
use crate::entry::Entry;
use crate::error::{Result, RuntimeError};
use crate::record::{ContainerDir, Meta};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use warren_types::ContainerId;

/// How long a shim that was just being started when the daemon died may take until it answers.
const SETTLE_LIMIT: Duration = Duration::from_secs(30);
/// Pause between two attempts to reach such a shim.
const SETTLE_PAUSE: Duration = Duration::from_millis(5);

/// Takes all containers of the state directory over.
pub(super) async fn adopt_all(inner: &Arc<Inner>) -> Result<()> {
    let dir = &inner.config.state_dir;
    let fail = |e| RuntimeError::io("read the directory", dir, e);
    let mut ids: Vec<ContainerId> = Vec::new();
    for item in std::fs::read_dir(dir).map_err(fail)? {
        let name = item.map_err(fail)?.file_name();
        ids.extend(name.to_str().and_then(|n| n.parse::<ContainerId>().ok()));
    }
    for id in ids {
        adopt(inner, id).await?;
    }
    let work = inner.clone();
    blocking(move || {
        sweep_groups(&work);
        Ok(())
    })
    .await
}

async fn adopt(inner: &Arc<Inner>, id: ContainerId) -> Result<()> {
    let dir = inner.dir(id);
    let fail = |e| RuntimeError::io("read the record in", &dir.0, e);
    // A record that cannot be read is as good as none: nothing can be said about that container.
    let Some(meta) = dir.meta().unwrap_or(None) else {
        let work = inner.clone();
        return blocking(move || {
            let group = work.cgroup(id);
            let destroyed = work.groups.destroy(&group);
            destroyed
                .map_err(|e| RuntimeError::io("remove the control group", group.as_ref(), e))?;
            work.remove_state(id)
        })
        .await;
    };
    loop {
        let dead = dir.lock().map_err(fail)?.is_some();
        if dead || dir.exit().map_err(fail)?.is_some() {
            return adopt_dead(inner, dir, meta).await;
        }
        let subscribed = tokio::time::timeout(SETTLE_LIMIT, reach(&dir)).await;
        match subscribed {
            Ok(Ok((state, stream))) => {
                let entry = Entry::new(meta, state.state, Some(state.pid), state.started_at);
                inner.insert(entry, Some(stream));
                return Ok(());
            }
            // It ended while we asked; look at its record.
            Ok(Err(_)) => {}
            Err(_) => {
                if let Some(shim) = dir.shim().map_err(fail)? {
                    // The lock is held, so the process id is still that of the shim.
                    let pid = nix::unistd::Pid::from_raw(shim.pid.cast_signed());
                    let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
                }
            }
        }
        tokio::time::sleep(SETTLE_PAUSE).await;
    }
}

/// Subscribes; goes on trying while the shim lives but does not listen yet.
async fn reach(dir: &ContainerDir) -> io::Result<(crate::wire::ShimState, tokio::net::UnixStream)> {
    loop {
        match line::subscribe(dir).await {
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
                ) =>
            {
                if dir.lock()?.is_some() {
                    return Err(error);
                }
                tokio::time::sleep(SETTLE_PAUSE).await;
            }
            other => return other,
        }
    }
}

async fn adopt_dead(inner: &Arc<Inner>, dir: ContainerDir, meta: Meta) -> Result<()> {
    let (work, id) = (inner.clone(), meta.id);
    let exit = blocking(move || {
        work.sweep(&dir, id)
            .map_err(|e| RuntimeError::io("clean up", &dir.0, e))
    })
    .await?;
    inner.insert(
        Entry::new(meta, RuntimeState::Exited(exit), None, None),
        None,
    );
    Ok(())
}

/// Ends control groups that belong to no container we know. Blocking.
fn sweep_groups(inner: &Inner) {
    let root = &inner.config.cgroup_root;
    for name in inner.groups.children(root) {
        let Ok(id) = name.parse::<ContainerId>() else {
            continue;
        };
        let known = inner.entries().get(&id).is_some_and(|e| e.exit().is_none());
        if !known && let Err(error) = inner.groups.destroy(&inner.cgroup(id)) {
            tracing::warn!(container = %id, %error, "a control group of nobody could not be removed");
        }
    }
}
