//! Managers with many records: what they cost in memory and time, each beside managers without any, or beside the disk, in
//! the same run.

mod probe;

use crate::report::{Row, mib, ms, percentile};
use probe::{Probe, Writer};
use std::time::Duration;
use warren_testkit::Managers;
use warren_testkit::managers::timed;
use warren_testkit::scale::{CALLERS, Size, equal, load, records};

/// What design.md asks for.
const SIZE: Size = Size {
    services: 10_000,
    replicas: 10,
};
/// Times that a manager is killed and started.
const RESTARTS: usize = 3;
/// Times that the leader is killed.
const FAILOVERS: usize = 5;
/// Entries after which a snapshot is due while nothing but the idle cluster is measured.
const NO_SNAPSHOT: u64 = 10_000_000;
/// The fewest: one snapshot follows the other.
const ALWAYS_SNAPSHOT: u64 = 10;
/// Time over which the processor of an idle manager is looked at: longer than the planners' sweep (30 s).
const IDLE: Duration = Duration::from_secs(40);

/// What is measured with records and without.
struct Figures {
    idle_cpu: f64,
    restarts: Vec<probe::Restart>,
    joins: Vec<Duration>,
    failovers: Vec<Duration>,
    writes: Vec<Duration>,
    memory: u64,
}

pub(crate) fn measure() -> Result<Vec<Row>, String> {
    println!(
        "scale: {} services made by {CALLERS} callers, {} containers that no node takes; the reference: managers without records",
        SIZE.services,
        SIZE.containers()
    );
    let mut managers = Managers::start(1);
    managers.set_snapshot_entries(NO_SNAPSHOT);
    let empty = figures(&mut managers)?;
    managers.reset();
    drop(managers);

    let mut managers = Managers::start(1);
    let probe = Probe::of(&managers, 0)?;
    let before = probe.memory()?;
    let cpu = probe.cpu()?;
    let loaded = load(&managers, SIZE)?;
    println!("loaded: {loaded:?}");
    let cpu = probe.cpu()?.saturating_sub(cpu);
    let after = probe.memory()?;
    let mut rows = vec![
        rate(
            "services made through the API, a second",
            SIZE.services,
            loaded.services,
        ),
        Row::new(
            "until each container had record and reason",
            ms(loaded.complete),
        ),
        Row::new("processor time of the manager meanwhile", ms(cpu)),
        growth("memory of the manager after it", after, before),
    ];
    rows.extend(snapshots(&managers)?);
    managers.set_snapshot_entries(NO_SNAPSHOT);
    rows.extend(lists(&managers)?);
    let full = figures(&mut managers)?;
    rows.push(growth(
        "memory of the manager, started again",
        full.memory,
        empty.memory,
    ));
    rows.extend(compare(&full, &empty));
    let leader = managers.leader();
    records(&managers, leader, SIZE)?;
    let hash = equal(&managers)?;
    println!("all records there, the state of all managers is {hash:016x}");
    managers.reset();
    Ok(rows)
}

/// Begins with one manager and ends with three.
fn figures(managers: &mut Managers) -> Result<Figures, String> {
    let mut restarts = Vec::new();
    for _ in 0..RESTARTS {
        restarts.push(probe::restart(managers, 0)?);
    }
    println!("restarts: {restarts:?}");
    let probe = Probe::of(managers, 0)?;
    let idle_cpu = probe.idle(IDLE)?;
    let memory = probe.memory()?;
    let mut joins = Vec::new();
    for _ in 0..2 {
        let (_, took) = timed(|| managers.add());
        joins.push(took);
    }
    println!("idle: {idle_cpu:.2} %, {memory} B; joins: {joins:?}");
    let mut writer = Writer::new(managers, "three");
    let writes = writer.some(managers)?;
    let mut failovers = Vec::new();
    for _ in 0..FAILOVERS {
        failovers.push(writer.outage(managers)?);
    }
    println!("failovers: {failovers:?}");
    Ok(Figures {
        idle_cpu,
        restarts,
        joins,
        failovers,
        writes,
        memory,
    })
}

/// Writes beside snapshots, and the snapshot beside a plain file of its size.
fn snapshots(managers: &Managers) -> Result<Vec<Row>, String> {
    let probe = Probe::of(managers, 0)?;
    let mut writer = Writer::new(managers, "beside");
    managers.set_snapshot_entries(NO_SNAPSHOT);
    let quiet = writer.some(managers)?;
    managers.set_snapshot_entries(ALWAYS_SNAPSHOT);
    let before = probe.snapshots()?;
    let beside = writer.while_so(managers, || {
        Ok(probe.snapshots()?.count < before.count + 5.0)
    })?;
    let after = probe.snapshots()?;
    managers.set_snapshot_entries(NO_SNAPSHOT);
    let each = (after.seconds - before.seconds) / (after.count - before.count);
    let each = Duration::from_secs_f64(each);
    let bytes = managers.info(0)?.snapshot_bytes;
    let plain = probe::write_plain(managers.node(0).directory(), bytes)?;
    let objects = (SIZE.services + SIZE.containers()) as f64;
    let mut size = Row::new("snapshot, size", mib(bytes));
    size.reference = format!("{:.0} B an object", bytes as f64 / objects);
    let row = |percent| {
        let name = "same, no snapshot";
        Row::times(
            format!(
                "write beside snapshots, one manager, p{percent} of {}",
                beside.len()
            ),
            percentile(&beside, percent),
            Some((name, percentile(&quiet, percent))),
        )
    };
    Ok(vec![
        size,
        Row::times(
            "snapshot, written beside writes",
            each,
            Some(("plain file of that size, synced", plain)),
        ),
        row(50),
        row(99),
        row(100),
    ])
}

/// The answers about everything.
fn lists(managers: &Managers) -> Result<Vec<Row>, String> {
    let (services, containers) = probe::lists(managers)?;
    let command = probe::command(managers, &["service", "list"])?;
    let row = |what: &str, took: Duration, count: usize| {
        let mut row = Row::new(what, ms(took));
        row.reference = format!("{:.1} us each", took.as_secs_f64() * 1e6 / count as f64);
        row
    };
    Ok(vec![
        row("all services, one call", services, SIZE.services),
        row("all containers, one call", containers, SIZE.containers()),
        row("`warren service list`", command, SIZE.services),
    ])
}

/// Memory with the records beside that without.
fn growth(what: &str, full: u64, empty: u64) -> Row {
    let objects = (SIZE.services + SIZE.containers()) as f64;
    let each = full.saturating_sub(empty) as f64 / objects;
    let what = format!("{what} ({each:.0} B for each record)");
    Row::sizes(what, full, Some(("without records", empty)))
}

fn compare(full: &Figures, empty: &Figures) -> Vec<Row> {
    let name = "without records";
    let restart = |what: &str, pick: fn(&probe::Restart) -> Duration| {
        let middle = |figures: &Figures| {
            let all: Vec<Duration> = figures.restarts.iter().map(pick).collect();
            percentile(&all, 50)
        };
        Row::times(
            format!("kill -9 to {what}, one manager, p50 of {RESTARTS}"),
            middle(full),
            Some((name, middle(empty))),
        )
    };
    let times = |what: String, percent, pick: fn(&Figures) -> &[Duration]| {
        Row::times(
            what,
            percentile(pick(full), percent),
            Some((name, percentile(pick(empty), percent))),
        )
    };
    let mut idle = Row::new(
        format!("processor, idle, one manager, over {} s", IDLE.as_secs()),
        format!("{:.2} %", full.idle_cpu),
    );
    idle.reference = format!("{:.2} % ({name})", empty.idle_cpu);
    idle.ratio = format!("{:.2}", full.idle_cpu / empty.idle_cpu.max(f64::EPSILON));
    vec![
        idle,
        restart("the first answer", |r| r.answer),
        restart("the first linearizable read", |r| r.read),
        restart("the first accepted write", |r| r.write),
        times(
            "a new manager joins until it is a voter, shorter".to_owned(),
            50,
            |f| &f.joins,
        ),
        times(
            "a new manager joins until it is a voter, longer".to_owned(),
            100,
            |f| &f.joins,
        ),
        times("write, three managers, p50".to_owned(), 50, |f| &f.writes),
        times("write, three managers, p99".to_owned(), 99, |f| &f.writes),
        times(
            format!("kill -9 of the leader to the next write, p50 of {FAILOVERS}"),
            50,
            |f| &f.failovers,
        )
        .budget("< 500 ms"),
        times(
            format!("kill -9 of the leader to the next write, max of {FAILOVERS}"),
            100,
            |f| &f.failovers,
        ),
    ]
}

fn rate(what: &str, count: usize, took: Duration) -> Row {
    Row::new(what, format!("{:.0}/s", count as f64 / took.as_secs_f64()))
}
