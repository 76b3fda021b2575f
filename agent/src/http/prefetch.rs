//! `POST /v1/prefetch`: layers that may soon be needed. A hint: it is answered at once, and nobody hears what became of it.

use std::sync::Arc;

use axum::{body::Bytes, extract::State, http::StatusCode};
use tucano_api::agent::Prefetch;

use super::{Api, Refusal};

/// Most blobs of one request.
const BLOBS: usize = 256;

pub(super) async fn post(State(api): State<Arc<Api>>, body: Bytes) -> Result<StatusCode, Refusal> {
    for blob in understand(&body)?.blobs {
        let Some(turn) = api.executor.images.turn_to_prefetch() else {
            // Enough is on its way; what is left out is fetched when it is needed.
            break;
        };
        let executor = Arc::clone(&api.executor);
        tokio::spawn(async move {
            executor.images.prefetch(&blob, turn).await;
        });
    }
    Ok(StatusCode::ACCEPTED)
}

fn understand(body: &[u8]) -> Result<Prefetch, Refusal> {
    let bad = |message: String| Refusal::new(StatusCode::BAD_REQUEST, "invalid_prefetch", message);
    let hint: Prefetch = serde_json::from_slice(body)
        .map_err(|error| bad(format!("the body is no list of blobs: {error}")))?;
    match hint.blobs.len() {
        ..=BLOBS => Ok(hint),
        count => Err(bad(format!("{count} blobs are more than {BLOBS}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_blobs_is_bounded() {
        let blobs = |count: usize| {
            let blob =
                serde_json::json!({ "digest": format!("sha256:{}", "0".repeat(64)), "bytes": 1 });
            serde_json::json!({ "blobs": vec![blob; count] }).to_string()
        };
        assert_eq!(
            understand(blobs(BLOBS).as_bytes()).unwrap().blobs.len(),
            BLOBS
        );
        let refused = understand(blobs(BLOBS + 1).as_bytes()).unwrap_err();
        assert_eq!(refused.0, StatusCode::BAD_REQUEST);
        assert!(understand(b"{").is_err());
    }
}
