//! One table of objects: rows by id, ids by name.

use crate::change::{Change, Delta, ObjectKind};
use crate::state::ClusterState;
use imbl::OrdMap;
use std::hash::Hash;
use std::sync::Arc;
use warren_types::{Revision, Timestamp};

/// What the tables ask of an object.
pub(crate) trait Object: Hash + Clone + PartialEq + Sized {
    const KIND: ObjectKind;
    fn key(&self) -> u128;
    /// Unique name, for kinds that have one.
    fn name(&self) -> Option<&str> {
        None
    }
    /// Name or id, for messages.
    fn label(&self) -> String;
    fn version(&self) -> Revision;
    fn set_version(&mut self, version: Revision);
    /// Notes the time of a change, for kinds that keep one.
    fn set_updated(&mut self, _time: Timestamp) {}
    fn table(state: &ClusterState) -> &Table<Self>;
    fn table_mut(state: &mut ClusterState) -> &mut Table<Self>;
    /// Brings the other indexes in line with a changed row.
    fn reindex(_state: &mut ClusterState, _before: Option<&Self>, _after: Option<&Self>) {}
    fn into_change(delta: Delta<Self>) -> Change;
    /// The change when it is one of such an object.
    fn delta(change: &Change) -> Option<&Delta<Self>>;
    fn delta_mut(change: &mut Change) -> Option<&mut Delta<Self>>;
}

/// An id as a key of a persistent map: as two words it has no need of 16-byte alignment, which would
/// cost 8 bytes in each entry of each map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key([u64; 2]);

impl Key {
    pub(crate) const MIN: Self = Self([0; 2]);
    pub(crate) const MAX: Self = Self([u64::MAX; 2]);

    #[expect(
        clippy::cast_possible_truncation,
        reason = "the two halves are taken one by one"
    )]
    pub(crate) const fn new(id: u128) -> Self {
        Self([(id >> 64) as u64, id as u64])
    }
    pub(crate) fn id(self) -> u128 {
        (u128::from(self.0[0]) << 64) | u128::from(self.0[1])
    }
}

/// Rows by id and ids by name.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Table<T> {
    pub(crate) rows: OrdMap<Key, Arc<T>>,
    pub(crate) names: OrdMap<Arc<str>, Key>,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self {
            rows: OrdMap::new(),
            names: OrdMap::new(),
        }
    }
}

impl<T> Table<T> {
    pub(crate) fn get(&self, key: u128) -> Option<&Arc<T>> {
        self.rows.get(&Key::new(key))
    }
    pub(crate) fn by_name(&self, name: &str) -> Option<&Arc<T>> {
        self.names.get(name).and_then(|key| self.rows.get(key))
    }
    pub(crate) fn values(&self) -> impl Iterator<Item = &Arc<T>> {
        self.rows.values()
    }
    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }
}

macro_rules! objects {
    ($($object:ident { kind: $kind:ident, table: $table:ident $(, name: $name:expr)? $(, updated: $updated:ident)? $(, reindex: $reindex:path)? }),+ $(,)?) => {$(
        impl Object for warren_types::$object {
            const KIND: ObjectKind = ObjectKind::$kind;
            fn key(&self) -> u128 {
                self.id.as_u128()
            }
            $(fn name(&self) -> Option<&str> {
                let name: fn(&Self) -> &str = $name;
                Some(name(self))
            })?
            fn label(&self) -> String {
                Object::name(self).map_or_else(|| self.id.to_string(), str::to_owned)
            }
            fn version(&self) -> Revision {
                self.version
            }
            fn set_version(&mut self, version: Revision) {
                self.version = version;
            }
            $(fn set_updated(&mut self, time: Timestamp) {
                self.$updated = time;
            })?
            fn table(state: &ClusterState) -> &Table<Self> {
                &state.$table
            }
            fn table_mut(state: &mut ClusterState) -> &mut Table<Self> {
                &mut state.$table
            }
            $(fn reindex(state: &mut ClusterState, before: Option<&Self>, after: Option<&Self>) {
                $reindex(state, before, after);
            })?
            fn into_change(delta: Delta<Self>) -> Change {
                Change::$kind(delta)
            }
            fn delta(change: &Change) -> Option<&Delta<Self>> {
                match change {
                    Change::$kind(delta) => Some(delta),
                    _ => None,
                }
            }
            fn delta_mut(change: &mut Change) -> Option<&mut Delta<Self>> {
                match change {
                    Change::$kind(delta) => Some(delta),
                    _ => None,
                }
            }
        }
    )+};
}

objects! {
    Node { kind: Node, table: nodes, name: |o| &o.name, updated: updated_at, reindex: crate::index::node },
    Service { kind: Service, table: services, name: |o| &o.spec.name, updated: updated_at, reindex: crate::index::service },
    Container { kind: Container, table: containers, reindex: crate::index::container },
    Secret { kind: Secret, table: secrets, name: |o| &o.name, updated: updated_at },
    Config { kind: Config, table: configs, name: |o| &o.name, updated: updated_at },
    Volume { kind: Volume, table: volumes, name: |o| &o.name },
    Network { kind: Network, table: networks, name: |o| &o.name },
    Ingress { kind: Ingress, table: ingresses, name: |o| &o.name, updated: updated_at },
    Certificate { kind: Certificate, table: certificates, name: |o| &o.name, updated: updated_at },
    JoinToken { kind: Token, table: tokens },
    ClusterSettings { kind: Settings, table: settings, name: |o| &o.name },
}
