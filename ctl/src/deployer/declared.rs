//! What an image says of its processes: how their health is checked, and which of their directories are to be kept.

use std::time::Duration;

use tucano_api::{
    ids::Digest,
    service::{ImageHealth, ServiceConfig, is_at_or_below},
    units::Span,
};
use tucano_oci_image::Healthcheck;

use super::{DeployError, Deployer, images::Declared};

/// Shortest time between two probes, and longest times, as for a service's own.
const LEAST: Duration = Duration::from_millis(100);
const LONGEST_INTERVAL: Duration = Duration::from_secs(3600);
const LONGEST_TIMEOUT: Duration = Duration::from_secs(600);
const LONGEST_GRACE: Duration = Duration::from_secs(86_400);
/// Least time for the first answer, whatever the image says: that of services without a health check.
const LEAST_GRACE: Duration = Duration::from_secs(30);

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

/// After `start_period`, Docker gives up on a process with as many failures as `retries`.
fn in_terms_of_services(check: &Healthcheck) -> ImageHealth {
    let interval = check.interval.clamp(LEAST, LONGEST_INTERVAL);
    let failures = interval.saturating_mul(check.retries);
    let grace = check.start_period.saturating_add(failures);
    ImageHealth {
        exec: check.command.clone(),
        interval: Span(interval),
        timeout: Span(check.timeout.clamp(LEAST, LONGEST_TIMEOUT)),
        grace: Span(grace.clamp(LEAST_GRACE, LONGEST_GRACE)),
    }
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
    fn times_are_those_after_which_docker_gives_a_process_up() {
        for (check, expected) in [
            (check(30, 0, 3), (30, 30, 90)),
            (check(5, 60, 2), (5, 30, 70)),
            (check(1, 0, 1), (1, 30, 30)),
            (check(90_000, 0, u32::MAX), (3600, 30, 86_400)),
        ] {
            let health = in_terms_of_services(&check);
            let seconds = [health.interval, health.timeout, health.grace].map(|it| it.0.as_secs());
            assert_eq!(seconds, <[u64; 3]>::from(expected));
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
