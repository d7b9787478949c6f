//! Conformance suite: what every driver must do, said once.

#![allow(dead_code, reason = "each test program uses its part")]

use futures::StreamExt;
use std::future::Future;
use std::time::Duration as StdDuration;
use tokio::io::AsyncReadExt;
use warren_runtime::{
    Driver, ExecSpec, LogQuery, LogSource, RuntimeError, RuntimeEvent, RuntimeSpec, RuntimeState,
};
use warren_types::{ContainerId, Duration, ExitInfo};

/// Longest wait for anything in a test.
pub const PATIENCE: StdDuration = StdDuration::from_secs(30);

/// What a container is to do; each environment knows how to say it to its driver.
#[derive(Debug, Clone, Copy)]
pub enum Workload {
    /// End at once with a status.
    Exit(i32),
    /// Write `ready`, run; end with status 0 on the stop signal.
    Polite,
    /// Write `ready`, run; ignore the stop signal.
    Stubborn,
    /// Write `out 1` … `out N` to stdout and `err 1` to stderr, then run, polite.
    Print(u32),
    /// A program that does not exist.
    Missing,
}

/// Gives a driver and makes descriptions for it.
pub trait Environment: Sync {
    fn driver(&self) -> &dyn Driver;
    fn spec(&self, workload: Workload) -> RuntimeSpec;
    /// A command that writes `hello` to stdout, `oops` to stderr and ends with 5.
    fn talking_command(&self) -> ExecSpec;
}

pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("not within {PATIENCE:?}: {what}"),
    }
}

pub fn fresh_id() -> ContainerId {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let time = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    let random =
        u128::from(NEXT.fetch_add(1, Ordering::Relaxed)) << 32 | u128::from(std::process::id());
    ContainerId::from_parts(u64::try_from(time.as_millis()).unwrap(), random)
}

async fn run(env: &dyn Environment, workload: Workload) -> ContainerId {
    let spec = env.spec(workload);
    let id = spec.id;
    env.driver().create(spec).await.unwrap();
    env.driver().start(id).await.unwrap();
    if matches!(workload, Workload::Polite | Workload::Stubborn) {
        await_lines(env.driver(), id, 1).await;
    }
    id
}

pub async fn read_logs(driver: &dyn Driver, id: ContainerId, query: LogQuery) -> Vec<String> {
    let stream = driver.logs(id, query).await.unwrap();
    let lines = soon("the log", stream.collect::<Vec<_>>()).await;
    lines
        .into_iter()
        .map(|l| String::from_utf8(l.unwrap().bytes).unwrap())
        .collect()
}

/// Waits until the log has `count` lines.
pub async fn await_lines(driver: &dyn Driver, id: ContainerId, count: usize) -> Vec<String> {
    let stream = driver
        .logs(
            id,
            LogQuery {
                follow: true,
                ..LogQuery::default()
            },
        )
        .await
        .unwrap();
    let lines = soon("lines in the log", stream.take(count).collect::<Vec<_>>()).await;
    lines
        .into_iter()
        .map(|l| String::from_utf8(l.unwrap().bytes).unwrap())
        .collect()
}

pub async fn conformance(env: &dyn Environment) {
    life_cycle(env).await;
    refusals(env).await;
    exit_status(env).await;
    stopping(env).await;
    restarting(env).await;
    logs(env).await;
    commands(env).await;
    deleting(env).await;
}

async fn life_cycle(env: &dyn Environment) {
    let driver = env.driver();
    let mut events = driver.events();
    let spec = env.spec(Workload::Polite);
    let id = spec.id;
    let made = driver.create(spec.clone()).await.unwrap();
    assert_eq!(
        (made.state, made.attempt, made.started_at),
        (RuntimeState::Created, 1, None)
    );
    assert!(made.pid.is_some());
    let running = driver.start(id).await.unwrap();
    assert_eq!(running.state, RuntimeState::Running);
    assert_eq!(running.pid, made.pid);
    assert!(running.started_at.is_some());
    assert_eq!(driver.inspect(id).await.unwrap(), running);
    assert!(driver.list().await.unwrap().contains(&running));
    assert_eq!(await_lines(driver, id, 1).await, ["ready"]);
    let exit = soon("the stop", driver.stop(id, Duration::from_secs(20)))
        .await
        .unwrap();
    assert_eq!(
        exit.info,
        ExitInfo {
            code: 0,
            signal: None,
            oom: false
        }
    );
    assert!(exit.at >= running.started_at.unwrap() && !exit.lost);
    assert_eq!(
        driver.inspect(id).await.unwrap().state,
        RuntimeState::Exited(exit)
    );
    assert_eq!(
        driver.stop(id, Duration::from_secs(1)).await.unwrap(),
        exit,
        "stopping again tells the same"
    );
    let started = soon("an event", events.recv()).await.unwrap();
    assert!(
        matches!(started, RuntimeEvent::Started { id: i, attempt: 1, .. } if i == id),
        "{started:?}"
    );
    assert_eq!(
        soon("an event", events.recv()).await.unwrap(),
        RuntimeEvent::Exited {
            id,
            attempt: 1,
            exit
        }
    );
    driver.delete(id).await.unwrap();
}

async fn refusals(env: &dyn Environment) {
    let driver = env.driver();
    let unknown = fresh_id();
    assert!(matches!(
        driver.start(unknown).await,
        Err(RuntimeError::NotFound { .. })
    ));
    assert!(matches!(
        driver.inspect(unknown).await,
        Err(RuntimeError::NotFound { .. })
    ));
    assert!(matches!(
        driver.signal(unknown, 15).await,
        Err(RuntimeError::NotFound { .. })
    ));
    driver.delete(unknown).await.unwrap();
    let mut bad = env.spec(Workload::Polite);
    bad.args.clear();
    assert!(matches!(
        driver.create(bad).await,
        Err(RuntimeError::Invalid {
            field: "command",
            ..
        })
    ));
    let spec = env.spec(Workload::Polite);
    let id = spec.id;
    driver.create(spec.clone()).await.unwrap();
    assert!(matches!(
        driver.create(spec.clone()).await,
        Err(RuntimeError::Exists { attempt: 1, .. })
    ));
    assert!(matches!(
        driver.exec(id, env.talking_command()).await,
        Err(RuntimeError::WrongState { .. })
    ));
    driver.start(id).await.unwrap();
    assert!(matches!(
        driver.start(id).await,
        Err(RuntimeError::WrongState {
            state: "running",
            ..
        })
    ));
    let next = RuntimeSpec { attempt: 2, ..spec };
    assert!(
        matches!(driver.create(next).await, Err(RuntimeError::Exists { .. })),
        "it still runs"
    );
    driver.delete(id).await.unwrap();
    let missing = env.spec(Workload::Missing);
    let id = missing.id;
    let failed = match driver.create(missing).await {
        Ok(_) => driver.start(id).await.map(drop),
        Err(error) => Err(error),
    };
    let error = failed.expect_err("there is no such program");
    assert!(error.is_permanent(), "{error}");
    driver.delete(id).await.unwrap();
}

async fn exit_status(env: &dyn Environment) {
    for code in [0, 3] {
        let id = run(env, Workload::Exit(code)).await;
        let exit = soon("the end", env.driver().wait(id)).await.unwrap();
        assert_eq!(
            exit.info,
            ExitInfo {
                code,
                signal: None,
                oom: false
            }
        );
        assert!(matches!(
            env.driver().signal(id, 15).await,
            Err(RuntimeError::WrongState { .. })
        ));
        env.driver().delete(id).await.unwrap();
    }
    let id = run(env, Workload::Polite).await;
    env.driver().signal(id, 9).await.unwrap();
    let exit = soon("the end", env.driver().wait(id)).await.unwrap();
    assert_eq!(
        exit.info,
        ExitInfo {
            code: 137,
            signal: Some(9),
            oom: false
        }
    );
    env.driver().delete(id).await.unwrap();
}

async fn stopping(env: &dyn Environment) {
    let id = run(env, Workload::Stubborn).await;
    let begun = tokio::time::Instant::now();
    let exit = soon("the stop", env.driver().stop(id, Duration(300)))
        .await
        .unwrap();
    assert_eq!(
        exit.info,
        ExitInfo {
            code: 137,
            signal: Some(9),
            oom: false
        }
    );
    assert!(
        begun.elapsed() >= StdDuration::from_millis(300),
        "it got its grace time"
    );
    env.driver().delete(id).await.unwrap();
    let spec = env.spec(Workload::Polite);
    let id = spec.id;
    env.driver().create(spec).await.unwrap();
    let exit = soon("the stop", env.driver().stop(id, Duration::from_secs(20)))
        .await
        .unwrap();
    assert_eq!(exit.info.signal, Some(9), "one that never ran is killed");
    env.driver().delete(id).await.unwrap();
}

async fn restarting(env: &dyn Environment) {
    let driver = env.driver();
    let spec = env.spec(Workload::Print(2));
    let id = spec.id;
    for attempt in 1..=3 {
        let spec = RuntimeSpec {
            attempt,
            ..spec.clone()
        };
        assert_eq!(driver.create(spec.clone()).await.unwrap().attempt, attempt);
        driver.start(id).await.unwrap();
        let lines = await_lines(driver, id, 3 * attempt as usize).await;
        assert_eq!(
            lines.iter().filter(|l| *l == "out 2").count(),
            attempt as usize,
            "the log goes on: {lines:?}"
        );
        driver.stop(id, Duration::from_secs(20)).await.unwrap();
        assert!(
            matches!(driver.create(spec).await, Err(RuntimeError::Exists { .. })),
            "the attempt must grow"
        );
    }
    driver.delete(id).await.unwrap();
}

async fn logs(env: &dyn Environment) {
    let driver = env.driver();
    let id = run(env, Workload::Print(5)).await;
    await_lines(driver, id, 6).await;
    let only = |stdout, stderr| LogQuery {
        stdout,
        stderr,
        ..LogQuery::default()
    };
    let out: Vec<String> = (1..=5).map(|n| format!("out {n}")).collect();
    assert_eq!(read_logs(driver, id, only(true, false)).await, out);
    assert_eq!(read_logs(driver, id, only(false, true)).await, ["err 1"]);
    let tail = LogQuery {
        tail: Some(2),
        ..only(true, false)
    };
    assert_eq!(read_logs(driver, id, tail).await, out[3..]);
    let follow = LogQuery {
        follow: true,
        tail: Some(1),
        ..only(true, false)
    };
    let mut stream = driver.logs(id, follow).await.unwrap();
    let line = soon("a line", stream.next()).await.unwrap().unwrap();
    assert_eq!(
        (line.bytes.as_slice(), line.source),
        (&b"out 5"[..], LogSource::Stdout)
    );
    driver.stop(id, Duration::from_secs(20)).await.unwrap();
    assert!(
        soon("the end of the log", stream.next()).await.is_none(),
        "following ends with the container"
    );
    driver.delete(id).await.unwrap();
}

async fn commands(env: &dyn Environment) {
    let id = run(env, Workload::Polite).await;
    let mut handle = soon("the command", env.driver().exec(id, env.talking_command()))
        .await
        .unwrap();
    let (mut out, mut err) = (String::new(), String::new());
    soon("output", handle.stdout.read_to_string(&mut out))
        .await
        .unwrap();
    soon(
        "output",
        handle.stderr.as_mut().unwrap().read_to_string(&mut err),
    )
    .await
    .unwrap();
    assert_eq!((out.trim(), err.trim()), ("hello", "oops"));
    assert_eq!(soon("its end", handle.exit).await.unwrap().code, 5);
    env.driver().delete(id).await.unwrap();
}

async fn deleting(env: &dyn Environment) {
    let driver = env.driver();
    let id = run(env, Workload::Stubborn).await;
    driver.delete(id).await.unwrap();
    driver.delete(id).await.unwrap();
    assert!(matches!(
        driver.inspect(id).await,
        Err(RuntimeError::NotFound { .. })
    ));
    assert!(driver.list().await.unwrap().iter().all(|c| c.id != id));
}
