//! Validation of everything a user can write. See [`crate::limits`] for the numbers.
//!
//! Every validator collects all that is wrong, so that an object is mended in one go. Each finding
//! says which field, what is wrong with it, and what to write instead. None ever panics.

mod constraint;
mod objects;
mod service;
mod words;

pub use constraint::{Constraint, ConstraintSubject};
pub use objects::validate_address;
pub use words::{
    is_capability, is_dns_label, is_host_name, is_image_reference, parse_cidr, parse_signal,
};

use crate::error::{FieldError, ValidationError};
use crate::id::Id128;
use crate::limits;
use crate::quantity::Duration;
use std::collections::{BTreeMap, BTreeSet};

/// Longest piece of the user's own text that an error quotes, in characters.
const QUOTE_CHARS_MAX: usize = 40;

/// Checks a name on its own, such as one typed on the command line: 1 to 63 lower-case letters,
/// digits and hyphens.
///
/// # Errors
/// [`ValidationError`] naming `field`.
pub fn validate_name(field: &str, name: &str) -> Result<(), ValidationError> {
    let mut check = Checker::default();
    check.name(field, name);
    check.finish()
}

/// Checks the labels of an object.
///
/// # Errors
/// [`ValidationError`] naming `field` and the key.
pub fn validate_labels(
    field: &str,
    labels: &BTreeMap<String, String>,
) -> Result<(), ValidationError> {
    let mut check = Checker::default();
    check.labels(field, labels);
    check.finish()
}

/// Collects what is wrong.
#[derive(Default)]
pub(crate) struct Checker {
    errors: Vec<FieldError>,
}

/// The text as it may stand in an error: quoted, cut.
pub(crate) fn quote(text: &str) -> String {
    let cut: String = text.chars().take(QUOTE_CHARS_MAX).collect();
    if cut.len() < text.len() {
        format!("{cut:?}…")
    } else {
        format!("{cut:?}")
    }
}

impl Checker {
    pub(crate) fn fail(
        &mut self,
        field: impl Into<String>,
        problem: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.errors.push(FieldError {
            field: field.into(),
            problem: problem.into(),
            remedy: remedy.into(),
        });
    }

    pub(crate) fn finish(self) -> Result<(), ValidationError> {
        if self.errors.is_empty() {
            Ok(())
        } else {
            Err(ValidationError {
                errors: self.errors,
            })
        }
    }

    /// A name of an object of the cluster.
    pub(crate) fn name(&mut self, field: &str, name: &str) {
        if !is_dns_label(name) {
            let problem = if name.is_empty() {
                "is missing".to_owned()
            } else {
                format!("{} is not a valid name", quote(name))
            };
            self.fail(
                field,
                problem,
                format!(
                    "use 1 to {} of a-z, 0-9 and -, beginning and ending with a letter or digit",
                    limits::NAME_CHARS_MAX
                ),
            );
        } else if name.parse::<Id128>().is_ok() {
            // Names are accepted wherever ids are; one must never be taken for the other.
            self.fail(
                field,
                format!("{} looks like an id", quote(name)),
                "choose another name",
            );
        }
    }

    /// A list that may hold at most `max`; `false` means the elements are not looked at.
    pub(crate) fn count(&mut self, field: &str, count: usize, max: usize) -> bool {
        if count > max {
            self.fail(
                field,
                format!("has {count} entries"),
                format!("at most {max} are allowed"),
            );
        }
        count <= max
    }

    /// A text of at most `max` bytes without NUL.
    pub(crate) fn text(&mut self, field: &str, text: &str, max: usize) -> bool {
        if text.len() > max {
            self.fail(
                field,
                format!("has {} bytes", text.len()),
                format!("at most {max} are allowed"),
            );
        } else if text.contains('\0') {
            self.fail(field, "contains a NUL character", "remove it");
        } else {
            return true;
        }
        false
    }

    pub(crate) fn span(&mut self, field: &str, span: Duration, min_ms: u64, max_ms: u64) {
        if span.0 < min_ms || span.0 > max_ms {
            self.fail(
                field,
                format!("{span} is out of range"),
                format!("use {} to {}", Duration(min_ms), Duration(max_ms)),
            );
        }
    }

    pub(crate) fn range(&mut self, field: &str, value: u64, min: u64, max: u64) {
        if value < min || value > max {
            self.fail(
                field,
                format!("{value} is out of range"),
                format!("use {min} to {max}"),
            );
        }
    }

    pub(crate) fn port(&mut self, field: &str, port: u16) {
        self.range(field, u64::from(port), 1, u64::from(u16::MAX));
    }

    pub(crate) fn labels(&mut self, field: &str, labels: &BTreeMap<String, String>) {
        if !self.count(field, labels.len(), limits::LABELS_MAX) {
            return;
        }
        for (key, value) in labels {
            self.label_key(&format!("{field}[{}]", quote(key)), key);
            self.text(
                &format!("{field}[{}]", quote(key)),
                value,
                limits::LABEL_VALUE_BYTES_MAX,
            );
        }
    }

    pub(crate) fn label_key(&mut self, field: &str, key: &str) {
        if !words::is_label_key(key) {
            self.fail(
                field,
                "is not a valid label key",
                format!(
                    "use 1 to {} of letters, digits, `.`, `_`, `-` and `/`, beginning and ending with a letter or digit",
                    limits::LABEL_KEY_CHARS_MAX
                ),
            );
        }
    }

    /// An absolute path in its shortest form; `false` when it is not.
    pub(crate) fn path(&mut self, field: &str, path: &str, root_allowed: bool) -> bool {
        if !self.text(field, path, limits::PATH_BYTES_MAX) {
            return false;
        }
        let problem = if path.is_empty() {
            "is missing".to_owned()
        } else if !path.starts_with('/') {
            format!("{} is not absolute", quote(path))
        } else if path == "/" {
            if root_allowed {
                return true;
            }
            "is the root directory".to_owned()
        } else if path[1..].split('/').any(|p| matches!(p, "" | "." | "..")) {
            format!("{} has an empty, `.` or `..` part", quote(path))
        } else {
            return true;
        };
        self.fail(
            field,
            problem,
            "write an absolute path without `.`, `..`, `//` and trailing slash, such as /var/lib/data",
        );
        false
    }

    /// A host name, or `*.` and a host name.
    pub(crate) fn host(&mut self, field: &str, host: &str, wildcard: bool) {
        let plain = match host.strip_prefix("*.") {
            Some(rest) if wildcard => rest,
            _ => host,
        };
        if !is_host_name(plain) {
            self.fail(
                field,
                format!("{} is not a host name", quote(host)),
                if wildcard {
                    "write a host name such as www.example.org, or *.example.org"
                } else {
                    "write a host name such as www.example.org"
                },
            );
        }
    }

    /// Names that must be valid and stand once.
    pub(crate) fn unique_names(&mut self, field: &str, names: &[String]) {
        let mut seen = BTreeSet::new();
        for (at, name) in names.iter().enumerate() {
            let field = format!("{field}[{at}]");
            self.name(&field, name);
            if !seen.insert(name) {
                self.fail(field, format!("{} stands twice", quote(name)), "remove one");
            }
        }
    }
}
