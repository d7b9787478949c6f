//! The reference of the quorum's figures: three members of etcd on the hosts of the lab, asked over its own gRPC API.

use crate::etcd_tls::{self, Authority};
use crate::quorum::{Figures, Round, VALUE_BYTES};
use prost::Message;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic_prost::ProstCodec;
use warren_client::Http2;
use warren_security::server_name;
use warren_testkit::Managers;

/// How long the members may take to elect a leader.
const READY_LIMIT: Duration = Duration::from_secs(30);
/// Ports without TLS: for clients, for the other members.
const PLAIN_PORTS: (u16, u16) = (2379, 2380);
/// Likewise with TLS.
const TLS_PORTS: (u16, u16) = (2479, 2480);

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
    endpoints: Endpoints,
}

/// Where the members are, and how they are spoken to.
#[derive(Clone)]
pub(crate) struct Endpoints {
    addresses: Vec<String>,
    tls: Option<TlsConnector>,
}

impl Etcd {
    /// Starts a member on each of the managers' hosts; with TLS both clients and members show certificates.
    pub(crate) fn start(managers: &Managers, with_tls: bool) -> Result<Self, String> {
        let numbers = managers.members();
        let authority = with_tls.then(Authority::new).transpose()?;
        let (client_port, peer_port) = if with_tls { TLS_PORTS } else { PLAIN_PORTS };
        let scheme = if with_tls { "https" } else { "http" };
        let url = |number: usize, port: u16| format!("{scheme}://{}:{port}", managers.ip(number));
        let cluster: Vec<String> = numbers
            .iter()
            .map(|n| format!("e{n}={}", url(*n, peer_port)))
            .collect();
        let cluster = cluster.join(",");
        let mut members = Vec::new();
        for number in &numbers {
            let node = managers.node(*number);
            let (peer, client) = (url(*number, peer_port), url(*number, client_port));
            let mut command = node.host().command("etcd");
            command
                .args(["--name", &format!("e{number}")])
                .arg("--data-dir")
                .arg(node.directory().join(format!("etcd-{scheme}")))
                .args(["--listen-peer-urls", &peer])
                .args(["--initial-advertise-peer-urls", &peer])
                .args(["--listen-client-urls", &client])
                .args(["--advertise-client-urls", &client])
                .args(["--initial-cluster", &cluster])
                .args(["--initial-cluster-state", "new"]);
            if let Some(authority) = &authority {
                let files = authority.member(node.directory(), *number, managers.ip(*number))?;
                certify(&mut command, &files);
            }
            let child = command
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn();
            members.push(child.map_err(|e| format!("etcd: {e} (Debian package etcd-server)"))?);
        }
        let addresses = numbers
            .iter()
            .map(|n| format!("{}:{client_port}", managers.ip(*n)))
            .collect();
        let tls = authority.as_ref().map(Authority::connector).transpose()?;
        let endpoints = Endpoints { addresses, tls };
        Ok(Self { members, endpoints })
    }

    /// The members' processes.
    pub(crate) fn pids(&self) -> Vec<u32> {
        self.members.iter().map(Child::id).collect()
    }

    pub(crate) fn endpoints(&self) -> Endpoints {
        self.endpoints.clone()
    }
}

/// Clients and members have to show a certificate, and are shown one.
fn certify(command: &mut Command, files: &etcd_tls::Files) {
    for (prefix, required) in [
        ("--", "--client-cert-auth"),
        ("--peer-", "--peer-client-cert-auth"),
    ] {
        command
            .arg(required)
            .arg(format!("{prefix}trusted-ca-file"))
            .arg(&files.ca)
            .arg(format!("{prefix}cert-file"))
            .arg(&files.certificate)
            .arg(format!("{prefix}key-file"))
            .arg(&files.key);
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

async fn ask<A, B>(channel: &Http2, path: &'static str, request: A) -> Result<B, String>
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

/// One connection to `host:port`, as our own client makes it.
async fn dial(address: &str, tls: Option<&TlsConnector>) -> Result<Http2, String> {
    let tcp = TcpStream::connect(address)
        .await
        .map_err(|e| e.to_string())?;
    tcp.set_nodelay(true).map_err(|e| e.to_string())?;
    let connection = match tls {
        None => Http2::open(tcp).await,
        Some(tls) => {
            let stream = tls.connect(server_name(), tcp).await;
            Http2::open(stream.map_err(|e| e.to_string())?).await
        }
    };
    connection.map_err(|e| e.to_string())
}

/// A connection to the leader.
async fn leader(endpoints: &Endpoints) -> Result<Http2, String> {
    let begin = Instant::now();
    loop {
        for address in &endpoints.addresses {
            let Ok(channel) = dial(address, endpoints.tls.as_ref()).await else {
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

/// The same calls as ours, over one connection as ours.
pub(crate) async fn measure(endpoints: Endpoints, round: Round) -> Result<Figures, String> {
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
    round.run(write, read).await
}
