//! Checks of single request fields.

use crate::caller::Caller;
use crate::control::{ApiResult, ChangeOptions};
use crate::error::ApiError;
use std::collections::BTreeMap;
use warren_types::validate::{validate_labels, validate_name};
use warren_types::{NodeId, Revision, Role, ValidationError, limits};

/// Longest id or name that a request may carry, in bytes: more than any of ours has.
const TARGET_BYTES_MAX: usize = 256;

/// Id or name of the object a request is about; `id` wins.
pub(super) fn target<'a>(id: &'a str, name: &'a str) -> ApiResult<&'a str> {
    let text = if id.is_empty() { name } else { id };
    if text.is_empty() {
        return Err(ApiError::field("id", "missing", "give the id or the name"));
    }
    bounded("id", text)?;
    Ok(text)
}

fn bounded(field: &str, text: &str) -> ApiResult<()> {
    if text.len() > TARGET_BYTES_MAX {
        return Err(ApiError::field(
            field,
            format!("has {} bytes", text.len()),
            format!("no id or name has more than {TARGET_BYTES_MAX}"),
        ));
    }
    Ok(())
}

/// An id or name that may be left out.
pub(super) fn optional_target(field: &str, text: String) -> ApiResult<Option<String>> {
    bounded(field, &text)?;
    Ok((!text.is_empty()).then_some(text))
}

/// Name and labels of a new object, all findings together.
pub(super) fn name_and_labels(name: &str, labels: &BTreeMap<String, String>) -> ApiResult<()> {
    let mut errors = Vec::new();
    for finding in [
        validate_name("name", name),
        validate_labels("labels", labels),
    ] {
        errors.extend(finding.err().into_iter().flat_map(|e| e.errors));
    }
    if errors.is_empty() {
        Ok(())
    } else {
        Err(ApiError::Invalid(ValidationError { errors }))
    }
}

/// The value of a secret.
pub(super) fn secret_value(data: &[u8]) -> ApiResult<()> {
    let max = limits::SECRET_BYTES_MAX;
    match data.len() {
        0 => Err(ApiError::field(
            "data",
            "is empty",
            "give the secret's value",
        )),
        n if n > max => Err(ApiError::field(
            "data",
            format!("has {n} bytes"),
            format!("a secret has at most {max}"),
        )),
        _ => Ok(()),
    }
}

/// How a change is to be made.
pub(super) fn options(version: u64, key: String, dry_run: bool) -> ApiResult<ChangeOptions> {
    if key.len() > limits::IDEMPOTENCY_KEY_BYTES_MAX {
        return Err(ApiError::field(
            "idempotency_key",
            format!("has {} bytes", key.len()),
            format!("at most {} are allowed", limits::IDEMPOTENCY_KEY_BYTES_MAX),
        ));
    }
    Ok(ChangeOptions {
        expect: (version > 0).then_some(Revision(version)),
        idempotency_key: (!key.is_empty()).then_some(key),
        dry_run,
    })
}

/// A worker speaks for its own node alone.
pub(super) fn own_node(caller: &Caller, node: Option<NodeId>) -> ApiResult<()> {
    if caller.role != Role::Worker || (node.is_some() && caller.node == node) {
        return Ok(());
    }
    Err(ApiError::denied(
        format!("{} may ask about its own node only", caller.name),
        "use a certificate of a viewer, operator or admin",
    ))
}
