//! Pulls an image: its index, if any, leads to the manifest for a platform, and that to the blobs.

use std::{collections::HashSet, time::Duration};

use futures_util::{StreamExt, TryStreamExt, stream};
use oci_spec::image::{Descriptor, Digest, ImageIndex, ImageManifest};
use reqwest::{Method, Response, StatusCode, header::ACCEPT};
use serde::{Deserialize, de::DeserializeOwned, de::IgnoredAny};
use tucano_oci_image::{Platform, Store, digest_of};

use super::{
    Remote,
    error::{Error, innermost},
    fetch::pull_scope,
};
use crate::name::{self, Name, Reference, Which};

/// The accepted types. Without Docker's types a registry must refuse or convert Docker images.
const ACCEPTED: &str = "application/vnd.oci.image.manifest.v1+json, \
    application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json, \
    application/vnd.docker.distribution.manifest.list.v2+json";
/// Most indexes within indexes.
const DEPTH: usize = 4;
/// Most entries of an index without a platform that are fetched.
const LOOKS: usize = 16;
/// Concurrent fetches of layers.
const AT_ONCE: usize = 3;
/// The platform of attestations, which no machine has.
const ATTESTATION: &str = "unknown/unknown";

/// The limits of a pull.
#[derive(Debug, Clone)]
pub struct Bounds {
    /// Largest image: the sum of its blobs.
    pub image_bytes: u64,
    /// Largest manifest, index or configuration.
    pub document_bytes: u64,
    /// Longest time for the whole pull.
    pub time: Duration,
}

impl Remote {
    /// Pulls the missing blobs of an image for `platform` into the store; returns its manifest's digest. The layers are
    /// not checked: see [`Store::verify`].
    ///
    /// # Errors
    /// Why the pull failed. Blobs that were received stay in the store.
    pub async fn pull(
        &self,
        store: &Store,
        reference: &Reference,
        platform: &Platform,
        bounds: &Bounds,
    ) -> Result<Digest, Error> {
        let pull = Pull {
            remote: self,
            store,
            name: &reference.name,
            platform,
            bounds,
        };
        let pulled = tokio::time::timeout(bounds.time, pull.image(&reference.which)).await;
        pulled.unwrap_or_else(|_| {
            Err(Error::TooLong {
                what: format!("{}/{reference}", self.host),
                after: bounds.time,
            })
        })
    }
}

struct Pull<'a> {
    remote: &'a Remote,
    store: &'a Store,
    name: &'a Name,
    platform: &'a Platform,
    bounds: &'a Bounds,
}

/// Distinguishes an index from a manifest.
#[derive(Debug, Deserialize)]
struct Kind {
    manifests: Option<IgnoredAny>,
    config: Option<IgnoredAny>,
}

/// The state of a search through an index.
#[derive(Debug, Default)]
struct Search {
    others: Vec<String>,
    looks: usize,
}

impl Pull<'_> {
    async fn image(&self, which: &Which) -> Result<Digest, Error> {
        let mut found = Search::default();
        match self.document(which, &mut found, 0).await? {
            Some(manifest) => Ok(manifest),
            None => Err(self.no_match(found)),
        }
    }

    /// The digest of the manifest for the platform, if the document is it or leads to it.
    async fn document(
        &self,
        which: &Which,
        found: &mut Search,
        depth: usize,
    ) -> Result<Option<Digest>, Error> {
        let (digest, bytes) = self.read(which).await?;
        let kind: Kind = self.parse(&digest, &bytes)?;
        match (kind.manifests.is_some(), kind.config.is_some()) {
            (true, false) if depth < DEPTH => {
                Box::pin(self.index(&self.parse(&digest, &bytes)?, found, depth)).await
            }
            (false, true) => self.manifest(&digest, bytes, found).await,
            _ => Err(self.malformed(
                &digest,
                "it is neither an image's manifest nor an index, or both, or too deep an index",
            )),
        }
    }

    /// The first matching entry is used (OCI image specification, "Image Index").
    async fn index(
        &self,
        index: &ImageIndex,
        found: &mut Search,
        depth: usize,
    ) -> Result<Option<Digest>, Error> {
        for descriptor in index.manifests() {
            let platform = descriptor.platform().as_ref().map(|it| Platform {
                os: it.os().to_string(),
                architecture: it.architecture().to_string(),
            });
            match platform {
                Some(other) if other != *self.platform => {
                    found.others.push(other.to_string());
                    continue;
                }
                Some(_) => {}
                None => found.looks += 1,
            }
            if found.looks > LOOKS {
                return Err(self.malformed(
                    descriptor.digest(),
                    "too many entries of the index have no platform",
                ));
            }
            let which = Which::Digest(self.known(descriptor)?);
            if let Some(manifest) = Box::pin(self.document(&which, found, depth + 1)).await? {
                return Ok(Some(manifest));
            }
        }
        Ok(None)
    }

    async fn manifest(
        &self,
        digest: &Digest,
        bytes: Vec<u8>,
        found: &mut Search,
    ) -> Result<Option<Digest>, Error> {
        let manifest: ImageManifest = self.parse(digest, &bytes)?;
        self.check_size(digest, &manifest)?;
        let config = manifest.config();
        let limit = config.size().min(self.bounds.document_bytes);
        let config = self.known(config)?;
        self.ingest(digest, bytes).await?;
        self.fetch(&config, limit).await?;
        let (store, wanted) = (self.store.clone(), digest.clone());
        let image = blocking(move || store.image(&wanted)).await??;
        let platform = Platform {
            os: image.config.os().to_string(),
            architecture: image.config.architecture().to_string(),
        };
        if platform != *self.platform {
            found.others.push(platform.to_string());
            return Ok(None);
        }
        self.layers(&manifest).await?;
        Ok(Some(digest.clone()))
    }

    async fn layers(&self, manifest: &ImageManifest) -> Result<(), Error> {
        let mut seen = HashSet::new();
        let mut layers = Vec::new();
        for layer in manifest.layers() {
            let digest = self.known(layer)?;
            if seen.insert(digest.clone()) {
                layers.push((digest, layer.size()));
            }
        }
        stream::iter(layers)
            .map(|(digest, size)| async move { self.fetch(&digest, size).await })
            .buffer_unordered(AT_ONCE)
            .try_collect::<()>()
            .await
    }

    async fn fetch(&self, digest: &Digest, limit: u64) -> Result<(), Error> {
        if self.store.contains(digest) {
            return Ok(());
        }
        let fetched = self.remote.fetch_blob(self.store, self.name, digest, limit);
        fetched.await
    }

    /// A document's bytes and their digest.
    async fn read(&self, which: &Which) -> Result<(Digest, Vec<u8>), Error> {
        let what = match which {
            Which::Tag(tag) => format!("image {}:{}", self.name, tag.as_str()),
            Which::Digest(digest) => format!("image {}@{digest}", self.name),
        };
        let path = format!("/v2/{}/manifests/{which}", self.name);
        let request = || {
            self.remote
                .request(Method::GET, &path)
                .header(ACCEPT, ACCEPTED)
        };
        let response = self.remote.send(&pull_scope(self.name), request).await?;
        if response.status() != StatusCode::OK {
            return Err(Error::of(self.remote.host(), &what, response).await);
        }
        let bytes = self.body(&what, response).await?;
        let actual = digest_of(&bytes);
        match which {
            Which::Digest(expected) if *expected != actual => Err(Error::WrongDigest {
                host: self.remote.host.clone(),
                what,
                expected: expected.to_string(),
                actual: actual.to_string(),
            }),
            _ => Ok((actual, bytes)),
        }
    }

    async fn body(&self, what: &str, mut response: Response) -> Result<Vec<u8>, Error> {
        let mut bytes = Vec::new();
        loop {
            let chunk = response.chunk().await.map_err(|error| Error::BrokeOff {
                host: self.remote.host.clone(),
                what: what.to_owned(),
                reason: innermost(&error),
            })?;
            let Some(chunk) = chunk else {
                return Ok(bytes);
            };
            bytes.extend_from_slice(&chunk);
            let limit = self.bounds.document_bytes;
            if bytes.len() as u64 > limit {
                let what = what.to_owned();
                return Err(Error::TooLarge { what, limit });
            }
        }
    }

    fn check_size(&self, digest: &Digest, manifest: &ImageManifest) -> Result<(), Error> {
        let blobs = manifest.layers().iter().chain([manifest.config()]);
        let bytes = blobs.fold(0u64, |sum, blob| sum.saturating_add(blob.size()));
        let limit = self.bounds.image_bytes;
        match bytes > limit {
            true => Err(Error::TooLarge {
                what: format!("the image {}@{digest}", self.name),
                limit,
            }),
            false => Ok(()),
        }
    }

    async fn ingest(&self, digest: &Digest, bytes: Vec<u8>) -> Result<(), Error> {
        let (store, digest) = (self.store.clone(), digest.clone());
        Ok(blocking(move || store.ingest_blob(&digest, bytes.as_slice())).await??)
    }

    fn known(&self, descriptor: &Descriptor) -> Result<Digest, Error> {
        let digest = descriptor.digest();
        name::digest(digest.as_ref()).map_err(|error| self.malformed(digest, &error.to_string()))
    }

    fn parse<T: DeserializeOwned>(&self, digest: &Digest, bytes: &[u8]) -> Result<T, Error> {
        serde_json::from_slice(bytes).map_err(|error| self.malformed(digest, &error.to_string()))
    }

    fn malformed(&self, digest: &Digest, reason: &str) -> Error {
        Error::Malformed {
            host: self.remote.host.clone(),
            what: format!("{}@{digest}", self.name),
            reason: reason.to_owned(),
        }
    }

    fn no_match(&self, mut found: Search) -> Error {
        found.others.retain(|other| other != ATTESTATION);
        found.others.sort();
        found.others.dedup();
        Error::Store(tucano_oci_image::Error::WrongArchitecture {
            has: found.others,
            wanted: self.platform.to_string(),
        })
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Error> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Error::Failed(error.to_string()))
}
