//! The control groups of containers: where they are, what they say, and their removal.
//!
//! Works with version 1 (also beside an empty version 2 hierarchy) and version 2. Setting limits is
//! libcontainer's work; this module reads and ends.

use crate::driver::ContainerStats;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long the removal of a group whose processes were killed may take.
const REMOVE_LIMIT: Duration = Duration::from_secs(5);
/// Pause between two attempts to remove a group that is still busy.
const REMOVE_PAUSE: Duration = Duration::from_millis(2);
/// Values of the version 1 memory limit from here on mean "no limit".
const V1_NO_LIMIT: u64 = 1 << 62;

/// The hierarchies of this host.
#[derive(Debug, Clone)]
pub struct Cgroups {
    hierarchies: Vec<Hierarchy>,
}

#[derive(Debug, Clone)]
struct Hierarchy {
    mount: PathBuf,
    /// Controllers (version 1), or empty for version 2.
    controllers: Vec<String>,
    unified: bool,
}

impl Cgroups {
    /// Reads the mount table.
    pub fn discover() -> io::Result<Self> {
        Ok(Self {
            hierarchies: parse_mounts(&fs::read_to_string("/proc/self/mountinfo")?),
        })
    }

    /// Version 2 alone: no version 1 controller is mounted.
    #[must_use]
    pub fn is_unified(&self) -> bool {
        self.hierarchies.iter().all(|h| h.unified)
    }

    /// Existing directories of a group, one per hierarchy.
    fn dirs(&self, group: &str) -> impl Iterator<Item = PathBuf> {
        let relative = group.trim_start_matches('/').to_owned();
        self.hierarchies
            .iter()
            .map(move |h| h.mount.join(&relative))
            .filter(|d| d.is_dir())
    }

    /// Directory of a group where a controller is, in either version.
    fn dir_of(&self, controller: &str, group: &str) -> Option<PathBuf> {
        let found = self
            .hierarchies
            .iter()
            .find(|h| h.controllers.iter().any(|c| c == controller))
            .or_else(|| self.hierarchies.iter().find(|h| h.unified))?;
        Some(found.mount.join(group.trim_start_matches('/')))
    }

    /// Names of the groups directly below `parent`, in any hierarchy.
    #[must_use]
    pub fn children(&self, parent: &str) -> Vec<String> {
        let mut names: Vec<String> = self
            .dirs(parent)
            .filter_map(|dir| fs::read_dir(dir).ok())
            .flatten()
            .flatten()
            .filter(|entry| entry.file_type().is_ok_and(|t| t.is_dir()))
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect();
        names.sort();
        names.dedup();
        names
    }

    /// Kills every process of a group and removes it in all hierarchies. Blocking. A group that does not
    /// exist is no error.
    pub fn destroy(&self, group: &str) -> io::Result<()> {
        let deadline = Instant::now() + REMOVE_LIMIT;
        loop {
            let mut busy = None;
            for dir in self.dirs(group) {
                match remove_tree(&dir) {
                    Ok(()) => {}
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => {
                        kill_members(&dir);
                        busy = Some(error);
                    }
                }
            }
            match busy {
                None => return Ok(()),
                Some(error) if Instant::now() > deadline => return Err(error),
                Some(_) => std::thread::sleep(REMOVE_PAUSE),
            }
        }
    }

    /// Removes a group where it is empty, in one attempt.
    pub fn remove_if_empty(&self, group: &str) {
        for dir in self.dirs(group) {
            let _ = remove_tree(&dir);
        }
    }

    /// Moves this process to a group of the hierarchies by which a service manager tracks processes (named
    /// version 1 hierarchies, version 2), so that stopping the daemon's service does not end it. Where it is
    /// in no service's group anyway, nothing happens: a move takes ten milliseconds and more.
    pub fn move_aside(&self, group: &str) -> io::Result<()> {
        let own = fs::read_to_string("/proc/self/cgroup")?;
        for hierarchy in &self.hierarchies {
            let name = hierarchy
                .controllers
                .iter()
                .find(|c| c.starts_with("name="));
            let present = match (hierarchy.unified, name) {
                (true, _) => own_group(&own, ""),
                (false, Some(name)) => own_group(&own, name),
                (false, None) => None,
            };
            if present.is_some_and(|present| present != "/") {
                let dir = hierarchy.mount.join(group.trim_start_matches('/'));
                fs::create_dir_all(&dir)?;
                fs::write(dir.join("cgroup.procs"), std::process::id().to_string())?;
            }
        }
        Ok(())
    }

    /// How many processes of the group the kernel has killed for lack of memory.
    #[must_use]
    pub fn oom_kills(&self, group: &str) -> u64 {
        let Some(dir) = self.dir_of("memory", group) else {
            return 0;
        };
        ["memory.oom_control", "memory.events"]
            .iter()
            .filter_map(|name| fs::read_to_string(dir.join(name)).ok())
            .find_map(|text| keyed(&text, "oom_kill"))
            .unwrap_or(0)
    }

    /// What a group uses.
    pub fn stats(&self, group: &str) -> io::Result<ContainerStats> {
        let missing = || io::Error::new(io::ErrorKind::NotFound, "the control group is not there");
        let memory = self
            .dir_of("memory", group)
            .filter(|d| d.is_dir())
            .ok_or_else(missing)?;
        let cpu = self.dir_of("cpuacct", group).ok_or_else(missing)?;
        let pids = self.dir_of("pids", group).ok_or_else(missing)?;
        let cpu_usec = match number(&cpu.join("cpuacct.usage")) {
            Some(nanoseconds) => nanoseconds / 1000,
            None => fs::read_to_string(cpu.join("cpu.stat"))
                .ok()
                .and_then(|t| keyed(&t, "usage_usec"))
                .unwrap_or(0),
        };
        let used = number(&memory.join("memory.usage_in_bytes"))
            .or_else(|| number(&memory.join("memory.current")));
        let detail = fs::read_to_string(memory.join("memory.stat")).unwrap_or_default();
        let cache = keyed(&detail, "total_inactive_file")
            .or_else(|| keyed(&detail, "inactive_file"))
            .unwrap_or(0);
        let limit = number(&memory.join("memory.limit_in_bytes"))
            .or_else(|| number(&memory.join("memory.max")));
        Ok(ContainerStats {
            cpu_usec,
            memory_bytes: used.unwrap_or(0).saturating_sub(cache),
            memory_limit_bytes: limit.filter(|l| *l < V1_NO_LIMIT),
            pids: number(&pids.join("pids.current")).unwrap_or(0),
        })
    }

    /// Content of a group's file, looked for where `controller` is; for tests and diagnosis.
    pub fn read(&self, controller: &str, group: &str, file: &str) -> io::Result<String> {
        let dir = self
            .dir_of(controller, group)
            .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        fs::read_to_string(dir.join(file)).map(|text| text.trim().to_owned())
    }
}

/// The group of a process in one hierarchy, from the text of its `cgroup` file.
fn own_group<'a>(text: &'a str, controllers: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (have, group) = rest.split_once(':')?;
        (have == controllers).then_some(group)
    })
}

fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn keyed(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        line.strip_prefix(key)?
            .strip_prefix(' ')?
            .trim()
            .parse()
            .ok()
    })
}

fn kill_members(dir: &Path) {
    if fs::write(dir.join("cgroup.kill"), "1").is_ok() {
        return;
    }
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        let members = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
        for pid in members
            .lines()
            .filter_map(|l| l.parse::<i32>().ok())
            .filter(|p| *p > 1)
        {
            // A process that ended meanwhile is what we want.
            let _ = nix::sys::signal::kill(
                nix::unistd::Pid::from_raw(pid),
                nix::sys::signal::Signal::SIGKILL,
            );
        }
        dirs.extend(subdirs(&dir));
    }
}

fn remove_tree(dir: &Path) -> io::Result<()> {
    for child in subdirs(dir) {
        remove_tree(&child)?;
    }
    fs::remove_dir(dir)
}

fn subdirs(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter(|e| e.file_type().is_ok_and(|t| t.is_dir()))
        .map(|e| e.path())
        .collect()
}

fn parse_mounts(table: &str) -> Vec<Hierarchy> {
    let mut found: Vec<Hierarchy> = Vec::new();
    for line in table.lines() {
        let Some((left, right)) = line.split_once(" - ") else {
            continue;
        };
        let mut left = left.split(' ').skip(3);
        let (Some("/"), Some(mount)) = (left.next(), left.next()) else {
            continue;
        };
        let mut right = right.split(' ');
        let (kind, options) = (
            right.next().unwrap_or_default(),
            right.nth(1).unwrap_or_default(),
        );
        let mount = PathBuf::from(mount);
        if found.iter().any(|h| h.mount == mount) {
            continue;
        }
        match kind {
            "cgroup2" => found.push(Hierarchy {
                mount,
                controllers: Vec::new(),
                unified: true,
            }),
            "cgroup" => {
                let controllers = options
                    .split(',')
                    .filter(|o| !matches!(*o, "rw" | "ro"))
                    .map(str::to_owned)
                    .collect();
                found.push(Hierarchy {
                    mount,
                    controllers,
                    unified: false,
                });
            }
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
24 1 8:1 / / rw - ext4 /dev/vda rw
30 24 0:20 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
31 30 0:21 / /sys/fs/cgroup/memory rw,relatime shared:3 - cgroup cgroup rw,memory
32 30 0:22 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
33 30 0:23 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
34 30 0:24 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
35 24 0:21 /warren/x /var/bind rw,relatime - cgroup cgroup rw,memory
";

    #[test]
    fn mount_table_of_a_hybrid_host() {
        let groups = Cgroups {
            hierarchies: parse_mounts(HYBRID),
        };
        assert!(!groups.is_unified());
        assert_eq!(groups.hierarchies.len(), 4);
        assert_eq!(
            groups.dir_of("cpuacct", "/warren/x"),
            Some(PathBuf::from("/sys/fs/cgroup/cpu,cpuacct/warren/x"))
        );
        assert_eq!(
            groups.dir_of("pids", "/w"),
            Some(PathBuf::from("/sys/fs/cgroup/unified/w"))
        );
    }

    #[test]
    fn own_groups() {
        let text = "9:name=systemd:/system.slice/warren.service\n4:memory:/\n0::/a:b\n";
        assert_eq!(
            own_group(text, "name=systemd"),
            Some("/system.slice/warren.service")
        );
        assert_eq!(own_group(text, ""), Some("/a:b"));
        assert_eq!(own_group(text, "pids"), None);
    }

    #[test]
    fn keyed_values() {
        assert_eq!(
            keyed("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n", "oom_kill"),
            Some(3)
        );
        assert_eq!(
            keyed("low 0\noom 1\noom_kill 2\noom_group_kill 0\n", "oom_kill"),
            Some(2)
        );
        assert_eq!(keyed("", "oom_kill"), None);
    }
}
