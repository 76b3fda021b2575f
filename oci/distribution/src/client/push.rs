//! Pushes blobs in pieces (OCI distribution specification, "Pushing a blob in chunks"). After a broken connection the
//! registry is asked how much it has received, and only the rest is sent.

use std::{
    io,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use bytes::Bytes;
use oci_spec::image::Digest;
use reqwest::{
    Method, Response, StatusCode, Url,
    header::{CONTENT_RANGE, CONTENT_TYPE, LOCATION, RANGE},
};

use super::{Remote, error::Error, fetch::pauses};
use crate::name::Name;

/// Bytes per request, which are lost at most when the connection breaks.
const PIECE_BYTES: u64 = 8 << 20;

/// A blob to push.
pub trait Blob: Send + Sync {
    /// Its digest.
    fn digest(&self) -> &Digest;
    /// Its size.
    fn bytes(&self) -> u64;
    /// Reads a part of it.
    ///
    /// # Errors
    /// If it cannot be read.
    fn read(&self, from: u64, length: u64) -> io::Result<Bytes>;
}

impl Remote {
    /// Whether the repository has a blob.
    ///
    /// # Errors
    /// If the registry does not answer the question.
    pub async fn has_blob(&self, name: &Name, digest: &Digest) -> Result<bool, Error> {
        let path = format!("/v2/{name}/blobs/{digest}");
        let ask = || self.request(Method::HEAD, &path);
        let response = self.send(&push_scope(name), ask).await?;
        match response.status() {
            StatusCode::OK => Ok(true),
            StatusCode::NOT_FOUND => Ok(false),
            _ => Err(Error::of(&self.host, &format!("the question for {digest}"), response).await),
        }
    }

    /// Pushes a blob, resuming after broken connections; `sent` is updated with the received bytes.
    ///
    /// # Errors
    /// Why the push failed.
    pub async fn push_blob(
        &self,
        name: &Name,
        blob: &dyn Blob,
        sent: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<(), Error> {
        let push = Push {
            remote: self,
            name,
            blob,
            sent,
            arrived: AtomicU64::new(0),
        };
        let mut left = pauses();
        let mut location = None;
        loop {
            let before = push.arrived.load(Relaxed);
            let Err(error) = push.go_on(&mut location).await else {
                return Ok(());
            };
            if !error.is_transient() {
                return Err(error);
            }
            if push.arrived.load(Relaxed) > before {
                left = pauses();
            }
            let Some(pause) = left.next() else {
                return Err(error);
            };
            tracing::info!(%error, "resuming an upload");
            tokio::time::sleep(pause).await;
        }
    }

    /// Pushes a manifest under its digest, after its blobs.
    ///
    /// # Errors
    /// Why it was refused.
    pub async fn push_manifest(
        &self,
        name: &Name,
        digest: &Digest,
        media_type: &str,
        manifest: Bytes,
    ) -> Result<(), Error> {
        let path = format!("/v2/{name}/manifests/{digest}");
        let put = || {
            self.request(Method::PUT, &path)
                .header(CONTENT_TYPE, media_type)
                .body(manifest.clone())
        };
        let response = self.send(&push_scope(name), put).await?;
        match response.status() {
            StatusCode::CREATED => Ok(()),
            _ => Err(Error::of(&self.host, &format!("the manifest {digest}"), response).await),
        }
    }
}

fn push_scope(name: &Name) -> String {
    format!("repository:{name}:pull,push")
}

struct Push<'a> {
    remote: &'a Remote,
    name: &'a Name,
    blob: &'a dyn Blob,
    sent: &'a (dyn Fn(u64) + Send + Sync),
    arrived: AtomicU64,
}

impl Push<'_> {
    /// Completes an upload, and resumes the current one if it still exists.
    async fn go_on(&self, location: &mut Option<Url>) -> Result<(), Error> {
        let arrived = match location {
            Some(at) => self.status(at).await?,
            None => None,
        };
        let mut from = match arrived {
            Some(from) => from,
            None => self.begin(location).await?,
        };
        while from < self.blob.bytes() {
            self.tell(from);
            from = self.piece(location, from).await?;
        }
        self.finish(location).await?;
        self.tell(self.blob.bytes());
        Ok(())
    }

    async fn begin(&self, location: &mut Option<Url>) -> Result<u64, Error> {
        let path = format!("/v2/{}/blobs/uploads/", self.name);
        let begin = || self.remote.request(Method::POST, &path).body(Bytes::new());
        let response = self.send(begin).await?;
        match response.status() {
            StatusCode::ACCEPTED => {
                *location = Some(self.location(&response)?);
                Ok(0)
            }
            _ => Err(self.refused(response).await),
        }
    }

    /// The number of received bytes; `None` if the upload does not exist, or has received nothing.
    async fn status(&self, location: &Url) -> Result<Option<u64>, Error> {
        let ask = || self.remote.http.get(location.clone());
        let response = self.send(ask).await?;
        match response.status() {
            StatusCode::NO_CONTENT => Ok(arrived(&response)),
            StatusCode::NOT_FOUND => Ok(None),
            _ => Err(self.refused(response).await),
        }
    }

    async fn piece(&self, location: &mut Option<Url>, from: u64) -> Result<u64, Error> {
        let length = PIECE_BYTES.min(self.blob.bytes() - from);
        let piece = self.blob.read(from, length).map_err(Error::Read)?;
        let last = from + length - 1;
        let at = self.at(location)?;
        let patch = || {
            self.remote
                .http
                .patch(at.clone())
                .header(CONTENT_TYPE, "application/octet-stream")
                .header(CONTENT_RANGE, format!("{from}-{last}"))
                .body(piece.clone())
        };
        let response = self.send(patch).await?;
        match response.status() {
            StatusCode::ACCEPTED => {
                *location = Some(self.location(&response)?);
                Ok(from + length)
            }
            // The registry has received more than known, or the upload has ended: ask first.
            StatusCode::RANGE_NOT_SATISFIABLE | StatusCode::NOT_FOUND | StatusCode::CONFLICT => {
                Err(self.broke_off(format!("status {}", response.status().as_u16())))
            }
            _ => Err(self.refused(response).await),
        }
    }

    async fn finish(&self, location: &Option<Url>) -> Result<(), Error> {
        let mut at = self.at(location)?;
        at.query_pairs_mut()
            .append_pair("digest", self.blob.digest().as_ref());
        let put = || self.remote.http.put(at.clone()).body(Bytes::new());
        let response = self.send(put).await?;
        match response.status() {
            StatusCode::CREATED => Ok(()),
            // The answer was lost; the request may have succeeded.
            StatusCode::NOT_FOUND => {
                match self.remote.has_blob(self.name, self.blob.digest()).await? {
                    true => Ok(()),
                    false => Err(self.broke_off("the upload has ended".to_owned())),
                }
            }
            _ => Err(self.refused(response).await),
        }
    }

    async fn send(&self, request: impl Fn() -> reqwest::RequestBuilder) -> Result<Response, Error> {
        self.remote.send(&push_scope(self.name), request).await
    }

    /// The upload's next address, which may be relative. Another server is refused, since the request has credentials.
    fn location(&self, response: &Response) -> Result<Url, Error> {
        let malformed = |reason: &str| Error::Malformed {
            host: self.remote.host.clone(),
            what: "the answer to an upload".to_owned(),
            reason: reason.to_owned(),
        };
        let location = response
            .headers()
            .get(LOCATION)
            .and_then(|value| value.to_str().ok())
            .ok_or_else(|| malformed("it has no Location"))?;
        let url = self.remote.base.join(location);
        let url = url.map_err(|_| malformed("its Location is malformed"))?;
        match url.origin() == self.remote.base.origin() {
            true => Ok(url),
            false => Err(malformed("its Location leads to another server")),
        }
    }

    fn at(&self, location: &Option<Url>) -> Result<Url, Error> {
        let at = location.clone();
        at.ok_or_else(|| self.broke_off("the upload has ended".to_owned()))
    }

    fn tell(&self, arrived: u64) {
        self.arrived.fetch_max(arrived, Relaxed);
        (self.sent)(arrived);
    }

    async fn refused(&self, response: Response) -> Error {
        let what = format!("the upload of {}", self.blob.digest());
        Error::of(&self.remote.host, &what, response).await
    }

    fn broke_off(&self, reason: String) -> Error {
        Error::BrokeOff {
            host: self.remote.host.clone(),
            what: format!("the blob {}", self.blob.digest()),
            reason,
        }
    }
}

/// The received bytes of an answer's `0-<last>`. An empty upload and one byte are the same, and neither is resumed.
fn arrived(response: &Response) -> Option<u64> {
    let range = response.headers().get(RANGE)?.to_str().ok()?;
    let (_, last) = range.trim_start_matches("bytes=").split_once('-')?;
    let last: u64 = last.trim().parse().ok()?;
    (last > 0).then_some(last + 1)
}
