//! The images that are mounted into the containers of a service. A deploy resolves each to a digest, which belongs to the revision:
//! every process of it has the same files, and a rollback has those of its time.

use tucano_api::service::Mount;

use super::{DeployError, Deployer};

impl Deployer {
    /// Gives each image its present digest; pulls those of other registries. Returns warnings. The caller holds an image guard.
    pub(super) async fn resolve_mounts(
        &self,
        config: &str,
        mounts: &mut [Mount],
    ) -> Result<Vec<String>, DeployError> {
        let mut warnings = Vec::new();
        for (index, mount) in mounts.iter_mut().enumerate() {
            mount.digest = None;
            if let Some(image) = &mount.image {
                let key = format!("{config}: mount[{index}].image");
                let found = self.find(&key, image).await;
                let found = found.map_err(|error| error.of_mount(&key))?;
                let digest = found.ok_or_else(|| no_image(&key, image))?;
                let of_image = self.images.check_mountable(&digest).await;
                let of_image = of_image.map_err(|error| DeployError::from(error).of_mount(&key))?;
                warnings.extend(of_image.iter().map(|it| format!("{}: {it}", mount.path)));
                mount.digest = Some(digest);
            }
        }
        Ok(warnings)
    }
}

fn no_image(key: &str, image: &str) -> DeployError {
    DeployError::NoImage {
        key: key.to_owned(),
        advice: format!(
            "{image:?} is no reference: name a stored image by name:tag, name@sha256:... or its digest (sha256:...), or one of another \
             registry by host/name:tag; `tucano deploy` sends an archive that is beside the configuration"
        ),
    }
}
