//! What a node costs that does nothing: memory and disk.

use crate::Bench;
use crate::report::{Row, mib};
use std::fs;
use std::time::Duration;

/// Quiet time before memory is read.
const SETTLE: Duration = Duration::from_secs(30);
/// How long disk writes are counted.
const MINUTE: Duration = Duration::from_secs(60);
const HELLO_PORT: &str = "8090";

pub(crate) fn measure(bench: &mut Bench) -> Result<Vec<Row>, String> {
    println!(
        "idle: the hello service runs, nobody asks anything; memory (VmRSS) after {} s, bytes the daemon wrote to disk in the\n\
         {} s after that; the reference: containerd and its shim with one idle container",
        SETTLE.as_secs(),
        MINUTE.as_secs()
    );
    let up = bench.node.cli(&["up", "--hello-port", HELLO_PORT]);
    if up.code != 0 {
        return Err(format!("warren up: {}", up.stderr.trim()));
    }
    let daemon = bench.node.pid().ok_or("the daemon does not run")?;
    let reference = bench
        .reference
        .as_ref()
        .map(super::containerd::Containerd::memory)
        .transpose()?;
    std::thread::sleep(SETTLE);
    let memory = rss(daemon)?;
    let anonymous = number(&format!("/proc/{daemon}/status"), "RssAnon:")? << 10;
    let mark = bench.node.directory().display().to_string();
    let shims = processes(|words| {
        words.get(1).is_some_and(|w| w == "__shim") && words.iter().any(|w| w.contains(&mark))
    });
    let shims: Vec<u64> = shims.into_iter().map(rss).collect::<Result<_, _>>()?;
    let before = written(daemon)?;
    std::thread::sleep(MINUTE);
    let bytes = written(daemon)?.saturating_sub(before);
    // The count since the start shows that the counter counts.
    let disk = format!("{bytes} bytes ({:.2} MB/h)", bytes as f64 * 60.0 / 1e6);
    let disk = Row::new(
        format!(
            "written to disk in one idle minute ({} before it)",
            mib(before)
        ),
        disk,
    );
    let what = format!(
        "memory of the idle daemon ({} of it private)",
        mib(anonymous)
    );
    let mut rows =
        vec![Row::sizes(what, memory, reference.map(|r| ("containerd", r.0))).budget("<= 40 MB")];
    if let Some(largest) = shims.iter().max() {
        rows.push(Row::sizes(
            "memory of one shim",
            *largest,
            reference.map(|r| ("containerd-shim", r.1)),
        ));
    }
    rows.push(disk.budget("<= 5 MB/h"));
    Ok(rows)
}

/// Resident memory of a process in bytes.
pub(crate) fn rss(pid: u32) -> Result<u64, String> {
    number(&format!("/proc/{pid}/status"), "VmRSS:").map(|kib| kib << 10)
}

/// Bytes that a process caused to be written to disk so far.
fn written(pid: u32) -> Result<u64, String> {
    number(&format!("/proc/{pid}/io"), "write_bytes:")
}

fn number(path: &str, key: &str) -> Result<u64, String> {
    let text = fs::read_to_string(path).map_err(|e| format!("{path}: {e}"))?;
    let line = text.lines().find_map(|l| l.strip_prefix(key));
    let value = line
        .and_then(|l| l.split_whitespace().next())
        .and_then(|n| n.parse().ok());
    value.ok_or_else(|| format!("{path} holds no {key}"))
}

/// Processes whose command line fits.
pub(crate) fn processes(fits: impl Fn(&[String]) -> bool) -> Vec<u32> {
    let ids = fs::read_dir("/proc").into_iter().flatten().flatten();
    let ids = ids.filter_map(|e| e.file_name().to_string_lossy().parse::<u32>().ok());
    ids.filter(|id| {
        let line = fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
        let words: Vec<String> = line
            .split(|b| *b == 0)
            .map(|w| String::from_utf8_lossy(w).into_owned())
            .collect();
        !line.is_empty() && fits(&words)
    })
    .collect()
}
