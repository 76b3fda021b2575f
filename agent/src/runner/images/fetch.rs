//! Fetches blobs from the controller's registry.

use std::{io::Read, time::Duration};

use oci_spec::image::Digest;
use tucano_api::IMAGES_REPOSITORY;
use tucano_oci_distribution::{
    Name,
    client::{self, Credentials, Options, Remote, Secret},
};
use tucano_oci_image::{Error as ImageError, Store};
use tucano_tls::Trust;

use super::{Error, store_error};
use crate::settings::Token;

/// Fetches blobs; an interrupted transfer is resumed.
#[derive(Debug)]
pub(super) struct Fetcher {
    registry: Remote,
    repository: Name,
    controller: String,
}

impl Fetcher {
    pub(super) fn new(
        controller: &str,
        token: Option<Token>,
        trust: Option<&Trust>,
        stalled: Duration,
    ) -> Result<Self, Error> {
        let credentials = token.map_or(Credentials::Anonymous, |token| {
            Credentials::Token(Secret::new(token.reveal()))
        });
        let registry = Remote::new(Options {
            base: controller.to_owned(),
            credentials,
            authorities: trust.map(|trust| trust.pem().as_bytes().to_vec()),
            only_those: true,
            silence: stalled,
            proxies: false,
        });
        let repository = IMAGES_REPOSITORY.parse();
        Ok(Self {
            registry: registry.map_err(Error::Client)?,
            repository: repository.map_err(|_| Error::Digest(IMAGES_REPOSITORY.to_owned()))?,
            controller: controller.to_owned(),
        })
    }

    /// Fetches a blob of at most `limit` bytes into the store; transient failures are retried.
    pub(super) async fn fetch(
        &self,
        store: &Store,
        digest: &Digest,
        limit: u64,
    ) -> Result<(), Error> {
        let fetched = self
            .registry
            .fetch_blob(store, &self.repository, digest, limit)
            .await;
        fetched.map_err(|error| match error {
            client::Error::Store(source) => store_error(digest.as_ref())(source),
            other => self.failed(digest, &other),
        })
    }

    /// Passes a layer's blob to `take` as it arrives; an interrupted transfer is resumed without `take` noticing.
    pub(super) async fn stream<T: Send + 'static>(
        &self,
        digest: &Digest,
        limit: u64,
        take: impl FnOnce(&mut (dyn Read + Send)) -> Result<T, ImageError> + Send + 'static,
    ) -> Result<T, Error> {
        let taken = self
            .registry
            .stream_blob(&self.repository, digest, limit, take)
            .await;
        taken.map_err(|error| match error {
            client::Error::Store(source) => Error::Unpack {
                digest: digest.to_string(),
                source: Box::new(source),
            },
            other => self.failed(digest, &other),
        })
    }

    fn failed(&self, digest: &Digest, error: &client::Error) -> Error {
        Error::Fetch {
            digest: digest.to_string(),
            url: self.controller.clone(),
            reason: explain(error),
        }
    }
}

/// The message for users of this node.
fn explain(error: &client::Error) -> String {
    match error {
        client::Error::NotFound { .. } => "the controller does not have it".to_owned(),
        client::Error::Unauthorized { .. } => {
            "the controller does not accept the agent's token".to_owned()
        }
        other => other.to_string(),
    }
}
