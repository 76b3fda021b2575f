//! Fetches one blob into the store. A broken transfer continues with a range request for the rest (RFC 9110, section
//! 14.2); the store checks the digest.

use std::{
    io::{self, Read},
    time::Duration,
};

use backon::{BackoffBuilder, ExponentialBuilder};
use bytes::{Buf, Bytes};
use oci_spec::image::Digest;
use reqwest::{
    Method, Response, StatusCode,
    header::{CONTENT_RANGE, RANGE},
};
use tokio::sync::mpsc;
use tucano_oci_image::Store;

use super::{Remote, error::Error, error::innermost};
use crate::name::Name;

/// Consecutive attempts without any data before the fetch fails.
const TRIES: usize = 5;
/// Chunks between the network and the store.
const PIPE: usize = 8;

impl Remote {
    /// Fetches a blob of at most `limit` bytes, unless it is stored already.
    ///
    /// # Errors
    /// Why the fetch failed. The received part is discarded.
    pub async fn fetch_blob(
        &self,
        store: &Store,
        name: &Name,
        digest: &Digest,
        limit: u64,
    ) -> Result<(), Error> {
        let (into, expected) = (store.clone(), digest.clone());
        self.stream_blob(name, digest, limit, move |blob| {
            into.ingest_blob(&expected, blob)
        })
        .await
    }

    /// Streams a blob of at most `limit` bytes to `take`, which may block and must check the digest itself. Dropping the
    /// future ends the stream.
    ///
    /// # Errors
    /// The error of the transfer if `take` has failed too, otherwise that of `take`.
    pub async fn stream_blob<T: Send + 'static>(
        &self,
        name: &Name,
        digest: &Digest,
        limit: u64,
        take: impl FnOnce(&mut (dyn Read + Send)) -> Result<T, tucano_oci_image::Error> + Send + 'static,
    ) -> Result<T, Error> {
        let (sender, receiver) = mpsc::channel(PIPE);
        // One byte over the limit shows that the blob is too large.
        let mut body = Body::new(receiver).take(limit.saturating_add(1));
        let taking = tokio::task::spawn_blocking(move || take(&mut body));
        let mut transfer = Transfer {
            remote: self,
            path: format!("/v2/{name}/blobs/{digest}"),
            scope: pull_scope(name),
            what: format!("the blob {digest} of {name}"),
            to: sender,
            received: 0,
            limit,
        };
        let transferred = transfer.run().await;
        // `take` sees the end of the stream.
        drop(transfer);
        let taken = taking.await;
        let taken = taken.map_err(|error| Error::Failed(error.to_string()))?;
        // After a failed transfer the digest mismatch is a consequence, not the reason.
        taken.map_err(|error| transferred.err().unwrap_or(Error::Store(error)))
    }
}

/// The scope of a token for pulling.
pub(super) fn pull_scope(name: &Name) -> String {
    format!("repository:{name}:pull")
}

/// The pauses between attempts.
pub(super) fn pauses() -> impl Iterator<Item = Duration> {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(200))
        .with_max_delay(Duration::from_secs(5))
        .with_max_times(TRIES - 1)
        .with_jitter()
        .build()
}

struct Transfer<'a> {
    remote: &'a Remote,
    path: String,
    scope: String,
    what: String,
    to: mpsc::Sender<Bytes>,
    received: u64,
    limit: u64,
}

impl Transfer<'_> {
    async fn run(&mut self) -> Result<(), Error> {
        let mut left = pauses();
        loop {
            let before = self.received;
            let Err(error) = self.go_on().await else {
                return Ok(());
            };
            if !error.is_transient() {
                return Err(error);
            }
            if self.received > before {
                left = pauses();
            }
            let Some(pause) = left.next() else {
                return Err(error);
            };
            tracing::info!(%error, received = self.received, "resuming a transfer");
            tokio::time::sleep(pause).await;
        }
    }

    async fn go_on(&mut self) -> Result<(), Error> {
        let (remote, from) = (self.remote, self.received);
        let request = || {
            let request = remote.request(Method::GET, &self.path);
            match from {
                0 => request,
                from => request.header(RANGE, format!("bytes={from}-")),
            }
        };
        let response = remote.send(&self.scope, request).await?;
        let skip = match response.status() {
            StatusCode::OK => from,
            StatusCode::PARTIAL_CONTENT if first_byte(&response) == Some(from) => 0,
            StatusCode::PARTIAL_CONTENT => {
                return Err(
                    self.broke_off("the answer has another range than was requested".to_owned())
                );
            }
            _ => return Err(Error::of(remote.host(), &self.what, response).await),
        };
        self.pump(response, skip).await
    }

    /// Passes on the body without its first `skip` bytes, which were received before.
    async fn pump(&mut self, mut response: Response, mut skip: u64) -> Result<(), Error> {
        loop {
            let chunk = response.chunk().await;
            let chunk = chunk.map_err(|error| self.broke_off(innermost(&error)))?;
            let Some(mut chunk) = chunk else {
                return Ok(());
            };
            let skipped = skip.min(chunk.len() as u64);
            skip -= skipped;
            // At most the chunk's length.
            chunk.advance(usize::try_from(skipped).unwrap_or_default());
            self.received += chunk.len() as u64;
            if self.received > self.limit {
                let (what, limit) = (self.what.clone(), self.limit);
                return Err(Error::TooLarge { what, limit });
            }
            if !chunk.is_empty() && self.to.send(chunk).await.is_err() {
                // The store has stopped reading, and returns the reason.
                return Ok(());
            }
        }
    }

    fn broke_off(&self, reason: String) -> Error {
        Error::BrokeOff {
            host: self.remote.host.clone(),
            what: self.what.clone(),
            reason,
        }
    }
}

/// The first byte of a range.
fn first_byte(response: &Response) -> Option<u64> {
    let range = response.headers().get(CONTENT_RANGE)?.to_str().ok()?;
    range
        .trim()
        .strip_prefix("bytes ")?
        .split_once('-')?
        .0
        .trim()
        .parse()
        .ok()
}

/// Reads the chunks of a body on a blocking thread. Ends when the sender is dropped.
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
}
