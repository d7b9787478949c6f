//! Faults that a test injects into a node.

use crate::Node;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;

/// What a power cut does to a node: its daemon, shims and containers die at once, and everything
/// that lives in memory (run directory, mounts, links, rules) is gone. What was synced stays.
pub fn power_cut(node: &mut Node) {
    node.kill();
    let directory = node.directory().display().to_string();
    kill_all_of(&directory);
    unmount_below(&directory);
    let host = node.host();
    for link in host.run(interface_names) {
        if link != "lo" && link != "eth0" {
            let _ = host.command("ip").args(["link", "del", &link]).output();
        }
    }
    let _ = host.command("nft").args(["flush", "ruleset"]).output();
    if let Err(e) = fs::remove_dir_all(node.run_dir()) {
        assert!(
            e.kind() == std::io::ErrorKind::NotFound,
            "{}: {e}",
            node.run_dir().display()
        );
    }
}

/// Kills the node's shims and, through their cgroups, its containers.
fn kill_all_of(directory: &str) {
    for _ in 0..100 {
        let found = processes_of(directory);
        if found.is_empty() {
            return;
        }
        for pid in found {
            // It may be gone already.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!(
        "processes of {directory} do not die: {:?}",
        processes_of(directory)
    );
}

/// Processes that name the directory in their command line, and their descendants.
fn processes_of(directory: &str) -> Vec<i32> {
    let own = std::process::id() as i32;
    let mut parents: Vec<(i32, i32, bool)> = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<i32>() else {
            continue;
        };
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let mut after = stat
            .rsplit(')')
            .next()
            .unwrap_or_default()
            .split_whitespace();
        if after.next() == Some("Z") {
            continue;
        }
        let parent = after.next().and_then(|p| p.parse().ok()).unwrap_or(0);
        let text =
            String::from_utf8_lossy(&line).into_owned() + &String::from_utf8_lossy(&environment);
        parents.push((pid, parent, pid != own && text.contains(directory)));
    }
    let mut found: Vec<i32> = parents.iter().filter(|p| p.2).map(|p| p.0).collect();
    loop {
        let more: Vec<i32> = parents
            .iter()
            .filter(|p| found.contains(&p.1) && !found.contains(&p.0) && p.0 != own)
            .map(|p| p.0)
            .collect();
        if more.is_empty() {
            return found;
        }
        found.extend(more);
    }
}

/// Unmounts whatever is mounted below a directory.
pub fn unmount_below(directory: &str) {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points = table
        .lines()
        .filter_map(|l| l.split(' ').nth(4))
        .filter(|p| p.starts_with(directory));
    let mut points: Vec<&str> = points.collect();
    points.sort_unstable_by_key(|p| std::cmp::Reverse(p.len()));
    for point in points {
        let _ = nix::mount::umount2(point, nix::mount::MntFlags::MNT_DETACH);
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
