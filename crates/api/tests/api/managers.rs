//! Several managers of one cluster, each a real server on its own port, with a router whose words a test chooses.

use crate::memory::Memory;
use crate::setup::{Authority, PATIENCE};
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt as _;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{Notify, oneshot, watch};
use tokio::task::JoinHandle;
use warren_api::control::ApiStream;
use warren_api::{
    ApiConfig, ApiError, ApiResult, Caller, ControlPlane, Freshness, Limits, PeerPlane, Planes,
    Route, Router, ServeError, Server, Stamp, Standing, TlsSettings,
};
use warren_client::{Client, IdentitySource, PeerClient, Target};
use warren_proto::authz::{Place, Rule};
use warren_types::{NodeId, Role};

/// Node of the manager with this number.
pub fn node(number: usize) -> NodeId {
    NodeId::from_u128(0x100 + number as u128)
}

/// Who leads, as a manager thinks.
#[derive(Clone, Default)]
pub enum Leads {
    #[default]
    Me,
    Nobody,
    /// Address, and a way there.
    Other(PeerClient),
    /// A refusal that names a leader without forwarding.
    Hint(String),
}

/// A router that says what the test wants.
#[derive(Default)]
pub struct TestRouter {
    pub leads: Mutex<Leads>,
    pub standing: Mutex<BTreeMap<NodeId, Standing>>,
    pub stamp: Mutex<Stamp>,
    /// What it was asked: path, freshness, forwarded.
    pub asked: Mutex<Vec<(&'static str, Freshness, bool)>>,
    /// For the calls that are handed to the leader now: whether its answers are waited for no longer.
    pub lost: Mutex<watch::Sender<bool>>,
}

impl TestRouter {
    pub fn set_standing(&self, node: NodeId, standing: Standing) {
        self.standing.lock().unwrap().insert(node, standing);
    }

    /// Gives up the calls that were handed to the leader; later ones are waited for.
    pub fn give_up(&self) {
        std::mem::take(&mut *self.lost.lock().unwrap()).send_replace(true);
    }
}

fn no_leader(leader: Option<String>) -> ApiError {
    ApiError::NotTaken {
        what: "no manager leads now".to_owned(),
        remedy: "try again".to_owned(),
        leader,
    }
}

#[async_trait]
impl Router for TestRouter {
    async fn route(
        &self,
        rule: &'static Rule,
        freshness: Freshness,
        forwarded: bool,
    ) -> Result<Route, ApiError> {
        self.asked
            .lock()
            .unwrap()
            .push((rule.path, freshness, forwarded));
        assert_ne!(rule.place, Place::Here, "{}", rule.path);
        let here = Ok(Route::Here(*self.stamp.lock().unwrap()));
        let leads = self.leads.lock().unwrap().clone();
        match (rule.place, leads) {
            (Place::Anywhere, _) | (_, Leads::Me) | (Place::LeaderIfKnown, Leads::Nobody) => here,
            (_, Leads::Nobody) => Err(no_leader(None)),
            (_, Leads::Hint(leader)) => Err(no_leader(Some(leader))),
            (_, Leads::Other(peer)) => match peer.channel().await {
                Ok(channel) => Ok(Route::Leader {
                    node: peer.node(),
                    address: peer.address().to_owned(),
                    channel,
                    lost: self.lost.lock().unwrap().subscribe(),
                }),
                Err(_) => Err(no_leader(Some(peer.address().to_owned()))),
            },
        }
    }

    fn standing(&self, caller: &Caller) -> Standing {
        let standing = self.standing.lock().unwrap();
        caller
            .node
            .and_then(|node| standing.get(&node).copied())
            .unwrap_or(Standing::Member)
    }
}

/// What other managers asked, and what they are answered.
#[derive(Default)]
pub struct TestPeers {
    /// From whom, kind, length of the message.
    pub calls: Mutex<Vec<(NodeId, u32, usize)>>,
    /// What has arrived of a snapshot; kept when a transfer breaks.
    pub snapshot: Mutex<Vec<u8>>,
    /// Where transfers began.
    pub offsets: Mutex<Vec<u64>>,
    /// After so many bytes a transfer takes nothing more until it is notified.
    pub stall_after: Mutex<Option<usize>>,
    pub go_on: Notify,
    /// Held by each transfer that is being received.
    pub receiving: Arc<()>,
}

#[async_trait]
impl PeerPlane for TestPeers {
    async fn call(&self, from: NodeId, kind: u32, message: Bytes) -> ApiResult<Bytes> {
        self.calls.lock().unwrap().push((from, kind, message.len()));
        Ok(message)
    }

    async fn snapshot_begin(&self, _from: NodeId, header: Bytes) -> ApiResult<u64> {
        assert_eq!(&header[..], b"the header");
        Ok(self.snapshot.lock().unwrap().len() as u64)
    }

    async fn snapshot_send(
        &self,
        _from: NodeId,
        header: Bytes,
        offset: u64,
        mut pieces: ApiStream<Bytes>,
    ) -> ApiResult<Bytes> {
        assert_eq!(&header[..], b"the header");
        let _receiving = Arc::clone(&self.receiving);
        self.offsets.lock().unwrap().push(offset);
        while let Some(piece) = pieces.next().await {
            let piece = piece?;
            let length = {
                let mut snapshot = self.snapshot.lock().unwrap();
                snapshot.extend_from_slice(&piece);
                snapshot.len()
            };
            let stall = *self.stall_after.lock().unwrap();
            if stall.is_some_and(|bytes| length >= bytes) {
                self.go_on.notified().await;
            }
        }
        Ok(Bytes::from_static(b"in force"))
    }

    async fn read_index(&self, _from: NodeId) -> ApiResult<u64> {
        Ok(17)
    }

    async fn data_keys(
        &self,
        _from: NodeId,
        offered: Vec<(u32, Vec<u8>)>,
    ) -> ApiResult<Vec<(u32, Vec<u8>)>> {
        let mut keys = vec![(1, vec![1; 32]), (2, vec![2; 32])];
        keys.extend(offered);
        Ok(keys)
    }
}

/// One manager that runs until it is stopped, killed or dropped.
pub struct Manager {
    pub memory: Arc<Memory>,
    pub router: Arc<TestRouter>,
    pub peers: Arc<TestPeers>,
    pub address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    task: Option<JoinHandle<Result<(), ServeError>>>,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Manager {
    pub async fn start(authority: &Authority, number: usize, limits: Limits) -> Self {
        Self::start_at(authority, number, limits, "127.0.0.1:0".parse().unwrap()).await
    }

    pub async fn start_at(
        authority: &Authority,
        number: usize,
        limits: Limits,
        address: SocketAddr,
    ) -> Self {
        let node = node(number);
        let own = authority.identity_of(Role::Manager, node).own.unwrap();
        let tls = TlsSettings::new(authority.server_config_of(&own.0, &own.1), None);
        let (memory, router, peers) = <(Arc<Memory>, Arc<TestRouter>, Arc<TestPeers>)>::default();
        let planes = Planes {
            control: Arc::clone(&memory) as Arc<dyn ControlPlane>,
            router: Some(Arc::clone(&router) as Arc<dyn Router>),
            peers: Some(Arc::clone(&peers) as Arc<dyn PeerPlane>),
        };
        let config = ApiConfig {
            tcp: Some((address, tls)),
            unix: None,
            limits,
        };
        // A runtime of its own, so that all its connections can be torn down at once, as by kill -9.
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let (stop, stopped) = oneshot::channel();
        let (bound, address) = oneshot::channel();
        let task = runtime.spawn(async move {
            let server = Server::bind(config).await.unwrap();
            bound.send(server.local_addr().unwrap()).unwrap();
            server
                .run(planes, async {
                    drop(stopped.await);
                })
                .await
        });
        Self {
            memory,
            router,
            peers,
            address: address.await.unwrap(),
            stop: Some(stop),
            task: Some(task),
            runtime: Some(runtime),
        }
    }

    /// Ends it as kill -9 does: every connection breaks, nothing is said.
    pub fn kill(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }

    pub fn signal_stop(&mut self) {
        drop(self.stop.take());
    }

    pub async fn ended(&mut self) {
        let task = self.task.take().unwrap();
        tokio::time::timeout(PATIENCE, task)
            .await
            .expect("the server does not stop")
            .unwrap()
            .unwrap();
    }

    pub fn calls(&self) -> usize {
        self.memory.calls.lock().unwrap().len()
    }

    /// The last call that arrived, and whose it was.
    pub fn last_call(&self) -> (&'static str, Caller) {
        self.memory.calls.lock().unwrap().last().cloned().unwrap()
    }

    pub fn leads(&self, leads: Leads) {
        *self.router.leads.lock().unwrap() = leads;
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Managers of which the first leads and the others forward to it.
pub struct Quorum {
    pub authority: Authority,
    pub managers: Vec<Manager>,
}

impl Quorum {
    pub async fn start(count: usize) -> Self {
        Self::with_limits(count, Limits::default()).await
    }

    pub async fn with_limits(count: usize, limits: Limits) -> Self {
        let authority = Authority::new(1);
        let mut managers = Vec::new();
        for number in 0..count {
            managers.push(Manager::start(&authority, number, limits).await);
        }
        let quorum = Self {
            authority,
            managers,
        };
        for number in 1..count {
            quorum.managers[number].leads(Leads::Other(quorum.peer(number, 0)));
        }
        quorum
    }

    /// Manager `from`'s client of manager `to`.
    pub fn peer(&self, from: usize, to: usize) -> PeerClient {
        let identity = self.authority.identity_of(Role::Manager, node(from));
        let source = IdentitySource::new(identity).unwrap();
        PeerClient::connect_lazy(self.managers[to].address.to_string(), node(to), &source)
    }

    pub fn addresses(&self, numbers: &[usize]) -> Vec<String> {
        numbers
            .iter()
            .map(|n| self.managers[*n].address.to_string())
            .collect()
    }

    /// A client of a role that knows these managers.
    pub fn client(&self, role: Role, numbers: &[usize]) -> Client {
        Client::connect_lazy(Target::Tcp {
            addresses: self.addresses(numbers),
            identity: self.authority.identity(role),
        })
        .unwrap()
    }
}

/// Half of the patience of these tests: for what must be quick even on a loaded machine.
pub const QUICK: Duration = Duration::from_secs(5);
