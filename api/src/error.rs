//! The error body of every API, and the cause to show of a chain of errors.

use std::error::Error;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Body of every answer with a status of 400 or above.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ErrorBody {
    /// What happened, where, and what to do: one line for people.
    pub error: String,
    /// Short and stable, for programs: such as `unknown_key`, `digest_mismatch`, `not_found`.
    pub code: String,
}

impl ErrorBody {
    /// An error with its code and message.
    pub fn new(code: impl Into<String>, error: impl Into<String>) -> Self {
        Self {
            error: error.into(),
            code: code.into(),
        }
    }
}

/// The innermost cause. HTTP clients wrap it in messages such as "error sending request for url".
pub fn innermost<'a>(error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[source] std::io::Error);

    #[test]
    fn the_innermost_cause_is_found() {
        let error = Outer(std::io::Error::other("the cause"));
        assert_eq!(innermost(&error).to_string(), "the cause");
        let alone = std::io::Error::other("alone");
        assert_eq!(innermost(&alone).to_string(), "alone");
    }
}
