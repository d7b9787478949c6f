//! Certificates of people and of managers: made, replaced, over.

use std::sync::Arc;
use std::time::Duration;
use warren_manager::{edge, expired, init};
use warren_storage::{Disk, Keyring, RealDisk};
use warren_testkit::{CliOutput, Managers, Node, eventually_within, is_root, skipped};
use warren_types::Timestamp;

/// How long a change of certificates may take.
const CHANGE_LIMIT: Duration = Duration::from_secs(60);
/// A certificate that was made so long ago is over: 100 days in milliseconds.
const LONG_AGO_MS: u64 = 100 * 86_400_000;

/// Has a certificate made on the leader; returns its directory.
fn certificate(managers: &Managers, role: &str) -> String {
    let node = managers.node(managers.leader());
    let place = node.directory().join(format!("cert-{role}"));
    let place = place.display().to_string();
    let words = [
        "cluster",
        "admin-cert",
        "--role",
        role,
        "--name",
        "ann",
        "--output",
        &place,
        "--ttl",
        "1h",
    ];
    let _ = node.cli(&words).ok();
    place
}

/// Asks over TLS, with the certificate in this directory.
fn remote(node: &Node, address: &str, place: &str, words: &[&str]) -> CliOutput {
    let words = [&["--manager", address][..], words].concat();
    node.cli_with_environment(&words, &[("WARREN_CONTEXT_DIR", place)])
}

#[test]
fn people_get_certificates_also_after_a_rotation_and_only_from_administrators() {
    if !is_root() {
        return skipped(
            "people_get_certificates_also_after_a_rotation_and_only_from_administrators",
            "needs root",
        );
    }
    let mut managers = Managers::start(1);
    let old = managers.admin_dir().display().to_string();
    let at = managers.address(0);
    let ask = |place: &str, words: &[&str]| remote(managers.node(0), &at, place, words);
    let another = managers.node(0).directory().join("another");
    let another = another.display().to_string();
    let more = ["cluster", "admin-cert", "--output", &another];
    let write = |name| ["secret", "create", name, "--from-literal", "x"];

    let viewer = certificate(&managers, "viewer");
    let _ = ask(&viewer, &["service", "list"]).ok();
    let _ = ask(&viewer, &write("by-viewer")).fails(6);
    let _ = ask(&viewer, &more).fails(6);
    let operator = certificate(&managers, "operator");
    let _ = ask(&operator, &write("by-operator")).ok();
    let _ = ask(&operator, &more).fails(6);

    let _ = managers.node(0).cli(&["cluster", "ca", "rotate"]).ok();
    eventually_within(CHANGE_LIMIT, "the old one is refused", || {
        let asked = ask(&old, &["service", "list"]);
        (asked.code != 0).then_some(()).ok_or(asked.stdout)
    });
    let admin = certificate(&managers, "admin");
    let roots = std::fs::read_to_string(format!("{admin}/ca.crt")).unwrap();
    assert_eq!(roots.matches("BEGIN").count(), 1, "the new root alone");
    let _ = ask(&admin, &["cluster", "info"]).ok();
    // From there to the next one, without the local socket.
    let _ = ask(&admin, &more).ok();
    let _ = ask(&another, &write("by-admin")).ok();
    managers.reset();
}

#[test]
fn auto_lock_leaves_no_administrators_key_in_the_clear() {
    if !is_root() {
        return skipped(
            "auto_lock_leaves_no_administrators_key_in_the_clear",
            "needs root",
        );
    }
    let mut managers = Managers::start(1);
    let key = managers.node(0).data_dir().join("admin/node.key");
    let before = std::fs::read_to_string(&key).unwrap();
    let _ = managers.node(0).cli(&["cluster", "auto-lock", "on"]).ok();
    eventually_within(CHANGE_LIMIT, "the key goes", || {
        (!key.exists())
            .then_some(())
            .ok_or("it is there")
            .map_err(str::to_owned)
    });
    let _ = managers.node(0).cli(&["cluster", "auto-lock", "off"]).ok();
    eventually_within(CHANGE_LIMIT, "the key comes back", || {
        let now = std::fs::read_to_string(&key).map_err(|e| e.to_string())?;
        (now == before).then_some(()).ok_or(now)
    });
    managers.reset();
}

/// Gives a stopped manager a certificate that is over, as after a long time without power.
fn let_expire(node: &Node) {
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::open(node.data_dir()).unwrap());
    let mut keyring = Keyring::open(Arc::clone(&disk), "node/keyring").unwrap();
    let identity = init::load(&keyring).unwrap();
    let then = Timestamp(edge::now().0 - LONG_AGO_MS);
    let old = expired::sign_own(&disk, &identity, then).unwrap();
    init::store_renewed(&mut keyring, identity.node_key(), &old).unwrap();
}

#[test]
fn managers_whose_certificates_are_all_over_come_back_by_themselves() {
    if !is_root() {
        return skipped(
            "managers_whose_certificates_are_all_over_come_back_by_themselves",
            "needs root",
        );
    }
    let mut managers = Managers::start(3);
    let words = ["secret", "create", "kept", "--from-literal", "x"];
    let _ = managers.node(managers.leader()).cli(&words).ok();
    for number in managers.members() {
        managers.stop(number);
    }
    for number in managers.members() {
        let_expire(managers.node(number));
    }
    for number in managers.members() {
        managers.restart(number);
    }
    managers.wait_quorum();
    let leader = managers.node(managers.leader());
    assert!(leader.log_tail().contains("signed the next one itself"));
    let list = leader.json(&["secret", "list", "-o", "json"]);
    assert_eq!(list[0]["name"], "kept");
    let words = ["secret", "create", "after", "--from-literal", "x"];
    let _ = leader.cli(&words).ok();
    managers.reset();
}
