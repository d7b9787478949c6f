//! Binding, TLS, stopping.

use crate::raw::{call, tls_channel};
use crate::setup::{Authority, PATIENCE, Running};
use futures::StreamExt as _;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use warren_api::{ApiConfig, BindError, Limits, Server};
use warren_client::{Client, ErrorKind, Target, TlsIdentity, v1};
use warren_types::Role;

#[tokio::test]
async fn a_manager_of_another_cluster_is_not_trusted() {
    let running = Running::start().await;
    let other = Authority::new(2);
    let error = Client::connect(running.target_with(other.identity(Role::Admin)))
        .await
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::PermissionDenied, "{error}");
    assert_eq!(error.exit_code(), 6);
}

#[tokio::test]
async fn a_certificate_of_another_cluster_gets_no_answer() {
    let running = Running::start().await;
    let other = Authority::new(2);
    let identity = TlsIdentity {
        ca_pem: running.authority.identity(Role::None).ca_pem,
        own: Some(other.certificate(Role::Admin)),
    };
    // In TLS 1.3 the client is done before the server has looked at its certificate, so the refusal may
    // show at the connection or at the first call.
    let refused = match Client::connect(running.target_with(identity)).await {
        Err(error) => error,
        Ok(client) => client.status().await.unwrap_err(),
    };
    assert!(
        matches!(
            refused.kind,
            ErrorKind::Unavailable | ErrorKind::PermissionDenied
        ),
        "{refused:?}"
    );
    assert_eq!(running.calls(), 0);
}

#[tokio::test]
async fn tls_1_2_is_refused() {
    let running = Running::start().await;
    let mut roots = rustls::RootCertStore::empty();
    let pem = running.authority.ca.cert_pem().to_owned();
    use rustls::pki_types::pem::PemObject as _;
    roots
        .add(rustls::pki_types::CertificateDer::from_pem_slice(pem.as_bytes()).unwrap())
        .unwrap();
    for (version, works) in [
        (&rustls::version::TLS12, false),
        (&rustls::version::TLS13, true),
    ] {
        let config = rustls::ClientConfig::builder_with_provider(Arc::new(
            rustls::crypto::ring::default_provider(),
        ))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots.clone())
        .with_no_client_auth();
        let tcp = TcpStream::connect(running.address).await.unwrap();
        let result = TlsConnector::from(Arc::new(config))
            .connect(warren_security::server_name(), tcp)
            .await;
        assert_eq!(result.is_ok(), works, "{version:?}");
    }
}

#[tokio::test]
async fn plain_text_on_the_tls_port_gets_no_answer() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let running = Running::start().await;
    let mut tcp = TcpStream::connect(running.address).await.unwrap();
    tcp.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        .await
        .unwrap();
    let mut answer = Vec::new();
    // A reset is as good as an end.
    let read = tokio::time::timeout(PATIENCE, tcp.read_to_end(&mut answer)).await;
    drop(read.expect("the connection stays open"));
    assert!(!answer.windows(4).any(|w| w == b"HTTP"), "{answer:?}");
    // And the server lives.
    running.client(Role::Viewer).await.status().await.unwrap();
}

#[tokio::test]
async fn changed_tls_settings_hold_for_new_connections() {
    let running = Running::start().await;
    let before = running.client(Role::Viewer).await;
    before.status().await.unwrap();
    let renewed = Authority::new(1);
    running.tls.replace(renewed.server_config());
    let after = Client::connect(running.target_with(renewed.identity(Role::Viewer)))
        .await
        .unwrap();
    after.status().await.unwrap();
    // The old connection lives on.
    before.status().await.unwrap();
    assert!(Client::connect(running.target(Role::Viewer)).await.is_err());
}

#[tokio::test]
async fn the_client_goes_on_to_the_next_address() {
    let running = Running::start().await;
    // A port that was free a moment ago and is closed now.
    let closed = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().to_string()
    };
    let identity = running.authority.identity(Role::Viewer);
    let target = |addresses: Vec<String>| Target::Tcp {
        addresses,
        identity: identity.clone(),
    };
    let both = target(vec![closed.clone(), running.address.to_string()]);
    Client::connect(both).await.unwrap().status().await.unwrap();
    let error = Client::connect(target(vec![closed.clone()]))
        .await
        .unwrap_err();
    assert_eq!(error.exit_code(), 3);
    assert!(error.message.contains(&closed), "{error}");
}

#[tokio::test]
async fn without_a_daemon_the_error_says_how_to_start_one() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("none.sock");
    let error = Client::connect(Target::Unix(socket)).await.unwrap_err();
    assert_eq!(error.exit_code(), 3);
    assert!(error.to_string().contains("warren up"), "{error}");
}

#[tokio::test]
async fn what_is_taken_is_named() {
    let running = Running::start().await;
    let tcp = |address| ApiConfig {
        tcp: Some((address, running.tls.clone())),
        ..ApiConfig::default()
    };
    let taken = Server::bind(tcp(running.address)).await;
    let text = match taken {
        Err(error @ BindError::PortTaken(_)) => error.to_string(),
        other => panic!("{:?}", other.map(|_| ())),
    };
    assert!(text.contains(&running.address.port().to_string()), "{text}");
    let unix = |path: &std::path::Path| ApiConfig {
        unix: Some(path.to_owned()),
        ..ApiConfig::default()
    };
    assert!(matches!(
        Server::bind(unix(&running.socket)).await,
        Err(BindError::SocketInUse(_))
    ));
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("precious");
    std::fs::write(&file, "data").unwrap();
    assert!(matches!(
        Server::bind(unix(&file)).await,
        Err(BindError::NotASocket(_))
    ));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "data");
    let nowhere = dir.path().join("no/such/dir.sock");
    assert!(matches!(
        Server::bind(unix(&nowhere)).await,
        Err(BindError::Unix { .. })
    ));
}

#[tokio::test]
async fn a_socket_left_by_a_killed_daemon_is_replaced_and_ours_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.sock");
    // The listener is gone, its file stays: what kill -9 leaves.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let server = Server::bind(ApiConfig {
        unix: Some(path.clone()),
        ..ApiConfig::default()
    })
    .await
    .unwrap();
    let memory = Arc::new(crate::memory::Memory::default());
    server.run(memory, std::future::ready(())).await.unwrap();
    assert!(!path.exists());
}

#[tokio::test]
async fn stopping_ends_long_streams_and_lets_short_calls_finish() {
    let mut running = Running::start().await;
    let client = running.client(Role::Admin).await;
    let mut events = client
        .stream_events(v1::StreamEventsRequest::default())
        .await
        .unwrap();
    events.next().await.unwrap().unwrap();
    let gate = Arc::new(tokio::sync::Notify::new());
    *running.memory.gate.lock().unwrap() = Some(Arc::clone(&gate));
    let creating = {
        let client = client.clone();
        tokio::spawn(async move { client.create_service(&crate::calls::spec("late")).await })
    };
    crate::streams::until(|| running.calls() == 2).await;
    running.signal_stop();
    let last = tokio::time::timeout(PATIENCE, events.next())
        .await
        .expect("the stream goes on")
        .unwrap();
    assert_eq!(last.unwrap_err().kind, ErrorKind::Unavailable);
    gate.notify_one();
    creating.await.unwrap().unwrap();
    running.ended().await.unwrap();
}

#[tokio::test]
async fn a_stuck_call_does_not_hold_up_the_stop() {
    let limits = Limits {
        drain: Duration::from_millis(200),
        ..Limits::default()
    };
    let mut running = Running::with_limits(limits).await;
    let client = running.client(Role::Viewer).await;
    let stuck = tokio::spawn(async move { client.get_service("hang").await });
    crate::streams::until(|| running.calls() == 1).await;
    running.signal_stop();
    running.ended().await.unwrap();
    stuck.abort();
}

#[tokio::test]
async fn a_message_above_the_limit_is_refused() {
    let limits = Limits {
        message_bytes: 10_000,
        ..Limits::default()
    };
    let running = Running::with_limits(limits).await;
    let identity = running.authority.identity(Role::Admin);
    let channel = tls_channel(running.address, &identity).await;
    let path = "/warren.v1.WarrenAPI/CreateSecret";
    let refused = call(&channel, path, vec![0; 10_001]).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::OutOfRange);
    assert_eq!(running.calls(), 0);
}

#[tokio::test]
async fn connections_above_the_limit_wait_and_the_local_socket_stays_open() {
    let limits = Limits {
        connections: 1,
        ..Limits::default()
    };
    let running = Running::with_limits(limits).await;
    let first = running.client(Role::Viewer).await;
    first.status().await.unwrap();
    let target = running.target(Role::Viewer);
    let second = tokio::spawn(async move { Client::connect(target).await?.status().await });
    // While the second waits, the socket answers and the first goes on.
    running.local().await.status().await.unwrap();
    first.status().await.unwrap();
    assert!(!second.is_finished());
    drop(first);
    tokio::time::timeout(PATIENCE, second)
        .await
        .expect("the place is not given on")
        .unwrap()
        .unwrap();
}
