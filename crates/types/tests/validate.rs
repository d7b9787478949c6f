//! Validation: each limit at its value and one above, each grammar, and no panic on anything.

use proptest::prelude::*;
use std::collections::BTreeMap;
use warren_types::limits::*;
use warren_types::validate::{
    is_capability, is_dns_label, is_host_name, is_image_reference, validate_labels, validate_name,
};
use warren_types::*;

fn good() -> ServiceSpec {
    let mut spec = ServiceSpec {
        name: "web".to_owned(),
        ..ServiceSpec::default()
    };
    spec.container.image = "nginx:1.27".to_owned();
    spec
}

/// Fields that `change` makes wrong in a good spec.
fn wrong(change: impl FnOnce(&mut ServiceSpec)) -> Vec<String> {
    let mut spec = good();
    change(&mut spec);
    match spec.validate() {
        Ok(()) => Vec::new(),
        Err(error) => {
            for one in &error.errors {
                assert!(!one.problem.is_empty() && !one.remedy.is_empty(), "{one}");
            }
            error.errors.into_iter().map(|e| e.field).collect()
        }
    }
}

type Change = fn(&mut ServiceSpec, usize);

/// Field, limit, and how a spec with n of it is made.
const SIZES: &[(&str, usize, Change)] = &[
    ("name", NAME_CHARS_MAX, |s, n| s.name = "a".repeat(n)),
    ("container.image", IMAGE_REF_CHARS_MAX, |s, n| {
        s.container.image = "a".repeat(n)
    }),
    ("labels", LABELS_MAX, |s, n| s.labels = labels(n)),
    ("container.labels", LABELS_MAX, |s, n| {
        s.container.labels = labels(n)
    }),
    ("labels[\"k\"]", LABEL_VALUE_BYTES_MAX, |s, n| {
        s.labels = BTreeMap::from([("k".to_owned(), "v".repeat(n))]);
    }),
    ("container.env", ENV_VARS_MAX, |s, n| {
        s.container.env = (0..n).map(|i| env(&format!("E{i}"), "")).collect();
    }),
    ("container.env[0]", ENV_VAR_BYTES_MAX, |s, n| {
        s.container.env = vec![env("A", &"v".repeat(n - 1))];
    }),
    ("container.env", ENV_TOTAL_BYTES_MAX, |s, n| {
        let each = ENV_VAR_BYTES_MAX;
        s.container.env = (0..n / each)
            .map(|_| env("A", &"v".repeat(each - 1)))
            .collect();
        s.container
            .env
            .extend((n % each > 0).then(|| env(&"B".repeat(n % each), "")));
    }),
    ("container.command", ARGS_MAX, |s, n| {
        s.container.command = vec!["a".to_owned(); n]
    }),
    ("container.args", ARGS_MAX, |s, n| {
        s.container.args = vec![String::new(); n]
    }),
    ("container.args[0]", ARG_BYTES_MAX, |s, n| {
        s.container.args = vec!["a".repeat(n)]
    }),
    ("container.args", ARGS_TOTAL_BYTES_MAX, |s, n| {
        s.container.args = vec!["a".repeat(ARG_BYTES_MAX); n / ARG_BYTES_MAX];
        s.container.args.push("a".repeat(n % ARG_BYTES_MAX));
    }),
    ("container.mounts", MOUNTS_MAX, |s, n| {
        s.container.mounts = (0..n).map(|i| tmpfs(&format!("/m{i}"))).collect();
    }),
    ("container.mounts[0].target", PATH_BYTES_MAX, |s, n| {
        s.container.mounts = vec![tmpfs(&format!("/{}", "a".repeat(n - 1)))];
    }),
    ("container.secrets", FILE_REFS_MAX, |s, n| {
        s.container.secrets = refs(n)
    }),
    ("container.configs", FILE_REFS_MAX, |s, n| {
        s.container.configs = refs(n)
    }),
    ("container.user", USER_CHARS_MAX, |s, n| {
        s.container.user = Some("u".repeat(n))
    }),
    ("ports", PORTS_MAX, |s, n| {
        s.ports = (0..n)
            .map(|i| port(1000 + u16::try_from(i).unwrap()))
            .collect();
    }),
    ("networks", NETWORKS_PER_SERVICE_MAX, |s, n| {
        s.networks = (0..n).map(|i| format!("n{i}")).collect();
    }),
    ("placement.constraints", CONSTRAINTS_MAX, |s, n| {
        s.placement.constraints = vec!["node.role == worker".to_owned(); n];
    }),
    ("placement.spread", LABEL_KEY_CHARS_MAX, |s, n| {
        s.placement.spread = Some("z".repeat(n));
    }),
    ("update.canarySteps", CANARY_STEPS_MAX, |s, n| {
        s.update.canary_steps = (1..=u32::try_from(n).unwrap()).collect();
    }),
    ("mode.replicated.replicas", REPLICAS_MAX as usize, |s, n| {
        s.mode = Mode::Replicated {
            replicas: u32::try_from(n).unwrap(),
        };
    }),
    ("update.parallelism", REPLICAS_MAX as usize, |s, n| {
        s.update.parallelism = u32::try_from(n).unwrap();
    }),
    ("update.failureThresholdPercent", 100, |s, n| {
        s.update.failure_threshold_percent = u32::try_from(n).unwrap();
    }),
    ("update.delay", SPAN_MS_MAX as usize, |s, n| {
        s.update.delay = Duration(n as u64)
    }),
    ("container.stopGrace", STOP_GRACE_MS_MAX as usize, |s, n| {
        s.container.stop_grace = Some(Duration(n as u64));
    }),
    (
        "container.resources.memoryLimit",
        MEMORY_LIMIT_BYTES_MAX as usize,
        |s, n| {
            s.container.resources.memory_limit = Some(Bytes(n as u64));
        },
    ),
    (
        "container.resources.cpuLimit",
        CPU_MILLI_MAX as usize,
        |s, n| {
            s.container.resources.cpu_limit = Some(MilliCpu(u32::try_from(n).unwrap()));
        },
    ),
    (
        "container.resources.pidsLimit",
        PIDS_LIMIT_MAX as usize,
        |s, n| {
            s.container.resources.pids_limit = Some(u32::try_from(n).unwrap());
        },
    ),
    (
        "container.health.liveness.retries",
        HEALTH_RETRIES_MAX as usize,
        |s, n| {
            s.container.health.liveness = Some(check(u32::try_from(n).unwrap(), 0));
        },
    ),
    (
        "container.health.liveness.probe.headers",
        HEALTH_HEADERS_MAX,
        |s, n| {
            s.container.health.liveness = Some(check(3, n));
        },
    ),
];

fn labels(n: usize) -> BTreeMap<String, String> {
    (0..n).map(|i| (format!("k{i}"), String::new())).collect()
}
fn env(name: &str, value: &str) -> EnvVar {
    EnvVar {
        name: name.to_owned(),
        value: value.to_owned(),
    }
}
fn tmpfs(target: &str) -> Mount {
    Mount::Tmpfs {
        target: target.to_owned(),
        size: None,
    }
}
fn refs(n: usize) -> Vec<FileRef> {
    let one = |i| FileRef {
        source: format!("s{i}"),
        ..FileRef::default()
    };
    (0..n).map(one).collect()
}
fn port(host_port: u16) -> PortMapping {
    PortMapping {
        container_port: 80,
        host_port,
        ..PortMapping::default()
    }
}
fn check(retries: u32, headers: usize) -> HealthCheck {
    HealthCheck {
        probe: HealthProbe::Http {
            path: "/".to_owned(),
            port: 80,
            https: false,
            headers: vec![("x".to_owned(), "y".to_owned()); headers],
            status_min: 200,
            status_max: 399,
        },
        interval: Duration(1000),
        timeout: Duration(1000),
        retries,
        start_period: Duration(0),
    }
}

#[test]
fn every_size_is_allowed_at_its_limit_and_refused_above() {
    for (field, max, change) in SIZES {
        assert_eq!(
            wrong(|s| change(s, *max)),
            Vec::<String>::new(),
            "{field} at {max}"
        );
        let above = wrong(|s| change(s, max + 1));
        assert!(
            above.iter().any(|f| f == field),
            "{field} at {}: {above:?}",
            max + 1
        );
    }
}

#[test]
fn lower_bounds() {
    let least = Bytes(MEMORY_LIMIT_BYTES_MIN);
    assert!(wrong(|s| s.container.resources.memory_limit = Some(least)).is_empty());
    let below = Bytes(MEMORY_LIMIT_BYTES_MIN - 1);
    let found = wrong(|s| s.container.resources.memory_limit = Some(below));
    assert_eq!(found, ["container.resources.memoryLimit"]);
    assert_eq!(wrong(|s| s.update.parallelism = 0), ["update.parallelism"]);
    assert!(wrong(|s| s.mode = Mode::Replicated { replicas: 0 }).is_empty());
    let mut none = check(3, 0);
    none.interval = Duration(0);
    let found = wrong(|s| s.container.health.startup = Some(none));
    assert_eq!(found, ["container.health.startup.interval"]);
}

#[test]
fn all_errors_come_at_once() {
    let found = wrong(|s| {
        s.name = "Bad Name".to_owned();
        s.container.image = String::new();
        s.container.stop_signal = Some("SIGNOPE".to_owned());
        s.container.cap_add = vec!["FLY".to_owned()];
        s.ports = vec![port(80), port(80)];
        s.placement.constraints = vec!["node.moon == full".to_owned()];
    });
    assert_eq!(
        found,
        [
            "name",
            "container.image",
            "container.capAdd[0]",
            "container.stopSignal",
            "ports[1].hostPort",
            "placement.constraints[0]",
        ]
    );
}

#[test]
fn pairs_that_contradict_each_other() {
    let found = wrong(|s| {
        s.container.resources.cpu_limit = Some(MilliCpu(500));
        s.container.resources.cpu_reservation = Some(MilliCpu(501));
        s.container.resources.memory_limit = Some(Bytes(Bytes::GIB));
        s.container.resources.memory_reservation = Some(Bytes(Bytes::GIB + 1));
    });
    assert_eq!(
        found,
        [
            "container.resources.cpuReservation",
            "container.resources.memoryReservation"
        ]
    );
    let found = wrong(|s| {
        s.container.cap_add = vec!["NET_ADMIN".to_owned()];
        s.container.cap_drop = vec!["ALL".to_owned(), "cap_net_admin".to_owned()];
    });
    assert_eq!(found, ["container.capDrop[1]"]);
    let found = wrong(|s| {
        s.container.mounts = vec![tmpfs("/run/secrets/s0"), tmpfs("/a"), tmpfs("/a")];
        s.container.secrets = refs(1);
    });
    assert_eq!(
        found,
        ["container.mounts[2].target", "container.secrets[0].target"]
    );
    // One port in both protocols is fine.
    assert!(
        wrong(|s| {
            s.ports = vec![port(53), port(53)];
            s.ports[1].protocol = Protocol::Udp;
        })
        .is_empty()
    );
}

#[test]
fn mount_targets() {
    for target in ["/data", "/a/b/c", "/dev/shm", "/with space"] {
        assert!(
            wrong(|s| s.container.mounts = vec![tmpfs(target)]).is_empty(),
            "{target}"
        );
    }
    for target in [
        "", "/", "data", "/a/", "/a//b", "/a/../b", "/./a", "/proc", "/proc/1", "/a\0",
    ] {
        let found = wrong(|s| s.container.mounts = vec![tmpfs(target)]);
        assert_eq!(found, ["container.mounts[0].target"], "{target:?}");
    }
}

#[test]
fn file_targets() {
    let file = |target: &str| {
        vec![FileRef {
            source: "s".to_owned(),
            target: Some(target.to_owned()),
            ..FileRef::default()
        }]
    };
    for (target, secret, config) in [
        ("name", true, true),
        ("/etc/app.conf", false, true),
        ("a/b", false, false),
        ("..", false, false),
        ("", false, false),
        ("/etc/../x", false, false),
    ] {
        assert_eq!(
            wrong(|s| s.container.secrets = file(target)).is_empty(),
            secret,
            "{target}"
        );
        assert_eq!(
            wrong(|s| s.container.configs = file(target)).is_empty(),
            config,
            "{target}"
        );
    }
}

#[test]
fn names_and_hosts() {
    for name in ["a", "web", "web-1", "1web", "a--b"] {
        assert!(is_dns_label(name), "{name}");
        assert!(validate_name("name", name).is_ok(), "{name}");
    }
    for name in ["", "-a", "a-", "A", "a_b", "a.b", "ä", "a b"] {
        assert!(!is_dns_label(name), "{name}");
    }
    // 26 characters of the alphabet of ids.
    assert!(validate_name("name", "01hzzzzzzzzzzzzzzzzzzzzzzz").is_err());
    for host in ["a", "www.Example.org", "1.2.3.4"] {
        assert!(is_host_name(host), "{host}");
    }
    for host in ["", ".", "a.", "a..b", "*.a", &"a.".repeat(130)] {
        assert!(!is_host_name(host), "{host}");
    }
    let key = |key: &str| BTreeMap::from([(key.to_owned(), String::new())]);
    assert!(validate_labels("labels", &key("example.org/zone")).is_ok());
    for bad in ["", "-a", "a b", "a/"] {
        assert!(validate_labels("labels", &key(bad)).is_err(), "{bad}");
    }
}

#[test]
fn image_references() {
    let digest = format!("sha256:{}", "0a".repeat(32));
    for image in [
        "nginx",
        "nginx:1.27",
        "library/nginx",
        "ghcr.io/org/app:v1_2.3-x",
        "localhost/app",
        "localhost:5000/app:1",
        "10.0.0.1:5000/a/b/c",
        "a__b/c--d",
        &format!("nginx@{digest}"),
        &format!("reg.example:443/a:b@{digest}"),
    ] {
        assert!(is_image_reference(image), "{image}");
    }
    for image in [
        "",
        "Nginx",
        "nginx:",
        "nginx:-a",
        "/nginx",
        "nginx/",
        "a//b",
        "a b",
        "a:b:c",
        "nginx@sha256:12",
        "nginx@md5:00",
        "a___b",
        "a._b",
        "http://a/b",
        "reg:99999/a",
    ] {
        assert!(!is_image_reference(image), "{image}");
    }
}

#[test]
fn signals_and_capabilities() {
    for (text, number) in [
        ("SIGTERM", 15),
        ("term", 15),
        ("9", 9),
        ("SIGRTMIN+3", 37),
        ("rtmax-1", 63),
        ("RTMIN", 34),
        ("SIGUSR1", 10),
    ] {
        assert_eq!(parse_signal(text), Some(number), "{text}");
    }
    for text in [
        "", "0", "32", "65", "SIG", "TERMX", "RTMIN+31", "RTMAX-31", "RTMIN-1", "-9", "+9",
    ] {
        assert_eq!(parse_signal(text), None, "{text}");
    }
    for text in ["NET_ADMIN", "cap_net_admin", "all", "BPF"] {
        assert!(is_capability(text), "{text}");
    }
    for text in ["", "CAP_", "NET", "CAP_ALL"] {
        assert!(!is_capability(text), "{text}");
    }
}

fn node() -> Node {
    Node {
        id: NodeId::from_u128(1),
        name: "n1".to_owned(),
        role: NodeRole::Hybrid,
        address: "10.0.0.1:8080".to_owned(),
        hostname: "N1.example.org".to_owned(),
        labels: BTreeMap::from([("zone".to_owned(), "east".to_owned())]),
        platform: Platform {
            os: "linux".to_owned(),
            arch: "arm64".to_owned(),
        },
        resources: NodeResources::default(),
        availability: Availability::Active,
        liveness: Liveness::Ready,
        reason: String::new(),
        subnet: "10.89.1.0/24".to_owned(),
        version_text: String::new(),
        certificate_root: String::new(),
        created_at: Timestamp(0),
        updated_at: Timestamp(0),
        version: Revision(0),
    }
}

#[test]
fn constraints() {
    let node = node();
    for (text, holds) in [
        ("node.labels.zone == east", true),
        ("node.labels.zone==WEST", false),
        ("node.labels.zone != west", true),
        ("node.labels.rack != r1", true),
        ("node.role == manager", true),
        ("node.role == worker", true),
        ("node.role != hybrid", false),
        ("node.name == n1", true),
        ("node.hostname == n1.example.org", true),
        ("node.platform.os == linux", true),
        ("node.platform.arch == amd64", false),
        (&format!("node.id == {}", node.id), true),
        ("node.labels.zone == a==b", false),
    ] {
        let parsed = Constraint::parse(text).expect(text);
        assert_eq!(parsed.matches(&node), holds, "{text}");
        assert_eq!(Constraint::parse(&parsed.to_string()).expect(text), parsed);
    }
    for text in [
        "",
        "node.role",
        "node.role = worker",
        "node.role == king",
        "node.name ==",
        "== a",
        "node.labels. == a",
        "node.labels.a b == c",
        "engine.labels.a == b",
    ] {
        let error = Constraint::parse(text).expect_err(text);
        assert!(error.to_string().contains("node.labels.<key>"), "{error}");
    }
}

#[test]
fn nodes_networks_and_subnets() {
    assert!(node().validate().is_ok());
    for address in ["[fd00::1]:8080", "host:1", ""] {
        let mut node = node();
        node.address = address.to_owned();
        assert!(node.validate().is_ok(), "{address}");
    }
    for address in [
        "host",
        ":1",
        "host:0",
        "host:+1",
        "host:70000",
        "a b:1",
        "fd00::1:80",
    ] {
        let mut node = node();
        node.address = address.to_owned();
        assert!(node.validate().is_err(), "{address}");
    }
    for subnet in [
        "10.0.0.1/24",
        "10.0.0.0",
        "10.0.0.0/33",
        "10.0.0.0/+8",
        "x/8",
        "10.0.0.0/",
    ] {
        assert_eq!(parse_cidr(subnet), None, "{subnet}");
    }
    assert!(parse_cidr("0.0.0.0/0").is_some() && parse_cidr("10.1.2.3/32").is_some());
}

/// Text that comes near to what is valid, or is anything.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        ".{0,40}",
        "[a-zA-Z0-9:/@._=! +-]{0,40}",
        "node\\.(labels\\.)?[a-z.]{0,9} ?[=!]=? ?[a-z]{0,9}",
        "[0-9./]{0,20}",
    ]
}

proptest! {
    #[test]
    fn grammars_never_panic(text in text()) {
        let _ = validate_name("x", &text);
        let _ = is_host_name(&text);
        let _ = is_image_reference(&text);
        let _ = is_capability(&text);
        let _ = parse_signal(&text);
        let _ = parse_cidr(&text);
        if let Ok(constraint) = Constraint::parse(&text) {
            prop_assert_eq!(Constraint::parse(&constraint.to_string()), Ok(constraint));
        }
    }

    #[test]
    fn validators_never_panic(t in prop::collection::vec(text(), 16), n in any::<u32>(), m in any::<u64>()) {
        let mut spec = good();
        spec.name.clone_from(&t[0]);
        spec.labels = BTreeMap::from([(t[1].clone(), t[2].clone())]);
        spec.mode = Mode::Replicated { replicas: n };
        spec.container.image.clone_from(&t[3]);
        spec.container.image_digest = Some(t[4].clone());
        spec.container.command = vec![t[5].clone()];
        spec.container.env = vec![env(&t[6], &t[7])];
        spec.container.working_dir = Some(t[8].clone());
        spec.container.user = Some(t[9].clone());
        spec.container.hostname = Some(t[10].clone());
        spec.container.mounts = vec![
            Mount::Bind { source: t[11].clone(), target: t[12].clone(), read_only: false },
            Mount::Volume { source: t[11].clone(), target: t[13].clone(), read_only: false },
            Mount::Tmpfs { target: t[12].clone(), size: Some(Bytes(m)) },
        ];
        spec.container.secrets = vec![FileRef { source: t[0].clone(), target: Some(t[14].clone()), uid: n, gid: n, mode: Some(n) }];
        spec.container.configs.clone_from(&spec.container.secrets);
        spec.container.resources.cpu_limit = Some(MilliCpu(n));
        spec.container.resources.memory_reservation = Some(Bytes(m));
        spec.container.cap_add = vec![t[15].clone()];
        spec.container.cap_drop = vec![t[15].clone()];
        spec.container.stop_signal = Some(t[15].clone());
        spec.container.stop_grace = Some(Duration(m));
        spec.container.health.liveness = Some(HealthCheck {
            probe: HealthProbe::Http {
                path: t[13].clone(),
                port: 0,
                https: true,
                headers: vec![(t[1].clone(), t[2].clone())],
                status_min: 7,
                status_max: 5,
            },
            interval: Duration(m),
            timeout: Duration(m),
            retries: n,
            start_period: Duration(m),
        });
        spec.networks = vec![t[0].clone(), t[0].clone()];
        spec.placement.constraints = vec![t[1].clone()];
        spec.placement.spread = Some(t[2].clone());
        spec.update.canary_steps = vec![n, n];
        if let Err(error) = spec.validate() {
            prop_assert!(!error.errors.is_empty());
            prop_assert!(!error.to_string().is_empty());
        }
        let mut other = node();
        other.name.clone_from(&t[0]);
        other.address.clone_from(&t[1]);
        other.subnet.clone_from(&t[2]);
        other.hostname.clone_from(&t[3]);
        let _ = other.validate();
    }
}
