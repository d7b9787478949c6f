//! Refusals of the state and of the consensus engine in the words of the API.

use warren_api::ApiError;
use warren_proto::session;
use warren_raft::ProposeError;
use warren_state::Rejection;

/// A rejection by the state machine.
pub(super) fn rejected(rejection: Rejection) -> ApiError {
    let text = rejection.to_string();
    match rejection {
        Rejection::NotFound { kind, id } => ApiError::not_found(kind.name(), id),
        Rejection::AlreadyExists { kind, name, note } => ApiError::AlreadyExists {
            kind: kind.name(),
            name,
            remedy: format!("choose another name, or change the existing one{note}"),
        },
        Rejection::Conflict {
            kind,
            id,
            expected,
            found,
        } => ApiError::Conflict {
            what: format!("{kind} {id}"),
            expected: expected.0,
            found: found.0,
        },
        Rejection::Invalid(invalid) => ApiError::Invalid(invalid),
        Rejection::Limit {
            what,
            limit,
            remedy,
        } => ApiError::Exhausted {
            what: format!("the limit of {limit} {what} is reached"),
            remedy: remedy.to_owned(),
        },
        Rejection::NotOwner { .. } | Rejection::UnsupportedVersion { .. } => {
            ApiError::internal(text)
        }
        _ => match text.split_once("; ") {
            Some((what, remedy)) => ApiError::precondition(what, remedy),
            None => ApiError::precondition(text, "correct what it names and try again"),
        },
    }
}

/// A proposal that was not taken.
pub(super) fn proposal(error: ProposeError) -> ApiError {
    match error {
        ProposeError::Rejected(rejection) => rejected(rejection),
        ProposeError::NotLeader { address, .. } => ApiError::NotTaken {
            what: "this manager does not lead any more".to_owned(),
            remedy: "the leader has to be asked".to_owned(),
            leader: (!address.is_empty()).then_some(address),
        },
        other if other.certainly_not_applied() => ApiError::NotTaken {
            what: other.to_string(),
            remedy: "try again in a moment; `warren cluster info` shows more".to_owned(),
            leader: None,
        },
        other => ApiError::unavailable(
            other.to_string(),
            "look at `warren cluster info` and the daemon's log, then try again",
        ),
    }
}

/// A node's refusal of a request on its session.
pub(super) fn node(error: session::Error) -> ApiError {
    let session::Error {
        code,
        message,
        remedy,
    } = error;
    match code {
        3 => ApiError::field("request", message, remedy),
        5 => ApiError::NotFound {
            kind: "object",
            name: message,
            list_command: "warren container list",
        },
        6 => ApiError::AlreadyExists {
            kind: "object",
            name: message,
            remedy,
        },
        7 => ApiError::denied(message, remedy),
        8 => ApiError::Exhausted {
            what: message,
            remedy,
        },
        9 => ApiError::precondition(message, remedy),
        14 => ApiError::unavailable(message, remedy),
        _ => ApiError::Precondition {
            what: message,
            remedy,
        },
    }
}
