//! The metrics address: plain HTTP, spoken by hand.

use crate::setup::PATIENCE;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use warren_api::{Telemetry, serve_metrics};

#[derive(Default)]
struct Fixed {
    broken: AtomicBool,
}

type Parts = BTreeMap<String, Result<String, String>>;

impl Telemetry for Fixed {
    fn metrics(&self) -> String {
        assert!(!self.broken.load(Ordering::SeqCst), "asked for by the test");
        "# TYPE warren_raft_quorum gauge\nwarren_raft_quorum 1\n".to_owned()
    }
    fn health(&self) -> Parts {
        Parts::from([("raft".to_owned(), Ok("healthy".to_owned()))])
    }
    fn ready(&self) -> Parts {
        let raft = if self.broken.load(Ordering::SeqCst) {
            Err("no leader elected".to_owned())
        } else {
            Ok("leader".to_owned())
        };
        Parts::from([
            ("raft".to_owned(), raft),
            ("api".to_owned(), Ok("ready".to_owned())),
        ])
    }
    fn version(&self) -> String {
        "1.2.3".to_owned()
    }
}

struct Served {
    address: SocketAddr,
    telemetry: Arc<Fixed>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

async fn served() -> Served {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let telemetry = Arc::new(Fixed::default());
    let (stop, stopped) = oneshot::channel::<()>();
    let told = Arc::clone(&telemetry) as Arc<dyn Telemetry>;
    let task = tokio::spawn(serve_metrics(listener, told, async {
        drop(stopped.await);
    }));
    Served {
        address,
        telemetry,
        stop,
        task,
    }
}

/// The whole answer to these bytes.
async fn ask(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // A refused request may be answered before all of it is written.
    drop(stream.write_all(request.as_bytes()).await);
    let mut answer = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
    drop(read.expect("the connection stays open"));
    String::from_utf8(answer).unwrap()
}

async fn get(address: SocketAddr, path: &str) -> (String, String) {
    let answer = ask(address, &format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n")).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}

#[tokio::test]
async fn metrics_health_and_readiness_are_told_as_they_are() {
    let served = served().await;
    let (head, body) = get(served.address, "/metrics").await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert!(head.contains("text/plain; version=0.0.4"), "{head}");
    assert!(body.ends_with("warren_raft_quorum 1\n"), "{body}");
    let json = |body: &str| -> serde_json::Value { serde_json::from_str(body).unwrap() };
    for (path, status) in [
        ("/health", "healthy"),
        ("/ready", "ready"),
        ("/live", "alive"),
    ] {
        let (head, body) = get(served.address, path).await;
        assert!(head.starts_with("HTTP/1.1 200"), "{path}: {head}");
        assert_eq!(json(&body)["status"], status, "{path}");
        assert!(json(&body)["uptime"].is_string());
    }
    let (_, body) = get(served.address, "/ready?verbose").await;
    let ready = json(&body);
    assert_eq!(ready["components"]["raft"], "leader");
    assert_eq!(ready["version"], "1.2.3");
    assert_eq!(ready["message"], serde_json::Value::Null);
    served.telemetry.broken.store(true, Ordering::SeqCst);
    let (head, body) = get(served.address, "/ready").await;
    assert!(head.starts_with("HTTP/1.1 503"), "{head}");
    let ready = json(&body);
    assert_eq!(ready["status"], "not_ready");
    assert_eq!(ready["components"]["raft"], "not ready: no leader elected");
    assert_eq!(ready["message"], "raft: no leader elected");
    // A panic is an answer too, and the next one comes.
    let (head, _) = get(served.address, "/metrics").await;
    assert!(head.starts_with("HTTP/1.1 500"), "{head}");
    let (head, _) = get(served.address, "/health").await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
}

#[tokio::test]
async fn what_is_not_asked_for_properly_is_refused() {
    let served = served().await;
    let (head, body) = get(served.address, "/debug").await;
    assert!(head.starts_with("HTTP/1.1 404"), "{head}");
    assert!(body.contains("/metrics"), "{body}");
    let post = ask(
        served.address,
        "POST /metrics HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n",
    )
    .await;
    assert!(post.starts_with("HTTP/1.1 405"), "{post}");
    assert!(post.contains("allow: GET, HEAD"), "{post}");
    let head = ask(served.address, "HEAD /metrics HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert!(
        head.starts_with("HTTP/1.1 200") && head.ends_with("\r\n\r\n"),
        "{head}"
    );
    for nonsense in [
        "nonsense\r\n\r\n".to_owned(),
        format!(
            "GET / HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n",
            "y".repeat(64 * 1024)
        ),
        format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(100)),
    ] {
        let answer = ask(served.address, &nonsense).await;
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 4"),
            "{answer}"
        );
    }
    let (head, _) = get(served.address, "/live").await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
}

#[tokio::test]
async fn silent_connections_end_and_a_crowd_of_them_does_not_stay() {
    let served = served().await;
    // One more than there are places; they say nothing.
    let mut silent = Vec::new();
    for _ in 0..65 {
        silent.push(TcpStream::connect(served.address).await.unwrap());
    }
    // The one after them waits until the first ones have had their time.
    let (head, _) = tokio::time::timeout(PATIENCE, get(served.address, "/live"))
        .await
        .expect("silent connections keep everybody out");
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    drop(served.stop);
    tokio::time::timeout(PATIENCE, served.task)
        .await
        .expect("it does not stop")
        .unwrap();
}
