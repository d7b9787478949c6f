//! The commands: each reads its flags, asks the cluster, prints.

pub(crate) mod apply;
pub(crate) mod backup;
pub(crate) mod certificate;
pub(crate) mod cluster;
pub(crate) mod container;
pub(crate) mod events;
pub(crate) mod exec;
pub(crate) mod image;
pub(crate) mod keys;
pub(crate) mod logs;
pub(crate) mod member;
pub(crate) mod node;
pub(crate) mod recover;
pub(crate) mod secret;
pub(crate) mod service;
pub(crate) mod settings;
pub(crate) mod show;
pub(crate) mod spec;
pub(crate) mod stale;
pub(crate) mod token;
pub mod up;
pub(crate) mod volume;
pub(crate) mod waiting;

use crate::error::{CliError, Exit, Result};

/// Runs `each` for all names; goes on after a failure. The error names all that failed and carries the
/// exit status of the first.
pub(crate) fn all_failures(failures: Vec<CliError>) -> Result<()> {
    let mut failures = failures.into_iter();
    let Some(first) = failures.next() else {
        return Ok(());
    };
    let rest: Vec<String> = failures.map(|e| e.to_string()).collect();
    if rest.is_empty() {
        return Err(first);
    }
    let exit: Exit = first.exit;
    Err(CliError::new(exit, format!("{first}\n{}", rest.join("\n"))))
}

/// `key=value` pairs, one per line.
pub(crate) fn pairs<'a>(map: impl IntoIterator<Item = (&'a String, &'a String)>) -> String {
    let lines: Vec<String> = map.into_iter().map(|(k, v)| format!("{k}={v}")).collect();
    lines.join("\n")
}
