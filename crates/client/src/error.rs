//! What a call can fail with, and the exit code a command ends with then.

use std::error::Error;
use std::fmt;
use std::io;
use tonic::{Code, Status};
use warren_proto::headers;

/// Class of an error; decides exit codes and whether repeating makes sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The request is wrong by itself.
    InvalidArgument,
    /// Nothing has this id or name.
    NotFound,
    /// The name is taken.
    AlreadyExists,
    /// The caller may not.
    PermissionDenied,
    /// No connection, or nobody can answer now. Whether a change happened is not known.
    Unavailable,
    /// Certainly not carried out: no manager could be reached, or none that leads. Repeating it later is safe.
    NotTaken,
    /// The cluster has removed the node that calls.
    Removed,
    /// Not possible in the present state.
    FailedPrecondition,
    /// Somebody else changed the object meanwhile.
    Conflict,
    /// A limit is reached.
    ResourceExhausted,
    /// No answer within the time limit.
    DeadlineExceeded,
    /// The manager does not know this call.
    Unimplemented,
    /// A rollout failed or went back.
    RolloutFailed,
    /// Files of the client (certificates, archives) are missing or wrong.
    Local,
    /// A fault on the other side, or an answer that makes no sense.
    Internal,
}

/// Why a call failed, in words that a user can act on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientError {
    /// Class.
    pub kind: ErrorKind,
    /// What went wrong and where.
    pub message: String,
    /// What to do; empty when the message says it already (as messages of managers do).
    pub remedy: String,
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if !self.remedy.is_empty() {
            write!(f, ": {}", self.remedy)?;
        }
        Ok(())
    }
}

impl Error for ClientError {}

impl ClientError {
    /// An error with a remedy.
    pub fn new(kind: ErrorKind, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            remedy: remedy.into(),
        }
    }

    /// Exit code of a command that ends with this error (design §12).
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self.kind {
            ErrorKind::InvalidArgument => 2,
            ErrorKind::Unavailable | ErrorKind::NotTaken => 3,
            ErrorKind::NotFound => 4,
            ErrorKind::AlreadyExists => 5,
            ErrorKind::PermissionDenied | ErrorKind::Removed => 6,
            ErrorKind::RolloutFailed => 7,
            ErrorKind::FailedPrecondition
            | ErrorKind::Conflict
            | ErrorKind::ResourceExhausted
            | ErrorKind::DeadlineExceeded
            | ErrorKind::Unimplemented
            | ErrorKind::Local
            | ErrorKind::Internal => 1,
        }
    }

    /// The same request may succeed later without any change.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        matches!(
            self.kind,
            ErrorKind::Unavailable | ErrorKind::NotTaken | ErrorKind::DeadlineExceeded
        )
    }
}

const fn kind_of(code: Code) -> ErrorKind {
    match code {
        Code::InvalidArgument | Code::OutOfRange => ErrorKind::InvalidArgument,
        Code::NotFound => ErrorKind::NotFound,
        Code::AlreadyExists => ErrorKind::AlreadyExists,
        Code::PermissionDenied | Code::Unauthenticated => ErrorKind::PermissionDenied,
        Code::Unavailable => ErrorKind::Unavailable,
        Code::FailedPrecondition => ErrorKind::FailedPrecondition,
        Code::Aborted => ErrorKind::Conflict,
        Code::ResourceExhausted => ErrorKind::ResourceExhausted,
        Code::DeadlineExceeded | Code::Cancelled => ErrorKind::DeadlineExceeded,
        Code::Unimplemented => ErrorKind::Unimplemented,
        Code::Ok | Code::Unknown | Code::Internal | Code::DataLoss => ErrorKind::Internal,
    }
}

/// A failed attempt to reach a manager; made in the connector and found again below tonic's errors.
#[derive(Debug, Clone)]
pub(crate) struct ConnectFailure(pub(crate) ClientError);

impl fmt::Display for ConnectFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Error for ConnectFailure {}

/// The connection was gone before the request was written to it.
pub(crate) fn is_unsent(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(hyper) = error.downcast_ref::<hyper::Error>() {
            return hyper.is_canceled();
        }
        next = error.source();
    }
    false
}

pub(crate) fn connect_failure(error: &(dyn Error + 'static)) -> Option<ClientError> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<ConnectFailure>() {
            return Some(found.0.clone());
        }
        // An io::Error shows the source of what it wraps, not the thing itself.
        if let Some(io) = error.downcast_ref::<io::Error>()
            && let Some(inner) = io.get_ref()
            && let Some(found) = inner.downcast_ref::<ConnectFailure>()
        {
            return Some(found.0.clone());
        }
        next = error.source();
    }
    None
}

impl From<Status> for ClientError {
    fn from(status: Status) -> Self {
        if let Some(failure) = status.source().and_then(connect_failure) {
            return failure;
        }
        // A status with a source was made on this side: the connection broke under the call.
        if status.source().is_some()
            && matches!(
                status.code(),
                Code::Unknown | Code::Unavailable | Code::Internal
            )
        {
            return Self::new(
                ErrorKind::Unavailable,
                format!("the connection to the manager broke ({})", status.message()),
                "try again; `warren node list` shows which managers live",
            );
        }
        let kind = if status.metadata().contains_key(headers::NOT_APPLIED) {
            ErrorKind::NotTaken
        } else if status.metadata().contains_key(headers::REMOVED) {
            ErrorKind::Removed
        } else {
            kind_of(status.code())
        };
        Self {
            kind,
            message: if status.message().is_empty() {
                format!("the manager answered {:?} without a reason", status.code())
            } else {
                status.message().to_owned()
            },
            remedy: String::new(),
        }
    }
}

impl From<tonic::transport::Error> for ClientError {
    fn from(error: tonic::transport::Error) -> Self {
        connect_failure(&error).unwrap_or_else(|| {
            Self::new(
                ErrorKind::Unavailable,
                format!("no connection to a manager ({error})"),
                "check that the daemon runs with `warren cluster info`",
            )
        })
    }
}
