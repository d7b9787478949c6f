//! Start = recover: what runs is taken over, what is nobody's is swept, what is missing is started.

use crate::WorkerError;
use crate::actor::is_live;
use crate::edge;
use crate::shared::Shared;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use warren_image::PreparedRootfs;
use warren_lifecycle::{Local, Observation, RuntimeView};
use warren_runtime::{ContainerInfo, RuntimeState};
use warren_types::ContainerId;

/// Everything that the machine has of containers.
struct Found {
    runtime: BTreeMap<ContainerId, ContainerInfo>,
    rootfs: BTreeMap<ContainerId, PreparedRootfs>,
    network: BTreeSet<ContainerId>,
}

pub(crate) async fn run(shared: &Arc<Shared>) -> Result<(), WorkerError> {
    let found = look(shared).await?;
    let mut records: BTreeMap<ContainerId, Local> = shared
        .keep
        .records()?
        .into_iter()
        .filter(is_live)
        .map(|local| (local.id, local))
        .collect();
    let wanted = shared.wanted();
    let mut ids: BTreeSet<ContainerId> = wanted.set.items.keys().copied().collect();
    ids.extend(records.keys());
    ids.extend(found.runtime.keys());
    ids.extend(found.rootfs.keys());
    ids.extend(&found.network);
    for id in ids {
        let floor = wanted.set.items.get(&id).map_or(0, |a| a.attempt_floor);
        let mut local = records.remove(&id).unwrap_or_else(|| Local::new(id, floor));
        local.observe(found.of(id), edge::now());
        shared.actors.begin(shared, local);
    }
    Ok(())
}

async fn look(shared: &Arc<Shared>) -> Result<Found, WorkerError> {
    let runtime = shared.driver.list().await?;
    let images = shared.images.clone();
    let rootfs = tokio::task::spawn_blocking(move || images.prepared()).await;
    let rootfs = rootfs.map_err(|e| WorkerError::Internal(e.to_string()))??;
    let network = shared.network.host().list().await?;
    Ok(Found {
        runtime: runtime.into_iter().map(|info| (info.id, info)).collect(),
        rootfs: rootfs.into_iter().map(|r| (r.container, r)).collect(),
        network: network.into_iter().map(|n| n.container).collect(),
    })
}

impl Found {
    fn of(&self, id: ContainerId) -> Observation {
        let mounted = self.rootfs.get(&id).is_some_and(|r| r.mounted);
        let intact = mounted && self.network.contains(&id);
        let view = self.runtime.get(&id).map_or(RuntimeView::Absent, view);
        Observation::Recovered { view, intact }
    }
}

fn view(info: &ContainerInfo) -> RuntimeView {
    let attempt = info.attempt;
    match (&info.state, info.pid, info.started_at) {
        (RuntimeState::Created, ..) => RuntimeView::Created { attempt },
        (RuntimeState::Running, Some(pid), Some(started_at)) => RuntimeView::Running {
            attempt,
            pid,
            started_at,
        },
        (RuntimeState::Running, ..) => RuntimeView::Absent,
        (RuntimeState::Exited(exit), _, started_at) => RuntimeView::Exited {
            attempt,
            started_at,
            exit: exit.info,
            at: exit.at,
        },
    }
}
