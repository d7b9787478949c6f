//! Embedded driver: what survives which death, and how fast it is.

mod common;
mod host;

use common::{Environment, Workload, fresh_id, read_logs, soon};
use futures::StreamExt;
use host::{Host, script};
use warren_runtime::{
    EmbeddedDriver, ExecSpec, LogQuery, RuntimeError, RuntimeEvent, RuntimeMount, RuntimeState,
};

#[tokio::test]
async fn container_survives_the_daemon() {
    let Some(mut host) = Host::new().await else {
        return;
    };
    host.close().await;
    let id = fresh_id();
    let mut daemon = host.hold(id);
    let said = daemon.first_line();
    let pid: u32 = said
        .strip_prefix("running ")
        .unwrap_or_else(|| panic!("{said}"))
        .parse()
        .unwrap();
    daemon.kill();
    host.reopen().await;
    let info = host.driver().inspect(id).await.unwrap();
    assert_eq!(
        (info.state, info.pid),
        (RuntimeState::Running, Some(pid)),
        "the same process runs"
    );
    assert_eq!(
        host.run(id, ExecSpec::new(["echo", "alive"])).await.1,
        "alive\n"
    );
    let mut events = host.driver().events();
    host.driver().signal(id, libc::SIGTERM).await.unwrap();
    let event = soon("the end", events.recv()).await.unwrap();
    assert!(
        matches!(event, RuntimeEvent::Exited { exit, .. } if exit.info.code == 7 && !exit.lost),
        "{event:?}"
    );
    assert_eq!(
        read_logs(host.driver(), id, LogQuery::default()).await,
        ["before", "got it"]
    );
    // An end that nobody saw is known afterwards too.
    host.close().await;
    host.reopen().await;
    assert!(
        matches!(host.driver().inspect(id).await.unwrap().state, RuntimeState::Exited(e) if e.info.code == 7)
    );
    host.driver().delete(id).await.unwrap();
    host.finish().await;
}

#[tokio::test]
async fn daemon_killed_at_any_moment_leaves_nothing_unknown() {
    const ROUNDS: u32 = 20;
    const LONGEST_MICROS: u64 = 120_000;
    let Some(mut host) = Host::new().await else {
        return;
    };
    let mut seed = u64::from(std::process::id()) | 1;
    eprintln!("seed {seed}");
    let mut seen = std::collections::BTreeMap::new();
    for _ in 0..ROUNDS {
        host.close().await;
        let id = fresh_id();
        let mut daemon = host.hold(id);
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        // The moment of the kill is what is varied; nothing is waited for.
        std::thread::sleep(std::time::Duration::from_micros(seed % LONGEST_MICROS));
        daemon.kill();
        host.reopen().await;
        for info in host.driver().list().await.unwrap() {
            assert_eq!(info.id, id);
            *seen.entry(info.state.name()).or_insert(0) += 1;
            if info.state == RuntimeState::Running {
                assert_eq!(
                    host.run(id, ExecSpec::new(["echo", "alive"])).await.1,
                    "alive\n"
                );
            }
        }
        host.driver().delete(id).await.unwrap();
    }
    eprintln!("states found after the kill: {seen:?}");
    host.finish().await;
}

#[tokio::test]
async fn end_during_the_daemons_absence_is_reported() {
    let Some(mut host) = Host::new().await else {
        return;
    };
    let mut spec = host.bare_spec();
    spec.args = script("read line < /data/fifo; exit 21");
    let source = host.dir("volume");
    let fifo = source.join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    spec.mounts = vec![RuntimeMount::Bind {
        source,
        target: "/data".into(),
        read_only: false,
    }];
    let id = spec.id;
    host.driver().create(spec).await.unwrap();
    let pid = host.driver().start(id).await.unwrap().pid.unwrap();
    host.close().await;
    tokio::task::spawn_blocking(move || std::fs::write(fifo, "go\n").unwrap())
        .await
        .unwrap();
    host.until("the process ends", || async { !host::runs(pid) })
        .await;
    host.reopen().await;
    let exit = soon("the end", host.driver().wait(id)).await.unwrap();
    assert_eq!((exit.info.code, exit.lost), (21, false));
    host.driver().delete(id).await.unwrap();
    host.finish().await;
}

#[tokio::test]
async fn lost_shim_is_swept() {
    for while_open in [true, false] {
        let Some(mut host) = Host::new().await else {
            return;
        };
        let spec = host.spec(Workload::Stubborn);
        let id = spec.id;
        host.driver().create(spec).await.unwrap();
        let pid = host.driver().start(id).await.unwrap().pid.unwrap();
        let shim = host.shim_pid(id);
        if !while_open {
            host.close().await;
        }
        nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(shim),
            nix::sys::signal::Signal::SIGKILL,
        )
        .unwrap();
        if !while_open {
            host.until("the shim ends", || async {
                !host::runs(shim.unsigned_abs())
            })
            .await;
            host.reopen().await;
        }
        let exit = soon("the end", host.driver().wait(id)).await.unwrap();
        assert!(exit.lost, "{exit:?}");
        assert!(!host::runs(pid), "nothing runs on unsupervised");
        host.driver().delete(id).await.unwrap();
        host.finish().await;
    }
}

#[tokio::test]
async fn created_container_with_lost_shim_is_swept() {
    let Some(mut host) = Host::new().await else {
        return;
    };
    let spec = host.spec(Workload::Polite);
    let id = spec.id;
    host.driver().create(spec).await.unwrap();
    let shim = host.shim_pid(id);
    host.close().await;
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(shim),
        nix::sys::signal::Signal::SIGKILL,
    )
    .unwrap();
    host.until("the shim ends", || async {
        !host::runs(shim.unsigned_abs())
    })
    .await;
    host.reopen().await;
    assert!(
        matches!(host.driver().inspect(id).await.unwrap().state, RuntimeState::Exited(e) if e.lost)
    );
    host.driver().delete(id).await.unwrap();
    host.finish().await;
}

#[tokio::test]
async fn two_daemons_on_one_directory_are_refused() {
    let Some(host) = Host::new().await else {
        return;
    };
    let second = EmbeddedDriver::open(host.config()).await;
    assert!(matches!(second, Err(RuntimeError::Busy { .. })));
    host.finish().await;
}

#[tokio::test]
async fn many_at_once_and_start_time() {
    let Some(host) = Host::new().await else {
        return;
    };
    let mut times = Vec::new();
    for _ in 0..20 {
        let spec = host.spec(Workload::Polite);
        let id = spec.id;
        let begun = std::time::Instant::now();
        host.driver().create(spec).await.unwrap();
        let made = begun.elapsed();
        host.driver().start(id).await.unwrap();
        times.push((begun.elapsed(), made));
        host.driver().delete(id).await.unwrap();
    }
    times.sort();
    eprintln!(
        "create+start p50 {:?} (create {:?}) max {:?}",
        times[10].0, times[10].1, times[19].0
    );
    let spec = host.spec(Workload::Polite);
    let (id, mut events) = (spec.id, host.driver().events());
    host.driver().create(spec).await.unwrap();
    let pid = host.driver().start(id).await.unwrap().pid.unwrap();
    let begun = std::time::Instant::now();
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(pid.cast_signed()),
        nix::sys::signal::Signal::SIGKILL,
    )
    .unwrap();
    while !matches!(soon("the end", events.recv()).await.unwrap(), RuntimeEvent::Exited { id: i, .. } if i == id)
    {
    }
    eprintln!("a death is known after {:?}", begun.elapsed());
    host.driver().delete(id).await.unwrap();
    let begun = std::time::Instant::now();
    let all = futures::stream::iter(0..50).map(|_| async {
        let spec = host.spec(Workload::Polite);
        let id = spec.id;
        host.driver().create(spec).await.unwrap();
        host.driver().start(id).await.unwrap();
        id
    });
    let ids: Vec<_> = all.buffer_unordered(50).collect().await;
    eprintln!(
        "50 at once in {:?}; a shim takes {} KiB",
        begun.elapsed(),
        host.shim_memory_kib(ids[0])
    );
    assert_eq!(host.driver().list().await.unwrap().len(), 50);
    futures::future::join_all(ids.into_iter().map(|id| host.driver().delete(id))).await;
    host.finish().await;
}
