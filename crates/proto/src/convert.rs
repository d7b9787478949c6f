//! Conversions between messages and types.

/// A message that is not a value of the wanted type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("field {field}: {problem}")]
pub struct ConvertError {
    /// Path of the field, such as `container.mounts[2].kind`.
    pub field: String,
    /// What is wrong with it.
    pub problem: String,
}
