//! `POST /v1/prefetch`: layers that a coming desired set may need. The request is a hint: it is answered before anything is
//! fetched, and failures are only logged.

use std::sync::Arc;

use axum::{body::Bytes, extract::State, http::StatusCode};
use tucano_api::agent::Prefetch;

use super::{Api, ApiError};

/// Largest number of blobs in one request.
const MAX_BLOBS: usize = 256;

pub(super) async fn post(State(api): State<Arc<Api>>, body: Bytes) -> Result<StatusCode, ApiError> {
    let hint = parse(&body)?;
    api.executor.images.withdraw(&hint.withdrawn);
    for blob in hint.blobs {
        let Some(permit) = api.executor.images.try_prefetch_permit() else {
            // The remaining layers are fetched when a process needs them.
            break;
        };
        let executor = Arc::clone(&api.executor);
        tokio::spawn(async move {
            executor.images.prefetch(&blob, permit).await;
        });
    }
    Ok(StatusCode::ACCEPTED)
}

fn parse(body: &[u8]) -> Result<Prefetch, ApiError> {
    let bad = |message: String| ApiError::new(StatusCode::BAD_REQUEST, "invalid_prefetch", message);
    let hint: Prefetch = serde_json::from_slice(body)
        .map_err(|error| bad(format!("the body is not a list of blobs: {error}")))?;
    match hint.blobs.len().max(hint.withdrawn.len()) {
        ..=MAX_BLOBS => Ok(hint),
        count => Err(bad(format!(
            "{count} blobs exceed the limit of {MAX_BLOBS}"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_blobs_is_bounded() {
        let blobs = |count: usize| {
            let blob =
                serde_json::json!({ "digest": format!("sha256:{}", "0".repeat(64)), "bytes": 1 });
            serde_json::json!({ "blobs": vec![blob; count] }).to_string()
        };
        assert_eq!(
            parse(blobs(MAX_BLOBS).as_bytes()).unwrap().blobs.len(),
            MAX_BLOBS
        );
        let refused = parse(blobs(MAX_BLOBS + 1).as_bytes()).unwrap_err();
        assert_eq!(refused.0, StatusCode::BAD_REQUEST);
        assert!(parse(b"{").is_err());
    }
}
