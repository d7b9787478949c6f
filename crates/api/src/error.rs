//! Errors of API calls and their gRPC status codes. Each text says what, where, and what to do.

use crate::quorum::{LEADER_HEADER, NOT_APPLIED_HEADER};
use tonic::metadata::MetadataValue;
use tonic::{Code, Status};
use warren_proto::{ConvertError, headers};
use warren_types::ValidationError;

/// Why a call failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    /// The request is no sense by itself: INVALID_ARGUMENT. One line per wrong field.
    #[error("{0}")]
    Invalid(#[from] ValidationError),
    /// Nothing has this id or name: NOT_FOUND.
    #[error("there is no {kind} {name:?}: list them with `{list_command}`")]
    NotFound {
        /// Kind of object, such as `service`.
        kind: &'static str,
        /// What was asked for.
        name: String,
        /// Command that lists what there is.
        list_command: &'static str,
    },
    /// The name is taken: ALREADY_EXISTS.
    #[error("{kind} {name:?} exists already: {remedy}")]
    AlreadyExists {
        /// Kind of object.
        kind: &'static str,
        /// The name.
        name: String,
        /// What to do.
        remedy: String,
    },
    /// Not possible in the present state: FAILED_PRECONDITION.
    #[error("{what}: {remedy}")]
    Precondition {
        /// What stands against it.
        what: String,
        /// What to do.
        remedy: String,
    },
    /// Somebody else changed the object meanwhile: ABORTED.
    #[error(
        "{what} was changed meanwhile (expected version {expected}, found {found}): read it again and repeat the change"
    )]
    Conflict {
        /// Kind and name of the object.
        what: String,
        /// Version the caller expected.
        expected: u64,
        /// Version it has.
        found: u64,
    },
    /// The caller may not: PERMISSION_DENIED.
    #[error("{what}: {remedy}")]
    Denied {
        /// What is refused.
        what: String,
        /// What to do.
        remedy: String,
    },
    /// The cluster has removed the node that calls: PERMISSION_DENIED; the status says so in its metadata.
    #[error("{what}: run `warren node reset` there, then join again with a new token")]
    Removed {
        /// Who was removed.
        what: String,
    },
    /// Nobody can answer now: UNAVAILABLE. Repeating later may help.
    #[error("{what}: {remedy}")]
    Unavailable {
        /// What is missing.
        what: String,
        /// What to do.
        remedy: String,
    },
    /// Certainly not carried out, because this manager does not lead or has no quorum: UNAVAILABLE. Repeating it, here later
    /// or at another manager, is safe; the status says so in its metadata.
    #[error("{what}: {remedy}")]
    NotTaken {
        /// What is missing.
        what: String,
        /// What to do.
        remedy: String,
        /// API address of the leader, when it is known and another manager.
        leader: Option<String>,
    },
    /// A limit is reached: RESOURCE_EXHAUSTED.
    #[error("{what}: {remedy}")]
    Exhausted {
        /// Which limit, with its number.
        what: String,
        /// What to do.
        remedy: String,
    },
    /// It took too long: DEADLINE_EXCEEDED. Whether it happened is not known.
    #[error("{what} took longer than {limit_ms} ms: look at the state before you repeat it")]
    Deadline {
        /// The call.
        what: String,
        /// Limit in milliseconds.
        limit_ms: u64,
    },
    /// This build does not do that: UNIMPLEMENTED.
    #[error("{what} is not part of this version: {remedy}")]
    Unimplemented {
        /// The call.
        what: &'static str,
        /// What to do instead.
        remedy: &'static str,
    },
    /// A fault of ours: INTERNAL.
    #[error("{what}: this is a fault of Warren; the daemon's log says more")]
    Internal {
        /// What went wrong, without secrets.
        what: String,
    },
}

impl ApiError {
    /// An error about one field of the request.
    pub fn field(
        field: impl Into<String>,
        problem: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self::Invalid(ValidationError::one(field, problem, remedy))
    }

    /// [`ApiError::NotFound`] with the usual list command of the kind.
    pub fn not_found(kind: &'static str, name: impl Into<String>) -> Self {
        let list_command = match kind {
            "service" => "warren service list",
            "container" => "warren service ps",
            "node" => "warren node list",
            "secret" => "warren secret list",
            "volume" => "warren volume list",
            "image" => "warren image list",
            _ => "warren cluster info",
        };
        Self::NotFound {
            kind,
            name: name.into(),
            list_command,
        }
    }

    /// [`ApiError::Precondition`].
    pub fn precondition(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::Precondition {
            what: what.into(),
            remedy: remedy.into(),
        }
    }

    /// [`ApiError::Unavailable`].
    pub fn unavailable(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::Unavailable {
            what: what.into(),
            remedy: remedy.into(),
        }
    }

    /// [`ApiError::Denied`].
    pub fn denied(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::Denied {
            what: what.into(),
            remedy: remedy.into(),
        }
    }

    /// [`ApiError::Internal`].
    pub fn internal(what: impl Into<String>) -> Self {
        Self::Internal { what: what.into() }
    }

    /// The gRPC status code.
    #[must_use]
    pub const fn code(&self) -> Code {
        match self {
            Self::Invalid(_) => Code::InvalidArgument,
            Self::NotFound { .. } => Code::NotFound,
            Self::AlreadyExists { .. } => Code::AlreadyExists,
            Self::Precondition { .. } => Code::FailedPrecondition,
            Self::Conflict { .. } => Code::Aborted,
            Self::Denied { .. } | Self::Removed { .. } => Code::PermissionDenied,
            Self::Unavailable { .. } | Self::NotTaken { .. } => Code::Unavailable,
            Self::Exhausted { .. } => Code::ResourceExhausted,
            Self::Deadline { .. } => Code::DeadlineExceeded,
            Self::Unimplemented { .. } => Code::Unimplemented,
            Self::Internal { .. } => Code::Internal,
        }
    }
}

impl From<ConvertError> for ApiError {
    fn from(error: ConvertError) -> Self {
        Self::field(
            error.field,
            error.problem,
            "correct the field and send the request again",
        )
    }
}

impl From<ApiError> for Status {
    fn from(error: ApiError) -> Self {
        let mut status = Self::new(error.code(), error.to_string());
        if let ApiError::Removed { .. } = error {
            let removed = MetadataValue::from_static("true");
            status.metadata_mut().insert(headers::REMOVED, removed);
        }
        if let ApiError::NotTaken { leader, .. } = error {
            let metadata = status.metadata_mut();
            metadata.insert(NOT_APPLIED_HEADER, MetadataValue::from_static("true"));
            if let Some(leader) = leader.and_then(|address| address.parse().ok()) {
                metadata.insert(LEADER_HEADER, leader);
            }
        }
        status
    }
}
