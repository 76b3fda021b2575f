//! Errors of deploys.

use tucano_api::{
    ids::{Revision, SecretName, ServiceName},
    settings::SettingsError,
};
use tucano_oci_distribution::Reference;

use super::capacity::DoesNotFit;
use crate::{secrets::SecretError, state_loop::Refused};

/// Why a service was not deployed, changed or removed; nothing has changed then.
#[derive(Debug, thiserror::Error)]
pub enum DeployError {
    /// The static configuration is invalid.
    #[error(transparent)]
    Config(#[from] SettingsError),
    /// The configuration names no available image.
    #[error("{key}: {advice}")]
    NoImage {
        /// The key, after the name of the configuration's text.
        key: String,
        /// Advice.
        advice: String,
    },
    /// The registry has no such image.
    #[error("{key}: the registry has no {wanted}: {}", shown(names))]
    NoSuchImage {
        /// The key, after the name of the configuration's text.
        key: String,
        /// The reference in the configuration.
        wanted: Reference,
        /// Some of the existing names.
        names: Vec<String>,
    },
    /// The registry has no such image, nor can it be pulled from the registry that such names belong to.
    #[error("{key}: the registry has no {image}, and {full} cannot be used: {}", without_key(.source))]
    NoSuchImageEither {
        /// The key, after the name of the configuration's text.
        key: String,
        /// The image.
        image: String,
        /// Its name in the other registry.
        full: String,
        /// What is wrong with that.
        source: Box<DeployError>,
    },
    /// Of services that are deployed together, the configuration or the image of one.
    #[error("{name}: {}", without_key(.source))]
    OfService {
        /// The service.
        name: ServiceName,
        /// The cause.
        source: Box<DeployError>,
    },
    /// Another revision is the newest one than the client has said.
    #[error(
        "{name}: {}, not revision {expected}: somebody else was faster. See what has changed (`tucano revisions {name}`), then deploy again",
        newest(*found)
    )]
    RevisionChanged {
        /// The service.
        name: ServiceName,
        /// The revision that the client has seen; 0 for none.
        expected: Revision,
        /// The newest one; 0 for none.
        found: Revision,
    },
    /// A service is named twice in one request.
    #[error("{0} is named twice: an application has one service of a name")]
    Twice(ServiceName),
    /// More services in one request than allowed.
    #[error(
        "{0} services are too many for one request: limits.application_services in ctl.toml allows {1}"
    )]
    TooManyTogether(usize, u64),
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
    /// An image that is to be mounted is not available.
    #[error("{key}: {}", without_key(.source))]
    MountedImage {
        /// The key, after the name of the configuration's text.
        key: String,
        /// The cause.
        source: Box<DeployError>,
    },
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
    /// It names services that do not exist.
    #[error("{0}")]
    UnknownService(String),
    /// It cannot have an address, or would wait for itself.
    #[error("{0}")]
    Names(String),
    /// A job is no service.
    #[error("{0} is a job, which has no processes between its runs: `tucano run {0}` begins one")]
    NoProcesses(ServiceName),
    /// Others need it.
    #[error("{0}")]
    Needed(String),
    /// Another service uses the host and path.
    #[error("{0}")]
    HostTaken(String),
    /// Running processes use more than the new limits.
    #[error("{0}")]
    InUse(String),
    /// No worker can ever run a process of it.
    #[error(transparent)]
    DoesNotFit(#[from] DoesNotFit),
    /// Its rules of placement can never hold with the present topology, or contradict those of other services.
    #[error("{0}")]
    CannotBePlaced(String),
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
    #[error(
        "there are {0} services, and limits.services in ctl.toml allows {1}: remove some, or raise it"
    )]
    TooManyServices(u64, u64),
    /// It could not be stored, or the controller is shutting down.
    #[error(transparent)]
    Refused(#[from] Refused),
}

impl DeployError {
    /// The error of one of several services.
    pub(super) fn of_service(self, name: &ServiceName) -> Self {
        match self {
            // They name it.
            Self::Config(_) | Self::NoImage { .. } | Self::NoSuchImage { .. } => self,
            Self::NoSuchImageEither { .. } | Self::MountedImage { .. } => self,
            source => Self::OfService {
                name: name.clone(),
                source: Box::new(source),
            },
        }
    }

    /// The error of one of several services, where it would not name it.
    pub(super) fn of_one(self, name: &ServiceName) -> Self {
        match self {
            Self::DoesNotFit(_) | Self::Secret(_) => self.of_service(name),
            other => other,
        }
    }

    /// The error for the mount with this key.
    pub(super) fn of_mount(self, key: &str) -> Self {
        match self {
            // They name it.
            Self::NoImage { .. } | Self::NoSuchImage { .. } => self,
            source => Self::MountedImage {
                key: key.to_owned(),
                source: Box::new(source),
            },
        }
    }
}

/// An error of an image, without the key that it is usually of.
fn without_key(error: &DeployError) -> String {
    let text = error.to_string();
    text.strip_prefix("image: ").unwrap_or(&text).to_owned()
}

fn newest(found: Revision) -> String {
    match found {
        Revision(0) => "there is no such service".to_owned(),
        found => format!("the newest revision is {found}"),
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
