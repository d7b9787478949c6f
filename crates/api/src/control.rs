//! What the server needs of a manager: one method for each thing the API can do, with checked values.

use crate::caller::Caller;
use crate::error::ApiError;
use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use std::collections::BTreeMap;
use std::sync::Arc;
use warren_proto::convert::{ContainerView, NodeView, ServiceView};
use warren_proto::session::{ManagerMessage, WorkerMessage};
use warren_proto::v1;
use warren_types::{
    Availability, Certificate, ClusterId, Duration, Event, EventKind, Ingress, IngressRule,
    IngressTls, NodeId, NodeRole, Revision, Role, Secret, ServiceSpec, Timestamp, TokenId, Volume,
};

/// Result of a call.
pub type ApiResult<T> = Result<T, ApiError>;
/// A stream that ends with the first error.
pub type ApiStream<T> = BoxStream<'static, ApiResult<T>>;

/// How a change is to be made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ChangeOptions {
    /// Version that the object must have; `None` means any.
    pub expect: Option<Revision>,
    /// A repeated call with the same key gives the first one's answer and changes nothing.
    pub idempotency_key: Option<String>,
    /// Check everything, change nothing.
    pub dry_run: bool,
}

/// Which containers are meant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ContainerFilter {
    /// Of this service, by id or name.
    pub service: Option<String>,
    /// On this node, by id or name.
    pub node: Option<String>,
    /// The ended ones too.
    pub include_ended: bool,
}

/// One change of a watched container.
#[derive(Debug, Clone)]
pub enum ContainerChange {
    /// It is there now (also for each one that was there when the watch began).
    Added(ContainerView),
    /// It has changed.
    Updated(ContainerView),
    /// It is gone.
    Deleted(ContainerView),
}

/// Which events are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventQuery {
    /// Only these kinds; empty means all.
    pub kinds: Vec<EventKind>,
    /// First the kept events after this revision; `None` means only new ones.
    pub since: Option<Revision>,
    /// Go on with new ones.
    pub follow: bool,
}

/// What an operator changes of a node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeChange {
    /// New availability.
    pub availability: Option<Availability>,
    /// Labels to set.
    pub labels_set: BTreeMap<String, String>,
    /// Label keys to remove.
    pub labels_remove: Vec<String>,
    /// Version that the node must have.
    pub expect: Option<Revision>,
    /// New role: promotes and demotes.
    pub role: Option<NodeRole>,
}

/// A secret and who uses it.
#[derive(Debug, Clone)]
pub struct SecretView {
    /// The record.
    pub secret: Arc<Secret>,
    /// Names of the services that use it.
    pub used_by: Vec<String>,
}

/// A volume and who uses it.
#[derive(Debug, Clone)]
pub struct VolumeView {
    /// The record.
    pub volume: Arc<Volume>,
    /// Name of the node that holds its data; empty when none does.
    pub node_name: String,
    /// Names of the services that use it.
    pub used_by: Vec<String>,
}

/// A volume to be made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewVolume {
    /// Unique name.
    pub name: String,
    /// Driver; never empty.
    pub driver: String,
    /// Options of the driver.
    pub driver_opts: BTreeMap<String, String>,
    /// Free labels.
    pub labels: BTreeMap<String, String>,
}

/// A join token just made. The text is shown once.
#[derive(Clone)]
pub struct IssuedToken {
    /// The whole token, with its secret.
    pub token: String,
    /// Public part.
    pub id: TokenId,
    /// What the joiner becomes.
    pub role: Role,
    /// When it ends.
    pub expires_at: Timestamp,
}

/// What a joiner asks for.
#[derive(Clone)]
pub struct CertificateRequest {
    /// Id that the joiner wants, or `cli`.
    pub node_id: String,
    /// Name of the joining node or person; may be empty.
    pub node_name: String,
    /// Join token.
    pub token: String,
    /// Certificate signing request in PEM; `None` means that the manager makes the key (older clients).
    pub csr_pem: Option<String>,
    /// Where the node's API will answer, `host:port`; empty for none.
    pub address: String,
    /// What the node wants to be; `None` means what the token says.
    pub role: Option<NodeRole>,
}

/// A certificate just issued.
#[derive(Clone)]
pub struct IssuedCertificate {
    /// Certificate chain in PEM.
    pub certificate_pem: String,
    /// Private key in PEM, only when the request brought no CSR.
    pub key_pem: Option<String>,
    /// Roots of the cluster in PEM.
    pub ca_pem: String,
    /// The node that was made for it; `None` for people.
    pub node: Option<NodeId>,
    /// The cluster.
    pub cluster: ClusterId,
    /// Name of the cluster.
    pub cluster_name: String,
    /// What the node is.
    pub role: Option<NodeRole>,
    /// The managers.
    pub managers: Vec<v1::ClusterServer>,
}

/// Which log lines are meant. Exactly one of `service` and `container` is set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogQuery {
    /// All containers of this service, by id or name.
    pub service: Option<String>,
    /// One container, by id or name.
    pub container: Option<String>,
    /// Go on with new lines.
    pub follow: bool,
    /// Only the last lines of each container.
    pub tail: Option<u32>,
    /// Only lines since then.
    pub since: Option<Timestamp>,
    /// Standard output.
    pub stdout: bool,
    /// Standard error.
    pub stderr: bool,
}

/// Input of a running exec call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExecInput {
    /// Bytes for standard input.
    Stdin(Bytes),
    /// The terminal has a new size.
    Resize {
        /// Columns.
        columns: u16,
        /// Rows.
        rows: u16,
    },
    /// No more input.
    Eof,
}

/// Output of a running exec call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExecOutput {
    /// Bytes of standard output (or of the terminal).
    Stdout(Bytes),
    /// Bytes of standard error.
    Stderr(Bytes),
    /// It has ended; last message.
    Exit(i32),
}

/// A new or changed ingress.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IngressChange {
    /// Name, or new name; `None` leaves it.
    pub name: Option<String>,
    /// Rules; `None` leaves them.
    pub rules: Option<Vec<IngressRule>>,
    /// TLS; `None` leaves it.
    pub tls: Option<IngressTls>,
    /// Labels; `None` leaves them.
    pub labels: Option<BTreeMap<String, String>>,
}

/// A TLS certificate to be stored.
#[derive(Clone)]
pub struct NewCertificate {
    /// Unique name.
    pub name: String,
    /// Hosts it is for.
    pub hosts: Vec<String>,
    /// Chain in PEM.
    pub cert_pem: String,
    /// Private key in PEM.
    pub key_pem: String,
    /// Free labels.
    pub labels: BTreeMap<String, String>,
}

const NODE_SESSIONS: &str = "nodes of this version use a session (warren.session.v1.NodeSession)";

fn later<T>(what: &'static str) -> ApiResult<T> {
    Err(ApiError::Unimplemented {
        what,
        remedy: "see the release notes for when it comes",
    })
}

/// The manager behind the server.
///
/// Before a method is called, the caller is authenticated and allowed to call it (the table in
/// `warren_proto::authz`), and the values are checked by the validators of `types`. A `target` is an id or a
/// name. What is left to the implementation: whether the objects exist, whether a worker asks about
/// itself only (`caller.node`), and the ring of design §2 behind it.
#[async_trait]
pub trait ControlPlane: Send + Sync + 'static {
    // ------------------------------------------------------------------ services

    /// Makes a service.
    async fn create_service(
        &self,
        caller: &Caller,
        spec: ServiceSpec,
        options: ChangeOptions,
    ) -> ApiResult<ServiceView>;
    /// Replaces the spec of a service.
    async fn update_service(
        &self,
        caller: &Caller,
        target: &str,
        spec: ServiceSpec,
        options: ChangeOptions,
    ) -> ApiResult<ServiceView>;
    /// Changes the number of replicas alone.
    async fn scale_service(
        &self,
        caller: &Caller,
        target: &str,
        replicas: u32,
        options: ChangeOptions,
    ) -> ApiResult<ServiceView>;
    /// Goes back to a kept revision; `None` means the one before.
    async fn rollback_service(
        &self,
        caller: &Caller,
        target: &str,
        to_revision: Option<u32>,
        options: ChangeOptions,
    ) -> ApiResult<ServiceView>;
    /// Takes a service away.
    async fn delete_service(&self, caller: &Caller, target: &str) -> ApiResult<()>;
    /// One service.
    async fn get_service(&self, caller: &Caller, target: &str) -> ApiResult<ServiceView>;
    /// All services, by name.
    async fn list_services(&self, caller: &Caller) -> ApiResult<Vec<ServiceView>>;

    // ------------------------------------------------------------------ containers

    /// Containers, by service and slot.
    async fn list_containers(
        &self,
        caller: &Caller,
        filter: ContainerFilter,
    ) -> ApiResult<Vec<ContainerView>>;
    /// One container.
    async fn get_container(&self, caller: &Caller, target: &str) -> ApiResult<ContainerView>;
    /// First every container there is, as added, then each change; without gap or overlap.
    async fn watch_containers(
        &self,
        caller: &Caller,
        filter: ContainerFilter,
    ) -> ApiResult<ApiStream<ContainerChange>>;
    /// Log lines.
    async fn logs(&self, caller: &Caller, query: LogQuery) -> ApiResult<ApiStream<v1::LogEntry>>;
    /// Runs a program inside a container. The input stream ends when the caller goes away.
    async fn exec(
        &self,
        caller: &Caller,
        start: v1::ExecStart,
        input: BoxStream<'static, ExecInput>,
    ) -> ApiResult<ApiStream<ExecOutput>>;

    // ------------------------------------------------------------------ nodes

    /// Nodes, by name; `role` narrows.
    async fn list_nodes(&self, caller: &Caller, role: Option<NodeRole>)
    -> ApiResult<Vec<NodeView>>;
    /// One node.
    async fn get_node(&self, caller: &Caller, target: &str) -> ApiResult<NodeView>;
    /// Changes availability and labels.
    async fn update_node(
        &self,
        caller: &Caller,
        target: &str,
        change: NodeChange,
    ) -> ApiResult<NodeView>;
    /// Takes a node out of the cluster; without `force` only when it is down.
    async fn remove_node(&self, caller: &Caller, target: &str, force: bool) -> ApiResult<()>;
    /// One node's session; the caller is a worker or manager node. Called for in-process nodes too.
    async fn accept_session(
        &self,
        caller: &Caller,
        inbound: BoxStream<'static, WorkerMessage>,
    ) -> ApiResult<ApiStream<ManagerMessage>>;

    // ------------------------------------------------------------------ secrets and volumes

    /// Seals and stores a secret.
    async fn create_secret(
        &self,
        caller: &Caller,
        name: String,
        labels: BTreeMap<String, String>,
        data: Vec<u8>,
        options: ChangeOptions,
    ) -> ApiResult<SecretView>;
    /// Gives a secret a new value.
    async fn update_secret(
        &self,
        caller: &Caller,
        target: &str,
        data: Vec<u8>,
        options: ChangeOptions,
    ) -> ApiResult<SecretView>;
    /// Removes a secret that no service uses.
    async fn delete_secret(&self, caller: &Caller, target: &str) -> ApiResult<()>;
    /// One secret, without its value.
    async fn get_secret(&self, caller: &Caller, target: &str) -> ApiResult<SecretView>;
    /// All secrets, by name, without values.
    async fn list_secrets(&self, caller: &Caller) -> ApiResult<Vec<SecretView>>;
    /// Makes a volume.
    async fn create_volume(
        &self,
        caller: &Caller,
        volume: NewVolume,
        options: ChangeOptions,
    ) -> ApiResult<VolumeView>;
    /// Removes a volume that no service uses, and its data.
    async fn delete_volume(&self, caller: &Caller, target: &str, force: bool) -> ApiResult<()>;
    /// One volume.
    async fn get_volume(&self, caller: &Caller, target: &str) -> ApiResult<VolumeView>;
    /// All volumes, by name.
    async fn list_volumes(&self, caller: &Caller) -> ApiResult<Vec<VolumeView>>;

    // ------------------------------------------------------------------ cluster

    /// About the cluster.
    async fn cluster_info(&self, caller: &Caller) -> ApiResult<v1::GetClusterInfoResponse>;
    /// Makes a join token for a manager or worker; `ttl` and `max_uses` `None` mean the default and no limit;
    /// `rotate` ends every earlier token of the role.
    async fn generate_join_token(
        &self,
        caller: &Caller,
        role: Role,
        ttl: Option<Duration>,
        max_uses: Option<u32>,
        rotate: bool,
    ) -> ApiResult<IssuedToken>;
    /// Gives a joiner its certificate. The caller may have role none: the token decides.
    async fn request_certificate(
        &self,
        caller: &Caller,
        request: CertificateRequest,
    ) -> ApiResult<IssuedCertificate>;
    /// Events.
    async fn stream_events(
        &self,
        caller: &Caller,
        query: EventQuery,
    ) -> ApiResult<ApiStream<Event>>;
    /// About this daemon.
    async fn status(&self, caller: &Caller) -> ApiResult<v1::GetStatusResponse>;
    /// Stops this daemon soon after the answer; its containers go on running.
    async fn stop_daemon(
        &self,
        caller: &Caller,
        grace: Option<Duration>,
    ) -> ApiResult<v1::StopDaemonResponse>;

    // ------------------------------------------------------------------ images

    /// Imports an archive. The stream ends when the archive has ended; an error in it means that the
    /// caller has gone, and nothing may be left of the archive.
    async fn import_image(
        &self,
        caller: &Caller,
        options: v1::ImportOptions,
        archive: ApiStream<Bytes>,
    ) -> ApiResult<Vec<v1::Image>>;
    /// Images of one node or all.
    async fn list_images(&self, caller: &Caller, node: Option<String>)
    -> ApiResult<Vec<v1::Image>>;
    /// One image.
    async fn inspect_image(
        &self,
        caller: &Caller,
        reference: &str,
        node: Option<String>,
    ) -> ApiResult<v1::ImageDetails>;
    /// Removes an image that nothing uses.
    async fn remove_image(
        &self,
        caller: &Caller,
        reference: &str,
        node: Option<String>,
    ) -> ApiResult<Vec<v1::Image>>;

    // ------------------------------------------------------------------ older node calls

    /// Older node registration.
    async fn register_node(
        &self,
        _caller: &Caller,
        _request: v1::RegisterNodeRequest,
    ) -> ApiResult<NodeView> {
        Err(ApiError::Unimplemented {
            what: "RegisterNode",
            remedy: NODE_SESSIONS,
        })
    }
    /// Older heartbeat.
    async fn heartbeat(&self, _caller: &Caller, _request: v1::HeartbeatRequest) -> ApiResult<()> {
        Err(ApiError::Unimplemented {
            what: "Heartbeat",
            remedy: NODE_SESSIONS,
        })
    }
    /// Older status report.
    async fn update_container_status(
        &self,
        _caller: &Caller,
        _request: v1::UpdateContainerStatusRequest,
    ) -> ApiResult<()> {
        Err(ApiError::Unimplemented {
            what: "UpdateContainerStatus",
            remedy: NODE_SESSIONS,
        })
    }
    /// Older health report.
    async fn report_container_health(
        &self,
        _caller: &Caller,
        _request: v1::ReportContainerHealthRequest,
    ) -> ApiResult<()> {
        Err(ApiError::Unimplemented {
            what: "ReportContainerHealth",
            remedy: NODE_SESSIONS,
        })
    }

    // ------------------------------------------------------------------ the quorum

    /// A manager joins the quorum; `bind_addr` is where its API answers.
    async fn join_cluster(
        &self,
        _caller: &Caller,
        _request: v1::JoinClusterRequest,
    ) -> ApiResult<v1::JoinClusterResponse> {
        later("JoinCluster")
    }
    /// A new certificate for a node that proves that it has the old one's key.
    async fn renew_certificate(
        &self,
        _caller: &Caller,
        _request: v1::RenewCertificateRequest,
    ) -> ApiResult<v1::RenewCertificateResponse> {
        later("RenewCertificate")
    }
    /// All join tokens, without their secrets.
    async fn list_join_tokens(&self, _caller: &Caller) -> ApiResult<v1::ListJoinTokensResponse> {
        later("ListJoinTokens")
    }
    /// Makes a join token useless.
    async fn revoke_join_token(&self, _caller: &Caller, _id: &str) -> ApiResult<()> {
        later("RevokeJoinToken")
    }
    /// Changes the cluster's settings.
    async fn update_cluster_settings(
        &self,
        _caller: &Caller,
        _request: v1::UpdateClusterSettingsRequest,
    ) -> ApiResult<v1::UpdateClusterSettingsResponse> {
        later("UpdateClusterSettings")
    }
    /// Gives leadership to another manager.
    async fn transfer_leadership(
        &self,
        _caller: &Caller,
        _request: v1::TransferLeadershipRequest,
    ) -> ApiResult<v1::TransferLeadershipResponse> {
        later("TransferLeadership")
    }
    /// A consistent backup, sealed with the passphrase, in pieces.
    async fn backup_cluster(
        &self,
        _caller: &Caller,
        _request: v1::BackupClusterRequest,
    ) -> ApiResult<ApiStream<v1::BackupChunk>> {
        later("BackupCluster")
    }
    /// This manager goes on alone.
    async fn recover_cluster(
        &self,
        _caller: &Caller,
        _request: v1::RecoverClusterRequest,
    ) -> ApiResult<v1::RecoverClusterResponse> {
        later("RecoverCluster")
    }
    /// Switches auto-lock.
    async fn set_auto_lock(
        &self,
        _caller: &Caller,
        _request: v1::SetAutoLockRequest,
    ) -> ApiResult<v1::SetAutoLockResponse> {
        later("SetAutoLock")
    }
    /// Gives a locked manager its key.
    async fn unlock_cluster(
        &self,
        _caller: &Caller,
        _request: v1::UnlockClusterRequest,
    ) -> ApiResult<v1::UnlockClusterResponse> {
        Err(ApiError::precondition(
            "this manager is not locked",
            "nothing needs to be done",
        ))
    }
    /// Begins to move the cluster to a new certificate authority.
    async fn rotate_certificate_authority(
        &self,
        _caller: &Caller,
    ) -> ApiResult<v1::RotateCertificateAuthorityResponse> {
        later("RotateCertificateAuthority")
    }
    /// Signs a certificate for a person. Role and size of the request are checked.
    async fn issue_user_certificate(
        &self,
        _caller: &Caller,
        _request: v1::IssueUserCertificateRequest,
    ) -> ApiResult<v1::IssueUserCertificateResponse> {
        later("IssueUserCertificate")
    }
    /// Makes a new data key and seals every secret with it.
    async fn rotate_data_key(&self, _caller: &Caller) -> ApiResult<v1::RotateDataKeyResponse> {
        later("RotateDataKey")
    }

    // ------------------------------------------------------------------ ingress

    /// Makes an ingress.
    async fn create_ingress(
        &self,
        _caller: &Caller,
        _ingress: IngressChange,
    ) -> ApiResult<Arc<Ingress>> {
        later("CreateIngress")
    }
    /// Changes an ingress.
    async fn update_ingress(
        &self,
        _caller: &Caller,
        _target: &str,
        _change: IngressChange,
    ) -> ApiResult<Arc<Ingress>> {
        later("UpdateIngress")
    }
    /// Removes an ingress.
    async fn delete_ingress(&self, _caller: &Caller, _target: &str) -> ApiResult<()> {
        later("DeleteIngress")
    }
    /// One ingress.
    async fn get_ingress(&self, _caller: &Caller, _target: &str) -> ApiResult<Arc<Ingress>> {
        later("GetIngress")
    }
    /// All ingresses.
    async fn list_ingresses(&self, _caller: &Caller) -> ApiResult<Vec<Arc<Ingress>>> {
        later("ListIngresses")
    }
    /// Stores a TLS certificate.
    async fn create_certificate(
        &self,
        _caller: &Caller,
        _certificate: NewCertificate,
    ) -> ApiResult<Arc<Certificate>> {
        later("CreateTLSCertificate")
    }
    /// One TLS certificate, without its key.
    async fn get_certificate(
        &self,
        _caller: &Caller,
        _target: &str,
    ) -> ApiResult<Arc<Certificate>> {
        later("GetTLSCertificate")
    }
    /// All TLS certificates, without keys.
    async fn list_certificates(&self, _caller: &Caller) -> ApiResult<Vec<Arc<Certificate>>> {
        later("ListTLSCertificates")
    }
    /// Removes a TLS certificate.
    async fn delete_certificate(&self, _caller: &Caller, _target: &str) -> ApiResult<()> {
        later("DeleteTLSCertificate")
    }
}
