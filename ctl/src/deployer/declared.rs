//! What an image says of its processes: how their health is checked, and which of their directories are to be kept.

use tucano_api::{
    ids::Digest,
    image::{ImageDescription, ImageQuery},
    service::{ImageHealth, ServiceConfig, is_at_or_below},
    units::Span,
};
use tucano_oci_image::Healthcheck;

use super::{DeployError, Deployer, images::Declared};

impl Deployer {
    /// Gives a configuration the health check of its image; returns warnings. The caller holds an image guard.
    pub(super) async fn fill_in_declared(
        &self,
        image: &Digest,
        config: &mut ServiceConfig,
    ) -> Result<Vec<String>, DeployError> {
        let declared = self.images.declared(image, config).await?;
        let (of_image, problem) = health(declared.healthcheck.as_ref(), config);
        config.health.of_image = of_image;
        Ok(problem
            .into_iter()
            .chain(not_kept(&declared, config))
            .collect())
    }
}

impl Deployer {
    /// What an image says of its processes. One of another registry is pulled for that.
    ///
    /// # Errors
    /// It cannot be found or read.
    pub async fn describe(&self, asked: ImageQuery) -> Result<ImageDescription, DeployError> {
        let _guard = self.images.guard().await;
        let registry = asked.default_registry.as_deref();
        let found = self
            .find_or_default("image", &asked.image, registry)
            .await?;
        let (digest, name) = found.ok_or_else(|| DeployError::NoImage {
            key: "image".to_owned(),
            advice: format!("{:?} is no name of an image: write name:tag", asked.image),
        })?;
        let said = self.images.description(&digest).await?;
        Ok(ImageDescription {
            name,
            digest: Some(digest),
            entrypoint: said.entrypoint,
            cmd: said.cmd,
            exposed_ports: said.exposed_ports,
            user: said.user,
            volumes: said.volumes,
            working_dir: said.working_dir,
            stop_signal: said.stop_signal,
            health: said.healthcheck.as_ref().map(in_terms_of_services),
        })
    }
}

/// The health check of an image in a service's terms; or why it is not used, although the configuration has none.
fn health(
    found: Result<&Option<Healthcheck>, &String>,
    config: &ServiceConfig,
) -> (Option<ImageHealth>, Option<String>) {
    if config.is_job() || !config.health.may_be_images() {
        return (None, None);
    }
    match found {
        Ok(check) => (check.as_ref().map(in_terms_of_services), None),
        Err(why) => {
            let warning = format!(
                "the image's HEALTHCHECK cannot be used: {why}. Configure `health`, or `health.image = false`"
            );
            (None, Some(warning))
        }
    }
}

fn in_terms_of_services(check: &Healthcheck) -> ImageHealth {
    let times = [check.interval, check.timeout, check.start_period].map(Span);
    ImageHealth::of_docker(check.command.clone(), times, check.retries)
}

/// The declared volumes in whose place the service has nothing that is kept.
fn not_kept(declared: &Declared, config: &ServiceConfig) -> Vec<String> {
    if config.is_job() {
        return Vec::new();
    }
    let volumes = config.volume.iter().map(|it| &it.path);
    let mounts = config.mount.iter().map(|it| &it.path);
    let given: Vec<&String> = volumes.chain(mounts).collect();
    let is_given = |path: &str| given.iter().any(|it| is_at_or_below(path, it));
    let mut paths: Vec<String> = declared.volumes.iter().map(|it| plain(it)).collect();
    paths.sort();
    paths.dedup();
    paths.retain(|path| !is_given(path));
    paths
        .iter()
        .map(|path| {
            format!(
                "the image declares the volume {path}, and what is written there is gone when its process ends: `[[volume]]` with path = \"{path}\" keeps it"
            )
        })
        .collect()
}

/// A path as configurations have it.
fn plain(path: &str) -> String {
    let parts: Vec<&str> = path.split('/').filter(|it| !it.is_empty()).collect();
    format!("/{}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use tucano_api::settings::parse;

    fn config(more: &str) -> ServiceConfig {
        let text = format!("name = \"db\"\nconcurrency = 1\nport = 80\n{more}");
        parse("x", &text).unwrap()
    }

    fn check(interval: u64, start_period: u64, retries: u32) -> Healthcheck {
        Healthcheck {
            command: vec!["check".to_owned()],
            interval: Duration::from_secs(interval),
            timeout: Duration::from_secs(30),
            start_period: Duration::from_secs(start_period),
            retries,
        }
    }

    #[test]
    fn it_is_used_where_the_configuration_says_nothing() {
        let found = Ok(Some(check(30, 0, 3)));
        let used = |config: &ServiceConfig| health(found.as_ref(), config).0.is_some();
        assert!(used(&config("")) && used(&config("health = { grace = \"2m\" }")));
        for health in [
            "tcp = true",
            "http = \"/\"",
            "exec = [\"x\"]",
            "port = 80",
            "image = false",
        ] {
            assert!(
                !used(&config(&format!("health = {{ {health} }}"))),
                "{health}"
            );
        }
    }

    #[test]
    fn a_declared_volume_without_anything_in_its_place_is_told() {
        let declared = Declared {
            healthcheck: Ok(None),
            volumes: vec![
                "/data/".to_owned(),
                "/var//lib/db".to_owned(),
                "data".to_owned(),
            ],
        };
        let all = not_kept(&declared, &config(""));
        assert_eq!(all.len(), 2, "{all:?}");
        assert!(
            all[0].contains("the volume /data,") && all[1].contains("path = \"/var/lib/db\""),
            "{all:?}"
        );
        let volume = config(
            "[[volume]]\nname = \"a\"\npath = \"/var/lib\"\nsize = \"64MiB\"\n[[mount]]\npath = \"/data\"\ntmpfs = \"1MiB\"",
        );
        assert_eq!(not_kept(&declared, &volume), Vec::<String>::new());
    }
}
