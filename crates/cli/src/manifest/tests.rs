//! Tests of manifests: what is accepted, and the exact words of what is refused.

use super::*;
use proptest::prelude::*;
use warren_types::{
    Bytes, Duration, HealthProbe, MilliCpu, Mode, Mount, Protocol, PublishMode, RestartCondition,
};

fn no_files(path: &Path) -> std::result::Result<Vec<u8>, String> {
    Err(format!(
        "cannot open {}: no files in this test",
        path.display()
    ))
}

fn parse(text: &str) -> Result<Manifest> {
    parse_str("app.yaml", text, &no_files)
}

fn service(spec: &str) -> ServiceSpec {
    let indented: String = spec.lines().map(|l| format!("  {l}\n")).collect();
    let text =
        format!("kind: Service\nmetadata: {{name: web}}\nspec:\n  image: nginx:1\n{indented}");
    parse(&text)
        .unwrap_or_else(|e| panic!("{e}\n{text}"))
        .services
        .remove(0)
}

#[test]
fn the_two_shipped_examples_that_always_worked() {
    let manifest = parse(
        "apiVersion: v1\nkind: Service\nmetadata:\n  name: web\n  labels: {tier: front}\nspec:\n  image: nginx:latest\n  replicas: 3\n  env:\n    PORT: 8080\n    DEBUG: true\n",
    )
    .unwrap();
    let web = &manifest.services[0];
    assert_eq!(web.mode, Mode::Replicated { replicas: 3 });
    assert_eq!(web.labels["tier"], "front");
    let env: Vec<String> = web
        .container
        .env
        .iter()
        .map(|v| format!("{}={}", v.name, v.value))
        .collect();
    assert_eq!(env, ["PORT=8080", "DEBUG=true"]);
}

#[test]
fn many_documents_of_all_kinds() {
    let manifest = parse(
        "kind: Service\nmetadata: {name: db}\nspec: {image: redis}\n---\n# nothing\n---\nkind: Secret\nmetadata: {name: pass}\nspec: {data: aGVsbG8=}\n---\nkind: Volume\nmetadata: {name: data}\n---\nkind: Secret\nmetadata: {name: late}\nspec: {external: true}\n",
    )
    .unwrap();
    assert_eq!(manifest.len(), 4);
    assert_eq!(
        manifest.secrets[0].value,
        SecretValue::Bytes(b"hello".to_vec())
    );
    assert_eq!(manifest.secrets[1].value, SecretValue::External);
    assert_eq!(manifest.volumes[0].driver, "local");
}

#[test]
fn json_is_yaml() {
    let manifest = parse(
        "{\"kind\": \"Service\", \"metadata\": {\"name\": \"a\"}, \"spec\": {\"image\": \"b\"}}",
    )
    .unwrap();
    assert_eq!(manifest.services[0].container.image, "b");
}

#[test]
fn env_forms() {
    for text in [
        "env: {A: x, B: 2}",
        "env:\n- name: A\n  value: x\n- name: B\n  value: 2",
        "env: [A=x, B=2]",
        "environment: {A: x, B: \"2\"}",
    ] {
        let env = service(text).container.env;
        assert_eq!(
            (env[0].name.as_str(), env[0].value.as_str()),
            ("A", "x"),
            "{text}"
        );
        assert_eq!(
            (env[1].name.as_str(), env[1].value.as_str()),
            ("B", "2"),
            "{text}"
        );
    }
}

#[test]
fn volume_forms() {
    let data = |read_only| Mount::Volume {
        source: "data".into(),
        target: "/d".into(),
        read_only,
    };
    for (text, mount) in [
        ("volumes: [{source: data, target: /d}]", data(false)),
        (
            "volumes: [{source: data, target: /d, readOnly: true}]",
            data(true),
        ),
        ("volumes: [{name: data, mountPath: /d}]", data(false)),
        ("volumes: ['data:/d:ro']", data(true)),
        ("volumes: [data:/d]", data(false)),
        (
            "volumes: [{source: /srv, target: /d}]",
            Mount::Bind {
                source: "/srv".into(),
                target: "/d".into(),
                read_only: false,
            },
        ),
        (
            "volumes: [{type: tmpfs, target: /d, size: 16m}]",
            Mount::Tmpfs {
                target: "/d".into(),
                size: Some(Bytes(16 << 20)),
            },
        ),
    ] {
        assert_eq!(service(text).container.mounts, [mount], "{text}");
    }
}

#[test]
fn health_forms() {
    for (text, port, wanted) in [
        (
            "healthCheck: {type: HTTP, endpoint: 'http://localhost:8080/h'}",
            8080,
            "/h",
        ),
        (
            "healthCheck: {type: http, http: {path: /h, port: 8080}}",
            8080,
            "/h",
        ),
        (
            "healthCheck: {http: {path: /h, port: 8080}, intervalSeconds: 30}",
            8080,
            "/h",
        ),
        (
            "healthCheck: {type: http, path: /h, port: 8080, timeout: 10s}",
            8080,
            "/h",
        ),
    ] {
        let check = service(text).container.health.readiness.unwrap();
        let HealthProbe::Http {
            path, port: found, ..
        } = check.probe
        else {
            panic!("{text}")
        };
        assert_eq!((path.as_str(), found), (wanted, port), "{text}");
        assert_eq!(
            (check.interval, check.timeout, check.retries),
            (Duration(30_000), Duration(10_000), 3)
        );
    }
    for text in [
        "healthCheck: {type: tcp, endpoint: 'localhost:5432'}",
        "healthCheck: {type: TCP, port: 5432}",
        "healthCheck: {tcp: {port: 5432}}",
    ] {
        let health = service(text).container.health;
        assert_eq!(
            health.liveness.unwrap().probe,
            HealthProbe::Tcp { port: 5432 },
            "{text}"
        );
    }
    let text = "healthCheck:\n  type: exec\n  command: [pg_isready, -U, postgres]\n  startPeriod: 1m\n  retries: 5";
    let check = service(text).container.health.liveness.unwrap();
    assert_eq!(
        check.probe,
        HealthProbe::Exec {
            command: vec!["pg_isready".into(), "-U".into(), "postgres".into()]
        }
    );
    assert_eq!((check.start_period, check.retries), (Duration(60_000), 5));
    let three = service("health:\n  startup: {tcp: {port: 1}}\n  liveness: {exec: {command: [x]}}")
        .container
        .health;
    assert!(three.startup.is_some() && three.readiness.is_none() && three.liveness.is_some());
}

#[test]
fn everything_else_of_layer_b() {
    let spec = service(
        "mode: replicated\ncommand: [redis-server, --port, 6380]\nports:\n- {name: http, containerPort: 80, hostPort: 8080, protocol: UDP, publishMode: ingress}\n- 81:82\nsecrets: [pass, {source: key, target: tls.key, mode: 0440}]\nrestartPolicy: {condition: never, maxAttempts: 2, delay: 5s}\nresources:\n  limits: {cpuShares: 1536, memoryBytes: 268435456}\n  reservations: {cpuShares: 1024, memory: 64m}\nstopTimeout: 30\nupdateConfig: {parallelism: 2, delay: 10s, failureAction: rollback, maxSurge: 2, canarySteps: [10, 100], failureThresholdPercent: 20, healthCheckGracePeriod: 30s}\nplacement:\n  constraints: ['node.role == worker']\n  preferences: [{spread: node.labels.zone}]\nuser: 1000\nreadOnly: true\ncapDrop: [ALL]",
    );
    assert_eq!(spec.container.command, ["redis-server", "--port", "6380"]);
    let first = &spec.ports[0];
    assert_eq!(
        (
            first.host_port,
            first.container_port,
            first.protocol,
            first.publish_mode
        ),
        (8080, 80, Protocol::Udp, PublishMode::Ingress)
    );
    assert_eq!(
        (spec.ports[1].host_port, spec.ports[1].container_port),
        (81, 82)
    );
    assert_eq!(spec.container.secrets[1].mode, Some(0o440));
    assert_eq!(spec.container.restart.condition, RestartCondition::None);
    assert_eq!(spec.container.resources.cpu_limit, Some(MilliCpu(1500)));
    assert_eq!(
        spec.container.resources.memory_limit,
        Some(Bytes(256 << 20))
    );
    assert_eq!(
        spec.container.resources.cpu_reservation,
        Some(MilliCpu(1000))
    );
    assert_eq!(spec.container.stop_grace, Some(Duration(30_000)));
    assert_eq!(
        spec.update.failure_action,
        warren_types::FailureAction::Rollback
    );
    assert_eq!(spec.update.monitor, Duration(30_000));
    assert_eq!(spec.placement.spread.as_deref(), Some("zone"));
    assert_eq!(spec.container.user.as_deref(), Some("1000"));
    assert!(spec.container.read_only_root);
}

#[test]
fn secret_values() {
    let value = |spec: &str| {
        let read = |path: &Path| Ok(format!("file {}", path.display()).into_bytes());
        let text = format!("kind: Secret\nmetadata: {{name: s}}\nspec: {spec}\n");
        parse_str("s.yaml", &text, &read).map(|m| match &m.secrets[0].value {
            SecretValue::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            SecretValue::External => "external".to_owned(),
        })
    };
    assert_eq!(value("{data: aGVsbG8=}").unwrap(), "hello");
    assert_eq!(
        value("{data: {password: aGVsbG8=}, type: Opaque}").unwrap(),
        "hello"
    );
    assert_eq!(value("{stringData: hello}").unwrap(), "hello");
    assert_eq!(value("{stringData: {password: hello}}").unwrap(), "hello");
    assert_eq!(value("{fromFile: a/b.txt}").unwrap(), "file a/b.txt");
    assert!(
        value("{data: \"-----BEGIN X-----\\n\", type: TLS}")
            .unwrap()
            .starts_with("-----BEGIN")
    );
    for bad in [
        "{}",
        "{data: not-base64!}",
        "{data: ''}",
        "{data: {a: YQ==, b: YQ==}}",
        "{data: YQ==, fromFile: x}",
        "{data: YQ==, type: Weird}",
    ] {
        assert!(value(bad).is_err(), "{bad}");
    }
    let warned = parse("kind: Secret\nmetadata: {name: s}\nspec: {data: password}\n").unwrap();
    assert!(
        warned.warnings[0].contains("stringData"),
        "{:?}",
        warned.warnings
    );
}

/// Wrong manifests; the golden file holds what each is told.
const WRONG: &[(&str, &str)] = &[
    ("empty", ""),
    ("no YAML", "kind: [Service\n"),
    ("tab", "kind: Service\n\tmetadata: x\n"),
    ("not a map", "- a\n- b\n"),
    ("no kind", "metadata: {name: a}\n"),
    (
        "compose",
        "version: '3.8'\nservices:\n  web: {image: nginx}\n",
    ),
    (
        "unknown kind",
        "kind: Ingress\nmetadata: {name: a}\nspec: {}\n",
    ),
    (
        "unknown version",
        "apiVersion: apps/v1\nkind: Service\nmetadata: {name: a}\nspec: {image: b}\n",
    ),
    ("no name", "kind: Service\nmetadata: {}\nspec: {image: a}\n"),
    (
        "name is a number",
        "kind: Service\nmetadata: {name: 12}\nspec: {image: a}\n",
    ),
    (
        "bad name",
        "kind: Service\nmetadata:\n  name: Web_1\nspec: {image: a}\n",
    ),
    (
        "no image",
        "kind: Service\nmetadata: {name: a}\nspec:\n  replicas: 1\n",
    ),
    (
        "unknown keys",
        "kind: Service\nmetadata: {name: a, nmae: b}\nspec:\n  image: b\n  replicsa: 3\n  colour: red\nstatus: {}\n",
    ),
    (
        "unknown key in a list",
        "kind: Service\nmetadata: {name: a}\nspec:\n  image: b\n  ports:\n  - containerPort: 80\n    hostport: 8080\n",
    ),
    (
        "wrong types",
        "kind: Service\nmetadata: {name: a}\nspec:\n  image: [b]\n  replicas: three\n  ports: 80\n  env: A\n  resources: {limits: {memoryBytes: lots, cpus: many}}\n  readOnly: 1\n",
    ),
    (
        "out of range",
        "kind: Service\nmetadata: {name: a}\nspec:\n  image: b\n  replicas: -1\n  ports: [{containerPort: 70000}, '0:80', '80']\n  stopTimeout: 1 week\n",
    ),
    (
        "bad memory text",
        "kind: Service\nmetadata: {name: a}\nspec:\n  image: b\n  resources:\n    limits:\n      memory: 12 parsecs\n",
    ),
    (
        "broken check",
        "kind: Service\nmetadata: {name: a}\nspec:\n  image: b\n  healthCheck: {type: ping}\n",
    ),
    (
        "far check",
        "kind: Service\nmetadata: {name: a}\nspec:\n  image: b\n  healthCheck: {type: http, endpoint: 'http://example.com/'}\n",
    ),
    (
        "global with replicas",
        "kind: Service\nmetadata: {name: a}\nspec: {image: b, mode: global, replicas: 2}\n",
    ),
    (
        "relative mount",
        "kind: Service\nmetadata: {name: a}\nspec:\n  image: b\n  volumes:\n  - {source: data, target: tmp}\n  - ./here:/there\n",
    ),
    (
        "port twice",
        "kind: Service\nmetadata: {name: a}\nspec:\n  image: b\n  ports: ['80:80', '80:81']\n",
    ),
    (
        "reservation above limit",
        "kind: Service\nmetadata: {name: a}\nspec:\n  image: b\n  resources:\n    limits: {cpuShares: 512}\n    reservations: {cpuShares: 1024}\n",
    ),
    (
        "key twice",
        "kind: Service\nmetadata: {name: a}\nspec:\n  image: b\n  image: c\n",
    ),
    (
        "object twice",
        "kind: Volume\nmetadata: {name: a}\n---\nkind: Volume\nmetadata: {name: a}\n",
    ),
    (
        "two names of one key",
        "kind: Service\nmetadata: {name: a}\nspec: {image: b, env: {A: 1}, environment: {B: 2}}\n",
    ),
    (
        "missing file",
        "kind: Secret\nmetadata: {name: a}\nspec:\n  fromFile: nowhere\n",
    ),
    ("tag", "kind: !Ref Service\n"),
    ("undefined alias", "kind: *nothing\n"),
    ("alias within itself", "a: &a [*a]\n"),
];

#[test]
fn what_is_refused_says_where_and_what_to_write() {
    let mut text = String::new();
    for (name, manifest) in WRONG {
        let error = parse(manifest).expect_err(name);
        assert_eq!(error.exit, crate::Exit::Usage, "{name}");
        text.push_str(&format!("== {name}\n{error}\n"));
    }
    crate::golden::check("manifest-errors.txt", &text);
}

#[test]
fn alias_bombs_are_cheap_and_bounded() {
    let mut text = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
    for level in 1..30 {
        let refs = vec![format!("*a{}", level - 1); 10].join(",");
        text.push_str(&format!("a{level}: &a{level} [{refs}]\n"));
    }
    let error = parse(&text).unwrap_err();
    assert!(error.message.contains("limit of a manifest"), "{error}");
}

#[test]
fn deep_nesting_is_refused() {
    for open in ["[", "{a: "] {
        let error = parse(&open.repeat(100_000)).unwrap_err();
        assert!(error.message.starts_with("app.yaml:"), "{error}");
    }
}

#[test]
fn long_lists_of_problems_are_cut() {
    let spec: String = (0..1000).map(|n| format!("  unknown{n}: 1\n")).collect();
    let error = parse(&format!(
        "kind: Service\nmetadata: {{name: a}}\nspec:\n  image: b\n{spec}"
    ))
    .unwrap_err();
    assert_eq!(error.message.lines().count(), walk::PROBLEMS_MAX);
}

/// A real manifest that mutations start from.
const SAMPLE: &str = "apiVersion: warren.io/v1\nkind: Service\nmetadata:\n  name: web\nspec:\n  image: nginx\n  replicas: 2\n  env: &e\n  - name: A\n    value: \"1\"\n  ports:\n  - containerPort: 80\n    hostPort: 8080\n  volumes:\n  - data:/d:ro\n  healthCheck:\n    type: http\n    endpoint: http://localhost:80/\n    interval: 5s\n---\nkind: Secret\nmetadata: {name: s}\nspec: {data: aGk=}\n";

proptest! {
    #[test]
    fn arbitrary_text_never_panics(text in "[ -~\n\t{}\\[\\]:,&*!|>'\"#-]{0,300}") {
        let _ = parse(&text);
    }

    #[test]
    fn arbitrary_unicode_never_panics(text in "\\PC{0,200}") {
        let _ = parse(&text);
    }

    #[test]
    fn damaged_manifests_never_panic(at in 0..SAMPLE.len(), cut in 0_usize..20, put in "[ -~\n]{0,8}") {
        let end = (at + cut).min(SAMPLE.len());
        let text = format!("{}{put}{}", &SAMPLE[..at], &SAMPLE[end..]);
        if let Err(error) = parse(&text) {
            prop_assert!(!error.message.is_empty());
        }
    }
}
