//! How a process is found healthy.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::units::Span;

/// How a process is found healthy. At most one of `http`, `tcp`, `exec`. When none is given, by the image's own health check, else by
/// a TCP connect; a process without TCP ports is healthy while it runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Health {
    /// Path of a GET request that must answer with a status below 400.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<String>,
    /// `Host` of that request: the first of the service's `hosts` when absent, else the process's address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Further headers of that request.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// Port of the HTTP request or of the TCP connect: the port of requests when absent, else the first one with TCP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// A TCP connect to `port` must succeed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp: Option<bool>,
    /// A command that must exit with 0 inside the container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exec: Option<Vec<String>>,
    /// Time between two probes.
    #[serde(default = "default_interval")]
    pub interval: Span,
    /// A probe that takes longer has failed.
    #[serde(default = "default_timeout")]
    pub timeout: Span,
    /// How long a process may take to answer its first probe before it is restarted; and how long a
    /// once healthy one may go on failing.
    #[serde(default = "default_grace")]
    pub grace: Span,
    /// Whether the image's own health check is used where none of `http`, `tcp`, `exec` and `port` is given: true when absent.
    #[serde(default = "default_image", skip_serializing_if = "Clone::clone")]
    pub image: bool,
    /// The image's own health check. The controller fills it in at the deploy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of_image: Option<ImageHealth>,
}

/// What an image says of the health of its processes (`HEALTHCHECK`), in the terms of [`Health`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ImageHealth {
    /// A command that must exit with 0 inside the container.
    pub exec: Vec<String>,
    /// Time between two probes.
    pub interval: Span,
    /// A probe that takes longer has failed.
    pub timeout: Span,
    /// How long a process may take to answer its first probe, and how long a once healthy one may go on failing.
    pub grace: Span,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            http: None,
            host: None,
            headers: BTreeMap::new(),
            port: None,
            tcp: None,
            exec: None,
            interval: default_interval(),
            timeout: default_timeout(),
            grace: default_grace(),
            image: default_image(),
            of_image: None,
        }
    }
}

/// Shortest time between two probes, and longest times, as for a service's own.
const LEAST: Duration = Duration::from_millis(10);
const LONGEST_INTERVAL: Duration = Duration::from_secs(3600);
const LONGEST_TIMEOUT: Duration = Duration::from_secs(600);
const LONGEST_GRACE: Duration = Duration::from_secs(86_400);

impl ImageHealth {
    /// Docker's check in our terms: a command, its `interval`, `timeout` and `start_period`, and `retries`. Docker gives up on a
    /// process after as many failures, which do not count before the end of the start period.
    pub fn of_docker(exec: Vec<String>, times: [Span; 3], retries: u32) -> Self {
        let [interval, timeout, start_period] = times.map(|it| it.0);
        let interval = interval.clamp(LEAST, LONGEST_INTERVAL);
        let failures = interval.saturating_mul(retries);
        let grace = start_period.saturating_add(failures);
        Self {
            exec,
            interval: Span(interval),
            timeout: Span(timeout.clamp(LEAST, LONGEST_TIMEOUT)),
            grace: Span(grace.clamp(default_grace().0, LONGEST_GRACE)),
        }
    }
}

/// The one probe that a [`Health`] asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probe<'a> {
    /// GET this path.
    Http(&'a str),
    /// Connect to the port.
    Tcp,
    /// Run this command inside the container.
    Exec(&'a [String]),
}

impl Health {
    /// The probe to run.
    pub fn probe(&self) -> Probe<'_> {
        match (&self.http, &self.exec, self.image_in_force()) {
            (Some(path), ..) => Probe::Http(path),
            (None, Some(command), _) => Probe::Exec(command),
            (None, None, Some(of_image)) => Probe::Exec(&of_image.exec),
            (None, None, None) => Probe::Tcp,
        }
    }

    /// Whether the image's own health check would be used, if it has one.
    pub fn may_be_images(&self) -> bool {
        let is_given = self.http.is_some()
            || self.tcp == Some(true)
            || self.exec.is_some()
            || self.port.is_some();
        !is_given && self.image
    }

    fn image_in_force(&self) -> Option<&ImageHealth> {
        self.of_image.as_ref().filter(|_| self.may_be_images())
    }

    /// The same for agents, which know nothing of images' health checks. Times that are not given are the image's.
    #[must_use]
    pub(super) fn for_agents(&self) -> Self {
        let own = Self {
            image: default_image(),
            of_image: None,
            ..self.clone()
        };
        let Some(of_image) = self.image_in_force() else {
            return own;
        };
        let either = |own: Span, default: Span, of_image: Span| match own == default {
            true => of_image,
            false => own,
        };
        Self {
            exec: Some(of_image.exec.clone()),
            interval: either(own.interval, default_interval(), of_image.interval),
            timeout: either(own.timeout, default_timeout(), of_image.timeout),
            grace: either(own.grace, default_grace(), of_image.grace),
            ..own
        }
    }
}

fn default_image() -> bool {
    true
}
fn default_interval() -> Span {
    Span::secs(1)
}
fn default_timeout() -> Span {
    Span::secs(1)
}
fn default_grace() -> Span {
    Span::secs(30)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{service::ServiceConfig, settings::parse};

    fn config(health: &str) -> ServiceConfig {
        let text = format!("name = \"a\"\nconcurrency = 1\nport = 80\nhealth = {{ {health} }}");
        let mut config: ServiceConfig = parse("a", &text).unwrap();
        config.health.of_image = Some(ImageHealth {
            exec: vec!["check".to_owned()],
            interval: Span::secs(30),
            timeout: Span::secs(20),
            grace: Span::secs(90),
        });
        config
    }

    #[test]
    fn times_are_those_after_which_docker_gives_a_process_up() {
        for ((interval, start_period, retries), expected) in [
            ((30, 0, 3), [30, 30, 90]),
            ((5, 60, 2), [5, 30, 70]),
            ((1, 0, 1), [1, 30, 30]),
            ((90_000, 0, u32::MAX), [3600, 30, 86_400]),
        ] {
            let times = [interval, 30, start_period].map(Span::secs);
            let health = ImageHealth::of_docker(vec!["check".to_owned()], times, retries);
            let found = [health.interval, health.timeout, health.grace];
            assert_eq!(found, expected.map(Span::secs));
        }
    }

    #[test]
    fn the_images_check_is_used_where_no_other_probe_is_given() {
        let plain = config("");
        assert_eq!(plain.health.probe(), Probe::Exec(&["check".to_owned()]));
        let sent = plain.for_agents().health;
        assert_eq!(
            (sent.interval, sent.timeout, sent.grace),
            (Span::secs(30), Span::secs(20), Span::secs(90))
        );
        assert_eq!(
            (sent.exec, sent.image, sent.of_image),
            (Some(vec!["check".to_owned()]), true, None)
        );
        let sent = config("interval = \"5s\", grace = \"2m\"")
            .for_agents()
            .health;
        assert_eq!(
            (sent.interval, sent.timeout, sent.grace),
            (Span::secs(5), Span::secs(20), Span::secs(120))
        );
        for (health, probe) in [
            ("tcp = true", Probe::Tcp),
            ("port = 81", Probe::Tcp),
            ("image = false", Probe::Tcp),
            ("http = \"/\"", Probe::Http("/")),
            ("exec = [\"own\"]", Probe::Exec(&["own".to_owned()])),
        ] {
            let own = config(health);
            assert_eq!(own.health.probe(), probe, "{health}");
            let sent = own.for_agents().health;
            assert_eq!(sent.probe(), probe, "{health}");
            assert_eq!((sent.interval, sent.of_image), (Span::secs(1), None));
        }
    }
}
