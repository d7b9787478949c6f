//! Errors of validation: which field, what is wrong, what to write instead.

use std::fmt;

/// One thing wrong with one field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldError {
    /// Path of the field in the object, such as `container.mounts[2].target`.
    pub field: String,
    /// What is wrong, in words.
    pub problem: String,
    /// What to do about it.
    pub remedy: String,
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.field, self.problem, self.remedy)
    }
}

/// Everything wrong with one object, so that a user mends it in one go.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ValidationError {
    /// Never empty.
    pub errors: Vec<FieldError>,
}

impl ValidationError {
    /// An error about a single field.
    #[must_use]
    pub fn one(
        field: impl Into<String>,
        problem: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            errors: vec![FieldError {
                field: field.into(),
                problem: problem.into(),
                remedy: remedy.into(),
            }],
        }
    }
}

impl fmt::Display for ValidationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, error) in self.errors.iter().enumerate() {
            if at > 0 {
                f.write_str("\n")?;
            }
            error.fmt(f)?;
        }
        Ok(())
    }
}
