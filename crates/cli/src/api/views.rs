//! What the cluster shows: also the JSON and YAML form of `-o json|yaml`. Fields are only ever added.

use super::quorum::SettingsView;
use serde::Serialize;
use std::collections::BTreeMap;
use warren_types::{ExitInfo, PortMapping, RaftProfile, ServiceSpec, Timestamp};

/// A node.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeView {
    /// Id.
    pub id: String,
    /// Unique name.
    pub name: String,
    /// Host name.
    pub hostname: String,
    /// manager, worker or hybrid.
    pub role: String,
    /// ready, down, draining or unknown.
    pub status: String,
    /// active, pause or drain.
    pub availability: String,
    /// Why it is down.
    pub reason: String,
    /// Where its API answers.
    pub address: String,
    /// Thousandths of a core.
    pub cpu_milli: u32,
    /// Bytes.
    pub memory_bytes: u64,
    /// Bytes.
    pub disk_bytes: u64,
    /// Thousandths of a core kept for containers.
    pub reserved_cpu_milli: u32,
    /// Bytes kept for containers.
    pub reserved_memory_bytes: u64,
    /// Live containers on it.
    pub containers: u32,
    /// Subnet of its containers.
    pub subnet: String,
    /// Operating system and processor, `linux/amd64`.
    pub platform: String,
    /// Version of its program.
    pub program_version: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// When it joined.
    pub created_at: Time,
    /// State revision of the last change.
    pub version: u64,
}

/// A moment; in JSON RFC 3339 or null.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Time(pub Option<Timestamp>);

impl Serialize for Time {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Some(at) => serializer.collect_str(&at),
            None => serializer.serialize_none(),
        }
    }
}

/// State of a rollout.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RolloutView {
    /// Revision rolled out from.
    pub from: u32,
    /// Revision rolled out to.
    pub to: u32,
    /// updating, paused, completed, rolling-back or rolled-back.
    pub state: String,
    /// Why.
    pub message: String,
}

/// A service.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceView {
    /// Id.
    pub id: String,
    /// What the user wants.
    pub spec: ServiceSpec,
    /// Containers it should have.
    pub desired: u32,
    /// Containers that run.
    pub running: u32,
    /// Containers that run and are not unhealthy or starting.
    pub ready: u32,
    /// Why it is not as wanted.
    pub reason: String,
    /// Number of the newest revision.
    pub revision: u32,
    /// Numbers of the revisions that can be rolled back to; only `inspect` has them.
    pub revisions: Vec<u32>,
    /// The rollout under way or the last one.
    pub rollout: Option<RolloutView>,
    /// Deletion was asked for.
    pub deleting: bool,
    /// When it was made.
    pub created_at: Time,
    /// When it was last changed.
    pub updated_at: Time,
    /// State revision of the last change.
    pub version: u64,
}

impl ServiceView {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.spec.name
    }
}

/// A container.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerView {
    /// Id.
    pub id: String,
    /// Service and slot, or service and node.
    pub name: String,
    /// Id of its service.
    pub service_id: String,
    /// Name of its service.
    pub service: String,
    /// Slot from 1; 0 for global services.
    pub slot: u32,
    /// Revision of the service it was made from.
    pub revision: u32,
    /// Id of its node; empty before placement.
    pub node_id: String,
    /// Name of its node.
    pub node: String,
    /// running or shutdown.
    pub desired: String,
    /// pending, assigned, … lost.
    pub state: String,
    /// Why.
    pub reason: String,
    /// healthy, unhealthy, starting or unknown.
    pub health: String,
    /// Image.
    pub image: String,
    /// Address on the node's subnet.
    pub address: String,
    /// Ports of its service.
    pub ports: Vec<PortMapping>,
    /// Process id on the node.
    pub pid: Option<u32>,
    /// How the last attempt ended.
    pub exit: Option<ExitInfo>,
    /// How often it was started again.
    pub restarts: u32,
    /// When the record was made.
    pub created_at: Time,
    /// When its state last changed.
    pub updated_at: Time,
    /// When the running attempt started.
    pub started_at: Time,
    /// When it ended.
    pub finished_at: Time,
}

impl ContainerView {
    /// Nothing comes after its state.
    #[must_use]
    pub fn ended(&self) -> bool {
        matches!(
            self.state.as_str(),
            "complete" | "shutdown" | "failed" | "rejected" | "lost"
        )
    }
}

/// A secret, without its value.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretView {
    /// Id.
    pub id: String,
    /// Name.
    pub name: String,
    /// Bytes of the value.
    pub size: u64,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Services that use it.
    pub used_by: Vec<String>,
    /// When it was made.
    pub created_at: Time,
    /// When its value was last changed.
    pub updated_at: Time,
    /// State revision of the last change.
    pub version: u64,
}

/// A volume.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct VolumeView {
    /// Id.
    pub id: String,
    /// Name.
    pub name: String,
    /// Driver.
    pub driver: String,
    /// Options of the driver.
    pub driver_opts: BTreeMap<String, String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Name of the node that holds the data; empty until first use.
    pub node: String,
    /// Where the data is on that node.
    pub mount_path: String,
    /// Services that use it.
    pub used_by: Vec<String>,
    /// When it was made.
    pub created_at: Time,
    /// State revision of the last change.
    pub version: u64,
}

/// An image on a node.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageView {
    /// Names.
    pub references: Vec<String>,
    /// Digest of its manifest.
    pub digest: String,
    /// Bytes.
    pub size_bytes: u64,
    /// Layers.
    pub layers: u32,
    /// Operating system and processor.
    pub platform: String,
    /// A service or container needs it.
    pub in_use: bool,
    /// Name of the node it is on.
    pub node: String,
    /// When it was made.
    pub created_at: Time,
}

/// All about an image.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageDetails {
    /// What the list shows.
    #[serde(flatten)]
    pub image: ImageView,
    /// Program.
    pub entrypoint: Vec<String>,
    /// Arguments.
    pub cmd: Vec<String>,
    /// Environment.
    pub env: Vec<String>,
    /// Working directory.
    pub working_dir: String,
    /// User.
    pub user: String,
    /// Stop signal.
    pub stop_signal: String,
    /// Ports it says it listens on.
    pub exposed_ports: Vec<String>,
    /// Paths it says are volumes.
    pub volumes: Vec<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Digests of its layers.
    pub layer_digests: Vec<String>,
}

/// A member of the quorum.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MemberView {
    /// Id.
    pub id: String,
    /// Address.
    pub address: String,
    /// Voter, Nonvoter (catching up) or Staging (listed, not yet a member).
    pub suffrage: String,
    /// Name of its node.
    pub name: String,
    /// It leads.
    pub leader: bool,
    /// It answers the leader.
    pub reachable: bool,
    /// Milliseconds since it last answered the leader; null when unknown.
    pub last_contact_ms: Option<u64>,
    /// Log entries that it lacks.
    pub lag: u64,
    /// Role of its node: manager or hybrid; worker, or empty without a node, for a member on its way out.
    pub role: String,
    /// Version of its program.
    pub version: String,
    /// Times of the consensus protocol that it runs with; null where the manager that answers does not know.
    pub raft_profile: Option<RaftProfile>,
}

/// The cluster as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterView {
    /// Id.
    pub id: String,
    /// Name.
    pub name: String,
    /// Id of the leader.
    pub leader_id: String,
    /// Name of the leader.
    pub leader: String,
    /// Address of the leader.
    pub leader_address: String,
    /// Writes are possible.
    pub quorum: bool,
    /// Managers.
    pub managers: u32,
    /// Nodes.
    pub nodes: u32,
    /// Nodes that answer.
    pub nodes_ready: u32,
    /// Services.
    pub services: u32,
    /// Containers.
    pub containers: u32,
    /// Containers that run.
    pub containers_running: u32,
    /// State revision.
    pub revision: u64,
    /// Term of the leader.
    pub term: u64,
    /// SHA-256 of the CA certificate.
    pub ca_fingerprint: String,
    /// Members of the quorum.
    pub members: Vec<MemberView>,
    /// Managers whose voice counts.
    pub voters: u32,
    /// Voters that answer.
    pub voters_healthy: u32,
    /// Voters that a write needs.
    pub quorum_needed: u32,
    /// Voters that may fail now without stopping writes.
    pub failures_tolerated: u32,
    /// Changes of leader that the answering manager has seen since its start.
    pub leader_changes: u64,
    /// Entries in the answering manager's log.
    pub log_entries: u64,
    /// Bytes of its log.
    pub log_bytes: u64,
    /// Last entry of its newest snapshot.
    pub snapshot_index: u64,
    /// Bytes of its newest snapshot.
    pub snapshot_bytes: u64,
    /// Last entry that it has carried out.
    pub applied_index: u64,
    /// Last entry that it knows a quorum has.
    pub committed_index: u64,
    /// Microseconds within which 99 of 100 writes were stored by a quorum, since the leader began; null
    /// when nothing was measured.
    pub commit_p99_micros: Option<u64>,
    /// What needs attention.
    pub warnings: Vec<String>,
    /// Name of the manager whose figures these are.
    pub answered_by: String,
    /// Settings.
    pub settings: SettingsView,
    /// Nodes are moving to a new certificate authority.
    pub ca_rotation: bool,
    /// Nodes that still have a certificate of the old one.
    pub ca_rotation_waiting: u32,
    /// When it was made.
    pub created_at: Time,
}

/// The daemon that answered.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StatusView {
    /// Version of its program.
    pub version: String,
    /// Id of its node.
    pub node_id: String,
    /// Name of its node.
    pub node: String,
    /// Id of its cluster.
    pub cluster_id: String,
    /// manager, worker or hybrid.
    pub role: String,
    /// Ready to serve.
    pub ready: bool,
    /// It leads.
    pub leader: bool,
    /// Why it is not ready.
    pub reason: String,
    /// State revision.
    pub revision: u64,
    /// Where its data is.
    pub data_dir: String,
    /// Where its API answers.
    pub api_address: String,
    /// Process id.
    pub pid: u32,
    /// When it started.
    pub started_at: Time,
    /// It waits for the unlock key.
    pub locked: bool,
    /// The quorum is in its reach.
    pub quorum: bool,
    /// The cluster has removed its node.
    pub removed: bool,
}

/// An event.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EventView {
    /// Id.
    pub id: String,
    /// Kind, such as `service.created`.
    #[serde(rename = "type")]
    pub kind: String,
    /// When.
    pub time: Time,
    /// State revision.
    pub revision: u64,
    /// In words.
    pub message: String,
    /// Ids and numbers.
    pub metadata: BTreeMap<String, String>,
}
