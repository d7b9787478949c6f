//! A place for real containers: directories, control group, root file system, and proof that nothing is left.

#![allow(dead_code, reason = "each test program uses its part")]

use super::common::{Environment, PATIENCE, Workload, fresh_id, soon};
use std::future::Future;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use tokio::io::AsyncReadExt;
use warren_runtime::cgroup::Cgroups;
use warren_runtime::{Driver, EmbeddedConfig, EmbeddedDriver, ExecSpec, RuntimeSpec};
use warren_types::{ContainerId, ExitInfo};

const SHIM: &str = env!("CARGO_BIN_EXE_warren-shim-test");
const BUSYBOX: &str = "/bin/busybox";

pub struct Host {
    dir: tempfile::TempDir,
    cgroup_root: String,
    driver: Option<EmbeddedDriver>,
    pub groups: Cgroups,
    mounts: usize,
}

/// Arguments that run a shell script.
pub fn script(text: &str) -> Vec<String> {
    ["/bin/sh", "-c", text].map(str::to_owned).to_vec()
}

pub fn make_executable(path: &Path) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// Whether a process runs; one that has ended and waits to be collected does not.
pub fn runs(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        !stat
            .rsplit(')')
            .next()
            .unwrap_or_default()
            .trim_start()
            .starts_with('Z')
    })
}

/// Whether any file below a directory holds a text; other file systems are not entered.
pub fn holds_text(dir: &Path, text: &str) -> bool {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return false;
    };
    entries.flatten().any(|e| match e.file_type() {
        Ok(kind) if kind.is_dir() => holds_text(&e.path(), text),
        Ok(kind) if kind.is_file() => std::fs::read(e.path())
            .is_ok_and(|b| b.windows(text.len()).any(|w| w == text.as_bytes())),
        _ => false,
    })
}

impl Host {
    pub async fn new() -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        if !nix::unistd::geteuid().is_root() {
            eprintln!("SKIPPED (needs root): a test with real containers");
            return None;
        }
        if !Path::new(BUSYBOX).exists() {
            eprintln!(
                "SKIPPED (needs {BUSYBOX}, Debian package busybox-static): a test with real containers"
            );
            return None;
        }
        let dir = tempfile::Builder::new()
            .prefix("warren-runtime-")
            .tempdir()
            .unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let cgroup_root = format!(
            "/warren-test-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        make_rootfs(&dir.path().join("rootfs"));
        let groups = Cgroups::discover().unwrap();
        let mut host = Self {
            dir,
            cgroup_root,
            driver: None,
            groups,
            mounts: 0,
        };
        host.mounts = host.own_mounts();
        host.reopen().await;
        Some(host)
    }

    pub fn config(&self) -> EmbeddedConfig {
        EmbeddedConfig {
            shim_exe: SHIM.into(),
            state_dir: self.state_dir(),
            log_dir: self.log_dir(),
            cgroup_root: self.cgroup_root.clone(),
        }
    }

    pub fn state_dir(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    pub fn log_dir(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    pub fn rootfs(&self) -> PathBuf {
        self.dir.path().join("rootfs")
    }

    pub fn cgroup(&self, id: ContainerId) -> String {
        format!("{}/{id}", self.cgroup_root)
    }

    /// A fresh directory on the host.
    pub fn dir(&self, name: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::create_dir(&path).unwrap();
        path
    }

    pub async fn reopen(&mut self) {
        assert!(self.driver.is_none());
        self.driver = Some(
            soon("the driver", EmbeddedDriver::open(self.config()))
                .await
                .unwrap(),
        );
    }

    /// Lets go of the driver.
    pub async fn close(&mut self) {
        drop(self.driver.take());
    }

    pub fn bare_spec(&self) -> RuntimeSpec {
        RuntimeSpec::new(fresh_id(), self.rootfs(), ["true"])
    }

    /// Runs a command to its end; gives its end and all of its output.
    pub async fn run(&self, id: ContainerId, spec: ExecSpec) -> (ExitInfo, String) {
        let what = format!("{:?}", spec.args);
        let mut handle = soon(&what, self.driver().exec(id, spec)).await.unwrap();
        let mut stderr = handle.stderr.take().unwrap();
        let (mut out, mut err) = (String::new(), String::new());
        let both = async {
            tokio::join!(
                handle.stdout.read_to_string(&mut out),
                stderr.read_to_string(&mut err)
            )
        };
        let _ = soon(&what, both).await;
        (soon(&what, handle.exit).await.unwrap(), out + &err)
    }

    pub async fn until<F: Future<Output = bool>>(&self, what: &str, condition: impl Fn() -> F) {
        soon(what, async {
            while !condition().await {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        })
        .await;
    }

    pub fn shim_pid(&self, id: ContainerId) -> i32 {
        let text = std::fs::read_to_string(self.state_dir().join(id.to_string()).join("shim.json"))
            .unwrap();
        let digits: String = text.chars().filter(char::is_ascii_digit).collect();
        digits.parse().unwrap()
    }

    pub fn shim_memory_kib(&self, id: ContainerId) -> String {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.shim_pid(id))).unwrap();
        let field = |key: &str| {
            status
                .lines()
                .find(|l| l.starts_with(key))
                .unwrap_or_default()
                .to_owned()
        };
        format!(
            "{} {} {}",
            field("VmRSS"),
            field("RssAnon"),
            field("RssFile")
        )
    }

    fn own_mounts(&self) -> usize {
        let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        table
            .lines()
            .filter(|l| l.contains(self.dir.path().to_str().unwrap()))
            .count()
    }

    fn own_processes(&self) -> Vec<String> {
        let dir = self.dir.path().to_str().unwrap().to_owned();
        let processes = std::fs::read_dir("/proc").unwrap().flatten();
        processes
            .filter_map(|p| std::fs::read_to_string(p.path().join("cmdline")).ok())
            .filter(|line| line.contains(&dir))
            .collect()
    }

    /// Everything was deleted: asserts that nothing is left on the machine.
    pub async fn finish(mut self) {
        assert_eq!(self.driver().list().await.unwrap(), []);
        self.close().await;
        self.until("no process is left", || async {
            self.own_processes().is_empty()
        })
        .await;
        assert_eq!(self.own_mounts(), self.mounts, "mounts");
        let left: Vec<_> = std::fs::read_dir(self.state_dir())
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        assert_eq!(left, ["driver.lock"]);
        assert_eq!(
            std::fs::read_dir(self.log_dir()).unwrap().count(),
            0,
            "logs"
        );
        let name = self.cgroup_root.trim_start_matches('/');
        assert!(
            !self.groups.children("/").iter().any(|g| g == name),
            "control groups"
        );
    }

    /// A daemon in a process of its own that runs one container.
    pub fn hold(&self, id: ContainerId) -> Daemon {
        let child = Command::new(SHIM)
            .arg("hold")
            .args([self.state_dir(), self.log_dir()])
            .arg(&self.cgroup_root)
            .arg(self.rootfs())
            .arg(id.to_string())
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Daemon(child)
    }

    pub fn network_namespace(&self) -> NetworkNamespace {
        let path = self.dir.path().join("netns");
        std::fs::write(&path, "").unwrap();
        let target = path.clone();
        // A thread of its own: it changes its namespace and ends.
        std::thread::spawn(move || {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            let source = "/proc/thread-self/ns/net";
            nix::mount::mount(
                Some(source),
                &target,
                None::<&str>,
                nix::mount::MsFlags::MS_BIND,
                None::<&str>,
            )
            .unwrap();
        })
        .join()
        .unwrap();
        NetworkNamespace { path }
    }
}

pub struct NetworkNamespace {
    pub path: PathBuf,
}

impl NetworkNamespace {
    pub fn identity(&self) -> String {
        use std::os::unix::fs::MetadataExt;
        format!("net:[{}]", std::fs::metadata(&self.path).unwrap().ino())
    }
}

impl Drop for NetworkNamespace {
    fn drop(&mut self) {
        nix::mount::umount(&self.path).unwrap();
    }
}

pub struct Daemon(Child);

impl Daemon {
    pub fn first_line(&mut self) -> String {
        let mut line = String::new();
        BufReader::new(self.0.stderr.as_mut().unwrap())
            .read_line(&mut line)
            .unwrap();
        line.trim().to_owned()
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Host {
    /// After a failed test: nothing of it may run on.
    fn drop(&mut self) {
        for name in self.groups.children(&self.cgroup_root) {
            let _ = self.groups.destroy(&format!("{}/{name}", self.cgroup_root));
        }
        let _ = self.groups.destroy(&self.cgroup_root);
    }
}

impl Environment for Host {
    fn driver(&self) -> &dyn Driver {
        self.driver.as_ref().expect("the driver is open")
    }

    fn spec(&self, workload: Workload) -> RuntimeSpec {
        let mut spec = self.bare_spec();
        let wait = "while :; do sleep 0.05; done";
        spec.args = match workload {
            Workload::Exit(code) => script(&format!("exit {code}")),
            Workload::Polite => script(&format!("trap 'exit 0' TERM; echo ready; {wait}")),
            Workload::Stubborn => script(&format!("trap '' TERM; echo ready; {wait}")),
            Workload::Print(lines) => script(&format!(
                "trap 'exit 0' TERM; for i in $(seq {lines}); do echo out $i; done; echo err 1 >&2; {wait}"
            )),
            Workload::Missing => vec!["no-such-program".to_owned()],
        };
        spec
    }

    fn talking_command(&self) -> ExecSpec {
        ExecSpec::new(script("echo hello; echo oops >&2; exit 5"))
    }
}

fn make_rootfs(root: &Path) {
    for dir in ["bin", "etc", "tmp", "home"] {
        std::fs::create_dir_all(root.join(dir)).unwrap();
    }
    std::fs::set_permissions(root.join("tmp"), std::fs::Permissions::from_mode(0o1777)).unwrap();
    std::fs::copy(BUSYBOX, root.join("bin/busybox")).unwrap();
    let applets = Command::new(BUSYBOX).arg("--list").output().unwrap();
    for applet in String::from_utf8(applets.stdout)
        .unwrap()
        .lines()
        .filter(|a| *a != "busybox")
    {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(applet)).unwrap();
    }
    std::fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n").unwrap();
    if std::fs::hard_link(SHIM, root.join("probe")).is_err() {
        std::fs::copy(SHIM, root.join("probe")).unwrap();
    }
    assert!(!PATIENCE.is_zero());
}
