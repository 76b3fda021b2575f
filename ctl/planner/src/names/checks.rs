//! Whether a service can be configured as it needs others, and removed as others need it. Messages for the user.

use std::collections::BTreeSet;

use tucano_api::{ids::ServiceName, service::ServiceConfig};

use super::{addresses, reachable_from};
use crate::{messages::some_of, state::State};

/// The services that a configuration names and that do not exist, with the keys that name them.
pub(crate) fn unknown(state: &State, config: &ServiceConfig) -> Option<String> {
    [
        ("needs", &config.needs),
        ("start_after", &config.start_after),
    ]
    .into_iter()
    .find_map(|(key, services)| {
        let is_unknown =
            |it: &&ServiceName| **it != config.name && !state.services.contains_key(*it);
        let unknown: Vec<String> = services
            .iter()
            .filter(is_unknown)
            .map(ToString::to_string)
            .collect();
        let is = if unknown.len() == 1 {
            "is no service"
        } else {
            "are no services"
        };
        (!unknown.is_empty()).then(|| {
            format!(
                "{key} of {}: there {is} {}: deploy it first",
                config.name,
                some_of(unknown)
            )
        })
    })
}

/// Why a configuration that names services which exist cannot be accepted.
pub(crate) fn obstacle(state: &State, config: &ServiceConfig) -> Option<String> {
    circle(state, config).or_else(|| no_address(state, config))
}

/// Why a service cannot be removed: others need it.
pub(crate) fn removal_obstacle(state: &State, name: &ServiceName) -> Option<String> {
    let mut needing = reachable_from(state, name);
    needing.remove(name);
    if needing.is_empty() {
        return None;
    }
    let needing: Vec<String> = needing.iter().map(ToString::to_string).collect();
    Some(format!(
        "{name} is needed by {}: take it out of their `needs`, or remove them, first",
        some_of(needing)
    ))
}

/// Services of which each starts after another one never start.
fn circle(state: &State, config: &ServiceConfig) -> Option<String> {
    let mut seen = BTreeSet::new();
    let mut next: Vec<&ServiceName> = config.start_after.iter().collect();
    while let Some(name) = next.pop() {
        if *name == config.name {
            return Some(format!(
                "start_after of {}: it would wait for itself, by way of services that start after it",
                config.name
            ));
        }
        if let Some(service) = state.services.get(name).filter(|_| seen.insert(name)) {
            next.extend(&service.current().config.start_after);
        }
    }
    None
}

fn no_address(state: &State, config: &ServiceConfig) -> Option<String> {
    let missing = addresses::missing(state, config);
    let free = addresses::free(state);
    (missing > free).then(|| {
        format!(
            "{} takes {missing} more addresses, and {} has {free} left: remove services, or have a larger service_subnet in ctl.toml",
            config.name, state.settings.service_subnet
        )
    })
}
