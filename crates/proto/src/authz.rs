//! Which role may call which RPC: one table, deny by default.
//!
//! A test walks every RPC of the descriptors and fails when one has no row here. The unix socket is
//! not a row: whoever may open it is admin by peer credentials (design §11).
//!
//! Being allowed to call is not all: a worker may act only as itself and on its own containers, which
//! the handlers check against the node id of its certificate.

use std::collections::BTreeMap;
use std::sync::LazyLock;
use warren_types::Role;

/// One row: the full method path, who may call it, and whether it changes anything (and so is audited).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// Path of the HTTP/2 request, such as `/warren.v1.WarrenAPI/GetNode`.
    pub path: &'static str,
    /// Roles that may call it.
    pub roles: &'static [Role],
    /// It changes the cluster or a node.
    pub mutating: bool,
    /// Which manager carries it out.
    pub place: Place,
}

/// Which manager carries a call out, when it reaches one that does not lead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The one that was asked: the call is about itself.
    Here,
    /// Any, from the state that it has; linearizable when the caller asks for that.
    Anywhere,
    /// The leader; the one that was asked forwards it.
    Leader,
    /// The leader when one is known, because it knows more; else the one that was asked.
    LeaderIfKnown,
}

use Role::{Admin, Manager, None as Anyone, Operator, Viewer, Worker};

/// Who may read the cluster.
const READ: &[Role] = &[Manager, Viewer, Operator, Admin];
/// Who may read what a worker needs of its own, too.
const READ_OR_WORKER: &[Role] = &[Worker, Manager, Viewer, Operator, Admin];
/// Who may change workloads.
const WRITE: &[Role] = &[Operator, Admin];
/// Who may change the cluster itself.
const ADMIN: &[Role] = &[Admin];
/// Managers among themselves.
const PEER: &[Role] = &[Manager];
/// Nodes, about themselves.
const NODE: &[Role] = &[Worker, Manager];
/// A manager joining the quorum.
const JOIN: &[Role] = &[Manager, Admin];
/// Everybody, with or without a certificate.
const OPEN: &[Role] = &[Anyone, Worker, Manager, Viewer, Operator, Admin];

/// Beginning of the paths of the API's methods.
const API_PATH: &str = "/warren.v1.WarrenAPI/";

macro_rules! rules {
    ($($path:literal, $roles:ident, $kind:ident $(, $place:ident)?;)+) => {
        &[$(Rule {
            path: $path,
            roles: $roles,
            mutating: rules!(@mutating $kind),
            place: rules!(@place $kind $($place)?),
        }),+]
    };
    (@mutating reads) => { false };
    (@mutating changes) => { true };
    (@place reads) => { Place::Anywhere };
    (@place changes) => { Place::Leader };
    (@place $kind:ident here) => { Place::Here };
    (@place $kind:ident leader) => { Place::Leader };
    (@place $kind:ident leader_if_known) => { Place::LeaderIfKnown };
}

/// The table.
pub const RULES: &[Rule] = rules! {
    // Nodes.
    "/warren.v1.WarrenAPI/RegisterNode", NODE, changes;
    "/warren.v1.WarrenAPI/Heartbeat", NODE, reads, leader;
    "/warren.v1.WarrenAPI/ListNodes", READ, reads, leader_if_known;
    "/warren.v1.WarrenAPI/GetNode", READ, reads, leader_if_known;
    "/warren.v1.WarrenAPI/RemoveNode", ADMIN, changes;
    "/warren.v1.WarrenAPI/UpdateNode", ADMIN, changes;
    // Services.
    "/warren.v1.WarrenAPI/CreateService", WRITE, changes;
    "/warren.v1.WarrenAPI/UpdateService", WRITE, changes;
    "/warren.v1.WarrenAPI/UpdateServiceImage", WRITE, changes;
    "/warren.v1.WarrenAPI/RollbackService", WRITE, changes;
    "/warren.v1.WarrenAPI/ScaleService", WRITE, changes;
    "/warren.v1.WarrenAPI/DeleteService", WRITE, changes;
    "/warren.v1.WarrenAPI/GetService", READ, reads;
    "/warren.v1.WarrenAPI/ListServices", READ, reads;
    // Containers.
    "/warren.v1.WarrenAPI/UpdateContainerStatus", NODE, changes;
    "/warren.v1.WarrenAPI/ReportContainerHealth", NODE, changes;
    "/warren.v1.WarrenAPI/ListContainers", READ_OR_WORKER, reads;
    "/warren.v1.WarrenAPI/GetContainer", READ_OR_WORKER, reads;
    "/warren.v1.WarrenAPI/WatchContainers", READ_OR_WORKER, reads;
    // Logs may hold anything a program prints; reading them is a right of its own kind, but viewers
    // are the people on call.
    "/warren.v1.WarrenAPI/GetLogs", READ, reads, leader;
    // Running a program inside a container changes it.
    "/warren.v1.WarrenAPI/Exec", WRITE, changes;
    // Secrets.
    "/warren.v1.WarrenAPI/CreateSecret", WRITE, changes;
    "/warren.v1.WarrenAPI/UpdateSecret", WRITE, changes;
    "/warren.v1.WarrenAPI/DeleteSecret", WRITE, changes;
    "/warren.v1.WarrenAPI/GetSecretByName", READ, reads;
    "/warren.v1.WarrenAPI/ListSecrets", READ, reads;
    // Volumes.
    "/warren.v1.WarrenAPI/CreateVolume", WRITE, changes;
    "/warren.v1.WarrenAPI/DeleteVolume", WRITE, changes;
    "/warren.v1.WarrenAPI/GetVolumeByName", READ, reads;
    "/warren.v1.WarrenAPI/ListVolumes", READ, reads;
    // Cluster.
    "/warren.v1.WarrenAPI/GenerateJoinToken", ADMIN, changes;
    "/warren.v1.WarrenAPI/JoinCluster", JOIN, changes;
    "/warren.v1.WarrenAPI/GetClusterInfo", READ_OR_WORKER, reads, leader_if_known;
    // A joiner has no certificate yet: the token in the request is what counts.
    "/warren.v1.WarrenAPI/RequestCertificate", OPEN, changes;
    // An expired certificate is no certificate to TLS: the proof in the request is what counts.
    "/warren.v1.WarrenAPI/RenewCertificate", OPEN, changes;
    "/warren.v1.WarrenAPI/ListJoinTokens", ADMIN, reads;
    "/warren.v1.WarrenAPI/RevokeJoinToken", ADMIN, changes;
    "/warren.v1.WarrenAPI/UpdateClusterSettings", ADMIN, changes;
    "/warren.v1.WarrenAPI/TransferLeadership", ADMIN, changes;
    // It carries everything, sealed with the caller's passphrase.
    "/warren.v1.WarrenAPI/BackupCluster", ADMIN, changes;
    "/warren.v1.WarrenAPI/RecoverCluster", ADMIN, changes, here;
    "/warren.v1.WarrenAPI/SetAutoLock", ADMIN, changes;
    "/warren.v1.WarrenAPI/UnlockCluster", ADMIN, changes, here;
    "/warren.v1.WarrenAPI/RotateCertificateAuthority", ADMIN, changes;
    "/warren.v1.WarrenAPI/RotateDataKey", ADMIN, changes;
    // Whoever may do everything may let others do it; nobody else, not even for a lesser role.
    "/warren.v1.WarrenAPI/IssueUserCertificate", ADMIN, changes;
    "/warren.v1.WarrenAPI/GetStatus", READ_OR_WORKER, reads, here;
    "/warren.v1.WarrenAPI/StopDaemon", ADMIN, changes, here;
    "/warren.v1.WarrenAPI/StreamEvents", READ, reads;
    // Ingress.
    "/warren.v1.WarrenAPI/CreateIngress", WRITE, changes;
    "/warren.v1.WarrenAPI/UpdateIngress", WRITE, changes;
    "/warren.v1.WarrenAPI/DeleteIngress", WRITE, changes;
    "/warren.v1.WarrenAPI/GetIngress", READ, reads;
    "/warren.v1.WarrenAPI/ListIngresses", READ, reads;
    "/warren.v1.WarrenAPI/CreateTLSCertificate", WRITE, changes;
    // The answer may carry the private key.
    "/warren.v1.WarrenAPI/GetTLSCertificate", ADMIN, reads;
    "/warren.v1.WarrenAPI/ListTLSCertificates", READ, reads;
    "/warren.v1.WarrenAPI/DeleteTLSCertificate", WRITE, changes;
    // Images.
    "/warren.v1.WarrenAPI/ImportImage", WRITE, changes;
    "/warren.v1.WarrenAPI/ListImages", READ, reads, leader;
    "/warren.v1.WarrenAPI/InspectImage", READ, reads, leader;
    "/warren.v1.WarrenAPI/RemoveImage", WRITE, changes;
    // Node sessions.
    "/warren.session.v1.NodeSession/Session", NODE, reads, leader;
    // Managers among themselves.
    "/warren.peer.v1.Peer/Call", PEER, reads, here;
    "/warren.peer.v1.Peer/SnapshotBegin", PEER, reads, here;
    "/warren.peer.v1.Peer/SnapshotSend", PEER, reads, here;
    "/warren.peer.v1.Peer/ReadIndex", PEER, reads, here;
    "/warren.peer.v1.Peer/DataKeys", PEER, reads, here;
    // Standard services.
    "/grpc.health.v1.Health/Check", OPEN, reads, here;
    "/grpc.health.v1.Health/Watch", OPEN, reads, here;
    "/grpc.health.v1.Health/List", OPEN, reads, here;
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", READ_OR_WORKER, reads, here;
};

type Index = LazyLock<BTreeMap<&'static str, &'static Rule>>;

static BY_PATH: Index = LazyLock::new(|| RULES.iter().map(|rule| (rule.path, rule)).collect());

static BY_METHOD: Index = LazyLock::new(|| {
    let of_api = RULES.iter().filter_map(|rule| {
        let method = rule.path.strip_prefix(API_PATH)?;
        Some((method, rule))
    });
    of_api.collect()
});

/// The row of a method path, if it has one.
#[must_use]
pub fn rule(method_path: &str) -> Option<&'static Rule> {
    BY_PATH.get(method_path).copied()
}

/// The row of a method of the API by its name alone, such as `GetNode`.
#[must_use]
pub fn api_rule(method: &str) -> Option<&'static Rule> {
    BY_METHOD.get(method).copied()
}

/// May this role call this method? No row: nobody may.
#[must_use]
pub fn allowed(method_path: &str, role: Role) -> bool {
    rule(method_path).is_some_and(|r| r.roles.contains(&role))
}
