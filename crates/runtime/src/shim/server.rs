//! The shim's loop: one `poll` over the socket, the signal descriptor, the output of the container and the
//! connections. Sleeps while nothing happens.

use super::create::{self, Created, ExecOrder, set_nonblocking};
use super::helper::{self, Outcome};
use super::streams::Streams;
use crate::cgroup::Cgroups;
use crate::driver::{ExecSpec, ExitRecord, RuntimeState};
use crate::logs::writer::LogWriter;
use crate::record::{ContainerDir, now};
use crate::seccomp::Profile;
use crate::spec::{RuntimeSpec, check_process};
use crate::wire::{self, Reply, Request, ShimState};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use warren_types::{ExitInfo, Timestamp};

/// Connections at once; the daemon needs one, and one per running exec.
const MAX_CONNECTIONS: usize = 128;
/// Ended children whose start has not been reported yet.
const MAX_EARLY_ENDS: usize = 64;

/// What a server is made of.
pub(super) struct Parts {
    pub spec: RuntimeSpec,
    pub cgroup: String,
    pub shim_cgroup: String,
    pub log_dir: PathBuf,
    pub dir: ContainerDir,
    pub groups: Cgroups,
    pub profile: Profile,
    pub listener: UnixListener,
    pub signals: SignalFd,
    pub lock: RawFd,
    pub oom_score: String,
    pub created: Created,
}

struct Connection {
    stream: UnixStream,
    buffer: Vec<u8>,
    fds: Vec<OwnedFd>,
    subscribed: bool,
}

/// A command that was asked for on the connection of the same number.
enum Exec {
    Starting(UnixStream),
    Running(i32),
}

/// Where an event of `poll` belongs.
#[derive(Clone, Copy)]
enum Source {
    Listener,
    Signals,
    Stream(usize),
    Report,
    Connection(u64),
    Exec(u64),
}

pub(super) struct Server {
    spec: RuntimeSpec,
    cgroup: String,
    shim_cgroup: String,
    dir: ContainerDir,
    groups: Cgroups,
    profile: Profile,
    listener: UnixListener,
    signals: SignalFd,
    lock: RawFd,
    oom_score: String,
    pid: i32,
    streams: Streams,
    report: Option<OwnedFd>,
    reason: Vec<u8>,
    starter: Option<u64>,
    started_at: Option<Timestamp>,
    ended: Option<ExitInfo>,
    connections: BTreeMap<u64, Connection>,
    execs: BTreeMap<u64, Exec>,
    early_ends: VecDeque<(i32, ExitInfo)>,
    next: u64,
}

/// Blocks SIGCHLD and makes it readable; ignores what would end the shim by accident.
pub(super) fn signals() -> io::Result<SignalFd> {
    use nix::sys::signal::{SaFlags, SigAction, SigHandler};
    let ignore = SigAction::new(SigHandler::SigIgn, SaFlags::empty(), SigSet::empty());
    for signal in [
        Signal::SIGHUP,
        Signal::SIGINT,
        Signal::SIGTERM,
        Signal::SIGPIPE,
    ] {
        super::executor::set_action(signal, &ignore)?;
    }
    let mut set = SigSet::empty();
    set.add(Signal::SIGCHLD);
    set.thread_block()?;
    Ok(SignalFd::with_flags(
        &set,
        SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK,
    )?)
}

impl Server {
    pub(super) fn new(parts: Parts) -> io::Result<Self> {
        let writer = LogWriter::open(&parts.log_dir, parts.spec.log)?;
        parts.listener.set_nonblocking(true)?;
        set_nonblocking(&parts.created.report)?;
        Ok(Self {
            spec: parts.spec,
            cgroup: parts.cgroup,
            shim_cgroup: parts.shim_cgroup,
            dir: parts.dir,
            groups: parts.groups,
            profile: parts.profile,
            listener: parts.listener,
            signals: parts.signals,
            lock: parts.lock,
            oom_score: parts.oom_score,
            pid: parts.created.pid,
            streams: Streams::new(parts.created.streams, writer)?,
            report: Some(parts.created.report),
            reason: Vec::new(),
            starter: None,
            started_at: None,
            ended: None,
            connections: BTreeMap::new(),
            execs: BTreeMap::new(),
            early_ends: VecDeque::new(),
            next: 0,
        })
    }

    pub(super) fn pid(&self) -> i32 {
        self.pid
    }

    /// Serves until the container has ended and that is recorded.
    pub(super) fn run(mut self) -> io::Result<()> {
        while self.ended.is_none() {
            for source in self.wait()? {
                self.handle(source);
            }
        }
        self.finish()
    }

    fn wait(&self) -> io::Result<Vec<Source>> {
        let mut sources = vec![Source::Listener, Source::Signals];
        let mut fds = vec![self.listener.as_fd(), self.signals.as_fd()];
        for stream in 0..2 {
            if let Some(pipe) = self.streams.pipe(stream) {
                sources.push(Source::Stream(stream));
                fds.push(pipe.as_fd());
            }
        }
        if let Some(report) = self.report.as_ref().filter(|_| self.starter.is_some()) {
            sources.push(Source::Report);
            fds.push(report.as_fd());
        }
        for (number, connection) in &self.connections {
            sources.push(Source::Connection(*number));
            fds.push(connection.stream.as_fd());
        }
        for (number, exec) in &self.execs {
            if let Exec::Starting(socket) = exec {
                sources.push(Source::Exec(*number));
                fds.push(socket.as_fd());
            }
        }
        let mut polled: Vec<PollFd<'_>> = fds
            .into_iter()
            .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
            .collect();
        match poll(&mut polled, PollTimeout::NONE) {
            Ok(_) => {}
            Err(nix::errno::Errno::EINTR) => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        }
        let ready = polled
            .iter()
            .map(|p| p.revents().is_some_and(|r| !r.is_empty()));
        Ok(sources
            .into_iter()
            .zip(ready)
            .filter_map(|(source, ready)| ready.then_some(source))
            .collect())
    }

    fn handle(&mut self, source: Source) {
        match source {
            Source::Listener => self.accept(),
            Source::Signals => {
                while let Ok(Some(_)) = self.signals.read_signal() {}
                self.reap();
            }
            Source::Stream(stream) => {
                self.streams.pump(stream);
            }
            Source::Report => self.read_report(),
            Source::Connection(number) => self.receive(number),
            Source::Exec(number) => self.exec_outcome(number),
        }
    }

    fn accept(&mut self) {
        while let Ok((stream, _)) = self.listener.accept() {
            let peer =
                nix::sys::socket::getsockopt(&stream, nix::sys::socket::sockopt::PeerCredentials);
            let trusted = peer.is_ok_and(|p| p.uid() == nix::unistd::geteuid().as_raw());
            if !trusted
                || self.connections.len() >= MAX_CONNECTIONS
                || stream.set_nonblocking(true).is_err()
            {
                continue;
            }
            self.next += 1;
            let connection = Connection {
                stream,
                buffer: Vec::new(),
                fds: Vec::new(),
                subscribed: false,
            };
            self.connections.insert(self.next, connection);
        }
    }

    fn receive(&mut self, number: u64) {
        let mut buffer = [0; 16 * 1024];
        loop {
            let Some(connection) = self.connections.get_mut(&number) else {
                return;
            };
            match wire::receive_with_fds(&connection.stream, &mut buffer) {
                Ok((0, _)) => return self.hang_up(number),
                Ok((read, fds)) => {
                    connection.buffer.extend_from_slice(&buffer[..read]);
                    connection.fds.extend(fds);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => return self.hang_up(number),
            }
            loop {
                let Some(connection) = self.connections.get_mut(&number) else {
                    return;
                };
                match wire::decode::<Request>(&connection.buffer) {
                    Ok(None) => break,
                    Ok(Some((request, used))) => {
                        connection.buffer.drain(..used);
                        let fds = std::mem::take(&mut connection.fds);
                        self.answer(number, request, fds);
                    }
                    Err(_) => return self.hang_up(number),
                }
            }
        }
    }

    /// Forgets a connection; a command that ran for it is killed.
    fn hang_up(&mut self, number: u64) {
        self.connections.remove(&number);
        if let Some(Exec::Running(pid)) = self.execs.get(&number) {
            kill_group(*pid);
        }
    }

    fn send(&mut self, number: u64, reply: &Reply, fds: &[RawFd]) {
        let Some(connection) = self.connections.get(&number) else {
            return;
        };
        let sent = wire::encode(reply)
            .and_then(|frame| wire::send_with_fds(&connection.stream, &frame, fds));
        if sent.is_err() {
            self.hang_up(number);
        }
    }

    fn fail(&mut self, number: u64, reason: impl Into<String>) {
        self.send(
            number,
            &Reply::Failed {
                reason: reason.into(),
            },
            &[],
        );
    }

    fn answer(&mut self, number: u64, request: Request, fds: Vec<OwnedFd>) {
        match request {
            Request::Subscribe => {
                if let Some(connection) = self.connections.get_mut(&number) {
                    connection.subscribed = true;
                }
                let state = if self.started_at.is_some() {
                    RuntimeState::Running
                } else {
                    RuntimeState::Created
                };
                let state = ShimState {
                    state,
                    pid: self.pid.unsigned_abs(),
                    started_at: self.started_at,
                };
                self.send(number, &Reply::State(state), &[]);
            }
            Request::Start => self.start(number),
            Request::Signal(signal) => self.signal(number, self.pid, signal, true),
            Request::Stop(signal) => {
                let effective = takes_signal(self.pid, signal);
                self.signal(number, self.pid, signal, effective);
            }
            Request::Exec(exec) => self.exec(number, exec, fds),
            Request::ExecSignal(signal) => match self.execs.get(&number) {
                Some(Exec::Running(pid)) => {
                    // It may have ended; its end is reported on this connection anyway.
                    let _ = send_signal(*pid, signal);
                }
                _ => self.fail(number, "no command runs on this connection"),
            },
        }
    }

    fn signal(&mut self, number: u64, pid: i32, signal: i32, effective: bool) {
        match send_signal(pid, signal) {
            Ok(()) => self.send(number, &Reply::Signalled { effective }, &[]),
            Err(error) => self.fail(number, format!("signal {signal}: {error}")),
        }
    }

    fn start(&mut self, number: u64) {
        if self.starter.is_some() || self.started_at.is_some() {
            return self.fail(number, "it was started already");
        }
        match create::start(&self.spec.id.to_string(), &self.dir) {
            Ok(()) => self.starter = Some(number),
            Err(reason) => self.fail(number, reason),
        }
    }

    /// The report pipe says why execve failed, or is closed by its success.
    fn read_report(&mut self) {
        let Some(report) = &self.report else { return };
        let mut buffer = [0; 4096];
        match nix::unistd::read(report, &mut buffer) {
            Ok(read) if read > 0 => self.reason.extend_from_slice(&buffer[..read]),
            Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EINTR) => {}
            _ => self.start_done(),
        }
    }

    fn start_done(&mut self) {
        self.report = None;
        let Some(starter) = self.starter.take() else {
            return;
        };
        if self.reason.is_empty() {
            let at = now();
            self.started_at = Some(at);
            self.send(starter, &Reply::Started { at }, &[]);
            let others: Vec<u64> = self
                .connections
                .iter()
                .filter(|(n, c)| c.subscribed && **n != starter)
                .map(|(n, _)| *n)
                .collect();
            for number in others {
                self.send(number, &Reply::Started { at }, &[]);
            }
            if self.groups.is_unified() {
                super::move_aside(&self.groups, &self.shim_cgroup);
            }
        } else {
            let reason = String::from_utf8_lossy(&self.reason).into_owned();
            self.fail(starter, reason);
        }
    }

    fn exec(&mut self, number: u64, exec: ExecSpec, fds: Vec<OwnedFd>) {
        if self.started_at.is_none() {
            return self.fail(number, "the container does not run yet");
        }
        if self.execs.contains_key(&number) || fds.len() != if exec.tty { 0 } else { 3 } {
            return self.fail(
                number,
                "the request is not understood; daemon and shim differ in version",
            );
        }
        let cwd = exec.cwd.as_deref().unwrap_or(&self.spec.cwd);
        if let Err((field, reason)) = check_process(&exec.args, &exec.env, cwd) {
            return self.fail(number, format!("{field}: {reason}"));
        }
        let mut close = vec![
            self.lock,
            self.listener.as_raw_fd(),
            self.signals.as_raw_fd(),
        ];
        close.extend(self.connections.values().map(|c| c.stream.as_raw_fd()));
        let order = ExecOrder {
            spec: &self.spec,
            dir: &self.dir,
            exec,
            number,
            fds,
            profile: &self.profile,
            close,
            oom_score: self.oom_score.clone(),
        };
        match helper::spawn(move || create::exec(order)) {
            Ok(socket) => {
                self.execs.insert(number, Exec::Starting(socket));
            }
            Err(error) => self.fail(number, format!("start the set-up process: {error}")),
        }
    }

    fn exec_outcome(&mut self, number: u64) {
        let Some(Exec::Starting(socket)) = self.execs.remove(&number) else {
            return;
        };
        match helper::outcome(&socket) {
            (Outcome::Done(pid), terminal) => {
                self.execs.insert(number, Exec::Running(pid));
                let fds: Vec<RawFd> = terminal.iter().map(AsRawFd::as_raw_fd).collect();
                self.send(number, &Reply::ExecStarted, &fds);
                if !self.connections.contains_key(&number) {
                    kill_group(pid);
                }
                if let Some(at) = self.early_ends.iter().position(|(ended, _)| *ended == pid)
                    && let Some((_, info)) = self.early_ends.remove(at)
                {
                    self.exec_ended(number, info);
                }
            }
            (Outcome::Failed(reason), _) => self.fail(number, reason),
        }
    }

    fn exec_ended(&mut self, number: u64, info: ExitInfo) {
        self.execs.remove(&number);
        self.send(number, &Reply::ExecExited(info), &[]);
    }

    /// Collects ended children: the container, commands in it, set-up processes, orphans.
    fn reap(&mut self) {
        while let Some((pid, info)) = ended_child() {
            if pid == self.pid {
                self.ended = Some(info);
            } else if let Some(number) = self
                .execs
                .iter()
                .find_map(|(n, e)| matches!(e, Exec::Running(p) if *p == pid).then_some(*n))
            {
                self.exec_ended(number, info);
            } else {
                if self.early_ends.len() == MAX_EARLY_ENDS {
                    self.early_ends.pop_front();
                }
                self.early_ends.push_back((pid, info));
            }
        }
    }

    fn finish(mut self) -> io::Result<()> {
        let mut info = self.ended.unwrap_or_default();
        let killed = info.signal == Some(libc::SIGKILL) || info.code == 128 + libc::SIGKILL;
        info.oom = killed && self.groups.oom_kills(&self.cgroup) > 0;
        self.streams.finish();
        if self.starter.is_some() && self.started_at.is_none() && self.report.is_some() {
            self.read_report();
            self.start_done();
        }
        let record = ExitRecord {
            info,
            at: now(),
            lost: false,
        };
        let recorded = self.dir.set_exit(&record);
        let numbers: Vec<u64> = self.connections.keys().copied().collect();
        for number in numbers {
            if self.connections.get(&number).is_some_and(|c| c.subscribed) {
                self.send(number, &Reply::Exited(record), &[]);
            } else if matches!(self.execs.get(&number), Some(Exec::Starting(_))) {
                self.fail(number, "the container ended");
            }
        }
        self.groups.remove_if_empty(&self.cgroup);
        recorded
    }
}

fn send_signal(pid: i32, signal: i32) -> nix::Result<()> {
    // Real-time signals have numbers that the enumeration lacks.
    #[allow(unsafe_code, reason = "kill with a number")]
    // SAFETY: `kill` takes no pointers.
    match unsafe { libc::kill(pid, signal) } {
        0 => Ok(()),
        _ => Err(nix::errno::Errno::last()),
    }
}

/// Kills a command and all of its session's first process group.
fn kill_group(pid: i32) {
    let _ = send_signal(-pid, libc::SIGKILL);
    let _ = send_signal(pid, libc::SIGKILL);
}

#[allow(
    unsafe_code,
    reason = "nix's waitpid fails for children ended by a real-time signal"
)]
fn ended_child() -> Option<(i32, ExitInfo)> {
    let mut status = 0;
    // SAFETY: `status` is a valid place for the result.
    let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG | libc::__WALL) };
    if pid <= 0 {
        return None;
    }
    let info = if libc::WIFSIGNALED(status) {
        let signal = libc::WTERMSIG(status);
        ExitInfo {
            code: 128 + signal,
            signal: Some(signal),
            oom: false,
        }
    } else {
        ExitInfo {
            code: libc::WEXITSTATUS(status),
            signal: None,
            oom: false,
        }
    };
    Some((pid, info))
}

/// Whether a signal does anything to the first process of a process id namespace: the kernel discards those it
/// has no handler for, unless they are blocked (a thread may wait for them). One that is ignored on
/// purpose counts as taken: the program has decided.
fn takes_signal(pid: i32, signal: i32) -> bool {
    let Ok(status) = std::fs::read_to_string(format!("/proc/{pid}/status")) else {
        return true;
    };
    let bit = 1_u64 << (signal - 1).clamp(0, 63);
    let has = |key: &str| {
        status
            .lines()
            .find_map(|l| l.strip_prefix(key))
            .and_then(|v| u64::from_str_radix(v.trim(), 16).ok())
            .is_none_or(|mask| mask & bit != 0)
    };
    signal == libc::SIGKILL
        || signal == libc::SIGSTOP
        || has("SigCgt:")
        || has("SigIgn:")
        || has("SigBlk:")
}
