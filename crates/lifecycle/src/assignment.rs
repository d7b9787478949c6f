//! What the manager wants of this node, and how a new set is taken over.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use warren_types::{
    ContainerId, ContainerSpec, DesiredState, PortMapping, Revision, ServiceId, Slot,
};

/// One container that this node shall run, or shall have stopped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Assignment {
    /// Id of the container.
    pub id: ContainerId,
    /// Its service.
    pub service: ServiceId,
    /// Name of its service.
    pub service_name: String,
    /// Numbered revision of the service.
    pub service_revision: u32,
    /// Its place in the service.
    pub slot: Slot,
    /// What the cluster wants. Goes from running to shutdown, never back.
    pub desired: DesiredState,
    /// What runs in it.
    pub spec: Arc<ContainerSpec>,
    /// Published ports.
    pub ports: Vec<PortMapping>,
    /// Networks it is attached to.
    pub networks: Vec<String>,
    /// Highest attempt that the manager has seen; a node that lost its disk goes on after it.
    pub attempt_floor: u32,
}

impl Assignment {
    /// Shall it run?
    #[must_use]
    pub fn wants_running(&self) -> bool {
        self.desired == DesiredState::Running
    }

    /// Name of the instance: `web-3`, or `web-<first 8 characters of the node id>` for a global service.
    #[must_use]
    pub fn instance_name(&self) -> String {
        match self.slot {
            Slot::Replica(number) => format!("{}-{number}", self.service_name),
            // The last characters are random; the first tell the time and may be equal.
            Slot::Node(node) => {
                let text = node.to_string();
                format!("{}-{}", self.service_name, &text[text.len() - 8..])
            }
        }
    }
}

/// The set in force on a node, as it lies on its disk.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AssignmentSet {
    /// Revision of the state that it was made from.
    pub revision: Revision,
    /// By container.
    pub items: BTreeMap<ContainerId, Assignment>,
}

/// A set, or a change of it, from the manager.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SetUpdate {
    /// Revision of the state that it was made from.
    pub revision: Revision,
    /// True: whatever is not in `upserts` goes. False: only changes.
    pub complete: bool,
    /// New and changed ones.
    pub upserts: Vec<Assignment>,
    /// Those that go.
    pub removed: Vec<ContainerId>,
}

/// An update that is not newer than what is in force (law 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("assignment set {offered} is not newer than {in_force}, the one in force: refused")]
pub struct StaleSet {
    /// Revision of the update.
    pub offered: Revision,
    /// Revision in force.
    pub in_force: Revision,
}

/// What changed for one container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SetChange {
    /// Its assignment is new.
    Begin(ContainerId),
    /// Its assignment differs from before: wake it.
    Changed(ContainerId),
    /// It is not assigned any more: stop it and remove all of it.
    Retire(ContainerId),
}

impl AssignmentSet {
    /// Takes an update over. A complete set of the revision in force is accepted too (a session that
    /// begins again repeats it); everything older is refused.
    ///
    /// # Errors
    /// [`StaleSet`]; then nothing has changed.
    pub fn accept(&mut self, update: SetUpdate) -> Result<Vec<SetChange>, StaleSet> {
        let repeats = update.complete && update.revision == self.revision;
        if update.revision <= self.revision && !repeats {
            return Err(StaleSet {
                offered: update.revision,
                in_force: self.revision,
            });
        }
        let mut changes = Vec::new();
        let mut gone: Vec<ContainerId> = update.removed;
        if update.complete {
            let kept: std::collections::BTreeSet<_> = update.upserts.iter().map(|a| a.id).collect();
            gone.extend(self.items.keys().filter(|id| !kept.contains(id)));
        }
        for id in gone {
            if self.items.remove(&id).is_some() {
                changes.push(SetChange::Retire(id));
            }
        }
        for mut new in update.upserts {
            let id = new.id;
            match self.items.get(&id) {
                None => changes.push(SetChange::Begin(id)),
                Some(old) => {
                    if old.desired == DesiredState::Shutdown {
                        new.desired = DesiredState::Shutdown;
                    }
                    if *old == new {
                        continue;
                    }
                    changes.push(SetChange::Changed(id));
                }
            }
            self.items.insert(id, new);
        }
        self.revision = update.revision;
        Ok(changes)
    }
}

/// What a starting worker does with the set on its disk and the containers it has records or remains
/// of: those assigned begin (or go on), the others are retired.
#[must_use]
pub fn diff(set: &AssignmentSet, local: impl IntoIterator<Item = ContainerId>) -> Vec<SetChange> {
    let mut changes: Vec<SetChange> = set.items.keys().copied().map(SetChange::Begin).collect();
    let mut strays: Vec<ContainerId> = local
        .into_iter()
        .filter(|id| !set.items.contains_key(id))
        .collect();
    strays.sort_unstable();
    strays.dedup();
    changes.extend(strays.into_iter().map(SetChange::Retire));
    changes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn assignment(id: u128, desired: DesiredState) -> Assignment {
        Assignment {
            id: ContainerId::from_u128(id),
            service: ServiceId::from_u128(1),
            service_name: "web".to_owned(),
            service_revision: 1,
            slot: Slot::Replica(2),
            desired,
            spec: Arc::default(),
            ports: Vec::new(),
            networks: Vec::new(),
            attempt_floor: 0,
        }
    }

    fn update(revision: u64, complete: bool, ids: &[u128], removed: &[u128]) -> SetUpdate {
        SetUpdate {
            revision: Revision(revision),
            complete,
            upserts: ids
                .iter()
                .map(|id| assignment(*id, DesiredState::Running))
                .collect(),
            removed: removed
                .iter()
                .map(|id| ContainerId::from_u128(*id))
                .collect(),
        }
    }

    #[test]
    fn older_sets_are_refused_and_change_nothing() {
        let mut set = AssignmentSet::default();
        set.accept(update(5, true, &[1, 2], &[])).unwrap();
        let before = set.clone();
        for stale in [
            update(4, true, &[], &[]),
            update(4, false, &[3], &[]),
            update(5, false, &[3], &[]),
        ] {
            assert!(set.accept(stale).is_err());
            assert_eq!(set, before);
        }
        assert_eq!(set.accept(update(5, true, &[1, 2], &[])), Ok(vec![]));
        let c = ContainerId::from_u128;
        assert_eq!(
            set.accept(update(6, false, &[3], &[1])),
            Ok(vec![SetChange::Retire(c(1)), SetChange::Begin(c(3))])
        );
        assert_eq!(
            diff(&set, [c(9), c(2), c(9)]),
            [
                SetChange::Begin(c(2)),
                SetChange::Begin(c(3)),
                SetChange::Retire(c(9))
            ]
        );
    }

    #[test]
    fn shutdown_is_never_taken_back() {
        let mut set = AssignmentSet::default();
        let mut first = update(1, true, &[1], &[]);
        first.upserts[0].desired = DesiredState::Shutdown;
        set.accept(first).unwrap();
        assert_eq!(set.accept(update(2, true, &[1], &[])), Ok(vec![]));
        assert!(!set.items.values().next().unwrap().wants_running());
    }

    #[test]
    fn instance_names() {
        let mut a = assignment(1, DesiredState::Running);
        assert_eq!(a.instance_name(), "web-2");
        a.slot = Slot::Node("00000000000000000abcdefghj".parse().unwrap());
        assert_eq!(a.instance_name(), "web-bcdefghj");
    }

    proptest! {
        /// Whatever came before, a complete set leaves exactly itself.
        #[test]
        fn a_complete_set_replaces_everything(
            steps in proptest::collection::vec((any::<bool>(), proptest::collection::vec(0_u128..8, 0..6)), 1..10),
            last in proptest::collection::btree_set(0_u128..8, 0..6),
        ) {
            let mut set = AssignmentSet::default();
            for (at, (complete, ids)) in steps.iter().enumerate() {
                set.accept(update(at as u64 + 1, *complete, ids, &[])).unwrap();
            }
            let last: Vec<u128> = last.into_iter().collect();
            set.accept(update(100, true, &last, &[])).unwrap();
            let found: Vec<u128> = set.items.keys().map(|id| id.as_u128()).collect();
            prop_assert_eq!(found, last);
        }
    }
}
