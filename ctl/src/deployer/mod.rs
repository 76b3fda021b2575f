//! Takes what the sysadmin wants to have running: a static configuration and an image, checked as a whole before
//! anything of it can be seen.
//!
//! - [`upload`]: the parts of a request, and the image's way into the store.
//! - [`images`]: which images are in use; removal of the others.
//! - `elsewhere`: images that are pulled from other registries.
//! - [`Prefetcher`]: what agents hear of an image before it is whole.
//! - [`wait`]: when a deploy has come to its end.

pub(crate) mod elsewhere;
pub mod images;
mod prefetch;
pub mod upload;
pub mod wait;

use std::sync::{Arc, atomic::AtomicU64};

use serde_json::Value;
use tucano_api::{
    ids::{Digest, Revision, ServiceName},
    service::ServiceConfig,
    settings::{SettingsError, parse},
    state::{ConfiguredService, Deployed, ServicePatch},
};
use tucano_oci_distribution::Reference;
use tucano_planner::{Cluster, Event};

pub use self::prefetch::Prefetcher;
use self::{elsewhere::Elsewhere, images::Images, upload::Uploaded};
use crate::{
    brain::{Brain, Refused, TransactError},
    config_mgr::ConfigManager,
};

/// Turns requests into revisions.
#[derive(Debug)]
pub struct Deployer {
    config: Arc<ConfigManager>,
    brain: Brain,
    images: Arc<Images>,
    uploads: Arc<AtomicU64>,
    prefetcher: Option<Prefetcher>,
}

/// Why a service was not deployed, changed or removed; nothing has changed then.
#[derive(Debug, thiserror::Error)]
pub enum DeployError {
    /// The static configuration is wrong.
    #[error(transparent)]
    Config(#[from] SettingsError),
    /// The configuration names no image that the controller has.
    #[error("{config}: image: {advice}")]
    NoImage {
        /// Name of the text.
        config: String,
        /// What to do.
        advice: String,
    },
    /// The registry has no such image.
    #[error("{config}: image: the registry has no {wanted}: {}", shown(names))]
    NoSuchImage {
        /// Name of the text.
        config: String,
        /// As the configuration has it.
        wanted: Reference,
        /// Some of those that there are.
        names: Vec<String>,
    },
    /// The registry does not work.
    #[error(transparent)]
    Registry(#[from] tucano_oci_distribution::Error),
    /// A name that is none.
    #[error("image: {0}")]
    BadName(#[from] tucano_oci_distribution::BadName),
    /// A registry that nobody has listed.
    #[error(
        "image: the registry {host} is not listed in ctl.toml, which {}: add [[registry]] with host = {host:?}, or push the image to this controller",
        listing(listed)
    )]
    UnknownRegistry {
        /// Its host, as the configuration has it.
        host: String,
        /// Those that are listed.
        listed: Vec<String>,
    },
    /// Another registry does not give the image.
    #[error("the image cannot be pulled: {0}")]
    Pull(#[from] tucano_oci_distribution::client::Error),
    /// Enough others come in.
    #[error("{0} images are coming in already, as many as limits.uploads allows: try again later")]
    TooManyUploads(u64),
    /// The image was not taken.
    #[error("the image was refused: {0}")]
    Image(#[from] tucano_oci_image::Error),
    /// Another service has the host and path.
    #[error("{0}")]
    HostTaken(String),
    /// The revision to go back to is not kept.
    #[error("{name} has no revision {} to go back to: {}", wanted.map_or_else(|| "before this one".to_owned(), |it| it.to_string()), kept(revisions))]
    NoSuchRevision {
        /// The service.
        name: ServiceName,
        /// Which was asked for; the one before the current one if none.
        wanted: Option<Revision>,
        /// Those that are kept.
        revisions: Vec<Revision>,
    },
    /// No service of that name.
    #[error("there is no service {0}: `GET /v1/services` lists those there are")]
    NotFound(ServiceName),
    /// As many services as there may be.
    #[error("there are {0} services, as many as limits.services allows: remove one, or raise it")]
    TooManyServices(u64),
    /// It could not be stored, or the controller ends.
    #[error(transparent)]
    Refused(#[from] Refused),
}

/// What a deploy or a change came to.
#[derive(Debug)]
pub struct Outcome {
    /// Whether there was no service of that name before.
    pub is_new: bool,
    /// For the sysadmin.
    pub deployed: Deployed,
}

impl Deployer {
    /// Deploys through `brain` what it stores in `images`.
    pub fn new(config: Arc<ConfigManager>, brain: Brain, images: Arc<Images>) -> Self {
        Self {
            config,
            brain,
            images,
            uploads: Arc::default(),
            prefetcher: None,
        }
    }

    /// Agents hear of what is coming.
    #[must_use]
    pub fn with_prefetcher(mut self, prefetcher: Prefetcher) -> Self {
        self.prefetcher = Some(prefetcher);
        self
    }

    /// A blob was pushed to the images' own repository: nobody does that but to deploy what it belongs to.
    pub async fn was_pushed(&self, blob: Digest) {
        let Some(prefetcher) = &self.prefetcher else {
            return;
        };
        let (store, digest) = (self.images.store().clone(), images::to_oci(&blob));
        match images::blocking(move || store.open_blob(&digest)).await {
            Ok((_, bytes)) => prefetcher.pushed(blob, bytes),
            Err(error) => tracing::debug!(%error, "a pushed blob is gone"),
        }
    }

    /// The images.
    pub fn images(&self) -> &Arc<Images> {
        &self.images
    }

    /// Configures a service with the image that was uploaded with it, or else with the stored one that it names.
    ///
    /// # Errors
    /// Why nothing was changed.
    pub async fn deploy(&self, uploaded: Uploaded) -> Result<Outcome, DeployError> {
        let Uploaded {
            mut config,
            image,
            stored_image,
            config_name,
            hold: _hold,
        } = uploaded;
        config.image = stored_image.or(config.image);
        let digest = match image {
            Some(digest) => digest,
            None => self.stored_image(&config_name, &config).await?,
        };
        config.image = Some(digest.to_string());
        let most = self.config.current().limits.services;
        let name = config.name.clone();
        self.change(move |cluster| {
            let before = cluster.service(&name);
            let count = cluster.state().configured_services.len() as u64;
            if before.is_none() && count >= most {
                return Err(DeployError::TooManyServices(count));
            }
            Ok((config, digest))
        })
        .await
    }

    /// Changes some keys of a service.
    ///
    /// # Errors
    /// Why nothing was changed.
    pub async fn patch(
        &self,
        name: ServiceName,
        patch: ServicePatch,
    ) -> Result<Outcome, DeployError> {
        let _hold = self.images.hold().await;
        let new_image = match patch.get("image") {
            None => None,
            Some(image) => Some(self.patched_image(image).await?),
        };
        self.change(move |cluster| {
            let service = cluster
                .service(&name)
                .ok_or_else(|| DeployError::NotFound(name.clone()))?;
            let mut config = patched(&service.configured.config, patch)?;
            let digest = new_image.unwrap_or(service.configured.image);
            config.image = Some(digest.to_string());
            Ok((config, digest))
        })
        .await
    }

    /// Configures a service as it was in a revision that is kept, or else in the one before the current one.
    ///
    /// # Errors
    /// Why nothing was changed.
    pub async fn roll_back(
        &self,
        name: ServiceName,
        wanted: Option<Revision>,
    ) -> Result<Outcome, DeployError> {
        let _hold = self.images.hold().await;
        self.change(move |cluster| {
            let revisions = cluster.revisions(&name);
            let Some(current) = revisions.last() else {
                return Err(DeployError::NotFound(name));
            };
            let is_it = |it: &&ConfiguredService| match wanted {
                Some(wanted) => it.revision == wanted,
                // Going back twice in a row would otherwise lead nowhere.
                None => (&it.config, &it.image) != (&current.config, &current.image),
            };
            let found = revisions.iter().rev().find(is_it).cloned();
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

    /// Removes a service.
    ///
    /// # Errors
    /// Why it is still there.
    pub async fn remove(&self, name: ServiceName) -> Result<(), DeployError> {
        let decide = move |cluster: &Cluster| match cluster.service(&name) {
            Some(_) => Ok((Event::ServiceRemoved { name }, ())),
            None => Err(DeployError::NotFound(name)),
        };
        self.brain
            .transact(decide, |_, ()| ())
            .await
            .map_err(deploy_error)
    }

    /// Configures what `decide` makes of the cluster, unless its hosts are taken.
    async fn change(
        &self,
        decide: impl FnOnce(&Cluster) -> Result<(ServiceConfig, Digest), DeployError> + Send + 'static,
    ) -> Result<Outcome, DeployError> {
        let decide = move |cluster: &Cluster| {
            let (config, image) = decide(cluster)?;
            if let Some(conflict) = cluster.conflict(&config) {
                return Err(DeployError::HostTaken(conflict));
            }
            let name = config.name.clone();
            let before = cluster
                .service(&name)
                .map(|service| service.configured.revision);
            let config = Box::new(config);
            Ok((Event::ServiceConfigured { config, image }, (name, before)))
        };
        let outcome = self
            .brain
            .transact(decide, |cluster, (name, before)| {
                let configured = cluster.service(&name)?.configured;
                Some(Outcome {
                    is_new: before.is_none(),
                    deployed: Deployed {
                        name,
                        changed: before != Some(configured.revision),
                        revision: configured.revision,
                        image: configured.image,
                        healthy: None,
                        unhealthy: Vec::new(),
                        error: None,
                        code: None,
                    },
                })
            })
            .await
            .map_err(deploy_error)?;
        outcome
            .ok_or_else(|| Refused::Store("the planner did not take the service".to_owned()).into())
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
                "{name:?} was not sent with the request: add `-F image=@{name}`, or name a stored image by name:tag, name@sha256:... or its digest (sha256:...)"
            ),
        };
        Err(DeployError::NoImage {
            config: file.to_owned(),
            advice,
        })
    }

    /// The image that a name means, if it is one: in another registry, or in our own.
    async fn by_name(&self, file: &str, image: &str) -> Result<Option<Digest>, DeployError> {
        let ours = reference(image);
        let config = self.config.current();
        if let Some(elsewhere) = Elsewhere::parse(image, &config.registries) {
            let is_listed = config.registries.iter().any(|it| it.host == elsewhere.host);
            // A repository of ours may have a dot in the first part of its name.
            let found = match &ours {
                Some(ours) if !is_listed => self.images.find(ours.clone()).await.ok(),
                _ => None,
            };
            return match found {
                Some(digest) => Ok(Some(self.images.check(digest).await?)),
                None => self.pull(&elsewhere).await.map(Some),
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

/// The image of the registry that a configuration's `image` names; a digest alone, which has the shape of a name with a
/// tag, is none.
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
        [] => "nothing was pushed to it yet; `docker push` or `skopeo copy` the image".to_owned(),
        names => format!("it has {}", names.join(", ")),
    }
}

/// The configuration with the patch's keys put in, `null` putting a key back to its default.
fn patched(config: &ServiceConfig, patch: ServicePatch) -> Result<ServiceConfig, DeployError> {
    let wrong = |message: String| SettingsError {
        file: "patch".to_owned(),
        line: None,
        column: None,
        message,
    };
    let Ok(Value::Object(mut merged)) = serde_json::to_value(config) else {
        return Err(wrong("the present configuration cannot be written as JSON".to_owned()).into());
    };
    for (key, value) in patch {
        if key == "name" && value.as_str() != Some(config.name.as_str()) {
            let message = "name: a service keeps its name: deploy another one and remove this one";
            return Err(wrong(message.to_owned()).into());
        }
        if value.is_null() {
            // An unknown key is as wrong with `null` as with a value.
            if merged.remove(&key).is_none() {
                check_known(&key).map_err(DeployError::Config)?;
            }
        } else {
            merged.insert(key, value);
        }
    }
    let text = Value::Object(merged).to_string();
    let parsed = parse::<ServiceConfig>("patch", &text);
    // The merged text is ours: its lines would tell the user nothing.
    parsed.map_err(|error| wrong(error.message).into())
}

/// Parses a minimal configuration with `key` in it, for the parser's own suggestion.
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

fn deploy_error(error: TransactError<DeployError>) -> DeployError {
    match error {
        TransactError::Rejected(error) => error,
        TransactError::Refused(refused) => refused.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello() -> ServiceConfig {
        parse(
            "x",
            "name = \"hello\"\nconcurrency = 2\nport = 80\nmemory = \"64MiB\"",
        )
        .unwrap()
    }

    fn patch(json: &str) -> Result<ServiceConfig, String> {
        patched(&hello(), serde_json::from_str(json).unwrap()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_patch_changes_its_keys_only() {
        let changed = patch(r#"{"concurrency": 5, "hosts": ["a.example"]}"#).unwrap();
        assert_eq!(changed.concurrency, 5);
        assert_eq!(changed.hosts, ["a.example"]);
        assert_eq!(changed.memory, hello().memory);
    }

    #[test]
    fn null_puts_back_the_default() {
        let changed = patch(r#"{"memory": null, "user": null}"#).unwrap();
        assert_eq!(changed.memory, tucano_api::units::Bytes::mib(256));
        let error = patch(r#"{"port": null}"#).unwrap_err();
        assert_eq!(error, "patch: the key \"port\" is missing");
    }

    #[test]
    fn a_wrong_patch_is_explained() {
        for (json, message) in [
            (
                r#"{"concurency": 5}"#,
                "patch: unknown key \"concurency\": did you mean \"concurrency\"?",
            ),
            (
                r#"{"concurency": null}"#,
                "patch: unknown key \"concurency\": did you mean \"concurrency\"?",
            ),
            (
                r#"{"port": 0}"#,
                "patch: port: 0 is not a port: write the one the program listens on",
            ),
            (
                r#"{"name": "other"}"#,
                "patch: name: a service keeps its name: deploy another one and remove this one",
            ),
        ] {
            assert_eq!(patch(json).unwrap_err(), message);
        }
    }
}
