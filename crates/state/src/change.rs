//! What a command changed.

use crate::command::Actor;
use crate::state::ClusterState;
use crate::table::Object;
use std::fmt;
use std::sync::Arc;
use warren_types::{
    Certificate, ClusterSettings, Config, Container, Id128, Ingress, JoinToken, Network, Node,
    Revision, Secret, Service, Timestamp, Volume,
};

/// The kinds of objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ObjectKind {
    /// A node.
    Node = 1,
    /// A service.
    Service = 2,
    /// A container.
    Container = 3,
    /// A secret.
    Secret = 4,
    /// A config.
    Config = 5,
    /// A volume.
    Volume = 6,
    /// A network.
    Network = 7,
    /// An ingress.
    Ingress = 8,
    /// A certificate.
    Certificate = 9,
    /// A join token.
    Token = 10,
    /// The cluster's settings (one record, its id is the cluster's).
    Settings = 11,
}

impl ObjectKind {
    /// Every kind.
    pub const ALL: [Self; 11] = [
        Self::Node,
        Self::Service,
        Self::Container,
        Self::Secret,
        Self::Config,
        Self::Volume,
        Self::Network,
        Self::Ingress,
        Self::Certificate,
        Self::Token,
        Self::Settings,
    ];

    /// Name in lower case, as the command line spells it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Service => "service",
            Self::Container => "container",
            Self::Secret => "secret",
            Self::Config => "config",
            Self::Volume => "volume",
            Self::Network => "network",
            Self::Ingress => "ingress",
            Self::Certificate => "certificate",
            Self::Token => "token",
            Self::Settings => "settings",
        }
    }

    /// The kind with this number.
    #[must_use]
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|k| *k as u32 == number)
    }
}

impl fmt::Display for ObjectKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One object before and after. At least one side is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delta<T> {
    /// Before; `None` when the command made it.
    pub before: Option<Arc<T>>,
    /// After; `None` when the command removed it.
    pub after: Option<Arc<T>>,
}

impl<T> Delta<T> {
    /// The newest side that is there.
    #[must_use]
    pub fn latest(&self) -> Option<&Arc<T>> {
        self.after.as_ref().or(self.before.as_ref())
    }
}

/// One changed object. A command that touches an object several times makes one change of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A node.
    Node(Delta<Node>),
    /// A service.
    Service(Delta<Service>),
    /// A container.
    Container(Delta<Container>),
    /// A secret.
    Secret(Delta<Secret>),
    /// A config.
    Config(Delta<Config>),
    /// A volume.
    Volume(Delta<Volume>),
    /// A network.
    Network(Delta<Network>),
    /// An ingress.
    Ingress(Delta<Ingress>),
    /// A certificate.
    Certificate(Delta<Certificate>),
    /// A join token.
    Token(Delta<JoinToken>),
    /// The cluster's settings.
    Settings(Delta<ClusterSettings>),
}

macro_rules! on_delta {
    ($change:expr, $delta:ident => $body:expr) => {
        match $change {
            Change::Node($delta) => $body,
            Change::Service($delta) => $body,
            Change::Container($delta) => $body,
            Change::Secret($delta) => $body,
            Change::Config($delta) => $body,
            Change::Volume($delta) => $body,
            Change::Network($delta) => $body,
            Change::Ingress($delta) => $body,
            Change::Certificate($delta) => $body,
            Change::Token($delta) => $body,
            Change::Settings($delta) => $body,
        }
    };
}

impl Change {
    /// Kind of the object.
    #[must_use]
    pub const fn kind(&self) -> ObjectKind {
        match self {
            Self::Node(_) => ObjectKind::Node,
            Self::Service(_) => ObjectKind::Service,
            Self::Container(_) => ObjectKind::Container,
            Self::Secret(_) => ObjectKind::Secret,
            Self::Config(_) => ObjectKind::Config,
            Self::Volume(_) => ObjectKind::Volume,
            Self::Network(_) => ObjectKind::Network,
            Self::Ingress(_) => ObjectKind::Ingress,
            Self::Certificate(_) => ObjectKind::Certificate,
            Self::Token(_) => ObjectKind::Token,
            Self::Settings(_) => ObjectKind::Settings,
        }
    }

    /// Id of the object.
    #[must_use]
    pub fn id(&self) -> Id128 {
        on_delta!(self, delta => delta.latest().map(|o| o.id.0).unwrap_or_default())
    }

    /// The command made the object.
    #[must_use]
    pub fn is_created(&self) -> bool {
        on_delta!(self, delta => delta.before.is_none())
    }

    /// The command removed the object.
    #[must_use]
    pub fn is_removed(&self) -> bool {
        on_delta!(self, delta => delta.after.is_none())
    }

    /// The object, as a key.
    pub(crate) fn object(&self) -> (ObjectKind, u128) {
        (self.kind(), self.id().0)
    }

    /// The object was made and removed again.
    pub(crate) fn is_nothing(&self) -> bool {
        on_delta!(self, delta => delta.before.is_none() && delta.after.is_none())
    }

    /// Makes one change of this one and an earlier one of the same object.
    pub(crate) fn follow(self, earlier: &mut Self) {
        on_delta!(self, delta => follow(delta, earlier));
    }

    /// Puts the row back.
    pub(crate) fn undo(self, state: &mut ClusterState) {
        on_delta!(self, delta => undo(delta, state));
    }
}

fn follow<T: Object>(later: Delta<T>, earlier: &mut Change) {
    if let Some(earlier) = T::delta_mut(earlier) {
        earlier.after = later.after;
    }
}

fn undo<T: Object>(delta: Delta<T>, state: &mut ClusterState) {
    if let Some(object) = delta.latest() {
        state.replace(object.key(), delta.before.clone());
    }
}

/// Everything that one command changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangeSet {
    /// Revision of the state after the command.
    pub revision: Revision,
    /// Time of the command.
    pub time: Timestamp,
    /// Who wanted it.
    pub actor: Actor,
    /// One per object, in the order of first touch; may be empty.
    pub changes: Vec<Change>,
}
