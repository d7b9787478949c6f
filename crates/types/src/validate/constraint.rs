//! Placement constraints: `node.labels.zone == east`, `node.role != manager`.

use super::words;
use crate::error::ValidationError;
use crate::limits;
use crate::node::Node;
use std::fmt;

/// What of a node a constraint looks at.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ConstraintSubject {
    /// `node.id`.
    Id,
    /// `node.name`.
    Name,
    /// `node.hostname`.
    Hostname,
    /// `node.role`: manager, worker or hybrid. A hybrid node counts as manager and as worker.
    Role,
    /// `node.platform.os`.
    Os,
    /// `node.platform.arch`.
    Arch,
    /// `node.labels.<key>`; a node without the label has the empty value.
    Label(String),
}

/// One parsed constraint.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Constraint {
    /// What is looked at.
    pub subject: ConstraintSubject,
    /// `==` (true) or `!=` (false).
    pub equal: bool,
    /// The value it is compared with, ignoring the case of letters.
    pub value: String,
}

const REMEDY: &str = "write `<subject> == <value>` or `<subject> != <value>` with node.id, node.name, node.hostname, node.role, node.platform.os, node.platform.arch or node.labels.<key>";

impl Constraint {
    /// Reads one constraint.
    ///
    /// # Errors
    /// [`ValidationError`] with field `constraint` when the text is not one.
    pub fn parse(text: &str) -> Result<Self, ValidationError> {
        Self::read(text).map_err(|problem| ValidationError::one("constraint", problem, REMEDY))
    }

    pub(super) const fn remedy() -> &'static str {
        REMEDY
    }

    pub(super) fn read(text: &str) -> Result<Self, String> {
        if text.len() > limits::CONSTRAINT_BYTES_MAX {
            let max = limits::CONSTRAINT_BYTES_MAX;
            return Err(format!("has {} bytes, more than {max}", text.len()));
        }
        let quoted = super::quote(text);
        // The first operator counts, so that values may contain `==`.
        let at = |op: &str| text.find(op).map(|at| (at, op == "=="));
        let (at, equal) = [at("=="), at("!=")]
            .into_iter()
            .flatten()
            .min()
            .ok_or_else(|| format!("{quoted} has neither `==` nor `!=`"))?;
        let (subject, value) = (text[..at].trim(), text[at + 2..].trim());
        let subject = Self::subject(subject)
            .ok_or_else(|| format!("{quoted} begins with an unknown subject"))?;
        if value.is_empty() {
            return Err(format!("{quoted} has no value"));
        }
        if value.chars().any(char::is_control) {
            return Err(format!("{quoted} has a control character in its value"));
        }
        if subject == ConstraintSubject::Role
            && !["manager", "worker", "hybrid"]
                .iter()
                .any(|role| role.eq_ignore_ascii_case(value))
        {
            return Err(format!(
                "{quoted} names no role; roles are manager, worker and hybrid"
            ));
        }
        Ok(Self {
            subject,
            equal,
            value: value.to_owned(),
        })
    }

    fn subject(text: &str) -> Option<ConstraintSubject> {
        Some(match text {
            "node.id" => ConstraintSubject::Id,
            "node.name" => ConstraintSubject::Name,
            "node.hostname" => ConstraintSubject::Hostname,
            "node.role" => ConstraintSubject::Role,
            "node.platform.os" => ConstraintSubject::Os,
            "node.platform.arch" => ConstraintSubject::Arch,
            _ => {
                let key = text.strip_prefix("node.labels.")?;
                if !words::is_label_key(key) {
                    return None;
                }
                ConstraintSubject::Label(key.to_owned())
            }
        })
    }

    /// Does the node satisfy it?
    #[must_use]
    pub fn matches(&self, node: &Node) -> bool {
        let same = |text: &str| text.eq_ignore_ascii_case(&self.value);
        let found = match &self.subject {
            ConstraintSubject::Id => same(&node.id.to_string()),
            ConstraintSubject::Name => same(&node.name),
            ConstraintSubject::Hostname => same(&node.hostname),
            ConstraintSubject::Role => {
                same(node.role.name())
                    || (same("manager") && node.role.is_manager())
                    || (same("worker") && node.role.runs_containers())
            }
            ConstraintSubject::Os => same(&node.platform.os),
            ConstraintSubject::Arch => same(&node.platform.arch),
            ConstraintSubject::Label(key) => same(node.labels.get(key).map_or("", String::as_str)),
        };
        found == self.equal
    }
}

impl fmt::Display for ConstraintSubject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id => f.write_str("node.id"),
            Self::Name => f.write_str("node.name"),
            Self::Hostname => f.write_str("node.hostname"),
            Self::Role => f.write_str("node.role"),
            Self::Os => f.write_str("node.platform.os"),
            Self::Arch => f.write_str("node.platform.arch"),
            Self::Label(key) => write!(f, "node.labels.{key}"),
        }
    }
}

impl fmt::Display for Constraint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let operator = if self.equal { "==" } else { "!=" };
        write!(f, "{} {operator} {}", self.subject, self.value)
    }
}
