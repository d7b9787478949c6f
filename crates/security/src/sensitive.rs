//! A value that is not shown and is wiped from memory when it is dropped.

use zeroize::Zeroize;

/// Holds a value that must not reach a log, an error text or a dump.
///
/// It has neither `Debug` nor `Display` nor a serialized form, so code that would print it does not
/// build:
///
/// ```compile_fail
/// let password = warren_security::Sensitive::new(String::from("hunter2"));
/// println!("{password:?}");
/// ```
pub struct Sensitive<T: Zeroize>(T);

impl<T: Zeroize> Sensitive<T> {
    /// Takes the value over.
    #[must_use]
    pub const fn new(value: T) -> Self {
        Self(value)
    }
    /// The value, for the one place that needs it.
    #[must_use]
    pub const fn expose(&self) -> &T {
        &self.0
    }
}

impl<T: Zeroize> Drop for Sensitive<T> {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl<T: Zeroize + Clone> Clone for Sensitive<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}
