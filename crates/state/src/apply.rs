//! `apply`: one command, all or nothing.

mod containers;
mod nodes;
mod objects;
mod services;

use crate::change::{Change, ChangeSet, Delta, ObjectKind};
use crate::command::{Actor, COMMAND_VERSION, Command, Op, OpResult};
use crate::rejection::Rejection;
use crate::removed::Removed;
use crate::state::{Applied, ClusterState};
use crate::table::Object;
use crate::window::{Remembered, scoped};
use imbl::OrdSet;
pub(crate) use objects::certificate_of;
pub(crate) use services::{live_specs, missing_references, references, same_containers};
use std::collections::BTreeMap;
use std::sync::Arc;
use warren_types::{Id128, Revision, Timestamp, ValidationError, limits};

/// Operations of a command with an idempotency key; its results are remembered, so they are few.
pub const KEYED_OPS_MAX: usize = 256;

impl ClusterState {
    /// Applies a command: all of its operations or none.
    ///
    /// # Errors
    /// A [`Rejection`] that says what is wrong; the state is then exactly what it was before.
    pub fn apply(&mut self, command: &Command) -> Result<Applied, Rejection> {
        if command.version == 0 || command.version > COMMAND_VERSION {
            return Err(Rejection::UnsupportedVersion {
                found: command.version,
                supported: COMMAND_VERSION,
            });
        }
        let key = command
            .idempotency_key
            .as_ref()
            .map(|key| scoped(&command.actor, key));
        if let Some(known) = key.as_ref().and_then(|key| self.window.get(key)) {
            return Ok(replay(command, known));
        }
        check_size(command)?;
        let mut tx = Tx::begin(self, command);
        let results: Result<Vec<_>, _> = command.ops.iter().map(|op| tx.op(op)).collect();
        let (results, changes) = match results {
            Ok(results) => (results, tx.finish()),
            Err(rejection) => {
                tx.roll_back();
                return Err(rejection);
            }
        };
        if let Some(key) = key {
            let remembered = Remembered {
                revision: self.revision,
                results: results.clone(),
            };
            self.window.insert(&key, remembered);
        }
        Ok(Applied {
            revision: self.revision,
            results,
            changes: Arc::new(ChangeSet {
                revision: self.revision,
                time: command.time,
                actor: command.actor.clone(),
                changes,
            }),
            replayed: false,
        })
    }
}

fn replay(command: &Command, known: &Remembered) -> Applied {
    Applied {
        revision: known.revision,
        results: known.results.clone(),
        changes: Arc::new(ChangeSet {
            revision: known.revision,
            time: command.time,
            actor: command.actor.clone(),
            changes: Vec::new(),
        }),
        replayed: true,
    }
}

fn check_size(command: &Command) -> Result<(), Rejection> {
    let over = |what, limit: usize, remedy| {
        Err(Rejection::Limit {
            what,
            limit: limit as u64,
            remedy,
        })
    };
    let weight = |op: &Op| match op {
        Op::ContainerStatusBatch { statuses, .. } => statuses.len(),
        _ => 1,
    };
    let ops: usize = command.ops.iter().map(weight).sum();
    if ops > limits::OPS_PER_COMMAND_MAX || command.ops.len() > limits::OPS_PER_COMMAND_MAX {
        let max = limits::OPS_PER_COMMAND_MAX;
        return over("operations in one command", max, "send several commands");
    }
    let Some(key) = &command.idempotency_key else {
        return Ok(());
    };
    if key.is_empty() || key.len() > limits::IDEMPOTENCY_KEY_BYTES_MAX {
        return Err(ValidationError::one(
            "idempotencyKey",
            format!("has {} bytes", key.len()),
            format!("use 1 to {} bytes", limits::IDEMPOTENCY_KEY_BYTES_MAX),
        )
        .into());
    }
    if ops > KEYED_OPS_MAX {
        let what = "operations in one command with an idempotency key";
        return over(what, KEYED_OPS_MAX, "send several commands");
    }
    Ok(())
}

/// Text cut to `max` bytes at a character.
fn cut(text: &str, max: usize) -> String {
    text[..text.floor_char_boundary(max)].to_owned()
}

/// A command being applied. The state is changed in place: on a copy, every row that a command touches would take its part
/// of the tree out of what the copies share, for each command anew. So each step is noted, and a command that is refused
/// half way is taken back step by step.
struct Tx<'a> {
    state: &'a mut ClusterState,
    actor: &'a Actor,
    time: Timestamp,
    /// Every row that was put, in order, as it was before and after.
    steps: Vec<Change>,
    /// The first step of each object.
    first: BTreeMap<(ObjectKind, u128), usize>,
    before: Before,
}

/// What no step tells of the state before the command.
struct Before {
    revision: Revision,
    removed: Removed,
    overbooked: OrdSet<u128>,
}

impl<'a> Tx<'a> {
    fn begin(state: &'a mut ClusterState, command: &'a Command) -> Self {
        let before = Before {
            revision: state.revision,
            removed: state.removed.clone(),
            overbooked: state.overbooked.clone(),
        };
        state.revision = state.revision.next();
        state.removed.prune(command.time);
        Self {
            state,
            actor: &command.actor,
            time: command.time,
            steps: Vec::with_capacity(command.ops.len()),
            first: BTreeMap::new(),
            before,
        }
    }

    /// Leaves the state as it was before the command.
    fn roll_back(self) {
        for step in self.steps.into_iter().rev() {
            step.undo(self.state);
        }
        self.state.revision = self.before.revision;
        self.state.removed = self.before.removed;
        self.state.overbooked = self.before.overbooked;
    }

    fn revision(&self) -> Revision {
        self.state.revision
    }

    fn get<T: Object>(&self, key: u128) -> Result<Arc<T>, Rejection> {
        let found = T::table(self.state).get(key);
        found.cloned().ok_or_else(|| Rejection::NotFound {
            kind: T::KIND,
            id: Id128(key).text(),
        })
    }

    /// The object, if its version before the command was the expected one.
    fn expect<T: Object>(&self, key: u128, expect: Option<Revision>) -> Result<Arc<T>, Rejection> {
        let object = self.get::<T>(key)?;
        let found = match self.before_command::<T>(key) {
            None => object.version(),
            Some(before) => before.map_or(self.revision(), |o| o.version()),
        };
        match expect {
            Some(expected) if expected != found => Err(Rejection::Conflict {
                kind: T::KIND,
                id: object.label(),
                expected,
                found,
            }),
            _ => Ok(object),
        }
    }

    /// The object before the command, if the command has touched it.
    fn before_command<T: Object>(&self, key: u128) -> Option<Option<&Arc<T>>> {
        let first = *self.first.get(&(T::KIND, key))?;
        let step = self.steps.get(first).and_then(T::delta)?;
        Some(step.before.as_ref())
    }

    /// Puts or removes a row.
    fn replace<T: Object>(&mut self, key: u128, after: Option<Arc<T>>) {
        let before = self.state.replace(key, after.clone());
        self.first.entry((T::KIND, key)).or_insert(self.steps.len());
        self.steps.push(T::into_change(Delta { before, after }));
    }

    /// Stores a new object after looking whether id, name and number are free.
    fn create<T: Object>(
        &mut self,
        mut object: T,
        max: usize,
        what: &'static str,
    ) -> Result<OpResult, Rejection> {
        let key = object.key();
        let table = T::table(self.state);
        let taken = |name: String| Rejection::AlreadyExists {
            kind: T::KIND,
            name,
            note: String::new(),
        };
        if table.get(key).is_some() {
            return Err(taken(Id128(key).text()));
        }
        if let Some(name) = object.name()
            && table.by_name(name).is_some()
        {
            return Err(taken(name.to_owned()));
        }
        if table.len() >= max {
            return Err(Rejection::Limit {
                what,
                limit: max as u64,
                remedy: "remove some that are no longer needed",
            });
        }
        object.set_version(self.revision());
        object.set_updated(self.time);
        self.replace(key, Some(Arc::new(object)));
        Ok(self.changed(T::KIND, key, self.revision()))
    }

    /// Stores a changed object; one that differs in nothing keeps its version.
    fn put<T: Object>(&mut self, before: &T, mut after: T) -> OpResult {
        if *before != after {
            after.set_updated(self.time);
        }
        self.put_same(before, after)
    }

    /// Stores an object whose content is the same in another form, so that its time stays.
    fn put_same<T: Object>(&mut self, before: &T, mut after: T) -> OpResult {
        let key = after.key();
        if *before == after {
            return self.changed(T::KIND, key, before.version());
        }
        after.set_version(self.revision());
        self.replace(key, Some(Arc::new(after)));
        self.changed(T::KIND, key, self.revision())
    }

    fn remove<T: Object>(&mut self, key: u128) -> OpResult {
        self.replace::<T>(key, None);
        OpResult::Removed {
            kind: T::KIND,
            id: Id128(key),
        }
    }

    fn changed(&self, kind: ObjectKind, key: u128, version: Revision) -> OpResult {
        OpResult::Changed {
            kind,
            id: Id128(key),
            version,
        }
    }

    fn op(&mut self, op: &Op) -> Result<OpResult, Rejection> {
        if !op.is_owned_by(self.actor) {
            return Err(Rejection::NotOwner {
                actor: self.actor.clone(),
                op: op.name(),
            });
        }
        match op.kind() {
            ObjectKind::Node => self.node_op(op),
            ObjectKind::Service => self.service_op(op),
            ObjectKind::Container => self.container_op(op),
            _ => self.object_op(op),
        }
    }

    /// One change per object, in the order in which they were touched first.
    fn finish(self) -> Vec<Change> {
        if self.first.len() == self.steps.len() {
            return self.steps;
        }
        let mut changes = Vec::with_capacity(self.first.len());
        let mut places = BTreeMap::new();
        for step in self.steps {
            let place = *places.entry(step.object()).or_insert(changes.len());
            match changes.get_mut(place) {
                None => changes.push(step),
                Some(earlier) => step.follow(earlier),
            }
        }
        // Made and removed by the same command: nobody has seen it.
        changes.retain(|change: &Change| !change.is_nothing());
        changes
    }
}

impl Op {
    /// Kind of the object that the operation works on.
    #[must_use]
    pub const fn kind(&self) -> ObjectKind {
        match self {
            Self::NodeAdd(_)
            | Self::NodeUpdate { .. }
            | Self::NodeSetLiveness { .. }
            | Self::NodeRemove { .. } => ObjectKind::Node,
            Self::ServiceCreate { .. }
            | Self::ServiceUpdate { .. }
            | Self::ServiceSetReplicas { .. }
            | Self::ServiceSetRollout { .. }
            | Self::ServiceRollback { .. }
            | Self::ServiceDelete { .. }
            | Self::ServiceRemove { .. } => ObjectKind::Service,
            Self::ContainerCreate { .. }
            | Self::ContainerAssign { .. }
            | Self::ContainerSetReason { .. }
            | Self::ContainerStatus { .. }
            | Self::ContainerStatusBatch { .. }
            | Self::ContainerSetDesired { .. }
            | Self::ContainerLost { .. }
            | Self::ContainerDelete { .. } => ObjectKind::Container,
            Self::SecretCreate(_)
            | Self::SecretUpdate { .. }
            | Self::SecretReseal { .. }
            | Self::SecretDelete { .. } => ObjectKind::Secret,
            Self::ConfigCreate(_) | Self::ConfigUpdate { .. } | Self::ConfigDelete { .. } => {
                ObjectKind::Config
            }
            Self::VolumeCreate(_) | Self::VolumeBind { .. } | Self::VolumeDelete { .. } => {
                ObjectKind::Volume
            }
            Self::NetworkCreate(_) | Self::NetworkDelete { .. } => ObjectKind::Network,
            Self::CertificateCreate(_)
            | Self::CertificateUpdate { .. }
            | Self::CertificateReseal { .. }
            | Self::CertificateDelete { .. } => ObjectKind::Certificate,
            Self::IngressCreate(_) | Self::IngressUpdate { .. } | Self::IngressDelete { .. } => {
                ObjectKind::Ingress
            }
            Self::TokenCreate(_)
            | Self::TokenUse { .. }
            | Self::TokenRevoke { .. }
            | Self::TokenDelete { .. } => ObjectKind::Token,
            Self::SettingsInit(_) | Self::SettingsUpdate { .. } => ObjectKind::Settings,
        }
    }

    /// Name of the operation, for messages and metrics.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::NodeAdd(_) => "NodeAdd",
            Self::NodeUpdate { .. } => "NodeUpdate",
            Self::NodeSetLiveness { .. } => "NodeSetLiveness",
            Self::NodeRemove { .. } => "NodeRemove",
            Self::ServiceCreate { .. } => "ServiceCreate",
            Self::ServiceUpdate { .. } => "ServiceUpdate",
            Self::ServiceSetReplicas { .. } => "ServiceSetReplicas",
            Self::ServiceSetRollout { .. } => "ServiceSetRollout",
            Self::ServiceRollback { .. } => "ServiceRollback",
            Self::ServiceDelete { .. } => "ServiceDelete",
            Self::ServiceRemove { .. } => "ServiceRemove",
            Self::ContainerCreate { .. } => "ContainerCreate",
            Self::ContainerAssign { .. } => "ContainerAssign",
            Self::ContainerSetReason { .. } => "ContainerSetReason",
            Self::ContainerStatus { .. } => "ContainerStatus",
            Self::ContainerStatusBatch { .. } => "ContainerStatusBatch",
            Self::ContainerSetDesired { .. } => "ContainerSetDesired",
            Self::ContainerLost { .. } => "ContainerLost",
            Self::ContainerDelete { .. } => "ContainerDelete",
            Self::SecretCreate(_) => "SecretCreate",
            Self::SecretUpdate { .. } => "SecretUpdate",
            Self::SecretReseal { .. } => "SecretReseal",
            Self::SecretDelete { .. } => "SecretDelete",
            Self::ConfigCreate(_) => "ConfigCreate",
            Self::ConfigUpdate { .. } => "ConfigUpdate",
            Self::ConfigDelete { .. } => "ConfigDelete",
            Self::VolumeCreate(_) => "VolumeCreate",
            Self::VolumeBind { .. } => "VolumeBind",
            Self::VolumeDelete { .. } => "VolumeDelete",
            Self::NetworkCreate(_) => "NetworkCreate",
            Self::NetworkDelete { .. } => "NetworkDelete",
            Self::CertificateCreate(_) => "CertificateCreate",
            Self::CertificateUpdate { .. } => "CertificateUpdate",
            Self::CertificateReseal { .. } => "CertificateReseal",
            Self::CertificateDelete { .. } => "CertificateDelete",
            Self::IngressCreate(_) => "IngressCreate",
            Self::IngressUpdate { .. } => "IngressUpdate",
            Self::IngressDelete { .. } => "IngressDelete",
            Self::TokenCreate(_) => "TokenCreate",
            Self::TokenUse { .. } => "TokenUse",
            Self::TokenRevoke { .. } => "TokenRevoke",
            Self::TokenDelete { .. } => "TokenDelete",
            Self::SettingsInit(_) => "SettingsInit",
            Self::SettingsUpdate { .. } => "SettingsUpdate",
        }
    }

    /// May this actor make it? Every transition of a container has one owner (R10); what users do
    /// is the API's; the system may do everything.
    #[must_use]
    pub fn is_owned_by(&self, actor: &Actor) -> bool {
        let own_node = |id| matches!(actor, Actor::Dispatcher { node } if node == id);
        let api = matches!(actor, Actor::Api { .. });
        let reconciler = *actor == Actor::Reconciler;
        if *actor == Actor::System {
            return true;
        }
        match self {
            Self::ContainerAssign { .. } | Self::ContainerSetReason { .. } => {
                *actor == Actor::Scheduler
            }
            Self::ContainerCreate { .. }
            | Self::ContainerSetDesired { .. }
            | Self::ContainerLost { .. }
            | Self::ContainerDelete { .. }
            | Self::ServiceRemove { .. } => reconciler,
            Self::ServiceSetRollout { .. } | Self::ServiceRollback { .. } => api || reconciler,
            Self::ContainerStatus { node, .. } | Self::ContainerStatusBatch { node, .. } => {
                own_node(node)
            }
            Self::VolumeBind { node, .. } => *actor == Actor::Scheduler || own_node(node),
            Self::NodeSetLiveness { id, .. } => own_node(id),
            // A session speaks for its node, but what the node may be is not for it to say.
            Self::NodeUpdate { id, patch, .. } => {
                let modest = patch.role.is_none() && patch.certificate_root.is_none();
                api || (modest && own_node(id))
            }
            Self::SecretReseal { .. } | Self::CertificateReseal { .. } => false,
            _ => api,
        }
    }
}
