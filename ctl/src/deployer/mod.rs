//! Deploys services: a static configuration and an image, validated as a whole before anything becomes visible.
//!
//! - [`capacity`]: whether some worker can ever run a process of the configuration.
//! - [`upload`]: a request's parts, and the image's import into the store.
//! - [`images`]: the images in use, and removal of the others.
//! - `mounts`: the images that are mounted into containers.
//! - `platforms`: the manifests of an image by architecture.
//! - `remote_image`: images pulled from other registries.
//! - [`Prefetcher`]: announces an image's blobs to agents during its upload.
//! - [`wait`]: the progress of a deploy.
//! - `restart`: new processes for a service as it is.
//! - `patch`: configurations that clients send, as a whole or as changes of keys.
//! - [`DeployError`]: why nothing changes.

pub mod capacity;
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
use tucano_planner::{Cluster, Event, Platforms};

pub use self::{error::DeployError, prefetch::Prefetcher};
use self::{images::Images, patch::patched, remote_image::RemoteImage, upload::Uploaded};
use crate::{
    config_mgr::ConfigManager,
    secrets::Checker,
    state_loop::{Refused, StateHandle, TransactError},
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

/// The result of a deploy or a change.
#[derive(Debug)]
pub struct Outcome {
    /// Whether the service is new.
    pub is_new: bool,
    /// The answer for the sysadmin.
    pub deployed: Deployed,
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

    /// Configures a service with the uploaded image, or with the stored one that it names.
    ///
    /// # Errors
    /// Why nothing has changed.
    pub async fn deploy(&self, uploaded: Uploaded) -> Result<Outcome, DeployError> {
        let Uploaded {
            mut config,
            image,
            stored_image,
            config_name,
            guard: _guard,
            announced,
        } = uploaded;
        config.image = stored_image.or(config.image);
        let image_name = config.image.clone().filter(|_| image.is_none());
        let digest = match image {
            Some(digest) => digest,
            None => self.stored_image(&config_name, &config).await?,
        };
        let mut warnings = self.check_runnable(&digest, &config).await?;
        config.image = Some(digest.to_string());
        let of_mounts = self.resolve_mounts(&config_name, &mut config.mount).await?;
        warnings.extend(of_mounts);
        let most = self.config.current().limits.services;
        let name = config.name.clone();
        let named = image_name.as_deref();
        let (platforms, of_platforms) = self.platforms(named, &digest, &config).await?;
        warnings.extend(of_platforms);
        let outcome = self.change(platforms, move |cluster| {
            let mut config = config;
            let before = cluster.service(&name);
            let count = cluster.state().configured_services.len() as u64;
            if before.is_none() && count >= most {
                return Err(DeployError::TooManyServices(count));
            }
            use_newest_secrets(&mut config);
            Ok((config, digest))
        });
        let mut outcome = outcome.await?;
        if let Some(announced) = announced {
            announced.accept();
        }
        outcome.deployed.warnings = warnings;
        Ok(outcome)
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

    /// Changes keys of a service's configuration.
    ///
    /// # Errors
    /// Why nothing has changed.
    pub async fn patch(
        &self,
        name: ServiceName,
        mut patch: ServicePatch,
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
        let outcome = self.change(platforms, move |cluster| {
            // Of a revision that waits for its `before`, as well.
            let configured = cluster
                .newest(&name)
                .ok_or_else(|| DeployError::NotFound(name.clone()))?;
            let has_secrets = patch.contains_key("secret");
            let mut config = patched(&configured.config, patch)?;
            if has_secrets {
                use_newest_secrets(&mut config);
            }
            let digest = new_image.unwrap_or(configured.image);
            config.image = Some(digest.to_string());
            Ok((config, digest))
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
        self.change(Platforms::new(), move |cluster| {
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
                Some(found) => Ok((found.config, found.image)),
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

    /// Applies the configuration that `decide` derives from the cluster, unless another service uses its hosts. Without
    /// `platforms` those of an earlier revision with the same image are used.
    async fn change(
        &self,
        platforms: Platforms,
        decide: impl FnOnce(&Cluster) -> Result<(ServiceConfig, Digest), DeployError> + Send + 'static,
    ) -> Result<Outcome, DeployError> {
        let checker = self.secrets.clone();
        let decide = move |cluster: &Cluster| {
            let (mut config, image) = decide(cluster)?;
            resolve_secrets(cluster, &mut config)?;
            if let Some(unknown) = cluster.unknown_services(&config) {
                return Err(DeployError::UnknownService(unknown));
            }
            if let Some(obstacle) = cluster.names_obstacle(&config) {
                return Err(DeployError::Names(obstacle));
            }
            if let Some(conflict) = cluster.conflict(&config) {
                return Err(DeployError::HostTaken(conflict));
            }
            if let Some(obstacle) = cluster.resize_obstacle(&config, &image) {
                return Err(DeployError::InUse(obstacle));
            }
            let name = config.name.clone();
            let before = cluster.newest(&name);
            if let Some(checker) = checker {
                let before = before.as_ref().map(|it| &it.config);
                checker.check(cluster, &config, before)?;
            }
            // A change of other keys is possible in any case.
            let needs = |config: &ServiceConfig| (config.memory, config.cpus, config.cpus_reserved);
            let is_new_need = before.as_ref().map(|it| needs(&it.config)) != Some(needs(&config));
            if is_new_need {
                capacity::check(&config, &cluster.nodes())?;
            }
            let platforms = match platforms.is_empty() {
                true => cluster.platforms(&name, &image),
                false => platforms,
            };
            let rules = |config: &ServiceConfig| (config.placement.clone(), config.volume.len());
            let is_new_rule = before.as_ref().map(|it| (rules(&it.config), &it.image))
                != Some((rules(&config), &image));
            if is_new_rule && let Some(obstacle) = cluster.placement_obstacle(&config, &platforms) {
                return Err(DeployError::CannotBePlaced(obstacle));
            }
            let before = before.map(|it| (it.revision, it.config.concurrency));
            let config = Box::new(config);
            let event = Event::ServiceConfigured {
                config,
                image,
                platforms,
            };
            Ok((event, (name, before)))
        };
        let outcome = self
            .state
            .transact(decide, |cluster, (name, before)| {
                let configured = cluster.newest(&name)?;
                Some(Outcome {
                    is_new: before.is_none(),
                    deployed: Deployed {
                        name,
                        changed: before
                            != Some((configured.revision, configured.config.concurrency)),
                        revision: configured.revision,
                        image: configured.image,
                        warnings: Vec::new(),
                        healthy: None,
                        unhealthy: Vec::new(),
                        failures: Vec::new(),
                        error: None,
                        code: None,
                    },
                })
            })
            .await
            .map_err(TransactError::into_inner)?;
        outcome.ok_or_else(|| Refused::Store("the planner refused the service".to_owned()).into())
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

    /// Checks a service's patched configuration with its image, and gives the patch the digests of its mounted images. A service
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
        if patch.get("mount").is_some_and(|mounts| !mounts.is_null()) {
            warnings.extend(self.resolve_mounts("patch", &mut config.mount).await?);
            patch.insert("mount".to_owned(), json!(config.mount));
        }
        Ok(warnings)
    }

    async fn stored_image(
        &self,
        file: &str,
        config: &ServiceConfig,
    ) -> Result<Digest, DeployError> {
        let key = format!("{file}: image");
        let advice = match &config.image {
            None => {
                "is missing: send the image as a second part, `-F image=@hello.tar`, or name a stored one by name:tag or its digest"
                    .to_owned()
            }
            Some(name) => match self.find(&key, name).await? {
                Some(found) => return Ok(found),
                None => format!(
                    "{name:?} is not part of the request: add `-F image=@{name}`, or name a stored image by name:tag, name@sha256:... or its digest (sha256:...)"
                ),
            },
        };
        Err(DeployError::NoImage { key, advice })
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

/// Gives each secret of a configuration its version.
fn resolve_secrets(cluster: &Cluster, config: &mut ServiceConfig) -> Result<(), DeployError> {
    let names = cluster.resolve_secrets(config);
    if names.is_empty() {
        return Ok(());
    }
    let service = config.name.clone();
    // Of one that exists, the version is gone.
    Err(
        match names.iter().find(|name| cluster.secret(name).is_some()) {
            Some(name) => DeployError::SecretRemoved {
                service,
                name: name.clone(),
            },
            None => DeployError::NoSuchSecret { service, names },
        },
    )
}
