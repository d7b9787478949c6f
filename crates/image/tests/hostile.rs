//! Bad, cut, altered and hostile archives: a clear error, nothing half done, nothing outside the store.

mod common;

use common::{
    TestStore, container, docker_archive, name, options, raw, raw_tar, root, tree, xattr,
};
use proptest::prelude::*;
use std::fs;
use std::path::{Path, PathBuf};
use warren_image::{Compression, ErrorKind, ImageBuilder, ImageError, ImageStore, RootfsMode};

/// A store with a directory beside it that archives try to reach.
struct Arena {
    store: TestStore,
    victim: PathBuf,
}

impl Arena {
    fn new() -> Self {
        let store = TestStore::new();
        let victim = store.dir.path().join("victim");
        fs::create_dir(&victim).unwrap();
        fs::write(victim.join("file"), "precious").unwrap();
        Self { store, victim }
    }

    fn check(&self) {
        let outside = tree(&self.victim);
        assert_eq!(
            outside.len(),
            2,
            "something was written outside: {:?}",
            outside.keys()
        );
        assert_eq!(
            fs::read_to_string(self.victim.join("file")).unwrap(),
            "precious"
        );
        let beside = fs::read_dir(self.store.dir.path()).unwrap().count();
        assert_eq!(beside, 2, "something was written beside the store");
        assert_eq!(
            fs::read_dir(self.store.path("tmp")).unwrap().count(),
            0,
            "temporary files were left"
        );
    }

    fn check_unchanged(&self) {
        self.check();
        assert!(self.store.list().is_empty());
        for dir in ["blobs/sha256", "layers"] {
            assert_eq!(
                fs::read_dir(self.store.path(dir)).unwrap().count(),
                0,
                "{dir} is not empty"
            );
        }
    }
}

fn layer_root(store: &TestStore) -> PathBuf {
    fs::read_dir(store.path("layers"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path()
        .join("fs")
}

#[test]
fn unsafe_paths_of_the_archive_are_refused() {
    if !root() {
        return;
    }
    let arena = Arena::new();
    for path in [
        "/manifest.json",
        "../manifest.json",
        "a/../../x",
        "..",
        "a/..",
    ] {
        let error = arena
            .store
            .import(raw_tar(&[raw(path, b'0', "", b"x")]).as_slice(), &options())
            .unwrap_err();
        assert!(
            matches!(error, ImageError::UnsafePath { .. }),
            "{path}: {error}"
        );
        assert!(error.to_string().contains("test.tar"), "{error}");
        arena.check_unchanged();
    }
    let device = arena
        .store
        .import(raw_tar(&[raw("sda", b'4', "", b"")]).as_slice(), &options())
        .unwrap_err();
    assert!(matches!(device, ImageError::BadArchive { .. }), "{device}");
    arena.check_unchanged();
}

#[test]
fn unsafe_paths_of_layers_are_refused() {
    if !root() {
        return;
    }
    let arena = Arena::new();
    let cases = [
        vec![raw("/etc/passwd", b'0', "", b"x")],
        vec![raw("../../../victim/x", b'0', "", b"x")],
        vec![raw("ok", b'0', "", b"x"), raw("d/../../x", b'5', "", b"")],
        vec![raw("h", b'1', "../../../../victim/file", b"")],
        vec![raw("h", b'1', "/etc/passwd", b"")],
        vec![raw("./", b'2', "/etc", b"")],
    ];
    for entries in cases {
        let archive = docker_archive(&[raw_tar(&entries)], "x");
        let error = arena
            .store
            .import(archive.as_slice(), &options())
            .unwrap_err();
        assert_eq!(
            error.kind(),
            ErrorKind::InvalidInput,
            "{entries:?}: {error}"
        );
        arena.check_unchanged();
    }
    let base = raw_tar(&[raw("a", b'0', "", b"x")]);
    for mark in [".wh...", ".wh..", ".wh."] {
        let archive = docker_archive(&[base.clone(), raw_tar(&[raw(mark, b'0', "", b"")])], "x");
        let error = arena
            .store
            .import(archive.as_slice(), &options())
            .unwrap_err();
        assert!(
            matches!(error, ImageError::UnsafePath { .. }),
            "{mark}: {error}"
        );
        arena.check_unchanged();
    }
}

/// Links are followed as inside the container: what they name outside is never touched.
#[test]
fn links_lead_nowhere_but_into_the_layer() {
    if !root() {
        return;
    }
    let probe = Arena::new();
    let absolute = probe.victim.to_str().unwrap().to_owned();
    let target = format!("{absolute}/file");
    let up = format!("{}{}", "../".repeat(30), &absolute[1..]);
    let cases = [
        vec![
            raw("l", b'2', &absolute, b""),
            raw("l/file", b'0', "", b"evil"),
            raw("l/new", b'0', "", b"evil"),
        ],
        vec![
            raw("l", b'2', &up, b""),
            raw("l/file", b'0', "", b"evil"),
            raw("l/sub/", b'5', "", b""),
        ],
        vec![raw("l", b'2', &target, b""), raw("l", b'0', "", b"evil")],
        vec![
            raw("l", b'2', &target, b""),
            raw("h", b'1', "l", b""),
            raw("h", b'0', "", b"evil"),
        ],
        vec![
            raw("d/", b'5', "", b""),
            raw("d/x", b'0', "", b""),
            raw("d", b'2', &absolute, b""),
            raw("d/file", b'0', "", b"evil"),
        ],
        vec![
            raw("a", b'2', "b", b""),
            raw("b", b'2', &absolute, b""),
            raw("a/file", b'6', "", b""),
        ],
        vec![
            raw("l", b'2', &absolute, b""),
            raw("l/dev", b'3', "", b""),
            raw("l/link", b'2', "file", b""),
        ],
    ];
    for entries in cases {
        let archive = docker_archive(&[raw_tar(&entries)], "x");
        probe
            .store
            .import(archive.as_slice(), &options())
            .unwrap_or_else(|e| panic!("{entries:?}: {e}"));
        probe.check();
        // The same across two layers, where the link is in the lower one.
        let (first, rest) = entries.split_at(1);
        let archive = docker_archive(&[raw_tar(first), raw_tar(rest)], "x");
        probe
            .store
            .import(archive.as_slice(), &options())
            .unwrap_or_else(|e| panic!("{entries:?}: {e}"));
        probe.check();
    }
    let through = vec![
        raw("l", b'2', &absolute, b""),
        raw("h", b'1', "l/file", b""),
    ];
    let error = probe
        .store
        .import(
            docker_archive(&[raw_tar(&through)], "y").as_slice(),
            &options(),
        )
        .unwrap_err();
    assert!(matches!(error, ImageError::BadArchive { .. }), "{error}");
    let looping = vec![
        raw("a", b'2', "b", b""),
        raw("b", b'2', "a", b""),
        raw("a/x", b'0', "", b""),
    ];
    let error = probe
        .store
        .import(
            docker_archive(&[raw_tar(&looping)], "y").as_slice(),
            &options(),
        )
        .unwrap_err();
    assert!(error.to_string().contains("loop"), "{error}");
    probe.check();
}

#[test]
fn attributes_that_steer_the_overlay_are_left_out() {
    if !root() {
        return;
    }
    let arena = Arena::new();
    let mut image = ImageBuilder::new();
    image
        .add_dir("/d", 0o755)
        .xattr("/d", "trusted.overlay.redirect", b"/etc")
        .xattr("/d", "trusted.overlay.opaque", b"y");
    image
        .xattr("/d", "user.ok", b"1")
        .xattr("/d", "security.selinux", b"x");
    image.build_into(&arena.store, &[]).unwrap();
    let dir = layer_root(&arena.store).join("d");
    assert_eq!(xattr(&dir, "user.ok").as_deref(), Some(b"1".as_slice()));
    for key in [
        "trusted.overlay.redirect",
        "trusted.overlay.opaque",
        "security.selinux",
    ] {
        assert_eq!(xattr(&dir, key), None, "{key}");
    }
}

fn archives() -> Vec<Vec<u8>> {
    let mut image = ImageBuilder::new();
    image
        .add_file("/bin/a", "a".repeat(3000).as_str(), 0o755)
        .add_symlink("/bin/b", "a")
        .new_layer()
        .remove("/bin/b");
    let mut out = Vec::new();
    for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
        image.compression(compression);
        let (mut oci, mut docker) = (Vec::new(), Vec::new());
        image.write_oci_archive(&mut oci, &[name("x")]).unwrap();
        image
            .write_docker_archive(&mut docker, &[name("x")])
            .unwrap();
        out.extend([
            oci.clone(),
            docker,
            zstd::encode_all(oci.as_slice(), 1).unwrap(),
        ]);
    }
    out
}

#[test]
fn cut_archives_are_refused_at_every_length() {
    if !root() {
        return;
    }
    for bytes in archives() {
        let arena = Arena::new();
        // The last 1024 bytes of a plain tar only say that it ends.
        let plain = bytes.len() % 512 == 0;
        let end = if plain {
            bytes.len() - 1024
        } else {
            bytes.len()
        };
        for cut in (0..end).step_by(97).chain([end - 1]) {
            let error = arena.store.import(&bytes[..cut], &options()).unwrap_err();
            assert_eq!(
                error.kind(),
                ErrorKind::InvalidInput,
                "cut at {cut} of {}: {error}",
                bytes.len()
            );
            assert!(error.to_string().contains("test.tar"), "{error}");
            arena.check_unchanged();
        }
        arena.store.import(bytes.as_slice(), &options()).unwrap();
    }
}

#[test]
fn altered_content_is_found() {
    if !root() {
        return;
    }
    let arena = Arena::new();
    let mut oci = Vec::new();
    ImageBuilder::new()
        .add_file("/f", "precious content", 0o644)
        .write_oci_archive(&mut oci, &[name("x")])
        .unwrap();
    let at = oci.windows(8).position(|w| w == b"precious").unwrap();
    oci[at] = b'P';
    let error = arena.store.import(oci.as_slice(), &options()).unwrap_err();
    assert!(
        matches!(error, ImageError::DigestMismatch { .. }),
        "{error}"
    );
    assert!(
        error.to_string().contains("blobs/sha256/"),
        "the entry is named: {error}"
    );
    let mut docker = Vec::new();
    ImageBuilder::new()
        .add_file("/f", "precious content", 0o644)
        .write_docker_archive(&mut docker, &[name("x")])
        .unwrap();
    let at = docker.windows(8).position(|w| w == b"precious").unwrap();
    docker[at] = b'P';
    let error = arena
        .store
        .import(docker.as_slice(), &options())
        .unwrap_err();
    assert!(
        matches!(error, ImageError::DigestMismatch { .. }),
        "{error}"
    );
    arena.check_unchanged();
}

#[test]
fn not_an_archive_and_unknown_compression() {
    let arena = Arena::new();
    for bytes in [
        b"".as_slice(),
        b"hello",
        &[0; 4096],
        &[0xff; 4096],
        b"<html>not found</html>",
    ] {
        let error = arena.store.import(bytes, &options()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    }
    let xz = [&[0xfd, b'7', b'z', b'X', b'Z', 0][..], &[0; 100]].concat();
    assert!(matches!(
        arena.store.import(xz.as_slice(), &options()),
        Err(ImageError::Unsupported { .. })
    ));
    let other = raw_tar(&[raw("some/file", b'0', "", b"x")]);
    let error = arena
        .store
        .import(other.as_slice(), &options())
        .unwrap_err();
    assert!(error.to_string().contains("neither index.json"), "{error}");
    let missing = arena
        .store
        .import_path(Path::new("/no/such/file"), &options())
        .unwrap_err();
    assert!(missing.to_string().contains("/no/such/file"), "{missing}");
    arena.check_unchanged();
}

#[test]
fn documents_that_do_not_fit_together() {
    let arena = Arena::new();
    let docker = |manifest: &str, config: &str| {
        raw_tar(&[
            raw("manifest.json", b'0', "", manifest.as_bytes()),
            raw("c.json", b'0', "", config.as_bytes()),
        ])
    };
    let one = r#"[{"Config":"c.json","RepoTags":["x"],"Layers":["l.tar"]}]"#;
    for (manifest, config) in [
        ("", "{}"),
        ("{}", "{}"),
        ("[]", "{}"),
        (one, "{}"),
        (one, "[1]"),
        (one, r#"{"rootfs":{"diff_ids":["sha256:00"]}}"#),
        (r#"[{"Config":"../../etc/passwd","Layers":[]}]"#, "{}"),
        (r#"[{"Config":"/etc/passwd","Layers":[]}]"#, "{}"),
    ] {
        let error = arena
            .store
            .import(docker(manifest, config).as_slice(), &options())
            .unwrap_err();
        assert_eq!(
            error.kind(),
            ErrorKind::InvalidInput,
            "{manifest} {config}: {error}"
        );
    }
    arena.check_unchanged();
}

#[test]
fn size_limit_of_the_input_holds() {
    let arena = Arena::new();
    let mut limited = options();
    limited.max_bytes = 10_000;
    let big = raw_tar(&[raw("x", b'0', "", &[0; 20_000])]);
    let error = arena.store.import(big.as_slice(), &limited).unwrap_err();
    assert!(
        matches!(error, ImageError::TooLarge { limit: 10_000, .. }),
        "{error}"
    );
    arena.check_unchanged();
}

/// A small file system of its own, unmounted at the end.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn new(options: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        nix::mount::mount(
            Some("warren-test"),
            dir.path(),
            Some("tmpfs"),
            nix::mount::MsFlags::empty(),
            Some(options),
        )
        .unwrap();
        Self(dir)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        if let Err(error) = nix::mount::umount(self.0.path()) {
            eprintln!("cannot unmount {}: {error}", self.0.path().display());
        }
    }
}

#[test]
fn a_full_disk_is_named_and_leaves_nothing() {
    if !root() {
        return;
    }
    let noise: Vec<u8> = (0..1_500_000_u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let mut image = ImageBuilder::new();
    image.add_file("/big", noise, 0o644);
    let mut archive = Vec::new();
    image
        .write_oci_archive(&mut archive, &[name("big")])
        .unwrap();
    // Full while the archive comes in, and full while it is unpacked.
    for size in ["size=1m", "size=2m"] {
        let disk = SmallDisk::new(size);
        let store = ImageStore::open(disk.0.path().join("store")).unwrap();
        let small = ImageBuilder::new()
            .add_file("/s", "s", 0o644)
            .build_into(&store, &[name("small")])
            .unwrap()
            .digest;
        let used = tree(disk.0.path()).len();
        for error in [
            store.import(archive.as_slice(), &options()).unwrap_err(),
            image.build_into(&store, &[]).unwrap_err(),
        ] {
            assert!(
                matches!(error, ImageError::DiskFull { .. }),
                "{size}: {error}"
            );
            assert!(error.to_string().contains("warren image remove"), "{error}");
            assert_eq!(
                tree(disk.0.path()).len(),
                used,
                "{size}: something was left behind"
            );
        }
        assert_eq!(store.resolve("small").unwrap().digest, small);
        assert!(store.verify().unwrap().is_empty());
    }
}

#[test]
fn mounting_where_overlays_cannot_be_is_explained() {
    if !root() {
        return;
    }
    // An upper directory must not itself lie on an overlay: as in a container without a volume.
    let outer = TestStore::new();
    let digest = ImageBuilder::new()
        .add_dir("/d", 0o755)
        .build_into(&outer, &[])
        .unwrap()
        .digest;
    let rootfs = outer
        .prepare(container(), &digest, RootfsMode::Writable)
        .unwrap();
    let inner = ImageStore::open(rootfs.path.join("d/store")).unwrap();
    let digest = ImageBuilder::new()
        .add_file("/f", "f", 0o644)
        .build_into(&inner, &[])
        .unwrap()
        .digest;
    let error = inner
        .prepare(container(), &digest, RootfsMode::Writable)
        .unwrap_err();
    assert!(matches!(error, ImageError::Mount { .. }), "{error}");
    assert!(error.to_string().contains("ext4"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn mutated_archives_never_panic_nor_escape(
        which in 0_usize..9,
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in proptest::option::weighted(0.2, any::<prop::sample::Index>()),
    ) {
        if !root() {
            return Ok(());
        }
        let mut bytes = archives().swap_remove(which);
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        let arena = Arena::new();
        match arena.store.import(bytes.as_slice(), &options()) {
            Ok(_) => arena.check(),
            Err(_) => arena.check_unchanged(),
        }
        prop_assert!(arena.store.verify().unwrap().is_empty());
    }

    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..4000), magic in 0..3) {
        let arena = Arena::new();
        let start: &[u8] = [&[][..], &[0x1f, 0x8b, 8, 0], &[0x28, 0xb5, 0x2f, 0xfd]][magic as usize];
        prop_assert!(arena.store.import([start, &bytes].concat().as_slice(), &options()).is_err());
        arena.check_unchanged();
    }

    /// Random sequences of links, files, marks over few names, in two layers: always inside.
    #[test]
    fn random_layers_stay_inside(
        layers in proptest::collection::vec(proptest::collection::vec((
            "[abc](/[abc]){0,2}|\\.wh\\.[abc]|[abc]/\\.wh\\.([abc]|\\.wh\\.\\.opq)|\\./|[abc]/\\.\\./[abc]",
            prop::sample::select(b"00012222556".to_vec()),
            "[abc](/[abc]){0,2}|/|\\.\\.|\\.\\./\\.\\./[abc]|VICTIM|VICTIM/file|/[abc]",
        ), 0..14), 1..4)
    ) {
        if !root() {
            return Ok(());
        }
        let arena = Arena::new();
        let victim = arena.victim.to_str().unwrap().to_owned();
        let mut bytes = Vec::new();
        for layer in &layers {
            let links: Vec<String> = layer.iter().map(|(_, _, l)| l.replace("VICTIM", &victim)).collect();
            let entries: Vec<_> = layer.iter().zip(&links).map(|((n, k, _), l)| {
                let is_link = matches!(k, b'1' | b'2');
                raw(n, *k, if is_link { l } else { "" }, if *k == b'0' { b"data" } else { b"" })
            }).collect();
            bytes.push(raw_tar(&entries));
        }
        let result = arena.store.import(docker_archive(&bytes, "x").as_slice(), &options());
        arena.check();
        if let Ok(done) = result {
            let id = container();
            let rootfs = arena.store.prepare(id, &done[0].digest, RootfsMode::Writable).unwrap();
            // Walking the mounted result must find no entry that the kernel cannot show.
            let seen = tree(&rootfs.path);
            prop_assert!(seen.keys().all(|path| !path.starts_with(b".wh.")));
            arena.store.release(id).unwrap();
        }
        arena.check();
    }
}
