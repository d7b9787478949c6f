//! What Warren talks about: typed ids, quantities with units, desired specs, observed statuses,
//! the container life-cycle table, and validation with every limit.
//!
//! Pure data. Nothing here reads a clock, a random source, a file or a socket; ids and times are
//! made at the edge and handed in.

#![forbid(unsafe_code)]

pub mod cluster;
pub mod container;
pub mod error;
pub mod event;
pub mod id;
pub mod lifecycle;
pub mod limits;
pub mod node;
pub mod object;
pub mod quantity;
pub mod service;
pub mod spec;
pub mod validate;

pub use cluster::{
    CaMaterial, ClusterSettings, JoinToken, KeyEpoch, RaftProfile, Role, TokenState,
};
pub use container::{
    ActualState, Container, ContainerStatus, DesiredState, ExitInfo, HealthVerdict, Slot,
};
pub use error::{FieldError, ValidationError};
pub use event::{Event, EventKind};
pub use id::{
    CertificateId, ClusterId, ConfigId, ContainerId, EventId, Id128, IdError, IngressId, NetworkId,
    NodeId, SecretId, ServiceId, TokenId, VolumeId,
};
pub use lifecycle::{Owner, Transition, TransitionError};
pub use node::{Availability, Liveness, Node, NodeResources, NodeRole, Platform};
pub use object::{
    Certificate, Config, Ingress, IngressPath, IngressRule, IngressTls, Network, PathType,
    SealedData, Secret, Volume,
};
pub use quantity::{Bytes, Duration, MilliCpu, QuantityError, Revision, Timestamp};
pub use service::{Rollout, RolloutState, Service, ServiceRevision};
pub use spec::{
    ContainerSpec, DeployStrategy, EnvVar, FailureAction, FileRef, HealthCheck, HealthProbe,
    HealthSpec, Mode, Mount, Placement, PortMapping, Protocol, PublishMode, Resources,
    RestartCondition, RestartPolicy, ServiceSpec, UpdateConfig, UpdateOrder,
};
pub use validate::{Constraint, ConstraintSubject, parse_cidr, parse_signal};
