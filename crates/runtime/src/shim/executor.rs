//! The last steps inside a container's own process: find the program, confine, execute.

use crate::error::{NOT_EXECUTABLE_MARK, NOT_FOUND_MARK};
use crate::seccomp::Profile;
use crate::spec::DEFAULT_PATH;
use libcontainer::oci_spec::runtime::Spec;
use libcontainer::workload::{
    Executor, ExecutorError, ExecutorSetEnvsError, ExecutorValidationError,
};
use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::CString;
use std::os::fd::RawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Exit status when the program is not there, as shells have it.
const STATUS_NOT_FOUND: i32 = 127;
/// Exit status when the program cannot be executed.
const STATUS_NOT_EXECUTABLE: i32 = 126;

/// Installs the seccomp profile and executes. Used for the main process and for every exec.
#[derive(Debug, Clone)]
pub(super) struct ConfinedExecutor {
    /// The filters.
    pub profile: Profile,
    /// Where a failing execve is reported; closed by a successful one.
    pub report: RawFd,
    /// Closed as soon as the process exists: what it must not keep open while it waits.
    pub close: Vec<RawFd>,
    /// The environment that libcontainer worked out; only what it added is used.
    pub home: RefCell<Option<String>>,
}

impl Executor for ConfinedExecutor {
    fn validate(&self, spec: &Spec) -> Result<(), ExecutorValidationError> {
        for fd in &self.close {
            // A descriptor that is closed already is what we want.
            let _ = nix::unistd::close(*fd);
        }
        let process = spec.process().as_ref();
        let args = process
            .and_then(|p| p.args().as_ref())
            .filter(|a| !a.is_empty());
        let Some(args) = args else {
            return Err(ExecutorValidationError::ArgValidationError(
                "there is no command".into(),
            ));
        };
        let env = process
            .and_then(|p| p.env().as_ref())
            .map(Vec::as_slice)
            .unwrap_or_default();
        let path = path_of(env);
        if candidates(&args[0], path).iter().any(|c| is_program(c)) {
            return Ok(());
        }
        let found = candidates(&args[0], path).into_iter().find(|c| c.exists());
        Err(ExecutorValidationError::ArgValidationError(match found {
            Some(file) => format!(
                "{} {NOT_EXECUTABLE_MARK}: it is a directory or lacks the x permission",
                file.display()
            ),
            None if args[0].contains('/') => format!("{:?}: {NOT_FOUND_MARK}", args[0]),
            None => format!("{:?}: {NOT_FOUND_MARK} (PATH is {path})", args[0]),
        }))
    }

    fn setup_envs(&self, mut envs: HashMap<String, String>) -> Result<(), ExecutorSetEnvsError> {
        *self.home.borrow_mut() = envs.remove("HOME");
        Ok(())
    }

    fn exec(&self, spec: &Spec) -> Result<(), ExecutorError> {
        let process = spec.process().as_ref().ok_or(ExecutorError::InvalidArg)?;
        let args = process.args().as_ref().ok_or(ExecutorError::InvalidArg)?;
        let mut env = process.env().clone().unwrap_or_default();
        if let Some(home) = self.home.borrow().as_ref()
            && !env.iter().any(|e| e.starts_with("HOME="))
        {
            env.push(format!("HOME={home}"));
        }
        let status = match self.confine_and_execute(args, &env) {
            Ok(never) => match never {},
            Err((status, reason)) => {
                report(self.report, &reason);
                status
            }
        };
        leave(status)
    }
}

impl ConfinedExecutor {
    fn confine_and_execute(
        &self,
        args: &[String],
        env: &[String],
    ) -> Result<std::convert::Infallible, (i32, String)> {
        let fail = |reason: String| (STATUS_NOT_EXECUTABLE, reason);
        let strings = |from: &[String]| -> Result<Vec<CString>, (i32, String)> {
            from.iter()
                .map(|s| CString::new(s.as_str()).map_err(|e| fail(e.to_string())))
                .collect()
        };
        let (argv, envp) = (strings(args)?, strings(env)?);
        let programs: Vec<CString> = candidates(&args[0], path_of(env))
            .into_iter()
            .filter_map(|p| CString::new(p.into_os_string().into_encoded_bytes()).ok())
            .collect();
        reset_signals().map_err(|e| fail(format!("signals: {e}")))?;
        // Nothing but execve and its error path may come after this.
        for filter in [&self.profile.allow, &self.profile.newer] {
            seccompiler::apply_filter(filter).map_err(|e| fail(format!("seccomp: {e}")))?;
        }
        let mut last = nix::errno::Errno::ENOENT;
        for program in &programs {
            let Err(error) = nix::unistd::execve(program, &argv, &envp);
            match error {
                nix::errno::Errno::ENOENT | nix::errno::Errno::ENOTDIR => {}
                nix::errno::Errno::EACCES => last = error,
                _ => {
                    last = error;
                    break;
                }
            }
        }
        if last == nix::errno::Errno::ENOENT {
            let reason = format!(
                "{:?}: {NOT_FOUND_MARK}, or the interpreter it names is not",
                args[0]
            );
            return Err((STATUS_NOT_FOUND, reason));
        }
        Err(fail(format!("{:?} {NOT_EXECUTABLE_MARK}: {last}", args[0])))
    }
}

fn path_of(env: &[String]) -> &str {
    env.iter()
        .find_map(|e| e.strip_prefix("PATH="))
        .unwrap_or(DEFAULT_PATH)
}

fn candidates(program: &str, path: &str) -> Vec<PathBuf> {
    if program.contains('/') {
        return vec![PathBuf::from(program)];
    }
    path.split(':')
        .map(|dir| Path::new(if dir.is_empty() { "." } else { dir }).join(program))
        .collect()
}

fn is_program(path: &Path) -> bool {
    path.metadata()
        .is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

/// The container's program begins with default signals and none blocked; the shim ignores some.
fn reset_signals() -> nix::Result<()> {
    use nix::sys::signal::{
        SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal, sigprocmask,
    };
    let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    for signal in [
        Signal::SIGPIPE,
        Signal::SIGCHLD,
        Signal::SIGHUP,
        Signal::SIGINT,
        Signal::SIGTERM,
    ] {
        set_action(signal, &default)?;
    }
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)
}

#[allow(
    unsafe_code,
    reason = "sigaction is unsafe because of handlers; only the default action is set here"
)]
pub(super) fn set_action(
    signal: nix::sys::signal::Signal,
    action: &nix::sys::signal::SigAction,
) -> nix::Result<()> {
    // SAFETY: callers pass SIG_DFL or SIG_IGN, so no handler function can be called.
    unsafe { nix::sys::signal::sigaction(signal, action) }.map(drop)
}

#[allow(
    unsafe_code,
    reason = "the report descriptor is a number because executors are cloned"
)]
fn report(fd: RawFd, reason: &str) {
    // SAFETY: the pointer and the length describe `reason`, which lives through the call.
    unsafe { libc::write(fd, reason.as_ptr().cast(), reason.len()) };
}

#[allow(
    unsafe_code,
    reason = "no destructor of the forked shim may run in the container's process"
)]
fn leave(status: i32) -> ! {
    // SAFETY: `_exit` takes no pointers and does not return.
    unsafe { libc::_exit(status) }
}
