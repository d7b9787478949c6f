//! Import, look-up, removal and durability of the store.

mod common;

use common::{
    TestStore, Trickle, container, docker_archive, name, options, raw, raw_tar, root, set_xattr,
    tree,
};
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;
use std::sync::Arc;
use warren_image::{
    Compression, Digest, ImageBuilder, ImageError, ImageStore, Platform, RootfsMode,
};

fn small() -> ImageBuilder {
    let mut image = ImageBuilder::new();
    image
        .add_file("/bin/hello", "#!/bin/sh\necho hello\n", 0o755)
        .entrypoint(["/bin/hello"])
        .cmd(["world"])
        .env("A", "b")
        .working_dir("/srv")
        .user("1000:1000")
        .stop_signal("SIGQUIT")
        .expose("80/tcp")
        .volume("/data")
        .label("k", "v");
    image
}

/// Only the layer directory of an image with one layer.
fn only_layer(store: &TestStore) -> std::path::PathBuf {
    let mut dirs: Vec<_> = fs::read_dir(store.path("layers"))
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    assert_eq!(dirs.len(), 1);
    dirs.remove(0).join("fs")
}

fn count(store: &TestStore, dir: &str) -> usize {
    fs::read_dir(store.path(dir)).unwrap().count()
}

#[test]
fn every_packing_imports_and_looks_the_same() {
    if !root() {
        return;
    }
    let names = [name("warren/hello:1"), name("hello")];
    for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
        let mut image = small();
        image.compression(compression);
        let (mut oci, mut docker) = (Vec::new(), Vec::new());
        image.write_oci_archive(&mut oci, &names).unwrap();
        image.write_docker_archive(&mut docker, &names).unwrap();
        for plain in [oci, docker] {
            let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            gz.write_all(&plain).unwrap();
            for bytes in [
                plain.clone(),
                gz.finish().unwrap(),
                zstd::encode_all(plain.as_slice(), 1).unwrap(),
            ] {
                let store = TestStore::new();
                let done = store.import(Trickle(&bytes), &options()).unwrap();
                assert_eq!(done.len(), 1);
                assert_eq!(
                    done[0].digest,
                    image.digest().unwrap(),
                    "the same manifest whatever the packing"
                );
                let mut references = done[0].references.clone();
                references.sort();
                let mut wanted = names.to_vec();
                wanted.sort();
                assert_eq!(references, wanted);
                let info = store.inspect("docker.io/library/hello:latest").unwrap();
                assert_eq!(info, store.inspect("hello").unwrap());
                assert_eq!(info.config.entrypoint, ["/bin/hello"]);
                assert_eq!(info.config.cmd, ["world"]);
                assert_eq!(info.config.env, ["A=b"]);
                assert_eq!(info.config.user, "1000:1000");
                assert_eq!(info.config.stop_signal.as_deref(), Some("SIGQUIT"));
                assert_eq!(info.config.exposed_ports, ["80/tcp"]);
                assert_eq!(info.summary.platform, Platform::host());
                assert_eq!(
                    fs::read(only_layer(&store).join("bin/hello")).unwrap(),
                    b"#!/bin/sh\necho hello\n"
                );
                assert!(store.verify().unwrap().is_empty());
                assert!(store.import(bytes.as_slice(), &options()).unwrap()[0].already_present);
                assert_eq!(count(&store, "tmp"), 0);
            }
        }
    }
}

#[test]
fn what_was_acknowledged_is_there_after_reopening_and_rubbish_is_not() {
    if !root() {
        return;
    }
    let mut store = TestStore::new();
    let done = small().build_into(&store, &[name("hello")]).unwrap();
    fs::create_dir_all(store.path("tmp/t7/fs/half")).unwrap();
    fs::write(store.path("tmp/t8"), "half").unwrap();
    let stray = Digest::of(b"stray").hex();
    fs::write(store.path(&format!("blobs/sha256/{stray}")), "x").unwrap();
    fs::create_dir_all(store.path(&format!("layers/{stray}/fs"))).unwrap();
    fs::write(store.path("layers/readme"), "x").unwrap();
    store.reopen();
    assert_eq!(store.resolve("hello").unwrap().digest, done.digest);
    assert_eq!(
        (
            count(&store, "tmp"),
            count(&store, "blobs/sha256"),
            count(&store, "layers")
        ),
        (0, 3, 1)
    );
    assert!(store.verify().unwrap().is_empty());
}

#[test]
fn one_process_at_a_time() {
    let store = TestStore::new();
    let again = ImageStore::open(store.path(""));
    assert!(matches!(again, Err(ImageError::Locked { .. })), "{again:?}");
}

#[test]
fn missing_image_names_the_remedy() {
    let store = TestStore::new();
    let error = store.resolve("nginx").unwrap_err();
    assert!(matches!(error, ImageError::NotFound { .. }));
    assert!(
        error.to_string().contains("warren image import FILE"),
        "{error}"
    );
    assert!(matches!(
        store.resolve("not ok"),
        Err(ImageError::InvalidReference { .. })
    ));
}

#[test]
fn removal_respects_use_and_collects_what_is_left() {
    if !root() {
        return;
    }
    let store = TestStore::new();
    let digest = small()
        .build_into(&store, &[name("hello"), name("other:2")])
        .unwrap()
        .digest;
    let in_use = BTreeSet::from([digest]);
    let untagged = store.remove("other:2", &in_use).unwrap();
    assert_eq!(
        (untagged.deleted, untagged.untagged),
        (None, vec![name("other:2")])
    );
    assert!(matches!(
        store.remove("hello", &in_use),
        Err(ImageError::InUse { .. })
    ));
    assert!(matches!(
        store.remove(&digest.to_string(), &in_use),
        Err(ImageError::InUse { .. })
    ));
    let id = container();
    store.prepare(id, &digest, RootfsMode::Writable).unwrap();
    let error = store.remove("hello", &BTreeSet::new()).unwrap_err();
    assert!(error.to_string().contains(&id.to_string()), "{error}");
    store.release(id).unwrap();
    let removed = store.remove("hello", &BTreeSet::new()).unwrap();
    assert_eq!(removed.deleted, Some(digest));
    assert!(removed.freed.0 > 20);
    assert_eq!(
        (
            count(&store, "blobs/sha256"),
            count(&store, "layers"),
            count(&store, "tmp")
        ),
        (0, 0, 0)
    );
    assert!(store.list().is_empty());
    assert!(matches!(
        store.remove("hello", &in_use),
        Err(ImageError::NotFound { .. })
    ));
}

#[test]
fn shared_layers_are_stored_once_and_outlive_one_of_two_images() {
    if !root() {
        return;
    }
    let store = TestStore::new();
    let base = small();
    let mut top = base.clone();
    top.new_layer().add_file("/extra", "more", 0o644);
    base.build_into(&store, &[name("base")]).unwrap();
    top.build_into(&store, &[name("top")]).unwrap();
    assert_eq!(count(&store, "layers"), 2);
    store.remove("base", &BTreeSet::new()).unwrap();
    assert_eq!(count(&store, "layers"), 2);
    assert!(store.verify().unwrap().is_empty());
    store.remove("top", &BTreeSet::new()).unwrap();
    assert_eq!(count(&store, "layers"), 0);
}

#[test]
fn a_name_moves_and_the_old_image_stays_without_one() {
    if !root() {
        return;
    }
    let store = TestStore::new();
    let old = small().build_into(&store, &[name("hello")]).unwrap().digest;
    let new = small()
        .env("NEW", "1")
        .build_into(&store, &[name("hello")])
        .unwrap()
        .digest;
    assert_ne!(old, new);
    assert_eq!(store.resolve("hello").unwrap().digest, new);
    assert!(store.resolve(&old.to_string()).is_ok());
    let list = store.list();
    assert_eq!(
        (list.len(), list[1].references.len(), list[1].digest),
        (2, 0, old)
    );
}

#[test]
fn building_again_writes_nothing_and_is_quick() {
    if !root() {
        return;
    }
    let mut store = TestStore::new();
    let big: Vec<u8> = (0..25_000_000_u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let mut image = ImageBuilder::new();
    image
        .add_file("/warren", big, 0o755)
        .entrypoint(["/warren"]);
    let start = std::time::Instant::now();
    assert!(
        !image
            .build_into(&store, &[name("hello")])
            .unwrap()
            .already_present
    );
    let first = start.elapsed();
    let index = fs::metadata(store.path("index.json"))
        .unwrap()
        .modified()
        .unwrap();
    let start = std::time::Instant::now();
    assert!(
        image
            .build_into(&store, &[name("hello")])
            .unwrap()
            .already_present
    );
    // Figures for people; a test must not depend on how busy the machine is.
    eprintln!(
        "25 MB image: built in {first:?}, recognised in {:?}",
        start.elapsed()
    );
    assert_eq!(
        fs::metadata(store.path("index.json"))
            .unwrap()
            .modified()
            .unwrap(),
        index
    );
    store.reopen();
    assert!(
        image
            .build_into(&store, &[name("hello")])
            .unwrap()
            .already_present
    );
}

#[test]
fn platform_is_chosen_from_an_index() {
    if !root() {
        return;
    }
    let platform = |architecture: &str| Platform {
        os: "linux".into(),
        architecture: architecture.into(),
        variant: None,
    };
    let dir = tempfile::tempdir().unwrap();
    let blobs = dir.path().join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let put = |bytes: &[u8]| {
        let digest = Digest::of(bytes);
        fs::write(blobs.join(digest.hex()), bytes).unwrap();
        (digest, bytes.len())
    };
    let mut entries = Vec::new();
    let mut digests = Vec::new();
    for arch in ["amd64", "arm64"] {
        let mut image = small();
        image.platform(platform(arch));
        let mut bytes = Vec::new();
        image.write_oci_archive(&mut bytes, &[]).unwrap();
        tar::Archive::new(bytes.as_slice())
            .unpack(dir.path())
            .unwrap();
        let digest = image.digest().unwrap();
        let size = fs::metadata(blobs.join(digest.hex())).unwrap().len();
        entries.push(format!(
            r#"{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{digest}","size":{size},"platform":{{"os":"linux","architecture":"{arch}"}}}}"#
        ));
        digests.push(digest);
    }
    // An attestation, as buildx adds them, and a platform whose blobs are not in the archive.
    let (stray, size) = put(b"{}");
    entries.push(format!(r#"{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{stray}","size":{size},"platform":{{"os":"unknown","architecture":"unknown"}}}}"#));
    entries.push(format!(r#"{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{}","size":9,"platform":{{"os":"linux","architecture":"s390x"}}}}"#, Digest::of(b"absent")));
    let nested = format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{}]}}"#,
        entries.join(",")
    );
    let (nested, size) = put(nested.as_bytes());
    let index = format!(
        r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"application/vnd.oci.image.index.v1+json","digest":"{nested}","size":{size},"annotations":{{"org.opencontainers.image.ref.name":"example.com/app:1"}}}}]}}"#
    );
    fs::write(dir.path().join("index.json"), index).unwrap();
    for (arch, digest) in [("amd64", digests[0]), ("arm64", digests[1])] {
        let store = TestStore::new();
        let mut wanted = options();
        wanted.platform = platform(arch);
        let done = store.import_path(dir.path(), &wanted).unwrap();
        assert_eq!((done.len(), done[0].digest), (1, digest));
        assert_eq!(
            store
                .resolve("example.com/app:1")
                .unwrap()
                .platform
                .architecture,
            arch
        );
    }
    let store = TestStore::new();
    let mut wanted = options();
    wanted.platform = platform("riscv64");
    let error = store.import_path(dir.path(), &wanted).unwrap_err();
    assert!(matches!(error, ImageError::NoPlatform { .. }), "{error}");
    assert!(error.to_string().contains("linux/amd64"), "{error}");
    // Single-platform archives too.
    let mut arm = Vec::new();
    small()
        .platform(platform("arm64"))
        .write_docker_archive(&mut arm, &[])
        .unwrap();
    wanted.platform = platform("amd64");
    assert!(matches!(
        store.import(arm.as_slice(), &wanted),
        Err(ImageError::NoPlatform { .. })
    ));
    assert!(store.list().is_empty());
}

#[test]
fn a_given_name_replaces_those_of_the_archive() {
    if !root() {
        return;
    }
    let store = TestStore::new();
    let mut bytes = Vec::new();
    small()
        .write_docker_archive(&mut bytes, &[name("hello")])
        .unwrap();
    let mut renamed = options();
    renamed.name = Some(name("mine:7"));
    assert_eq!(
        store.import(bytes.as_slice(), &renamed).unwrap()[0].references,
        [name("mine:7")]
    );
    assert!(store.resolve("hello").is_err());
    let unnamed = docker_archive(&[raw_tar(&[raw("a", b'0', "", b"x")])], "Not A Name");
    let done = store.import(unnamed.as_slice(), &options()).unwrap();
    assert!(done[0].references.is_empty());
    assert!(store.resolve(&done[0].digest.short()).is_ok());
}

/// Old docker-save archives give each layer a directory, and links for those that are equal.
#[test]
fn links_between_layers_of_an_archive_are_followed() {
    if !root() {
        return;
    }
    let layer = raw_tar(&[raw("a", b'0', "", b"x")]);
    let diff = Digest::of(&layer);
    let config = format!(
        r#"{{"architecture":"{}","os":"linux","rootfs":{{"type":"layers","diff_ids":["{diff}","{diff}"]}}}}"#,
        Platform::host().architecture
    );
    let manifest =
        br#"[{"Config":"c.json","RepoTags":null,"Layers":["one/layer.tar","two/layer.tar"]}]"#;
    let archive = |target: &str| {
        raw_tar(&[
            raw("one/", b'5', "", b""),
            raw("one/layer.tar", b'0', "", &layer),
            raw("two/layer.tar", b'2', target, b""),
            raw("c.json", b'0', "", config.as_bytes()),
            raw("manifest.json", b'0', "", manifest),
        ])
    };
    let store = TestStore::new();
    let done = store
        .import(archive("../one/layer.tar").as_slice(), &options())
        .unwrap();
    assert_eq!(
        store
            .inspect(&done[0].digest.to_string())
            .unwrap()
            .layers
            .len(),
        2
    );
    for target in ["../../etc/passwd", "/etc/passwd"] {
        let error = store
            .import(archive(target).as_slice(), &options())
            .unwrap_err();
        assert!(matches!(error, ImageError::UnsafePath { .. }), "{error}");
    }
    let error = store
        .import(archive("../three/layer.tar").as_slice(), &options())
        .unwrap_err();
    assert!(matches!(error, ImageError::MissingEntry { .. }), "{error}");
}

#[test]
fn concurrent_imports_and_removals_leave_a_whole_store() {
    if !root() {
        return;
    }
    let test = TestStore::new();
    let mut archives = Vec::new();
    for n in 0..4 {
        let mut image = small();
        image
            .new_layer()
            .add_file("/n", format!("{}", n / 2).as_str(), 0o644)
            .env("N", &n.to_string());
        let mut bytes = Vec::new();
        image
            .write_oci_archive(&mut bytes, &[name(&format!("i{n}"))])
            .unwrap();
        archives.push(bytes);
    }
    let archives = Arc::new(archives);
    let store: &ImageStore = &test;
    std::thread::scope(|scope| {
        for n in 0..4 {
            let archives = Arc::clone(&archives);
            scope.spawn(move || {
                for _ in 0..10 {
                    let done = store.import(archives[n].as_slice(), &options()).unwrap();
                    assert_eq!(
                        store.resolve(&format!("i{n}")).unwrap().digest,
                        done[0].digest
                    );
                    store.remove(&format!("i{n}"), &BTreeSet::new()).unwrap();
                }
                store.import(archives[n].as_slice(), &options()).unwrap();
            });
        }
    });
    assert_eq!(store.list().len(), 4);
    assert!(store.verify().unwrap().is_empty());
    assert_eq!((count(&test, "layers"), count(&test, "tmp")), (3, 0));
}

#[test]
fn damage_is_found_and_lost_layers_come_back() {
    if !root() {
        return;
    }
    let store = TestStore::new();
    let digest = small().build_into(&store, &[name("hello")]).unwrap().digest;
    let info = store.inspect("hello").unwrap();
    fs::remove_dir_all(store.path("layers").join(info.layers[0].diff_id.hex())).unwrap();
    assert_eq!(store.verify().unwrap().len(), 1);
    let id = container();
    let rootfs = store.prepare(id, &digest, RootfsMode::Writable).unwrap();
    assert!(rootfs.path.join("bin/hello").exists());
    store.release(id).unwrap();
    let config = store.path("blobs/sha256").join(info.config_digest.hex());
    let mut bytes = fs::read(&config).unwrap();
    bytes[10] ^= 1;
    fs::write(&config, bytes).unwrap();
    assert!(matches!(
        store.resolve("hello"),
        Err(ImageError::Damaged { .. })
    ));
    assert_eq!(store.verify().unwrap().len(), 1);
    // Importing it again is the remedy the error names.
    let mut archive = Vec::new();
    small()
        .write_oci_archive(&mut archive, &[name("hello")])
        .unwrap();
    store.import(archive.as_slice(), &options()).unwrap();
    assert!(store.resolve("hello").is_ok());
}

/// What a random tree is made of.
#[derive(Debug, Clone)]
enum Item {
    Dir(u32),
    File(u32, Vec<u8>),
    Link(String),
    HardLink(usize),
    Fifo,
    Device(u8, u8),
}

/// Path, kind, owner, time, attribute.
type Thing = (Vec<u8>, Item, (u16, u16), i32, Option<Vec<u8>>);

fn items() -> impl Strategy<Value = Vec<Thing>> {
    let name = prop_oneof![
        "[a-e]{1,2}(/[a-e]{1,2}){0,3}",
        "[a-e]/x[^/\0]{1,120}",
        "d{90}/e{90}(/f{90})?"
    ]
    .prop_map(String::into_bytes);
    let item = prop_oneof![
        3 => (0_u32..0o7777).prop_map(Item::Dir),
        5 => (0_u32..0o7777, proptest::collection::vec(any::<u8>(), 0..2000)).prop_map(|(m, d)| Item::File(m, d)),
        2 => "(/|\\.\\./)?[a-e]{1,3}(/[a-e]{1,150})?".prop_map(Item::Link),
        2 => (0_usize..8).prop_map(Item::HardLink),
        1 => Just(Item::Fifo),
        1 => (1_u8..9, 0_u8..9).prop_map(|(a, b)| Item::Device(a, b)),
    ];
    let xattr = proptest::option::weighted(0.2, proptest::collection::vec(any::<u8>(), 0..300));
    proptest::collection::vec(
        (name, item, any::<(u16, u16)>(), any::<i32>(), xattr),
        0..25,
    )
}

/// Makes the tree; what does not fit (a file where a directory is needed) is left out.
fn make(root: &Path, items: &[Thing]) {
    use std::os::unix::ffi::OsStrExt;
    let mut made: Vec<std::path::PathBuf> = Vec::new();
    let mut dirs = Vec::new();
    for (name, item, (uid, gid), time, attribute) in items {
        let path = root.join(std::ffi::OsStr::from_bytes(name));
        // A component that is a link would lead the making itself astray.
        let through_link = path
            .ancestors()
            .skip(1)
            .take_while(|p| *p != root)
            .any(|p| p.is_symlink());
        if through_link
            || path.symlink_metadata().is_ok()
            || fs::create_dir_all(path.parent().unwrap()).is_err()
        {
            continue;
        }
        let mode = match item {
            Item::Dir(mode) => fs::create_dir(&path).map(|()| *mode),
            Item::File(mode, data) => fs::write(&path, data).map(|()| *mode),
            Item::Link(target) => symlink(target, &path).map(|()| 0),
            Item::HardLink(at) if !made.is_empty() => {
                let _ = fs::hard_link(&made[at % made.len()], &path);
                continue;
            }
            Item::HardLink(_) => continue,
            Item::Fifo => nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRUSR)
                .map(|()| 0o640)
                .map_err(Into::into),
            Item::Device(major, minor) => {
                let device = nix::sys::stat::makedev(u64::from(*major), u64::from(*minor));
                nix::sys::stat::mknod(
                    &path,
                    nix::sys::stat::SFlag::S_IFCHR,
                    nix::sys::stat::Mode::empty(),
                    device,
                )
                .map(|()| 0o600)
                .map_err(Into::into)
            }
        }
        .unwrap();
        std::os::unix::fs::lchown(&path, Some(u32::from(*uid)), Some(u32::from(*gid))).unwrap();
        if !path.is_symlink() {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            if let (Some(value), Item::Dir(_) | Item::File(..)) = (attribute, item) {
                set_xattr(&path, "user.test", value);
            }
        }
        match item {
            Item::Dir(_) => {}
            _ => made.push(path.clone()),
        }
        dirs.push((path, *time));
    }
    // Inner ones first: making something in a directory changes its time.
    dirs.sort_by(|a, b| b.0.cmp(&a.0));
    for (path, time) in dirs {
        let time = nix::sys::time::TimeSpec::new(i64::from(time), 123_456_789);
        nix::sys::stat::utimensat(
            nix::fcntl::AT_FDCWD,
            &path,
            &time,
            &time,
            nix::sys::stat::UtimensatFlags::NoFollowSymlink,
        )
        .unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 30, ..ProptestConfig::default() })]

    /// Pack, import, unpack gives the original tree, byte for byte and bit for bit.
    #[test]
    fn trees_come_back_as_they_were(items in items(), docker in any::<bool>(), compression in 0_usize..3) {
        if !root() {
            return Ok(());
        }
        let source = tempfile::tempdir().unwrap();
        make(source.path(), &items);
        chown(source.path(), Some(3), Some(4)).unwrap();
        let mut image = ImageBuilder::new();
        image.compression([Compression::None, Compression::Gzip, Compression::Zstd][compression]).keep_times(true);
        image.add_tree(source.path(), "/").unwrap();
        let mut bytes = Vec::new();
        if docker {
            image.write_docker_archive(&mut bytes, &[]).unwrap();
        } else {
            image.write_oci_archive(&mut bytes, &[]).unwrap();
        }
        let store = TestStore::new();
        store.import(bytes.as_slice(), &options()).unwrap();
        let (wanted, found) = (tree(source.path()), tree(&only_layer(&store)));
        prop_assert_eq!(&found, &wanted);
        // And once more from there: the digest depends on nothing else.
        let mut again = ImageBuilder::new();
        again.compression([Compression::None, Compression::Gzip, Compression::Zstd][compression]).keep_times(true);
        again.add_tree(&only_layer(&store), "/").unwrap();
        prop_assert_eq!(again.digest().unwrap(), image.digest().unwrap());
    }
}
