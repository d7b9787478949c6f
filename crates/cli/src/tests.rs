//! Commands against a cluster in memory: what is asked of it, what is printed, how it ends.

mod apply;
mod fake;
mod fake_quorum;
mod quorum;

use crate::api::{ImageView, NodeView};
use crate::error::{CliError, Exit};
use crate::{Cli, Context, Io, Outcome, golden};
use clap::Parser;
use fake::{Fake, Fate, NOW, at};
use fake_quorum::voter;
use std::io::Write;
use std::sync::{Arc, Mutex};

#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Sink {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }
}

/// What a command line did.
#[derive(Debug)]
struct Ran {
    exit: u8,
    out: String,
    err: String,
}

async fn run_with(fake: &Fake, input: &str, line: &str) -> Ran {
    let (out, err) = (Sink::default(), Sink::default());
    let input = std::io::Cursor::new(input.as_bytes().to_vec());
    let mut io = Io::with(
        Box::new(out.clone()),
        Box::new(err.clone()),
        Box::new(input),
    );
    io.now = || NOW;
    let mut context = Context {
        io,
        connector: Box::new(fake.clone()),
    };
    let words = crate::flags::words(line).unwrap().0;
    let cli = Cli::try_parse_from(std::iter::once("warren".to_owned()).chain(words))
        .unwrap_or_else(|e| panic!("{line}: {e}"));
    match crate::run(cli, &mut context).await {
        Outcome::Exit(exit) => Ran {
            exit,
            out: out.text(),
            err: err.text(),
        },
        Outcome::Daemon(command) => panic!("{line}: {command:?}"),
    }
}

async fn run(fake: &Fake, line: &str) -> Ran {
    run_with(fake, "", line).await
}

async fn ok(fake: &Fake, line: &str) -> Ran {
    let ran = run(fake, line).await;
    assert_eq!(ran.exit, 0, "{line}: {ran:?}");
    ran
}

fn house() -> Fake {
    let fake = Fake::default();
    {
        let mut world = fake.world();
        world.nodes = vec![
            NodeView {
                id: "n1".into(),
                name: "edge-1".into(),
                role: "hybrid".into(),
                status: "ready".into(),
                availability: "active".into(),
                address: "10.0.0.1:8080".into(),
                cpu_milli: 4000,
                memory_bytes: 8 << 30,
                reserved_cpu_milli: 1500,
                reserved_memory_bytes: 1 << 30,
                containers: 3,
                platform: "linux/arm64".into(),
                created_at: at(86_400 * 3),
                ..NodeView::default()
            },
            NodeView {
                id: "n2".into(),
                name: "edge-2".into(),
                role: "worker".into(),
                status: "down".into(),
                availability: "active".into(),
                reason: "silent for 40 s".into(),
                ..NodeView::default()
            },
        ];
        world.quorum.members = vec![voter("n1", "edge-1", true)];
        world.images = vec![ImageView {
            references: vec!["nginx:1".into()],
            digest: "sha256:0123456789abcdef0123".into(),
            size_bytes: 50 << 20,
            layers: 3,
            platform: "linux/arm64".into(),
            in_use: true,
            node: "edge-1".into(),
            created_at: at(86_400 * 30),
        }];
    }
    fake
}

#[tokio::test]
async fn golden_tables_and_blocks() {
    let fake = house();
    ok(&fake, "service create web --image nginx:1 --replicas 2 -p 8080:80 -e A=1 --memory 256m --cpus 0.5 --health-http /h").await;
    ok(
        &fake,
        "service create db --image redis:7 --volume data:/data:ro --secret pass -l tier=back",
    )
    .await;
    ok(&fake, "secret create pass --from-literal geheim").await;
    ok(&fake, "volume create data --opt type=none").await;
    let mut text = String::new();
    for line in [
        "service list",
        "service list -o wide",
        "service ls -o yaml",
        "service inspect web",
        "service inspect db -o json",
        "service ps web db",
        "service ps web -o wide",
        "container list",
        "container list -o wide",
        "container inspect web.1",
        "node list",
        "node ls -o wide",
        "node inspect edge-2",
        "image list",
        "image inspect nginx:1",
        "secret list",
        "secret inspect pass",
        "volume list",
        "volume list -o wide",
        "volume inspect data",
        "cluster info",
        "events --no-follow",
        "events --no-follow -o json",
        "events --no-follow -o yaml",
        "service logs web -t",
    ] {
        let ran = ok(&fake, line).await;
        text.push_str(&format!("$ warren {line}\n{}", ran.out));
        if !ran.err.is_empty() {
            text.push_str(&format!("[stderr]\n{}", ran.err));
        }
        text.push('\n');
    }
    golden::check("tables.txt", &text);
}

#[test]
fn golden_help() {
    fn page(command: &mut clap::Command, path: &str, text: &mut String) {
        text.push_str(&format!(
            "$ {path} --help\n{}\n",
            command.render_long_help()
        ));
        let names: Vec<String> = command
            .get_subcommands()
            .map(|c| c.get_name().to_owned())
            .collect();
        for name in names {
            if let Some(sub) = command.find_subcommand_mut(&name) {
                page(sub, &format!("{path} {name}"), text);
            }
        }
    }
    let mut command = crate::command().term_width(100);
    command.build();
    let mut text = String::new();
    page(&mut command, "warren", &mut text);
    let text: String = text
        .lines()
        .map(|l| format!("{}\n", l.trim_end()))
        .collect();
    golden::check("help.txt", &text);
    crate::command().debug_assert();
}

#[tokio::test]
async fn empty_lists_print_nothing_to_standard_output() {
    let fake = Fake::default();
    let ran = ok(&fake, "cluster token list").await;
    assert_eq!(
        (ran.out.as_str(), ran.err.as_str()),
        ("", "No join tokens.\n")
    );
    for what in ["service", "container", "node", "image", "secret", "volume"] {
        let ran = ok(&fake, &format!("{what} list")).await;
        assert_eq!(ran.out, "", "{what}");
        assert_eq!(ran.err, format!("No {what}s.\n"));
        assert_eq!(ok(&fake, &format!("{what} list -o json")).await.out, "[]\n");
    }
}

#[tokio::test]
async fn create_waits_and_shows_progress_lines() {
    let fake = house();
    fake.world().fate = Fate::Pend("no node has 64 GiB of memory free");
    let ran = run(&fake, "service create big --image a --timeout 3s").await;
    assert_eq!(ran.exit, Exit::RolloutFailed as u8, "{ran:?}");
    assert!(
        ran.err
            .contains("big: 0/1 running; 1 pending: no node has 64 GiB of memory free"),
        "{ran:?}"
    );
    assert!(ran.err.contains("not done within 3s"), "{ran:?}");
    assert_eq!(ran.out, "");
    // One line for one reason, however often it was looked at.
    assert_eq!(ran.err.matches("big: 0/1 running").count(), 2, "{ran:?}");
    let detached = ok(&fake, "service create later --image a --detach -q").await;
    assert_eq!(detached.out, "01hzzservicelater\n");
}

#[tokio::test]
async fn a_failed_container_ends_the_wait_with_its_log() {
    let fake = house();
    fake.world().fate = Fate::Fail;
    let ran = run(&fake, "service create bad --image a").await;
    assert_eq!(ran.exit, 7, "{ran:?}");
    for part in [
        "bad.1 does not run: the program ended (exit 3)",
        "Last log lines of",
        "  oops",
        "warren service logs bad",
    ] {
        assert!(ran.err.contains(part), "{part}: {ran:?}");
    }
}

#[tokio::test]
async fn a_rollback_by_the_cluster_is_a_failed_update() {
    let fake = house();
    ok(&fake, "service create web --image a:1").await;
    fake.world().fate = Fate::RollBack;
    let ran = run(&fake, "service update web --image a:2").await;
    assert_eq!(ran.exit, 7, "{ran:?}");
    assert!(ran.err.contains("the rollout of web to revision 2 was rolled back to revision 1: 1 of 1 new containers failed; web.1: the program ended (exit 3)"), "{ran:?}");
}

#[tokio::test]
async fn update_sends_the_version_it_read_and_only_what_changes() {
    let fake = house();
    ok(
        &fake,
        "service create web --image a:1 -e A=1 -p 80:80 --secret s",
    )
    .await;
    let same = ok(&fake, "service update web --image a:1").await;
    assert_eq!(same.err, "service web: unchanged\n");
    let dry = ok(
        &fake,
        "service update web --env-add A=2 --env-add B=3 --publish-rm 80 --secret-rm s --dry-run",
    )
    .await;
    assert_eq!(
        dry.out,
        "~ container.env.A: \"1\" -> \"2\"\n+ container.env.B: \"3\"\n- container.secrets[0].gid: 0\n- container.secrets[0].source: \"s\"\n- container.secrets[0].uid: 0\n- ports[0].containerPort: 80\n- ports[0].hostPort: 80\n- ports[0].protocol: \"tcp\"\n- ports[0].publishMode: \"host\"\n"
    );
    ok(&fake, "service update web --image a:2 --replicas 0").await;
    ok(&fake, "service update web --force").await;
    let calls = fake.world().calls.join("\n");
    assert!(calls.contains("update_service web expected=10 dry_run=true\nupdate_service web expected=10 dry_run=false\nupdate_service web expected=11 dry_run=false"), "{calls}");
    for wrong in [
        "--env-rm X",
        "--publish-rm 81",
        "--secret-rm X",
        "--mount-rm /x",
        "--label-rm x",
        "--constraint-rm x",
        "--health-interval 5s",
    ] {
        let ran = run(&fake, &format!("service update web {wrong}")).await;
        assert_eq!(ran.exit, 2, "{wrong}: {ran:?}");
    }
}

#[tokio::test]
async fn scale_and_delete() {
    let fake = house();
    ok(&fake, "service create a --image a").await;
    ok(&fake, "service create b --image a").await;
    let ran = ok(&fake, "service scale a=3 b --replicas 0").await;
    assert!(
        ran.err.contains("service a: 1 -> 3 replicas\n")
            && ran
                .err
                .contains("service a: scaled, revision 1, 3/3 running"),
        "{ran:?}"
    );
    assert_eq!(run(&fake, "service scale a").await.exit, 2);
    assert_eq!(run(&fake, "service scale a=many").await.exit, 2);
    let ran = run(&fake, "service delete a nothing").await;
    assert_eq!(ran.exit, Exit::NotFound as u8);
    assert!(
        ran.err.contains("service a: deleted")
            && ran.err.contains("service nothing does not exist"),
        "{ran:?}"
    );
    assert!(fake.world().services.contains_key("b"));
}

#[tokio::test]
async fn exec_passes_the_exit_status_and_streams_on() {
    let fake = house();
    ok(&fake, "service create web --image a").await;
    for name in ["web", "web.1"] {
        let ran = run(
            &fake,
            &format!("container exec -e A=1 -u www -w /srv {name} ls -la --color"),
        )
        .await;
        assert_eq!(
            (ran.exit, ran.out.as_str(), ran.err.as_str()),
            (42, "out", "err"),
            "{name}"
        );
    }
    let calls = fake.world().calls.join("\n");
    assert!(calls.contains(r#"command: ["ls", "-la", "--color"], env: {"A": "1"}, user: Some("www"), workdir: Some("/srv"), tty: false, stdin: false"#), "{calls}");
    assert_eq!(
        run(&fake, "container exec nothing ls").await.exit,
        Exit::NotFound as u8
    );
    assert_eq!(
        run(&fake, "container exec -it web sh").await.exit,
        2,
        "no terminal here"
    );
}

#[tokio::test]
async fn logs_keep_parts_of_a_line_together() {
    let fake = house();
    ok(&fake, "service create web --image a").await;
    let ran = ok(&fake, "service logs web --tail 5 --since 10m").await;
    assert_eq!(ran.out, "web.1 | long line\nweb.1 | next\n");
    assert_eq!(ran.err, "web.1 | oops\n");
    let calls = fake.world().calls.join("\n");
    assert!(
        calls.contains(&format!(
            "tail: Some(5), since: Some(Timestamp({}))",
            NOW.0 - 600_000
        )),
        "{calls}"
    );
    assert_eq!(
        ok(&fake, "container logs web.1").await.out,
        "long line\nnext\n"
    );
}

#[tokio::test]
async fn secrets_images_volumes_nodes() {
    let fake = house();
    assert_eq!(
        run_with(&fake, "from stdin", "secret create s --from-stdin")
            .await
            .exit,
        0
    );
    assert_eq!(
        run_with(&fake, "", "secret create s --from-stdin")
            .await
            .exit,
        2,
        "empty value"
    );
    let ran = run(&fake, "secret rm s used").await;
    assert_eq!(ran.exit, 1);
    assert_eq!(
        ran.err,
        "secret s: deleted\nerror: secret used is used by service web\n"
    );
    let dir = tempfile::tempdir().unwrap();
    let archive = dir.path().join("image.tar");
    std::fs::write(&archive, [7; 1000]).unwrap();
    ok(
        &fake,
        &format!("image import {} --tag x:1", archive.display()),
    )
    .await;
    assert_eq!(fake.world().imported, 1000);
    assert_eq!(
        run(&fake, &format!("image import {}", dir.path().display()))
            .await
            .exit,
        2
    );
    assert_eq!(run(&fake, "image rm a used").await.exit, 1);
    ok(&fake, "volume rm a --force").await;
    ok(
        &fake,
        "node update edge-1 --availability pause --label zone=a --label-rm old",
    )
    .await;
    ok(&fake, "node drain edge-1").await;
    ok(&fake, "node undrain edge-1").await;
    ok(&fake, "node rm edge-2 --force").await;
    assert_eq!(
        run(&fake, "node inspect nobody").await.exit,
        Exit::NotFound as u8
    );
    assert_eq!(run(&fake, "events --type service.exploded").await.exit, 2);
    assert_eq!(
        ok(&fake, "node stop --grace 3s").await.err,
        "daemon stopped; containers keep running\n"
    );
    let calls = fake.world().calls.join("\n");
    assert!(
        calls.contains("stop 3s") && calls.contains("remove_node edge-2 true"),
        "{calls}"
    );
}

#[tokio::test]
async fn errors_have_their_exit_status_and_say_what_to_do() {
    let fake = house();
    let ran = run(&fake, "--manager nobody:1 service list").await;
    assert_eq!((ran.exit, ran.out.as_str()), (3, ""));
    assert_eq!(
        ran.err,
        "error: no manager can be reached\n  try: warren up\n"
    );
    assert_eq!(run(&fake, "service inspect nothing").await.exit, 4);
    ok(&fake, "service create web --image a").await;
    assert_eq!(run(&fake, "service create web --image a").await.exit, 5);
    assert_eq!(
        run(&fake, "service create Bad_Name --image a").await.exit,
        2
    );
    assert!(
        ok(&fake, "--manager nobody:1 version")
            .await
            .out
            .contains("does not answer")
    );
    let version = ok(&fake, "version").await.out;
    assert!(version.contains("Daemon:   0.1.0 on edge-1"), "{version}");
    assert!(ok(&fake, "completion bash").await.out.contains("_warren"));
}

#[tokio::test]
async fn the_real_client_says_that_nobody_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("none.sock").display().to_string();
    for line in ["service list", "node stop", "down"] {
        let words = ["warren", "--socket", &socket]
            .into_iter()
            .chain(line.split(' '));
        let cli = Cli::try_parse_from(words).unwrap();
        let err = Sink::default();
        let mut context = Context::process();
        context.io = Io::with(
            Box::new(std::io::sink()),
            Box::new(err.clone()),
            Box::new(std::io::empty()),
        );
        let outcome = crate::run(cli, &mut context).await;
        assert!(matches!(outcome, Outcome::Exit(3)), "{line}: {outcome:?}");
        let text = err.text();
        assert!(
            text.contains(&socket) && text.contains("warren up"),
            "{text}"
        );
    }
}

#[test]
fn every_client_error_has_an_exit_status() {
    use warren_client::{ClientError, ErrorKind};
    for (kind, exit) in [
        (ErrorKind::InvalidArgument, Exit::Usage),
        (ErrorKind::Unavailable, Exit::NoConnection),
        (ErrorKind::NotFound, Exit::NotFound),
        (ErrorKind::AlreadyExists, Exit::Exists),
        (ErrorKind::PermissionDenied, Exit::Denied),
        (ErrorKind::RolloutFailed, Exit::RolloutFailed),
        (ErrorKind::Conflict, Exit::General),
        (ErrorKind::Internal, Exit::General),
    ] {
        let error = CliError::from(ClientError::new(kind, "what", "do"));
        assert_eq!((error.exit, error.remedy.as_deref()), (exit, Some("do")));
    }
}

#[test]
fn what_needs_the_daemon_is_handed_back() {
    let fake = Fake::default();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    for line in [
        "up app.yaml --foreground",
        "cluster init --manager-only",
        "node run",
        "node start --data-dir /x",
        "node reset -y",
        "manager join --token T --manager a:1,b:2 --advertise-addr c:3 --manager-only",
        "node join --token T --manager a:1 --metrics-addr none",
        "worker start --token T --manager a:1 --node-id w",
        "worker join --token T --manager a:1",
        "node run --api-addr 0.0.0.0:80 --advertise-addr c:3 --metrics-addr none",
    ] {
        let cli = Cli::try_parse_from(format!("warren {line}").split(' ')).unwrap();
        let mut context = Context {
            io: Io::with(
                Box::new(std::io::sink()),
                Box::new(std::io::sink()),
                Box::new(std::io::empty()),
            ),
            connector: Box::new(fake.clone()),
        };
        assert!(
            matches!(
                runtime.block_on(crate::run(cli, &mut context)),
                Outcome::Daemon(_)
            ),
            "{line}"
        );
    }
}
