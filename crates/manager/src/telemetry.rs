//! Metrics in the text format of Prometheus (MO-01..MO-10), and whether this manager is well.

use crate::control::Control;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use warren_api::metrics_http::Telemetry;
use warren_raft::{BUCKETS, Histogram};
use warren_types::{ActualState, Liveness};

/// Clock ticks of `/proc/self/stat` in a second; fixed on Linux.
const TICKS_PER_SECOND: f64 = 100.0;
/// Bytes of a page of memory, for `/proc/self/statm`.
const PAGE_BYTES: f64 = 4096.0;

/// What this manager tells about itself over plain HTTP.
pub(crate) struct Told(pub(crate) Arc<Control>);

impl Telemetry for Told {
    fn metrics(&self) -> String {
        exposition(&self.0)
    }

    /// Outside the quorum is not unhealthy: restarting the daemon would not bring the others back.
    fn health(&self) -> BTreeMap<String, Result<String, String>> {
        let status = self.0.raft.status();
        let consensus = match status.stopped {
            Some(why) => Err(why),
            None if status.healing => Ok("fetching its log anew".to_owned()),
            None => Ok("running".to_owned()),
        };
        let disk = if status.disk_full {
            Err("full: changes are refused".to_owned())
        } else {
            Ok("ok".to_owned())
        };
        BTreeMap::from([("raft".to_owned(), consensus), ("storage".to_owned(), disk)])
    }

    fn ready(&self) -> BTreeMap<String, Result<String, String>> {
        let leadership = self.0.raft.leadership().borrow().clone();
        let raft = match (self.0.raft.contact().in_quorum, leadership.is_leader) {
            (true, true) => Ok("leader".to_owned()),
            (true, false) => Ok("follower".to_owned()),
            (false, _) => Err("outside the quorum".to_owned()),
        };
        let known = match self.0.raft.state().settings() {
            Some(_) => Ok("ok".to_owned()),
            None => Err("the cluster's state has not arrived yet".to_owned()),
        };
        BTreeMap::from([("raft".to_owned(), raft), ("state".to_owned(), known)])
    }

    fn version(&self) -> String {
        self.0.local.version.clone()
    }
}

/// All metrics of this manager.
pub(crate) fn exposition(control: &Control) -> String {
    let mut page = Page::default();
    consensus(control, &mut page);
    objects(control, &mut page);
    process(&mut page);
    page.0
}

fn consensus(control: &Control, page: &mut Page) {
    let status = control.raft.status();
    let metrics = control.raft.metrics();
    let contact = control.raft.contact();
    page.counter(
        "warren_raft_leader_changes_total",
        "Changes of the leader that this manager has seen (MO-01).",
        metrics.leader_changes as f64,
    );
    page.counter(
        "warren_raft_elections_total",
        "Elections in which this manager stood.",
        metrics.elections as f64,
    );
    page.gauge(
        "warren_raft_log_entries",
        "Entries in the log on this disk (MO-02).",
        status.log_entries as f64,
    );
    page.gauge(
        "warren_raft_log_bytes",
        "Bytes of the log on this disk.",
        status.log_bytes as f64,
    );
    page.histogram(
        "warren_raft_commit_time_seconds",
        "From a proposal to its place on a quorum's disks, on the leader (MO-03).",
        &metrics.commit_time,
    );
    page.histogram(
        "warren_raft_fsync_seconds",
        "One append to the log and its sync.",
        &metrics.fsync_duration,
    );
    page.gauge(
        "warren_raft_quorum",
        "1 when the quorum is in reach of this manager (MO-04).",
        f64::from(u8::from(contact.in_quorum)),
    );
    page.family(
        "warren_manager_proposals_total",
        "counter",
        "Proposed changes by result (MO-05).",
    );
    for (result, count) in [
        ("applied", metrics.proposals_applied),
        ("rejected", metrics.proposals_rejected),
        ("failed", metrics.proposals_failed),
    ] {
        page.labelled(
            "warren_manager_proposals_total",
            "result",
            result,
            count as f64,
        );
    }
    page.histogram(
        "warren_manager_proposal_duration_seconds",
        "From a proposal to its answer (MO-06).",
        &metrics.proposal_duration,
    );
    page.histogram(
        "warren_manager_fsm_apply_duration_seconds",
        "Applying one entry (MO-07).",
        &metrics.apply_duration,
    );
    page.gauge(
        "warren_raft_is_leader",
        "1 when this manager leads.",
        f64::from(u8::from(status.leadership.is_leader)),
    );
    page.gauge(
        "warren_raft_term",
        "The term.",
        status.leadership.term as f64,
    );
    page.gauge(
        "warren_raft_applied_index",
        "Last entry applied here.",
        status.applied_index.unwrap_or(0) as f64,
    );
    page.gauge(
        "warren_raft_committed_index",
        "Last entry known to be on a quorum.",
        status.committed_index.unwrap_or(0) as f64,
    );
    page.gauge(
        "warren_raft_snapshot_bytes",
        "Size of the newest snapshot.",
        status.snapshot_bytes as f64,
    );
    page.histogram(
        "warren_raft_snapshot_seconds",
        "Writing one snapshot of the state; writes go on meanwhile.",
        &metrics.snapshot_duration,
    );
    page.gauge(
        "warren_raft_voters",
        "Managers with a vote.",
        status.voters.len() as f64,
    );
    let state = control.raft.state();
    page.family(
        "warren_raft_peer_lag_entries",
        "gauge",
        "Entries that a manager lacks, as the leader sees it.",
    );
    for (id, peer) in &status.peers {
        let name = state
            .node(*id)
            .map_or_else(|| id.to_string(), |n| n.name.clone());
        page.labelled(
            "warren_raft_peer_lag_entries",
            "manager",
            &name,
            peer.lag as f64,
        );
    }
}

fn objects(control: &Control, page: &mut Page) {
    let state = control.raft.state();
    page.gauge(
        "warren_state_revision",
        "Revision of the state here.",
        state.revision().0 as f64,
    );
    page.gauge(
        "warren_services",
        "Services.",
        state.services().count() as f64,
    );
    let running = state
        .containers()
        .filter(|c| c.status.state == ActualState::Running);
    page.gauge(
        "warren_containers_running",
        "Containers that run.",
        running.count() as f64,
    );
    page.gauge("warren_secrets", "Secrets.", state.secrets().count() as f64);
    page.gauge("warren_volumes", "Volumes.", state.volumes().count() as f64);
    page.family("warren_nodes", "gauge", "Nodes by liveness.");
    for (name, liveness) in [
        ("ready", Liveness::Ready),
        ("down", Liveness::Down),
        ("unknown", Liveness::Unknown),
    ] {
        let count = state.nodes().filter(|n| n.liveness == liveness).count();
        page.labelled("warren_nodes", "liveness", name, count as f64);
    }
}

/// MO-08..MO-10, as the kernel tells; what it does not tell is left out.
fn process(page: &mut Page) {
    let numbers = |path: &str| {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        // The second field of stat is a name in brackets that may hold spaces.
        let rest = text
            .rsplit_once(") ")
            .map_or(text.as_str(), |(_, rest)| rest);
        rest.split_whitespace()
            .map(|word| word.parse::<f64>().unwrap_or(0.0))
            .collect::<Vec<f64>>()
    };
    if let Some(resident) = numbers("/proc/self/statm").get(1) {
        page.gauge(
            "process_resident_memory_bytes",
            "Resident memory (MO-08).",
            resident * PAGE_BYTES,
        );
    }
    let stat = numbers("/proc/self/stat");
    if let (Some(user), Some(system), Some(threads)) = (stat.get(11), stat.get(12), stat.get(17)) {
        page.gauge("process_threads", "Threads.", *threads);
        page.counter(
            "process_cpu_seconds_total",
            "Processor time (MO-10).",
            (user + system) / TICKS_PER_SECOND,
        );
    }
    if let Ok(runtime) = tokio::runtime::Handle::try_current() {
        let tasks = runtime.metrics().num_alive_tasks();
        page.gauge(
            "warren_tasks",
            "Asynchronous tasks alive (MO-09).",
            tasks as f64,
        );
    }
}

/// The text as it grows.
#[derive(Default)]
struct Page(String);

impl Page {
    // Writing to a String does not fail.
    fn line(&mut self, text: std::fmt::Arguments<'_>) {
        let _ = self.0.write_fmt(text);
        self.0.push('\n');
    }

    fn family(&mut self, name: &str, kind: &str, help: &str) {
        self.line(format_args!("# HELP {name} {help}"));
        self.line(format_args!("# TYPE {name} {kind}"));
    }

    fn gauge(&mut self, name: &str, help: &str, value: f64) {
        self.family(name, "gauge", help);
        self.line(format_args!("{name} {value}"));
    }

    fn counter(&mut self, name: &str, help: &str, value: f64) {
        self.family(name, "counter", help);
        self.line(format_args!("{name} {value}"));
    }

    fn labelled(&mut self, name: &str, label: &str, text: &str, value: f64) {
        let text = text
            .replace('\\', "\\\\")
            .replace('"', "\\\"")
            .replace('\n', "\\n");
        self.line(format_args!("{name}{{{label}=\"{text}\"}} {value}"));
    }

    fn histogram(&mut self, name: &str, help: &str, of: &Histogram) {
        self.family(name, "histogram", help);
        let mut below = 0;
        for (bound, count) in BUCKETS.iter().zip(of.counts) {
            below += count;
            self.line(format_args!("{name}_bucket{{le=\"{bound}\"}} {below}"));
        }
        self.line(format_args!("{name}_bucket{{le=\"+Inf\"}} {}", of.count));
        self.line(format_args!("{name}_sum {}", of.sum));
        self.line(format_args!("{name}_count {}", of.count));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn histograms_are_cumulative() {
        let mut of = Histogram {
            counts: [0; BUCKETS.len() + 1],
            count: 3,
            sum: 9.5,
        };
        of.counts[0] = 1;
        of.counts[BUCKETS.len()] = 2;
        let mut page = Page::default();
        page.histogram("x_seconds", "help", &of);
        assert!(
            page.0.contains("x_seconds_bucket{le=\"0.0001\"} 1\n"),
            "{}",
            page.0
        );
        assert!(
            page.0.contains("x_seconds_bucket{le=\"5\"} 1\n"),
            "{}",
            page.0
        );
        assert!(
            page.0.contains("x_seconds_bucket{le=\"+Inf\"} 3\n"),
            "{}",
            page.0
        );
        page.labelled("y", "name", "a\"b", 1.0);
        assert!(page.0.ends_with("y{name=\"a\\\"b\"} 1\n"), "{}", page.0);
    }
}
