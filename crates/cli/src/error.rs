//! Errors of commands and the exit status of each.

use std::fmt;

/// Exit status of the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Success = 0,
    /// Anything that has no number of its own.
    General = 1,
    /// The command line or a manifest is wrong.
    Usage = 2,
    /// No manager answered.
    NoConnection = 3,
    /// A named object does not exist.
    NotFound = 4,
    /// An object of this name exists already.
    Exists = 5,
    /// The caller may not do this.
    Denied = 6,
    /// What was deployed does not run.
    RolloutFailed = 7,
}

/// Why a command failed: what and where, then what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct CliError {
    /// Exit status.
    pub exit: Exit,
    /// What is wrong and where; may have several lines.
    pub message: String,
    /// What to do about it, where that is known.
    pub remedy: Option<String>,
}

impl CliError {
    /// An error with this exit status.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self {
            exit,
            message: message.into(),
            remedy: None,
        }
    }
    /// An error without an exit status of its own.
    pub fn general(message: impl Into<String>) -> Self {
        Self::new(Exit::General, message)
    }
    /// The command line or a manifest is wrong.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }
    /// A named object does not exist.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(Exit::NotFound, message)
    }
    /// Adds what to do about it.
    #[must_use]
    pub fn remedy(mut self, text: impl Into<String>) -> Self {
        self.remedy = Some(text.into());
        self
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.remedy {
            Some(remedy) if !remedy.is_empty() => write!(f, "\n  try: {remedy}"),
            _ => Ok(()),
        }
    }
}

impl From<std::io::Error> for CliError {
    fn from(error: std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            // Whoever read our output has seen enough.
            return Self::new(Exit::Success, "");
        }
        Self::general(format!("cannot read or write: {error}"))
    }
}

/// Result of a command or a part of it.
pub type Result<T, E = CliError> = std::result::Result<T, E>;
