//! Three managers beside three members of etcd (Debian's `etcd-server`) on the same hosts of the same lab: the same payload,
//! the same concurrency, the same disk, clients on a machine of their own, the leader asked.

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
/// Sequential calls.
const SEQUENTIAL: usize = 600;
/// Callers at once.
const CALLERS: usize = 64;
/// Calls of all callers together.
const CONCURRENT: usize = 8_000;
/// Calls that are not counted.
const WARM_UP: usize = 50;

/// What one system did.
#[derive(Debug, Clone, Default)]
pub(crate) struct Figures {
    writes: Vec<Duration>,
    reads: Vec<Duration>,
    writes_per_second: f64,
    reads_per_second: f64,
    empty_per_second: f64,
}

pub(crate) fn measure() -> Result<Vec<Row>, String> {
    println!(
        "quorum: three members, writes and linearizable reads of {VALUE_BYTES} bytes at the leader, one caller and {CALLERS} callers"
    );
    let managers = Managers::start(3);
    managers.wait_quorum();
    let leader = managers.address(managers.leader());
    let target = Target::Tcp {
        addresses: vec![leader],
        identity: managers.identity(),
    };
    let ours = managers.lab().run(move || block(warren(target)))?;
    let etcd = Etcd::start(&managers)?;
    let endpoints = etcd.endpoints();
    let theirs = managers
        .lab()
        .run(move || block(crate::etcd::measure(endpoints)))?;
    Ok(rows(&ours, &theirs))
}

fn block<T>(work: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    runtime.map_err(|e| format!("runtime: {e}"))?.block_on(work)
}

async fn warren(target: Target) -> Result<Figures, String> {
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
    let mut figures = run(write, read).await?;
    figures.empty_per_second = rate(empty, 0).await?;
    Ok(figures)
}

/// All four measurements of one system.
pub(crate) async fn run<W, R, FW, FR>(write: W, read: R) -> Result<Figures, String>
where
    W: Fn(usize) -> FW + Clone + Send + Sync + 'static,
    R: Fn(usize) -> FR + Clone + Send + Sync + 'static,
    FW: Future<Output = Result<(), String>> + Send,
    FR: Future<Output = Result<(), String>> + Send,
{
    for number in 0..WARM_UP {
        write(number).await?;
        read(number).await?;
    }
    let writes = one_by_one(&write, WARM_UP).await?;
    let reads = one_by_one(&read, 0).await?;
    let writes_per_second = rate(write, WARM_UP + SEQUENTIAL).await?;
    let reads_per_second = rate(read, 0).await?;
    Ok(Figures {
        writes,
        reads,
        writes_per_second,
        reads_per_second,
        empty_per_second: 0.0,
    })
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

/// Calls a second of all callers together.
async fn rate<C, F>(call: C, first: usize) -> Result<f64, String>
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
    Ok(CONCURRENT as f64 / begin.elapsed().as_secs_f64())
}

fn rows(ours: &Figures, theirs: &Figures) -> Vec<Row> {
    let times = |what: &str, ours: &[Duration], theirs: &[Duration], percent| {
        let other = Some(("etcd", percentile(theirs, percent)));
        Row::times(
            format!("{what}, 3 managers, p{percent}"),
            percentile(ours, percent),
            other,
        )
    };
    let rates = |what: String, ours: f64, name: &str, theirs: f64| {
        let mut row = Row::new(what, format!("{ours:.0}/s"));
        row.reference = format!("{theirs:.0}/s ({name})");
        row.ratio = format!("{:.2}", ours / theirs.max(f64::EPSILON));
        row
    };
    vec![
        times("write, one caller", &ours.writes, &theirs.writes, 50)
            .budget("<= 1.5 ms, ahead of etcd"),
        times("write, one caller", &ours.writes, &theirs.writes, 99),
        rates(
            format!("writes, {CALLERS} callers"),
            ours.writes_per_second,
            "etcd",
            theirs.writes_per_second,
        )
        .budget(">= 2 x etcd"),
        times(
            "linearizable read, one caller",
            &ours.reads,
            &theirs.reads,
            50,
        ),
        rates(
            format!("linearizable reads, {CALLERS} callers"),
            ours.reads_per_second,
            "etcd",
            theirs.reads_per_second,
        ),
        rates(
            format!("linearizable reads, {CALLERS} callers, beside GetStatus"),
            ours.reads_per_second,
            "GetStatus, same TLS",
            ours.empty_per_second,
        )
        .budget(">= 0.8 x an empty call"),
    ]
}
