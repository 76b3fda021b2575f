//! Errors, each with its class.

use std::{fmt::Display, io, path::Path};

use crate::event::{Class, Failure};

impl Failure {
    /// A failure.
    pub(super) fn new(class: Class, message: impl Into<String>) -> Self {
        Self {
            class,
            message: message.into(),
        }
    }

    /// The request is invalid.
    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(Class::BadRequest, message)
    }

    /// A fault of this program.
    pub(super) fn internal(message: impl Display) -> Self {
        Self::new(
            Class::Internal,
            format!("{message}: this is a fault of tucano_backup, please report it"),
        )
    }
}

/// Adds what was tried to the errors of file operations.
pub(super) trait Attempt<T> {
    fn attempt(self, class: Class, what: &str, path: &Path) -> Result<T, Failure>;
}

impl<T, E: Into<io::Error>> Attempt<T> for Result<T, E> {
    fn attempt(self, class: Class, what: &str, path: &Path) -> Result<T, Failure> {
        self.map_err(|error| {
            let error: io::Error = error.into();
            Failure::new(class, format!("cannot {what} {}: {error}", path.display()))
        })
    }
}
