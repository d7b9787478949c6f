//! One object of each kind, out of a few.

use super::{FEW, node_id};
use std::collections::BTreeMap;
use warren_types::*;

/// Objects of one kind that are drawn.
const OBJECTS: u64 = 2;

pub fn node(n: u64) -> Node {
    let n = n % FEW;
    Node {
        id: node_id(n),
        name: format!("node-{n}"),
        role: [NodeRole::Hybrid, NodeRole::Worker, NodeRole::Manager][n as usize % 3],
        address: String::new(),
        hostname: format!("host-{n}"),
        labels: BTreeMap::new(),
        platform: Platform::default(),
        resources: NodeResources {
            cpu: MilliCpu(2000),
            memory: Bytes(1 << 30),
            disk: Bytes(1 << 40),
        },
        availability: Availability::Active,
        liveness: Liveness::Ready,
        reason: String::new(),
        subnet: format!("10.89.{n}.0/24"),
        version_text: "0.1.0".to_owned(),
        certificate_root: String::new(),
        created_at: Timestamp(0),
        updated_at: Timestamp(0),
        version: Revision(0),
    }
}

/// A service spec; `n` decides what it names, publishes and reserves. Service 3 is global.
pub fn spec(service: u64, n: u16) -> ServiceSpec {
    let service = service % FEW;
    let mut spec = ServiceSpec {
        name: format!("service-{service}"),
        mode: match service {
            3 => Mode::Global,
            _ => Mode::Replicated {
                replicas: u32::from(n % 4),
            },
        },
        ..ServiceSpec::default()
    };
    spec.container.image = format!("app:{}", n % 3);
    spec.container.resources.memory_reservation = Some(Bytes(u64::from(n % 5) * 150 * Bytes::MIB));
    spec.container.resources.cpu_reservation = Some(MilliCpu(u32::from(n % 3) * 300));
    let few = |shift: u16| (n >> shift) % 4;
    if few(4) == 0 {
        let source = format!("secret-{}", mostly_one(few(6)));
        spec.container.secrets.push(FileRef {
            source,
            ..FileRef::default()
        });
    }
    if few(6) == 1 {
        let source = format!("config-{}", mostly_one(few(8)));
        spec.container.configs.push(FileRef {
            source,
            ..FileRef::default()
        });
    }
    if few(8) == 0 {
        spec.container.mounts.push(Mount::Volume {
            source: format!("volume-{}", mostly_one(few(4))),
            target: "/data".to_owned(),
            read_only: false,
        });
    }
    if few(10) == 0 {
        spec.networks
            .push(format!("network-{}", mostly_one(few(8))));
    }
    if few(12) < 2 {
        spec.ports.push(PortMapping {
            container_port: 80,
            host_port: 8000 + few(4),
            publish_mode: match few(12) {
                0 => PublishMode::Ingress,
                _ => PublishMode::Host,
            },
            ..PortMapping::default()
        });
    }
    if few(14) == 3 && few(2) == 3 {
        // Invalid on purpose.
        spec.container.image.clear();
    }
    spec
}

/// The one that the prelude makes, or now and then another.
pub const fn mostly_one(n: u16) -> u16 {
    if n == 3 { 3 } else { 1 }
}

pub fn sealed(n: u16) -> SealedData {
    SealedData {
        epoch: 1,
        nonce: [1; 12],
        ciphertext: vec![n as u8; 17],
    }
}

/// Another sealing of the same value; now and then of another one.
pub fn resealed(n: u16) -> SealedData {
    SealedData {
        epoch: 1 + u32::from(n % 3),
        nonce: [2; 12],
        ciphertext: vec![n as u8; 17 + usize::from(n.is_multiple_of(8))],
    }
}

pub fn secret(n: u16) -> Secret {
    let at = u64::from(n) % OBJECTS;
    Secret {
        id: SecretId::from_parts(3, u128::from(at)),
        name: format!("secret-{at}"),
        labels: BTreeMap::new(),
        data: sealed(n),
        size: 1,
        created_at: Timestamp(0),
        updated_at: Timestamp(0),
        version: Revision(0),
    }
}

pub fn config(n: u16) -> Config {
    let at = u64::from(n) % OBJECTS;
    Config {
        id: ConfigId::from_parts(4, u128::from(at)),
        name: format!("config-{at}"),
        labels: BTreeMap::new(),
        data: vec![n as u8],
        created_at: Timestamp(0),
        updated_at: Timestamp(0),
        version: Revision(0),
    }
}

pub fn volume(n: u16) -> Volume {
    let at = u64::from(n) % OBJECTS;
    Volume {
        id: VolumeId::from_parts(5, u128::from(at)),
        name: format!("volume-{at}"),
        driver: "local".to_owned(),
        driver_opts: BTreeMap::new(),
        labels: BTreeMap::new(),
        node: None,
        mount_path: String::new(),
        created_at: Timestamp(0),
        version: Revision(0),
    }
}

pub fn network(n: u16) -> Network {
    let at = u64::from(n) % OBJECTS;
    Network {
        id: NetworkId::from_parts(6, u128::from(at)),
        name: format!("network-{at}"),
        driver: "bridge".to_owned(),
        subnet: String::new(),
        gateway: String::new(),
        internal: n.is_multiple_of(2),
        labels: BTreeMap::new(),
        created_at: Timestamp(0),
        version: Revision(0),
    }
}

pub fn certificate(n: u16) -> Certificate {
    let at = u64::from(n) % OBJECTS;
    Certificate {
        id: CertificateId::from_parts(7, u128::from(at)),
        name: format!("certificate-{at}"),
        hosts: vec!["example.org".to_owned()],
        cert_pem: "-----BEGIN CERTIFICATE-----\n".to_owned(),
        key: sealed(n),
        issuer: format!("issuer {n}"),
        not_before: Timestamp(1),
        not_after: Timestamp(2),
        auto_renew: false,
        labels: BTreeMap::new(),
        created_at: Timestamp(0),
        updated_at: Timestamp(0),
        version: Revision(0),
    }
}

pub fn ingress(n: u16, m: u16) -> Ingress {
    let at = u64::from(n) % OBJECTS;
    Ingress {
        id: IngressId::from_parts(8, u128::from(at)),
        name: format!("ingress-{at}"),
        rules: vec![IngressRule {
            host: String::new(),
            paths: vec![IngressPath {
                path: format!("/{m}"),
                path_type: PathType::Prefix,
                service: "service-0".to_owned(),
                port: 80,
            }],
        }],
        tls: (m.is_multiple_of(2)).then(|| IngressTls {
            enabled: true,
            secret_name: format!("certificate-{}", m / 2 % 4),
            ..IngressTls::default()
        }),
        labels: BTreeMap::new(),
        created_at: Timestamp(0),
        updated_at: Timestamp(0),
        version: Revision(0),
    }
}

pub fn token(n: u16, now: u64) -> JoinToken {
    JoinToken {
        id: TokenId::from_parts(9, u128::from(u64::from(n) % OBJECTS)),
        role: Role::Worker,
        secret_hash: [n as u8; 32],
        created_at: Timestamp(0),
        expires_at: Timestamp(now + 1000 * u64::from(n)),
        uses_left: (n.is_multiple_of(2)).then_some(1 + u32::from(n % 3)),
        revoked: false,
        version: Revision(0),
    }
}

pub fn settings(n: u16) -> ClusterSettings {
    ClusterSettings {
        id: ClusterId::from_parts(10, 1),
        name: "test".to_owned(),
        ca: CaMaterial::default(),
        // Mostly key 1 is kept, which seals the secrets drawn here.
        key_epochs: (1..=1 + u32::from(n % 16 / 8))
            .filter(|k| n % 16 != 15 || *k > 1)
            .map(|number| KeyEpoch {
                number,
                created_at: Timestamp(0),
            })
            .collect(),
        container_pool: "10.89.0.0/16".to_owned(),
        node_prefix_len: 24,
        heartbeat: Duration(2000),
        node_down_after: Duration(10_000),
        history_per_slot: u32::from(n % 120),
        snapshot_entries: 10_000,
        snapshot_bytes: 64 << 20,
        log_bytes_max: 1 << 30,
        raft_profile: RaftProfile::ALL[usize::from(n.is_multiple_of(3))],
        auto_lock: n.is_multiple_of(2),
        unlock_key: if n.is_multiple_of(2) {
            sealed(n)
        } else {
            warren_types::SealedData::default()
        },
        created_at: Timestamp(0),
        version: Revision(0),
    }
}
