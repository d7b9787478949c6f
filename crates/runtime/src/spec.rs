//! What a caller says about one container: everything is resolved, the driver decides nothing.

use crate::error::{Result, RuntimeError};
use serde::{Deserialize, Serialize};
use std::path::{Component, Path, PathBuf};
use warren_types::{Bytes, ContainerId, MilliCpu};

/// Processes and threads in one container when the caller sets no limit.
pub const DEFAULT_PIDS_LIMIT: u64 = 4096;
/// Size of one log file in bytes when the caller sets no limit.
pub const DEFAULT_LOG_FILE_BYTES: u64 = 10 * 1024 * 1024;
/// Log files kept per container when the caller sets no limit.
pub const DEFAULT_LOG_FILES: u32 = 3;
/// Smallest accepted size of one log file in bytes.
pub const MIN_LOG_FILE_BYTES: u64 = 32 * 1024;
/// Largest single file handed into a container, in bytes.
pub const MAX_FILE_BYTES: usize = 1024 * 1024;
/// Files handed into one container.
pub const MAX_FILES: usize = 256;
/// Arguments plus environment of one process, in bytes (the kernel takes 2 MiB in all).
pub const MAX_ARGS_BYTES: usize = 1024 * 1024;
/// Mounts of one container.
pub const MAX_MOUNTS: usize = 256;
/// Longest host name in bytes (the kernel's limit).
pub const MAX_HOSTNAME_BYTES: usize = 64;
/// `PATH` of a process whose environment has none.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Numeric user of a process.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct UserIds {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Supplementary group ids.
    pub additional_gids: Vec<u32>,
}

/// One mount inside the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum RuntimeMount {
    /// A directory or file of the host.
    Bind {
        /// Existing absolute path on the host.
        source: PathBuf,
        /// Absolute path in the container.
        target: PathBuf,
        /// The container may not write.
        read_only: bool,
    },
    /// Memory of the container.
    Tmpfs {
        /// Absolute path in the container.
        target: PathBuf,
        /// Upper limit; `None` lets the kernel's half of the memory stand.
        size: Option<Bytes>,
        /// Permission bits of the top directory.
        mode: u32,
    },
}

impl RuntimeMount {
    /// Where it is in the container.
    #[must_use]
    pub fn target(&self) -> &Path {
        match self {
            Self::Bind { target, .. } | Self::Tmpfs { target, .. } => target,
        }
    }
}

/// A file whose content exists in memory only: on a tmpfs of the container, never on a disk.
#[derive(Clone, PartialEq, Eq)]
pub struct RuntimeFile {
    /// Absolute path in the container; `/run/secrets/NAME` for secrets.
    pub target: PathBuf,
    /// Content, at most [`MAX_FILE_BYTES`].
    pub content: Vec<u8>,
    /// Permission bits, such as `0o400`.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

impl std::fmt::Debug for RuntimeFile {
    /// Shows everything but the content, which may be a secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RuntimeFile")
            .field("target", &self.target)
            .field("bytes", &self.content.len())
            .field("mode", &format_args!("{:o}", self.mode))
            .field("uid", &self.uid)
            .field("gid", &self.gid)
            .finish()
    }
}

/// What the container may use at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuntimeLimits {
    /// CPU time per time; `None` is unlimited.
    pub cpu: Option<MilliCpu>,
    /// Memory; `None` is unlimited.
    pub memory: Option<Bytes>,
    /// Processes and threads.
    pub pids: u64,
    /// Open files per process; `None` keeps the daemon's.
    pub nofile: Option<u64>,
}

impl Default for RuntimeLimits {
    fn default() -> Self {
        Self {
            cpu: None,
            memory: None,
            pids: DEFAULT_PIDS_LIMIT,
            nofile: None,
        }
    }
}

/// Changes to the default capability set; names with or without `CAP_`, any case, or `ALL`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CapabilityChange {
    /// Added after dropping.
    pub add: Vec<String>,
    /// Dropped from the default set.
    pub drop: Vec<String>,
}

/// Caps on the container's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLimits {
    /// Size of one file in bytes.
    pub max_bytes: u64,
    /// Files kept, the current one included.
    pub files: u32,
}

impl Default for LogLimits {
    fn default() -> Self {
        Self {
            max_bytes: DEFAULT_LOG_FILE_BYTES,
            files: DEFAULT_LOG_FILES,
        }
    }
}

/// One container, resolved down to what the kernel needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuntimeSpec {
    /// Id of the container record.
    pub id: ContainerId,
    /// Number of the start on this node, from 1; a restart uses the same id with the next number.
    pub attempt: u32,
    /// Name for people, in records only.
    pub name: String,
    /// Root file system, mounted and ready; not unmounted by the driver.
    pub rootfs: PathBuf,
    /// Program and its arguments; never empty.
    pub args: Vec<String>,
    /// Environment as `KEY=VALUE`; a later entry wins.
    pub env: Vec<String>,
    /// Absolute working directory in the container.
    pub cwd: PathBuf,
    /// Who the program runs as.
    pub user: UserIds,
    /// Host name the program sees.
    pub hostname: String,
    /// Network namespace to join; `None` makes an empty one with loopback only.
    pub netns: Option<PathBuf>,
    /// Mounts in order.
    pub mounts: Vec<RuntimeMount>,
    /// Files held in memory. They travel apart from this description and are in no record.
    #[serde(skip)]
    pub files: Vec<RuntimeFile>,
    /// Limits.
    pub limits: RuntimeLimits,
    /// The root file system cannot be written.
    pub read_only_root: bool,
    /// Changes to the default capabilities.
    pub capabilities: CapabilityChange,
    /// Signal that asks the program to end.
    pub stop_signal: i32,
    /// Caps on the log.
    pub log: LogLimits,
    /// Content of `/etc/resolv.conf`; `None` keeps the image's.
    pub resolv_conf: Option<String>,
    /// Content of `/etc/hosts`; `None` keeps the image's.
    pub hosts: Option<String>,
}

impl RuntimeSpec {
    /// A description with safe defaults: root user, no network but loopback, default limits, writable root.
    #[must_use]
    pub fn new(
        id: ContainerId,
        rootfs: impl Into<PathBuf>,
        args: impl IntoIterator<Item = impl Into<String>>,
    ) -> Self {
        Self {
            id,
            attempt: 1,
            name: id.to_string(),
            rootfs: rootfs.into(),
            args: args.into_iter().map(Into::into).collect(),
            env: Vec::new(),
            cwd: PathBuf::from("/"),
            user: UserIds::default(),
            hostname: id.to_string(),
            netns: None,
            mounts: Vec::new(),
            files: Vec::new(),
            limits: RuntimeLimits::default(),
            read_only_root: false,
            capabilities: CapabilityChange::default(),
            stop_signal: libc::SIGTERM,
            log: LogLimits::default(),
            resolv_conf: None,
            hosts: None,
        }
    }

    /// Refuses what can never run, before anything is made.
    pub fn validate(&self) -> Result<()> {
        let fail = |field, reason: String| {
            Err(RuntimeError::Invalid {
                id: self.id,
                field,
                reason,
            })
        };
        if let Err(reason) = check_process(&self.args, &self.env, &self.cwd) {
            return fail(reason.0, reason.1);
        }
        if !self.rootfs.is_absolute() {
            return fail(
                "rootfs",
                format!("{} is not an absolute path", self.rootfs.display()),
            );
        }
        if self.hostname.is_empty()
            || self.hostname.len() > MAX_HOSTNAME_BYTES
            || self.hostname.contains('\0')
        {
            return fail(
                "hostname",
                format!("it must have 1 to {MAX_HOSTNAME_BYTES} bytes"),
            );
        }
        if self.mounts.len() > MAX_MOUNTS {
            return fail(
                "mounts",
                format!(
                    "{} of them, at most {MAX_MOUNTS} are possible",
                    self.mounts.len()
                ),
            );
        }
        for mount in &self.mounts {
            if let Err(reason) = check_target(mount.target()) {
                return fail("mounts", reason);
            }
            if let RuntimeMount::Bind { source, .. } = mount
                && (!source.is_absolute() || source.to_str().is_none())
            {
                return fail(
                    "mounts",
                    format!(
                        "source {} must be an absolute path in UTF-8",
                        source.display()
                    ),
                );
            }
        }
        if let Err(reason) = self.check_files() {
            return fail("files", reason);
        }
        if !(1..=64).contains(&self.stop_signal) {
            return fail(
                "stop signal",
                format!("{} is no signal, use 1 to 64", self.stop_signal),
            );
        }
        if self.log.files == 0 || self.log.max_bytes < MIN_LOG_FILE_BYTES {
            return fail(
                "log limits",
                format!("at least one file of {MIN_LOG_FILE_BYTES} bytes is needed"),
            );
        }
        if self.limits.pids == 0 {
            return fail("pids limit", "it must be at least 1".into());
        }
        crate::capability::effective_set(&self.capabilities)
            .map(|_| ())
            .or_else(|reason| fail("capabilities", reason))
    }

    fn check_files(&self) -> std::result::Result<(), String> {
        if self.files.len() > MAX_FILES {
            return Err(format!(
                "{} of them, at most {MAX_FILES} are possible",
                self.files.len()
            ));
        }
        for file in &self.files {
            check_target(&file.target)?;
            if file.content.len() > MAX_FILE_BYTES {
                return Err(format!(
                    "{} is larger than {MAX_FILE_BYTES} bytes",
                    file.target.display()
                ));
            }
        }
        Ok(())
    }
}

/// Checks what every process has; the error names field and reason.
pub(crate) fn check_process(
    args: &[String],
    env: &[String],
    cwd: &Path,
) -> std::result::Result<(), (&'static str, String)> {
    if args.first().is_none_or(String::is_empty) {
        return Err((
            "command",
            "there is none; the image names none either, so give one".into(),
        ));
    }
    if let Some(bad) = args.iter().find(|a| a.contains('\0')) {
        return Err(("command", format!("{bad:?} holds a NUL byte")));
    }
    for entry in env {
        if entry.contains('\0') || entry.split_once('=').is_none_or(|(key, _)| key.is_empty()) {
            return Err(("environment", format!("{entry:?} is not KEY=VALUE")));
        }
    }
    let total: usize = args.iter().chain(env).map(|s| s.len() + 1).sum();
    if total > MAX_ARGS_BYTES {
        return Err((
            "command",
            format!("arguments and environment take {total} bytes, limit {MAX_ARGS_BYTES}"),
        ));
    }
    if !cwd.is_absolute() || cwd.to_str().is_none() {
        return Err((
            "working directory",
            format!("{} is not an absolute path in UTF-8", cwd.display()),
        ));
    }
    Ok(())
}

fn check_target(target: &Path) -> std::result::Result<(), String> {
    let normal = target.is_absolute()
        && target != Path::new("/")
        && target.to_str().is_some_and(|t| !t.contains('\0'))
        && target
            .components()
            .all(|c| matches!(c, Component::RootDir | Component::Normal(_)));
    if normal {
        Ok(())
    } else {
        Err(format!(
            "target {} must be an absolute path below / without `..`",
            target.display()
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> RuntimeSpec {
        RuntimeSpec::new(ContainerId::from_u128(1), "/r", ["true"])
    }

    fn field(spec: &RuntimeSpec) -> &'static str {
        match spec.validate() {
            Err(RuntimeError::Invalid { field, .. }) => field,
            Err(other) => panic!("unexpected {other}"),
            Ok(()) => "",
        }
    }

    #[test]
    fn every_field_is_checked() {
        let change = |f: &dyn Fn(&mut RuntimeSpec)| {
            let mut s = spec();
            f(&mut s);
            field(&s)
        };
        assert_eq!(change(&|_| ()), "");
        assert_eq!(change(&|s| s.args.clear()), "command");
        assert_eq!(change(&|s| s.args = vec!["a\0b".into()]), "command");
        assert_eq!(change(&|s| s.env = vec!["=x".into()]), "environment");
        assert_eq!(change(&|s| s.env = vec!["x".into()]), "environment");
        assert_eq!(change(&|s| s.cwd = "etc".into()), "working directory");
        assert_eq!(change(&|s| s.rootfs = "r".into()), "rootfs");
        assert_eq!(change(&|s| s.hostname = "x".repeat(65)), "hostname");
        assert_eq!(change(&|s| s.stop_signal = 0), "stop signal");
        assert_eq!(change(&|s| s.limits.pids = 0), "pids limit");
        assert_eq!(change(&|s| s.log.files = 0), "log limits");
        assert_eq!(
            change(&|s| s.capabilities.add = vec!["NET_WIZARD".into()]),
            "capabilities"
        );
        let tmpfs = |t: &str| RuntimeMount::Tmpfs {
            target: t.into(),
            size: None,
            mode: 0o755,
        };
        for bad in ["/", "x", "/a/../b"] {
            assert_eq!(change(&|s| s.mounts = vec![tmpfs(bad)]), "mounts", "{bad}");
        }
    }

    #[test]
    fn secrets_are_not_printed_nor_recorded() {
        let mut s = spec();
        s.files.push(RuntimeFile {
            target: "/run/secrets/a".into(),
            content: b"hunter2".to_vec(),
            mode: 0o400,
            uid: 0,
            gid: 0,
        });
        assert!(!format!("{s:?}").contains("hunter2"));
        assert!(!format!("{s:?}").contains("104, 117"));
        let record = serde_json::to_string(&s).unwrap();
        assert!(
            !record.contains("104,117") && !record.contains("/run/secrets"),
            "{record}"
        );
    }
}
