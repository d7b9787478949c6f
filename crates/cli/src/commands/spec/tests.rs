//! Every flag form of `service create` and `service update`.

use super::*;
use crate::args::{Cli, Command, ServiceCommand};
use clap::Parser;
use warren_types::{
    Bytes, DeployStrategy, Duration, FailureAction, MilliCpu, Mount, Protocol, PublishMode,
    RestartCondition, UpdateOrder,
};

fn parse(line: &str) -> std::result::Result<ServiceCommand, clap::Error> {
    let words = flags::words(line).unwrap().0;
    let cli = Cli::try_parse_from(std::iter::once("warren".to_owned()).chain(words))?;
    match cli.command {
        Command::Service(command) => Ok(command),
        other => panic!("{other:?}"),
    }
}

fn created(line: &str) -> Result<ServiceSpec> {
    match parse(&format!("service create web --image nginx:1 {line}")).unwrap() {
        ServiceCommand::Create(args) => create(&args),
        other => panic!("{other:?}"),
    }
}

fn updated(old: &ServiceSpec, line: &str) -> Result<ServiceSpec> {
    match parse(&format!("service update web {line}")).unwrap() {
        ServiceCommand::Update(args) => update(&args, old, Timestamp(5)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_flag_of_create_reaches_the_specification() {
    let spec = created(
        "--replicas 3 -e A=1,B=2 --env C=x,y -p 8080:80 --publish 53:5353/udp --publish-mode ingress \
         --secret pass --secret key:tls.key --volume data:/d:ro --bind /srv:/s --tmpfs /t:16m -l a=b \
         --constraint 'node.role == worker' --network back --cap-add NET_ADMIN --cap-drop ALL \
         --command 'nginx -g \"daemon off;\"' --user 10:20 --workdir /w --hostname h --read-only \
         --cpus 1.5 --memory 256m --reserve-cpus 500m --reserve-memory 64m --pids-limit 100 --stop-timeout 30 \
         --stop-signal SIGQUIT --max-per-node 2 --spread node.labels.zone --health-http /h --health-port 8080 \
         --health-interval 5 --health-timeout 1s --health-retries 4 --health-start-period 1m \
         --restart-condition on-failure --restart-max-attempts 3 --restart-delay 2s --restart-window 1m \
         --strategy canary --canary-steps 10,100 --canary-window 60 --parallelism 2 --delay 1s --order start-first \
         --failure-action rollback --monitor 9s --max-surge 3 --max-unavailable 1 --failure-threshold 20 -- -x --y",
    )
    .unwrap();
    let c = &spec.container;
    let env: Vec<String> = c
        .env
        .iter()
        .map(|v| format!("{}={}", v.name, v.value))
        .collect();
    assert_eq!(env, ["A=1", "B=2", "C=x,y"]);
    assert_eq!(
        (spec.mode, &c.command[..], &c.args[..]),
        (
            Mode::Replicated { replicas: 3 },
            &[
                "nginx".to_owned(),
                "-g".to_owned(),
                "daemon off;".to_owned()
            ][..],
            &["-x".to_owned(), "--y".to_owned()][..]
        )
    );
    assert_eq!(
        (
            spec.ports[1].host_port,
            spec.ports[1].protocol,
            spec.ports[1].publish_mode
        ),
        (53, Protocol::Udp, PublishMode::Ingress)
    );
    assert_eq!(c.secrets[1].target.as_deref(), Some("tls.key"));
    assert_eq!(
        c.mounts[2],
        Mount::Tmpfs {
            target: "/t".into(),
            size: Some(Bytes(16 << 20))
        }
    );
    assert_eq!(
        (
            spec.placement.spread.as_deref(),
            spec.placement.max_per_node
        ),
        (Some("zone"), 2)
    );
    assert_eq!(
        (
            c.resources.cpu_limit,
            c.resources.memory_reservation,
            c.resources.pids_limit
        ),
        (Some(MilliCpu(1500)), Some(Bytes(64 << 20)), Some(100))
    );
    assert_eq!(
        (c.stop_grace, c.stop_signal.as_deref(), c.read_only_root),
        (Some(Duration(30_000)), Some("SIGQUIT"), true)
    );
    let check = c.health.readiness.as_ref().unwrap();
    assert_eq!(
        (
            check.interval,
            check.timeout,
            check.retries,
            check.start_period
        ),
        (Duration(5000), Duration(1000), 4, Duration(60_000))
    );
    assert!(matches!(&check.probe, HealthProbe::Http { path, port: 8080, .. } if path == "/h"));
    assert_eq!(
        (c.restart.condition, c.restart.max_attempts),
        (RestartCondition::OnFailure, 3)
    );
    let u = &spec.update;
    assert_eq!(
        (u.strategy, u.order, u.failure_action),
        (
            DeployStrategy::Canary,
            UpdateOrder::StartFirst,
            FailureAction::Rollback
        )
    );
    assert_eq!(
        (
            u.parallelism,
            u.max_surge,
            u.max_unavailable,
            u.failure_threshold_percent,
            &u.canary_steps[..]
        ),
        (2, 3, 1, 20, &[10, 100][..])
    );
    assert_eq!(
        (u.delay, u.monitor, u.canary_window),
        (Duration(1000), Duration(9000), Duration(60_000))
    );
}

#[test]
fn defaults_and_old_spellings() {
    let spec = created("").unwrap();
    assert_eq!(spec.mode, Mode::Replicated { replicas: 1 });
    assert_eq!(spec.container.health, HealthSpec::default());
    assert_eq!(created("--mode global").unwrap().mode, Mode::Global);
    let probe = |line: &str| {
        created(line)
            .unwrap()
            .container
            .health
            .liveness
            .unwrap()
            .probe
    };
    assert!(matches!(
        probe("--health-http /"),
        HealthProbe::Http { port: 80, .. }
    ));
    assert_eq!(probe("--health-tcp :5432"), HealthProbe::Tcp { port: 5432 });
    assert_eq!(
        probe("--health-cmd redis-cli,ping"),
        HealthProbe::Exec {
            command: vec!["redis-cli".into(), "ping".into()]
        }
    );
    assert_eq!(
        probe("--health-cmd 'redis-cli ping'"),
        HealthProbe::Exec {
            command: vec!["/bin/sh".into(), "-c".into(), "redis-cli ping".into()]
        }
    );
    assert!(
        matches!(
            probe("--health-cmd x --health-tcp 1 --health-http /"),
            HealthProbe::Http { .. }
        ),
        "the first of HTTP, TCP, exec wins"
    );
    assert_eq!(
        created("--ports 80:80 --cpu-limit 1 --memory-limit 8m --read-only=false")
            .unwrap()
            .ports
            .len(),
        1
    );
}

#[test]
fn what_create_refuses() {
    for line in [
        "--mode global --replicas 2",
        "--env =x",
        "--env WARREN_TEST_SURELY_UNSET",
        "--health-interval 5s",
        "--memory 1k",
        "--publish 80:80 --publish 80:81",
        "--volume data:/a --bind /x:/a",
        "--env-file /nowhere",
    ] {
        assert!(created(line).is_err(), "{line}");
    }
    for line in [
        "--replicas -1",
        "--replicas many",
        "--publish 80",
        "--memory lots",
        "--cpus x",
        "--mode both",
        "--strategy wild",
        "--volume data",
        "--secret ''",
        "--label x",
        "--unknown",
        "--canary-steps 0",
        "--stop-timeout soon",
        "--restart-condition maybe",
    ] {
        let error = parse(&format!("service create web --image a {line}")).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{line}");
    }
    assert!(parse("service create web").is_err(), "no image");
}

#[test]
fn update_changes_only_what_is_said() {
    let mut old = created("-e A=1 -e B=2 -p 80:80 -p 53:53/udp --volume data:/d --secret s --health-tcp 1 -l x=y --constraint 'node.role == worker'").unwrap();
    old.container.image_digest = Some(format!("sha256:{}", "0".repeat(64)));
    assert_eq!(updated(&old, "").unwrap(), old);
    let new = updated(&old, "--image nginx:2 --replicas 5 --env-add A=9 --env-rm B --publish-add 80:8080 --publish-rm 53/udp --mount-add other:/d --secret-rm s --health-interval 7 --label-rm x --constraint-rm 'node.role == worker' --user www --args '-a b' --cpus 0").unwrap();
    assert_eq!(
        (
            new.container.image.as_str(),
            &new.container.image_digest,
            new.mode
        ),
        ("nginx:2", &None, Mode::Replicated { replicas: 5 })
    );
    assert_eq!(
        (new.container.env.len(), new.container.env[0].value.as_str()),
        (1, "9")
    );
    assert_eq!((new.ports.len(), new.ports[0].container_port), (1, 8080));
    assert_eq!(
        new.container.mounts,
        [Mount::Volume {
            source: "other".into(),
            target: "/d".into(),
            read_only: false
        }]
    );
    assert_eq!(
        new.container.health.liveness.as_ref().unwrap().interval,
        Duration(7000)
    );
    assert_eq!(new.container.args, ["-a", "b"]);
    assert_eq!(
        updated(&old, "--no-health").unwrap().container.health,
        HealthSpec::default()
    );
    let forced = updated(&old, "--force").unwrap();
    assert_eq!(
        forced.container.labels[FORCE_LABEL],
        "1970-01-01T00:00:00.005Z"
    );
    assert_eq!(updated(&new, "--user ''").unwrap().container.user, None);
    let global = ServiceSpec {
        mode: Mode::Global,
        ..old
    };
    assert!(updated(&global, "--replicas 2").is_err());
}

#[test]
fn env_files() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("env");
    std::fs::write(&path, "# a comment\nA=1\n\n B=x=y \n").unwrap();
    let spec = created(&format!("--env-file {} -e A=2", path.display())).unwrap();
    let env: Vec<String> = spec
        .container
        .env
        .iter()
        .map(|v| format!("{}={}", v.name, v.value))
        .collect();
    assert_eq!(env, ["A=2", "B=x=y"]);
    std::fs::write(&path, "A=1\n=oops\n").unwrap();
    let error = created(&format!("--env-file {}", path.display())).unwrap_err();
    assert!(error.message.contains("env:2:"), "{error}");
}
