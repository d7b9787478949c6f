//! The messages of commands and snapshots, written by hand for prost. Numbers in `tag` are on disk:
//! they are never reused.

use crate::command::Actor;
use prost::{Message, Oneof};
use std::collections::BTreeMap;
use warren_proto::{ConvertError, store};
use warren_types::{Id128, NodeId};

/// A command.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Command {
    #[prost(uint32, tag = "1")]
    pub(super) version: u32,
    #[prost(uint32, tag = "2")]
    pub(super) actor: u32,
    #[prost(string, tag = "3")]
    pub(super) actor_name: String,
    #[prost(bytes = "vec", tag = "4")]
    pub(super) actor_node: Vec<u8>,
    #[prost(uint64, tag = "5")]
    pub(super) time_ms: u64,
    #[prost(message, repeated, tag = "6")]
    pub(super) ops: Vec<Op>,
    #[prost(string, optional, tag = "7")]
    pub(super) idempotency_key: Option<String>,
}

const ACTOR_API: u32 = 1;
const ACTOR_SCHEDULER: u32 = 2;
const ACTOR_RECONCILER: u32 = 3;
const ACTOR_DISPATCHER: u32 = 4;
const ACTOR_SYSTEM: u32 = 5;

pub(super) fn actor(actor: &Actor) -> (u32, String, Vec<u8>) {
    match actor {
        Actor::Api { name } => (ACTOR_API, name.clone(), Vec::new()),
        Actor::Scheduler => (ACTOR_SCHEDULER, String::new(), Vec::new()),
        Actor::Reconciler => (ACTOR_RECONCILER, String::new(), Vec::new()),
        Actor::Dispatcher { node } => (ACTOR_DISPATCHER, String::new(), id_bytes(node.0)),
        Actor::System => (ACTOR_SYSTEM, String::new(), Vec::new()),
    }
}

pub(super) fn read_actor(kind: u32, name: String, node: &[u8]) -> Result<Actor, ConvertError> {
    Ok(match kind {
        ACTOR_API => Actor::Api { name },
        ACTOR_SCHEDULER => Actor::Scheduler,
        ACTOR_RECONCILER => Actor::Reconciler,
        ACTOR_DISPATCHER => Actor::Dispatcher {
            node: NodeId(read_id(node, "actor_node")?),
        },
        ACTOR_SYSTEM => Actor::System,
        other => {
            let problem = format!("{other} is no known actor");
            return Err(ConvertError::new("actor", problem));
        }
    })
}

/// An id as 16 bytes, most significant first.
pub(super) fn id_bytes(id: Id128) -> Vec<u8> {
    id.0.to_be_bytes().to_vec()
}

pub(super) fn read_id(bytes: &[u8], field: &str) -> Result<Id128, ConvertError> {
    let bytes = <[u8; 16]>::try_from(bytes).map_err(|_| {
        let problem = format!("an id has 16 bytes, this has {}", bytes.len());
        ConvertError::new(field, problem)
    })?;
    Ok(Id128(u128::from_be_bytes(bytes)))
}

/// One operation. A kind that this program does not know reads as `None`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Op {
    #[prost(
        oneof = "OpKind",
        tags = "1, 2, 3, 4, 10, 11, 12, 13, 14, 15, 16, 20, 21, 22, 23, 24, 25, 26, 27, 30, 31, 32, 33, 40, 41, 42, 50, 51, 52, 60, 61, 70, 71, 72, 73, 80, 81, 82, 90, 91, 92, 93, 100, 101"
    )]
    pub(super) kind: Option<OpKind>,
}

#[derive(Clone, PartialEq, Oneof)]
pub(super) enum OpKind {
    #[prost(message, tag = "1")]
    NodeAdd(store::Node),
    #[prost(message, tag = "2")]
    NodeUpdate(NodeUpdate),
    #[prost(message, tag = "3")]
    NodeSetLiveness(NodeLiveness),
    #[prost(message, tag = "4")]
    NodeRemove(NodeRemove),
    #[prost(message, tag = "10")]
    ServiceCreate(ServiceWrite),
    #[prost(message, tag = "11")]
    ServiceUpdate(ServiceWrite),
    #[prost(message, tag = "12")]
    ServiceSetReplicas(ServiceReplicas),
    #[prost(message, tag = "13")]
    ServiceSetRollout(ServiceRollout),
    #[prost(message, tag = "14")]
    ServiceRollback(ServiceRollback),
    #[prost(message, tag = "15")]
    ServiceDelete(Target),
    #[prost(message, tag = "16")]
    ServiceRemove(Target),
    #[prost(message, tag = "20")]
    ContainerCreate(ContainerCreate),
    #[prost(message, tag = "21")]
    ContainerAssign(ContainerAssign),
    #[prost(message, tag = "22")]
    ContainerSetReason(ContainerText),
    #[prost(message, tag = "23")]
    ContainerStatus(ContainerReport),
    #[prost(message, tag = "24")]
    ContainerStatusBatch(StatusBatch),
    #[prost(message, tag = "25")]
    ContainerSetDesired(ContainerDesired),
    #[prost(message, tag = "26")]
    ContainerLost(ContainerText),
    #[prost(message, tag = "27")]
    ContainerDelete(Target),
    #[prost(message, tag = "30")]
    SecretCreate(store::Secret),
    #[prost(message, tag = "31")]
    SecretUpdate(SecretUpdate),
    #[prost(message, tag = "32")]
    SecretDelete(Target),
    #[prost(message, tag = "33")]
    SecretReseal(Reseal),
    #[prost(message, tag = "40")]
    ConfigCreate(store::Config),
    #[prost(message, tag = "41")]
    ConfigUpdate(ConfigUpdate),
    #[prost(message, tag = "42")]
    ConfigDelete(Target),
    #[prost(message, tag = "50")]
    VolumeCreate(store::Volume),
    #[prost(message, tag = "51")]
    VolumeBind(VolumeBind),
    #[prost(message, tag = "52")]
    VolumeDelete(Target),
    #[prost(message, tag = "60")]
    NetworkCreate(store::Network),
    #[prost(message, tag = "61")]
    NetworkDelete(Target),
    #[prost(message, tag = "70")]
    CertificateCreate(store::Certificate),
    #[prost(message, tag = "71")]
    CertificateUpdate(CertificateUpdate),
    #[prost(message, tag = "72")]
    CertificateDelete(Target),
    #[prost(message, tag = "73")]
    CertificateReseal(Reseal),
    #[prost(message, tag = "80")]
    IngressCreate(store::Ingress),
    #[prost(message, tag = "81")]
    IngressUpdate(IngressUpdate),
    #[prost(message, tag = "82")]
    IngressDelete(Target),
    #[prost(message, tag = "90")]
    TokenCreate(store::JoinToken),
    #[prost(message, tag = "91")]
    TokenUse(Target),
    #[prost(message, tag = "92")]
    TokenRevoke(Target),
    #[prost(message, tag = "93")]
    TokenDelete(Target),
    #[prost(message, tag = "100")]
    SettingsInit(store::ClusterSettings),
    #[prost(message, tag = "101")]
    SettingsUpdate(SettingsUpdate),
}

/// An object and its version precondition.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Target {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) id: Vec<u8>,
    #[prost(uint64, optional, tag = "2")]
    pub(super) expect: Option<u64>,
}

/// A map that may be absent.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Labels {
    #[prost(btree_map = "string, string", tag = "1")]
    pub(super) entries: BTreeMap<String, String>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct NodeUpdate {
    #[prost(message, optional, tag = "1")]
    pub(super) target: Option<Target>,
    #[prost(enumeration = "store::NodeRole", optional, tag = "2")]
    pub(super) role: Option<i32>,
    #[prost(string, optional, tag = "3")]
    pub(super) address: Option<String>,
    #[prost(string, optional, tag = "4")]
    pub(super) hostname: Option<String>,
    #[prost(message, optional, tag = "5")]
    pub(super) labels: Option<Labels>,
    #[prost(message, optional, tag = "6")]
    pub(super) platform: Option<store::Platform>,
    #[prost(message, optional, tag = "7")]
    pub(super) resources: Option<store::NodeResources>,
    #[prost(enumeration = "store::Availability", optional, tag = "8")]
    pub(super) availability: Option<i32>,
    #[prost(string, optional, tag = "9")]
    pub(super) subnet: Option<String>,
    #[prost(string, optional, tag = "10")]
    pub(super) version_text: Option<String>,
    #[prost(string, optional, tag = "11")]
    pub(super) certificate_root: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Reseal {
    #[prost(message, optional, tag = "1")]
    pub(super) target: Option<Target>,
    #[prost(message, optional, tag = "2")]
    pub(super) data: Option<store::SealedData>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct NodeLiveness {
    #[prost(message, optional, tag = "1")]
    pub(super) target: Option<Target>,
    #[prost(enumeration = "store::Liveness", tag = "2")]
    pub(super) liveness: i32,
    #[prost(string, tag = "3")]
    pub(super) reason: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct NodeRemove {
    #[prost(message, optional, tag = "1")]
    pub(super) target: Option<Target>,
    #[prost(bool, tag = "2")]
    pub(super) force: bool,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ServiceWrite {
    #[prost(message, optional, tag = "1")]
    pub(super) target: Option<Target>,
    #[prost(message, optional, tag = "2")]
    pub(super) spec: Option<store::ServiceSpec>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ServiceReplicas {
    #[prost(message, optional, tag = "1")]
    pub(super) target: Option<Target>,
    #[prost(uint32, tag = "2")]
    pub(super) replicas: u32,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ServiceRollout {
    #[prost(message, optional, tag = "1")]
    pub(super) target: Option<Target>,
    #[prost(message, optional, tag = "2")]
    pub(super) rollout: Option<store::Rollout>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ServiceRollback {
    #[prost(message, optional, tag = "1")]
    pub(super) target: Option<Target>,
    #[prost(uint32, optional, tag = "2")]
    pub(super) to: Option<u32>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ContainerCreate {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) id: Vec<u8>,
    #[prost(message, optional, tag = "2")]
    pub(super) service: Option<Target>,
    #[prost(uint32, tag = "3")]
    pub(super) revision: u32,
    #[prost(message, optional, tag = "4")]
    pub(super) slot: Option<store::Slot>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ContainerAssign {
    #[prost(message, optional, tag = "1")]
    pub(super) target: Option<Target>,
    #[prost(bytes = "vec", tag = "2")]
    pub(super) node: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ContainerText {
    #[prost(message, optional, tag = "1")]
    pub(super) target: Option<Target>,
    #[prost(string, tag = "2")]
    pub(super) text: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ContainerReport {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) node: Vec<u8>,
    #[prost(message, optional, tag = "2")]
    pub(super) item: Option<StatusItem>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct StatusBatch {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) node: Vec<u8>,
    #[prost(message, repeated, tag = "2")]
    pub(super) items: Vec<StatusItem>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct StatusItem {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) id: Vec<u8>,
    #[prost(message, optional, tag = "2")]
    pub(super) status: Option<store::ContainerStatus>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ContainerDesired {
    #[prost(message, optional, tag = "1")]
    pub(super) target: Option<Target>,
    #[prost(enumeration = "store::DesiredState", tag = "2")]
    pub(super) desired: i32,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct VolumeBind {
    #[prost(message, optional, tag = "1")]
    pub(super) target: Option<Target>,
    #[prost(bytes = "vec", tag = "2")]
    pub(super) node: Vec<u8>,
    #[prost(string, tag = "3")]
    pub(super) mount_path: String,
}

macro_rules! object_updates {
    ($($name:ident: $object:ident),+ $(,)?) => {$(
        /// An object with its new content and the version precondition.
        #[derive(Clone, PartialEq, Message)]
        pub(super) struct $name {
            #[prost(uint64, optional, tag = "1")]
            pub(super) expect: Option<u64>,
            #[prost(message, optional, tag = "2")]
            pub(super) object: Option<store::$object>,
        }
    )+};
}

object_updates! {
    SecretUpdate: Secret,
    ConfigUpdate: Config,
    CertificateUpdate: Certificate,
    IngressUpdate: Ingress,
    SettingsUpdate: ClusterSettings,
}

/// One record of a snapshot.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Record {
    #[prost(
        oneof = "RecordKind",
        tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15"
    )]
    pub(super) kind: Option<RecordKind>,
}

#[expect(
    clippy::large_enum_variant,
    reason = "lives for the moment of encoding or decoding one record"
)]
#[derive(Clone, PartialEq, Oneof)]
pub(super) enum RecordKind {
    #[prost(message, tag = "1")]
    Begin(Begin),
    #[prost(message, tag = "2")]
    Settings(store::ClusterSettings),
    #[prost(message, tag = "3")]
    Node(store::Node),
    #[prost(message, tag = "4")]
    Service(store::Service),
    #[prost(message, tag = "5")]
    Container(store::Container),
    #[prost(message, tag = "6")]
    Secret(store::Secret),
    #[prost(message, tag = "7")]
    Config(store::Config),
    #[prost(message, tag = "8")]
    Volume(store::Volume),
    #[prost(message, tag = "9")]
    Network(store::Network),
    #[prost(message, tag = "10")]
    Ingress(store::Ingress),
    #[prost(message, tag = "11")]
    Certificate(store::Certificate),
    #[prost(message, tag = "12")]
    Token(store::JoinToken),
    #[prost(message, tag = "13")]
    Remembered(Remembered),
    #[prost(message, tag = "14")]
    End(End),
    #[prost(message, tag = "15")]
    RemovedNode(RemovedNode),
}

/// First record.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Begin {
    #[prost(uint64, tag = "1")]
    pub(super) revision: u64,
}

/// Last record: what the rest must come to.
#[derive(Clone, PartialEq, Message)]
pub(super) struct End {
    /// Records between `Begin` and `End`.
    #[prost(uint64, tag = "1")]
    pub(super) records: u64,
    #[prost(fixed64, tag = "2")]
    pub(super) hash: u64,
    /// The hash is compared only when this program uses the same scheme.
    #[prost(uint32, tag = "3")]
    pub(super) hash_scheme: u32,
}

/// A removed node; these come before the remembered keys.
#[derive(Clone, PartialEq, Message)]
pub(super) struct RemovedNode {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) id: Vec<u8>,
    #[prost(uint64, tag = "2")]
    pub(super) at_ms: u64,
}

/// A remembered idempotency key.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Remembered {
    #[prost(string, tag = "1")]
    pub(super) key: String,
    #[prost(uint64, tag = "2")]
    pub(super) revision: u64,
    #[prost(message, repeated, tag = "3")]
    pub(super) results: Vec<OpResult>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct OpResult {
    #[prost(oneof = "ResultKind", tags = "1, 2, 3, 4")]
    pub(super) kind: Option<ResultKind>,
}

#[derive(Clone, PartialEq, Oneof)]
pub(super) enum ResultKind {
    #[prost(message, tag = "1")]
    Changed(ObjectResult),
    #[prost(message, tag = "2")]
    Removed(ObjectResult),
    #[prost(message, tag = "3")]
    Service(ServiceResult),
    #[prost(message, tag = "4")]
    Statuses(StatusesResult),
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ObjectResult {
    #[prost(uint32, tag = "1")]
    pub(super) kind: u32,
    #[prost(bytes = "vec", tag = "2")]
    pub(super) id: Vec<u8>,
    #[prost(uint64, tag = "3")]
    pub(super) version: u64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ServiceResult {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) id: Vec<u8>,
    #[prost(uint32, tag = "2")]
    pub(super) revision: u32,
    #[prost(uint64, tag = "3")]
    pub(super) version: u64,
    #[prost(bool, tag = "4")]
    pub(super) rollout: bool,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct StatusesResult {
    #[prost(message, repeated, tag = "1")]
    pub(super) items: Vec<StatusAnswer>,
}

/// 0 taken, 1 unknown, 2 not assigned, 3 forbidden step (then the other fields count).
#[derive(Clone, PartialEq, Message)]
pub(super) struct StatusAnswer {
    #[prost(uint32, tag = "1")]
    pub(super) refusal: u32,
    #[prost(uint32, tag = "2")]
    pub(super) from: u32,
    #[prost(uint32, tag = "3")]
    pub(super) from_attempt: u32,
    #[prost(uint32, tag = "4")]
    pub(super) to: u32,
    #[prost(uint32, tag = "5")]
    pub(super) to_attempt: u32,
}
