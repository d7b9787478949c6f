//! The API's calls on this manager (methods MM-13…MM-42 and more of the check-list). Each is short:
//! look up, make one command, propose it, show the result.

mod backup;
mod changes;
mod cluster;
mod containers;
mod failure;
mod images;
mod info;
mod joins;
mod locking;
mod logs;
mod members;
mod nodes;
mod people;
pub(crate) mod rotation;
mod secrets;
mod services;
mod settings;
mod streams;
mod tokens;
mod volumes;

pub(crate) use tokens::subject_names;

use crate::dispatcher::Dispatcher;
use crate::edge;
use crate::init::NodeFacts;
use crate::keys::KeyStore;
use crate::manager::ManagerEvent;
use crate::quorum::peers::Peers;
use crate::secrets::SecretBox;
use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::{mpsc, watch};
use warren_api::{
    ApiError, ApiResult, ApiStream, Caller, CertificateRequest, ChangeOptions, ContainerChange,
    ContainerFilter, ControlPlane, EventQuery, ExecInput, ExecOutput, IssuedCertificate,
    IssuedToken, LogQuery, NewVolume, NodeChange, SecretView, VolumeView,
};
use warren_proto::convert::{ContainerView, NodeView, ServiceView};
use warren_proto::session::{ManagerMessage, WorkerMessage};
use warren_proto::v1;
use warren_raft::RaftHandle;
use warren_security::DataKey;
use warren_state::{Actor, Applied, ClusterState, Command, Op};
use warren_types::{Duration, Event, NodeId, NodeRole, Role, ServiceSpec, Timestamp};

pub(crate) use joins::JoinGate;

/// What the calls need.
pub(crate) struct Control {
    pub(crate) raft: RaftHandle,
    pub(crate) secrets: Arc<SecretBox>,
    pub(crate) keys: Arc<KeyStore>,
    pub(crate) peers: Arc<Peers>,
    /// Slows down guessing of tokens.
    pub(crate) joins: JoinGate,
    /// The dispatcher, while this manager leads.
    pub(crate) dispatcher: watch::Receiver<Option<Dispatcher>>,
    pub(crate) local: Local,
    /// Tells the daemon what it has to do.
    pub(crate) events: mpsc::Sender<ManagerEvent>,
}

/// Facts about this daemon.
#[derive(Debug, Clone)]
pub(crate) struct Local {
    pub(crate) node: NodeId,
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) data_dir: PathBuf,
    pub(crate) api_address: String,
    pub(crate) started_at: Timestamp,
    pub(crate) facts: Arc<NodeFacts>,
}

impl Control {
    /// A consistent view of the state.
    fn state(&self) -> Arc<ClusterState> {
        self.raft.state()
    }

    /// Keeps data keys that are not here yet: on disk first, for a key that seals must never be lost.
    pub(crate) fn keep_keys(&self, keys: Vec<(u32, Vec<u8>)>) -> Result<(), crate::InitError> {
        let missing: Vec<(u32, Vec<u8>)> = keys
            .into_iter()
            .filter(|(epoch, _)| !self.secrets.has(*epoch))
            .collect();
        self.keys.keep(&missing)?;
        for (epoch, key) in missing {
            // Its length was checked when it was kept.
            if let Ok(bytes) = key.try_into() {
                self.secrets.add(DataKey::new(epoch, bytes));
            }
        }
        Ok(())
    }

    /// The dispatcher, or why there is none.
    fn dispatcher(&self) -> ApiResult<Dispatcher> {
        self.dispatcher.borrow().clone().ok_or_else(|| {
            ApiError::unavailable(
                "this manager does not lead now",
                "try again in a moment, or ask another manager",
            )
        })
    }

    /// Proposes operations in the caller's name and returns what they did and the state after.
    async fn change(
        &self,
        caller: &Caller,
        time: Timestamp,
        ops: Vec<Op>,
        options: &ChangeOptions,
    ) -> ApiResult<(Applied, Arc<ClusterState>)> {
        let mut command = Command::new(
            Actor::Api {
                name: caller.name.clone(),
            },
            time,
            ops,
        );
        if let Some(key) = &options.idempotency_key {
            command = command.with_key(key.clone());
        }
        if options.dry_run {
            let mut trial = self.state().as_ref().clone();
            let applied = trial.apply(&command).map_err(failure::rejected)?;
            return Ok((applied, Arc::new(trial)));
        }
        let applied = self
            .raft
            .propose(&command)
            .await
            .map_err(failure::proposal)?;
        Ok((applied, self.state()))
    }

    /// As [`Self::change`], for changes without options.
    async fn change_now(&self, caller: &Caller, op: Op) -> ApiResult<(Applied, Arc<ClusterState>)> {
        self.change(caller, edge::now(), vec![op], &ChangeOptions::default())
            .await
    }
}

#[async_trait]
impl ControlPlane for Control {
    async fn create_service(
        &self,
        caller: &Caller,
        spec: ServiceSpec,
        options: ChangeOptions,
    ) -> ApiResult<ServiceView> {
        services::create(self, caller, spec, options).await
    }
    async fn update_service(
        &self,
        caller: &Caller,
        target: &str,
        spec: ServiceSpec,
        options: ChangeOptions,
    ) -> ApiResult<ServiceView> {
        services::update(self, caller, target, spec, options).await
    }
    async fn scale_service(
        &self,
        caller: &Caller,
        target: &str,
        replicas: u32,
        options: ChangeOptions,
    ) -> ApiResult<ServiceView> {
        services::scale(self, caller, target, replicas, options).await
    }
    async fn rollback_service(
        &self,
        caller: &Caller,
        target: &str,
        to_revision: Option<u32>,
        options: ChangeOptions,
    ) -> ApiResult<ServiceView> {
        services::rollback(self, caller, target, to_revision, options).await
    }
    async fn delete_service(&self, caller: &Caller, target: &str) -> ApiResult<()> {
        services::delete(self, caller, target).await
    }
    async fn get_service(&self, _: &Caller, target: &str) -> ApiResult<ServiceView> {
        let state = self.state();
        Ok(services::view(&state, services::find(&state, target)?))
    }
    async fn list_services(&self, _: &Caller) -> ApiResult<Vec<ServiceView>> {
        Ok(services::list(&self.state()))
    }
    async fn list_containers(
        &self,
        caller: &Caller,
        filter: ContainerFilter,
    ) -> ApiResult<Vec<ContainerView>> {
        containers::list(&self.state(), caller, &filter)
    }
    async fn get_container(&self, caller: &Caller, target: &str) -> ApiResult<ContainerView> {
        let state = self.state();
        containers::find(&state, caller, target).map(|c| containers::view(&state, &c))
    }
    async fn watch_containers(
        &self,
        caller: &Caller,
        filter: ContainerFilter,
    ) -> ApiResult<ApiStream<ContainerChange>> {
        containers::watch(self, caller, filter)
    }
    async fn logs(&self, caller: &Caller, query: LogQuery) -> ApiResult<ApiStream<v1::LogEntry>> {
        logs::logs(self, caller, query).await
    }
    async fn exec(
        &self,
        caller: &Caller,
        start: v1::ExecStart,
        input: BoxStream<'static, ExecInput>,
    ) -> ApiResult<ApiStream<ExecOutput>> {
        streams::exec(self, caller, start, input).await
    }
    async fn list_nodes(
        &self,
        caller: &Caller,
        role: Option<NodeRole>,
    ) -> ApiResult<Vec<NodeView>> {
        Ok(nodes::list(self, caller, role))
    }
    async fn get_node(&self, caller: &Caller, target: &str) -> ApiResult<NodeView> {
        nodes::get(self, caller, target)
    }
    async fn update_node(
        &self,
        caller: &Caller,
        target: &str,
        change: NodeChange,
    ) -> ApiResult<NodeView> {
        nodes::update(self, caller, target, change).await
    }
    async fn remove_node(&self, caller: &Caller, target: &str, force: bool) -> ApiResult<()> {
        nodes::remove(self, caller, target, force).await
    }
    async fn accept_session(
        &self,
        caller: &Caller,
        inbound: BoxStream<'static, WorkerMessage>,
    ) -> ApiResult<ApiStream<ManagerMessage>> {
        nodes::accept_session(self, caller, inbound)
    }
    async fn create_secret(
        &self,
        caller: &Caller,
        name: String,
        labels: BTreeMap<String, String>,
        data: Vec<u8>,
        options: ChangeOptions,
    ) -> ApiResult<SecretView> {
        secrets::create(self, caller, name, labels, data, options).await
    }
    async fn update_secret(
        &self,
        caller: &Caller,
        target: &str,
        data: Vec<u8>,
        options: ChangeOptions,
    ) -> ApiResult<SecretView> {
        secrets::update(self, caller, target, data, options).await
    }
    async fn delete_secret(&self, caller: &Caller, target: &str) -> ApiResult<()> {
        secrets::delete(self, caller, target).await
    }
    async fn get_secret(&self, _: &Caller, target: &str) -> ApiResult<SecretView> {
        let state = self.state();
        secrets::find(&state, target).map(|s| secrets::view(&state, s))
    }
    async fn list_secrets(&self, _: &Caller) -> ApiResult<Vec<SecretView>> {
        Ok(secrets::list(&self.state()))
    }
    async fn create_volume(
        &self,
        caller: &Caller,
        volume: NewVolume,
        options: ChangeOptions,
    ) -> ApiResult<VolumeView> {
        volumes::create(self, caller, volume, options).await
    }
    async fn delete_volume(&self, caller: &Caller, target: &str, force: bool) -> ApiResult<()> {
        volumes::delete(self, caller, target, force).await
    }
    async fn get_volume(&self, _: &Caller, target: &str) -> ApiResult<VolumeView> {
        let state = self.state();
        volumes::find(&state, target).map(|v| volumes::view(&state, v))
    }
    async fn list_volumes(&self, _: &Caller) -> ApiResult<Vec<VolumeView>> {
        Ok(volumes::list(&self.state()))
    }
    async fn cluster_info(&self, _: &Caller) -> ApiResult<v1::GetClusterInfoResponse> {
        Ok(info::info(self))
    }
    async fn generate_join_token(
        &self,
        caller: &Caller,
        role: Role,
        ttl: Option<Duration>,
        max_uses: Option<u32>,
        rotate: bool,
    ) -> ApiResult<IssuedToken> {
        tokens::generate(self, caller, role, ttl, max_uses, rotate).await
    }
    async fn request_certificate(
        &self,
        _: &Caller,
        request: CertificateRequest,
    ) -> ApiResult<IssuedCertificate> {
        tokens::request_certificate(self, request).await
    }
    async fn join_cluster(
        &self,
        caller: &Caller,
        request: v1::JoinClusterRequest,
    ) -> ApiResult<v1::JoinClusterResponse> {
        members::join(self, caller, request).await
    }
    async fn renew_certificate(
        &self,
        _: &Caller,
        request: v1::RenewCertificateRequest,
    ) -> ApiResult<v1::RenewCertificateResponse> {
        tokens::renew(self, request).await
    }
    async fn list_join_tokens(&self, _: &Caller) -> ApiResult<v1::ListJoinTokensResponse> {
        Ok(tokens::list(&self.state()))
    }
    async fn revoke_join_token(&self, caller: &Caller, id: &str) -> ApiResult<()> {
        tokens::revoke(self, caller, id).await
    }
    async fn update_cluster_settings(
        &self,
        caller: &Caller,
        request: v1::UpdateClusterSettingsRequest,
    ) -> ApiResult<v1::UpdateClusterSettingsResponse> {
        settings::update(self, caller, request).await
    }
    async fn transfer_leadership(
        &self,
        _: &Caller,
        request: v1::TransferLeadershipRequest,
    ) -> ApiResult<v1::TransferLeadershipResponse> {
        members::transfer(self, request).await
    }
    async fn rotate_certificate_authority(
        &self,
        caller: &Caller,
    ) -> ApiResult<v1::RotateCertificateAuthorityResponse> {
        rotation::authority(self, caller).await
    }
    async fn issue_user_certificate(
        &self,
        _: &Caller,
        request: v1::IssueUserCertificateRequest,
    ) -> ApiResult<v1::IssueUserCertificateResponse> {
        people::issue(self, request)
    }
    async fn rotate_data_key(&self, caller: &Caller) -> ApiResult<v1::RotateDataKeyResponse> {
        rotation::data_key(self, caller).await
    }
    async fn set_auto_lock(
        &self,
        caller: &Caller,
        request: v1::SetAutoLockRequest,
    ) -> ApiResult<v1::SetAutoLockResponse> {
        locking::set(self, caller, request).await
    }
    async fn backup_cluster(
        &self,
        _: &Caller,
        request: v1::BackupClusterRequest,
    ) -> ApiResult<ApiStream<v1::BackupChunk>> {
        backup::stream(self, request)
    }
    async fn recover_cluster(
        &self,
        _: &Caller,
        request: v1::RecoverClusterRequest,
    ) -> ApiResult<v1::RecoverClusterResponse> {
        cluster::recover(self, &request).await
    }
    async fn stream_events(&self, _: &Caller, query: EventQuery) -> ApiResult<ApiStream<Event>> {
        changes::events(self, query)
    }
    async fn status(&self, _: &Caller) -> ApiResult<v1::GetStatusResponse> {
        Ok(cluster::status(self))
    }
    async fn stop_daemon(
        &self,
        _: &Caller,
        grace: Option<Duration>,
    ) -> ApiResult<v1::StopDaemonResponse> {
        cluster::stop(self, grace).await
    }
    async fn import_image(
        &self,
        _: &Caller,
        options: v1::ImportOptions,
        archive: ApiStream<Bytes>,
    ) -> ApiResult<Vec<v1::Image>> {
        images::import(self, options, archive).await
    }
    async fn list_images(&self, _: &Caller, node: Option<String>) -> ApiResult<Vec<v1::Image>> {
        images::list(self, node).await
    }
    async fn inspect_image(
        &self,
        _: &Caller,
        reference: &str,
        node: Option<String>,
    ) -> ApiResult<v1::ImageDetails> {
        images::inspect(self, reference, node).await
    }
    async fn remove_image(
        &self,
        _: &Caller,
        reference: &str,
        node: Option<String>,
    ) -> ApiResult<Vec<v1::Image>> {
        images::remove(self, reference, node).await
    }
}
