//! What a daemon that is no manager answers on its local socket: how it is, and how to stop it. Everything else
//! is refused with the words that lead to a manager: a worker must not be able to act as administrator.

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::mpsc;
use warren_api::{
    ApiError, ApiResult, ApiStream, Caller, CertificateRequest, ChangeOptions, ContainerChange,
    ContainerFilter, ControlPlane, EventQuery, ExecInput, ExecOutput, Freshness, IssuedCertificate,
    IssuedToken, LogQuery, NewVolume, NodeChange, Planes, Route, Router, SecretView, Standing,
    VolumeView,
};
use warren_cli::Build;
use warren_proto::authz::{Place, Rule};
use warren_proto::convert::{ContainerView, NodeView, ServiceView, timestamp_to_api};
use warren_proto::session::{ManagerMessage, WorkerMessage};
use warren_proto::v1;
use warren_types::{Duration, Event, NodeRole, Role, ServiceSpec, Timestamp};

/// Time for open calls to end when the caller names none.
const STOP_GRACE: Duration = Duration::from_secs(5);

/// What this daemon is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum State {
    /// A worker; the managers that it knows.
    Worker(Vec<String>),
    /// A manager that waits for its unlock key.
    Locked,
    /// A node that the cluster has removed.
    Removed,
}

/// How a worker stands; asked for each answer.
#[derive(Debug, Clone, Default)]
pub(crate) struct Session {
    /// A session is open.
    pub(crate) connected: bool,
    /// Containers that run.
    pub(crate) running: usize,
}

/// Asks how a worker stands.
pub(crate) type Asked = Box<dyn Fn() -> Session + Send + Sync>;

/// Takes the unlock key.
#[async_trait]
pub(crate) trait Unlock: Send + Sync {
    /// Opens the keyring with it.
    async fn unlock(&self, key: &str) -> ApiResult<()>;
}

/// Who the node is, for its status.
#[derive(Debug, Clone)]
pub(crate) struct Facts {
    pub(crate) node: String,
    pub(crate) name: String,
    pub(crate) cluster: String,
    pub(crate) role: NodeRole,
    pub(crate) data_dir: PathBuf,
    pub(crate) started_at: Timestamp,
}

/// The control plane of a daemon that is no manager.
pub(crate) struct Plain {
    pub(crate) facts: Facts,
    pub(crate) state: Mutex<State>,
    pub(crate) standing: Asked,
    pub(crate) unlock: Option<Arc<dyn Unlock>>,
    pub(crate) stop: mpsc::Sender<Duration>,
}

impl Plain {
    /// What the server serves.
    pub(crate) fn planes(self: &Arc<Self>) -> Planes {
        Planes {
            control: self.clone(),
            router: Some(self.clone()),
            peers: None,
        }
    }

    /// From now on it is that.
    pub(crate) fn set(&self, state: State) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = state;
    }

    fn state(&self) -> State {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.clone()
    }

    fn refusal(&self) -> ApiError {
        match self.state() {
            State::Worker(managers) if managers.is_empty() => ApiError::precondition(
                "this node is a worker",
                "ask a manager, named with --manager",
            ),
            State::Worker(managers) => ApiError::precondition(
                "this node is a worker",
                format!("ask a manager ({}) with --manager", managers.join(", ")),
            ),
            State::Locked => ApiError::precondition(
                "this manager is locked",
                "give it the unlock key with `warren cluster unlock`",
            ),
            State::Removed => ApiError::precondition(
                "the cluster has removed this node",
                "`warren node reset` removes what is left here; then it can join again",
            ),
        }
    }

    fn refused<T>(&self) -> ApiResult<T> {
        Err(self.refusal())
    }
}

#[async_trait]
impl Router for Plain {
    async fn route(
        &self,
        rule: &'static Rule,
        _freshness: Freshness,
        _forwarded: bool,
    ) -> Result<Route, ApiError> {
        match rule.place {
            Place::Here => Ok(Route::Here(warren_api::Stamp::default())),
            _ => self.refused(),
        }
    }

    fn standing(&self, _caller: &Caller) -> Standing {
        Standing::Unknown
    }
}

#[async_trait]
impl ControlPlane for Plain {
    async fn status(&self, _: &Caller) -> ApiResult<v1::GetStatusResponse> {
        let state = self.state();
        let standing = (self.standing)();
        let reason = match &state {
            State::Worker(_) if standing.connected => String::new(),
            State::Worker(_) => "no session with a manager is open; what runs goes on".to_owned(),
            State::Locked | State::Removed => self.refusal().to_string(),
        };
        let facts = &self.facts;
        Ok(v1::GetStatusResponse {
            version: Build::CURRENT.version.to_owned(),
            node_id: facts.node.clone(),
            node_name: facts.name.clone(),
            cluster_id: facts.cluster.clone(),
            role: facts.role.name().to_owned(),
            ready: reason.is_empty(),
            data_dir: facts.data_dir.display().to_string(),
            reason,
            started_at: Some(timestamp_to_api(facts.started_at)),
            pid: std::process::id(),
            locked: state == State::Locked,
            removed: state == State::Removed,
            quorum: standing.connected,
            ..v1::GetStatusResponse::default()
        })
    }

    async fn stop_daemon(
        &self,
        _: &Caller,
        grace: Option<Duration>,
    ) -> ApiResult<v1::StopDaemonResponse> {
        let asked = self.stop.send(grace.unwrap_or(STOP_GRACE)).await;
        asked.map_err(|_| {
            ApiError::unavailable("the daemon is stopping already", "wait until it has ended")
        })?;
        Ok(v1::StopDaemonResponse {
            pid: std::process::id(),
            containers_left: u32::try_from((self.standing)().running).unwrap_or(u32::MAX),
        })
    }

    async fn unlock_cluster(
        &self,
        _: &Caller,
        request: v1::UnlockClusterRequest,
    ) -> ApiResult<v1::UnlockClusterResponse> {
        let Some(unlock) = &self.unlock else {
            return self.refused();
        };
        unlock.unlock(&request.unlock_key).await?;
        Ok(v1::UnlockClusterResponse {})
    }

    async fn recover_cluster(
        &self,
        _: &Caller,
        _: v1::RecoverClusterRequest,
    ) -> ApiResult<v1::RecoverClusterResponse> {
        self.refused()
    }

    async fn create_service(
        &self,
        _: &Caller,
        _: ServiceSpec,
        _: ChangeOptions,
    ) -> ApiResult<ServiceView> {
        self.refused()
    }
    async fn update_service(
        &self,
        _: &Caller,
        _: &str,
        _: ServiceSpec,
        _: ChangeOptions,
    ) -> ApiResult<ServiceView> {
        self.refused()
    }
    async fn scale_service(
        &self,
        _: &Caller,
        _: &str,
        _: u32,
        _: ChangeOptions,
    ) -> ApiResult<ServiceView> {
        self.refused()
    }
    async fn rollback_service(
        &self,
        _: &Caller,
        _: &str,
        _: Option<u32>,
        _: ChangeOptions,
    ) -> ApiResult<ServiceView> {
        self.refused()
    }
    async fn delete_service(&self, _: &Caller, _: &str) -> ApiResult<()> {
        self.refused()
    }
    async fn get_service(&self, _: &Caller, _: &str) -> ApiResult<ServiceView> {
        self.refused()
    }
    async fn list_services(&self, _: &Caller) -> ApiResult<Vec<ServiceView>> {
        self.refused()
    }
    async fn list_containers(
        &self,
        _: &Caller,
        _: ContainerFilter,
    ) -> ApiResult<Vec<ContainerView>> {
        self.refused()
    }
    async fn get_container(&self, _: &Caller, _: &str) -> ApiResult<ContainerView> {
        self.refused()
    }
    async fn watch_containers(
        &self,
        _: &Caller,
        _: ContainerFilter,
    ) -> ApiResult<ApiStream<ContainerChange>> {
        self.refused()
    }
    async fn logs(&self, _: &Caller, _: LogQuery) -> ApiResult<ApiStream<v1::LogEntry>> {
        self.refused()
    }
    async fn exec(
        &self,
        _: &Caller,
        _: v1::ExecStart,
        _: BoxStream<'static, ExecInput>,
    ) -> ApiResult<ApiStream<ExecOutput>> {
        self.refused()
    }
    async fn list_nodes(&self, _: &Caller, _: Option<NodeRole>) -> ApiResult<Vec<NodeView>> {
        self.refused()
    }
    async fn get_node(&self, _: &Caller, _: &str) -> ApiResult<NodeView> {
        self.refused()
    }
    async fn update_node(&self, _: &Caller, _: &str, _: NodeChange) -> ApiResult<NodeView> {
        self.refused()
    }
    async fn remove_node(&self, _: &Caller, _: &str, _: bool) -> ApiResult<()> {
        self.refused()
    }
    async fn accept_session(
        &self,
        _: &Caller,
        _: BoxStream<'static, WorkerMessage>,
    ) -> ApiResult<ApiStream<ManagerMessage>> {
        self.refused()
    }
    async fn create_secret(
        &self,
        _: &Caller,
        _: String,
        _: BTreeMap<String, String>,
        _: Vec<u8>,
        _: ChangeOptions,
    ) -> ApiResult<SecretView> {
        self.refused()
    }
    async fn update_secret(
        &self,
        _: &Caller,
        _: &str,
        _: Vec<u8>,
        _: ChangeOptions,
    ) -> ApiResult<SecretView> {
        self.refused()
    }
    async fn delete_secret(&self, _: &Caller, _: &str) -> ApiResult<()> {
        self.refused()
    }
    async fn get_secret(&self, _: &Caller, _: &str) -> ApiResult<SecretView> {
        self.refused()
    }
    async fn list_secrets(&self, _: &Caller) -> ApiResult<Vec<SecretView>> {
        self.refused()
    }
    async fn create_volume(
        &self,
        _: &Caller,
        _: NewVolume,
        _: ChangeOptions,
    ) -> ApiResult<VolumeView> {
        self.refused()
    }
    async fn delete_volume(&self, _: &Caller, _: &str, _: bool) -> ApiResult<()> {
        self.refused()
    }
    async fn get_volume(&self, _: &Caller, _: &str) -> ApiResult<VolumeView> {
        self.refused()
    }
    async fn list_volumes(&self, _: &Caller) -> ApiResult<Vec<VolumeView>> {
        self.refused()
    }
    async fn cluster_info(&self, _: &Caller) -> ApiResult<v1::GetClusterInfoResponse> {
        self.refused()
    }
    async fn generate_join_token(
        &self,
        _: &Caller,
        _: Role,
        _: Option<Duration>,
        _: Option<u32>,
        _: bool,
    ) -> ApiResult<IssuedToken> {
        self.refused()
    }
    async fn request_certificate(
        &self,
        _: &Caller,
        _: CertificateRequest,
    ) -> ApiResult<IssuedCertificate> {
        self.refused()
    }
    async fn stream_events(&self, _: &Caller, _: EventQuery) -> ApiResult<ApiStream<Event>> {
        self.refused()
    }
    async fn import_image(
        &self,
        _: &Caller,
        _: v1::ImportOptions,
        _: ApiStream<Bytes>,
    ) -> ApiResult<Vec<v1::Image>> {
        self.refused()
    }
    async fn list_images(&self, _: &Caller, _: Option<String>) -> ApiResult<Vec<v1::Image>> {
        self.refused()
    }
    async fn inspect_image(
        &self,
        _: &Caller,
        _: &str,
        _: Option<String>,
    ) -> ApiResult<v1::ImageDetails> {
        self.refused()
    }
    async fn remove_image(
        &self,
        _: &Caller,
        _: &str,
        _: Option<String>,
    ) -> ApiResult<Vec<v1::Image>> {
        self.refused()
    }
}
