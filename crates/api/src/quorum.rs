//! What the server asks about the quorum: where a call is to be carried out, and what managers say to each other.
//! The manager implements both traits; the server calls them.

use crate::caller::Caller;
use crate::control::{ApiResult, ControlPlane};
use crate::error::ApiError;
use async_trait::async_trait;
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tonic::transport::Channel;
use warren_proto::authz::Rule;
use warren_types::NodeId;

/// How new an answer to a read has to be (request header `warren-read`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Freshness {
    /// `local`, or no header: what the asked manager has. On the leader that is everything acknowledged before.
    #[default]
    Local,
    /// `linearizable`: everything that was acknowledged anywhere before the call, or an error.
    Linearizable,
    /// `best`: linearizable when a quorum is in reach, else what the manager has, marked stale.
    Best,
}

pub use warren_proto::headers::{
    FORWARDED_NAME as FORWARDED_NAME_HEADER, FORWARDED_NODE as FORWARDED_NODE_HEADER,
    FORWARDED_ROLE as FORWARDED_ROLE_HEADER, FORWARDED_VIA as FORWARDED_VIA_HEADER,
    LEADER as LEADER_HEADER, NOT_APPLIED as NOT_APPLIED_HEADER, READ as READ_HEADER,
    REVISION as REVISION_HEADER, STALE as STALE_HEADER,
};

/// Where a call is carried out.
#[derive(Debug, Clone)]
pub enum Route {
    /// By this manager.
    Here(Stamp),
    /// By the leader, over this connection.
    Leader {
        /// The leader.
        node: NodeId,
        /// Its API address.
        address: String,
        /// A connection to it, with this manager's certificate.
        channel: Channel,
        /// Turns true when there is no point any more in waiting for its answer: another manager leads, or none is heard, and
        /// this one is silent.
        lost: watch::Receiver<bool>,
    },
}

/// How new this manager's state is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stamp {
    /// Outside the quorum: time since it last belonged to it; `Some(None)` = longer than it has been running.
    pub stale: Option<Option<Duration>>,
    /// Revision of the state.
    pub revision: u64,
}

/// What a node's certificate is worth now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// The node is listed, with the role that the certificate says or one that includes it.
    Member,
    /// Not listed here (yet): this manager may lag behind.
    Unknown,
    /// The cluster has removed it.
    Removed,
    /// It is listed, but no longer with the role that the certificate says.
    Demoted,
}

/// Decides where calls go.
#[async_trait]
pub trait Router: Send + Sync + 'static {
    /// Where this call is carried out. `forwarded`: it has been forwarded once already and must not be again.
    /// Waits until a linearizable read may be answered here.
    ///
    /// # Errors
    /// [`ApiError::NotTaken`] at once when nobody leads and the call needs a leader.
    async fn route(
        &self,
        rule: &'static Rule,
        freshness: Freshness,
        forwarded: bool,
    ) -> Result<Route, ApiError>;

    /// What the certificate of this caller is worth now. Called for each request of a node's certificate.
    fn standing(&self, caller: &Caller) -> Standing;
}

/// What other managers ask. The caller's certificate is a manager's of this cluster; `from` is its node.
#[async_trait]
pub trait PeerPlane: Send + Sync + 'static {
    /// One message of the consensus protocol.
    async fn call(&self, from: NodeId, kind: u32, message: Bytes) -> ApiResult<Bytes>;
    /// Begins or continues a snapshot; how many bytes of it are here already.
    async fn snapshot_begin(&self, from: NodeId, header: Bytes) -> ApiResult<u64>;
    /// The rest of a snapshot, in pieces; answers after the last byte is stored and the snapshot is in force.
    async fn snapshot_send(
        &self,
        from: NodeId,
        header: Bytes,
        offset: u64,
        pieces: crate::control::ApiStream<Bytes>,
    ) -> ApiResult<Bytes>;
    /// What a follower must have applied before it may answer a linearizable read.
    async fn read_index(&self, from: NodeId) -> ApiResult<u64>;
    /// Keeps the data keys that are offered and not here yet, durably, and gives all: epoch and key.
    async fn data_keys(
        &self,
        from: NodeId,
        offered: Vec<(u32, Vec<u8>)>,
    ) -> ApiResult<Vec<(u32, Vec<u8>)>>;
}

/// What a server serves. Without a router every call is carried out here; without a peer plane there are no managers to
/// talk to.
#[derive(Clone)]
pub struct Planes {
    /// The calls of the API.
    pub control: Arc<dyn ControlPlane>,
    /// Where they are carried out.
    pub router: Option<Arc<dyn Router>>,
    /// The calls of other managers.
    pub peers: Option<Arc<dyn PeerPlane>>,
}

impl From<Arc<dyn ControlPlane>> for Planes {
    fn from(control: Arc<dyn ControlPlane>) -> Self {
        Self {
            control,
            router: None,
            peers: None,
        }
    }
}

impl<C: ControlPlane> From<Arc<C>> for Planes {
    fn from(control: Arc<C>) -> Self {
        let control: Arc<dyn ControlPlane> = control;
        control.into()
    }
}
