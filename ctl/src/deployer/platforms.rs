//! The manifests of an image for the architectures that the workers have reported.

use tucano_api::{ids::Digest, service::ServiceConfig};
use tucano_oci_distribution::{Reference, client};
use tucano_oci_image::{Error, Platform};
use tucano_planner::Platforms;

use super::{DeployError, Deployer, images::to_oci, remote_image::RemoteImage};

impl Deployer {
    /// The manifests of an image by architecture, and warnings about architectures that it has none for. `name` is what it
    /// was found by; one that came with the request is there for one architecture only. The caller holds an image guard.
    pub(super) async fn platforms(
        &self,
        name: Option<&str>,
        image: &Digest,
        config: &ServiceConfig,
    ) -> Result<(Platforms, Vec<String>), DeployError> {
        let own = self.images.platform_of(image).await?;
        let workers = self.state.query(|cluster| cluster.architectures()).await;
        let workers = workers.map_err(DeployError::Refused)?;
        let mut platforms = Platforms::from([(own.architecture.clone(), image.clone())]);
        let mut warnings = Vec::new();
        for (architecture, node) in workers {
            if architecture == own.architecture {
                continue;
            }
            let wanted = Platform {
                os: own.os.clone(),
                architecture: architecture.clone(),
            };
            let found = match name {
                Some(name) => self.image_for(name, &wanted).await?,
                None => None,
            };
            let Some(found) = found else {
                warnings.push(format!(
                    "the image is not for {architecture}: workers such as {node} get no process of it"
                ));
                continue;
            };
            let of_image = self.images.check_runnable(&found, config).await?;
            let of_image = of_image.iter().map(|it| format!("{architecture}: {it}"));
            warnings.extend(of_image);
            platforms.insert(architecture, found);
        }
        Ok((platforms, warnings))
    }

    /// The manifest of a named image for a platform; `None` if it has none.
    async fn image_for(
        &self,
        name: &str,
        platform: &Platform,
    ) -> Result<Option<Digest>, DeployError> {
        let ours: Option<Reference> = name.parse().ok();
        let index = match (name.parse::<Digest>(), ours) {
            (Ok(digest), _) => Some(digest),
            (_, Some(ours)) => self.images.find(ours).await.ok(),
            _ => None,
        };
        if let Some(index) = index {
            return match self.images.check_for(to_oci(&index), platform).await {
                Ok(found) => Ok(Some(found)),
                Err(Error::WrongArchitecture { .. }) => Ok(None),
                Err(error) => Err(error.into()),
            };
        }
        let config = self.config.current();
        let Some(remote) = RemoteImage::parse(name, &config.registries) else {
            return Ok(None);
        };
        match self.pull_for(&remote, platform).await {
            Ok(found) => Ok(Some(found)),
            Err(DeployError::Pull(client::Error::Store(Error::WrongArchitecture { .. }))) => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}
