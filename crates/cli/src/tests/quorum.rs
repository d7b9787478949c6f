//! Commands about managers, tokens, keys and backups.

use super::fake::{Fake, at};
use super::fake_quorum::voter;
use super::{Ran, house, ok, run, run_with};
use crate::api::{StaleView, TokenView};
use crate::error::Exit;
use crate::golden;
use std::os::unix::fs::PermissionsExt;

/// A cluster of three managers.
fn three() -> Fake {
    let fake = house();
    fake.world().quorum.members = vec![
        voter("n1", "edge-1", true),
        voter("n3", "edge-3", false),
        voter("n4", "edge-4", false),
    ];
    fake
}

fn said(ran: &Ran, part: &str) {
    assert!(ran.err.contains(part), "{part}: {ran:?}");
}

#[tokio::test]
async fn golden_quorum() {
    let fake = three();
    {
        let mut world = fake.world();
        world.quorum.members[2].reachable = false;
        world.quorum.members[2].last_contact_ms = Some(61_000);
        world.quorum.warnings = vec!["edge-4 has not answered for 61s".into()];
        world.quorum.settings.snapshot_entries = 10_000;
        world.quorum.settings.snapshot_bytes = 64 << 20;
        world.quorum.settings.log_bytes_max = 1 << 30;
        world.quorum.settings.heartbeat_ms = 2000;
        world.quorum.settings.node_down_after_ms = 10_000;
        world.quorum.tokens = vec![
            TokenView {
                id: "tok1".into(),
                role: "worker".into(),
                state: "active".into(),
                uses_left: Some(2),
                created_at: at(60),
                expires_at: at(0),
            },
            TokenView {
                id: "tok0".into(),
                role: "manager".into(),
                state: "revoked".into(),
                uses_left: None,
                created_at: at(7200),
                expires_at: at(3600),
            },
        ];
    }
    let mut text = String::new();
    for line in [
        "cluster info",
        "cluster info -o wide",
        "cluster info -o json",
        "cluster health",
        "cluster health -o yaml",
        "cluster join-token worker",
        "cluster join-token manager --ttl 24h --max-uses 1 --rotate -o json",
        "cluster token list",
        "cluster token ls -o yaml",
        "cluster settings",
        "cluster settings set snapshot-entries=500 log-bytes-max=256m -o json",
        "cluster settings set raft-profile=wan",
        "cluster data-key rotate",
        "cluster auto-lock on",
        "cluster auto-lock rotate -o json",
        "cluster auto-lock off",
        "cluster transfer-leadership",
        "cluster hand-over edge-3",
    ] {
        let ran = run(&fake, line).await;
        text.push_str(&format!("$ warren {line}\n{}", ran.out));
        if !ran.err.is_empty() {
            text.push_str(&format!("[stderr]\n{}", ran.err));
        }
        if ran.exit != 0 {
            text.push_str(&format!("[exit {}]\n", ran.exit));
        }
        text.push('\n');
    }
    golden::check("quorum.txt", &text);
}

#[tokio::test]
async fn tokens_are_made_with_the_command_that_uses_them() {
    let fake = three();
    let ran = ok(&fake, "cluster join-token worker -q --ttl 90s").await;
    assert_eq!(ran.out, "WRN-1-abc-tok1-secret\n");
    let calls = fake.world().calls.join("\n");
    assert!(
        calls.contains(r#"role: "worker", ttl_seconds: 90, max_uses: 0, rotate: false"#),
        "{calls}"
    );
    // A manager that only its own machine can reach.
    fake.world().quorum.members = vec![voter("n1", "edge-1", true)];
    fake.world().quorum.members[0].address = "127.0.0.1:8080".into();
    let ran = ok(&fake, "cluster join-token manager").await;
    said(&ran, "which other machines cannot reach");
    let ran = run(&fake, "cluster token revoke a none").await;
    assert_eq!(ran.exit, Exit::NotFound as u8);
    said(&ran, "token a: revoked");
}

#[tokio::test]
async fn health_says_why_not() {
    let fake = three();
    fake.world().nodes[1].status = "ready".into();
    let ran = ok(&fake, "cluster health").await;
    assert_eq!(ran.out, "healthy\n");
    fake.world().nodes[1].status = "down".into();
    let ran = run(&fake, "cluster health").await;
    assert_eq!(
        (ran.exit, ran.out.contains("node edge-2 is down")),
        (1, true)
    );
    fake.world().quorum.lost = true;
    fake.world().quorum.stale = Some(StaleView { for_ms: Some(5000) });
    let ran = run(&fake, "cluster health").await;
    assert_eq!(ran.exit, 1);
    for part in [
        "manager edge-1 has had no quorum for 5s",
        "a write needs 2 of 3 voters",
        "cluster recover",
    ] {
        assert!(ran.out.contains(part), "{ran:?}");
    }
}

#[tokio::test]
async fn old_answers_are_marked() {
    let fake = three();
    fake.world().quorum.stale = Some(StaleView { for_ms: None });
    let ran = ok(&fake, "node list").await;
    said(
        &ran,
        "manager edge-1 has had no quorum since it was started",
    );
    assert_eq!(ran.err.matches("warning:").count(), 1);
    let ran = ok(&fake, "cluster info").await;
    assert!(ran.out.contains("edge-1 (stale"), "{ran:?}");
    assert_eq!(ran.err.matches("warning:").count(), 1, "{ran:?}");
    assert_eq!(
        ok(&fake, "cluster info -o json")
            .await
            .out
            .matches("\"stale\": {")
            .count(),
        1
    );
}

#[tokio::test]
async fn promote_waits_for_the_voice_and_demote_for_the_end() {
    let fake = three();
    let ran = ok(&fake, "node promote edge-2").await;
    for part in [
        "node edge-2: staging, not reached at 10.0.0.2:8080",
        "node edge-2: learner, lacks 70 log entries",
        "node edge-2: a manager now",
        "4 managers: 1 may fail without stopping writes, as with 3; an odd number is better",
    ] {
        said(&ran, part);
    }
    let ran = ok(&fake, "node demote edge-2").await;
    said(&ran, "node edge-2: a worker now; its containers stay");
    said(&ran, "3 managers: 1 may fail");
    let calls = fake.world().calls.join("\n");
    assert!(
        calls.contains("set_role n2 hybrid") && calls.contains("set_role n2 worker"),
        "{calls}"
    );
    fake.world().quorum.stuck = true;
    let ran = run(&fake, "node promote edge-2 --manager-only --timeout 300ms").await;
    assert_eq!(ran.exit, 1);
    said(&ran, "not done within 300ms: node edge-2: staging");
    said(&ran, "warren node demote edge-2");
    ok(&fake, "node demote edge-2 --detach").await;
    // Without an answer about the cluster the daemon itself says that it is a worker now.
    fake.world().nodes[0].role = "worker".into();
    fake.world().quorum.deaf = u32::MAX;
    said(
        &ok(&fake, "node demote edge-1").await,
        "edge-1: a worker now",
    );
}

#[tokio::test]
async fn a_removed_manager_is_told_apart() {
    let fake = three();
    let ran = ok(&fake, "node rm edge-1 --force").await;
    said(&ran, "it was a manager");
    said(&ran, "warren node reset");
    assert!(!ok(&fake, "node rm edge-2").await.err.contains("manager"));
}

#[tokio::test]
async fn a_node_leaves() {
    let fake = three();
    fake.world().quorum.members[0].leader = true;
    let ran = run(&fake, "node leave").await;
    assert_eq!(ran.exit, 2, "nobody answers the question: {ran:?}");
    let ran = ok(&fake, "node leave --yes").await;
    for part in [
        "edge-2 leads now",
        "edge-1: left the cluster",
        "daemon stopped",
        "warren node reset",
    ] {
        said(&ran, part);
    }
    let calls = fake.world().calls.join("\n");
    let order: Vec<usize> = [
        "Some(Drain)",
        "transfer None",
        "remove_node n1 true",
        "stop 10s",
    ]
    .iter()
    .map(|part| {
        calls
            .find(part)
            .unwrap_or_else(|| panic!("{part}: {calls}"))
    })
    .collect();
    assert!(order.is_sorted(), "{calls}");

    let alone = house();
    let ran = run(&alone, "node leave --yes").await;
    assert_eq!(ran.exit, 1);
    said(&ran, "is the only manager");

    let worker = three();
    worker.world().nodes[0].role = "worker".into();
    let ran = run(&worker, "node leave --yes").await;
    assert_eq!(ran.exit, 2);
    said(&ran, "warren node leave --manager HOST:PORT");
    ok(&worker, "node leave --yes --force --manager a:1").await;

    let removed = three();
    removed.world().quorum.removed = true;
    said(&ok(&removed, "node leave").await, "removed it already");
}

#[tokio::test]
async fn a_backup_is_whole_or_absent() {
    let fake = three();
    fake.world().quorum.backup = vec![Some(b"sealed "), Some(b"bytes")];
    let dir = tempfile::tempdir().unwrap();
    let words = dir.path().join("words");
    std::fs::write(&words, "open sesame\nanother line\n").unwrap();
    let file = dir.path().join("cluster.bak");
    let line = format!(
        "cluster backup --output {} --passphrase-file {}",
        file.display(),
        words.display()
    );
    ok(&fake, &line).await;
    assert_eq!(std::fs::read(&file).unwrap(), b"sealed bytes");
    let mode = std::fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(run(&fake, &line).await.exit, Exit::Exists as u8);
    fake.world().quorum.backup = vec![Some(b"new "), None];
    let ran = run(&fake, &format!("{line} --force")).await;
    assert_eq!(ran.exit, Exit::NoConnection as u8);
    assert_eq!(std::fs::read(&file).unwrap(), b"sealed bytes", "as before");
    fake.world().quorum.backup = vec![Some(b"new")];
    ok(&fake, &format!("{line} --force")).await;
    assert_eq!(std::fs::read(&file).unwrap(), b"new");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
    assert!(
        fake.world()
            .calls
            .contains(&"backup with open sesame".to_owned())
    );
    // No passphrase, an empty one, a backup that is not there.
    std::fs::write(&words, "\n").unwrap();
    assert_eq!(run(&fake, &format!("{line} --force")).await.exit, 2);
    let none = format!("cluster restore --input {}/none", dir.path().display());
    let ran = run(&fake, &none).await;
    assert_eq!(ran.exit, 2);
    said(&ran, "cannot open the backup");
}

#[tokio::test]
async fn recovery_explains_asks_and_waits() {
    let fake = three();
    fake.world().quorum.lost = true;
    let ran = run(&fake, "cluster recover").await;
    assert_eq!(ran.exit, 2);
    for part in ["revision 812, log entry 10419", "edge-3, edge-4", "--yes"] {
        said(&ran, part);
    }
    let ran = ok(&fake, "cluster recover --yes").await;
    for part in [
        "nobody leads",
        "edge-1: writes are possible again",
        "node remove NODE --force",
    ] {
        said(&ran, part);
    }
    let ran = run(&fake, "cluster recover --yes").await;
    assert_eq!(ran.exit, 1);
    said(&ran, "a quorum is there");
    ok(&fake, "cluster recover --yes --force").await;
}

#[tokio::test]
async fn locks() {
    let fake = three();
    said(&ok(&fake, "cluster unlock").await, "edge-1: not locked");
    ok(&fake, "cluster auto-lock on").await;
    let ran = run(&fake, "cluster auto-lock on").await;
    assert_eq!(ran.exit, 1);
    said(&ran, "auto-lock rotate");
    fake.world().quorum.locked = true;
    let ran = run_with(&fake, "wrong\n", "cluster unlock").await;
    assert_eq!(ran.exit, Exit::Denied as u8);
    let ran = run_with(&fake, "Unlock key: UNLOCK-xyz\n", "cluster unlock").await;
    assert_eq!(ran.exit, 0, "{ran:?}");
    said(&ran, "edge-1: unlocked and ready");
    assert_eq!(ran.out, "");
}

#[tokio::test]
async fn a_new_authority_is_waited_for() {
    let fake = three();
    let ran = ok(&fake, "cluster ca rotate").await;
    said(
        &ran,
        "2 nodes still have a certificate of the old authority",
    );
    said(&ran, "every node has a certificate of ef:01");
    let ran = run(&fake, "cluster settings set heartbeat=1s heartbeat=2s").await;
    assert_eq!(ran.exit, 2);
}

#[tokio::test]
async fn a_persons_certificate_is_written_whole_for_its_owner_alone() {
    let fake = three();
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("ann");
    let line = format!(
        "cluster admin-cert --role viewer --name ann --ttl 2h --output {}",
        place.display()
    );
    let ran = ok(&fake, &line).await;
    said(&ran, "ann as viewer");
    said(&ran, &format!("WARREN_CONTEXT_DIR={}", place.display()));
    for (name, text) in [("ca.crt", "CA"), ("node.crt", "CERT"), ("node.key", "KEY")] {
        let path = place.join(name);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    assert_eq!(std::fs::read_dir(&place).unwrap().count(), 3, "no drafts");
    let asked =
        "issue_certificate NewCertificate { role: Viewer, name: \"ann\", ttl_seconds: 7200 }";
    assert!(fake.world().calls.contains(&asked.to_owned()));
    // What is there stays, and nobody is asked.
    std::fs::write(place.join("node.key"), "older").unwrap();
    let calls = fake.world().calls.len();
    let ran = run(&fake, &line).await;
    assert_eq!(ran.exit, Exit::Exists as u8);
    assert_eq!(fake.world().calls.len(), calls);
    ok(&fake, &format!("{line} --force")).await;
    let key = std::fs::read_to_string(place.join("node.key")).unwrap();
    assert_eq!(key, "KEY");
    // Not a directory.
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let line = format!("cluster admin-cert --output {}", file.display());
    let ran = run(&fake, &line).await;
    assert_eq!(ran.exit, Exit::General as u8);
    said(&ran, "cannot write");
}
