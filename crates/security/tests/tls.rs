//! Certificates and TLS together: real handshakes in memory.

mod common;

use common::*;
use proptest::prelude::*;
use warren_security::ca::{CA_VALIDITY, CERTIFICATE_VALIDITY, CLOCK_SKEW};
use warren_security::identity::{renew_at, validity};
use warren_security::*;
use warren_types::{NodeId, Role, Timestamp};

#[test]
fn mutual_tls_tells_the_server_who_calls() {
    let ca = authority(1);
    let seen = handshake(
        client(&ca, &ca, Role::Worker),
        server(&ca, Role::Manager, ClientAuth::Required),
    );
    assert_eq!(seen.unwrap(), Some(node(&ca, Role::Worker, "c1")));
    let seen = handshake(
        client(&ca, &ca, Role::Admin),
        server(&ca, Role::Manager, ClientAuth::Optional),
    );
    assert_eq!(seen.unwrap(), Some(node(&ca, Role::Admin, "c1")));
}

#[test]
fn strangers_are_refused_both_ways() {
    let (ca, other) = (authority(1), authority(2));
    // A client of another cluster, or without a certificate.
    let strange = client(&other, &ca, Role::Admin);
    assert!(
        handshake(
            strange.clone(),
            server(&ca, Role::Manager, ClientAuth::Required)
        )
        .is_err()
    );
    assert!(handshake(strange, server(&ca, Role::Manager, ClientAuth::Optional)).is_err());
    let roots = [ca.cert_pem().to_owned()];
    let bare = client_config(&roots, None).unwrap();
    assert!(
        handshake(
            bare.clone(),
            server(&ca, Role::Manager, ClientAuth::Required)
        )
        .is_err()
    );
    assert_eq!(
        handshake(
            bare.clone(),
            server(&ca, Role::Manager, ClientAuth::Optional)
        )
        .unwrap(),
        None
    );
    // A worker cannot pass for a manager, nor another cluster for this one.
    assert!(
        handshake(
            bare.clone(),
            server(&ca, Role::Worker, ClientAuth::Optional)
        )
        .is_err()
    );
    assert!(handshake(bare, server(&other, Role::Manager, ClientAuth::Optional)).is_err());
}

/// S1: the joiner verifies the cluster by the digest in the token, before anything is sent.
#[test]
fn a_joiner_trusts_the_pinned_root_only() {
    let (ca, other) = (authority(1), authority(1));
    let join = |digest| join_client_config(digest).unwrap();
    assert!(
        handshake(
            join(ca.digest()),
            server(&ca, Role::Manager, ClientAuth::Optional)
        )
        .is_ok()
    );
    assert!(
        handshake(
            join(ca.digest()),
            server(&other, Role::Manager, ClientAuth::Optional)
        )
        .is_err()
    );
    assert!(
        handshake(
            join(ca.digest()),
            server(&ca, Role::Worker, ClientAuth::Optional)
        )
        .is_err()
    );
    // The man in the middle shows the true root beside its own certificate.
    let (cert, key) = other
        .issue_with_key(&node(&other, Role::Manager, "m"), &[], NOW, LONG)
        .unwrap();
    let fake = server_config(
        &[ca.cert_pem().to_owned()],
        &cert,
        &key,
        ClientAuth::Optional,
    )
    .unwrap();
    assert!(handshake(join(ca.digest()), fake).is_err());
}

/// During a CA rotation both roots are trusted.
#[test]
fn two_roots_are_trusted_in_a_rotation() {
    let (old, new) = (authority(1), authority(1));
    let roots = [old.cert_pem().to_owned(), new.cert_pem().to_owned()];
    let (cert, key) = new
        .issue_with_key(&node(&new, Role::Manager, "m"), &[], NOW, LONG)
        .unwrap();
    let server = || server_config(&roots, &cert, &key, ClientAuth::Required).unwrap();
    let (c_cert, c_key) = old
        .issue_with_key(&node(&old, Role::Worker, "w"), &[], NOW, LONG)
        .unwrap();
    let both = client_config(&roots, Some((&c_cert, &c_key))).unwrap();
    assert!(handshake(both, server()).is_ok());
    let only_old = client(&old, &old, Role::Worker);
    assert!(handshake(only_old, server()).is_err());
}

#[test]
fn authority_survives_store_and_load() {
    let ca = authority(3);
    let loaded = CertificateAuthority::load(ca.cert_pem(), &ca.key_pem()).unwrap();
    assert_eq!(
        (loaded.cluster(), loaded.digest()),
        (ca.cluster(), ca.digest())
    );
    assert_eq!(
        ca.digest().to_string().parse::<CaDigest>().unwrap(),
        ca.digest()
    );
    let served = handshake(
        client(&loaded, &ca, Role::Viewer),
        server(&ca, Role::Manager, ClientAuth::Required),
    );
    assert_eq!(served.unwrap().unwrap().role, Role::Viewer);
    let foreign = authority(3);
    assert!(matches!(
        CertificateAuthority::load(ca.cert_pem(), &foreign.key_pem()),
        Err(CaError::Load { .. })
    ));
    assert!(CertificateAuthority::load("", "").is_err());
}

#[test]
fn validity_allows_for_wrong_clocks_and_renewal_is_at_half_life() {
    let ca = CertificateAuthority::generate(cluster(1), NOW, CA_VALIDITY).unwrap();
    let who = node(&ca, Role::Worker, "w");
    let (cert, _) = ca
        .issue_with_key(&who, &[], NOW, CERTIFICATE_VALIDITY)
        .unwrap();
    let (from, until) = validity(&cert).unwrap();
    assert_eq!(
        (from, until),
        (
            Timestamp(NOW.0 - CLOCK_SKEW.0),
            NOW.plus(CERTIFICATE_VALIDITY)
        )
    );
    let life = until.since(from).0;
    for jitter in [0, 1, u64::MAX] {
        let at = renew_at(&cert, jitter).unwrap();
        assert!(at.0 >= from.0 + life / 2 && at.0 < from.0 + life * 6 / 10);
    }
}

#[test]
fn requests_and_names_that_do_not_fit_are_refused() {
    let ca = authority(1);
    let fresh = generate_key_and_csr().unwrap();
    let issue =
        |csr: &str, who: &Identity, names: &[SubjectName]| ca.issue(csr, who, names, NOW, LONG);
    let worker = node(&ca, Role::Worker, "w");
    assert!(
        issue(
            &fresh.csr_pem,
            &worker,
            &["db.example".into(), "10.0.0.1".into()]
        )
        .is_ok()
    );
    for name in [
        "manager.warren",
        "Manager.WARREN",
        "warren",
        "a b",
        "",
        "x..y",
        "-a",
    ] {
        assert!(
            issue(
                &fresh.csr_pem,
                &worker,
                &[SubjectName::Dns(name.to_owned())]
            )
            .is_err(),
            "{name:?}"
        );
    }
    let mut elsewhere = worker.clone();
    elsewhere.cluster = cluster(9);
    assert!(matches!(
        issue(&fresh.csr_pem, &elsewhere, &[]),
        Err(CaError::OtherCluster { .. })
    ));
    let mut nameless = worker.clone();
    nameless.name = "a/b".to_owned();
    assert!(matches!(
        issue(&fresh.csr_pem, &nameless, &[]),
        Err(CaError::Identity(_))
    ));
    let mut homeless = worker.clone();
    homeless.node = None;
    assert!(issue(&fresh.csr_pem, &homeless, &[]).is_err());
    let mut nobody = worker.clone();
    nobody.role = Role::None;
    assert!(issue(&fresh.csr_pem, &nobody, &[]).is_err());
    // A request whose signature is not by its own key.
    let mut body: Vec<char> = fresh.csr_pem.chars().collect();
    let at = body.len() - 60;
    body[at] = if body[at] == 'A' { 'B' } else { 'A' };
    let forged: String = body.into_iter().collect();
    assert!(matches!(
        issue(&forged, &worker, &[]),
        Err(CaError::BadRequest { .. })
    ));
    assert!(issue("", &worker, &[]).is_err());
    assert!(issue(&"x".repeat(100_000), &worker, &[]).is_err());
}

#[test]
fn a_certificate_that_is_not_ours_has_no_identity() {
    let ca = authority(1);
    assert!(identity_from_pem(ca.cert_pem()).is_err());
    assert!(identity_from_der(b"no certificate").is_err());
    assert!(identity_from_pem("").is_err());
    let wrong_key = generate_key_and_csr().unwrap();
    let (cert, _) = ca
        .issue_with_key(&node(&ca, Role::Manager, "m"), &[], NOW, LONG)
        .unwrap();
    let roots = [ca.cert_pem().to_owned()];
    assert!(server_config(&roots, &cert, &wrong_key.key_pem, ClientAuth::Required).is_err());
    assert!(server_config(&[], &cert, &wrong_key.key_pem, ClientAuth::Required).is_err());
    assert!(client_config(&["junk".to_owned()], None).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    /// What is written into a certificate is read out of it.
    #[test]
    fn identities_round_trip(
        name in "[a-zA-Z0-9]([a-zA-Z0-9._@-]{0,61}[a-z0-9])?", role in 1_usize..6, node in any::<u128>(),
    ) {
        let role = [Role::None, Role::Worker, Role::Manager, Role::Viewer, Role::Operator, Role::Admin][role];
        let ca = authority(5);
        let is_node = matches!(role, Role::Worker | Role::Manager);
        let identity = Identity {
            cluster: ca.cluster(), role, name, node: is_node.then(|| NodeId::from_u128(node)),
        };
        let (cert, _) = ca.issue_with_key(&identity, &[], NOW, LONG).unwrap();
        prop_assert_eq!(identity_from_pem(&cert).unwrap(), identity);
    }

    /// Peers may send anything.
    #[test]
    fn identity_parser_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..400), at in any::<usize>()) {
        let _ = identity_from_der(&bytes);
        let ca = authority(5);
        let (cert, _) = ca.issue_with_key(&node(&ca, Role::Worker, "w"), &[], NOW, LONG).unwrap();
        let mut text = cert.into_bytes();
        let at = at % text.len();
        text[at] = bytes.first().copied().unwrap_or(b'A');
        let _ = identity_from_pem(&String::from_utf8_lossy(&text));
    }
}
