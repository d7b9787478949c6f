//! `apply`, `diff`, `up` and `down` against a cluster in memory.

use super::{Sink, house, ok, run, run_with};
use crate::error::Exit;
use crate::{Cli, Context, DaemonCommand, Io, Outcome};
use clap::Parser;
use std::io::Write;

const APP: &str = "kind: Service\nmetadata: {name: web}\nspec: {image: 'a:1', secrets: [pass]}\n---\nkind: Secret\nmetadata: {name: pass}\nspec: {stringData: x}\n---\nkind: Volume\nmetadata: {name: data}\n";

#[tokio::test]
async fn apply_creates_then_converges_then_updates() {
    let fake = house();
    let dry = run_with(&fake, APP, "apply -f - --dry-run").await;
    assert_eq!(dry.exit, 0, "{dry:?}");
    assert!(
        dry.out.starts_with(
            "secret/pass: create\nvolume/data: create\nservice/web: create\n  + container.image: \"a:1\"\n  + container.secrets[0]"
        ),
        "{dry:?}"
    );
    assert!(fake.world().services.is_empty());
    let made = run_with(&fake, APP, "apply -f -").await;
    assert_eq!(
        made.out, "secret/pass created\nvolume/data created\nservice/web created\n",
        "{made:?}"
    );
    let again = run_with(&fake, APP, "apply -f -").await;
    assert_eq!(
        again.out,
        "secret/pass unchanged (exists; its value is not compared, --force-secrets sets it)\nvolume/data unchanged\nservice/web unchanged\n",
        "{again:?}"
    );
    let other = APP.replace("a:1", "a:2");
    let diff = run_with(&fake, &other, "diff -f - --exit-code").await;
    assert_eq!(
        (diff.exit, diff.out.as_str()),
        (
            1,
            "secret/pass: unchanged (exists; its value is not compared, --force-secrets sets it)\nvolume/data: unchanged\nservice/web: change\n  ~ container.image: \"a:1\" -> \"a:2\"\n"
        )
    );
    let changed = run_with(&fake, &other, "apply -f - --force-secrets").await;
    assert!(
        changed.out.contains("secret/pass changed\n")
            && changed.out.contains("service/web changed\n"),
        "{changed:?}"
    );
    let calls = fake.world().calls.clone();
    let order: Vec<&String> = calls
        .iter()
        .filter(|c| c.starts_with("create_") && !c.contains("dry_run=true"))
        .collect();
    assert!(
        order[0].starts_with("create_secret")
            && order[1].starts_with("create_volume")
            && order[2].starts_with("create_service"),
        "{order:?}"
    );
}

#[tokio::test]
async fn a_wrong_manifest_changes_nothing() {
    let fake = house();
    let ran = run_with(
        &fake,
        &format!("{APP}---\nkind: Service\nmetadata: {{name: b}}\nspec: {{imgae: x}}\n"),
        "apply -f -",
    )
    .await;
    assert_eq!(ran.exit, 2);
    assert!(
        ran.err
            .contains("stdin:14:8: spec.imgae: unknown key; did you mean image?"),
        "{ran:?}"
    );
    let missing = run_with(
        &fake,
        "kind: Secret\nmetadata: {name: x}\nspec: {external: true}\n",
        "apply -f -",
    )
    .await;
    assert_eq!(missing.exit, Exit::NotFound as u8, "{missing:?}");
    assert_eq!(run(&fake, "apply -f /nowhere/app.yaml").await.exit, 2);
    assert!(fake.world().calls.is_empty(), "{:?}", fake.world().calls);
}

#[tokio::test]
async fn directories_files_and_secret_files() {
    let fake = house();
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(
        dir.path().join("b.yaml"),
        "kind: Volume\nmetadata: {name: b}\n",
    )
    .unwrap();
    std::fs::write(
        dir.path().join("a.yml"),
        "kind: Secret\nmetadata: {name: a}\nspec: {fromFile: value.txt}\n",
    )
    .unwrap();
    std::fs::write(dir.path().join("value.txt"), "from a file").unwrap();
    let ran = ok(&fake, &format!("apply -f {}", dir.path().display())).await;
    assert_eq!(ran.out, "secret/a created\nvolume/b created\n");
    assert!(
        fake.world()
            .calls
            .contains(&"create_secret NewSecret(a, 11 bytes)".to_owned())
    );
    let twice = run(
        &fake,
        &format!("apply -f {0}/b.yaml -f {0}/b.yaml", dir.path().display()),
    )
    .await;
    assert!(
        twice.exit == 2 && twice.err.contains("stands here a second time"),
        "{twice:?}"
    );
    let empty = tempfile::tempdir().unwrap();
    assert_eq!(
        run(&fake, &format!("apply -f {}", empty.path().display()))
            .await
            .exit,
        2
    );
}

#[tokio::test]
async fn up_labels_and_down_takes_away() {
    let fake = house();
    ok(&fake, "service create mine --image a").await;
    let cli = Cli::try_parse_from(["warren", "up", "--hello-port", "1", "--detach"]).unwrap();
    let (out, err) = (Sink::default(), Sink::default());
    let mut context = Context {
        io: Io::with(
            Box::new(out.clone()),
            Box::new(err.clone()),
            Box::new(std::io::empty()),
        ),
        connector: Box::new(fake.clone()),
    };
    let Outcome::Daemon(DaemonCommand::Up(args)) = crate::run(cli, &mut context).await else {
        panic!()
    };
    let manifest = crate::up_manifest(&args, &mut context.io).unwrap();
    crate::up_apply(&fake, manifest.clone(), &args, &mut context.io)
        .await
        .unwrap();
    crate::up_apply(&fake, manifest, &args, &mut context.io)
        .await
        .unwrap();
    assert_eq!(
        out.text(),
        "service/hello created\nservice/hello unchanged\n"
    );
    assert!(err.text().contains("warren down"));
    let ran = ok(&fake, "down").await;
    assert_eq!(ran.err, "service hello: deleted\n");
    assert_eq!(ok(&fake, "down").await.err, "No services to take away.\n");
    assert_eq!(ok(&fake, "down --all").await.err, "service mine: deleted\n");
}

/// A page that answers, to knock at.
fn web(status: &'static str) -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut request = [0; 256];
            let _ = std::io::Read::read(&mut stream, &mut request);
            let _ = stream.write_all(format!("HTTP/1.0 {status}\r\n\r\nhello").as_bytes());
        }
    });
    port
}

#[tokio::test]
async fn up_waits_until_the_page_answers() {
    let fake = house();
    for (status, good) in [("200 OK", true), ("503 Busy", false)] {
        let port = web(status);
        let words = [
            "warren",
            "up",
            "--timeout",
            "2s",
            "--hello-port",
            &port.to_string(),
        ]
        .map(str::to_owned);
        let cli = Cli::try_parse_from(words).unwrap();
        let (out, err) = (Sink::default(), Sink::default());
        let mut io = Io::with(
            Box::new(out.clone()),
            Box::new(err.clone()),
            Box::new(std::io::empty()),
        );
        let crate::args::Command::Up(args) = cli.command else {
            panic!()
        };
        let manifest = crate::up_manifest(&args, &mut io).unwrap();
        let result = crate::up_apply(&fake, manifest, &args, &mut io).await;
        let line = format!("hello answers at http://127.0.0.1:{port}\n");
        assert_eq!(result.is_ok(), good, "{result:?} {}", err.text());
        assert_eq!(out.text().contains(&line), good);
        if let Err(error) = result {
            assert_eq!(error.exit, Exit::RolloutFailed);
            assert!(error.message.contains("503"), "{error}");
        }
    }
}
