//! What only tests and benchmarks need, from Debian: programs that are put into images, and the
//! references that benchmarks run beside ours. The product needs none of them.

use crate::process::Step;
use std::path::Path;

/// Debian package → a file that it brings.
const PACKAGES: &[(&str, &str)] = &[
    ("busybox-static", "/bin/busybox"),
    ("nginx-core", "/usr/sbin/nginx"),
    ("redis-server", "/usr/bin/redis-server"),
    ("containerd", "/usr/bin/containerd"),
    ("runc", "/usr/sbin/runc"),
    ("etcd-server", "/usr/bin/etcd"),
    ("iproute2", "/bin/ip"),
    ("nftables", "/usr/sbin/nft"),
];

/// Installs what is missing. Services that a package would start are not started.
pub(crate) fn install() -> Result<(), String> {
    let missing: Vec<&str> = PACKAGES
        .iter()
        .filter(|(_, file)| !Path::new(file).exists())
        .map(|(name, _)| *name)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    if !Path::new("/usr/bin/apt-get").exists() {
        println!(
            "xtask: NOT A DEBIAN MACHINE: install by hand, or their tests will say SKIPPED: {}",
            missing.join(", ")
        );
        return Ok(());
    }
    Step::new("apt-get")
        .arg("update")
        .arg("-qq")
        .run("package lists")?;
    let base = Step::new("apt-get")
        .env("DEBIAN_FRONTEND", "noninteractive")
        .env("RUNLEVEL", "1");
    // A policy of "do not start services" for this one call: the tests need files, not daemons.
    let step = base
        .arg("install")
        .arg("-y")
        .arg("-qq")
        .arg("--no-install-recommends");
    let names: Vec<String> = missing.iter().map(|name| (*name).to_owned()).collect();
    let _policy = StartPolicy::deny()?;
    step.args(&names).run("packages for tests")
}

const POLICY: &str = "/usr/sbin/policy-rc.d";

/// While it lives, installed packages do not start their daemons (Debian policy §9.3.3.1). A policy
/// that stands already is left as it is.
struct StartPolicy {
    ours: bool,
}

impl StartPolicy {
    fn deny() -> Result<Self, String> {
        if Path::new(POLICY).exists() {
            return Ok(Self { ours: false });
        }
        std::fs::write(POLICY, "#!/bin/sh\nexit 101\n").map_err(|e| format!("{POLICY}: {e}"))?;
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(POLICY, mode).map_err(|e| format!("{POLICY}: {e}"))?;
        Ok(Self { ours: true })
    }
}

impl Drop for StartPolicy {
    fn drop(&mut self) {
        if self.ours
            && let Err(e) = std::fs::remove_file(POLICY)
        {
            eprintln!("xtask: {POLICY} could not be removed: {e}");
        }
    }
}
