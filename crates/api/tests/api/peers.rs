//! What managers say to each other.

use crate::managers::{Manager, QUICK, Quorum, node};
use crate::raw::{call, tls_channel};
use crate::setup::{PATIENCE, Running};
use crate::streams::until;
use bytes::Bytes;
use std::io::Cursor;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tonic::Code;
use warren_api::Limits;
use warren_client::{Client, ErrorKind, IdentitySource, PeerClient, Target};
use warren_proto::headers::PEER_MESSAGE_BYTES_MAX;
use warren_types::Role;

const HEADER: Bytes = Bytes::from_static(b"the header");

fn snapshot(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|n| (n / 3).to_le_bytes()[0]).collect()
}

#[tokio::test]
async fn messages_of_every_size_come_back() {
    let quorum = Quorum::start(2).await;
    let peer = quorum.peer(1, 0);
    for bytes in [0, 1, 100_000, PEER_MESSAGE_BYTES_MAX] {
        let message = Bytes::from(snapshot(bytes));
        let back = peer.call(7, message.clone(), PATIENCE).await.unwrap();
        assert!(back == message, "{bytes} bytes");
        let last = *quorum.managers[0]
            .peers
            .calls
            .lock()
            .unwrap()
            .last()
            .unwrap();
        assert_eq!(last, (node(1), 7, bytes));
    }
    let message = Bytes::from(snapshot(PEER_MESSAGE_BYTES_MAX + 100_000));
    let refused = peer.call(7, message, PATIENCE).await.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::InvalidArgument, "{refused}");
    assert_eq!(peer.read_index(QUICK).await.unwrap(), 17);
    let keys = peer.data_keys(&[(3, vec![3; 32])]).await.unwrap();
    assert_eq!(keys.len(), 3);
    assert_eq!(
        (keys[1].0, keys[1].1.as_slice()),
        (2, [2_u8; 32].as_slice())
    );
}

#[tokio::test]
async fn a_node_without_peers_says_so() {
    let running = Running::start().await;
    let identity = running.authority.identity(Role::Manager);
    let source = IdentitySource::new(identity).unwrap();
    let expect = warren_types::NodeId::from_u128(0xc);
    let peer = PeerClient::connect_lazy(running.address.to_string(), expect, &source);
    let error = peer.call(1, Bytes::new(), QUICK).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unimplemented, "{error}");
    assert!(error.message.contains("not a manager"), "{error}");
}

#[tokio::test]
async fn only_the_expected_manager_is_talked_to() {
    let quorum = Quorum::start(2).await;
    let identity = quorum.authority.identity_of(Role::Manager, node(5));
    let source = IdentitySource::new(identity).unwrap();
    let address = quorum.managers[1].address.to_string();
    let wrong = PeerClient::connect_lazy(address, node(0), &source);
    let error = wrong.call(1, Bytes::new(), QUICK).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::PermissionDenied);
    assert!(error.message.contains("another node answers at"), "{error}");
    assert!(quorum.managers[1].peers.calls.lock().unwrap().is_empty());
    // The other side looks as well: a worker's certificate opens nothing.
    let worker = quorum.authority.identity_of(Role::Worker, node(5));
    let source = IdentitySource::new(worker).unwrap();
    let address = quorum.managers[0].address.to_string();
    let peer = PeerClient::connect_lazy(address, node(0), &source);
    let error = peer.data_keys(&[]).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::PermissionDenied);
}

#[tokio::test]
async fn a_snapshot_arrives_and_a_broken_transfer_goes_on_where_it_ended() {
    let quorum = Quorum::start(2).await;
    let peers = Arc::clone(&quorum.managers[0].peers);
    let whole = snapshot(5_000_000);
    *peers.stall_after.lock().unwrap() = Some(2_000_000);
    let peer = quorum.peer(1, 0);
    let sending = {
        let (peer, whole) = (peer.clone(), whole.clone());
        tokio::spawn(async move { peer.send_snapshot(HEADER, Cursor::new(whole)).await })
    };
    until(|| peers.snapshot.lock().unwrap().len() >= 2_000_000).await;
    // The sender goes away in the middle.
    sending.abort();
    assert!(sending.await.unwrap_err().is_cancelled());
    // The receiver sees that without going on.
    until(|| Arc::strong_count(&peers.receiving) == 1).await;
    *peers.stall_after.lock().unwrap() = None;
    let answer = peer.send_snapshot(HEADER, Cursor::new(whole.clone())).await;
    assert_eq!(answer.unwrap(), "in force");
    assert!(*peers.snapshot.lock().unwrap() == whole);
    let offsets = peers.offsets.lock().unwrap().clone();
    assert!(offsets.len() == 2 && offsets[1] >= 2_000_000, "{offsets:?}");
    // All of it is there already: an empty rest is sent.
    let again = peer.send_snapshot(HEADER, Cursor::new(whole.clone())).await;
    assert_eq!(again.unwrap(), "in force");
    assert!(*peers.snapshot.lock().unwrap() == whole);
}

#[tokio::test]
async fn a_receiver_that_takes_nothing_holds_the_sender_back_and_no_heartbeat() {
    let quorum = Quorum::start(2).await;
    let peers = Arc::clone(&quorum.managers[0].peers);
    *peers.stall_after.lock().unwrap() = Some(1);
    let peer = quorum.peer(1, 0);
    let reader = Counted::new(64 * 1024 * 1024);
    let read = Arc::clone(&reader.read);
    let sending = {
        let peer = peer.clone();
        tokio::spawn(async move { peer.send_snapshot(HEADER, reader).await })
    };
    until(|| !peers.snapshot.lock().unwrap().is_empty()).await;
    for _ in 0..50 {
        peer.call(1, Bytes::from_static(b"beat"), QUICK)
            .await
            .unwrap();
        peer.read_index(QUICK).await.unwrap();
    }
    // What is under way is bounded by the windows, not by the snapshot.
    let ahead = read.load(std::sync::atomic::Ordering::SeqCst);
    assert!(ahead < 16 * 1024 * 1024, "{ahead} bytes were read ahead");
    sending.abort();
    peers.go_on.notify_one();
}

/// A file of zeros that counts what is read of it.
struct Counted {
    length: u64,
    at: u64,
    read: Arc<std::sync::atomic::AtomicU64>,
}

impl Counted {
    fn new(length: u64) -> Self {
        Self {
            length,
            at: 0,
            read: Arc::default(),
        }
    }
}

impl std::io::Read for Counted {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let left = usize::try_from(self.length - self.at).unwrap();
        let taken = left.min(into.len());
        into[..taken].fill(0);
        self.at += taken as u64;
        self.read
            .fetch_add(taken as u64, std::sync::atomic::Ordering::SeqCst);
        Ok(taken)
    }
}

#[tokio::test]
async fn pieces_that_do_not_follow_are_refused() {
    use prost::Message as _;
    let quorum = Quorum::start(1).await;
    let identity = quorum.authority.identity_of(Role::Manager, node(1));
    let channel = tls_channel(quorum.managers[0].address, &identity).await;
    let send = |chunk: warren_proto::peer::SnapshotChunk| {
        let channel = channel.clone();
        async move {
            let path = "/warren.peer.v1.Peer/SnapshotSend";
            call(&channel, path, chunk.encode_to_vec()).await
        }
    };
    let good = warren_proto::peer::SnapshotChunk {
        header: HEADER.to_vec(),
        offset: 0,
        data: vec![1; 10],
        last: true,
    };
    send(good.clone()).await.unwrap();
    let without_header = warren_proto::peer::SnapshotChunk {
        header: Vec::new(),
        ..good.clone()
    };
    let refused = send(without_header).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    let too_large = warren_proto::peer::SnapshotChunk {
        data: vec![0; 1024 * 1024 + 1],
        ..good.clone()
    };
    assert_eq!(
        send(too_large).await.unwrap_err().code(),
        Code::InvalidArgument
    );
    // An end that nobody says is a broken transfer: nothing may be put in force.
    let unended = warren_proto::peer::SnapshotChunk {
        last: false,
        ..good
    };
    assert_eq!(send(unended).await.unwrap_err().code(), Code::Unavailable);
}

#[tokio::test]
async fn a_crowd_of_clients_does_not_keep_managers_apart() {
    let limits = Limits {
        connections: 1,
        ..Limits::default()
    };
    let quorum = Quorum::with_limits(2, limits).await;
    let first = quorum.client(Role::Viewer, &[0]);
    first.status().await.unwrap();
    let waiting: Vec<_> = (0..5)
        .map(|_| {
            let target = Target::Tcp {
                addresses: quorum.addresses(&[0]),
                identity: quorum.authority.identity(Role::Viewer),
            };
            tokio::spawn(async move { Client::connect(target).await?.status().await })
        })
        .collect();
    quorum.peer(1, 0).read_index(QUICK).await.unwrap();
    first.status().await.unwrap();
    for task in waiting {
        task.abort();
    }
}

#[tokio::test]
async fn a_dead_peer_costs_its_callers_little_and_comes_back() {
    let mut quorum = Quorum::start(2).await;
    let peer = quorum.peer(1, 0);
    peer.read_index(QUICK).await.unwrap();
    let address = quorum.managers[0].address;
    quorum.managers[0].kill();
    let began = Instant::now();
    until_err(&peer).await;
    // Nobody listens: each call knows at once.
    for _ in 0..20 {
        peer.call(1, Bytes::new(), QUICK).await.unwrap_err();
    }
    assert!(
        began.elapsed() < Duration::from_secs(2),
        "{:?}",
        began.elapsed()
    );
    let back = Manager::start_at(&quorum.authority, 0, Limits::default(), address).await;
    assert_eq!(peer.read_index(QUICK).await.unwrap(), 17);
    drop(back);
}

async fn until_err(peer: &PeerClient) {
    let failing = async { while peer.read_index(QUICK).await.is_ok() {} };
    tokio::time::timeout(PATIENCE, failing)
        .await
        .expect("a dead manager answers");
}

#[tokio::test]
async fn a_renewed_identity_holds_for_the_next_call() {
    let quorum = Quorum::start(1).await;
    let source = IdentitySource::new(quorum.authority.identity_of(Role::Manager, node(1))).unwrap();
    let address = quorum.managers[0].address.to_string();
    let peer = PeerClient::connect_lazy(address, node(0), &source);
    peer.call(1, Bytes::new(), QUICK).await.unwrap();
    source
        .replace(quorum.authority.identity_of(Role::Manager, node(2)))
        .unwrap();
    peer.call(2, Bytes::new(), QUICK).await.unwrap();
    let calls = quorum.managers[0].peers.calls.lock().unwrap().clone();
    assert_eq!(calls, [(node(1), 1, 0), (node(2), 2, 0)]);
    let unusable = warren_client::TlsIdentity {
        ca_pem: vec!["no certificate".to_owned()],
        own: None,
    };
    assert_eq!(source.replace(unusable).unwrap_err().kind, ErrorKind::Local);
    peer.call(3, Bytes::new(), QUICK).await.unwrap();
}
