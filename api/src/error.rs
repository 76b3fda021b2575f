//! The error body of every API.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Body of every answer with a status of 400 or above.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ErrorBody {
    /// What happened, where, and what to do: one line for a person.
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
