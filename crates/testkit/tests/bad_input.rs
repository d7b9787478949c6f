//! Bad input and faults: each a clear error that says what, where and what to do, with nothing half done.

use warren_testkit::{Node, eventually, is_root, skipped};

const USAGE: i32 = 2;
const NOT_FOUND: i32 = 4;
const EXISTS: i32 = 5;
const DENIED: i32 = 6;

#[test]
fn what_a_user_can_get_wrong() {
    if !is_root() {
        return skipped("what_a_user_can_get_wrong", "needs root");
    }
    let mut node = Node::running();
    let image = warren_testkit::images::busybox(node.directory());
    let _ = node.cli(&["image", "import", &image]).ok();

    // Unknown key and wrong type, with file and line.
    let file = node.file(
        "bad.yaml",
        b"kind: Service\nmetadata:\n  name: web\nspec:\n  image: test/busybox\n  replicsa: 2\n",
    );
    let said = node.cli(&["apply", "-f", &file]);
    assert_ne!(said.code, 0);
    assert!(
        said.stderr.contains("bad.yaml:6") && said.stderr.contains("replicsa"),
        "{}",
        said.stderr
    );
    let file = node.file(
        "type.yaml",
        b"kind: Service\nmetadata:\n  name: web\nspec:\n  image: test/busybox\n  replicas: many\n",
    );
    let said = node.cli(&["apply", "-f", &file]);
    assert_ne!(said.code, 0);
    assert!(said.stderr.contains("type.yaml:6"), "{}", said.stderr);
    assert_eq!(
        node.json(&["service", "list", "-o", "json"])
            .as_array()
            .map(Vec::len),
        Some(0),
        "nothing half done"
    );

    // Name in use.
    let _ = node
        .cli(&[
            "service",
            "create",
            "web",
            "--image",
            "test/busybox",
            "--",
            "sleep",
            "1000",
        ])
        .ok();
    let said = node
        .cli(&["service", "create", "web", "--image", "test/busybox"])
        .fails(EXISTS);
    assert!(said.contains("web"), "{said}");
    // Bad memory text.
    let said = node
        .cli(&[
            "service",
            "create",
            "m",
            "--image",
            "test/busybox",
            "--memory",
            "lots",
        ])
        .fails(USAGE);
    assert!(said.contains("lots") && said.contains("512m"), "{said}");
    // Secret missing.
    let said = node.cli(&[
        "service",
        "create",
        "s",
        "--image",
        "test/busybox",
        "--secret",
        "nope",
    ]);
    assert_ne!(said.code, 0);
    assert!(
        said.stderr.contains("nope") && said.stderr.contains("secret create"),
        "{}",
        said.stderr
    );
    // Nothing there.
    let _ = node.cli(&["service", "inspect", "ghost"]).fails(NOT_FOUND);
    // Image not present: refused in words, visible in ps.
    let said = node.cli(&[
        "service",
        "create",
        "noimage",
        "--image",
        "nobody/nothing:1",
        "--detach",
    ]);
    if said.code == 0 {
        eventually("ps says why it does not run", || {
            let ps = node.cli(&["service", "ps", "noimage"]).stdout;
            if ps.contains("nobody/nothing:1") && ps.contains("image import") {
                Ok(())
            } else {
                Err(ps)
            }
        });
        let _ = node.cli(&["service", "delete", "noimage"]).ok();
    } else {
        assert!(said.stderr.contains("image import"), "{}", said.stderr);
    }
    // Port taken by another service.
    let _ = node
        .cli(&[
            "service",
            "create",
            "p1",
            "--image",
            "test/busybox",
            "-p",
            "9100:80",
            "--publish-mode",
            "ingress",
            "--",
            "sleep",
            "1000",
        ])
        .ok();
    let said = node.cli(&[
        "service",
        "create",
        "p2",
        "--image",
        "test/busybox",
        "-p",
        "9100:80",
        "--publish-mode",
        "ingress",
    ]);
    assert_ne!(said.code, 0);
    assert!(
        said.stderr.contains("9100") && said.stderr.contains("p1"),
        "{}",
        said.stderr
    );
    node.reset();
}

#[test]
fn broken_archives_are_refused_whole() {
    if !is_root() {
        return skipped("broken_archives_are_refused_whole", "needs root");
    }
    let mut node = Node::running();
    let image = warren_testkit::images::busybox(node.directory());
    let whole = std::fs::read(&image).unwrap_or_else(|e| panic!("{image}: {e}"));
    let before = node.json(&["image", "list", "-o", "json"]);
    let cut = node.file("cut.tar", &whole[..whole.len() / 2]);
    let said = node.cli(&["image", "import", &cut]);
    assert_ne!(said.code, 0);
    assert!(!said.stderr.trim().is_empty());
    let evil = node.file(
        "evil.tar",
        &warren_testkit::images::archive_with_path("../../evil", b"x"),
    );
    let said = node.cli(&["image", "import", &evil]);
    assert_ne!(said.code, 0);
    assert!(said.stderr.contains("evil"), "{}", said.stderr);
    assert_eq!(
        node.json(&["image", "list", "-o", "json"]),
        before,
        "nothing half done"
    );
    node.reset();
}

#[test]
fn a_second_daemon_on_the_same_directory_is_refused() {
    if !is_root() {
        return skipped(
            "a_second_daemon_on_the_same_directory_is_refused",
            "needs root",
        );
    }
    let mut node = Node::running();
    let said = node.cli(&["node", "run"]);
    assert_ne!(said.code, 0);
    let pid = node.pid().unwrap_or_default().to_string();
    assert!(
        said.stderr.contains(&pid),
        "names the other daemon: {}",
        said.stderr
    );
    // The first one is unharmed.
    let _ = node.cli(&["node", "list"]).ok();
    node.reset();
}

#[test]
fn without_root_nothing_is_begun() {
    if !is_root() {
        return skipped(
            "without_root_nothing_is_begun",
            "needs root (to give it up)",
        );
    }
    // A copy where anybody can reach it: the build directory may be closed to others.
    let open = tempfile::tempdir().unwrap_or_else(|e| panic!("{e}"));
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(open.path(), mode).unwrap_or_else(|e| panic!("{e}"));
    let program = open.path().join("warren");
    std::fs::copy(warren_testkit::node::program(), &program).unwrap_or_else(|e| panic!("{e}"));
    let node = Node::new();
    let mut command = std::process::Command::new(&program);
    command
        .env("WARREN_DATA_DIR", node.data_dir())
        .env("WARREN_SOCKET", node.socket())
        .env("WARREN_RUN_DIR", node.run_dir());
    std::os::unix::process::CommandExt::uid(&mut command, 65534);
    std::os::unix::process::CommandExt::gid(&mut command, 65534);
    let out = command.arg("up").output().unwrap_or_else(|e| panic!("{e}"));
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!(out.status.code(), Some(DENIED), "{said}");
    assert!(said.contains("root") && said.contains("sudo"), "{said}");
    assert!(!node.data_dir().exists(), "half a node was made");
}

#[test]
fn a_port_that_a_host_process_has_is_named() {
    if !is_root() {
        return skipped("a_port_that_a_host_process_has_is_named", "needs root");
    }
    let mut node = Node::running();
    let taken = node
        .host()
        .run(|| std::net::TcpListener::bind(("0.0.0.0", 9200)));
    let taken = taken.unwrap_or_else(|e| panic!("{e}"));
    let said = node.cli(&[
        "service",
        "create",
        "web",
        "--image",
        "warren/hello",
        "-p",
        "9200:8080",
        "--detach",
    ]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    eventually("ps says who has the port", || {
        let ps = node.cli(&["service", "ps", "--all", "web"]).stdout;
        if ps.contains("9200") && ps.contains(&std::process::id().to_string()) {
            Ok(())
        } else {
            Err(ps)
        }
    });
    drop(taken);
    node.reset();
}

#[test]
fn a_full_disk_is_named_and_loses_nothing() {
    if !is_root() {
        return skipped("a_full_disk_is_named_and_loses_nothing", "needs root");
    }
    let outside = tempfile::tempdir().unwrap_or_else(|e| panic!("{e}"));
    let image = warren_testkit::images::busybox(outside.path());
    let mut node = Node::new();
    let directory = node.directory().to_path_buf();
    let flags = nix::mount::MsFlags::empty();
    let mounted = nix::mount::mount(
        Some("tmpfs"),
        &directory,
        Some("tmpfs"),
        flags,
        Some("size=512m"),
    );
    mounted.unwrap_or_else(|e| panic!("tmpfs: {e}"));
    node.start();
    let _ = node
        .cli(&["service", "create", "web", "--image", "warren/hello"])
        .ok();
    let filler = directory.join("filler");
    fill(&filler);
    let said = node.cli(&["image", "import", &image]);
    assert_ne!(said.code, 0);
    assert!(said.stderr.contains("full"), "{}", said.stderr);
    // What runs and what is known is untouched, and reading goes on.
    assert_eq!(
        node.json(&["container", "list", "-o", "json"])[0]["state"],
        "running"
    );
    std::fs::remove_file(&filler).unwrap_or_else(|e| panic!("{e}"));
    let _ = node.cli(&["image", "import", &image]).ok();
    let _ = node.cli(&["service", "delete", "web"]).ok();
    node.reset();
    nix::mount::umount2(&directory, nix::mount::MntFlags::MNT_DETACH)
        .unwrap_or_else(|e| panic!("umount: {e}"));
}

/// Writes until the disk takes no more.
fn fill(path: &std::path::Path) {
    use std::io::Write;
    let mut file = std::fs::File::create(path).unwrap_or_else(|e| panic!("{e}"));
    let mut piece = vec![0_u8; 1 << 20];
    while !piece.is_empty() {
        if file.write_all(&piece).is_err() {
            piece.truncate(piece.len() / 2);
        }
    }
}
