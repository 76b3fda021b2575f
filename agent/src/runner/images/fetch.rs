//! One blob from the controller's registry into the store.

use std::time::Duration;

use oci_spec::image::Digest;
use tucano_api::IMAGES_REPOSITORY;
use tucano_oci_distribution::{
    Name,
    client::{self, Credentials, Options, Remote, Secret},
};
use tucano_oci_image::Store;

use super::{Error, store_error};
use crate::settings::Token;

/// Fetches blobs; a transfer that breaks off is taken up where it ended.
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
        stalled: Duration,
    ) -> Result<Self, Error> {
        let credentials = token.map_or(Credentials::Anonymous, |token| {
            Credentials::Token(Secret::new(token.reveal()))
        });
        let registry = Remote::new(Options {
            base: controller.to_owned(),
            credentials,
            authorities: None,
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

    /// Fetches a blob of at most `limit` bytes; tries again what may be a passing trouble.
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
            other => Error::Fetch {
                digest: digest.to_string(),
                url: self.controller.clone(),
                reason: explain(&other),
            },
        })
    }
}

/// What it means here.
fn explain(error: &client::Error) -> String {
    match error {
        client::Error::NotFound { .. } => "the controller does not have it".to_owned(),
        client::Error::Unauthorized { .. } => {
            "the controller does not accept the agent's token".to_owned()
        }
        other => other.to_string(),
    }
}
