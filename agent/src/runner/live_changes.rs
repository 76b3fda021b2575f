//! Changes of a desired process that its running container takes. Pure.
//!
//! Most take effect at once. Two have to be accepted first, and the earlier values, with the earlier revision, stay until then:
//!
//! - limits of the cgroup and sizes of volumes, by the kernel, which may refuse them;
//! - the probe of a healthy process, by the process: a wrong probe must not take it out of service.

use tucano_api::{agent::DesiredProcess, service::ServiceConfig};

use super::{
    lifecycle::{Actual, Health, Phase},
    probe::host_of,
};

/// What a container is to be as far as it needs nobody's consent: `desired`, with the limits and the probe of `actual` where
/// those have to be accepted first.
pub(super) fn in_force(actual: &Actual, desired: &DesiredProcess) -> DesiredProcess {
    let mut next = desired.clone();
    let present = &actual.process.config;
    if has_cgroup(actual.phase) && limits_differ(&next.config, present) {
        set_limits(&mut next.config, present);
        next.revision = actual.process.revision;
    }
    if awaits_probe(actual, desired) {
        set_probe(&mut next.config, present);
        next.revision = actual.process.revision;
    }
    next
}

/// Whether the desired probe is used only once the process answers it.
pub(super) fn awaits_probe(actual: &Actual, desired: &DesiredProcess) -> bool {
    let is_healthy = matches!(
        actual.phase,
        Phase::Running {
            health: Health::Healthy,
            ..
        }
    );
    is_healthy && probes_differ(&desired.config, &actual.process.config)
}

/// Whether two configurations, otherwise of the same process, have different limits of the cgroup or sizes of volumes.
pub(super) fn limits_differ(a: &ServiceConfig, b: &ServiceConfig) -> bool {
    (a.memory, a.cpus, a.pids, &a.volume) != (b.memory, b.cpus, b.pids, &b.volume)
}

/// Gives a configuration the limits of the cgroup, and the sizes of volumes, of another.
pub(super) fn set_limits(config: &mut ServiceConfig, from: &ServiceConfig) {
    config.memory = from.memory;
    config.cpus = from.cpus;
    config.pids = from.pids;
    config.volume.clone_from(&from.volume);
}

/// Gives a configuration the probe of another.
pub(super) fn set_probe(config: &mut ServiceConfig, from: &ServiceConfig) {
    config.health = from.health.clone();
    config.hosts.clone_from(&from.hosts);
}

/// Whether two configurations probe differently. How often and for how long is nothing that a process has to answer.
pub(super) fn probes_differ(a: &ServiceConfig, b: &ServiceConfig) -> bool {
    let request = |config: &ServiceConfig| {
        let health = &config.health;
        let http = health.http.as_ref();
        (
            http.map(|path| (path.clone(), health.headers.clone(), host_of(config))),
            health.port,
            health.exec.clone(),
            health.timeout,
        )
    };
    request(a) != request(b)
}

/// Whether it has, or may have, a cgroup with the present limits.
fn has_cgroup(phase: Phase) -> bool {
    matches!(
        phase,
        Phase::Launching | Phase::Running { .. } | Phase::Stopping { .. }
    )
}

#[cfg(test)]
#[path = "live_changes_tests.rs"]
mod tests;
