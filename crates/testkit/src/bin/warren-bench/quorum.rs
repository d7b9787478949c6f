//! Three managers beside three members of etcd (Debian's `etcd-server`) on the same hosts of the same lab: the same payload,
//! the same concurrency, the same disk, clients on a machine of their own, the leader asked over one connection by one client. etcd is
//! asked twice: as it is set up usually, and with the certificates at both ends that we always have.

use crate::etcd::Etcd;
use crate::report::{Row, percentile};
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use warren_client::{Client, Freshness, Target};
use warren_testkit::Managers;

/// Bytes of one value.
pub(crate) const VALUE_BYTES: usize = 256;
/// The systems take turns, so that a machine that is slower for a while is slower for all of them.
const ROUNDS: usize = 3;
/// Sequential calls of a round.
const SEQUENTIAL: usize = 300;
/// Callers at once.
const CALLERS: usize = 64;
/// Calls of all callers together in a round.
const CONCURRENT: usize = 8_000;
/// Calls of a round that are not counted.
const WARM_UP: usize = 50;
/// The kernel counts processor time in hundredths of a second.
const TICK: Duration = Duration::from_millis(10);

/// What one system did.
#[derive(Debug, Clone, Default)]
pub(crate) struct Figures {
    writes: Vec<Duration>,
    reads: Vec<Duration>,
    /// Time of each round's calls of all callers.
    write_rounds: Vec<Duration>,
    read_rounds: Vec<Duration>,
    empty_rounds: Vec<Duration>,
    /// Processor time of all members while they took the callers' writes.
    processor: Duration,
}

impl Figures {
    fn add(&mut self, other: Self) {
        self.writes.extend(other.writes);
        self.reads.extend(other.reads);
        self.write_rounds.extend(other.write_rounds);
        self.read_rounds.extend(other.read_rounds);
        self.empty_rounds.extend(other.empty_rounds);
        self.processor += other.processor;
    }

    fn processor_per_write(&self) -> Duration {
        let writes = u32::try_from(self.write_rounds.len() * CONCURRENT).unwrap_or(u32::MAX);
        self.processor.checked_div(writes).unwrap_or_default()
    }
}

/// Calls a second over all rounds.
fn rate(rounds: &[Duration]) -> f64 {
    let time: Duration = rounds.iter().sum();
    (rounds.len() * CONCURRENT) as f64 / time.as_secs_f64().max(f64::EPSILON)
}

/// One turn of one system.
#[derive(Debug, Clone)]
pub(crate) struct Round {
    /// Number of its first write: names are used once.
    first: usize,
    /// The members' processes.
    members: Vec<u32>,
}

pub(crate) fn measure() -> Result<Vec<Row>, String> {
    println!(
        "quorum: three members, writes and linearizable reads of {VALUE_BYTES} bytes at the leader over one connection, one caller \
         and {CALLERS} callers, {ROUNDS} rounds in turn"
    );
    let managers = Managers::start(3);
    managers.wait_quorum();
    let plain = Etcd::start(&managers, false)?;
    let tls = Etcd::start(&managers, true)?;
    let pids = managers.members().into_iter();
    let pids: Vec<u32> = pids.filter_map(|n| managers.node(n).pid()).collect();
    let (mut ours, mut theirs, mut theirs_tls) =
        (Figures::default(), Figures::default(), Figures::default());
    for number in 0..ROUNDS {
        let round = |members: Vec<u32>| Round {
            first: number * (WARM_UP + SEQUENTIAL + CONCURRENT),
            members,
        };
        let target = Target::Tcp {
            addresses: vec![managers.address(managers.leader())],
            identity: managers.identity(),
        };
        let turn = round(pids.clone());
        ours.add(managers.lab().run(move || block(warren(target, turn)))?);
        for (etcd, figures) in [(&plain, &mut theirs), (&tls, &mut theirs_tls)] {
            let (endpoints, turn) = (etcd.endpoints(), round(etcd.pids()));
            let work = move || block(crate::etcd::measure(endpoints, turn));
            figures.add(managers.lab().run(work)?);
        }
    }
    Ok(rows(&ours, &theirs, &theirs_tls))
}

fn block<T>(work: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    runtime.map_err(|e| format!("runtime: {e}"))?.block_on(work)
}

async fn warren(target: Target, round: Round) -> Result<Figures, String> {
    let client = Client::connect(target).await.map_err(|e| e.to_string())?;
    let client = client.with_read(Freshness::Linearizable);
    let write = {
        let client = client.clone();
        move |number: usize| {
            let client = client.clone();
            async move {
                let name = format!("b-{number}");
                let value = vec![b'x'; VALUE_BYTES];
                let made = client.create_secret(&name, value, BTreeMap::new());
                made.await.map(drop).map_err(|e| e.to_string())
            }
        }
    };
    let read = {
        let client = client.clone();
        move |_: usize| {
            let client = client.clone();
            async move {
                client
                    .get_secret("b-0")
                    .await
                    .map(drop)
                    .map_err(|e| e.to_string())
            }
        }
    };
    let empty = move |_: usize| {
        let client = client.clone();
        async move { client.status().await.map(drop).map_err(|e| e.to_string()) }
    };
    let mut figures = round.run(write, read).await?;
    figures.empty_rounds.push(crowd(empty, 0).await?);
    Ok(figures)
}

impl Round {
    /// The four measurements of one system.
    pub(crate) async fn run<W, R, FW, FR>(&self, write: W, read: R) -> Result<Figures, String>
    where
        W: Fn(usize) -> FW + Clone + Send + Sync + 'static,
        R: Fn(usize) -> FR + Clone + Send + Sync + 'static,
        FW: Future<Output = Result<(), String>> + Send,
        FR: Future<Output = Result<(), String>> + Send,
    {
        let mut first = self.first;
        for number in first..first + WARM_UP {
            write(number).await?;
            read(number).await?;
        }
        first += WARM_UP;
        let writes = one_by_one(&write, first).await?;
        let reads = one_by_one(&read, 0).await?;
        let before = self.processor_time();
        let write_round = crowd(write, first + SEQUENTIAL).await?;
        let processor = self.processor_time().saturating_sub(before);
        let read_round = crowd(read, 0).await?;
        Ok(Figures {
            writes,
            reads,
            write_rounds: vec![write_round],
            read_rounds: vec![read_round],
            empty_rounds: Vec::new(),
            processor,
        })
    }

    /// Processor time of the members so far, in user and kernel mode.
    fn processor_time(&self) -> Duration {
        let of_one = |pid: &u32| {
            let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            // The name in brackets may hold anything; behind it the 12th and 13th fields are what is wanted.
            let fields = text.rsplit(')').next().unwrap_or_default();
            let ticks = fields.split_whitespace().skip(11).take(2);
            ticks
                .filter_map(|ticks| ticks.parse::<u32>().ok())
                .sum::<u32>()
        };
        TICK * self.members.iter().map(of_one).sum::<u32>()
    }
}

async fn one_by_one<C, F>(call: &C, first: usize) -> Result<Vec<Duration>, String>
where
    C: Fn(usize) -> F,
    F: Future<Output = Result<(), String>>,
{
    let mut times = Vec::with_capacity(SEQUENTIAL);
    for number in first..first + SEQUENTIAL {
        let begin = Instant::now();
        call(number).await?;
        times.push(begin.elapsed());
    }
    Ok(times)
}

/// How long the calls of all callers together take.
async fn crowd<C, F>(call: C, first: usize) -> Result<Duration, String>
where
    C: Fn(usize) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Result<(), String>> + Send,
{
    let next = Arc::new(AtomicUsize::new(first));
    let begin = Instant::now();
    let callers: Vec<_> = (0..CALLERS)
        .map(|_| {
            let (call, next) = (call.clone(), next.clone());
            tokio::spawn(async move {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= first + CONCURRENT {
                        return Ok::<(), String>(());
                    }
                    call(number).await?;
                }
            })
        })
        .collect();
    for caller in callers {
        caller.await.map_err(|e| e.to_string())??;
    }
    Ok(begin.elapsed())
}

fn rows(ours: &Figures, plain: &Figures, tls: &Figures) -> Vec<Row> {
    let mut rows = Vec::new();
    for (name, theirs) in [("etcd", plain), ("etcd, TLS", tls)] {
        rows.extend(beside(name, ours, theirs));
    }
    let per_second = rate(&ours.read_rounds);
    let empty = rate(&ours.empty_rounds);
    let what = format!("linearizable reads, {CALLERS} callers, beside GetStatus");
    rows.push(
        Row::rates(what, per_second, "GetStatus, same TLS", empty).budget(">= 0.8 x an empty call"),
    );
    rows
}

/// All figures beside those of one etcd.
fn beside(name: &str, ours: &Figures, theirs: &Figures) -> Vec<Row> {
    let times = |what: &str, ours: &[Duration], theirs: &[Duration], percent| {
        let other = Some((name, percentile(theirs, percent)));
        Row::times(
            format!("{what}, 3 managers, p{percent}"),
            percentile(ours, percent),
            other,
        )
    };
    let (writes, reads) = (rate(&ours.write_rounds), rate(&ours.read_rounds));
    vec![
        times("write, one caller", &ours.writes, &theirs.writes, 50)
            .budget("<= 1.5 ms, ahead of etcd"),
        times("write, one caller", &ours.writes, &theirs.writes, 99),
        Row::rates(
            format!("writes, {CALLERS} callers"),
            writes,
            name,
            rate(&theirs.write_rounds),
        )
        .budget(">= 2 x etcd"),
        Row::times(
            format!("processor time of all members per write, {CALLERS} callers"),
            ours.processor_per_write(),
            Some((name, theirs.processor_per_write())),
        ),
        times(
            "linearizable read, one caller",
            &ours.reads,
            &theirs.reads,
            50,
        ),
        Row::rates(
            format!("linearizable reads, {CALLERS} callers"),
            reads,
            name,
            rate(&theirs.read_rounds),
        ),
    ]
}
