//! Events out of changes. Every manager makes the same ones, with the same ids.

use crate::change::{Change, ChangeSet, Delta};
use std::collections::BTreeMap;
use std::fmt::Display;
use warren_types::{
    ActualState, Container, Event, EventId, EventKind, Liveness, Mode, Node, Revision, Secret,
    Service, Volume,
};

/// Bits of an event id that hold the position within its revision.
const POSITION_BITS: u32 = 32;

/// The id of the event at this position of a revision: sorts by revision, then position.
#[must_use]
pub const fn event_id(revision: Revision, position: u32) -> EventId {
    EventId::from_u128(((revision.0 as u128) << POSITION_BITS) | position as u128)
}

/// The events of a change set, in its order.
#[must_use]
pub fn events(set: &ChangeSet) -> Vec<Event> {
    let mut out = Out {
        set,
        events: Vec::new(),
    };
    for change in &set.changes {
        match change {
            Change::Node(delta) => node(&mut out, delta),
            Change::Service(delta) => service(&mut out, delta),
            Change::Container(delta) => container(&mut out, delta),
            Change::Secret(delta) => secret(&mut out, delta),
            Change::Volume(delta) => volume(&mut out, delta),
            other => object(&mut out, other),
        }
    }
    out.events
}

struct Out<'a> {
    set: &'a ChangeSet,
    events: Vec<Event>,
}

type Metadata = BTreeMap<String, String>;

fn meta<const N: usize>(pairs: [(&str, &dyn Display); N]) -> Metadata {
    pairs
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value.to_string()))
        .collect()
}

impl Out<'_> {
    fn add(&mut self, kind: EventKind, message: String, mut metadata: Metadata) {
        metadata.insert("actor".to_owned(), self.set.actor.to_string());
        let position = u32::try_from(self.events.len()).unwrap_or(u32::MAX);
        self.events.push(Event {
            id: event_id(self.set.revision, position),
            kind,
            time: self.set.time,
            revision: self.set.revision,
            message,
            metadata,
        });
    }
}

fn node(out: &mut Out<'_>, delta: &Delta<Node>) {
    let Some(latest) = delta.latest() else { return };
    let mut metadata = meta([
        ("node_id", &latest.id),
        ("node_name", &latest.name),
        ("node_role", &latest.role),
        ("hostname", &latest.hostname),
    ]);
    let name = &latest.name;
    let (kind, message) = match (&delta.before, &delta.after) {
        (None, _) => (
            EventKind::NodeJoined,
            format!("node {name} joined as {}", latest.role),
        ),
        (_, None) => (EventKind::NodeLeft, format!("node {name} was removed")),
        (Some(before), Some(after)) if before.liveness != after.liveness => match after.liveness {
            Liveness::Ready => (EventKind::NodeReady, format!("node {name} answers")),
            Liveness::Down => {
                metadata.insert("last_seen".to_owned(), before.updated_at.to_string());
                let reason = &after.reason;
                (
                    EventKind::NodeDown,
                    format!("node {name} is down: {reason}"),
                )
            }
            Liveness::Unknown => (
                EventKind::NodeUpdated,
                format!("node {name} has not been heard of yet"),
            ),
        },
        _ => (EventKind::NodeUpdated, format!("node {name} was changed")),
    };
    out.add(kind, message, metadata);
}

fn replicas(service: &Service) -> String {
    match service.spec.mode {
        Mode::Replicated { replicas } => replicas.to_string(),
        Mode::Global => "global".to_owned(),
    }
}

fn service(out: &mut Out<'_>, delta: &Delta<Service>) {
    let Some(latest) = delta.latest() else { return };
    let name = latest.name();
    let metadata = meta([
        ("service_id", &latest.id),
        ("service_name", &name),
        ("replicas", &replicas(latest)),
        ("revision", &latest.revision),
    ]);
    match (&delta.before, &delta.after) {
        (None, _) => {
            let message = format!("service {name} was created");
            out.add(EventKind::ServiceCreated, message, metadata);
        }
        (_, None) => {
            let message = format!("service {name} was deleted");
            out.add(EventKind::ServiceDeleted, message, metadata);
        }
        (Some(before), Some(after)) => service_changed(out, before, after, metadata),
    }
}

fn service_changed(out: &mut Out<'_>, before: &Service, after: &Service, metadata: Metadata) {
    let name = after.name();
    if before.spec != after.spec || before.deleting != after.deleting {
        let mut metadata = metadata.clone();
        let (old, new) = (replicas(before), replicas(after));
        let message = if after.deleting && !before.deleting {
            format!("service {name} is being deleted")
        } else if before.revision != after.revision {
            format!(
                "service {name} goes from revision {} to {}",
                before.revision, after.revision
            )
        } else if old != new {
            format!("service {name} goes from {old} to {new} replicas")
        } else {
            format!("service {name} was changed")
        };
        metadata.insert("old_replicas".to_owned(), old);
        metadata.insert("new_replicas".to_owned(), new);
        out.add(EventKind::ServiceUpdated, message, metadata);
    }
    let state = |s: &Service| s.rollout.as_ref().map(|r| (r.from, r.to, r.state));
    if let Some(rollout) = &after.rollout
        && state(before) != state(after)
    {
        let mut metadata = metadata;
        metadata.insert("from_revision".to_owned(), rollout.from.to_string());
        metadata.insert("to_revision".to_owned(), rollout.to.to_string());
        metadata.insert("rollout_state".to_owned(), rollout.state.name().to_owned());
        let message = format!("service {name}: {}", rollout.message);
        out.add(EventKind::RolloutUpdated, message, metadata);
    }
}

fn container(out: &mut Out<'_>, delta: &Delta<Container>) {
    // The end of a record is no news: the end of the container was told before.
    let Some(after) = &delta.after else { return };
    let mut metadata = meta([
        ("task_id", &after.id),
        ("service_id", &after.service),
        ("revision", &after.service_revision),
        ("state", &after.status.state),
        ("attempt", &after.status.attempt),
    ]);
    if let Some(node) = after.node {
        metadata.insert("node_id".to_owned(), node.to_string());
    }
    let id = after.id;
    let Some(before) = &delta.before else {
        let message = format!("container {id} was created");
        out.add(EventKind::TaskCreated, message, metadata);
        return;
    };
    let (old, new) = (&before.status, &after.status);
    if let Some(exit) = new.exit
        && new.exit != old.exit
    {
        metadata.insert("exit_code".to_owned(), exit.code.to_string());
        if exit.oom {
            metadata.insert("oom".to_owned(), "true".to_owned());
        }
    }
    let reason = &new.reason;
    let restarted = new.attempt > old.attempt && old.attempt > 0;
    let kind = match new.state {
        ActualState::Pending if old.reason != new.reason => EventKind::TaskPending,
        _ if restarted && !new.state.is_final() => EventKind::TaskRestarted,
        _ if old.state == new.state => return,
        ActualState::Assigned => EventKind::TaskAssigned,
        ActualState::Running => EventKind::TaskRunning,
        ActualState::Complete => EventKind::TaskCompleted,
        ActualState::Shutdown => EventKind::TaskShutdown,
        ActualState::Failed | ActualState::Rejected | ActualState::Lost => {
            metadata.insert("error".to_owned(), reason.clone());
            EventKind::TaskFailed
        }
        _ => return,
    };
    let message = match kind {
        EventKind::TaskRestarted => {
            metadata.insert("error".to_owned(), reason.clone());
            format!(
                "container {id} was started again, attempt {}: {reason}",
                new.attempt
            )
        }
        _ if reason.is_empty() => format!("container {id} is {}", new.state),
        _ => format!("container {id} is {}: {reason}", new.state),
    };
    out.add(kind, message, metadata);
}

fn secret(out: &mut Out<'_>, delta: &Delta<Secret>) {
    let Some(latest) = delta.latest() else { return };
    let name = &latest.name;
    let metadata = meta([("secret_id", &latest.id), ("secret_name", name)]);
    let (kind, verb) = match (&delta.before, &delta.after) {
        (None, _) => (EventKind::SecretCreated, "created"),
        (_, None) => (EventKind::SecretDeleted, "deleted"),
        _ => (EventKind::ObjectChanged, "changed"),
    };
    out.add(kind, format!("secret {name} was {verb}"), metadata);
}

fn volume(out: &mut Out<'_>, delta: &Delta<Volume>) {
    let Some(latest) = delta.latest() else { return };
    let name = &latest.name;
    let mut metadata = meta([
        ("volume_id", &latest.id),
        ("volume_name", name),
        ("driver", &latest.driver),
    ]);
    if let Some(node) = latest.node {
        metadata.insert("node_id".to_owned(), node.to_string());
    }
    let (kind, verb) = match (&delta.before, &delta.after) {
        (None, _) => (EventKind::VolumeCreated, "created"),
        (_, None) => (EventKind::VolumeDeleted, "deleted"),
        _ => (EventKind::ObjectChanged, "changed"),
    };
    out.add(kind, format!("volume {name} was {verb}"), metadata);
}

fn object(out: &mut Out<'_>, change: &Change) {
    let (kind, id) = (change.kind(), change.id());
    let verb = if change.is_created() {
        "created"
    } else if change.is_removed() {
        "deleted"
    } else {
        "changed"
    };
    let mut metadata = meta([("kind", &kind), ("id", &id), ("change", &verb)]);
    let name = match change {
        Change::Config(d) => d.latest().map(|o| o.name.clone()),
        Change::Network(d) => d.latest().map(|o| o.name.clone()),
        Change::Ingress(d) => d.latest().map(|o| o.name.clone()),
        Change::Certificate(d) => d.latest().map(|o| o.name.clone()),
        _ => None,
    };
    let label = name.clone().unwrap_or_else(|| id.text());
    if let Some(name) = name {
        metadata.insert("name".to_owned(), name);
    }
    let message = format!("{kind} {label} was {verb}");
    out.add(EventKind::ObjectChanged, message, metadata);
}
