//! The conformance suite and more on the embedded driver: real containers, as root.

mod common;
mod host;

use common::{Environment, PATIENCE, Workload, await_lines, conformance, read_logs, soon};
use host::{Host, script};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use warren_runtime::{
    CapabilityChange, ExecSpec, LogLimits, LogQuery, RuntimeError, RuntimeFile, RuntimeMount,
    RuntimeSpec, UserIds, capability,
};
use warren_types::{Bytes, Duration, ExitInfo, MilliCpu};

#[tokio::test]
async fn embedded_driver_conforms() {
    let Some(host) = Host::new().await else {
        return;
    };
    conformance(&host).await;
    host.finish().await;
}

/// Runs a script to its end and gives its status and its output lines.
async fn output(host: &Host, mut spec: RuntimeSpec, text: &str) -> (ExitInfo, Vec<String>) {
    spec.args = script(text);
    let id = spec.id;
    host.driver().create(spec).await.unwrap();
    host.driver().start(id).await.unwrap();
    let exit = soon("the end", host.driver().wait(id)).await.unwrap();
    let lines = read_logs(host.driver(), id, LogQuery::default()).await;
    host.driver().delete(id).await.unwrap();
    (exit.info, lines)
}

#[tokio::test]
async fn process_gets_what_was_asked() {
    let Some(host) = Host::new().await else {
        return;
    };
    let mut spec = host.bare_spec();
    spec.env = vec!["A=1 2".into(), "EMPTY=".into(), "A=3".into()];
    spec.cwd = "/tmp".into();
    spec.user = UserIds {
        uid: 1234,
        gid: 567,
        additional_gids: vec![42],
    };
    spec.hostname = "burrow".into();
    spec.limits.nofile = Some(321);
    let text = "echo $A; echo [$EMPTY]; pwd; id -u; id -g; id -G; hostname; ulimit -n; echo $HOSTNAME; echo $0 $1; \
                echo to-stdout > /dev/stdout; echo x > /dev/null; umask; tr '\\0' ' ' < /proc/1/cmdline | wc -w";
    let (exit, lines) = output(&host, spec, text).await;
    assert_eq!(exit.code, 0, "{lines:?}");
    assert_eq!(
        lines[..10],
        [
            "3", "[]", "/tmp", "1234", "567", "567 42", "burrow", "321", "burrow", "/bin/sh"
        ]
    );
    assert_eq!(lines[10..12], ["to-stdout", "0022"]);
    let (_, lines) = output(
        &host,
        host.bare_spec(),
        "echo $HOME; ls /proc | grep -c '^[0-9]*$'; cat /proc/1/comm; true",
    )
    .await;
    assert!(lines[0].starts_with('/'), "{lines:?}");
    assert_eq!(lines[2], "sh", "the program is process 1");
    host.finish().await;
}

#[tokio::test]
async fn limits_are_in_force() {
    let Some(host) = Host::new().await else {
        return;
    };
    let mut spec = host.bare_spec();
    spec.args = script("trap 'exit 0' TERM; echo up; while :; do sleep 0.05; done");
    spec.limits.cpu = Some(MilliCpu(250));
    spec.limits.memory = Some(Bytes(64 << 20));
    spec.limits.pids = 50;
    let id = spec.id;
    host.driver().create(spec).await.unwrap();
    host.driver().start(id).await.unwrap();
    await_lines(host.driver(), id, 1).await;
    let read = |controller: &str, v1: &str, v2: &str| {
        let file = if host.groups.is_unified() { v2 } else { v1 };
        host.groups
            .read(controller, &host.cgroup(id), file)
            .unwrap()
    };
    let memory = read("memory", "memory.limit_in_bytes", "memory.max");
    assert_eq!(memory, (64 << 20).to_string());
    assert!(
        ["25000", "25000 100000"].contains(&read("cpu", "cpu.cfs_quota_us", "cpu.max").as_str())
    );
    assert_eq!(read("pids", "pids.max", "pids.max"), "50");
    let inside = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || cat /sys/fs/cgroup/memory.max";
    assert_eq!(
        host.run(id, ExecSpec::new(script(inside))).await.1.trim(),
        memory,
        "it can see its own limit"
    );
    let raise = "echo 999999999 > /sys/fs/cgroup/memory/memory.limit_in_bytes || echo max > /sys/fs/cgroup/memory.max";
    assert_ne!(
        host.run(id, ExecSpec::new(script(raise))).await.0.code,
        0,
        "it cannot change it"
    );
    let stats = host.driver().stats(id).await.unwrap();
    assert_eq!(stats.memory_limit_bytes, Some(64 << 20));
    assert!(stats.pids >= 1 && stats.memory_bytes > 0, "{stats:?}");
    host.driver().delete(id).await.unwrap();
    host.finish().await;
}

#[tokio::test]
async fn lack_of_memory_is_reported() {
    let Some(host) = Host::new().await else {
        return;
    };
    let mut spec = host.bare_spec();
    spec.limits.memory = Some(Bytes(32 << 20));
    spec.args = vec!["/probe".into(), "probe".into(), "eat-memory".into()];
    let id = spec.id;
    host.driver().create(spec).await.unwrap();
    host.driver().start(id).await.unwrap();
    let exit = soon("the end", host.driver().wait(id)).await.unwrap();
    assert_eq!(
        exit.info,
        ExitInfo {
            code: 137,
            signal: Some(9),
            oom: true
        }
    );
    host.driver().delete(id).await.unwrap();
    host.finish().await;
}

#[tokio::test]
async fn mounts_and_files() {
    let Some(host) = Host::new().await else {
        return;
    };
    let source = host.dir("volume");
    std::fs::write(source.join("in"), "from the host").unwrap();
    let bind = |target: &str, read_only| RuntimeMount::Bind {
        source: source.clone(),
        target: target.into(),
        read_only,
    };
    let mut spec = host.bare_spec();
    spec.read_only_root = true;
    spec.mounts = vec![
        bind("/data", false),
        bind("/frozen", true),
        RuntimeMount::Tmpfs {
            target: "/scratch".into(),
            size: Some(Bytes(1 << 20)),
            mode: 0o1777,
        },
    ];
    let file = |target: &str, text: &str, mode, uid| RuntimeFile {
        target: target.into(),
        content: text.as_bytes().to_vec(),
        mode,
        uid,
        gid: 7,
    };
    spec.files = vec![
        file("/run/secrets/password", "hunter2", 0o400, 5),
        file("/etc/app/app.conf", "key=value", 0o444, 0),
    ];
    spec.resolv_conf = Some("nameserver 10.1.2.3\n".into());
    spec.hosts = Some("10.0.0.9 peer\n".into());
    let text = "cat /data/in; echo; echo written > /data/out && echo wrote; touch /frozen/x || echo frozen; cat /frozen/in; echo; \
                touch /new || echo root-is-read-only; \
                dd if=/dev/zero of=/scratch/big bs=1k count=2048 2>/dev/null || echo scratch-is-full; \
                cat /run/secrets/password; echo; stat -c '%a %u %g' /run/secrets/password; \
                echo x > /run/secrets/password || echo secret-is-read-only; rm /run/secrets/password || echo secret-stays; \
                cat /etc/app/app.conf; echo; grep -c ' /etc/app/app.conf tmpfs' /proc/mounts; \
                cat /etc/resolv.conf /etc/hosts";
    let (exit, lines) = output(&host, spec, text).await;
    let lines: Vec<&str> = lines
        .iter()
        .map(String::as_str)
        .filter(|l| !l.contains("sh: ") && !l.contains(": Read-only") && !l.contains("can't"))
        .collect();
    assert_eq!(
        lines,
        [
            "from the host",
            "wrote",
            "frozen",
            "from the host",
            "root-is-read-only",
            "scratch-is-full",
            "hunter2",
            "400 5 7",
            "secret-is-read-only",
            "secret-stays",
            "key=value",
            "1",
            "nameserver 10.1.2.3",
            "10.0.0.9 peer",
        ]
    );
    assert_eq!(exit.code, 0);
    assert_eq!(
        std::fs::read_to_string(source.join("out")).unwrap(),
        "written\n"
    );
    host.finish().await;
}

#[tokio::test]
async fn secrets_touch_no_disk() {
    let Some(host) = Host::new().await else {
        return;
    };
    let mut spec = host.spec(Workload::Polite);
    let secret = "correct-horse-battery-staple";
    spec.files = vec![RuntimeFile {
        target: "/run/secrets/s".into(),
        content: secret.into(),
        mode: 0o400,
        uid: 0,
        gid: 0,
    }];
    let (id, rootfs) = (spec.id, spec.rootfs.clone());
    host.driver().create(spec).await.unwrap();
    host.driver().start(id).await.unwrap();
    for place in [
        host.state_dir(),
        host.log_dir(),
        rootfs.join("run"),
        rootfs.join("etc"),
    ] {
        assert!(
            !host::holds_text(&place, secret),
            "{} holds the secret",
            place.display()
        );
    }
    assert_eq!(
        host.run(id, ExecSpec::new(["cat", "/run/secrets/s"]))
            .await
            .1,
        secret
    );
    host.driver().delete(id).await.unwrap();
    host.finish().await;
}

#[tokio::test]
async fn confinement_seen_from_inside() {
    let Some(host) = Host::new().await else {
        return;
    };
    let spec = host.spec(Workload::Polite);
    let id = spec.id;
    host.driver().create(spec).await.unwrap();
    host.driver().start(id).await.unwrap();
    let expected = capability::mask(&capability::DEFAULT_CAPABILITIES);
    let status = "grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/1/status | tr -d '\\t'";
    for which in [status.to_owned(), status.replace("/proc/1/", "/proc/self/")] {
        let text = host.run(id, ExecSpec::new(script(&which))).await.1;
        for line in [
            format!("CapEff:{expected:016x}"),
            format!("CapBnd:{expected:016x}"),
            format!("CapPrm:{expected:016x}"),
            "CapInh:0000000000000000".into(),
            "CapAmb:0000000000000000".into(),
            "NoNewPrivs:1".into(),
            "Seccomp:2".into(),
        ] {
            assert!(text.lines().any(|l| l == line), "{line} in {text}");
        }
    }
    for (command, what) in [
        ("unshare -m true", "unshare"),
        ("mount -t tmpfs x /tmp", "mount"),
        ("mount -o remount,rw /proc/sys", "remount"),
        ("echo 1 > /proc/sys/kernel/panic", "/proc/sys"),
        ("echo b > /proc/sysrq-trigger", "sysrq"),
        ("test -s /proc/kcore", "kcore"),
        ("test -s /proc/keys", "keys"),
        ("ls /sys/firmware | grep .", "firmware"),
        (
            "mknod /tmp/disk b 254 0 && head -c 1 /tmp/disk",
            "a disk of the host",
        ),
        ("touch /sys/x", "/sys"),
        (
            "mkdir /sys/fs/cgroup/memory/x || mkdir /sys/fs/cgroup/x",
            "a control group",
        ),
        (
            "ls /proc/1/root/home/.. | grep lost+found",
            "the host's root",
        ),
        ("hostname other", "the host name"),
    ] {
        let (exit, out) = host.run(id, ExecSpec::new(script(command))).await;
        assert_ne!(exit.code, 0, "{what} is open: {out}");
    }
    let (_, probe) = host
        .run(id, ExecSpec::new(["/probe", "probe", "calls"]))
        .await;
    assert!(probe.lines().count() > 10, "{probe}");
    for line in probe.lines() {
        assert!(
            line.ends_with(" refused") || line == "clone3 absent" || line == "unknown absent",
            "{line}"
        );
    }
    host.driver().delete(id).await.unwrap();
    host.finish().await;
}

#[tokio::test]
async fn capabilities_can_be_changed() {
    let Some(host) = Host::new().await else {
        return;
    };
    let mut spec = host.bare_spec();
    spec.capabilities = CapabilityChange {
        add: vec!["NET_ADMIN".into()],
        drop: vec!["ALL".into()],
    };
    let (_, lines) = output(&host, spec, "grep CapEff /proc/self/status | cut -f2").await;
    assert_eq!(
        lines,
        [format!("{:016x}", capability::mask(&["CAP_NET_ADMIN"]))]
    );
    let mut spec = host.bare_spec();
    spec.user = UserIds {
        uid: 1000,
        gid: 1000,
        additional_gids: vec![],
    };
    let (_, lines) = output(&host, spec, "grep CapEff /proc/self/status | cut -f2").await;
    assert_eq!(lines, ["0000000000000000"], "an ordinary user has none");
    host.finish().await;
}

#[tokio::test]
async fn commands_in_a_container() {
    let Some(host) = Host::new().await else {
        return;
    };
    let mut spec = host.spec(Workload::Polite);
    spec.env.push("FROM=container".into());
    let id = spec.id;
    host.driver().create(spec).await.unwrap();
    host.driver().start(id).await.unwrap();
    let mut spec = ExecSpec::new(script("echo $FROM $MORE; pwd; id -u; cat; exit 9"));
    spec.env = vec!["MORE=exec".into()];
    spec.cwd = Some("/tmp".into());
    spec.user = Some(UserIds {
        uid: 77,
        gid: 7,
        additional_gids: vec![],
    });
    spec.stdin = true;
    let mut handle = soon("the command", host.driver().exec(id, spec))
        .await
        .unwrap();
    let mut stdin = handle.stdin.take().unwrap();
    let mut out = String::new();
    // More than a pipe holds: writing and reading must go on at the same time.
    let write = async {
        stdin.write_all(&vec![b'z'; 300_000]).await.unwrap();
        drop(stdin);
    };
    let both = async { tokio::join!(write, handle.stdout.read_to_string(&mut out)) };
    soon("output", both).await.1.unwrap();
    assert!(
        out.starts_with("container exec\n/tmp\n77\n"),
        "{}",
        &out[..60.min(out.len())]
    );
    assert_eq!(out.matches('z').count(), 300_000);
    assert_eq!(soon("its end", handle.exit).await.unwrap().code, 9);
    let missing = host
        .driver()
        .exec(id, ExecSpec::new(["/no/such/program"]))
        .await
        .unwrap_err();
    assert!(
        missing.is_permanent() && missing.to_string().contains("no such program"),
        "{missing}"
    );
    let mut forever = soon(
        "the command",
        host.driver().exec(id, ExecSpec::new(["sleep", "1000"])),
    )
    .await
    .unwrap();
    forever.control.signal(libc::SIGKILL).await.unwrap();
    let exit = soon("its end", &mut forever.exit).await.unwrap();
    assert_eq!(exit.signal, Some(9));
    let dropped = soon(
        "the command",
        host.driver().exec(id, ExecSpec::new(["sleep", "4321"])),
    )
    .await
    .unwrap();
    drop(dropped);
    host.until("a dropped command is killed", || async {
        !host
            .run(id, ExecSpec::new(["ps"]))
            .await
            .1
            .contains("sleep 4321")
    })
    .await;
    host.driver().delete(id).await.unwrap();
    host.finish().await;
}

#[tokio::test]
async fn terminal_in_a_container() {
    let Some(host) = Host::new().await else {
        return;
    };
    let spec = host.spec(Workload::Polite);
    let id = spec.id;
    host.driver().create(spec).await.unwrap();
    host.driver().start(id).await.unwrap();
    let mut spec = ExecSpec::new(["sh"]);
    (spec.tty, spec.stdin) = (true, true);
    let mut handle = soon("the command", host.driver().exec(id, spec))
        .await
        .unwrap();
    handle.control.resize(101, 37).await.unwrap();
    let mut stdin = handle.stdin.take().unwrap();
    stdin.write_all(b"tty; stty size; exit 4\n").await.unwrap();
    let mut out = String::new();
    soon("output", handle.stdout.read_to_string(&mut out))
        .await
        .unwrap();
    assert!(handle.stderr.is_none());
    assert!(
        out.contains("/dev/pts/0") && out.contains("37 101"),
        "{out}"
    );
    assert_eq!(soon("its end", handle.exit).await.unwrap().code, 4);
    host.driver().delete(id).await.unwrap();
    host.finish().await;
}

#[tokio::test]
async fn log_is_rotated_capped_and_complete_while_followed() {
    let Some(host) = Host::new().await else {
        return;
    };
    let mut spec = host.bare_spec();
    spec.log = LogLimits {
        max_bytes: 64 * 1024,
        files: 3,
    };
    spec.args =
        script("i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done; printf unfinished");
    let id = spec.id;
    host.driver().create(spec).await.unwrap();
    host.driver().start(id).await.unwrap();
    soon("the end", host.driver().wait(id)).await.unwrap();
    let dir = host.log_dir().join(id.to_string());
    let sizes: Vec<u64> = std::fs::read_dir(&dir)
        .unwrap()
        .map(|f| f.unwrap().metadata().unwrap().len())
        .collect();
    assert!(
        sizes.len() == 3 && sizes.iter().all(|s| *s <= 64 * 1024),
        "{sizes:?}"
    );
    let lines = read_logs(host.driver(), id, LogQuery::default()).await;
    assert_eq!(lines.last().map(String::as_str), Some("unfinished"));
    assert_eq!(lines[lines.len() - 2], "line 19999");
    let tail = LogQuery {
        tail: Some(3),
        follow: true,
        ..LogQuery::default()
    };
    assert_eq!(
        read_logs(host.driver(), id, tail).await,
        ["line 19998", "line 19999", "unfinished"]
    );
    host.driver().delete(id).await.unwrap();
    host.finish().await;
}

#[tokio::test]
async fn signal_without_handler_does_not_cost_the_grace_time() {
    let Some(host) = Host::new().await else {
        return;
    };
    let mut spec = host.bare_spec();
    spec.args = vec!["sleep".into(), "1000".into()];
    let id = spec.id;
    host.driver().create(spec).await.unwrap();
    host.driver().start(id).await.unwrap();
    let begun = std::time::Instant::now();
    let exit = soon(
        "the stop",
        host.driver().stop(id, Duration::from_secs(3600)),
    )
    .await
    .unwrap();
    assert_eq!(exit.info.signal, Some(9));
    assert!(begun.elapsed() < PATIENCE);
    host.driver().delete(id).await.unwrap();
    host.finish().await;
}

#[tokio::test]
async fn stop_signal_of_the_image_is_used() {
    let Some(host) = Host::new().await else {
        return;
    };
    let mut spec = host.bare_spec();
    spec.stop_signal = libc::SIGQUIT;
    spec.args = script("trap 'exit 33' QUIT; echo up; while :; do sleep 0.05; done");
    let id = spec.id;
    host.driver().create(spec).await.unwrap();
    host.driver().start(id).await.unwrap();
    await_lines(host.driver(), id, 1).await;
    let exit = soon("the stop", host.driver().stop(id, Duration::from_secs(20)))
        .await
        .unwrap();
    assert_eq!(exit.info.code, 33);
    host.driver().delete(id).await.unwrap();
    host.finish().await;
}

#[tokio::test]
async fn network_namespace_is_joined_or_empty() {
    let Some(host) = Host::new().await else {
        return;
    };
    let (_, lines) = output(
        &host,
        host.bare_spec(),
        "ls /sys/class/net; cat /sys/class/net/lo/flags",
    )
    .await;
    assert_eq!(lines, ["lo", "0x9"], "only a loopback device, and it is up");
    let netns = host.network_namespace();
    let mut spec = host.bare_spec();
    spec.netns = Some(netns.path.clone());
    let (_, lines) = output(&host, spec, "readlink /proc/self/ns/net").await;
    assert_eq!(lines, [netns.identity()]);
    drop(netns);
    host.finish().await;
}

#[tokio::test]
async fn failed_creation_leaves_nothing_and_says_why() {
    let Some(host) = Host::new().await else {
        return;
    };
    let mut missing_root = host.bare_spec();
    missing_root.rootfs = "/no/such/root".into();
    let mut missing_volume = host.bare_spec();
    missing_volume.mounts = vec![RuntimeMount::Bind {
        source: "/no/such/volume".into(),
        target: "/data".into(),
        read_only: false,
    }];
    let mut missing_dir = host.bare_spec();
    missing_dir.cwd = "/no/such/dir".into();
    let mut not_executable = host.bare_spec();
    not_executable.args = vec!["/etc/passwd".into()];
    for (spec, word) in [
        (missing_root, "/no/such/root"),
        (missing_volume, "/no/such/volume"),
        (missing_dir, "/no/such/dir"),
        (not_executable, "/etc/passwd"),
    ] {
        let id = spec.id;
        let error = host.driver().create(spec).await.expect_err(word);
        assert!(
            matches!(error, RuntimeError::Create { .. }) && error.to_string().contains(word),
            "{error}"
        );
        assert!(matches!(
            host.driver().inspect(id).await,
            Err(RuntimeError::NotFound { .. })
        ));
    }
    let broken = host.rootfs().join("bin/broken");
    std::fs::write(&broken, "#!/no/such/interpreter\n").unwrap();
    host::make_executable(&broken);
    let mut spec = host.bare_spec();
    spec.args = vec!["broken".into()];
    let id = spec.id;
    host.driver().create(spec).await.unwrap();
    let error = host.driver().start(id).await.expect_err("no interpreter");
    assert!(
        matches!(error, RuntimeError::Start { .. }) && error.to_string().contains("interpreter"),
        "{error}"
    );
    assert_eq!(
        soon("the end", host.driver().wait(id))
            .await
            .unwrap()
            .info
            .code,
        127
    );
    host.driver().delete(id).await.unwrap();
    host.finish().await;
}
