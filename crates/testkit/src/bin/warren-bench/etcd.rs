//! The reference of the quorum's figures: three members of etcd on the hosts of the lab, asked over its own gRPC API.

use crate::quorum::{Figures, VALUE_BYTES, run};
use prost::Message;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;
use warren_testkit::Managers;

/// How long the members may take to elect a leader.
const READY_LIMIT: Duration = Duration::from_secs(30);
/// Port for clients.
const CLIENT_PORT: u16 = 2379;
/// Port for the other members.
const PEER_PORT: u16 = 2380;

/// `etcdserverpb.PutRequest`, what is used of it.
#[derive(Clone, PartialEq, Message)]
struct PutRequest {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// `etcdserverpb.RangeRequest`, what is used of it: linearizable by default.
#[derive(Clone, PartialEq, Message)]
struct RangeRequest {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
}

/// An answer of which nothing but its coming counts.
#[derive(Clone, PartialEq, Message)]
struct Answer {}

/// `etcdserverpb.ResponseHeader`.
#[derive(Clone, PartialEq, Message)]
struct Header {
    #[prost(uint64, tag = "2")]
    member: u64,
}

/// `etcdserverpb.StatusResponse`, what is used of it.
#[derive(Clone, PartialEq, Message)]
struct Status {
    #[prost(message, optional, tag = "1")]
    header: Option<Header>,
    #[prost(uint64, tag = "4")]
    leader: u64,
}

/// The members; they end with this value.
pub(crate) struct Etcd {
    members: Vec<Child>,
    endpoints: Vec<String>,
}

impl Etcd {
    /// Starts a member on each of the managers' hosts.
    pub(crate) fn start(managers: &Managers) -> Result<Self, String> {
        let numbers = managers.members();
        let url = |number: usize, port: u16| format!("http://{}:{port}", managers.ip(number));
        let cluster: Vec<String> = numbers
            .iter()
            .map(|n| format!("e{n}={}", url(*n, PEER_PORT)))
            .collect();
        let cluster = cluster.join(",");
        let mut members = Vec::new();
        for number in &numbers {
            let node = managers.node(*number);
            let (peer, client) = (url(*number, PEER_PORT), url(*number, CLIENT_PORT));
            let child = node
                .host()
                .command("etcd")
                .args(["--name", &format!("e{number}")])
                .arg("--data-dir")
                .arg(node.directory().join("etcd"))
                .args([
                    "--listen-peer-urls",
                    &peer,
                    "--initial-advertise-peer-urls",
                    &peer,
                ])
                .args([
                    "--listen-client-urls",
                    &client,
                    "--advertise-client-urls",
                    &client,
                ])
                .args([
                    "--initial-cluster",
                    &cluster,
                    "--initial-cluster-state",
                    "new",
                ])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn();
            members.push(child.map_err(|e| format!("etcd: {e} (Debian package etcd-server)"))?);
        }
        let endpoints = numbers.iter().map(|n| url(*n, CLIENT_PORT)).collect();
        Ok(Self { members, endpoints })
    }

    pub(crate) fn endpoints(&self) -> Vec<String> {
        self.endpoints.clone()
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        for member in &mut self.members {
            // One that has ended by itself is gone, too.
            let _ = member.kill();
            let _ = member.wait();
        }
    }
}

async fn ask<A, B>(channel: &Channel, path: &'static str, request: A) -> Result<B, String>
where
    A: Message + Send + Sync + 'static,
    B: Message + Default + Send + Sync + 'static,
{
    let mut grpc = Grpc::new(channel.clone());
    grpc.ready().await.map_err(|e| e.to_string())?;
    let answer = grpc.unary(
        tonic::Request::new(request),
        PathAndQuery::from_static(path),
        ProstCodec::<A, B>::default(),
    );
    answer
        .await
        .map(tonic::Response::into_inner)
        .map_err(|e| e.to_string())
}

/// A connection to the leader.
async fn leader(endpoints: &[String]) -> Result<Channel, String> {
    let begin = Instant::now();
    loop {
        for endpoint in endpoints {
            let Ok(endpoint) = Endpoint::from_shared(endpoint.clone()) else {
                continue;
            };
            let Ok(channel) = endpoint.connect().await else {
                continue;
            };
            let status =
                ask::<Answer, Status>(&channel, "/etcdserverpb.Maintenance/Status", Answer {});
            if let Ok(status) = status.await
                && status.leader != 0
                && status
                    .header
                    .is_some_and(|header| header.member == status.leader)
            {
                return Ok(channel);
            }
        }
        if begin.elapsed() > READY_LIMIT {
            return Err("etcd has no leader".to_owned());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// The same calls as ours.
pub(crate) async fn measure(endpoints: Vec<String>) -> Result<Figures, String> {
    let channel = leader(&endpoints).await?;
    let write = {
        let channel = channel.clone();
        move |number: usize| {
            let channel = channel.clone();
            async move {
                let request = PutRequest {
                    key: format!("b-{number}").into_bytes(),
                    value: vec![b'x'; VALUE_BYTES],
                };
                ask::<_, Answer>(&channel, "/etcdserverpb.KV/Put", request)
                    .await
                    .map(drop)
            }
        }
    };
    let read = move |_: usize| {
        let channel = channel.clone();
        async move {
            let request = RangeRequest {
                key: b"b-0".to_vec(),
            };
            ask::<_, Answer>(&channel, "/etcdserverpb.KV/Range", request)
                .await
                .map(drop)
        }
    };
    run(write, read).await
}
