//! Reads a request's body into memory, bounded in size and time.

use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use tucano_api::units::{Bytes as Size, Span};

use crate::http::server::SlowBody;

/// Why a body was not read completely.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// It exceeds a limit.
    #[error("{what} is larger than {limit}: {setting} in ctl.toml sets this limit")]
    TooLarge {
        /// What the body is.
        what: &'static str,
        /// The limit.
        limit: Size,
        /// The key that sets it.
        setting: &'static str,
    },
    /// No data arrived for too long.
    #[error("nothing was received for {0}: the request was aborted")]
    Idle(Span),
    /// It arrived too slowly.
    #[error(transparent)]
    Slow(SlowBody),
    /// The connection broke.
    #[error("the request was cut off half-way: {0}")]
    CutOff(String),
}

/// Reads all of `body`: at most `limit` bytes, with no silence longer than `idle`.
///
/// # Errors
/// The limit that was exceeded, or that the connection broke.
pub async fn read(
    what: &'static str,
    body: Body,
    (setting, limit): (&'static str, Size),
    idle: Duration,
) -> Result<Bytes, BodyError> {
    let mut chunks = body.into_data_stream();
    let mut all = BytesMut::new();
    loop {
        let next = tokio::time::timeout(idle, chunks.next())
            .await
            .map_err(|_| BodyError::Idle(Span(idle)))?;
        let Some(chunk) = next else {
            return Ok(all.freeze());
        };
        let chunk = chunk.map_err(broken)?;
        if (all.len() + chunk.len()) as u64 > limit.0 {
            return Err(BodyError::TooLarge {
                what,
                limit,
                setting,
            });
        }
        all.extend_from_slice(&chunk);
    }
}

fn broken(error: axum::Error) -> BodyError {
    match error.into_inner().downcast::<SlowBody>() {
        Ok(slow) => BodyError::Slow(*slow),
        Err(error) => BodyError::CutOff(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn a_body_up_to_the_limit_is_read() {
        let read_with = |limit| read("it", Body::from("12345"), ("limits.x", Size(limit)), LONG);
        assert_eq!(&read_with(5).await.unwrap()[..], b"12345");
        let error = read_with(4).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "it is larger than 4 B: limits.x in ctl.toml sets this limit"
        );
    }

    #[tokio::test]
    async fn a_body_that_stalls_or_breaks_is_refused() {
        let silent =
            Body::from_stream(futures_util::stream::pending::<Result<Bytes, std::io::Error>>());
        let error = read(
            "it",
            silent,
            ("limits.x", Size(9)),
            Duration::from_millis(5),
        )
        .await
        .unwrap_err();
        assert!(matches!(error, BodyError::Idle(_)));
        let broken = futures_util::stream::iter([Err::<Bytes, _>(std::io::Error::other("reset"))]);
        let error = read("it", Body::from_stream(broken), ("limits.x", Size(9)), LONG)
            .await
            .unwrap_err();
        assert!(error.to_string().contains("half-way"), "{error}");
    }
}
