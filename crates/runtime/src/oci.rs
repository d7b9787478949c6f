//! From a [`RuntimeSpec`] to the OCI description that libcontainer reads.

use crate::capability::effective_set;
use crate::driver::ExecSpec;
use crate::spec::{DEFAULT_PATH, RuntimeMount, RuntimeSpec, UserIds};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Where secrets are in a container.
pub const SECRETS_DIR: &str = "/run/secrets";
/// CPU period in microseconds; the quota is the limit's share of it.
pub const CPU_PERIOD_USEC: u64 = 100_000;
/// Smallest CPU quota that the kernel takes, in microseconds.
const MIN_CPU_QUOTA_USEC: u64 = 1_000;
/// Size of `/dev/shm` in bytes.
const SHM_BYTES: u64 = 64 * 1024 * 1024;

/// Paths that show or control the host: hidden.
pub const MASKED_PATHS: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

/// Paths that may be read but not written.
pub const READ_ONLY_PATHS: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// A file of the container's directory that is mounted over one of the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostFile {
    /// On the host.
    pub source: PathBuf,
    /// In the container.
    pub target: PathBuf,
}

/// The whole description.
pub fn bundle(spec: &RuntimeSpec, cgroup: &str, host_files: &[HostFile]) -> Result<Value, String> {
    let process = process(spec, &init_exec(spec))?;
    let mut namespaces = vec![
        json!({"type": "pid"}),
        json!({"type": "ipc"}),
        json!({"type": "uts"}),
        json!({"type": "mount"}),
        json!({"type": "cgroup"}),
    ];
    namespaces.push(match &spec.netns {
        Some(path) => json!({"type": "network", "path": path}),
        None => json!({"type": "network"}),
    });
    Ok(json!({
        "ociVersion": "1.2.0",
        "root": {"path": spec.rootfs, "readonly": spec.read_only_root},
        "hostname": spec.hostname,
        "process": process,
        "mounts": mounts(spec, host_files),
        "linux": {
            "namespaces": namespaces,
            "cgroupsPath": cgroup,
            "resources": resources(spec),
            "maskedPaths": MASKED_PATHS,
            "readonlyPaths": READ_ONLY_PATHS,
        },
    }))
}

/// The main process seen as a command.
#[must_use]
pub fn init_exec(spec: &RuntimeSpec) -> ExecSpec {
    ExecSpec {
        args: spec.args.clone(),
        env: Vec::new(),
        cwd: Some(spec.cwd.clone()),
        user: Some(spec.user.clone()),
        tty: false,
        stdin: false,
    }
}

/// One process of the container, confined as all of its processes are.
pub fn process(spec: &RuntimeSpec, exec: &ExecSpec) -> Result<Value, String> {
    let capabilities = effective_set(&spec.capabilities)?;
    let user: &UserIds = exec.user.as_ref().unwrap_or(&spec.user);
    let cwd: &Path = exec.cwd.as_deref().unwrap_or(&spec.cwd);
    let rlimits: Vec<Value> = spec
        .limits
        .nofile
        .iter()
        .map(|n| json!({"type": "RLIMIT_NOFILE", "soft": n, "hard": n}))
        .collect();
    Ok(json!({
        "terminal": exec.tty,
        "user": {"uid": user.uid, "gid": user.gid, "additionalGids": user.additional_gids, "umask": 0o022},
        "args": exec.args,
        "env": environment(spec, exec),
        "cwd": cwd,
        "capabilities": {"bounding": capabilities, "effective": capabilities, "permitted": capabilities},
        "rlimits": rlimits,
        "noNewPrivileges": true,
    }))
}

fn environment(spec: &RuntimeSpec, exec: &ExecSpec) -> Vec<String> {
    let key = |entry: &str| entry.split('=').next().unwrap_or_default().to_owned();
    let mut all = vec![
        format!("PATH={DEFAULT_PATH}"),
        format!("HOSTNAME={}", spec.hostname),
    ];
    if exec.tty {
        all.push("TERM=xterm".to_owned());
    }
    for entry in spec.env.iter().chain(&exec.env) {
        match all.iter_mut().find(|have| key(have) == key(entry)) {
            Some(have) => have.clone_from(entry),
            None => all.push(entry.clone()),
        }
    }
    all
}

fn mounts(spec: &RuntimeSpec, host_files: &[HostFile]) -> Vec<Value> {
    let system = |target: &str, kind: &str, options: &[&str]| json!({"destination": target, "type": kind, "source": kind, "options": options});
    let shm = format!("size={SHM_BYTES}");
    let mut all = vec![
        system("/proc", "proc", &["nosuid", "noexec", "nodev"]),
        system(
            "/dev",
            "tmpfs",
            &["nosuid", "strictatime", "mode=755", "size=65536k"],
        ),
        system(
            "/dev/pts",
            "devpts",
            &[
                "nosuid",
                "noexec",
                "newinstance",
                "ptmxmode=0666",
                "mode=0620",
                "gid=5",
            ],
        ),
        system(
            "/dev/shm",
            "tmpfs",
            &["nosuid", "noexec", "nodev", "mode=1777", &shm],
        ),
        system("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        system("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
        system(
            "/sys/fs/cgroup",
            "cgroup",
            &["nosuid", "noexec", "nodev", "relatime", "ro"],
        ),
    ];
    if !spec.files.is_empty() {
        all.push(system(
            SECRETS_DIR,
            "tmpfs",
            &["nosuid", "noexec", "nodev", "mode=0755"],
        ));
    }
    // Shorter targets first: a mount must not hide another that is asked for below it.
    let mut wanted: Vec<&RuntimeMount> = spec.mounts.iter().collect();
    wanted.sort_by_key(|m| m.target().components().count());
    all.extend(wanted.into_iter().map(mount));
    all.extend(host_files.iter().map(|f| {
        json!({"destination": f.target, "type": "bind", "source": f.source, "options": ["bind", "ro", "rprivate"]})
    }));
    all
}

fn mount(mount: &RuntimeMount) -> Value {
    match mount {
        RuntimeMount::Bind {
            source,
            target,
            read_only,
        } => {
            let options: &[&str] = if *read_only {
                &["rbind", "nodev", "ro", "rro"]
            } else {
                &["rbind", "nodev", "rw"]
            };
            json!({"destination": target, "type": "bind", "source": source, "options": options})
        }
        RuntimeMount::Tmpfs { target, size, mode } => {
            let mut options = vec![
                "nosuid".to_owned(),
                "noexec".to_owned(),
                "nodev".to_owned(),
                format!("mode={mode:o}"),
            ];
            options.extend(size.map(|s| format!("size={}", s.0)));
            json!({"destination": target, "type": "tmpfs", "source": "tmpfs", "options": options})
        }
    }
}

fn resources(spec: &RuntimeSpec) -> Value {
    let mut all = json!({
        "pids": {"limit": spec.limits.pids},
        "devices": [{"allow": false, "access": "rwm"}],
    });
    if let Some(cpu) = spec.limits.cpu {
        let quota = (u64::from(cpu.0) * CPU_PERIOD_USEC / 1000).max(MIN_CPU_QUOTA_USEC);
        all["cpu"] = json!({"quota": quota, "period": CPU_PERIOD_USEC});
    }
    if let Some(memory) = spec.limits.memory {
        all["memory"] = json!({"limit": memory.0});
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use warren_types::ContainerId;

    #[test]
    fn environment_is_merged_by_key() {
        let mut spec = RuntimeSpec::new(ContainerId::from_u128(1), "/r", ["x"]);
        spec.hostname = "h".into();
        spec.env = vec!["A=1".into(), "B=2".into(), "PATH=/p".into()];
        let exec = ExecSpec {
            env: vec!["A=3=4".into()],
            ..ExecSpec::new(["y"])
        };
        assert_eq!(
            environment(&spec, &exec),
            ["PATH=/p", "HOSTNAME=h", "A=3=4", "B=2"]
        );
    }

    #[test]
    fn nothing_is_inheritable_or_ambient() {
        let spec = RuntimeSpec::new(ContainerId::from_u128(1), "/r", ["x"]);
        let made = bundle(&spec, "/warren/x", &[]).unwrap();
        let sets = made["process"]["capabilities"].as_object().unwrap();
        assert_eq!(
            sets.keys().collect::<Vec<_>>(),
            ["bounding", "effective", "permitted"]
        );
        assert_eq!(made["process"]["noNewPrivileges"], true);
    }
}
