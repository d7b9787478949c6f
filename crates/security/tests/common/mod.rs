//! Authorities, certificates, and a handshake in memory.
#![allow(dead_code, reason = "each test binary uses its own part")]

use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection};
use std::sync::Arc;
use warren_security::*;
use warren_types::{ClusterId, Duration, NodeId, Role, Timestamp};

/// 2020-01-01: certificates made then for 80 years are valid whenever the test runs.
pub const NOW: Timestamp = Timestamp(1_577_836_800_000);
pub const LONG: Duration = Duration::from_secs(80 * 365 * 86_400);

pub fn cluster(n: u128) -> ClusterId {
    ClusterId::from_u128(n)
}

pub fn authority(n: u128) -> CertificateAuthority {
    CertificateAuthority::generate(cluster(n), NOW, LONG).unwrap()
}

pub fn node(ca: &CertificateAuthority, role: Role, name: &str) -> Identity {
    let node = matches!(role, Role::Worker | Role::Manager).then(|| NodeId::from_u128(77));
    Identity {
        cluster: ca.cluster(),
        role,
        node,
        name: name.to_owned(),
    }
}

pub fn server(ca: &CertificateAuthority, role: Role, auth: ClientAuth) -> ServerConfig {
    let (cert, key) = ca
        .issue_with_key(&node(ca, role, "m1"), &[], NOW, LONG)
        .unwrap();
    server_config(&[ca.cert_pem().to_owned()], &cert, &key, auth).unwrap()
}

pub fn client(ca: &CertificateAuthority, trust: &CertificateAuthority, role: Role) -> ClientConfig {
    let (cert, key) = ca
        .issue_with_key(&node(ca, role, "c1"), &[], NOW, LONG)
        .unwrap();
    client_config(&[trust.cert_pem().to_owned()], Some((&cert, &key))).unwrap()
}

/// Runs a handshake in memory; returns who the server thinks the client is.
pub fn handshake(
    client: ClientConfig,
    server: ServerConfig,
) -> Result<Option<Identity>, rustls::Error> {
    let mut c = ClientConnection::new(Arc::new(client), server_name())?;
    let mut s = ServerConnection::new(Arc::new(server))?;
    for _ in 0..10 {
        let mut wire = Vec::new();
        while c.wants_write() {
            c.write_tls(&mut wire).unwrap();
        }
        let mut from = wire.as_slice();
        while !from.is_empty() {
            s.read_tls(&mut from).unwrap();
            s.process_new_packets()?;
        }
        let mut wire = Vec::new();
        while s.wants_write() {
            s.write_tls(&mut wire).unwrap();
        }
        let mut from = wire.as_slice();
        while !from.is_empty() {
            c.read_tls(&mut from).unwrap();
            c.process_new_packets()?;
        }
    }
    assert!(!c.is_handshaking() && !s.is_handshaking());
    assert_eq!(c.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
    Ok(s.peer_certificates()
        .map(|chain| identity_from_der(&chain[0]).unwrap()))
}
