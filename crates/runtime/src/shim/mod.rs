//! The shim: a small process per container that outlives the daemon.
//!
//! The daemon's own binary re-executes itself as `PROGRAM __shim DIR`. The shim leaves the daemon's session,
//! sets the container up, is its parent, writes its log, records its end durably, and answers on a unix socket
//! in DIR. It has one thread and no async runtime.

mod create;
mod executor;
mod helper;
mod inside;
mod server;
mod streams;

use crate::cgroup::Cgroups;
use crate::record::{ContainerDir, SOCKET, ShimRecord};
use crate::wire::{self, CreateOrder, Reply};
use crate::{capability, seccomp};
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

/// First argument that makes the program a shim.
pub const SHIM_ARGUMENT: &str = "__shim";
/// How unwilling the host is to end a shim when memory is short (-1000 to 1000).
const SHIM_OOM_SCORE: &str = "-900";

/// Runs the shim if the program was called as one: `args` are all arguments, the program's name first.
/// `None` means that this is an ordinary call.
///
/// Must be called before any thread is started.
#[must_use]
pub fn shim_main(args: &[OsString]) -> Option<i32> {
    match args {
        [_, word, dir] if word == SHIM_ARGUMENT => Some(i32::from(run(Path::new(dir)).is_err())),
        [_, word, ..] if word == SHIM_ARGUMENT => Some(2),
        _ => None,
    }
}

/// What the shim holds for as long as it lives.
struct Held {
    lock: OwnedFd,
    orders: UnixStream,
}

fn run(dir: &Path) -> io::Result<()> {
    if leave_daemon()? {
        return Ok(());
    }
    let dir = ContainerDir(dir.to_owned());
    let mut held = take_descriptors(&dir)?;
    let order: CreateOrder = wire::read(&mut held.orders)?;
    let mut contents = Vec::new();
    for file in &order.files {
        let mut content = vec![0; file.length.min(crate::spec::MAX_FILE_BYTES)];
        held.orders.read_exact(&mut content)?;
        contents.push(content);
    }
    match prepare(&order, contents, &dir, &held) {
        Ok(server) => {
            let Held { lock, mut orders } = held;
            // The daemon may have been killed meanwhile; the next one finds the container by its directory.
            let _ = wire::write(
                &mut orders,
                &Reply::Created {
                    pid: server.pid().unsigned_abs(),
                },
            );
            drop(orders);
            let result = server.run();
            drop(lock);
            result
        }
        Err(reason) => {
            if let Ok(groups) = Cgroups::discover() {
                let _ = groups.destroy(&order.cgroup);
            }
            wire::write(&mut held.orders, &Reply::Failed { reason })
        }
    }
}

fn prepare(
    order: &CreateOrder,
    contents: Vec<Vec<u8>>,
    dir: &ContainerDir,
    held: &Held,
) -> Result<server::Server, String> {
    let say = |what: &str, error: io::Error| format!("{what}: {error}");
    let signals = server::signals().map_err(|e| say("signals", e))?;
    nix::sys::prctl::set_child_subreaper(true).map_err(|e| say("become the reaper", e.into()))?;
    let listener = wire::listen(&dir.0, SOCKET).map_err(|e| say("listen", e))?;
    dir.set_shim(ShimRecord {
        pid: std::process::id(),
    })
    .map_err(|e| say("record the shim", e))?;
    let groups = Cgroups::discover().map_err(|e| say("control groups", e))?;
    // Where a service manager also uses version 1, the container's processes must inherit the place, so the move
    // comes first; otherwise they get a group of their own and the move can wait until the program runs.
    if !groups.is_unified() {
        move_aside(&groups, &order.shim_cgroup);
    }
    let set = capability::effective_set(&order.spec.capabilities)?;
    let profile = seccomp::profile(&set, !groups.is_unified())?;
    let close = [
        held.lock.as_raw_fd(),
        held.orders.as_raw_fd(),
        listener.as_raw_fd(),
        signals.as_raw_fd(),
    ];
    let created = create::create(order, contents, dir, &profile, &close)?;
    let oom_score =
        std::fs::read_to_string("/proc/self/oom_score_adj").unwrap_or_else(|_| "0".into());
    let _ = std::fs::write("/proc/self/oom_score_adj", SHIM_OOM_SCORE);
    server::Server::new(server::Parts {
        spec: order.spec.clone(),
        cgroup: order.cgroup.clone(),
        shim_cgroup: order.shim_cgroup.clone(),
        log_dir: order.log_dir.clone(),
        dir: dir.clone(),
        groups,
        profile,
        listener,
        signals,
        lock: held.lock.as_raw_fd(),
        oom_score: oom_score.trim().to_owned(),
        created,
    })
    .map_err(|e| say("serve", e))
}

/// Without this, stopping the daemon's service may end containers, which is no reason not to run them.
fn move_aside(groups: &Cgroups, group: &str) {
    let _ = groups.move_aside(group);
}

/// Goes on in a grandchild in its own session; true in the process that the daemon waits for.
#[allow(unsafe_code, reason = "fork")]
fn leave_daemon() -> io::Result<bool> {
    // SAFETY: this is the first thing the program does, there is one thread.
    match unsafe { nix::unistd::fork() }? {
        nix::unistd::ForkResult::Parent { .. } => Ok(true),
        nix::unistd::ForkResult::Child => {
            nix::unistd::setsid()?;
            nix::unistd::chdir("/")?;
            nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
            Ok(false)
        }
    }
}

/// The daemon passes its end of a socket as standard input and the lock as standard error. Both move to
/// descriptors that no program inherits.
fn take_descriptors(dir: &ContainerDir) -> io::Result<Held> {
    let orders = UnixStream::from(io::stdin().as_fd_owned()?);
    let lock = io::stderr().as_fd_owned()?;
    let errors: PathBuf = dir.0.join("shim.err");
    let errors = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(errors)?;
    let null = File::open("/dev/null")?;
    nix::unistd::dup2_stdin(&null)?;
    nix::unistd::dup2_stderr(&errors)?;
    Ok(Held { lock, orders })
}

trait AsFdOwned {
    fn as_fd_owned(&self) -> io::Result<OwnedFd>;
}

impl<T: std::os::fd::AsFd> AsFdOwned for T {
    /// A copy of the descriptor that is closed on execve.
    fn as_fd_owned(&self) -> io::Result<OwnedFd> {
        self.as_fd().try_clone_to_owned()
    }
}
