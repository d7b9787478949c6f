//! What truly runs on this machine, read from `/proc`.

use std::collections::BTreeSet;

/// Processes that are `sleep MARK`: what containers of a test run.
///
/// # Panics
/// When `/proc` cannot be read.
#[must_use]
pub fn sleeping(mark: &str) -> BTreeSet<u32> {
    let entries = std::fs::read_dir("/proc").unwrap_or_else(|e| panic!("/proc: {e}"));
    let pids = entries
        .flatten()
        .filter_map(|e| e.file_name().to_string_lossy().parse::<u32>().ok());
    pids.filter(|pid| {
        // One that has just ended has no command line any more.
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line)
            .split('\0')
            .eq(["sleep", mark, ""])
    })
    .collect()
}

/// A text for [`sleeping`] that no other test uses.
#[must_use]
pub fn mark(first: u32) -> String {
    format!("{first}{:07}", std::process::id() % 10_000_000)
}

/// Memory that a process has in use, in bytes; 0 when there is no such process.
#[must_use]
pub fn resident_bytes(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
    let kib: u64 = line
        .and_then(|l| l.split_whitespace().next()?.parse().ok())
        .unwrap_or(0);
    kib * 1024
}
