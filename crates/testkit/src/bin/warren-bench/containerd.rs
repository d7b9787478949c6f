//! The reference: Debian's containerd and runc, private to this run.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use warren_testkit::eventually;

const PROGRAM: &str = "/usr/bin/containerd";
/// Name under which containerd knows `test/busybox:latest`.
const IMAGE: &str = "docker.io/test/busybox:latest";

/// A containerd with directories of its own.
pub(crate) struct Containerd {
    directory: TempDir,
    daemon: Child,
    namespace: String,
}

impl Containerd {
    /// Starts it and imports the image; `None` when it is not installed.
    pub(crate) fn start(archive: &str) -> Result<Option<Self>, String> {
        if !Path::new(PROGRAM).exists() {
            println!(
                "NO REFERENCE: {PROGRAM} is not installed (`cargo xtask packages` installs it)"
            );
            return Ok(None);
        }
        let directory = tempfile::Builder::new()
            .prefix("warren-bench-")
            .tempdir()
            .map_err(|e| format!("temporary directory: {e}"))?;
        let dir = directory.path().display();
        // The Kubernetes plugin would open a TCP port.
        let config = format!(
            "version = 2\nroot = \"{dir}/root\"\nstate = \"{dir}/state\"\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\
             [grpc]\naddress = \"{dir}/sock\"\n[debug]\nlevel = \"warn\"\n"
        );
        let file = directory.path().join("config.toml");
        std::fs::write(&file, config).map_err(|e| format!("{}: {e}", file.display()))?;
        let log = std::fs::File::create(directory.path().join("log")).map_err(|e| e.to_string())?;
        let daemon = Command::new(PROGRAM)
            .arg("--config")
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        let daemon = daemon.map_err(|e| format!("{PROGRAM}: {e}"))?;
        let namespace = format!("warren-bench-{}", std::process::id());
        let this = Self {
            directory,
            daemon,
            namespace,
        };
        eventually("containerd answers", || this.call(&["version"]));
        this.call(&["images", "import", archive])?;
        Ok(Some(this))
    }

    /// Starts containers at the same time, each by a `ctr run -d` of its own; the time until each call
    /// came back, which is when the container runs.
    pub(crate) fn starts(&self, count: usize, round: usize) -> Result<Vec<Duration>, String> {
        let ids: Vec<String> = (0..count)
            .map(|n| format!("c{count}-{round}-{n}"))
            .collect();
        let begin = Instant::now();
        let mut calls = Vec::new();
        for id in &ids {
            let mut command = self.ctr();
            command.args(["run", "-d", "--null-io", IMAGE, id, "sleep", "100000"]);
            calls.push(command.spawn().map_err(|e| format!("ctr: {e}"))?);
        }
        let waiting = calls.into_iter().map(|call| {
            std::thread::spawn(move || {
                let out = call
                    .wait_with_output()
                    .map_err(|e| format!("ctr run: {e}"))?;
                let took = begin.elapsed();
                if out.status.success() {
                    Ok(took)
                } else {
                    Err(format!(
                        "ctr run: {}",
                        String::from_utf8_lossy(&out.stderr).trim()
                    ))
                }
            })
        });
        let waiting: Vec<_> = waiting.collect();
        let times = waiting
            .into_iter()
            .map(|t| {
                t.join()
                    .map_err(|_| "a waiting thread panicked".to_owned())?
            })
            .collect();
        for id in &ids {
            self.end(id);
        }
        let mut words = vec!["containers", "delete"];
        words.extend(ids.iter().map(String::as_str));
        self.call(&words)?;
        times
    }

    /// Resident memory of the daemon and of one shim with an idle container, in bytes.
    pub(crate) fn memory(&self) -> Result<(u64, u64), String> {
        self.call(&["run", "-d", "--null-io", IMAGE, "idle", "sleep", "100000"])?;
        let mark = self.directory.path().display().to_string();
        let shim = crate::idle::processes(|words| {
            words.iter().any(|w| w.contains(&mark)) && words[0].contains("containerd-shim")
        });
        let daemon = crate::idle::rss(self.daemon.id())?;
        let shim = shim
            .first()
            .map_or(Err("containerd's shim is not found".to_owned()), |pid| {
                crate::idle::rss(*pid)
            });
        self.end("idle");
        self.call(&["containers", "delete", "idle"])?;
        Ok((daemon, shim?))
    }

    fn ctr(&self) -> Command {
        let mut command = Command::new("ctr");
        command
            .arg("--address")
            .arg(self.directory.path().join("sock"))
            .args(["--namespace", &self.namespace]);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        command
    }

    fn call(&self, words: &[&str]) -> Result<(), String> {
        let out = self
            .ctr()
            .args(words)
            .output()
            .map_err(|e| format!("ctr: {e}"))?;
        let text = String::from_utf8_lossy(&out.stderr);
        if out.status.success() {
            Ok(())
        } else {
            Err(format!("ctr {}: {}", words.join(" "), text.trim()))
        }
    }

    /// Kills a container's process. `ctr` hands its status on (137), so the status says nothing; whether
    /// it worked shows when the container is deleted.
    fn end(&self, id: &str) {
        let _ = self.call(&["tasks", "delete", "--force", id]);
    }

    /// Directories that runc leaves in the hierarchies: named by our namespace, and empty.
    fn cgroups(&self) -> Vec<PathBuf> {
        let root = Path::new("/sys/fs/cgroup");
        let below = std::fs::read_dir(root)
            .into_iter()
            .flatten()
            .flatten()
            .map(|e| e.path());
        below
            .chain([root.to_owned()])
            .map(|dir| dir.join(&self.namespace))
            .filter(|dir| dir.is_dir())
            .collect()
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        // What a failed round left; an empty list is fine.
        if let Ok(out) = self
            .ctr()
            .args(["tasks", "list", "-q"])
            .stdout(Stdio::piped())
            .output()
        {
            for id in String::from_utf8_lossy(&out.stdout).split_whitespace() {
                self.end(id);
            }
        }
        let pid = nix::unistd::Pid::from_raw(self.daemon.id().cast_signed());
        // SIGTERM lets it close its database; without an effect the kill below ends it.
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_secs(5) && matches!(self.daemon.try_wait(), Ok(None))
        {
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
        warren_testkit::faults::unmount_below(&self.directory.path().display().to_string());
        for dir in self.cgroups() {
            let _ = std::fs::remove_dir(dir);
        }
    }
}
