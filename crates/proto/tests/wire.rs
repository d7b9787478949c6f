//! The upstream wire, exactly: every method, message, field number and type of `legacy_wire.txt` (which
//! was transcribed from `reference/api.md`), bytes made by hand, and the conversion rules.

use proptest::prelude::*;
use prost::Message;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, FieldDescriptorProto, FileDescriptorSet};
use std::collections::{BTreeMap, BTreeSet};
use warren_proto::convert::{spec_from_create, spec_from_image_update, spec_from_update};
use warren_proto::{FILE_DESCRIPTOR_SET, authz, v1};
use warren_types::{
    Bytes, DeployStrategy, Duration, FailureAction, HealthProbe, MilliCpu, Mode, Mount, Resources,
    RestartCondition, Role, ServiceSpec,
};

const TABLE: &str = include_str!("legacy_wire.txt");
const UPSTREAM_METHODS: usize = 39;
const UPSTREAM_MESSAGES: usize = 102;
const UPSTREAM_FIELDS: usize = 287;
/// Extensions of upstream messages have numbers from here on.
const EXTENSIONS_FROM: i32 = 100;

fn descriptors() -> FileDescriptorSet {
    FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap()
}

fn api_messages() -> BTreeMap<String, DescriptorProto> {
    descriptors()
        .file
        .into_iter()
        .filter(|f| f.package() == "warren.v1")
        .flat_map(|f| f.message_type)
        .map(|m| (m.name().to_owned(), m))
        .collect()
}

/// The type in the words of the table.
fn type_text(owner: &DescriptorProto, field: &FieldDescriptorProto) -> String {
    let short = |name: &str| {
        name.trim_start_matches(".google.protobuf.")
            .trim_start_matches(".warren.v1.")
            .to_owned()
    };
    let name = match field.r#type() {
        Type::String => "string".to_owned(),
        Type::Int32 => "int32".to_owned(),
        Type::Int64 => "int64".to_owned(),
        Type::Bool => "bool".to_owned(),
        Type::Bytes => "bytes".to_owned(),
        Type::Message | Type::Enum => short(field.type_name()),
        other => format!("{other:?}"),
    };
    let repeated = field.label() == Label::Repeated;
    let is_map = owner.nested_type.iter().any(|n| {
        n.options.as_ref().is_some_and(|o| o.map_entry())
            && name.ends_with(&format!(".{}", n.name()))
    });
    match (repeated, is_map) {
        (_, true) => "map".to_owned(),
        (true, false) => format!("repeated:{name}"),
        (false, false) => name,
    }
}

#[test]
fn every_upstream_message_and_field_is_there_with_its_number_and_type() {
    let messages = api_messages();
    let mut seen = BTreeSet::new();
    let mut known: BTreeMap<&str, BTreeSet<i32>> = BTreeMap::new();
    let mut fields = 0;
    for line in TABLE.lines() {
        let words: Vec<_> = line.split(' ').collect();
        match words.as_slice() {
            ["E", message] => {
                seen.insert(*message);
                known.entry(message).or_default();
                assert!(messages.contains_key(*message), "{message} is missing");
            }
            ["F", message, number, name, kind] => {
                seen.insert(*message);
                fields += 1;
                let descriptor = messages
                    .get(*message)
                    .unwrap_or_else(|| panic!("{message} is missing"));
                let number: i32 = number.parse().unwrap();
                known.entry(message).or_default().insert(number);
                let field = descriptor
                    .field
                    .iter()
                    .find(|f| f.number() == number)
                    .unwrap_or_else(|| panic!("{message} has no field {number}"));
                assert_eq!(field.name(), *name, "{message} field {number}");
                assert_eq!(&type_text(descriptor, field), kind, "{message}.{name}");
            }
            _ => {}
        }
    }
    assert_eq!(seen.len(), UPSTREAM_MESSAGES);
    assert_eq!(fields, UPSTREAM_FIELDS);
    for (message, numbers) in known {
        for field in &messages[message].field {
            assert!(
                numbers.contains(&field.number()) || field.number() >= EXTENSIONS_FROM,
                "{message}.{} is an extension below {EXTENSIONS_FROM}",
                field.name()
            );
        }
    }
}

#[test]
fn every_upstream_method_is_there_with_its_types() {
    let set = descriptors();
    let service = set
        .file
        .iter()
        .filter(|f| f.package() == "warren.v1")
        .flat_map(|f| &f.service)
        .find(|s| s.name() == "WarrenAPI")
        .unwrap();
    let mut count = 0;
    for line in TABLE.lines() {
        let words: Vec<_> = line.split(' ').collect();
        let ["M", name, request, response] = words.as_slice() else {
            continue;
        };
        count += 1;
        let method = service
            .method
            .iter()
            .find(|m| m.name() == *name)
            .unwrap_or_else(|| panic!("{name} is missing"));
        let (streams, response) = match response.strip_prefix("stream:") {
            Some(response) => (true, response),
            None => (false, *response),
        };
        assert_eq!(method.input_type(), format!(".warren.v1.{request}"));
        assert_eq!(method.output_type(), format!(".warren.v1.{response}"));
        assert_eq!(method.server_streaming(), streams, "{name}");
        assert!(!method.client_streaming(), "{name}");
    }
    assert_eq!(count, UPSTREAM_METHODS);
}

/// SEC: no RPC without a row, no row without an RPC, deny by default.
#[test]
fn every_rpc_has_a_row_in_the_authorisation_table() {
    let mut paths = BTreeSet::new();
    for file in descriptors().file {
        for service in &file.service {
            for method in &service.method {
                let path = format!("/{}.{}/{}", file.package(), service.name(), method.name());
                assert!(authz::rule(&path).is_some(), "{path} has no row");
                paths.insert(path);
            }
        }
    }
    assert!(paths.len() > UPSTREAM_METHODS);
    for rule in authz::RULES {
        let ours = rule.path.starts_with("/warren.");
        assert!(
            !ours || paths.contains(rule.path),
            "{} is no RPC",
            rule.path
        );
        assert!(!rule.roles.is_empty(), "{}", rule.path);
        assert_eq!(
            authz::RULES.iter().filter(|r| r.path == rule.path).count(),
            1
        );
    }
}

#[test]
fn nobody_changes_anything_without_a_certificate_and_viewers_never() {
    for rule in authz::RULES {
        if rule.mutating {
            // There the join token, or the proof of the old key, in the request decides.
            let open = rule.path.ends_with("/RequestCertificate")
                || rule.path.ends_with("/RenewCertificate");
            for role in [Role::None, Role::Viewer] {
                assert_eq!(rule.roles.contains(&role), open, "{}", rule.path);
            }
        }
    }
    for role in [Role::None, Role::Admin] {
        assert!(!authz::allowed("/warren.v1.WarrenAPI/NoSuchCall", role));
        assert!(!authz::allowed("", role));
    }
}

#[test]
fn bytes_made_by_hand_are_the_bytes_we_write_and_read() {
    // field 1 (id) = "a": tag 0x0a; field 2 (replicas) varint 3: tag 0x10; field 4 (env): tag 0x22.
    let update = [
        0x0a, 1, b'a', 0x10, 3, 0x1a, 2, b'i', b'm', 0x22, 6, 0x0a, 1, b'k', 0x12, 1, b'v',
    ];
    let message = v1::UpdateServiceRequest {
        id: "a".to_owned(),
        replicas: 3,
        image: "im".to_owned(),
        env: BTreeMap::from([("k".to_owned(), "v".to_owned())]),
        ..Default::default()
    };
    assert_eq!(message.encode_to_vec(), update);
    assert_eq!(
        v1::UpdateServiceRequest::decode(&update[..]).unwrap(),
        message
    );

    // Field 17 (ports) has a two-byte tag: 17 << 3 | 2 = 138 = 0x8a 0x01.
    let service = [0x8a, 1, 6, 0x10, 80, 0x18, 90, 0x28, 1];
    let message = v1::Service {
        ports: vec![v1::PortMapping {
            container_port: 80,
            host_port: 90,
            publish_mode: v1::port_mapping::PublishMode::Ingress as i32,
            ..Default::default()
        }],
        ..Default::default()
    };
    assert_eq!(message.encode_to_vec(), service);

    let secret = [0x0a, 1, b's', 0x12, 2, 0, 255];
    let message = v1::CreateSecretRequest {
        name: "s".to_owned(),
        data: vec![0, 255],
        ..Default::default()
    };
    assert_eq!(message.encode_to_vec(), secret);

    // expires_at is field 3, a timestamp: seconds 1, nanos 5.
    let token = [0x0a, 1, b't', 0x1a, 4, 0x08, 1, 0x10, 5];
    let message = v1::GenerateJoinTokenResponse {
        token: "t".to_owned(),
        expires_at: Some(prost_types::Timestamp {
            seconds: 1,
            nanos: 5,
        }),
        ..Default::default()
    };
    assert_eq!(message.encode_to_vec(), token);
}

#[test]
fn an_older_client_skips_our_extensions() {
    // An upstream decoder knows the field numbers below 100 only; unknown ones are skipped by rule, so it
    // is enough that the older fields alone still say all that upstream says.
    let bytes = v1::DeleteVolumeRequest {
        id: "v".to_owned(),
        force: true,
    }
    .encode_to_vec();
    assert_eq!(&bytes[..3], &[0x0a, 1, b'v']);
    // 100 << 3 | 0 = 800 = 0xa0 0x06.
    assert_eq!(&bytes[3..], &[0xa0, 0x06, 1]);
}

fn older_request() -> v1::CreateServiceRequest {
    v1::CreateServiceRequest {
        name: "web".to_owned(),
        image: "nginx:1".to_owned(),
        replicas: 3,
        deploy_strategy: "canary".to_owned(),
        update_config: Some(v1::UpdateConfig {
            parallelism: 2,
            delay_seconds: 7,
            auto_rollback_enabled: true,
            canary_weight: 20,
            ..Default::default()
        }),
        health_check: Some(v1::HealthCheck {
            r#type: v1::health_check::Type::Http as i32,
            http: Some(v1::HttpHealthCheck {
                path: "/live".to_owned(),
                port: 81,
                scheme: "https".to_owned(),
                headers: vec![v1::Header {
                    key: "a".to_owned(),
                    value: "b".to_owned(),
                }],
                status_code_max: 204,
                ..Default::default()
            }),
            start_period_seconds: 4,
            ..Default::default()
        }),
        restart_policy: Some(v1::RestartPolicy {
            condition: "always".to_owned(),
            max_attempts: 5,
            delay_seconds: 2,
        }),
        resources: Some(v1::ResourceRequirements {
            cpu_shares: 512,
            memory_bytes: 1 << 29,
            memory_reservation_bytes: 1 << 28,
        }),
        volumes: vec![
            v1::VolumeMount {
                source: "data".to_owned(),
                target: "/data".to_owned(),
                read_only: true,
            },
            v1::VolumeMount {
                source: "/etc/x".to_owned(),
                target: "/x".to_owned(),
                read_only: false,
            },
        ],
        env: BTreeMap::from([("A".to_owned(), "1=2".to_owned())]),
        command: vec!["run".to_owned()],
        stop_timeout: 30,
        ..Default::default()
    }
}

#[test]
fn an_older_create_request_loses_nothing() {
    let spec = spec_from_create(older_request()).unwrap();
    assert_eq!(spec.mode, Mode::Replicated { replicas: 3 });
    assert_eq!(spec.update.strategy, DeployStrategy::Canary);
    assert_eq!(spec.update.parallelism, 2);
    assert_eq!(spec.update.delay, Duration::from_secs(7));
    assert_eq!(spec.update.failure_action, FailureAction::Rollback);
    assert_eq!(spec.update.canary_steps, [20, 100]);
    assert_eq!(spec.update.canary_window, Duration::from_secs(300));
    let c = &spec.container;
    assert_eq!(c.restart.condition, RestartCondition::Any);
    assert_eq!(c.restart.delay, Some(Duration::from_secs(2)));
    assert_eq!(c.resources.cpu_limit, Some(MilliCpu(500)));
    assert_eq!(c.resources.memory_limit, Some(Bytes(1 << 29)));
    assert_eq!(c.resources.memory_reservation, Some(Bytes(1 << 28)));
    assert!(
        matches!(&c.mounts[0], Mount::Volume { source, read_only: true, .. } if source == "data")
    );
    assert!(matches!(&c.mounts[1], Mount::Bind { source, .. } if source == "/etc/x"));
    assert_eq!(c.env[0].value, "1=2");
    assert_eq!(c.command, ["run"]);
    assert_eq!(c.stop_grace, Some(Duration::from_secs(30)));
    let check = c.health.liveness.as_ref().unwrap();
    assert_eq!(c.health.readiness.as_ref(), Some(check));
    assert_eq!(check.interval, Duration::from_secs(30));
    assert_eq!(check.timeout, Duration::from_secs(10));
    assert_eq!(check.retries, 3);
    assert_eq!(check.start_period, Duration::from_secs(4));
    assert_eq!(
        check.probe,
        HealthProbe::Http {
            path: "/live".to_owned(),
            port: 81,
            https: true,
            headers: vec![("a".to_owned(), "b".to_owned())],
            status_min: 200,
            status_max: 204,
        }
    );
}

#[test]
fn what_makes_no_sense_is_refused_with_its_field() {
    type Change = fn(&mut v1::CreateServiceRequest);
    let cases: [(&str, Change); 9] = [
        ("replicas", |r| r.replicas = -1),
        ("mode", |r| r.mode = "many".to_owned()),
        ("deploy_strategy", |r| {
            r.deploy_strategy = "big-bang".to_owned()
        }),
        ("restart_policy.condition", |r| {
            r.restart_policy.as_mut().unwrap().condition = "maybe".to_owned();
        }),
        ("resources.cpu_shares", |r| {
            r.resources.as_mut().unwrap().cpu_shares = -5
        }),
        ("health_check.http", |r| {
            r.health_check.as_mut().unwrap().http = None
        }),
        ("update_config.failure_action", |r| {
            r.update_config.as_mut().unwrap().failure_action = "weep".to_owned();
        }),
        ("ports[0].host_port", |r| {
            r.ports = vec![v1::PortMapping {
                host_port: 70_000,
                ..Default::default()
            }];
        }),
        ("stop_timeout", |r| r.stop_timeout = -1),
    ];
    for (field, change) in cases {
        let mut request = older_request();
        change(&mut request);
        assert_eq!(spec_from_create(request).unwrap_err().field, field);
    }
}

#[test]
fn both_families_of_restart_words_are_understood() {
    use warren_proto::convert::restart_condition_from_text as read;
    for (text, condition) in [
        ("", RestartCondition::Any),
        ("any", RestartCondition::Any),
        ("always", RestartCondition::Any),
        ("on-failure", RestartCondition::OnFailure),
        ("none", RestartCondition::None),
        ("never", RestartCondition::None),
    ] {
        assert_eq!(read(text).unwrap(), condition, "{text:?}");
    }
    assert!(read("Any").is_err());
}

#[test]
fn an_older_update_leaves_what_it_does_not_name() {
    let present = ServiceSpec {
        mode: Mode::Replicated { replicas: 4 },
        ..spec_from_create(older_request()).unwrap()
    };
    let same = spec_from_update(&present, v1::UpdateServiceRequest::default()).unwrap();
    assert_eq!(same, present);
    let zero = v1::UpdateServiceRequest {
        replicas_set: true,
        ..Default::default()
    };
    let stopped = spec_from_update(&present, zero).unwrap();
    assert_eq!(stopped.mode, Mode::Replicated { replicas: 0 });
    let image = v1::UpdateServiceImageRequest {
        image: "nginx:2".to_owned(),
        ..Default::default()
    };
    let rolled = spec_from_image_update(&present, image).unwrap();
    assert_eq!(rolled.container.image, "nginx:2");
    assert_eq!(rolled.update.strategy, DeployStrategy::Rolling);
    assert_eq!(rolled.update.parallelism, present.update.parallelism);
    let global = ServiceSpec {
        mode: Mode::Global,
        ..present
    };
    let scale = v1::UpdateServiceRequest {
        replicas: 2,
        ..Default::default()
    };
    assert_eq!(
        spec_from_update(&global, scale).unwrap_err().field,
        "replicas"
    );
}

proptest! {
    /// A whole core is 1024 shares; every amount of whole hundredths of a core survives the way out and in.
    #[test]
    fn cpu_survives_the_wire(milli in 1_u32..1_024_000) {
        let resources = Resources { cpu_limit: Some(MilliCpu(milli)), ..Resources::default() };
        let wire = v1::ResourceRequirements::from(&resources);
        prop_assert_eq!(Resources::try_from(wire).unwrap(), resources);
    }

    /// The spec in the extension field wins and comes back as it went.
    #[test]
    fn the_whole_spec_survives_a_create_request(spec in warren_proto::testing::service_spec()) {
        let request = v1::CreateServiceRequest { spec: Some((&spec).into()), ..older_request() };
        prop_assert_eq!(spec_from_create(request).unwrap(), spec);
    }

    /// Older messages made from any spec's part read back to the same part, in whole seconds.
    #[test]
    fn older_parts_survive(port in warren_proto::testing::port_mapping(), probe in warren_proto::testing::probe()) {
        let back = warren_types::PortMapping::try_from(v1::PortMapping::from(&port)).unwrap();
        let name = port.name.clone().filter(|n| !n.is_empty());
        prop_assert_eq!(back, warren_types::PortMapping { name, ..port });
        let check = warren_types::HealthCheck {
            probe,
            interval: Duration::from_secs(9),
            timeout: Duration::from_secs(8),
            retries: 2,
            start_period: Duration::from_secs(1),
        };
        let mut expected = check.clone();
        if let HealthProbe::Http { path, status_min, status_max, .. } = &mut expected.probe {
            // An empty path and status 0 mean the defaults on the wire.
            if path.is_empty() { "/".clone_into(path); }
            if *status_min == 0 { *status_min = 200; }
            if *status_max == 0 { *status_max = 399; }
        }
        let back = warren_types::HealthCheck::try_from(v1::HealthCheck::from(&check)).unwrap();
        prop_assert_eq!(back, expected);
    }
}

#[test]
fn what_carries_a_secret_does_not_show_it() {
    let shown = [
        format!(
            "{:?}",
            v1::CreateSecretRequest {
                data: b"hunter2".to_vec(),
                ..Default::default()
            }
        ),
        format!(
            "{:?}",
            warren_proto::session::SecretPayload {
                data: b"hunter2".to_vec(),
                ..Default::default()
            }
        ),
        format!(
            "{:?}",
            v1::RequestCertificateRequest {
                token: "hunter2".to_owned(),
                ..Default::default()
            }
        ),
        format!(
            "{:?}",
            v1::GenerateJoinTokenResponse {
                token: "hunter2".to_owned(),
                ..Default::default()
            }
        ),
    ];
    let bytes = format!("{:?}", b"hunter2");
    for text in shown {
        assert!(
            !text.contains("hunter2") && !text.contains(&bytes),
            "{text}"
        );
    }
}
