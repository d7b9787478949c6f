//! One container in a driver's memory.

use crate::driver::{ContainerInfo, ExitRecord, RuntimeEvent, RuntimeState};
use crate::error::{Result, RuntimeError};
use crate::record::Meta;
use std::sync::Arc;
use tokio::sync::{broadcast, watch};
use warren_types::{ContainerId, Timestamp};

/// A container. Its state only moves forward: created, running, exited.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) meta: Meta,
    /// Held by whoever changes the container.
    pub(crate) turn: tokio::sync::Mutex<()>,
    info: watch::Sender<ContainerInfo>,
    ended: watch::Sender<bool>,
}

/// Something that moves an entry forward.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Change {
    Started(Timestamp),
    Exited(ExitRecord),
}

impl Entry {
    pub(crate) fn new(
        meta: Meta,
        state: RuntimeState,
        pid: Option<u32>,
        started_at: Option<Timestamp>,
    ) -> Arc<Self> {
        let info = ContainerInfo {
            id: meta.id,
            attempt: meta.attempt,
            name: meta.name.clone(),
            state,
            pid,
            started_at,
        };
        let ended = watch::Sender::new(matches!(state, RuntimeState::Exited(_)));
        Arc::new(Self {
            meta,
            turn: tokio::sync::Mutex::new(()),
            info: watch::Sender::new(info),
            ended,
        })
    }

    pub(crate) fn id(&self) -> ContainerId {
        self.meta.id
    }

    pub(crate) fn info(&self) -> ContainerInfo {
        self.info.borrow().clone()
    }

    pub(crate) fn exit(&self) -> Option<ExitRecord> {
        match self.info.borrow().state {
            RuntimeState::Exited(exit) => Some(exit),
            _ => None,
        }
    }

    /// Says true once it has ended.
    pub(crate) fn ended(&self) -> watch::Receiver<bool> {
        self.ended.subscribe()
    }

    /// Lets readers of the log know that nothing comes any more.
    pub(crate) fn removed(&self) {
        self.ended.send_replace(true);
    }

    /// Waits for the end.
    pub(crate) async fn wait(&self) -> Result<ExitRecord> {
        let mut changes = self.info.subscribe();
        let ended = changes
            .wait_for(|info| matches!(info.state, RuntimeState::Exited(_)))
            .await;
        match ended.map(|info| info.state) {
            Ok(RuntimeState::Exited(exit)) => Ok(exit),
            _ => Err(RuntimeError::NotFound { id: self.id() }),
        }
    }

    /// Moves forward and tells subscribers; a change that is known already does nothing.
    pub(crate) fn advance(&self, change: Change, events: &broadcast::Sender<RuntimeEvent>) {
        let (id, attempt) = (self.id(), self.meta.attempt);
        let mut event = None;
        self.info
            .send_if_modified(|info| match (change, info.state) {
                (Change::Started(at), RuntimeState::Created) => {
                    info.state = RuntimeState::Running;
                    info.started_at = Some(at);
                    event = Some(RuntimeEvent::Started {
                        id,
                        attempt,
                        pid: info.pid.unwrap_or_default(),
                        at,
                    });
                    true
                }
                (Change::Exited(exit), RuntimeState::Created | RuntimeState::Running) => {
                    info.state = RuntimeState::Exited(exit);
                    info.pid = None;
                    event = Some(RuntimeEvent::Exited { id, attempt, exit });
                    true
                }
                _ => false,
            });
        if let Change::Exited(_) = change {
            self.ended.send_replace(true);
        }
        if let Some(event) = event {
            // Nobody may be listening; the state can be listed at any time.
            let _ = events.send(event);
        }
    }
}
