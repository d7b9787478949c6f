//! What is read of a manager's process, and what clients see of it.

use crate::idle::rss;
use std::collections::BTreeMap;
use std::io::Write;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use warren_client::{Client, Freshness, Target, v1};
use warren_testkit::host::http_get;
use warren_testkit::managers::timed;
use warren_testkit::{Host, Managers};

/// Clock ticks of `/proc/PID/stat` in a second; fixed on Linux.
const TICKS: u64 = 100;
/// Port of the metrics, on the loopback of the manager's host.
const METRICS_PORT: u16 = 9090;
/// Writes of one series.
const WRITES: usize = 600;
/// Bytes of a value.
const VALUE_BYTES: usize = 256;
/// Time limit of an answer about everything.
const LIST_LIMIT: Duration = Duration::from_secs(60);
/// Time until a manager that was killed must serve again.
const BACK_LIMIT: Duration = Duration::from_secs(60);
/// Longest series of writes beside something else.
const SERIES_LIMIT: Duration = Duration::from_secs(120);
/// Time between two looks beside a series.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How long is written before the leader is killed.
const BEFORE_KILL: Duration = Duration::from_millis(300);
/// How long is written after it.
const OUTAGE_LIMIT: Duration = Duration::from_secs(4);

/// One manager's process.
pub(super) struct Probe<'m> {
    host: &'m Host,
    pid: u32,
}

/// What it has counted of its snapshots.
pub(super) struct Snapshots {
    pub(super) count: f64,
    pub(super) seconds: f64,
}

impl<'m> Probe<'m> {
    pub(super) fn of(managers: &'m Managers, number: usize) -> Result<Self, String> {
        let node = managers.node(number);
        let pid = node.pid().ok_or("the manager does not run")?;
        let host = node.host();
        Ok(Self { host, pid })
    }

    /// Resident memory in bytes.
    pub(super) fn memory(&self) -> Result<u64, String> {
        rss(self.pid)
    }

    /// Processor time so far.
    pub(super) fn cpu(&self) -> Result<Duration, String> {
        let path = format!("/proc/{}/stat", self.pid);
        let text = std::fs::read_to_string(&path).map_err(|e| format!("{path}: {e}"))?;
        // After the name in brackets: state, then the 11th and 12th are user and system time.
        let fields = text.rsplit_once(')').map_or("", |(_, rest)| rest);
        let ticks = fields.split_whitespace().skip(11).take(2);
        let ticks: Option<u64> = ticks.map(|n| n.parse::<u64>().ok()).sum();
        let ticks = ticks.ok_or_else(|| format!("{path}: {text}"))?;
        Ok(Duration::from_millis(ticks * 1000 / TICKS))
    }

    /// Percent of one core that it takes while nobody asks anything.
    pub(super) fn idle(&self, time: Duration) -> Result<f64, String> {
        let before = self.cpu()?;
        std::thread::sleep(time);
        let used = self.cpu()?.saturating_sub(before);
        Ok(100.0 * used.as_secs_f64() / time.as_secs_f64())
    }

    pub(super) fn snapshots(&self) -> Result<Snapshots, String> {
        let page = self
            .host
            .run(|| http_get(Ipv4Addr::LOCALHOST, METRICS_PORT, "/metrics"))?;
        let find = |name: &str| {
            let mut lines = page.lines();
            let value = lines.find_map(|line| line.strip_prefix(name)?.trim().parse::<f64>().ok());
            value.ok_or_else(|| format!("no {name} in the metrics"))
        };
        Ok(Snapshots {
            count: find("warren_raft_snapshot_seconds_count ")?,
            seconds: find("warren_raft_snapshot_seconds_sum ")?,
        })
    }
}

/// Times from the kill of a manager that is alone.
#[derive(Debug, Clone, Copy)]
pub(super) struct Restart {
    pub(super) answer: Duration,
    pub(super) read: Duration,
    pub(super) write: Duration,
}

/// Kills a manager that is alone, starts it again, and asks until it serves.
pub(super) fn restart(managers: &mut Managers, number: usize) -> Result<Restart, String> {
    let begin = Instant::now();
    managers.kill(number);
    managers.restart(number);
    let answer = begin.elapsed();
    until(begin, || {
        managers.ask(number, BACK_LIMIT, async |client| {
            let client = client.with_read(Freshness::Linearizable);
            client.list_nodes().await.map(drop)
        })
    })?;
    let read = begin.elapsed();
    let name = format!("restart-{}", std::process::id()) + &format!("-{}", answer.as_nanos());
    until(begin, || {
        managers.ask(number, BACK_LIMIT, async |client| {
            let value = vec![b'x'; VALUE_BYTES];
            let made = client.create_secret(&name, value, BTreeMap::new());
            made.await.map(drop)
        })
    })?;
    Ok(Restart {
        answer,
        read,
        write: begin.elapsed(),
    })
}

fn until(begin: Instant, mut ask: impl FnMut() -> Result<(), String>) -> Result<(), String> {
    loop {
        match ask() {
            Ok(()) => return Ok(()),
            Err(e) if begin.elapsed() > BACK_LIMIT => return Err(e),
            Err(_) => std::thread::yield_now(),
        }
    }
}

/// One client that writes, one call after the other.
pub(super) struct Writer {
    target: Target,
    prefix: &'static str,
    next: usize,
}

/// When an accepted write began and ended.
type Call = (Instant, Instant);
type Series = JoinHandle<Result<Vec<Call>, String>>;

impl Writer {
    pub(super) fn new(managers: &Managers, prefix: &'static str) -> Self {
        let addresses = managers.addresses().into_iter().map(|a| a.address);
        let target = Target::Tcp {
            addresses: addresses.collect(),
            identity: managers.identity(),
        };
        let next = 0;
        Self {
            target,
            prefix,
            next,
        }
    }

    /// A series of fixed length.
    pub(super) fn some(&mut self, managers: &Managers) -> Result<Vec<Duration>, String> {
        let stop = Arc::new(AtomicBool::new(false));
        let calls = self.finish(self.begin(managers, WRITES, stop))?;
        Ok(durations(&calls))
    }

    /// Writes as long as `goes_on` says so.
    pub(super) fn while_so(
        &mut self,
        managers: &Managers,
        mut goes_on: impl FnMut() -> Result<bool, String>,
    ) -> Result<Vec<Duration>, String> {
        let stop = Arc::new(AtomicBool::new(false));
        let series = self.begin(managers, usize::MAX, stop.clone());
        let begin = Instant::now();
        let mut last = Ok(true);
        while begin.elapsed() < SERIES_LIMIT && last == Ok(true) {
            std::thread::sleep(LOOK_EVERY);
            last = goes_on();
        }
        stop.store(true, Ordering::Relaxed);
        let calls = self.finish(series)?;
        match last {
            Ok(false) => Ok(durations(&calls)),
            Ok(true) => Err(format!("not over within {SERIES_LIMIT:?}")),
            Err(e) => Err(e),
        }
    }

    /// Kills the leader under a client that writes; how long that one waited for an accepted write.
    pub(super) fn outage(&mut self, managers: &mut Managers) -> Result<Duration, String> {
        let leader = managers.leader();
        let stop = Arc::new(AtomicBool::new(false));
        let series = self.begin(managers, usize::MAX, stop.clone());
        std::thread::sleep(BEFORE_KILL);
        let killed = Instant::now();
        managers.kill(leader);
        std::thread::sleep(OUTAGE_LIMIT);
        stop.store(true, Ordering::Relaxed);
        let calls = self.finish(series)?;
        managers.restart(leader);
        managers.wait_quorum();
        // A call that was answered just before the death may end after it: the outage is the longest wait.
        let after = calls.iter().filter(|(_, end)| *end > killed);
        let waits = after.map(|(begin, end)| end.saturating_duration_since(killed.max(*begin)));
        let longest = waits.max();
        longest.ok_or_else(|| format!("no write within {OUTAGE_LIMIT:?} of the kill"))
    }

    fn begin(&self, managers: &Managers, count: usize, stop: Arc<AtomicBool>) -> Series {
        let (target, prefix, first) = (self.target.clone(), self.prefix, self.next);
        managers.lab().spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            let runtime = runtime.map_err(|e| format!("runtime: {e}"))?;
            runtime.block_on(async {
                let client = Client::connect(target).await.map_err(|e| e.to_string())?;
                let mut calls = Vec::new();
                while calls.len() < count && !stop.load(Ordering::Relaxed) {
                    let name = format!("{prefix}-{}", first + calls.len());
                    let value = vec![b'x'; VALUE_BYTES];
                    let begin = Instant::now();
                    let made = client.create_secret(&name, value, BTreeMap::new()).await;
                    made.map_err(|e| format!("{name}: {e}"))?;
                    calls.push((begin, Instant::now()));
                }
                Ok(calls)
            })
        })
    }

    fn finish(&mut self, series: Series) -> Result<Vec<Call>, String> {
        let calls = series.join().map_err(|_| "the writer panicked")??;
        self.next += calls.len();
        Ok(calls)
    }
}

fn durations(calls: &[Call]) -> Vec<Duration> {
    let each = calls
        .iter()
        .map(|(begin, end)| end.saturating_duration_since(*begin));
    each.collect()
}

/// Time to write a file of this size and sync it.
pub(super) fn write_plain(directory: &Path, bytes: u64) -> Result<Duration, String> {
    let path = directory.join("plain");
    let content = vec![b'x'; usize::try_from(bytes).map_err(|e| e.to_string())?];
    let write = || {
        let mut file = std::fs::File::create(&path)?;
        file.write_all(&content)?;
        file.sync_all()
    };
    let (written, took) = timed(write);
    written.map_err(|e| format!("{}: {e}", path.display()))?;
    std::fs::remove_file(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    Ok(took)
}

/// Times of the answers with all services and all containers.
pub(super) fn lists(managers: &Managers) -> Result<(Duration, Duration), String> {
    let (answer, services) = timed(|| {
        managers.ask(0, LIST_LIMIT, async |client| {
            client.list_services().await.map(drop)
        })
    });
    answer?;
    let (answer, containers) = timed(|| {
        managers.ask(0, LIST_LIMIT, async |client| {
            let all = v1::ListContainersRequest::default();
            client.list_containers(all).await.map(drop)
        })
    });
    answer?;
    Ok((services, containers))
}

/// Time of a whole call of the command line.
pub(super) fn command(managers: &Managers, words: &[&str]) -> Result<Duration, String> {
    let (output, took) = timed(|| managers.node(0).cli(words));
    if output.code == 0 {
        Ok(took)
    } else {
        Err(format!(
            "warren {}: {}",
            words.join(" "),
            output.stderr.trim()
        ))
    }
}
