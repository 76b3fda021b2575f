//! Fetches blobs from the controller's registry.

use std::{
    io::Read,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use oci_spec::image::Digest;
use tucano_api::IMAGES_REPOSITORY;
use tucano_oci_distribution::{
    Name,
    client::{self, Credentials as RegistryCredentials, Options, Remote, Secret},
};
use tucano_oci_image::{Error as ImageError, Store};

use super::{Error, store_error};
use crate::{credentials::Credentials, errors::root_cause, settings::Token};

/// Time limit for connecting.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Fetches blobs; an interrupted transfer is resumed.
#[derive(Debug)]
pub(super) struct Fetcher {
    credentials: Arc<Credentials>,
    stalled: Duration,
    /// The client, with the token that it presents.
    registry: Mutex<(Option<Token>, Arc<Remote>)>,
    repository: Name,
    controller: String,
}

impl Fetcher {
    pub(super) fn new(
        controller: &str,
        credentials: Arc<Credentials>,
        stalled: Duration,
    ) -> Result<Self, Error> {
        let token = presented(&credentials);
        let remote = connect(controller, token.as_ref(), &credentials, stalled)?;
        let repository = IMAGES_REPOSITORY.parse();
        Ok(Self {
            credentials,
            stalled,
            registry: Mutex::new((token, Arc::new(remote))),
            repository: repository.map_err(|_| Error::Digest(IMAGES_REPOSITORY.to_owned()))?,
            controller: controller.to_owned(),
        })
    }

    /// The client for the present credentials: the first certificate with an identity, and a new token, replace it.
    fn registry(&self) -> Result<Arc<Remote>, Error> {
        let token = presented(&self.credentials);
        let mut registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        if registry.0 != token {
            let (credentials, stalled) = (&self.credentials, self.stalled);
            let remote = connect(&self.controller, token.as_ref(), credentials, stalled)?;
            *registry = (token, Arc::new(remote));
        }
        Ok(Arc::clone(&registry.1))
    }

    /// Fetches a blob of at most `limit` bytes into the store; transient failures are retried.
    pub(super) async fn fetch(
        &self,
        store: &Store,
        digest: &Digest,
        limit: u64,
    ) -> Result<(), Error> {
        let fetched = self
            .registry()?
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
            .registry()?
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

/// The token to present: none with an identity.
fn presented(credentials: &Credentials) -> Option<Token> {
    match credentials.presents_identity() {
        true => None,
        false => credentials.token().valid().into_iter().next(),
    }
}

fn connect(
    controller: &str,
    token: Option<&Token>,
    credentials: &Credentials,
    stalled: Duration,
) -> Result<Remote, Error> {
    let remote = Remote::new(Options {
        base: controller.to_owned(),
        credentials: token.map_or(RegistryCredentials::Anonymous, |token| {
            RegistryCredentials::Token(Secret::new(token.reveal()))
        }),
        authorities: None,
        only_those: true,
        silence: stalled,
        proxies: false,
    });
    let unusable = |reason: String| {
        Error::Client(client::Error::Unusable {
            base: controller.to_owned(),
            reason,
        })
    };
    let http = credentials.client();
    let http = http.map_err(|error| unusable(error.to_string()))?;
    let http = http
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(stalled)
        .build();
    let http = http.map_err(|error| unusable(root_cause(&error)))?;
    Ok(remote.map_err(Error::Client)?.with_http(http))
}

/// The message for users of this node.
fn explain(error: &client::Error) -> String {
    match error {
        client::Error::NotFound { .. } => "the controller does not have it".to_owned(),
        client::Error::Unauthorized { .. } => {
            "the controller does not accept the agent's credentials".to_owned()
        }
        other => other.to_string(),
    }
}
