//! A control plane in memory: services, secrets and volumes for true, the rest just enough to see what
//! the server makes of requests and answers. It records every call that reaches it.

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use tokio::sync::Notify;
use warren_api::{
    ApiError, ApiResult, ApiStream, Caller, CertificateRequest, ChangeOptions, ContainerChange,
    ContainerFilter, ControlPlane, EventQuery, ExecInput, ExecOutput, IssuedCertificate,
    IssuedToken, LogQuery, NewVolume, NodeChange, SecretView, VolumeView,
};
use warren_proto::convert::{ContainerView, NodeView, ServiceView};
use warren_proto::session::{ManagerMessage, Welcome, WorkerMessage, manager_message};
use warren_proto::v1;
use warren_types::{
    Container, ContainerId, ContainerStatus, DesiredState, Duration, Event, EventId, EventKind,
    NodeId, NodeRole, Revision, Role, SealedData, Secret, SecretId, Service, ServiceId,
    ServiceRevision, ServiceSpec, Slot, Timestamp, Volume, VolumeId,
};

/// Two nodes that containers run on.
pub const NODE_A: NodeId = NodeId::from_u128(0xa);
pub const NODE_B: NodeId = NodeId::from_u128(0xb);

#[derive(Default)]
pub struct Memory {
    services: Mutex<BTreeMap<String, Arc<Service>>>,
    secrets: Mutex<BTreeMap<String, Arc<Secret>>>,
    volumes: Mutex<BTreeMap<String, Arc<Volume>>>,
    version: AtomicU64,
    /// Name of each call that arrived, with its caller.
    pub calls: Mutex<Vec<(&'static str, Caller)>>,
    /// This many updates of services meet somebody else's change first.
    pub conflicts: AtomicU32,
    /// When set, creating and deleting a service wait for it.
    pub gate: Mutex<Option<Arc<Notify>>>,
    /// What was imported, and whether the archive ended well.
    pub imported: Mutex<Vec<Result<Vec<u8>, ApiError>>>,
    /// Notified when an import has ended either way.
    pub import_ended: Notify,
    /// What a joiner gets; nothing: a refusal.
    pub issued: Mutex<Option<IssuedCertificate>>,
    /// What a node gets that renews.
    pub renewed: Mutex<Option<v1::RenewCertificateResponse>>,
    /// Secrets as they arrived.
    pub plaintexts: Mutex<Vec<Vec<u8>>>,
}

impl Memory {
    fn record(&self, name: &'static str, caller: &Caller) {
        self.calls.lock().unwrap().push((name, caller.clone()));
    }

    fn next(&self) -> Revision {
        Revision(self.version.fetch_add(1, Ordering::SeqCst) + 1)
    }

    pub fn has_service(&self, name: &str) -> bool {
        self.services.lock().unwrap().contains_key(name)
    }

    fn find(&self, target: &str) -> ApiResult<Arc<Service>> {
        self.services
            .lock()
            .unwrap()
            .values()
            .find(|s| s.name() == target || s.id.to_string() == target)
            .cloned()
            .ok_or_else(|| ApiError::not_found("service", target))
    }

    fn put(
        &self,
        present: &Service,
        spec: ServiceSpec,
        options: &ChangeOptions,
    ) -> ApiResult<ServiceView> {
        if let Some(expect) = options.expect
            && expect != present.version
        {
            return Err(ApiError::Conflict {
                what: format!("service {:?}", present.name()),
                expected: expect.0,
                found: present.version.0,
            });
        }
        let mut service = present.clone();
        service.spec = Arc::new(spec);
        if !options.dry_run {
            service.version = self.next();
            let name = service.name().to_owned();
            self.services
                .lock()
                .unwrap()
                .insert(name, Arc::new(service.clone()));
        }
        Ok(view(Arc::new(service)))
    }

    /// Somebody else changes the service.
    fn disturb(&self, target: &str) {
        let present = self.find(target).unwrap();
        let spec = present.spec.as_ref().clone();
        self.put(&present, spec, &ChangeOptions::default()).unwrap();
    }
}

fn view(service: Arc<Service>) -> ServiceView {
    ServiceView {
        service,
        running: 1,
        ready: 1,
        desired: 2,
        reason: "1 of 2 runs".to_owned(),
    }
}

pub fn container(number: u128, node: NodeId) -> ContainerView {
    ContainerView {
        container: Arc::new(Container {
            id: ContainerId::from_u128(number),
            service: ServiceId::from_u128(1),
            service_revision: 1,
            slot: Slot::Replica(u32::try_from(number).unwrap()),
            node: Some(node),
            desired: DesiredState::Running,
            status: ContainerStatus::default(),
            created_at: Timestamp(1),
            updated_at: Timestamp(1),
            version: Revision(1),
        }),
        service_name: "web".to_owned(),
        spec: None,
        node_name: "n".to_owned(),
    }
}

fn secret_view(secret: &Arc<Secret>) -> SecretView {
    SecretView {
        secret: Arc::clone(secret),
        used_by: Vec::new(),
    }
}

fn volume_view(volume: &Arc<Volume>) -> VolumeView {
    VolumeView {
        volume: Arc::clone(volume),
        node_name: String::new(),
        used_by: Vec::new(),
    }
}

#[async_trait]
impl ControlPlane for Memory {
    async fn create_service(
        &self,
        caller: &Caller,
        spec: ServiceSpec,
        options: ChangeOptions,
    ) -> ApiResult<ServiceView> {
        self.record("CreateService", caller);
        let gate = self.gate.lock().unwrap().clone();
        if let Some(gate) = gate {
            gate.notified().await;
        }
        if self.has_service(&spec.name) {
            return Err(ApiError::AlreadyExists {
                kind: "service",
                name: spec.name,
                remedy: "choose another name, or change it with `warren service update`".to_owned(),
            });
        }
        let number = self.next();
        let spec = Arc::new(spec);
        let service = Arc::new(Service {
            id: ServiceId::from_u128(u128::from(number.0)),
            spec: Arc::clone(&spec),
            revision: 1,
            revisions: vec![ServiceRevision {
                number: 1,
                spec: Arc::clone(&spec),
                created_at: Timestamp(1),
                actor: caller.name.clone(),
            }],
            rollout: None,
            deleting: false,
            created_at: Timestamp(1),
            updated_at: Timestamp(1),
            version: number,
        });
        if !options.dry_run {
            self.services
                .lock()
                .unwrap()
                .insert(spec.name.clone(), Arc::clone(&service));
        }
        Ok(view(service))
    }

    async fn update_service(
        &self,
        caller: &Caller,
        target: &str,
        spec: ServiceSpec,
        options: ChangeOptions,
    ) -> ApiResult<ServiceView> {
        self.record("UpdateService", caller);
        if self
            .conflicts
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1))
            .is_ok()
        {
            self.disturb(target);
        }
        self.put(&*self.find(target)?, spec, &options)
    }

    async fn scale_service(
        &self,
        caller: &Caller,
        target: &str,
        replicas: u32,
        options: ChangeOptions,
    ) -> ApiResult<ServiceView> {
        self.record("ScaleService", caller);
        let present = self.find(target)?;
        let mut spec = present.spec.as_ref().clone();
        spec.mode = warren_types::Mode::Replicated { replicas };
        self.put(&present, spec, &options)
    }

    async fn rollback_service(
        &self,
        caller: &Caller,
        target: &str,
        to_revision: Option<u32>,
        options: ChangeOptions,
    ) -> ApiResult<ServiceView> {
        self.record("RollbackService", caller);
        let present = self.find(target)?;
        let number = to_revision.unwrap_or(1);
        let Some(spec) = present.revision_spec(number).cloned() else {
            return Err(ApiError::precondition(
                format!("service {target:?} keeps no revision {number}"),
                "`warren service inspect` lists the kept ones",
            ));
        };
        self.put(&present, spec.as_ref().clone(), &options)
    }

    async fn delete_service(&self, caller: &Caller, target: &str) -> ApiResult<()> {
        self.record("DeleteService", caller);
        let gate = self.gate.lock().unwrap().clone();
        if let Some(gate) = gate {
            gate.notified().await;
        }
        let name = self.find(target)?.name().to_owned();
        self.services.lock().unwrap().remove(&name);
        Ok(())
    }

    async fn get_service(&self, caller: &Caller, target: &str) -> ApiResult<ServiceView> {
        self.record("GetService", caller);
        if target == "hang" {
            std::future::pending::<()>().await;
        }
        if target == "panic" {
            panic!("asked for by the test");
        }
        self.find(target).map(view)
    }

    async fn list_services(&self, caller: &Caller) -> ApiResult<Vec<ServiceView>> {
        self.record("ListServices", caller);
        Ok(self
            .services
            .lock()
            .unwrap()
            .values()
            .cloned()
            .map(view)
            .collect())
    }

    /// All containers whatever the filter: the server must not let a worker see the other node's.
    async fn list_containers(
        &self,
        caller: &Caller,
        _filter: ContainerFilter,
    ) -> ApiResult<Vec<ContainerView>> {
        self.record("ListContainers", caller);
        Ok(vec![container(1, NODE_A), container(2, NODE_B)])
    }

    async fn get_container(&self, caller: &Caller, target: &str) -> ApiResult<ContainerView> {
        self.record("GetContainer", caller);
        match target {
            "web.1" => Ok(container(1, NODE_A)),
            "web.2" => Ok(container(2, NODE_B)),
            _ => Err(ApiError::not_found("container", target)),
        }
    }

    async fn watch_containers(
        &self,
        caller: &Caller,
        filter: ContainerFilter,
    ) -> ApiResult<ApiStream<ContainerChange>> {
        self.record("WatchContainers", caller);
        let all = [container(1, NODE_A), container(2, NODE_B)];
        let wanted = all
            .into_iter()
            .filter(move |c| {
                let node = c.container.node.map(|n| n.to_string());
                filter.node.is_none() || filter.node == node
            })
            .map(|c| Ok(ContainerChange::Added(c)));
        Ok(stream::iter(wanted.collect::<Vec<_>>()).boxed())
    }

    async fn logs(&self, caller: &Caller, query: LogQuery) -> ApiResult<ApiStream<v1::LogEntry>> {
        self.record("GetLogs", caller);
        let entry = v1::LogEntry {
            data: format!("{query:?}").into_bytes(),
            ..Default::default()
        };
        Ok(stream::iter([Ok(entry)]).boxed())
    }

    /// Echoes the input; ends with the number of input bytes as exit code.
    async fn exec(
        &self,
        caller: &Caller,
        _start: v1::ExecStart,
        input: BoxStream<'static, ExecInput>,
    ) -> ApiResult<ApiStream<ExecOutput>> {
        self.record("Exec", caller);
        let mut count = 0;
        let mut done = false;
        let output = input
            .chain(stream::iter([ExecInput::Eof]))
            .map(move |item| {
                if done {
                    return None;
                }
                Some(Ok(match item {
                    ExecInput::Stdin(bytes) => {
                        count += i32::try_from(bytes.len()).unwrap();
                        ExecOutput::Stdout(bytes)
                    }
                    ExecInput::Resize { columns, rows } => {
                        ExecOutput::Stderr(Bytes::from(format!("{columns}x{rows}")))
                    }
                    ExecInput::Eof => {
                        done = true;
                        ExecOutput::Exit(count)
                    }
                }))
            });
        Ok(output.filter_map(std::future::ready).boxed())
    }

    async fn list_nodes(
        &self,
        caller: &Caller,
        _role: Option<NodeRole>,
    ) -> ApiResult<Vec<NodeView>> {
        self.record("ListNodes", caller);
        Ok(Vec::new())
    }

    async fn get_node(&self, caller: &Caller, target: &str) -> ApiResult<NodeView> {
        self.record("GetNode", caller);
        Err(ApiError::not_found("node", target))
    }

    async fn update_node(
        &self,
        caller: &Caller,
        target: &str,
        _change: NodeChange,
    ) -> ApiResult<NodeView> {
        self.record("UpdateNode", caller);
        Err(ApiError::not_found("node", target))
    }

    async fn remove_node(&self, caller: &Caller, target: &str, _force: bool) -> ApiResult<()> {
        self.record("RemoveNode", caller);
        Err(ApiError::not_found("node", target))
    }

    /// Answers Hello with Welcome, and each later message with another; knows the caller's node.
    async fn accept_session(
        &self,
        caller: &Caller,
        inbound: BoxStream<'static, WorkerMessage>,
    ) -> ApiResult<ApiStream<ManagerMessage>> {
        self.record("Session", caller);
        let name = caller.node.map(|n| n.to_string()).unwrap_or_default();
        Ok(inbound
            .enumerate()
            .map(move |(number, _)| {
                Ok(ManagerMessage {
                    body: Some(manager_message::Body::Welcome(Welcome {
                        session_id: number as u64 + 1,
                        manager_name: name.clone(),
                        ..Default::default()
                    })),
                })
            })
            .boxed())
    }

    async fn create_secret(
        &self,
        caller: &Caller,
        name: String,
        labels: BTreeMap<String, String>,
        data: Vec<u8>,
        _options: ChangeOptions,
    ) -> ApiResult<SecretView> {
        self.record("CreateSecret", caller);
        let number = self.next();
        let secret = Arc::new(Secret {
            id: SecretId::from_u128(u128::from(number.0)),
            name: name.clone(),
            labels,
            data: SealedData {
                ciphertext: b"sealed".to_vec(),
                ..SealedData::default()
            },
            size: data.len() as u64,
            created_at: Timestamp(1),
            updated_at: Timestamp(1),
            version: number,
        });
        self.plaintexts.lock().unwrap().push(data);
        self.secrets
            .lock()
            .unwrap()
            .insert(name, Arc::clone(&secret));
        Ok(secret_view(&secret))
    }

    async fn update_secret(
        &self,
        caller: &Caller,
        target: &str,
        data: Vec<u8>,
        _options: ChangeOptions,
    ) -> ApiResult<SecretView> {
        self.record("UpdateSecret", caller);
        let found = self.secrets.lock().unwrap().get(target).cloned();
        let secret = found.ok_or_else(|| ApiError::not_found("secret", target))?;
        self.plaintexts.lock().unwrap().push(data);
        Ok(secret_view(&secret))
    }

    async fn delete_secret(&self, caller: &Caller, target: &str) -> ApiResult<()> {
        self.record("DeleteSecret", caller);
        let gone = self.secrets.lock().unwrap().remove(target);
        gone.map(drop)
            .ok_or_else(|| ApiError::not_found("secret", target))
    }

    async fn get_secret(&self, caller: &Caller, target: &str) -> ApiResult<SecretView> {
        self.record("GetSecretByName", caller);
        let found = self.secrets.lock().unwrap().get(target).cloned();
        found
            .map(|s| secret_view(&s))
            .ok_or_else(|| ApiError::not_found("secret", target))
    }

    async fn list_secrets(&self, caller: &Caller) -> ApiResult<Vec<SecretView>> {
        self.record("ListSecrets", caller);
        Ok(self
            .secrets
            .lock()
            .unwrap()
            .values()
            .map(secret_view)
            .collect())
    }

    async fn create_volume(
        &self,
        caller: &Caller,
        new: NewVolume,
        _options: ChangeOptions,
    ) -> ApiResult<VolumeView> {
        self.record("CreateVolume", caller);
        let number = self.next();
        let volume = Arc::new(Volume {
            id: VolumeId::from_u128(u128::from(number.0)),
            name: new.name.clone(),
            driver: new.driver,
            driver_opts: new.driver_opts,
            labels: new.labels,
            node: None,
            mount_path: String::new(),
            created_at: Timestamp(1),
            version: number,
        });
        self.volumes
            .lock()
            .unwrap()
            .insert(new.name, Arc::clone(&volume));
        Ok(volume_view(&volume))
    }

    async fn delete_volume(&self, caller: &Caller, target: &str, _force: bool) -> ApiResult<()> {
        self.record("DeleteVolume", caller);
        Err(ApiError::precondition(
            format!("volume {target:?} is used by service \"web\""),
            "delete the service first",
        ))
    }

    async fn get_volume(&self, caller: &Caller, target: &str) -> ApiResult<VolumeView> {
        self.record("GetVolumeByName", caller);
        let found = self.volumes.lock().unwrap().get(target).cloned();
        found
            .map(|v| volume_view(&v))
            .ok_or_else(|| ApiError::not_found("volume", target))
    }

    async fn list_volumes(&self, caller: &Caller) -> ApiResult<Vec<VolumeView>> {
        self.record("ListVolumes", caller);
        Ok(self
            .volumes
            .lock()
            .unwrap()
            .values()
            .map(volume_view)
            .collect())
    }

    async fn cluster_info(&self, caller: &Caller) -> ApiResult<v1::GetClusterInfoResponse> {
        self.record("GetClusterInfo", caller);
        Ok(v1::GetClusterInfoResponse::default())
    }

    async fn generate_join_token(
        &self,
        caller: &Caller,
        role: Role,
        _ttl: Option<Duration>,
        _max_uses: Option<u32>,
        _rotate: bool,
    ) -> ApiResult<IssuedToken> {
        self.record("GenerateJoinToken", caller);
        Ok(IssuedToken {
            token: "WRN-1-test".to_owned(),
            id: warren_types::TokenId::from_u128(1),
            role,
            expires_at: Timestamp(1),
        })
    }

    async fn request_certificate(
        &self,
        caller: &Caller,
        _request: CertificateRequest,
    ) -> ApiResult<IssuedCertificate> {
        self.record("RequestCertificate", caller);
        if let Some(issued) = self.issued.lock().unwrap().clone() {
            return Ok(issued);
        }
        Err(ApiError::denied(
            "the join token is not valid",
            "ask an admin of the cluster for a new one",
        ))
    }

    async fn renew_certificate(
        &self,
        caller: &Caller,
        _request: v1::RenewCertificateRequest,
    ) -> ApiResult<v1::RenewCertificateResponse> {
        self.record("RenewCertificate", caller);
        let renewed = self.renewed.lock().unwrap().clone();
        renewed.ok_or(ApiError::Unimplemented {
            what: "RenewCertificate",
            remedy: "of this test",
        })
    }

    async fn stream_events(
        &self,
        caller: &Caller,
        query: EventQuery,
    ) -> ApiResult<ApiStream<Event>> {
        self.record("StreamEvents", caller);
        let event = Event {
            id: EventId::from_u128(5),
            kind: EventKind::ServiceCreated,
            time: Timestamp(7),
            revision: Revision(query.since.map_or(0, |r| r.0) + 1),
            message: "made".to_owned(),
            metadata: BTreeMap::new(),
        };
        let first = stream::iter([Ok(event)]);
        Ok(if query.follow {
            first.chain(stream::pending()).boxed()
        } else {
            first.boxed()
        })
    }

    async fn status(&self, caller: &Caller) -> ApiResult<v1::GetStatusResponse> {
        self.record("GetStatus", caller);
        Ok(v1::GetStatusResponse {
            version: "test".to_owned(),
            ..Default::default()
        })
    }

    async fn stop_daemon(
        &self,
        caller: &Caller,
        _grace: Option<Duration>,
    ) -> ApiResult<v1::StopDaemonResponse> {
        self.record("StopDaemon", caller);
        Ok(v1::StopDaemonResponse::default())
    }

    async fn import_image(
        &self,
        caller: &Caller,
        _options: v1::ImportOptions,
        mut archive: ApiStream<Bytes>,
    ) -> ApiResult<Vec<v1::Image>> {
        self.record("ImportImage", caller);
        let mut bytes = Vec::new();
        let result = loop {
            match archive.next().await {
                Some(Ok(chunk)) => bytes.extend_from_slice(&chunk),
                Some(Err(error)) => break Err(error),
                None => break Ok(bytes),
            }
        };
        self.imported.lock().unwrap().push(result.clone());
        self.import_ended.notify_one();
        result.map(|_| vec![v1::Image::default()])
    }

    async fn list_images(
        &self,
        caller: &Caller,
        _node: Option<String>,
    ) -> ApiResult<Vec<v1::Image>> {
        self.record("ListImages", caller);
        Ok(Vec::new())
    }

    async fn inspect_image(
        &self,
        caller: &Caller,
        reference: &str,
        _node: Option<String>,
    ) -> ApiResult<v1::ImageDetails> {
        self.record("InspectImage", caller);
        Err(ApiError::not_found("image", reference))
    }

    async fn remove_image(
        &self,
        caller: &Caller,
        reference: &str,
        _node: Option<String>,
    ) -> ApiResult<Vec<v1::Image>> {
        self.record("RemoveImage", caller);
        Err(ApiError::not_found("image", reference))
    }
}
