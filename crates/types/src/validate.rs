//! Validation of everything a user can write. See [`crate::limits`] for the numbers.
