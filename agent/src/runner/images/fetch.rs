//! One blob from the controller into the store.

use std::{
    io::{self, Read},
    time::Duration,
};

use backon::{ExponentialBuilder, Retryable};
use bytes::{Buf, Bytes};
use futures_util::StreamExt;
use oci_spec::image::Digest;
use reqwest::StatusCode;
use tokio::sync::mpsc;
use tucano_oci_image::Store;

use super::{Error, blocking, store_error};
use crate::{errors::innermost, settings::Token};

/// Tries of one blob before the process goes into its own back-off.
const TRIES: usize = 4;

/// Fetches blobs.
#[derive(Debug)]
pub(super) struct Fetcher {
    client: reqwest::Client,
    controller: String,
    token: Option<Token>,
}

impl Fetcher {
    pub(super) fn new(
        controller: &str,
        token: Option<Token>,
        stalled: Duration,
    ) -> Result<Self, Error> {
        let client = reqwest::Client::builder()
            .connect_timeout(Duration::from_secs(5))
            .read_timeout(stalled)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()
            .map_err(Error::Client)?;
        Ok(Self {
            client,
            controller: controller.to_owned(),
            token,
        })
    }

    /// Fetches a blob of at most `limit` bytes; tries again what may be a passing trouble.
    pub(super) async fn fetch(
        &self,
        store: &Store,
        digest: &Digest,
        limit: u64,
    ) -> Result<(), Error> {
        let delays = ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(200))
            .with_max_delay(Duration::from_secs(5))
            .with_max_times(TRIES - 1)
            .with_jitter();
        (|| self.fetch_once(store, digest, limit))
            .retry(delays)
            .when(|error| {
                matches!(
                    error,
                    Error::Fetch {
                        transient: true,
                        ..
                    }
                )
            })
            .await
    }

    async fn fetch_once(&self, store: &Store, digest: &Digest, limit: u64) -> Result<(), Error> {
        let url = format!("{}/v1/blobs/{digest}", self.controller);
        let failed = |reason: String, transient| Error::Fetch {
            digest: digest.to_string(),
            url: url.clone(),
            reason,
            transient,
        };
        let mut request = self.client.get(&url);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token.reveal());
        }
        let response = request
            .send()
            .await
            .map_err(|error| failed(innermost(&error), true))?;
        if response.status() != StatusCode::OK {
            let (reason, transient) = explain(response.status());
            return Err(failed(reason, transient));
        }
        let (sender, receiver) = mpsc::channel(8);
        let (into, expected) = (store.clone(), digest.clone());
        let body = Body::new(receiver).take(limit);
        let stored = tokio::spawn(blocking(move || {
            into.ingest_blob(&expected, body)
                .map_err(store_error(expected.as_ref()))
        }));
        let broken = pump(response, sender).await;
        let stored = stored.await.map_err(|_| Error::Ending)?;
        match broken {
            // That the digest does not match is then only what follows.
            Some(reason) if stored.is_err() => Err(failed(reason, true)),
            _ => stored,
        }
    }
}

/// Hands the body on chunk by chunk; why it broke off, if it did.
async fn pump(response: reqwest::Response, to: mpsc::Sender<Bytes>) -> Option<String> {
    let mut chunks = response.bytes_stream();
    while let Some(chunk) = chunks.next().await {
        match chunk {
            Ok(chunk) => {
                if to.send(chunk).await.is_err() {
                    // The store has seen enough: it says why itself.
                    return None;
                }
            }
            Err(error) => return Some(format!("the transfer broke off: {}", innermost(&error))),
        }
    }
    None
}

/// What a status means, and whether it may be another one next time.
fn explain(status: StatusCode) -> (String, bool) {
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => (
            "the controller does not accept the agent's token".to_owned(),
            false,
        ),
        StatusCode::NOT_FOUND => ("the controller does not have it".to_owned(), false),
        other => (
            format!("the controller answered with status {}", other.as_u16()),
            other.is_server_error() || other == StatusCode::TOO_MANY_REQUESTS,
        ),
    }
}

/// The chunks of a body, read on a blocking thread. Ends when the sender is dropped, as when the fetch is given up.
struct Body {
    chunks: mpsc::Receiver<Bytes>,
    current: Bytes,
}

impl Body {
    fn new(chunks: mpsc::Receiver<Bytes>) -> Self {
        Self {
            chunks,
            current: Bytes::new(),
        }
    }
}

impl Read for Body {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.chunks.blocking_recv() {
                Some(chunk) => self.current = chunk,
                None => return Ok(0),
            }
        }
        let count = buffer.len().min(self.current.len());
        self.current.copy_to_slice(&mut buffer[..count]);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_read_across_its_chunks() {
        let (sender, receiver) = mpsc::channel(8);
        for chunk in ["ab", "", "cdef"] {
            sender.try_send(Bytes::from(chunk)).unwrap();
        }
        drop(sender);
        let mut text = String::new();
        Body::new(receiver).read_to_string(&mut text).unwrap();
        assert_eq!(text, "abcdef");
    }

    #[test]
    fn only_passing_trouble_is_worth_another_try() {
        for (status, transient) in [
            (401, false),
            (404, false),
            (503, true),
            (429, true),
            (400, false),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(explain(status).1, transient, "{status}");
        }
    }
}
