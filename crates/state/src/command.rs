//! Commands: what the log carries.

use crate::change::ObjectKind;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use warren_types::{
    Availability, Certificate, CertificateId, ClusterSettings, Config, ConfigId, ContainerId,
    ContainerStatus, DesiredState, Id128, Ingress, IngressId, JoinToken, Liveness, Network,
    NetworkId, Node, NodeId, NodeResources, NodeRole, Platform, Revision, Rollout, SealedData,
    Secret, SecretId, ServiceId, ServiceSpec, Slot, Timestamp, TokenId, TransitionError, Volume,
    VolumeId,
};

/// Version of the command format that this program writes, and the newest that it applies.
pub const COMMAND_VERSION: u32 = 1;

/// Operations that are applied all or nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// Format version, [`COMMAND_VERSION`] for a new command.
    pub version: u32,
    /// Who wants it.
    pub actor: Actor,
    /// When it was made, by the clock of the proposing manager.
    pub time: Timestamp,
    /// In order; each sees what those before it did.
    pub ops: Vec<Op>,
    /// The same key again (of the same actor) gives the first result again and changes nothing,
    /// as long as the key is among the last `IDEMPOTENCY_KEYS_KEPT`. A rejected command keeps no key.
    pub idempotency_key: Option<String>,
}

impl Command {
    /// A command of the present version without idempotency key.
    #[must_use]
    pub fn new(actor: Actor, time: Timestamp, ops: Vec<Op>) -> Self {
        Self {
            version: COMMAND_VERSION,
            actor,
            time,
            ops,
            idempotency_key: None,
        }
    }

    /// The same command with an idempotency key.
    #[must_use]
    pub fn with_key(mut self, key: impl Into<String>) -> Self {
        self.idempotency_key = Some(key.into());
        self
    }
}

/// Who wants a command. Decides which operations it may hold (law 4: one owner a transition).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Actor {
    /// A caller of the API.
    Api {
        /// Name from the caller's certificate or socket.
        name: String,
    },
    /// The scheduler: places containers, gives reasons for waiting, binds volumes.
    Scheduler,
    /// The reconciler: makes and retires containers, drives rollouts.
    Reconciler,
    /// The dispatcher on behalf of one node's session; reports for that node only.
    Dispatcher {
        /// The node.
        node: NodeId,
    },
    /// The manager itself (init, join, liveness, status batches of several nodes): may do everything.
    System,
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Api { name } => write!(f, "api:{name}"),
            Self::Scheduler => f.write_str("scheduler"),
            Self::Reconciler => f.write_str("reconciler"),
            Self::Dispatcher { node } => write!(f, "dispatcher:{node}"),
            Self::System => f.write_str("system"),
        }
    }
}

/// What changes on a node; `None` leaves a field as it is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodePatch {
    /// Role.
    pub role: Option<NodeRole>,
    /// Address of its API, `host:port`.
    pub address: Option<String>,
    /// Host name.
    pub hostname: Option<String>,
    /// All labels (replaces the map).
    pub labels: Option<BTreeMap<String, String>>,
    /// Platform.
    pub platform: Option<Platform>,
    /// Resources.
    pub resources: Option<NodeResources>,
    /// What the operator wants of it.
    pub availability: Option<Availability>,
    /// Subnet in CIDR form; once given it can only be given again unchanged.
    pub subnet: Option<String>,
    /// Version of its program.
    pub version_text: Option<String>,
    /// SHA-256 in hex of the root that signed its present certificate.
    pub certificate_root: Option<String>,
}

/// One operation.
///
/// `expect` is the version precondition: the `version` that the object had in the state on which
/// the decision was made. It is compared with the state before the command, so that several
/// operations of one command may carry the same one. `None` means "whatever it is".
///
/// Operations that carry a whole object take from it what a caller can choose; `created_at`,
/// `updated_at` and `version` are stamped by `apply`, identity fields (id, name) never change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// SM-01. Registers a node.
    NodeAdd(Box<Node>),
    /// SM-02. Changes a node.
    NodeUpdate {
        /// The node.
        id: NodeId,
        /// Version precondition.
        expect: Option<Revision>,
        /// What changes.
        patch: Box<NodePatch>,
    },
    /// SM-02. A node answers, or fell silent.
    NodeSetLiveness {
        /// The node.
        id: NodeId,
        /// Version precondition.
        expect: Option<Revision>,
        /// Whether it answers.
        liveness: Liveness,
        /// Why it is down; ignored when it is ready.
        reason: String,
    },
    /// SM-03. Removes a node. Refused while it holds live containers or volumes, unless `force`:
    /// then its live containers become lost, and volumes keep naming it so that nobody takes an
    /// empty directory for the data that went with it. The removal is remembered
    /// ([`crate::ClusterState::is_removed`]), and the id is never given again meanwhile.
    NodeRemove {
        /// The node.
        id: NodeId,
        /// Version precondition.
        expect: Option<Revision>,
        /// Give up on what is on it.
        force: bool,
    },

    /// SM-04. Makes a service with revision 1.
    ServiceCreate {
        /// Id of the new service.
        id: ServiceId,
        /// Its spec.
        spec: Arc<ServiceSpec>,
    },
    /// SM-05. New spec. A change of anything but the replica count, the labels and the update
    /// settings makes a new revision and starts a rollout.
    ServiceUpdate {
        /// The service.
        id: ServiceId,
        /// Version precondition.
        expect: Option<Revision>,
        /// The whole new spec; name and mode kind must stay.
        spec: Arc<ServiceSpec>,
    },
    /// Changes the number of replicas alone.
    ServiceSetReplicas {
        /// The service.
        id: ServiceId,
        /// Version precondition.
        expect: Option<Revision>,
        /// How many.
        replicas: u32,
    },
    /// Notes how far a rollout is. `to` must be the revision in force.
    ServiceSetRollout {
        /// The service.
        id: ServiceId,
        /// Version precondition.
        expect: Option<Revision>,
        /// The rollout; `None` clears it.
        rollout: Option<Box<Rollout>>,
    },
    /// Puts an older kept revision in force again (under its old number, so that its containers that
    /// still run stay) and starts a rollout in state rolling-back.
    ServiceRollback {
        /// The service.
        id: ServiceId,
        /// Version precondition.
        expect: Option<Revision>,
        /// Which revision; `None` means the one before.
        to: Option<u32>,
    },
    /// SM-06. Marks a service for deletion; the reconciler retires its containers.
    ServiceDelete {
        /// The service.
        id: ServiceId,
        /// Version precondition.
        expect: Option<Revision>,
    },
    /// Removes the record of a service that is marked and has no container record left.
    ServiceRemove {
        /// The service.
        id: ServiceId,
        /// Version precondition.
        expect: Option<Revision>,
    },

    /// SM-07. Makes a container record, pending.
    ContainerCreate {
        /// Id of the new container.
        id: ContainerId,
        /// Its service.
        service: ServiceId,
        /// Version precondition on the service.
        expect_service: Option<Revision>,
        /// Number of the service's revision that it is made from.
        revision: u32,
        /// Its place.
        slot: Slot,
    },
    /// SM-08. Places a pending container. Refused unless the node takes containers, the
    /// reservations fit, host ports are free and its volumes are there (unbound local volumes are
    /// bound to the node by this).
    ContainerAssign {
        /// The container.
        id: ContainerId,
        /// Version precondition.
        expect: Option<Revision>,
        /// Where.
        node: NodeId,
    },
    /// SM-08. Why a pending container waits.
    ContainerSetReason {
        /// The container.
        id: ContainerId,
        /// Version precondition.
        expect: Option<Revision>,
        /// In words.
        reason: String,
    },
    /// SM-08. One report of a node; refused as a whole when the life-cycle table forbids it.
    ContainerStatus {
        /// The container.
        id: ContainerId,
        /// The node that reports.
        node: NodeId,
        /// What it reports.
        status: Box<ContainerStatus>,
    },
    /// SM-08. Many reports of a node: each valid one counts, the others are named in the result.
    ContainerStatusBatch {
        /// The node that reports.
        node: NodeId,
        /// What it reports.
        statuses: Vec<(ContainerId, ContainerStatus)>,
    },
    /// SM-08. Retires a container (desired only ever goes from running to shutdown). A pending one
    /// is shut down at once, since no node knows it.
    ContainerSetDesired {
        /// The container.
        id: ContainerId,
        /// Version precondition.
        expect: Option<Revision>,
        /// What is wanted.
        desired: DesiredState,
    },
    /// SM-08. Gives up on a container whose node is gone.
    ContainerLost {
        /// The container.
        id: ContainerId,
        /// Version precondition.
        expect: Option<Revision>,
        /// In words.
        reason: String,
    },
    /// SM-09. Removes the record of a container that has ended or was never placed.
    ContainerDelete {
        /// The container.
        id: ContainerId,
        /// Version precondition.
        expect: Option<Revision>,
    },

    /// SM-10. Stores a secret.
    SecretCreate(Box<Secret>),
    /// New value or labels of a secret.
    SecretUpdate {
        /// Version precondition.
        expect: Option<Revision>,
        /// The secret with its new content.
        secret: Box<Secret>,
    },
    /// Seals the same value of a secret with a newer data key. Everything else stays, `updated_at`
    /// too: the sealing is bound to it. The leader's alone.
    SecretReseal {
        /// The secret.
        id: SecretId,
        /// Version precondition.
        expect: Option<Revision>,
        /// The same value, sealed with the key of the same epoch or a newer one.
        data: SealedData,
    },
    /// SM-11. Removes a secret that no service uses.
    SecretDelete {
        /// The secret.
        id: SecretId,
        /// Version precondition.
        expect: Option<Revision>,
    },
    /// Stores a config.
    ConfigCreate(Box<Config>),
    /// New value or labels of a config.
    ConfigUpdate {
        /// Version precondition.
        expect: Option<Revision>,
        /// The config with its new content.
        config: Box<Config>,
    },
    /// Removes a config that no service uses.
    ConfigDelete {
        /// The config.
        id: ConfigId,
        /// Version precondition.
        expect: Option<Revision>,
    },
    /// SM-12. Makes a volume, not bound to a node yet unless it names one.
    VolumeCreate(Box<Volume>),
    /// Binds a volume to the node that holds its data; never to another one later.
    VolumeBind {
        /// The volume.
        id: VolumeId,
        /// Version precondition.
        expect: Option<Revision>,
        /// The node.
        node: NodeId,
        /// Where it is on that node; may be empty while unknown.
        mount_path: String,
    },
    /// SM-13. Removes a volume that no service uses.
    VolumeDelete {
        /// The volume.
        id: VolumeId,
        /// Version precondition.
        expect: Option<Revision>,
    },
    /// Makes a network.
    NetworkCreate(Box<Network>),
    /// Removes a network that no service uses.
    NetworkDelete {
        /// The network.
        id: NetworkId,
        /// Version precondition.
        expect: Option<Revision>,
    },
    /// SM-14. Stores a certificate.
    CertificateCreate(Box<Certificate>),
    /// SM-15. Renews or changes a certificate.
    CertificateUpdate {
        /// Version precondition.
        expect: Option<Revision>,
        /// The certificate with its new content.
        certificate: Box<Certificate>,
    },
    /// Seals the same private key of a certificate with a newer data key, as [`Op::SecretReseal`].
    CertificateReseal {
        /// The certificate.
        id: CertificateId,
        /// Version precondition.
        expect: Option<Revision>,
        /// The same key, sealed with the data key of the same epoch or a newer one.
        data: SealedData,
    },
    /// SM-16. Removes a certificate that no ingress uses.
    CertificateDelete {
        /// The certificate.
        id: CertificateId,
        /// Version precondition.
        expect: Option<Revision>,
    },
    /// SM-17. Makes an ingress.
    IngressCreate(Box<Ingress>),
    /// SM-18. Changes rules, TLS or labels.
    IngressUpdate {
        /// Version precondition.
        expect: Option<Revision>,
        /// The ingress with its new content.
        ingress: Box<Ingress>,
    },
    /// SM-19. Removes an ingress.
    IngressDelete {
        /// The ingress.
        id: IngressId,
        /// Version precondition.
        expect: Option<Revision>,
    },
    /// Stores a join token (its hash).
    TokenCreate(Box<JoinToken>),
    /// Uses a join token once; refused when it is over, used up or revoked at the command's time.
    TokenUse {
        /// The token.
        id: TokenId,
    },
    /// Takes a join token back.
    TokenRevoke {
        /// The token.
        id: TokenId,
    },
    /// Removes a join token's record.
    TokenDelete {
        /// The token.
        id: TokenId,
    },
    /// Sets the cluster's settings for the first time.
    SettingsInit(Box<ClusterSettings>),
    /// Replaces the settings; the cluster's id stays.
    SettingsUpdate {
        /// Version precondition.
        expect: Option<Revision>,
        /// All settings.
        settings: Box<ClusterSettings>,
    },
}

/// What one operation did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OpResult {
    /// The object was made or changed and has this version now (the old one if nothing differed).
    Changed {
        /// Kind of object.
        kind: ObjectKind,
        /// Its id.
        id: Id128,
        /// Its version.
        version: Revision,
    },
    /// The object is gone.
    Removed {
        /// Kind of object.
        kind: ObjectKind,
        /// Its id.
        id: Id128,
    },
    /// The service was made, changed or rolled back.
    Service {
        /// Its id.
        id: ServiceId,
        /// Number of the revision in force.
        revision: u32,
        /// Its version.
        version: Revision,
        /// A rollout was started by this.
        rollout: bool,
    },
    /// One answer for each status of a batch, in its order; `None` means it was taken (or said
    /// nothing new).
    Statuses(Vec<Option<StatusRefusal>>),
}

/// Why one status of a batch was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StatusRefusal {
    /// No such container record: the node should remove it.
    #[error("the cluster has no such container; the node removes it")]
    Unknown,
    /// The container belongs to another node, or to none.
    #[error("the container is not assigned to this node; the node removes it")]
    NotAssigned,
    /// The life cycle forbids the step.
    #[error(transparent)]
    Transition(#[from] TransitionError),
}
