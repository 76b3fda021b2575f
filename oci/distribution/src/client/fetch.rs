//! One blob into the store. A transfer that breaks off goes on where it ended, by a request for the rest (RFC 9110,
//! section 14.2); the digest of the whole is checked by the store.

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

/// Tries in a row that bring nothing, before the blob is given up.
const TRIES: usize = 5;
/// Chunks between the network and the store.
const PIPE: usize = 8;

impl Remote {
    /// Fetches a blob of at most `limit` bytes, unless it is stored already.
    ///
    /// # Errors
    /// Why it is not there. What had come of it is gone.
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

    /// Gives a blob of at most `limit` bytes to `take` while it comes; `take` may block, and must find out itself
    /// whether what came is whole. Dropping the future ends what it reads.
    ///
    /// # Errors
    /// That of the transfer, if `take` has failed too; else that of `take`.
    pub async fn stream_blob<T: Send + 'static>(
        &self,
        name: &Name,
        digest: &Digest,
        limit: u64,
        take: impl FnOnce(&mut (dyn Read + Send)) -> Result<T, tucano_oci_image::Error> + Send + 'static,
    ) -> Result<T, Error> {
        let (sender, receiver) = mpsc::channel(PIPE);
        // One byte more than there may be tells that it is too much.
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
        // The taker sees the end, and says what it makes of it.
        drop(transfer);
        let taken = taking.await;
        let taken = taken.map_err(|error| Error::Failed(error.to_string()))?;
        // That the digest does not match is only what follows from a transfer that was given up.
        taken.map_err(|error| transferred.err().unwrap_or(Error::Store(error)))
    }
}

/// What a token for pulling is for.
pub(super) fn pull_scope(name: &Name) -> String {
    format!("repository:{name}:pull")
}

/// The pauses between tries.
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
            tracing::info!(%error, received = self.received, "a transfer is taken up again");
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
                return Err(self.broke_off("another part came than was asked for".to_owned()));
            }
            _ => return Err(Error::of(remote.host(), &self.what, response).await),
        };
        self.pump(response, skip).await
    }

    /// Hands on what comes, without the first `skip` bytes, which came before.
    async fn pump(&mut self, mut response: Response, mut skip: u64) -> Result<(), Error> {
        loop {
            let chunk = response.chunk().await;
            let chunk = chunk.map_err(|error| self.broke_off(innermost(&error)))?;
            let Some(mut chunk) = chunk else {
                return Ok(());
            };
            let skipped = skip.min(chunk.len() as u64);
            skip -= skipped;
            // No more than the chunk has.
            chunk.advance(usize::try_from(skipped).unwrap_or_default());
            self.received += chunk.len() as u64;
            if self.received > self.limit {
                let (what, limit) = (self.what.clone(), self.limit);
                return Err(Error::TooLarge { what, limit });
            }
            if !chunk.is_empty() && self.to.send(chunk).await.is_err() {
                // The store has seen enough: it says why itself.
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

/// Where a part begins.
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
}
