//! Deploys services: a static configuration and an image, validated as a whole before anything becomes visible.
//!
//! - [`capacity`]: whether some worker can ever run a process of the configuration.
//! - [`upload`]: a request's parts, and the image's import into the store.
//! - [`images`]: the images in use, and removal of the others.
//! - `remote_image`: images pulled from other registries.
//! - [`Prefetcher`]: announces an image's blobs to agents during its upload.
//! - [`wait`]: the progress of a deploy.

pub mod capacity;
pub mod images;
mod prefetch;
pub(crate) mod remote_image;
pub mod upload;
pub mod wait;

use std::sync::{Arc, atomic::AtomicU64};

use serde_json::Value;
use tucano_api::{
    ids::{Digest, Revision, SecretName, ServiceName},
    service::ServiceConfig,
    settings::{SettingsError, parse},
    state::{ConfiguredService, Deployed, ServicePatch},
};
use tucano_oci_distribution::Reference;
use tucano_planner::{Cluster, Event};

pub use self::prefetch::Prefetcher;
use self::{capacity::DoesNotFit, images::Images, remote_image::RemoteImage, upload::Uploaded};
use crate::{
    config_mgr::ConfigManager,
    secrets::{Checker, SecretError},
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

/// Why a service was not deployed, changed or removed; nothing has changed then.
#[derive(Debug, thiserror::Error)]
pub enum DeployError {
    /// The static configuration is invalid.
    #[error(transparent)]
    Config(#[from] SettingsError),
    /// The configuration names no available image.
    #[error("{config}: image: {advice}")]
    NoImage {
        /// Name of the configuration's text.
        config: String,
        /// Advice.
        advice: String,
    },
    /// The registry has no such image.
    #[error("{config}: image: the registry has no {wanted}: {}", shown(names))]
    NoSuchImage {
        /// Name of the configuration's text.
        config: String,
        /// The reference in the configuration.
        wanted: Reference,
        /// Some of the existing names.
        names: Vec<String>,
    },
    /// The registry failed.
    #[error(transparent)]
    Registry(#[from] tucano_oci_distribution::Error),
    /// A malformed reference.
    #[error("image: {0}")]
    BadName(#[from] tucano_oci_distribution::BadName),
    /// A registry that is not listed.
    #[error(
        "image: the registry {host} is not listed in ctl.toml, which {}: add [[registry]] with host = {host:?}, or push the image to this controller",
        listing(listed)
    )]
    UnknownRegistry {
        /// Its host in the reference.
        host: String,
        /// The listed registries.
        listed: Vec<String>,
    },
    /// A pull from another registry failed.
    #[error("the image cannot be pulled: {0}")]
    Pull(#[from] tucano_oci_distribution::client::Error),
    /// All upload slots are in use.
    #[error(
        "{0} images are already being received, as many as limits.uploads allows: try again later"
    )]
    TooManyUploads(u64),
    /// The image was refused.
    #[error("the image was refused: {0}")]
    Image(#[from] tucano_oci_image::Error),
    /// Secrets that do not exist.
    #[error(
        "{service}: there {} {}: set {} with `tucano secret set` first",
        is_no(names),
        listed(names),
        it(names)
    )]
    NoSuchSecret {
        /// The service.
        service: ServiceName,
        /// The secrets.
        names: Vec<SecretName>,
    },
    /// A version of a secret was removed.
    #[error(
        "{service}: this revision had a value of secret {name} that was removed: deploy again, to have the present one"
    )]
    SecretRemoved {
        /// The service.
        service: ServiceName,
        /// The secret.
        name: SecretName,
    },
    /// A secret cannot be used.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// Another service uses the host and path.
    #[error("{0}")]
    HostTaken(String),
    /// Running processes use more than the new limits.
    #[error("{0}")]
    InUse(String),
    /// No worker can ever run a process of it.
    #[error(transparent)]
    DoesNotFit(#[from] DoesNotFit),
    /// The revision to roll back to is not kept.
    #[error("{name} has no revision {} to roll back to: {}", wanted.map_or_else(|| "before this one".to_owned(), |it| it.to_string()), kept(revisions))]
    NoSuchRevision {
        /// The service.
        name: ServiceName,
        /// The requested revision; the previous one if `None`.
        wanted: Option<Revision>,
        /// The revisions that are kept.
        revisions: Vec<Revision>,
    },
    /// No service of that name.
    #[error("there is no service {0}: `GET /v1/services` lists all services")]
    NotFound(ServiceName),
    /// The limit on services is reached.
    #[error("there are {0} services, as many as limits.services allows: remove one, or raise it")]
    TooManyServices(u64),
    /// It could not be stored, or the controller is shutting down.
    #[error(transparent)]
    Refused(#[from] Refused),
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
        let digest = match image {
            Some(digest) => digest,
            None => self.stored_image(&config_name, &config).await?,
        };
        let warnings = self.check_runnable(&digest, &config).await?;
        config.image = Some(digest.to_string());
        let most = self.config.current().limits.services;
        let name = config.name.clone();
        let outcome = self.change(move |cluster| {
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
        patch: ServicePatch,
    ) -> Result<Outcome, DeployError> {
        let _guard = self.images.guard().await;
        let new_image = match patch.get("image") {
            None => None,
            Some(image) => Some(self.patched_image(image).await?),
        };
        let warnings = self
            .check_patched(&name, &patch, new_image.as_ref())
            .await?;
        let outcome = self.change(move |cluster| {
            let service = cluster
                .service(&name)
                .ok_or_else(|| DeployError::NotFound(name.clone()))?;
            let has_secrets = patch.contains_key("secret");
            let mut config = patched(&service.configured.config, patch)?;
            if has_secrets {
                use_newest_secrets(&mut config);
            }
            let digest = new_image.unwrap_or(service.configured.image);
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
        self.change(move |cluster| {
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
            Some(_) => Ok((Event::ServiceRemoved { name, volumes }, ())),
            None => Err(DeployError::NotFound(name)),
        };
        self.state
            .transact(decide, |_, ()| ())
            .await
            .map_err(TransactError::into_inner)
    }

    /// Applies the configuration that `decide` derives from the cluster, unless another service uses its hosts.
    async fn change(
        &self,
        decide: impl FnOnce(&Cluster) -> Result<(ServiceConfig, Digest), DeployError> + Send + 'static,
    ) -> Result<Outcome, DeployError> {
        let checker = self.secrets.clone();
        let decide = move |cluster: &Cluster| {
            let (mut config, image) = decide(cluster)?;
            let names = cluster.resolve_secrets(&mut config);
            if let Some(name) = names.iter().find(|name| cluster.secret(name).is_some()) {
                let service = config.name;
                let name = name.clone();
                return Err(DeployError::SecretRemoved { service, name });
            }
            if !names.is_empty() {
                let service = config.name;
                return Err(DeployError::NoSuchSecret { service, names });
            }
            if let Some(conflict) = cluster.conflict(&config) {
                return Err(DeployError::HostTaken(conflict));
            }
            if let Some(obstacle) = cluster.resize_obstacle(&config, &image) {
                return Err(DeployError::InUse(obstacle));
            }
            let name = config.name.clone();
            let before = cluster.service(&name).map(|service| service.configured);
            if let Some(checker) = checker {
                let before = before.as_ref().map(|it| &it.config);
                checker.check(cluster, &config, before)?;
            }
            // A change of other keys is possible in any case.
            let needs = |config: &ServiceConfig| (config.memory, config.cpus);
            let is_new_need = before.as_ref().map(|it| needs(&it.config)) != Some(needs(&config));
            if is_new_need {
                capacity::check(&config, &cluster.nodes())?;
            }
            let before = before.map(|it| (it.revision, it.config.concurrency));
            let config = Box::new(config);
            Ok((Event::ServiceConfigured { config, image }, (name, before)))
        };
        let outcome = self
            .state
            .transact(decide, |cluster, (name, before)| {
                let configured = cluster.service(&name)?.configured;
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

    /// Checks a service's patched configuration with its image. A service that does not exist, or a patch that does not
    /// fit, is refused later.
    async fn check_patched(
        &self,
        name: &ServiceName,
        patch: &ServicePatch,
        image: Option<&Digest>,
    ) -> Result<Vec<String>, DeployError> {
        let name = name.clone();
        let current = self.state.query(move |cluster| {
            let service = cluster.service(&name)?;
            Some((service.configured.config.clone(), service.configured.image))
        });
        let Some((config, current_image)) = current.await.map_err(DeployError::Refused)? else {
            return Ok(Vec::new());
        };
        let Ok(config) = patched(&config, patch.clone()) else {
            return Ok(Vec::new());
        };
        let Some(image) = image else {
            return Ok(self.images.check_runnable(&current_image, &config).await?);
        };
        Ok(self.check_runnable(image, &config).await?)
    }

    async fn stored_image(
        &self,
        file: &str,
        config: &ServiceConfig,
    ) -> Result<Digest, DeployError> {
        if let Some(image) = &config.image
            && let Some(found) = self.by_name(file, image).await?
        {
            return Ok(found);
        }
        let advice = match (&config.image, config.image_digest()) {
            (_, Some(digest)) => return self.images.check(digest).await.map_err(DeployError::Image),
            (None, None) => {
                "is missing: send the image as a second part, `-F image=@hello.tar`, or name a stored one by name:tag or its digest"
                    .to_owned()
            }
            (Some(name), None) => format!(
                "{name:?} is not part of the request: add `-F image=@{name}`, or name a stored image by name:tag, name@sha256:... or its digest (sha256:...)"
            ),
        };
        Err(DeployError::NoImage {
            config: file.to_owned(),
            advice,
        })
    }

    /// Resolves a reference in another registry or in the cluster's own; `None` if the text is not a reference.
    async fn by_name(&self, file: &str, image: &str) -> Result<Option<Digest>, DeployError> {
        let ours = reference(image);
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
            Some(ours) => self.named_image(file, ours).await.map(Some),
            None => Ok(None),
        }
    }

    async fn named_image(&self, config: &str, wanted: Reference) -> Result<Digest, DeployError> {
        use tucano_oci_distribution::Error;
        match self.images.find(wanted.clone()).await {
            Ok(digest) => self.images.check(digest).await.map_err(DeployError::Image),
            Err(Error::ManifestUnknown { .. }) => Err(DeployError::NoSuchImage {
                config: config.to_owned(),
                wanted,
                names: self.images.some_names().await,
            }),
            Err(error) => Err(error.into()),
        }
    }

    async fn patched_image(&self, image: &Value) -> Result<Digest, DeployError> {
        if let Some(image) = image.as_str()
            && let Some(found) = self.by_name("patch", image).await?
        {
            return Ok(found);
        }
        let digest: Option<Digest> = image.as_str().and_then(|text| text.parse().ok());
        let digest = digest.ok_or_else(|| DeployError::NoImage {
            config: "patch".to_owned(),
            advice: format!("{image} is not a stored image: write name:tag, name@sha256:... or sha256:..., or deploy the new image"),
        })?;
        self.images.check(digest).await.map_err(DeployError::Image)
    }
}

/// A deploy has the newest version of each secret.
fn use_newest_secrets(config: &mut ServiceConfig) {
    for secret in &mut config.secret {
        secret.version = None;
    }
}

fn is_no(names: &[SecretName]) -> &'static str {
    match names {
        [_] => "is no secret",
        _ => "are no secrets",
    }
}

fn listed(names: &[SecretName]) -> String {
    let names: Vec<&str> = names.iter().map(SecretName::as_str).collect();
    names.join(", ")
}

fn it(names: &[SecretName]) -> &'static str {
    match names {
        [_] => "it",
        _ => "them",
    }
}

/// A configuration's `image` as a reference. A bare digest is not one, although it looks like a name with a tag.
fn reference(image: &str) -> Option<Reference> {
    match image.parse::<Digest>() {
        Ok(_) => None,
        Err(_) => image.parse().ok(),
    }
}

fn kept(revisions: &[Revision]) -> String {
    let revisions: Vec<String> = revisions.iter().map(ToString::to_string).collect();
    format!(
        "kept are {} (revisions_kept in ctl.toml)",
        revisions.join(", ")
    )
}

fn listing(hosts: &[String]) -> String {
    match hosts {
        [] => "lists none".to_owned(),
        hosts => format!("lists {}", hosts.join(", ")),
    }
}

fn shown(names: &[String]) -> String {
    match names {
        [] => "it is empty; `docker push` or `skopeo copy` the image".to_owned(),
        names => format!("it has {}", names.join(", ")),
    }
}

/// A configuration that a client has sent. The command line reads files and sends their text; this machine's files are nobody's
/// to read.
fn parse_sent(name: &str, text: &str) -> Result<ServiceConfig, SettingsError> {
    let config: ServiceConfig = parse(name, text)?;
    let Some(index) = config.file.iter().position(|file| file.from.is_some()) else {
        return Ok(config);
    };
    Err(SettingsError {
        file: name.to_owned(),
        line: None,
        column: None,
        message: format!(
            "file[{index}].from: the controller reads no files of yours: send the text as `content`, or deploy with the command line"
        ),
    })
}

/// Merges a patch into the configuration; `null` resets a key to its default.
fn patched(config: &ServiceConfig, patch: ServicePatch) -> Result<ServiceConfig, DeployError> {
    let wrong = |message: String| SettingsError {
        file: "patch".to_owned(),
        line: None,
        column: None,
        message,
    };
    let Ok(Value::Object(mut merged)) = serde_json::to_value(config) else {
        return Err(wrong("the current configuration cannot be encoded as JSON".to_owned()).into());
    };
    for (key, value) in patch {
        if key == "name" && value.as_str() != Some(config.name.as_str()) {
            let message =
                "name: a service cannot be renamed: deploy another one and remove this one";
            return Err(wrong(message.to_owned()).into());
        }
        if value.is_null() {
            // An unknown key is an error with `null` as well.
            if merged.remove(&key).is_none() {
                check_known(&key).map_err(DeployError::Config)?;
            }
        } else {
            merged.insert(key, value);
        }
    }
    let text = Value::Object(merged).to_string();
    let parsed = parse_sent("patch", &text);
    // The merged text is generated: its positions mean nothing to the user.
    parsed.map_err(|error| wrong(error.message).into())
}

/// Parses a minimal configuration with `key`, to get the parser's suggestion.
fn check_known(key: &str) -> Result<(), SettingsError> {
    let mut probe = serde_json::Map::new();
    for (known, value) in [
        ("name", "a".into()),
        ("concurrency", 1.into()),
        ("port", 1.into()),
    ] {
        probe.insert(known.to_owned(), value);
    }
    probe.insert(key.to_owned(), Value::Null);
    match parse::<ServiceConfig>("patch", &Value::Object(probe).to_string()) {
        Err(error) if error.message.starts_with("unknown key") => Err(SettingsError {
            line: None,
            column: None,
            ..error
        }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
