//! Answers of the controller.

use reqwest::Response;
use tucano_api::error::ErrorBody;

/// Why the body of an answer was not read.
#[derive(Debug)]
pub(crate) enum BodyError {
    /// The connection broke.
    Broken(reqwest::Error),
    /// It has more bytes than are read.
    TooLong,
}

/// Appends the body of an answer to `body`, which then has at most `limit_bytes`.
///
/// The caller has the buffer: one with secrets is zeroed also where reading fails.
pub(crate) async fn read_body(
    response: &mut Response,
    limit_bytes: usize,
    body: &mut Vec<u8>,
) -> Result<(), BodyError> {
    while let Some(chunk) = response.chunk().await.map_err(BodyError::Broken)? {
        body.extend_from_slice(&chunk);
        if body.len() > limit_bytes {
            return Err(BodyError::TooLong);
        }
    }
    Ok(())
}

/// The reason that a refusal gives; none if it is not one of a controller.
pub(crate) fn reason(body: &[u8]) -> Option<String> {
    let body: ErrorBody = serde_json::from_slice(body).ok()?;
    Some(body.error)
}
