//! What the parts of the worker share.

use crate::actor::Actors;
use crate::keep::Keep;
use crate::net::NodeNet;
use crate::outbox::Outbox;
use crate::sets::{RefusedSet, Wanted};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{Notify, Semaphore, watch};
use warren_image::{Digest, ImageStore};
use warren_lifecycle::{Assignment, SetChange};
use warren_proto::session::Assignments;
use warren_runtime::Driver;
use warren_types::{
    ActualState, ContainerId, Mount, NodeId, NodeResources, NodeRole, Platform, VolumeId,
};

/// Containers that are being prepared at once: unpacking and mounting use disk and CPU, and more at
/// once only make each slower.
pub(crate) const PREPARING_MAX: usize = 16;

/// What the node is.
#[derive(Debug, Clone)]
pub struct NodeFacts {
    /// Id.
    pub node: NodeId,
    /// Name.
    pub name: String,
    /// What it does.
    pub role: NodeRole,
    /// Host name.
    pub hostname: String,
    /// Where its API answers; empty when it only dials out.
    pub address: String,
    /// Operating system and processor.
    pub platform: Platform,
    /// What it has.
    pub resources: NodeResources,
    /// Version of the program.
    pub version: String,
}

/// How the worker stands with the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct News {
    /// A session is open.
    pub connected: bool,
    /// Name of the manager that welcomed the node last.
    pub manager: String,
    /// Role of the node in the cluster's records, as of the last welcome; `None` before the first.
    pub role: Option<NodeRole>,
    /// The cluster has removed this node.
    pub removed: bool,
}

/// What others are told about the session, and how they end it.
#[derive(Default)]
pub(crate) struct Line {
    pub(crate) news: watch::Sender<News>,
    /// The session is to be opened anew: the way to the managers has changed.
    pub(crate) redial: Notify,
}

/// Shared by all parts.
pub(crate) struct Shared {
    pub(crate) facts: NodeFacts,
    pub(crate) data_dir: PathBuf,
    pub(crate) driver: Arc<dyn Driver>,
    pub(crate) images: Arc<ImageStore>,
    pub(crate) network: NodeNet,
    pub(crate) keep: Keep,
    pub(crate) outbox: Outbox,
    pub(crate) actors: Actors,
    pub(crate) preparing: Semaphore,
    pub(crate) line: Line,
    wanted: Mutex<Arc<Wanted>>,
    /// One message at a time is taken, in order.
    taking: tokio::sync::Mutex<()>,
}

impl Shared {
    pub(crate) fn new(parts: Parts, wanted: Wanted) -> Self {
        Self {
            facts: parts.facts,
            data_dir: parts.data_dir,
            driver: parts.driver,
            images: parts.images,
            network: parts.network,
            keep: parts.keep,
            outbox: Outbox::default(),
            actors: Actors::default(),
            preparing: Semaphore::new(PREPARING_MAX),
            line: Line::default(),
            wanted: Mutex::new(Arc::new(wanted)),
            taking: tokio::sync::Mutex::default(),
        }
    }

    /// What is wanted now.
    pub(crate) fn wanted(&self) -> Arc<Wanted> {
        self.wanted
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Revision of the set in force.
    pub(crate) fn revision(&self) -> u64 {
        self.wanted().set.revision.0
    }

    /// The assignment of one container.
    pub(crate) fn assignment(&self, id: ContainerId) -> Option<Assignment> {
        self.wanted().set.items.get(&id).cloned()
    }

    /// Takes a message over: first on disk, then in force, then its containers are woken.
    pub(crate) async fn take_assignments(
        self: &Arc<Self>,
        message: &Assignments,
    ) -> Result<u64, RefusedSet> {
        let _one = self.taking.lock().await;
        let (next, changes) = self.wanted().after(message)?;
        let revision = next.set.revision.0;
        let next = Arc::new(next);
        self.keep.assignments(next.clone()).await?;
        *self.wanted.lock().unwrap_or_else(PoisonError::into_inner) = next;
        for change in changes {
            match change {
                SetChange::Begin(id) | SetChange::Changed(id) | SetChange::Retire(id) => {
                    self.actors.wake_or_begin(self, id)
                }
            }
        }
        Ok(revision)
    }

    /// Attempts that run now, for the hello.
    pub(crate) fn running_attempts(&self) -> Vec<(ContainerId, u32)> {
        let ids = self.actors.ids();
        let statuses = ids
            .into_iter()
            .filter_map(|id| Some((id, self.outbox.newest(id)?)));
        statuses
            .filter(|(_, s)| s.state == ActualState::Running)
            .map(|(id, s)| (id, s.attempt))
            .collect()
    }

    /// Does a container that shall run mount the volume?
    pub(crate) fn volume_in_use(&self, id: VolumeId) -> bool {
        let wanted = self.wanted();
        let Some(name) = wanted
            .volumes
            .values()
            .find(|v| v.id == id)
            .map(|v| &v.name)
        else {
            return false;
        };
        let mounts =
            |mount: &Mount| matches!(mount, Mount::Volume { source, .. } if source == name);
        wanted
            .set
            .items
            .values()
            .any(|a| a.wants_running() && a.spec.mounts.iter().any(mounts))
    }

    /// Images that an assigned container needs.
    pub(crate) fn images_in_use(&self) -> BTreeSet<Digest> {
        let wanted = self.wanted();
        let running = wanted.set.items.values().filter(|a| a.wants_running());
        let references = running.map(|a| {
            a.spec
                .image_digest
                .as_deref()
                .unwrap_or(&a.spec.image)
                .to_owned()
        });
        references
            .filter_map(|reference| self.images.resolve(&reference).ok())
            .map(|image| image.digest)
            .collect()
    }
}

/// What [`Shared`] is made of.
pub(crate) struct Parts {
    pub(crate) facts: NodeFacts,
    pub(crate) data_dir: PathBuf,
    pub(crate) driver: Arc<dyn Driver>,
    pub(crate) images: Arc<ImageStore>,
    pub(crate) network: NodeNet,
    pub(crate) keep: Keep,
}
