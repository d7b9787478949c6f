//! Setting one container up by libcontainer, and running further processes in it.

use super::executor::ConfinedExecutor;
use super::helper::{self, Outcome, Work};
use super::inside;
use crate::driver::ExecSpec;
use crate::error::chain;
use crate::oci::{self, HostFile};
use crate::record::ContainerDir;
use crate::seccomp::Profile;
use crate::spec::RuntimeSpec;
use crate::wire::{self, CreateOrder, FileHead};
use libcontainer::container::builder::ContainerBuilder;
use libcontainer::container::{Container, ContainerStatus};
use libcontainer::syscall::syscall::SyscallType;
use std::cell::RefCell;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

/// A container that waits for its start.
#[derive(Debug)]
pub(super) struct Created {
    /// Main process.
    pub pid: i32,
    /// Says why execve failed; closed without a word when it succeeded.
    pub report: OwnedFd,
    /// Output and error output.
    pub streams: [OwnedFd; 2],
}

/// Sets the container up; nothing is left of it on error but the directory and possibly the control group.
pub(super) fn create(
    order: &CreateOrder,
    contents: Vec<Vec<u8>>,
    dir: &ContainerDir,
    profile: &Profile,
    close: &[RawFd],
) -> Result<Created, String> {
    let files: Vec<(FileHead, Vec<u8>)> = order
        .files
        .iter()
        .map(|f| FileHead {
            target: f.target.clone(),
            ..*f
        })
        .zip(contents)
        .collect();
    write_bundle(order, dir).map_err(|e| format!("{}: {e}", dir.0.display()))?;
    let pipes =
        || -> Result<(OwnedFd, OwnedFd), String> { pipe().map_err(|e| format!("pipe: {e}")) };
    let ((report, report_in), (out, out_in), (err, err_in)) = (pipes()?, pipes()?, pipes()?);
    let user = &order.spec.user;
    for stream in [&out_in, &err_in] {
        // The program may open /dev/stdout anew, which needs the ownership.
        nix::unistd::fchown(stream, Some(user.uid.into()), Some(user.gid.into()))
            .map_err(|e| format!("pipe owner: {e}"))?;
    }
    let mut close = close.to_vec();
    close.extend([&report, &out, &err].map(AsRawFd::as_raw_fd));
    let executor = ConfinedExecutor {
        profile: profile.clone(),
        report: report_in.as_raw_fd(),
        close,
        home: RefCell::default(),
    };
    let (id, dir, own_network) = (
        order.spec.id.to_string(),
        dir.clone(),
        order.spec.netns.is_none(),
    );
    let socket = helper::spawn(move || {
        let _report_in = report_in;
        let null = File::open("/dev/null").map_err(|e| format!("/dev/null: {e}"))?;
        let pid = build_init(&id, &dir, executor, [null.into(), out_in, err_in])
            .map_err(|e| chain(&e))?;
        inside::finish(pid, own_network, &files).inspect_err(|_| {
            // The waiting process must not stay when the container is refused.
            let _ = nix::sys::signal::kill(
                nix::unistd::Pid::from_raw(pid),
                nix::sys::signal::Signal::SIGKILL,
            );
        })?;
        Ok((pid, None))
    })
    .map_err(|e| format!("start the set-up process: {e}"))?;
    match helper::outcome(&socket) {
        (Outcome::Done(pid), _) => Ok(Created {
            pid,
            report,
            streams: [out, err],
        }),
        (Outcome::Failed(reason), _) => Err(reason),
    }
}

type LibResult<T> = Result<T, libcontainer::error::LibcontainerError>;

fn build_init(
    id: &str,
    dir: &ContainerDir,
    executor: ConfinedExecutor,
    stdio: [OwnedFd; 3],
) -> LibResult<i32> {
    let [stdin, stdout, stderr] = stdio;
    let container = ContainerBuilder::new(id.to_owned(), SyscallType::default())
        .with_root_path(dir.oci())?
        .with_executor(executor)
        .with_stdin(stdin)
        .with_stdout(stdout)
        .with_stderr(stderr)
        .as_init(dir.bundle())
        .with_systemd(false)
        .with_detach(true)
        .as_sibling(true)
        .build()?;
    container
        .pid()
        .map(nix_pid)
        .ok_or(libcontainer::error::LibcontainerError::NoDirectory)
}

/// libcontainer is built with another version of nix, whose type is not ours.
fn nix_pid(pid: impl std::fmt::Display) -> i32 {
    pid.to_string().parse().unwrap_or_default()
}

fn write_bundle(order: &CreateOrder, dir: &ContainerDir) -> io::Result<()> {
    let spec = &order.spec;
    fs::create_dir_all(dir.bundle())?;
    fs::create_dir_all(dir.oci())?;
    let mut host_files = Vec::new();
    let mut add = |name: &str, content: &str, target: &Path| -> io::Result<()> {
        let source = dir.0.join(name);
        fs::write(&source, content)?;
        host_files.push(HostFile {
            source,
            target: target.to_owned(),
        });
        Ok(())
    };
    for (name, content, target) in [
        ("resolv.conf", &spec.resolv_conf, "/etc/resolv.conf"),
        ("hosts", &spec.hosts, "/etc/hosts"),
    ] {
        if let Some(content) = content {
            add(name, content, Path::new(target))?;
        }
    }
    for file in order
        .files
        .iter()
        .filter(|f| !f.target.starts_with(oci::SECRETS_DIR))
    {
        add("empty", "", &file.target)?;
    }
    // The secrets' mount hangs on the presence of files, which do not travel inside the description.
    let mut described = spec.clone();
    described.files = order.files.iter().map(placeholder).collect();
    let bundle = oci::bundle(&described, &order.cgroup, &host_files).map_err(io::Error::other)?;
    fs::write(
        dir.bundle().join("config.json"),
        serde_json::to_vec(&bundle)?,
    )
}

fn placeholder(head: &FileHead) -> crate::spec::RuntimeFile {
    crate::spec::RuntimeFile {
        target: head.target.clone(),
        content: Vec::new(),
        mode: head.mode,
        uid: head.uid,
        gid: head.gid,
    }
}

/// Lets the waiting main process execute its program.
pub(super) fn start(id: &str, dir: &ContainerDir) -> Result<(), String> {
    let path = dir
        .oci()
        .join(id)
        .join(libcontainer::notify_socket::NOTIFY_FILE);
    libcontainer::notify_socket::NotifySocket::new(path)
        .notify_container_start()
        .map_err(|e| chain(&e))
}

/// What a further process needs.
pub(super) struct ExecOrder<'a> {
    /// The container.
    pub spec: &'a RuntimeSpec,
    /// Its directory.
    pub dir: &'a ContainerDir,
    /// The command.
    pub exec: ExecSpec,
    /// Number that makes file names unique.
    pub number: u64,
    /// Standard streams; none with a terminal.
    pub fds: Vec<OwnedFd>,
    /// Filters.
    pub profile: &'a Profile,
    /// What the process must not hold.
    pub close: Vec<RawFd>,
    /// Readiness of the host to kill it when memory is short, as it was before the shim protected itself.
    pub oom_score: String,
}

/// Runs in a helper: starts the process and returns its id, with the terminal if there is one.
pub(super) fn exec(order: ExecOrder<'_>) -> Work {
    let say = |what: &str, e: &dyn std::error::Error| format!("{what}: {}", chain(e));
    fs::write("/proc/self/oom_score_adj", &order.oom_score)
        .map_err(|e| say("oom_score_adj", &e))?;
    let id = order.spec.id.to_string();
    let file = order.dir.0.join(format!("exec-{}.json", order.number));
    let process = oci::process(order.spec, &order.exec)?;
    let json = serde_json::to_vec(&process).map_err(|e| say("process", &e))?;
    fs::write(&file, json).map_err(|e| say("process file", &e))?;
    let made = exec_with_file(order, &id, &file);
    // The file is of no use any more, whatever became of it.
    let _ = fs::remove_file(&file);
    made
}

fn exec_with_file(order: ExecOrder<'_>, id: &str, file: &Path) -> Work {
    let say = |what: &str, e: &dyn std::error::Error| format!("{what}: {}", chain(e));
    let (report, report_in) = pipe().map_err(|e| say("pipe", &e))?;
    let mut close = order.close;
    close.push(report.as_raw_fd());
    let executor = ConfinedExecutor {
        profile: order.profile.clone(),
        report: report_in.as_raw_fd(),
        close,
        home: RefCell::default(),
    };
    let console =
        Console::new(order.exec.tty, order.dir, order.number).map_err(|e| say("terminal", &e))?;
    let pid = build_tenant(
        id,
        order.dir,
        executor,
        order.fds,
        file,
        console.path.clone(),
    )
    .map_err(|e| tidy(&chain(&e)))?;
    drop(report_in);
    let mut reason = String::new();
    File::from(report)
        .read_to_string(&mut reason)
        .map_err(|e| say("report", &e))?;
    if !reason.is_empty() {
        return Err(reason);
    }
    Ok((pid, console.master().map_err(|e| say("terminal", &e))?))
}

fn build_tenant(
    id: &str,
    dir: &ContainerDir,
    executor: ConfinedExecutor,
    fds: Vec<OwnedFd>,
    process: &Path,
    console: Option<PathBuf>,
) -> LibResult<i32> {
    let mut container = Container::load(dir.oci().join(id))?;
    // The shim starts containers without libcontainer's book-keeping; make up for it here.
    container.set_status(ContainerStatus::Running).save()?;
    let mut builder = ContainerBuilder::new(id.to_owned(), SyscallType::default())
        .with_root_path(dir.oci())?
        .with_executor(executor)
        .with_console_socket(console);
    let mut fds = fds.into_iter();
    if let (Some(stdin), Some(stdout), Some(stderr)) = (fds.next(), fds.next(), fds.next()) {
        builder = builder
            .with_stdin(stdin)
            .with_stdout(stdout)
            .with_stderr(stderr);
    }
    let pid = builder
        .as_tenant()
        .with_detach(true)
        .as_sibling(true)
        .with_process(Some(process))
        .build()?;
    Ok(nix_pid(pid))
}

/// libcontainer pads what a failing process said with NUL bytes.
fn tidy(text: &str) -> String {
    text.replace('\0', "")
}

/// Where libcontainer hands over the terminal it has opened inside the container.
struct Console {
    listener: Option<std::os::unix::net::UnixListener>,
    path: Option<PathBuf>,
}

impl Console {
    fn new(wanted: bool, dir: &ContainerDir, number: u64) -> io::Result<Self> {
        if !wanted {
            return Ok(Self {
                listener: None,
                path: None,
            });
        }
        let name = format!("tty-{number}.sock");
        Ok(Self {
            listener: Some(wire::listen(&dir.0, &name)?),
            path: Some(dir.0.join(name)),
        })
    }

    fn master(self) -> io::Result<Option<OwnedFd>> {
        let Some(listener) = self.listener.as_ref() else {
            return Ok(None);
        };
        let (stream, _) = listener.accept()?;
        let (_, fds) = wire::receive_with_fds(&stream, &mut [0; 64])?;
        fds.into_iter()
            .next()
            .map(Some)
            .ok_or_else(|| io::Error::other("no terminal came"))
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            let _ = fs::remove_file(path);
        }
    }
}

/// A pipe: reading end, writing end. Both are closed on execve.
pub(super) fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?)
}

/// Makes reads return at once when there is nothing.
pub(super) fn set_nonblocking(fd: impl AsFd) -> io::Result<()> {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    let flags = OFlag::from_bits_retain(fcntl(&fd, FcntlArg::F_GETFL)?);
    fcntl(&fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(())
}
