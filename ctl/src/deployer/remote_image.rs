//! Images of other registries: recognizes references to them and pulls them.

use tucano_api::ids::Digest;
use tucano_oci_distribution::{BadName, Reference, client};
use tucano_oci_image::Platform;

use super::{DeployError, Deployer, images::platform, upload::Slot};
use crate::config_mgr::Registry;

/// The registry of images that are named without one, to people who use Docker.
const DOCKER: &str = "docker.io";

/// A reference to an image in another registry.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct RemoteImage<'a> {
    /// The registry's host, with its port.
    pub(super) host: &'a str,
    /// Repository and tag or digest.
    pub(super) rest: &'a str,
}

impl<'a> RemoteImage<'a> {
    /// Parses a configuration's `image` if its first component looks like, or is listed as, a registry's host.
    pub(super) fn parse(image: &'a str, registries: &[Registry]) -> Option<Self> {
        let (host, rest) = image.split_once('/')?;
        let looks_like_host =
            host.contains(['.', ':']) && !host.starts_with('.') || host == "localhost";
        let is_listed = registries.iter().any(|registry| registry.host == host);
        (looks_like_host || is_listed).then_some(Self { host, rest })
    }

    pub(super) fn reference(&self) -> Result<Reference, BadName> {
        self.rest.parse()
    }
}

/// The name in a registry of an image that is named without one.
pub(super) fn in_registry(registry: &str, image: &str) -> String {
    // Docker's own images are named without their first part.
    match registry == DOCKER && !image.contains('/') {
        true => format!("{registry}/library/{image}"),
        false => format!("{registry}/{image}"),
    }
}

impl Deployer {
    /// Pulls an image's missing blobs. The caller holds an image guard.
    pub(super) async fn pull(&self, image: &RemoteImage<'_>) -> Result<Digest, DeployError> {
        self.pull_for(image, &platform()).await
    }

    /// Pulls an image's missing blobs for a platform. The caller holds an image guard.
    pub(super) async fn pull_for(
        &self,
        image: &RemoteImage<'_>,
        platform: &Platform,
    ) -> Result<Digest, DeployError> {
        let config = self.config.current();
        let registry = config.registries.iter().find(|it| it.host == image.host);
        let registry = registry.ok_or_else(|| DeployError::UnknownRegistry {
            host: image.host.to_owned(),
            listed: config.registries.iter().map(|it| it.host.clone()).collect(),
        })?;
        let reference = image.reference()?;
        let limits = &config.limits;
        let _slot = Slot::take(&self.uploads, limits.uploads)
            .ok_or(DeployError::TooManyUploads(limits.uploads))?;
        let remote = registry.connect(limits)?;
        tracing::info!(host = image.host, %reference, "pulling an image");
        let pulled = remote
            .pull(
                self.images.store(),
                &reference,
                platform,
                &limits.of_pulls(),
            )
            .await?;
        Ok(self.images.check_for(pulled, platform).await?)
    }
}

/// Status and code of a failed pull for the client of a deploy.
pub(crate) fn pull_failure(error: &client::Error) -> (u16, &'static str) {
    use client::Error;
    match error {
        Error::NotFound { .. } => (404, "no_such_image"),
        Error::Unauthorized { .. } => (422, "registry_refuses"),
        Error::TooLarge { .. } => (413, "too_large"),
        Error::TooLong { .. } => (504, "pull_timeout"),
        Error::Failed(_) | Error::Read(_) => (500, "io"),
        _ => (502, "registry_failed"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tucano_oci_distribution::client::Credentials;

    #[test]
    fn short_names_of_dockers_own_images_get_their_first_part() {
        for (registry, image, full) in [
            ("docker.io", "postgres:16", "docker.io/library/postgres:16"),
            (
                "docker.io",
                "grafana/grafana:11",
                "docker.io/grafana/grafana:11",
            ),
            (
                "mirror.example",
                "postgres:16",
                "mirror.example/postgres:16",
            ),
        ] {
            assert_eq!(in_registry(registry, image), full);
        }
    }

    #[test]
    fn hosts_and_repositories_are_distinguished() {
        let listed = [Registry {
            host: "mirror".to_owned(),
            address: "mirror".to_owned(),
            credentials: Credentials::Anonymous,
            authorities: None,
            plain_http: false,
        }];
        let host = |image: &'static str| RemoteImage::parse(image, &listed).map(|it| it.host);
        for (image, expected) in [
            (
                "registry.example:5000/team/app:1.2",
                Some("registry.example:5000"),
            ),
            ("registry.example/app@sha256:00", Some("registry.example")),
            ("10.0.0.1/app:1", Some("10.0.0.1")),
            ("localhost/app:1", Some("localhost")),
            ("mirror/app:1", Some("mirror")),
            ("team/app:1", None),
            ("app:1", None),
            ("./app.tar", None),
            ("../app.tar", None),
        ] {
            assert_eq!(host(image), expected, "{image}");
        }
    }
}
