//! Blobs to a registry, in pieces (OCI distribution specification, "Pushing a blob in chunks"): what a cut connection
//! has left there is asked for, and only the rest sent.

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

/// Bytes that are sent in one request, and lost at most when it breaks off.
const PIECE_BYTES: u64 = 8 << 20;

/// A blob to be sent.
pub trait Blob: Send + Sync {
    /// Its digest.
    fn digest(&self) -> &Digest;
    /// Its size.
    fn bytes(&self) -> u64;
    /// A part of it.
    ///
    /// # Errors
    /// If it cannot be read.
    fn read(&self, from: u64, length: u64) -> io::Result<Bytes>;
}

impl Remote {
    /// Whether the repository has a blob.
    ///
    /// # Errors
    /// If it does not say.
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

    /// Sends a blob, going on where a broken connection ended; `sent` follows what has arrived.
    ///
    /// # Errors
    /// Why it did not arrive.
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
            tracing::info!(%error, "an upload is taken up again");
            tokio::time::sleep(pause).await;
        }
    }

    /// Puts a manifest whose blobs are all there, under its digest.
    ///
    /// # Errors
    /// Why it was not taken.
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
    /// Takes an upload to its end: the one that is under way, if there still is one.
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

    /// How much of it has arrived; `None` if nobody knows of the upload any more, or there is nothing to go on with.
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
            // Some of what was thought to be lost had arrived, or the upload has ended: that is found out first.
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
            // An answer that was lost: what it told may have come about.
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

    /// Where the registry says that it goes on. It may say so without its own address, and must not lead elsewhere: the
    /// credentials go with the request.
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
        let url = url.map_err(|_| malformed("its Location is no address"))?;
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

/// How much the answer says has arrived: `0-<last>`. Nothing and one byte look alike, and neither is worth going on with.
fn arrived(response: &Response) -> Option<u64> {
    let range = response.headers().get(RANGE)?.to_str().ok()?;
    let (_, last) = range.trim_start_matches("bytes=").split_once('-')?;
    let last: u64 = last.trim().parse().ok()?;
    (last > 0).then_some(last + 1)
}
