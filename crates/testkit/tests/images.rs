//! The images of the test kit are whole: their programs start with nothing of this machine around them.

use std::path::Path;
use std::process::Command;
use warren_image::{ErrorKind, ImageStore, ImportOptions, RootfsMode};
use warren_testkit::{images, is_root, skipped};
use warren_types::ContainerId;

/// Imports the archive and runs a command inside; its output.
fn inside(archive: &str, store: &Path, command: &[&str]) -> String {
    let store = ImageStore::open(store).unwrap_or_else(|e| panic!("store: {e}"));
    let image = store.import_path(Path::new(archive), &ImportOptions::new(archive));
    let image = image.unwrap_or_else(|e| panic!("{archive}: {e}"));
    let container = ContainerId::from_u128(1);
    let root = store.prepare(container, &image[0].digest, RootfsMode::Writable);
    let root = root.unwrap_or_else(|e| panic!("{archive}: {e}"));
    let mut chroot = Command::new("chroot");
    chroot
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .arg(&root.path)
        .args(command);
    let out = chroot.output();
    store
        .release(container)
        .unwrap_or_else(|e| panic!("release: {e}"));
    let out = out.unwrap_or_else(|e| panic!("chroot: {e}"));
    let text =
        String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{command:?}: {text}");
    text
}

#[test]
fn programs_start_inside_their_images() {
    if !is_root() {
        return skipped("programs_start_inside_their_images", "needs root");
    }
    let dir = tempfile::tempdir().unwrap_or_else(|e| panic!("temporary directory: {e}"));
    let store = dir.path().join("store");
    let said = inside(
        &images::busybox(dir.path()),
        &store,
        &["/bin/sh", "-c", "id -un; ls -d /tmp"],
    );
    assert_eq!(said, "root\n/tmp\n");
    // The version only: a check of the configuration would open /dev/stdout, which a bare chroot lacks.
    let said = inside(
        &images::nginx(dir.path()),
        &store,
        &["/usr/sbin/nginx", "-v"],
    );
    assert!(said.contains("nginx/"), "{said}");
    let said = inside(
        &images::redis(dir.path()),
        &store,
        &["/usr/bin/redis-server", "--version"],
    );
    assert!(said.contains("Redis server"), "{said}");
    let said = inside(
        &images::udp_echo(dir.path()),
        &store,
        &["/usr/bin/perl", "-v"],
    );
    assert!(said.contains("This is perl"), "{said}");
}

#[test]
fn the_hostile_archive_is_a_tar_archive_and_is_refused() {
    let dir = tempfile::tempdir().unwrap_or_else(|e| panic!("temporary directory: {e}"));
    let archive = images::archive_with_path("../../evil", b"x");
    let listed = dir.path().join("evil.tar");
    std::fs::write(&listed, &archive).unwrap_or_else(|e| panic!("{e}"));
    let out = Command::new("tar")
        .arg("-tPf")
        .arg(&listed)
        .output()
        .unwrap_or_else(|e| panic!("tar: {e}"));
    assert_eq!(
        String::from_utf8_lossy(&out.stdout),
        "../../evil\n",
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
    let store = ImageStore::open(dir.path().join("store")).unwrap_or_else(|e| panic!("store: {e}"));
    let refused = store.import(&archive[..], &ImportOptions::new("evil.tar"));
    let said = match refused {
        Err(e) => (e.kind(), e.to_string()),
        Ok(images) => panic!("accepted: {images:?}"),
    };
    assert!(
        said.0 == ErrorKind::InvalidInput && said.1.contains("evil"),
        "{said:?}"
    );
}
