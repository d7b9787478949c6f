//! The first certificate and the next ones: nothing is sent to a stranger.

use crate::managers::{Leads, Manager, Quorum};
use crate::setup::{Authority, now};
use warren_api::{Limits, Transport};
use warren_client::join::{JoinRequest, renew_certificate, request_certificate};
use warren_client::{ErrorKind, v1};
use warren_security::ca::generate_key_and_csr;
use warren_security::token::{NewToken, TOKEN_TTL_DEFAULT, issue_token};
use warren_types::{Role, TokenId};

fn token_of(authority: &Authority) -> String {
    let new = NewToken {
        id: TokenId::from_u128(3),
        role: Role::Worker,
        ca: authority.ca.digest(),
        ttl: TOKEN_TTL_DEFAULT,
        uses: None,
    };
    let (_, token) = issue_token(new, now(), [7; 16]).unwrap();
    token.reveal().to_string()
}

fn request() -> JoinRequest {
    JoinRequest {
        csr_pem: generate_key_and_csr().unwrap().csr_pem,
        node_name: "w9".to_owned(),
        role: "worker".to_owned(),
        ..JoinRequest::default()
    }
}

#[tokio::test]
async fn a_join_goes_through_a_follower_and_its_answer_is_checked() {
    let quorum = Quorum::start(2).await;
    let addresses = quorum.addresses(&[1]);
    let token = token_of(&quorum.authority);
    // The memory refuses first: the manager's own words come through.
    let error = request_certificate(&addresses, &token, request())
        .await
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::PermissionDenied);
    assert!(error.message.contains("join token is not valid"), "{error}");
    let (name, caller) = quorum.managers[0].last_call();
    assert_eq!((name, caller.role), ("RequestCertificate", Role::None));
    assert!(matches!(caller.transport, Transport::Forwarded { .. }));
    let identity = quorum
        .authority
        .identity_of(Role::Worker, crate::memory::NODE_B);
    let issued = warren_api::IssuedCertificate {
        certificate_pem: identity.own.unwrap().0,
        key_pem: None,
        ca_pem: quorum.authority.ca.cert_pem().to_owned(),
        node: Some(crate::memory::NODE_B),
        cluster: warren_types::ClusterId::from_u128(1),
        cluster_name: "test".to_owned(),
        role: None,
        managers: Vec::new(),
    };
    let issue = |change: &dyn Fn(&mut warren_api::IssuedCertificate)| {
        let mut issued = issued.clone();
        change(&mut issued);
        *quorum.managers[0].memory.issued.lock().unwrap() = Some(issued);
    };
    issue(&|_| {});
    let answer = request_certificate(&addresses, &token, request()).await;
    let node = answer.unwrap().node_id;
    assert_eq!(node, crate::memory::NODE_B.to_string());
    let other = Authority::new(1);
    let wrong: [&dyn Fn(&mut warren_api::IssuedCertificate); 4] = [
        &|issued| issued.ca_pem = other.ca.cert_pem().to_owned(),
        &|issued| issued.certificate_pem = "none".to_owned(),
        &|issued| issued.node = Some(crate::memory::NODE_A),
        &|issued| issued.cluster = warren_types::ClusterId::from_u128(2),
    ];
    for change in wrong {
        issue(change);
        let answer = request_certificate(&addresses, &token, request()).await;
        assert_eq!(answer.unwrap_err().kind, ErrorKind::Internal);
    }
}

/// MT-04: a man in the middle with another CA, though of the same names, is sent nothing.
#[tokio::test]
async fn a_server_of_another_ca_gets_nothing() {
    let real = Authority::new(1);
    let other = Authority::new(1);
    let token = token_of(&real);
    let middle = Manager::start(&other, 0, Limits::default()).await;
    let addresses = [middle.address.to_string()];
    let error = request_certificate(&addresses, &token, request())
        .await
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::PermissionDenied, "{error}");
    assert!(error.remedy.contains("sent to nobody"), "{error}");
    assert!(error.message.contains("not of the cluster"), "{error}");
    assert!(middle.router.asked.lock().unwrap().is_empty());
    assert_eq!(middle.calls(), 0);
    // Beside the real one it does no harm.
    let good = Manager::start(&real, 1, Limits::default()).await;
    let both = [addresses[0].clone(), good.address.to_string()];
    let error = request_certificate(&both, &token, request())
        .await
        .unwrap_err();
    assert!(error.message.contains("join token is not valid"), "{error}");
    assert_eq!((middle.calls(), good.calls()), (0, 1));
    assert!(!format!("{error:?}").contains(&token));
}

#[tokio::test]
async fn what_is_no_token_reaches_nobody() {
    let quorum = Quorum::start(1).await;
    let addresses = quorum.addresses(&[0]);
    for text in ["", "WRN-1-short", "WRN-2-x-y-z"] {
        let error = request_certificate(&addresses, text, request())
            .await
            .unwrap_err();
        assert_eq!(error.kind, ErrorKind::InvalidArgument, "{error}");
    }
    assert!(quorum.managers[0].router.asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_join_without_quorum_says_that_nothing_was_taken() {
    let quorum = Quorum::start(1).await;
    quorum.managers[0].leads(Leads::Nobody);
    let token = token_of(&quorum.authority);
    let addresses = quorum.addresses(&[0]);
    let error = request_certificate(&addresses, &token, request())
        .await
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::NotTaken, "{error}");
    assert_eq!(quorum.managers[0].calls(), 0);
}

#[tokio::test]
async fn a_renewal_needs_no_certificate_in_the_handshake() {
    let quorum = Quorum::start(2).await;
    let own = quorum
        .authority
        .identity_of(Role::Worker, crate::memory::NODE_B)
        .own
        .unwrap();
    *quorum.managers[0].memory.renewed.lock().unwrap() = Some(v1::RenewCertificateResponse {
        certificate: own.0.clone().into_bytes(),
        role: "worker".to_owned(),
        ..Default::default()
    });
    let roots = [quorum.authority.ca.cert_pem().to_owned()];
    let request = v1::RenewCertificateRequest {
        certificate: own.0.clone().into_bytes(),
        csr: b"csr".to_vec(),
        proof: b"proof".to_vec(),
    };
    let addresses = quorum.addresses(&[1]);
    let answer = renew_certificate(&addresses, &roots, request.clone()).await;
    assert_eq!(answer.unwrap().role, "worker");
    let (name, caller) = quorum.managers[0].last_call();
    assert_eq!((name, caller.role), ("RenewCertificate", Role::None));
    *quorum.managers[0].memory.renewed.lock().unwrap() = None;
    let refused = renew_certificate(&addresses, &roots, request).await;
    assert_eq!(refused.unwrap_err().kind, ErrorKind::Unimplemented);
}
