//! Wrong clocks, rotation of the CA, renewal with an old key: what keeps a node in the cluster.

mod common;

use common::*;
use proptest::prelude::*;
use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, ServerConfig};
use std::sync::Arc;
use warren_security::ca::{CA_VALIDITY, CERTIFICATE_VALIDITY, CLOCK_SKEW};
use warren_security::identity::validity;
use warren_security::*;
use warren_types::{Duration, Role, Timestamp};

/// A clock that stands.
#[derive(Debug)]
struct Clock(Timestamp);

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(self.0.to_std()))
    }
}

trait ToStd {
    fn to_std(&self) -> std::time::Duration;
}
impl ToStd for Timestamp {
    fn to_std(&self) -> std::time::Duration {
        std::time::Duration::from_millis(self.0)
    }
}

fn client_at(mut config: ClientConfig, now: Timestamp) -> ClientConfig {
    config.time_provider = Arc::new(Clock(now));
    config
}

fn server_at(mut config: ServerConfig, now: Timestamp) -> ServerConfig {
    config.time_provider = Arc::new(Clock(now));
    config
}

/// Hours before or after [`NOW`].
fn hours(n: i64) -> Timestamp {
    Timestamp(NOW.0.checked_add_signed(n * 3_600_000).unwrap())
}

fn member(ca: &CertificateAuthority, role: Role, now: Timestamp) -> (String, String) {
    let who = node(ca, role, "n");
    let made = ca.issue_with_key(&who, &[], now, CERTIFICATE_VALIDITY);
    let (cert, key) = made.unwrap();
    (cert, key.to_string())
}

fn trusting(roots: &[&CertificateAuthority]) -> Vec<String> {
    roots.iter().map(|ca| ca.cert_pem().to_owned()).collect()
}

/// A clock that is off by 25 hours, either way and at either end, stops neither a join nor a
/// connection of members, not even in the minute in which the cluster was made.
#[test]
fn a_clock_off_by_25_hours_stops_no_join() {
    assert_eq!(CLOCK_SKEW, Duration::from_secs(25 * 3600));
    let ca = CertificateAuthority::generate(cluster(1), NOW, CA_VALIDITY).unwrap();
    let roots = trusting(&[&ca]);
    let (cert, key) = member(&ca, Role::Manager, NOW);
    let server = || server_config(&roots, &cert, &key, ClientAuth::Optional).unwrap();
    let (w_cert, w_key) = member(&ca, Role::Worker, NOW);
    let worker = || client_config(&roots, Some((&w_cert, &w_key))).unwrap();
    let joiner = || join_client_config(ca.digest()).unwrap();
    for off in [-25, -1, 0, 1, 25] {
        for (at_client, at_server) in [(off, 0), (0, off), (off, off)] {
            let server = || server_at(server(), hours(at_server));
            let joined = handshake(client_at(joiner(), hours(at_client)), server());
            assert!(joined.is_ok(), "{at_client} {at_server}: {joined:?}");
            let seen = handshake(client_at(worker(), hours(at_client)), server());
            assert!(seen.unwrap().is_some(), "{at_client} {at_server}");
        }
    }
    // The test can fail: beyond the skew it is over, and a joiner is told why.
    let late = handshake(client_at(joiner(), hours(-26)), server_at(server(), NOW));
    assert_eq!(pin_error(&late.unwrap_err()), Some(&PinError::Clock));
    let worker = client_at(worker(), NOW);
    assert!(handshake(worker, server_at(server(), hours(-26))).is_err());
}

/// The whole way of a rotation, for those who were there, those who were away, and old join tokens.
#[test]
fn a_rotation_of_the_ca_loses_nobody() {
    let old = CertificateAuthority::generate(cluster(1), NOW, CA_VALIDITY).unwrap();
    let token = old.digest();
    let new = CertificateAuthority::generate(cluster(1), NOW, CA_VALIDITY).unwrap();
    let cross = old.vouch_for(&new, NOW).unwrap();
    let new = CertificateAuthority::load(new.cert_pem(), &new.key_pem())
        .and_then(|ca| ca.with_cross(&cross))
        .unwrap();
    let (m_old, m_new) = (
        member(&old, Role::Manager, NOW),
        member(&new, Role::Manager, NOW),
    );
    let (w_old, w_new) = (
        member(&old, Role::Worker, NOW),
        member(&new, Role::Worker, NOW),
    );
    let (before, during) = (trusting(&[&old]), trusting(&[&old, &new]));
    let serve = |roots: &[String], m: &(String, String)| {
        let config = server_config(roots, &m.0, &m.1, ClientAuth::Optional).unwrap();
        server_at(config, NOW)
    };
    let call = |roots: &[String], w: &(String, String)| {
        client_at(client_config(roots, Some((&w.0, &w.1))).unwrap(), NOW)
    };
    let join = |digest| client_at(join_client_config(digest).unwrap(), NOW);
    // Nodes hear of the new root one after the other; each pair understands each other meanwhile.
    for client_roots in [&before, &during] {
        for server_roots in [&before, &during] {
            for manager in [&m_old, &m_new] {
                for worker in [&w_old, &w_new] {
                    let seen = handshake(call(client_roots, worker), serve(server_roots, manager));
                    assert!(seen.unwrap().is_some());
                }
            }
        }
    }
    // A token made before works with every manager, and so does one made now.
    for manager in [&m_old, &m_new] {
        assert!(handshake(join(token), serve(&during, manager)).is_ok());
    }
    assert!(handshake(join(new.digest()), serve(&during, &m_new)).is_ok());
    // When it is over the old root is worth nothing, and whoever comes with it is told what to do.
    let after = trusting(&[&new]);
    let refused = handshake(join(token), serve(&after, &m_new)).unwrap_err();
    assert_eq!(pin_error(&refused), Some(&PinError::OtherRoot));
    let text = PinError::OtherRoot.to_string();
    assert!(text.contains("rotated") && text.contains("warren cluster join-token"));
    assert!(handshake(call(&after, &w_old), serve(&after, &m_new)).is_err());
    assert!(handshake(call(&after, &w_new), serve(&after, &m_new)).is_ok());
    assert!(handshake(call(&before, &w_old), serve(&after, &m_new)).is_err());
}

/// Only the old root's own word makes the new one trusted.
#[test]
fn nobody_else_can_vouch() {
    let real = CertificateAuthority::generate(cluster(1), NOW, CA_VALIDITY).unwrap();
    let fake = CertificateAuthority::generate(cluster(1), NOW, CA_VALIDITY).unwrap();
    let manager = member(&fake, Role::Manager, NOW);
    let other = CertificateAuthority::generate(cluster(1), NOW, CA_VALIDITY).unwrap();
    let word = other.vouch_for(&fake, NOW).unwrap();
    let chain = manager.0.clone() + &word;
    let shown = trusting(&[&real, &fake, &other]);
    let server = server_config(&shown, &chain, &manager.1, ClientAuth::Optional).unwrap();
    let joiner = client_at(join_client_config(real.digest()).unwrap(), NOW);
    let refused = handshake(joiner, server_at(server, NOW)).unwrap_err();
    let why = pin_error(&refused);
    assert!(matches!(why, Some(PinError::NotByRoot { .. })), "{why:?}");
    let foreign = CertificateAuthority::generate(cluster(2), NOW, CA_VALIDITY).unwrap();
    assert!(matches!(
        real.vouch_for(&foreign, NOW),
        Err(CaError::OtherCluster { .. })
    ));
    assert!(matches!(real.with_cross(&word), Err(CaError::Load { .. })));
}

/// A worker's certificate, and even a manager's, cannot vouch for anything.
#[test]
fn a_member_cannot_issue() {
    let ca = CertificateAuthority::generate(cluster(1), NOW, CA_VALIDITY).unwrap();
    let (cert, key) = member(&ca, Role::Manager, NOW);
    assert!(CertificateAuthority::load(&cert, &key).is_err());
    let (from, until) = validity(&cert).unwrap();
    assert!(from < NOW && until > NOW);
}

fn renewal(old: &(String, String)) -> Renewal {
    make_renewal(&old.0, &old.1).unwrap()
}

/// Years after it ended, the old certificate still says who the node is; its key proves it.
#[test]
fn an_expired_certificate_is_renewed_with_its_key() {
    let ca = CertificateAuthority::generate(cluster(1), NOW, CA_VALIDITY).unwrap();
    let roots = trusting(&[&ca]);
    let old = member(&ca, Role::Worker, NOW);
    let asked = renewal(&old);
    let who = verify_renewal(&roots, &old.0, &asked.csr_pem, &asked.proof).unwrap();
    assert_eq!(who, node(&ca, Role::Worker, "n"));
    let later = Timestamp(NOW.0 + 5 * CERTIFICATE_VALIDITY.0);
    let issued = ca.issue(&asked.csr_pem, &who, &[], later, CERTIFICATE_VALIDITY);
    let (cert, key) = (issued.unwrap(), asked.key_pem.to_string());
    let m = member(&ca, Role::Manager, later);
    let server = server_config(&roots, &m.0, &m.1, ClientAuth::Required).unwrap();
    let call =
        |cert: &str, key: &str| client_at(client_config(&roots, Some((cert, key))).unwrap(), later);
    let seen = handshake(call(&cert, &key), server_at(server.clone(), later));
    assert_eq!(seen.unwrap(), Some(who));
    assert!(handshake(call(&old.0, &old.1), server_at(server, later)).is_err());
    // The renewed certificate is renewed in its turn, during a rotation too.
    let new = CertificateAuthority::generate(cluster(1), later, CA_VALIDITY).unwrap();
    let cross = ca.vouch_for(&new, later).unwrap();
    let new = new.with_cross(&cross).unwrap();
    let both = trusting(&[&ca, &new]);
    for (cert, key) in [(cert, key), member(&new, Role::Worker, later)] {
        let asked = make_renewal(&cert, &key).unwrap();
        assert!(verify_renewal(&both, &cert, &asked.csr_pem, &asked.proof).is_ok());
    }
}

#[test]
fn a_renewal_is_refused_to_everybody_else() {
    let ca = CertificateAuthority::generate(cluster(1), NOW, CA_VALIDITY).unwrap();
    let other = CertificateAuthority::generate(cluster(1), NOW, CA_VALIDITY).unwrap();
    let roots = trusting(&[&ca]);
    let old = member(&ca, Role::Worker, NOW);
    let asked = renewal(&old);
    let verify = |cert: &str, csr: &str, proof: &[u8]| verify_renewal(&roots, cert, csr, proof);
    // Who has the certificate (everybody who ever talked to the node) but not its key.
    let thief = renewal(&member(&ca, Role::Worker, NOW));
    let refused = verify(&old.0, &thief.csr_pem, &thief.proof);
    assert_eq!(refused, Err(RenewalError::BadProof));
    // A proof seen on the way is for its own request only.
    let refused = verify(&old.0, &thief.csr_pem, &asked.proof);
    assert_eq!(refused, Err(RenewalError::BadProof));
    // Nor for another certificate of the same key.
    let csr = warren_security::ca::csr_for_key(&old.1).unwrap();
    let who = node(&ca, Role::Manager, "n");
    let twin = ca
        .issue(&csr, &who, &[], NOW, CERTIFICATE_VALIDITY)
        .unwrap();
    let refused = verify(&twin, &asked.csr_pem, &asked.proof);
    assert_eq!(refused, Err(RenewalError::BadProof));
    // Another CA, which may well name the same cluster and node.
    let foreign = member(&other, Role::Manager, NOW);
    let forged = renewal(&foreign);
    let refused = verify(&foreign.0, &forged.csr_pem, &forged.proof);
    assert_eq!(refused, Err(RenewalError::Untrusted));
    // People are no nodes.
    let person = member(&ca, Role::Admin, NOW);
    let theirs = renewal(&person);
    let refused = verify(&person.0, &theirs.csr_pem, &theirs.proof);
    assert_eq!(refused, Err(RenewalError::NotANode));
    let refused = verify(&old.0, "", &asked.proof);
    assert!(matches!(refused, Err(RenewalError::BadRequest { .. })));
    assert!(matches!(
        verify("", &asked.csr_pem, &asked.proof),
        Err(RenewalError::NotOurs(_))
    ));
    assert!(matches!(
        verify_renewal(&[], &old.0, &asked.csr_pem, &asked.proof),
        Err(RenewalError::Roots { .. })
    ));
    let mismatched = make_renewal(&old.0, &foreign.1).err();
    assert!(matches!(mismatched, Some(RenewalError::OldKey { .. })));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Anything may be sent; nothing that was altered is accepted.
    #[test]
    fn altered_renewals_are_refused(at in any::<prop::sample::Index>(), bit in 0..8_u8, part in 0..3_u8, junk in proptest::collection::vec(any::<u8>(), 0..200)) {
        let ca = authority(5);
        let roots = trusting(&[&ca]);
        let old = member(&ca, Role::Worker, NOW);
        let asked = renewal(&old);
        let flip = |bytes: &mut Vec<u8>| {
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
        };
        let (mut cert, mut csr, mut proof) =
            (old.0.clone().into_bytes(), asked.csr_pem.clone().into_bytes(), asked.proof.clone());
        flip([&mut cert, &mut csr, &mut proof][usize::from(part)]);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let verdict = verify_renewal(&roots, &text(&cert), &text(&csr), &proof);
        // A flip in the white space of PEM changes nothing.
        if let Ok(who) = verdict {
            prop_assert!(part < 2);
            prop_assert_eq!(who, node(&ca, Role::Worker, "n"));
        }
        let junk_text = text(&junk);
        prop_assert!(verify_renewal(&roots, &junk_text, &junk_text, &junk).is_err());
        prop_assert!(verify_renewal(&roots, &old.0, &asked.csr_pem, &junk).is_err());
    }
}
