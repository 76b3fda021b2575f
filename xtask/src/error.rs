//! Errors without a dependency: a message, with what was being done before it.

use std::fmt;

/// What happened, where, and what to do.
#[derive(Debug)]
pub struct Error(String);

/// The result of a task.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error with this message.
    pub fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

/// Says what was being done when something failed.
pub trait Context<T> {
    /// Puts a text before the error's own.
    ///
    /// # Errors
    /// The same, with the text.
    fn context(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: fmt::Display> Context<T> for std::result::Result<T, E> {
    fn context(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|error| Error(format!("{}: {error}", what())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_context_comes_before_the_cause() {
        let failed: Result<()> = Err("no space left").context(|| "cannot write x".to_owned());
        assert_eq!(
            failed.unwrap_err().to_string(),
            "cannot write x: no space left"
        );
    }
}
