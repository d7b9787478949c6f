//! What a node leaves on a machine: compared before and after.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Everything of a kind that a node could leak.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Traces {
    /// Mount points.
    pub mounts: BTreeSet<String>,
    /// Directories below the cgroup hierarchies.
    pub cgroups: BTreeSet<String>,
    /// Network links of the host's namespace.
    pub links: BTreeSet<String>,
    /// nftables tables of the host's namespace.
    pub tables: BTreeSet<String>,
    /// Processes whose command line names the node's directories.
    pub processes: BTreeSet<String>,
}

impl Traces {
    /// What there is now, on the machine and in the host's namespace. `marks` are texts that the
    /// node's own mounts, cgroups and processes carry (its directories, its id).
    #[must_use]
    pub fn take(host: &crate::Host, marks: &[impl AsRef<str>]) -> Self {
        let ours = |text: &str| marks.iter().any(|mark| text.contains(mark.as_ref()));
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let mounts = mounts
            .lines()
            .filter_map(|l| l.split(' ').nth(4))
            .filter(|m| ours(m))
            .map(str::to_owned);
        let mut cgroups = BTreeSet::new();
        collect_directories(Path::new("/sys/fs/cgroup"), 6, &mut |path| {
            if ours(path) {
                cgroups.insert(path.to_owned());
            }
        });
        Self {
            mounts: mounts.collect(),
            cgroups,
            links: host.run(|| interface_names().into_iter().collect()),
            tables: nft_tables(host),
            processes: processes(&ours),
        }
    }

    /// What is in `self` and not in `before`, one line each.
    #[must_use]
    pub fn beyond(&self, before: &Self) -> Vec<String> {
        let kinds = [
            ("mount", &self.mounts, &before.mounts),
            ("cgroup", &self.cgroups, &before.cgroups),
            ("link", &self.links, &before.links),
            ("nftables table", &self.tables, &before.tables),
            ("process", &self.processes, &before.processes),
        ];
        let rows = kinds
            .into_iter()
            .flat_map(|(kind, now, then)| now.difference(then).map(move |x| format!("{kind} {x}")));
        rows.collect()
    }
}

fn interface_names() -> Vec<String> {
    let list = nix::net::if_::if_nameindex();
    list.map(|all| {
        all.iter()
            .map(|i| i.name().to_string_lossy().into_owned())
            .collect()
    })
    .unwrap_or_default()
}

fn nft_tables(host: &crate::Host) -> BTreeSet<String> {
    let out = host.command("nft").args(["list", "tables"]).output();
    let text = out
        .map(|o| String::from_utf8_lossy(&o.stdout).into_owned())
        .unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

fn collect_directories(at: &Path, depth: usize, see: &mut impl FnMut(&str)) {
    let Ok(entries) = fs::read_dir(at) else {
        return;
    };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            see(&entry.path().to_string_lossy());
            if depth > 0 {
                collect_directories(&entry.path(), depth - 1, see);
            }
        }
    }
}

fn processes(ours: &impl Fn(&str) -> bool) -> BTreeSet<String> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return BTreeSet::new();
    };
    let ids = entries
        .flatten()
        .filter_map(|e| e.file_name().to_string_lossy().parse::<u32>().ok());
    ids.filter(|id| *id != std::process::id())
        .filter_map(|id| {
            let line = fs::read(format!("/proc/{id}/cmdline")).ok()?;
            let text = String::from_utf8_lossy(&line).replace('\0', " ");
            ours(&text).then(|| format!("{id} {}", text.trim()))
        })
        .collect()
}
