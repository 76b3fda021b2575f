//! Deploys services: a static configuration and an image, validated as a whole before anything becomes visible.
//!
//! - [`capacity`]: whether some worker can ever run a process of the configuration.
//! - [`upload`]: a request's parts, and the image's import into the store.
//! - [`images`]: the images in use, and removal of the others.
//! - `mounts`: the images that are mounted into containers.
//! - `declared`: what an image says of health checks and volumes.
//! - `platforms`: the manifests of an image by architecture.
//! - `remote_image`: images pulled from other registries.
//! - [`Prefetcher`]: announces an image's blobs to agents during its upload.
//! - [`wait`]: the progress of a deploy.
//! - `change`: the checks of a configuration beside the others, and its revision.
//! - `application`: services that are deployed together.
//! - `restart`: new processes for a service as it is.
//! - `patch`: configurations that clients send, as a whole or as changes of keys.
//! - [`DeployError`]: why nothing changes.

mod application;
pub mod capacity;
mod change;
mod declared;
mod error;
pub mod images;
mod mounts;
mod patch;
mod platforms;
mod prefetch;
pub(crate) mod remote_image;
mod restart;
pub mod upload;
pub mod wait;

use std::sync::{Arc, atomic::AtomicU64};

use serde_json::{Value, json};
use tucano_api::{
    ids::{Digest, Revision, ServiceName},
    service::ServiceConfig,
    state::{ConfiguredService, Deployed, ServicePatch},
};
use tucano_oci_distribution::Reference;
use tucano_planner::{Cluster, Configured, Event, Platforms};

use self::{
    change::check_count, images::Images, patch::patched, remote_image::RemoteImage,
    upload::Uploaded,
};
pub use self::{error::DeployError, prefetch::Prefetcher};
use crate::{
    config_mgr::ConfigManager,
    secrets::Checker,
    state_loop::{StateHandle, TransactError},
};

/// Turns requests into revisions.
#[derive(Debug)]
pub struct Deployer {
    config: Arc<ConfigManager>,
    state: StateHandle,
    images: Arc<Images>,
    uploads: Arc<AtomicU64>,
    prefetcher: Option<Prefetcher>,
    secrets: Option<Checker>,
}

/// A service whose image was found and checked.
#[derive(Debug)]
struct Prepared {
    configured: Configured,
    warnings: Vec<String>,
}

/// The result of a deploy or a change.
#[derive(Debug)]
pub struct Outcome {
    /// Whether the service is new.
    pub is_new: bool,
    /// The answer for the sysadmin.
    pub deployed: Deployed,
}

impl Outcome {
    /// Of what is configured now, before anybody has waited for it.
    fn of(configured: ConfiguredService, is_new: bool, changed: bool) -> Self {
        Self {
            is_new,
            deployed: Deployed {
                name: configured.name,
                changed,
                revision: configured.revision,
                image: configured.image,
                warnings: Vec::new(),
                healthy: None,
                unhealthy: Vec::new(),
                failures: Vec::new(),
                error: None,
                code: None,
            },
        }
    }
}

impl Deployer {
    /// Stores images in `images` and changes services through `state`.
    pub fn new(config: Arc<ConfigManager>, state: StateHandle, images: Arc<Images>) -> Self {
        Self {
            config,
            state,
            images,
            uploads: Arc::default(),
            prefetcher: None,
            secrets: None,
        }
    }

    /// Announces incoming blobs to the agents.
    #[must_use]
    pub fn with_prefetcher(mut self, prefetcher: Prefetcher) -> Self {
        self.prefetcher = Some(prefetcher);
        self
    }

    /// Checks the secrets of configurations.
    #[must_use]
    pub fn with_secrets(mut self, checker: Checker) -> Self {
        self.secrets = Some(checker);
        self
    }

    /// A blob was pushed to the repository of deployed images: a deploy of its image follows.
    pub async fn blob_pushed(&self, blob: Digest) {
        let Some(prefetcher) = &self.prefetcher else {
            return;
        };
        let (store, digest) = (self.images.store().clone(), images::to_oci(&blob));
        match images::blocking(move || store.open_blob(&digest)).await {
            Ok((_, bytes)) => prefetcher.pushed(blob, bytes),
            Err(error) => tracing::debug!(%error, "a pushed blob has been removed"),
        }
    }

    /// The images.
    pub fn images(&self) -> &Arc<Images> {
        &self.images
    }

    /// Configures a service with the uploaded image, or with the stored one that it names, if `expected`, where given, is its newest
    /// revision: 0 if there is none.
    ///
    /// # Errors
    /// Why nothing has changed.
    pub async fn deploy(
        &self,
        uploaded: Uploaded,
        expected: Option<Revision>,
    ) -> Result<Outcome, DeployError> {
        let Uploaded {
            mut config,
            image,
            stored_image,
            config_name,
            guard: _guard,
            announced,
        } = uploaded;
        config.image = stored_image.or(config.image);
        let prepared = self.prepare(&config_name, config, image, None).await?;
        let most = self.config.current().limits.services;
        let Prepared {
            configured,
            warnings,
        } = prepared;
        let outcome = self.change(expected, move |cluster| {
            check_count(cluster, [&configured], most)?;
            Ok(configured)
        });
        let mut outcome = outcome.await?;
        if let Some(announced) = announced {
            announced.accept();
        }
        outcome.deployed.warnings = warnings;
        Ok(outcome)
    }

    /// Finds the image of a configuration, unless it came with the request, and checks that a process of it can start. An image that
    /// is named without a registry is also looked for in `default_registry`. The caller holds an image guard.
    async fn prepare(
        &self,
        config_name: &str,
        mut config: ServiceConfig,
        image: Option<Digest>,
        default_registry: Option<&str>,
    ) -> Result<Prepared, DeployError> {
        let mut warnings = Vec::new();
        let (digest, image_name) = match image {
            Some(digest) => (digest, None),
            None => {
                let found = self
                    .stored_image(config_name, &config, default_registry)
                    .await?;
                if config.image != found.1 {
                    warnings.extend(found.1.iter().map(|name| format!("the image is {name}")));
                }
                found
            }
        };
        warnings.extend(self.check_runnable(&digest, &config).await?);
        warnings.extend(self.fill_in_declared(&digest, &mut config).await?);
        config.image = Some(digest.to_string());
        let of_mounts = self.resolve_mounts(config_name, &mut config.mount).await?;
        warnings.extend(of_mounts);
        let named = image_name.as_deref();
        let (platforms, of_platforms) = self.platforms(named, &digest, &config).await?;
        warnings.extend(of_platforms);
        use_newest_secrets(&mut config);
        Ok(Prepared {
            configured: Configured {
                config: Box::new(config),
                image: digest,
                platforms,
            },
            warnings,
        })
    }

    /// Checks that a process can start. What agents prefetched of an image that cannot is withdrawn.
    async fn check_runnable(
        &self,
        image: &Digest,
        config: &ServiceConfig,
    ) -> Result<Vec<String>, tucano_oci_image::Error> {
        let checked = self.images.check_runnable(image, config).await;
        if let (Err(_), Some(prefetcher)) = (&checked, &self.prefetcher)
            && let Ok(layers) = self.images.layers(image).await
        {
            prefetcher.refused(layers);
        }
        checked
    }

    /// Changes keys of a service's configuration, if `expected`, where given, is its newest revision.
    ///
    /// # Errors
    /// Why nothing has changed.
    pub async fn patch(
        &self,
        name: ServiceName,
        mut patch: ServicePatch,
        expected: Option<Revision>,
    ) -> Result<Outcome, DeployError> {
        let _guard = self.images.guard().await;
        let new_image = match patch.get("image") {
            None => None,
            Some(image) => Some(self.patched_image(image).await?),
        };
        let mut warnings = self
            .check_patched(&name, &mut patch, new_image.as_ref())
            .await?;
        let mut platforms = Platforms::new();
        if let Some(image) = &new_image
            && let Some(config) = self.patched_config(&name, &patch).await?
        {
            let named = patch.get("image").and_then(Value::as_str);
            let (known, of_platforms) = self.platforms(named, image, &config).await?;
            platforms = known;
            warnings.extend(of_platforms);
        }
        let outcome = self.change(expected, move |cluster| {
            // Of a revision that waits for its `before`, as well.
            let configured = cluster
                .newest(&name)
                .ok_or_else(|| DeployError::NotFound(name.clone()))?;
            let has_secrets = patch.contains_key("secret");
            let mut config = patched(&configured.config, patch)?;
            if has_secrets {
                use_newest_secrets(&mut config);
            }
            let image = new_image.unwrap_or(configured.image);
            config.image = Some(image.to_string());
            Ok(Configured {
                config: Box::new(config),
                image,
                platforms,
            })
        });
        let mut outcome = outcome.await?;
        outcome.deployed.warnings = warnings;
        Ok(outcome)
    }

    /// Configures a service as in an earlier revision, by default the previous one.
    ///
    /// # Errors
    /// Why nothing has changed.
    pub async fn roll_back(
        &self,
        name: ServiceName,
        wanted: Option<Revision>,
    ) -> Result<Outcome, DeployError> {
        let _guard = self.images.guard().await;
        self.change(None, move |cluster| {
            let revisions = cluster.revisions(&name);
            let Some(current) = revisions.last() else {
                return Err(DeployError::NotFound(name));
            };
            let is_target = |it: &&ConfiguredService| match wanted {
                Some(wanted) => it.revision == wanted,
                // A rollback creates an equal revision: a second rollback must skip it.
                None => (&it.config, &it.image) != (&current.config, &current.image),
            };
            let found = revisions.iter().rev().find(is_target).cloned();
            let revisions = revisions.iter().map(|it| it.revision).collect();
            match found {
                Some(found) => Ok(Configured {
                    config: Box::new(found.config),
                    image: found.image,
                    platforms: Platforms::new(),
                }),
                None => Err(DeployError::NoSuchRevision {
                    name,
                    wanted,
                    revisions,
                }),
            }
        })
        .await
    }

    /// Removes a service, and its volumes if `volumes` is set.
    ///
    /// # Errors
    /// Why it was not removed.
    pub async fn remove(&self, name: ServiceName, volumes: bool) -> Result<(), DeployError> {
        let decide = move |cluster: &Cluster| match cluster.service(&name) {
            Some(_) => match cluster.removal_obstacle(&name) {
                Some(obstacle) => Err(DeployError::Needed(obstacle)),
                None => Ok((Event::ServiceRemoved { name, volumes }, ())),
            },
            None => Err(DeployError::NotFound(name)),
        };
        self.state
            .transact(decide, |_, ()| ())
            .await
            .map_err(TransactError::into_inner)
    }

    /// The patched configuration of a service; `None` where the service does not exist or the patch does not fit.
    async fn patched_config(
        &self,
        name: &ServiceName,
        patch: &ServicePatch,
    ) -> Result<Option<ServiceConfig>, DeployError> {
        let name = name.clone();
        let current = self.state.query(move |cluster| cluster.service(&name));
        let current = current.await.map_err(DeployError::Refused)?;
        let config = current.map(|service| patched(&service.configured.config, patch.clone()));
        Ok(config.and_then(Result::ok))
    }

    /// Checks a service's patched configuration with its image, and gives the patch the digests of its mounted images and the health
    /// check of its image. A service
    /// that does not exist, or a patch that does not fit, is refused later.
    async fn check_patched(
        &self,
        name: &ServiceName,
        patch: &mut ServicePatch,
        image: Option<&Digest>,
    ) -> Result<Vec<String>, DeployError> {
        let name = name.clone();
        let current = self.state.query(move |cluster| {
            let configured = cluster.newest(&name)?;
            Some((configured.config, configured.image))
        });
        let Some((config, current_image)) = current.await.map_err(DeployError::Refused)? else {
            return Ok(Vec::new());
        };
        let Ok(mut config) = patched(&config, patch.clone()) else {
            return Ok(Vec::new());
        };
        let mut warnings = match image {
            None => self.images.check_runnable(&current_image, &config).await?,
            Some(image) => self.check_runnable(image, &config).await?,
        };
        let image = image.unwrap_or(&current_image);
        let before = config.health.clone();
        let declared = self.fill_in_declared(image, &mut config).await?;
        if before != config.health || patch.contains_key("health") {
            patch.insert("health".to_owned(), json!(config.health));
        }
        // What is not changed was told when it was.
        if patch.contains_key("image") {
            warnings.extend(declared);
        }
        if patch.get("mount").is_some_and(|mounts| !mounts.is_null()) {
            warnings.extend(self.resolve_mounts("patch", &mut config.mount).await?);
            patch.insert("mount".to_owned(), json!(config.mount));
        }
        Ok(warnings)
    }

    /// The image that a configuration names, and the name that it was found by.
    async fn stored_image(
        &self,
        file: &str,
        config: &ServiceConfig,
        default_registry: Option<&str>,
    ) -> Result<(Digest, Option<String>), DeployError> {
        let key = format!("{file}: image");
        let advice = match &config.image {
            None => {
                "is missing: send the image as a second part, `-F image=@hello.tar`, or name a stored one by name:tag or its digest"
                    .to_owned()
            }
            Some(name) => match self.find_or_default(&key, name, default_registry).await? {
                Some((found, name)) => return Ok((found, Some(name))),
                None => format!(
                    "{name:?} is not part of the request: add `-F image=@{name}`, or name a stored image by name:tag, name@sha256:... or its digest (sha256:...)"
                ),
            },
        };
        Err(DeployError::NoImage { key, advice })
    }

    /// As [`Self::find`]. An image that the controller does not have is looked for in `default_registry` as well.
    async fn find_or_default(
        &self,
        key: &str,
        image: &str,
        default_registry: Option<&str>,
    ) -> Result<Option<(Digest, String)>, DeployError> {
        let missing = match self.find(key, image).await {
            Err(missing @ DeployError::NoSuchImage { .. }) => missing,
            other => return Ok(other?.map(|found| (found, image.to_owned()))),
        };
        let Some(registry) = default_registry else {
            return Err(missing);
        };
        let full = remote_image::in_registry(registry, image);
        let registries = &self.config.current().registries;
        let Some(remote) = RemoteImage::parse(&full, registries) else {
            return Err(missing);
        };
        let found = self.pull(&remote).await;
        let found = found.map_err(|source| DeployError::NoSuchImageEither {
            key: key.to_owned(),
            image: image.to_owned(),
            full: full.clone(),
            source: Box::new(source),
        })?;
        Ok(Some((found, full)))
    }

    /// The image of a digest or a reference; `None` if the text is neither. Errors are of `key`.
    async fn find(&self, key: &str, image: &str) -> Result<Option<Digest>, DeployError> {
        match image.parse() {
            Ok(digest) => Ok(Some(self.images.check(digest).await?)),
            Err(_) => self.by_name(key, image).await,
        }
    }

    /// Resolves a reference in another registry or in the cluster's own; `None` if the text is not a reference.
    async fn by_name(&self, key: &str, image: &str) -> Result<Option<Digest>, DeployError> {
        let ours: Option<Reference> = image.parse().ok();
        let config = self.config.current();
        if let Some(remote) = RemoteImage::parse(image, &config.registries) {
            let is_listed = config.registries.iter().any(|it| it.host == remote.host);
            // The first component of a repository in the cluster's registry may contain a dot.
            let found = match &ours {
                Some(ours) if !is_listed => self.images.find(ours.clone()).await.ok(),
                _ => None,
            };
            return match found {
                Some(digest) => Ok(Some(self.images.check(digest).await?)),
                None => self.pull(&remote).await.map(Some),
            };
        }
        match ours {
            Some(ours) => self.named_image(key, ours).await.map(Some),
            None => Ok(None),
        }
    }

    async fn named_image(&self, key: &str, wanted: Reference) -> Result<Digest, DeployError> {
        use tucano_oci_distribution::Error;
        match self.images.find(wanted.clone()).await {
            Ok(digest) => self.images.check(digest).await.map_err(DeployError::Image),
            Err(Error::ManifestUnknown { .. }) => Err(DeployError::NoSuchImage {
                key: key.to_owned(),
                wanted,
                names: self.images.some_names().await,
            }),
            Err(error) => Err(error.into()),
        }
    }

    async fn patched_image(&self, image: &Value) -> Result<Digest, DeployError> {
        let key = "patch: image";
        if let Some(image) = image.as_str()
            && let Some(found) = self.find(key, image).await?
        {
            return Ok(found);
        }
        Err(DeployError::NoImage {
            key: key.to_owned(),
            advice: format!(
                "{image} is not a stored image: write name:tag, name@sha256:... or sha256:..., or deploy the new image"
            ),
        })
    }
}

/// A deploy has the newest version of each secret.
fn use_newest_secrets(config: &mut ServiceConfig) {
    for secret in &mut config.secret {
        secret.version = None;
    }
}
