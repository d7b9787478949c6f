//! How much goes over the line for many calls on one connection.

use crate::setup::Running;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use warren_client::{Client, Target};
use warren_types::Role;

const CALLERS: usize = 32;
const CALLS_EACH: usize = 20;
/// Kind, version, length (RFC 8446, section 5.1).
const RECORD_HEAD: usize = 5;

/// Passes TLS records on and counts them.
async fn relay(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, records: Arc<AtomicUsize>) {
    let mut head = [0; RECORD_HEAD];
    while from.read_exact(&mut head).await.is_ok() {
        let mut body = vec![0; u16::from_be_bytes([head[3], head[4]]).into()];
        from.read_exact(&mut body).await.unwrap();
        records.fetch_add(1, Ordering::Relaxed);
        to.write_all(&[&head[..], &body].concat()).await.unwrap();
    }
}

/// Each record is a system call and a packet for both ends, which cost more than a small call itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_and_answers_of_one_connection_travel_together() {
    let running = Running::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = Target::Tcp {
        addresses: vec![listener.local_addr().unwrap().to_string()],
        identity: running.authority.identity(Role::Viewer),
    };
    let (asked, answered) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
    let server = running.address;
    let counters = (Arc::clone(&asked), Arc::clone(&answered));
    tokio::spawn(async move {
        let (client, _) = listener.accept().await.unwrap();
        let server = TcpStream::connect(server).await.unwrap();
        client.set_nodelay(true).unwrap();
        server.set_nodelay(true).unwrap();
        let ((from_client, to_client), (from_server, to_server)) =
            (client.into_split(), server.into_split());
        tokio::spawn(relay(from_client, to_server, counters.0));
        relay(from_server, to_client, counters.1).await;
    });
    let client = Client::connect(target).await.unwrap();
    client.status().await.unwrap();
    let before = (
        asked.load(Ordering::Relaxed),
        answered.load(Ordering::Relaxed),
    );
    let callers: Vec<_> = (0..CALLERS)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move {
                for _ in 0..CALLS_EACH {
                    client.status().await.unwrap();
                }
            })
        })
        .collect();
    for caller in callers {
        caller.await.unwrap();
    }
    let (asked, answered) = (
        asked.load(Ordering::Relaxed) - before.0,
        answered.load(Ordering::Relaxed) - before.1,
    );
    let calls = CALLERS * CALLS_EACH;
    assert!(asked < calls / 3, "{asked} records for {calls} calls");
    assert!(
        answered < calls / 3,
        "{answered} records for {calls} answers"
    );
}
