//! What this machine is: its name, processors, memory, disk.

use std::path::Path;
use warren_types::limits::NAME_CHARS_MAX;
use warren_types::{Bytes, MilliCpu, NodeResources, Platform};

/// Name of a node whose machine has none that would do.
const NAME_FALLBACK: &str = "node-1";

/// Host name.
pub(crate) fn hostname() -> String {
    let text = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    text.trim().to_owned()
}

/// The host name as the name of a node: a DNS label.
pub(crate) fn default_name() -> String {
    as_name(&hostname())
}

fn as_name(hostname: &str) -> String {
    let first = hostname
        .split('.')
        .next()
        .unwrap_or_default()
        .to_ascii_lowercase();
    let kept: String = first
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .take(NAME_CHARS_MAX)
        .collect();
    let name = kept.trim_matches('-');
    if name.is_empty() {
        NAME_FALLBACK.to_owned()
    } else {
        name.to_owned()
    }
}

/// Processors, memory, and the disk below `data_dir`.
pub(crate) fn resources(data_dir: &Path) -> NodeResources {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let disk = nix::sys::statvfs::statvfs(data_dir)
        .map_or(0, |s| s.blocks().saturating_mul(s.fragment_size()));
    NodeResources {
        cpu: MilliCpu(u32::try_from(cores).unwrap_or(1).saturating_mul(1000)),
        memory: Bytes(memory(
            &std::fs::read_to_string("/proc/meminfo").unwrap_or_default(),
        )),
        disk: Bytes(disk),
    }
}

/// Total memory in bytes, from the text of `/proc/meminfo`.
fn memory(meminfo: &str) -> u64 {
    let line = meminfo.lines().find_map(|l| l.strip_prefix("MemTotal:"));
    let kib: u64 = line
        .and_then(|l| l.split_whitespace().next()?.parse().ok())
        .unwrap_or(0);
    kib.saturating_mul(1024)
}

/// Operating system and processor in the words of images.
pub(crate) fn platform() -> Platform {
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    Platform {
        os: std::env::consts::OS.to_owned(),
        arch: arch.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_dns_labels() {
        for (host, name) in [
            ("Web-1.example.org", "web-1"),
            ("my_box", "my-box"),
            ("", "node-1"),
            ("---", "node-1"),
        ] {
            assert_eq!(as_name(host), name);
        }
        assert_eq!(as_name(&"x".repeat(100)).len(), NAME_CHARS_MAX);
    }

    #[test]
    fn memory_is_read() {
        assert_eq!(
            memory("MemTotal:       1024 kB\nMemFree: 1 kB\n"),
            1024 * 1024
        );
        assert_eq!(memory("nonsense"), 0);
    }
}
