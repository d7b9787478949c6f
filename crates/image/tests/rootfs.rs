//! Root file systems on real overlay mounts.

mod common;

use common::{TestStore, container, docker_archive, name, options, raw, raw_tar, root, xattr};
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use warren_image::{Digest, ImageBuilder, ImageError, ImageStore, RootfsMode, resolve_user};

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn names_in(dir: &Path) -> Vec<String> {
    let mut out: Vec<String> = fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    out.sort();
    out
}

/// Mounts of this process whose mount point lies in the store.
fn mounts_in(store: &TestStore) -> usize {
    let root = store.path("");
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    table
        .lines()
        .filter(|l| l.contains(root.to_str().unwrap().trim_end_matches('/')))
        .count()
}

#[test]
fn containers_share_layers_and_not_changes() {
    if !root() {
        return;
    }
    let store = TestStore::new();
    let mut image = ImageBuilder::new();
    image
        .add_file("/etc/motd", "hello", 0o644)
        .add_dir("/", 0o711)
        .owner("/", 5, 6);
    let digest = image.build_into(&store, &[name("hello")]).unwrap().digest;
    let (one, two) = (container(), container());
    let first = store.prepare(one, &digest, RootfsMode::Writable).unwrap();
    let second = store.prepare(two, &digest, RootfsMode::Writable).unwrap();
    let meta = fs::metadata(&first.path).unwrap();
    assert_eq!(
        (meta.mode() & 0o7777, meta.uid(), meta.gid()),
        (0o711, 5, 6),
        "the root directory is the image's"
    );
    fs::write(first.path.join("etc/motd"), "changed").unwrap();
    fs::write(first.path.join("new"), "x").unwrap();
    fs::remove_file(second.path.join("etc/motd")).unwrap();
    assert_eq!(read(&first.path.join("etc/motd")), "changed");
    assert_eq!(names_in(&second.path), ["etc"]);
    assert!(names_in(&second.path.join("etc")).is_empty());
    let third = store
        .prepare(container(), &digest, RootfsMode::ReadOnly)
        .unwrap();
    assert_eq!(read(&third.path.join("etc/motd")), "hello");
    let error = fs::write(third.path.join("x"), "").unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EROFS));
    assert_eq!(store.mounted().unwrap().len(), 3);
    store.release(one).unwrap();
    store.release(one).unwrap();
    store.release(two).unwrap();
    store.release(store.mounted().unwrap()[0]).unwrap();
    assert!(store.prepared().unwrap().is_empty());
    assert_eq!(
        (
            mounts_in(&store),
            names_in(&store.path("containers")).len(),
            names_in(&store.path("tmp")).len()
        ),
        (0, 0, 0)
    );
}

#[test]
fn a_mount_survives_the_daemon_and_changes_survive_the_mount() {
    if !root() {
        return;
    }
    let mut store = TestStore::new();
    let digest = ImageBuilder::new()
        .add_file("/a", "1", 0o644)
        .build_into(&store, &[name("hello")])
        .unwrap()
        .digest;
    let id = container();
    let before = store.prepare(id, &digest, RootfsMode::Writable).unwrap();
    fs::write(before.path.join("b"), "2").unwrap();
    let device = fs::metadata(&before.path).unwrap().dev();
    store.reopen();
    assert_eq!(store.mounted().unwrap(), [id]);
    let after = store.prepare(id, &digest, RootfsMode::Writable).unwrap();
    assert_eq!(
        (fs::metadata(&after.path).unwrap().dev(), mounts_in(&store)),
        (device, 1),
        "the same mount"
    );
    assert_eq!(read(&after.path.join("b")), "2");
    let error = store
        .prepare(id, &digest, RootfsMode::ReadOnly)
        .unwrap_err();
    assert!(matches!(error, ImageError::OtherMode { .. }), "{error}");
    let other = ImageBuilder::new()
        .add_file("/a", "2", 0o644)
        .build_into(&store, &[])
        .unwrap()
        .digest;
    let error = store.prepare(id, &other, RootfsMode::Writable).unwrap_err();
    assert!(matches!(error, ImageError::OtherImage { .. }), "{error}");
    // As after a reboot.
    nix::mount::umount(&after.path).unwrap();
    assert!(store.mounted().unwrap().is_empty());
    assert_eq!(store.prepared().unwrap()[0].container, id);
    let again = store.prepare(id, &digest, RootfsMode::Writable).unwrap();
    assert_eq!(
        (read(&again.path.join("a")), read(&again.path.join("b"))),
        ("1".into(), "2".into())
    );
}

#[test]
fn a_busy_root_is_released_all_the_same() {
    if !root() {
        return;
    }
    let store = TestStore::new();
    let digest = ImageBuilder::new()
        .add_file("/a", "1", 0o644)
        .build_into(&store, &[])
        .unwrap()
        .digest;
    let id = container();
    let rootfs = store.prepare(id, &digest, RootfsMode::Writable).unwrap();
    let open = fs::File::open(rootfs.path.join("a")).unwrap();
    store.release(id).unwrap();
    assert_eq!(mounts_in(&store), 0);
    drop(open);
    let error = store
        .prepare(id, &Digest::of(b"none"), RootfsMode::Writable)
        .unwrap_err();
    assert!(matches!(error, ImageError::NotFound { .. }), "{error}");
    assert!(store.prepared().unwrap().is_empty());
}

#[test]
fn interrupted_preparation_starts_over() {
    if !root() {
        return;
    }
    let store = TestStore::new();
    let digest = ImageBuilder::new()
        .add_file("/a", "1", 0o644)
        .build_into(&store, &[])
        .unwrap()
        .digest;
    let id = container();
    let dir = store.path(&format!("containers/{id}"));
    fs::create_dir_all(dir.join("upper/rubbish")).unwrap();
    fs::write(dir.join("meta.json"), "{\"ima").unwrap();
    assert_eq!(store.prepared().unwrap()[0].image, None);
    let rootfs = store.prepare(id, &digest, RootfsMode::Writable).unwrap();
    assert_eq!(names_in(&rootfs.path), ["a"]);
}

#[test]
fn deletions_and_opaque_directories_hide_what_is_below() {
    if !root() {
        return;
    }
    let mut image = ImageBuilder::new();
    image
        .add_file("/gone", "1", 0o644)
        .add_file("/dir/old", "1", 0o644)
        .add_file("/dir/sub/old", "1", 0o644);
    image
        .add_file("/whole/old", "1", 0o644)
        .add_file("/kept", "1", 0o644)
        .add_file("/becomes/file", "1", 0o644);
    image
        .new_layer()
        .remove("/gone")
        .remove("/never-there")
        .remove("/whole");
    image
        .make_opaque("/dir")
        .add_file("/dir/new", "2", 0o644)
        .remove("/becomes");
    image
        .new_layer()
        .add_file("/whole/new", "3", 0o644)
        .add_file("/gone", "back", 0o644);
    let store = TestStore::new();
    let mut bytes = Vec::new();
    image.write_oci_archive(&mut bytes, &[name("x")]).unwrap();
    let digest = store.import(bytes.as_slice(), &options()).unwrap()[0].digest;
    let rootfs = store
        .prepare(container(), &digest, RootfsMode::Writable)
        .unwrap();
    let path = |inside: &str| rootfs.path.join(inside);
    assert_eq!(names_in(&rootfs.path), ["dir", "gone", "kept", "whole"]);
    assert_eq!(read(&path("gone")), "back");
    assert_eq!(names_in(&path("dir")), ["new"]);
    assert_eq!(names_in(&path("whole")), ["new"]);
    // On disk they are what overlayfs understands, and nothing is marked that never was.
    let layer = &store.inspect("x").unwrap().layers[1];
    let chain = Digest::of(
        format!(
            "{} {}",
            store.inspect("x").unwrap().layers[0].diff_id,
            layer.diff_id
        )
        .as_bytes(),
    );
    let fs_dir = store.path(&format!("layers/{}/fs", chain.hex()));
    let mark = fs::symlink_metadata(fs_dir.join("gone")).unwrap();
    assert!(mark.file_type().is_char_device() && mark.rdev() == 0);
    assert_eq!(
        xattr(&fs_dir.join("dir"), "trusted.overlay.opaque").as_deref(),
        Some(b"y".as_slice())
    );
    assert_eq!(names_in(&fs_dir), ["becomes", "dir", "gone", "whole"]);
}

/// Marks speak of lower layers, wherever in the archive they stand.
#[test]
fn order_of_marks_and_entries_does_not_matter() {
    if !root() {
        return;
    }
    let base = raw_tar(&[raw("d/old", b'0', "", b"1"), raw("f", b'0', "", b"1")]);
    let entries = [
        raw("d/", b'5', "", b""),
        raw("d/new", b'0', "", b"2"),
        raw("f", b'0', "", b"2"),
    ];
    let marks = [raw(".wh.d", b'0', "", b""), raw(".wh.f", b'0', "", b"")];
    for (at, order) in [
        [&entries[..], &marks[..]].concat(),
        [&marks[..], &entries[..]].concat(),
    ]
    .iter()
    .enumerate()
    {
        let store = TestStore::new();
        let archive = docker_archive(&[base.clone(), raw_tar(order)], "x:1");
        let digest = store.import(archive.as_slice(), &options()).unwrap()[0].digest;
        let rootfs = store
            .prepare(container(), &digest, RootfsMode::Writable)
            .unwrap();
        assert_eq!(names_in(&rootfs.path.join("d")), ["new"], "order {at}");
        assert_eq!(read(&rootfs.path.join("f")), "2", "order {at}");
    }
}

#[test]
fn upper_layers_respect_what_lower_ones_set_up() {
    if !root() {
        return;
    }
    let mut image = ImageBuilder::new();
    image
        .add_dir("/tmp", 0o1777)
        .owner("/tmp", 1, 2)
        .add_dir("/usr/lib", 0o755)
        .add_symlink("/lib", "usr/lib");
    image
        .add_file("/bin/tool", "tool", 0o4755)
        .owner("/bin/tool", 3, 4)
        .xattr("/bin/tool", "user.k", b"v");
    let base = image.clone();
    // A layer that says nothing of directories: "tmp/x", "lib/so", "link".
    let mut bytes = Vec::new();
    base.write_docker_archive(&mut bytes, &[]).unwrap();
    let mut base_layer = Vec::new();
    for entry in tar::Archive::new(bytes.as_slice()).entries().unwrap() {
        let mut entry = entry.unwrap();
        if entry.path().unwrap().ends_with("layer.tar") {
            std::io::copy(&mut entry, &mut base_layer).unwrap();
        }
    }
    let top = raw_tar(&[
        raw("tmp/x", b'0', "", b"x"),
        raw("lib/so", b'0', "", b"so"),
        raw("link", b'1', "bin/tool", b""),
    ]);
    let store = TestStore::new();
    let digest = store
        .import(
            docker_archive(&[base_layer, top], "x").as_slice(),
            &options(),
        )
        .unwrap()[0]
        .digest;
    let rootfs = store
        .prepare(container(), &digest, RootfsMode::Writable)
        .unwrap();
    let meta = |inside: &str| fs::symlink_metadata(rootfs.path.join(inside)).unwrap();
    assert_eq!(
        (
            meta("tmp").mode() & 0o7777,
            meta("tmp").uid(),
            meta("tmp").gid()
        ),
        (0o1777, 1, 2)
    );
    assert!(
        meta("lib").is_symlink(),
        "the link of the lower layer is followed, not replaced"
    );
    assert_eq!(read(&rootfs.path.join("usr/lib/so")), "so");
    assert_eq!(
        (
            meta("link").mode() & 0o7777,
            meta("link").uid(),
            meta("link").ino()
        ),
        (0o4755, 3, meta("bin/tool").ino())
    );
    assert_eq!(
        (read(&rootfs.path.join("link")), meta("link").nlink()),
        ("tool".into(), 2)
    );
    assert_eq!(
        xattr(&rootfs.path.join("link"), "user.k").as_deref(),
        Some(b"v".as_slice())
    );
}

#[test]
fn more_layers_than_fit_in_the_mount_options() {
    if !root() {
        return;
    }
    let mut image = ImageBuilder::new();
    for n in 0..200 {
        image
            .add_file(&format!("/f{n}"), format!("{n}").as_str(), 0o644)
            .add_file("/last", format!("{n}").as_str(), 0o644);
        image.new_layer();
    }
    let store = TestStore::new();
    let digest = image.build_into(&store, &[]).unwrap().digest;
    for mode in [RootfsMode::Writable, RootfsMode::ReadOnly] {
        let rootfs = store.prepare(container(), &digest, mode).unwrap();
        assert_eq!(names_in(&rootfs.path).len(), 201);
        assert_eq!(read(&rootfs.path.join("last")), "199");
    }
    for _ in 0..60 {
        image.new_layer();
    }
    let error = image.build_into(&store, &[]).unwrap_err();
    assert!(matches!(error, ImageError::TooLarge { .. }), "{error}");
}

#[test]
fn odd_characters_in_the_data_directory() {
    if !root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let store = TestStore {
        store: Some(ImageStore::open(dir.path().join("a,b:c\\d e=f")).unwrap()),
        dir,
    };
    let digest = ImageBuilder::new()
        .add_file("/a", "1", 0o644)
        .build_into(&store, &[])
        .unwrap()
        .digest;
    let rootfs = store
        .prepare(container(), &digest, RootfsMode::Writable)
        .unwrap();
    assert_eq!(read(&rootfs.path.join("a")), "1");
}

#[test]
fn an_image_without_files_is_an_empty_root() {
    if !root() {
        return;
    }
    let store = TestStore::new();
    let digest = store
        .import(docker_archive(&[], "scratch:1").as_slice(), &options())
        .unwrap()[0]
        .digest;
    for mode in [RootfsMode::Writable, RootfsMode::ReadOnly] {
        let rootfs = store.prepare(container(), &digest, mode).unwrap();
        assert!(names_in(&rootfs.path).is_empty());
    }
}

#[test]
fn users_are_looked_up_in_the_root_file_system() {
    if !root() {
        return;
    }
    let store = TestStore::new();
    let mut image = ImageBuilder::new();
    image
        .add_file("/etc/passwd", "redis:x:999:998::/data:\n", 0o644)
        .add_file("/etc/group", "redis:x:998:\n", 0o644);
    let digest = image
        .user("redis")
        .build_into(&store, &[name("redis")])
        .unwrap()
        .digest;
    let rootfs = store
        .prepare(container(), &digest, RootfsMode::Writable)
        .unwrap();
    let user = resolve_user(&rootfs.path, &store.resolve("redis").unwrap().config.user).unwrap();
    assert_eq!(
        (user.uid, user.gid, user.home.as_str()),
        (999, 998, "/data")
    );
}

#[test]
fn many_containers_at_once() {
    if !root() {
        return;
    }
    let store = TestStore::new();
    let digest = ImageBuilder::new()
        .add_file("/a", "1", 0o644)
        .build_into(&store, &[])
        .unwrap()
        .digest;
    let ids: Vec<_> = (0..50).map(|_| container()).collect();
    let inner: &ImageStore = &store;
    let start = std::time::Instant::now();
    std::thread::scope(|scope| {
        for part in ids.chunks(10) {
            scope.spawn(move || {
                for id in part {
                    let rootfs = inner.prepare(*id, &digest, RootfsMode::Writable).unwrap();
                    assert_eq!(read(&rootfs.path.join("a")), "1");
                }
            });
        }
    });
    eprintln!("50 root file systems prepared in {:?}", start.elapsed());
    assert_eq!(store.mounted().unwrap().len(), 50);
    let start = std::time::Instant::now();
    for id in ids {
        store.release(id).unwrap();
    }
    eprintln!("50 root file systems released in {:?}", start.elapsed());
    assert_eq!(mounts_in(&store), 0);
}
