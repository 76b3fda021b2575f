//! Services that name each other: who is with whom, and apart from whom.

use std::collections::{BTreeMap, BTreeSet};

use tucano_api::{ids::ServiceName, service::ServiceConfig};

use crate::state::State;

/// Which services' rules name which others, by the current revisions.
#[derive(Debug, Clone, Default)]
pub(crate) struct Neighbours {
    /// For each service, those that are to be apart from it.
    apart_from: BTreeMap<ServiceName, BTreeSet<ServiceName>>,
    /// For each service, those whose places depend on where it is.
    dependents: BTreeMap<ServiceName, BTreeSet<ServiceName>>,
}

/// Computes them again, after services were configured or removed.
pub(crate) fn index(state: &mut State) {
    let mut neighbours = Neighbours::default();
    for (name, service) in &state.services {
        let placement = &service.current().config.placement;
        for other in placement.with.iter().chain(&placement.apart_from) {
            add(&mut neighbours.dependents, other, name);
        }
        for other in &placement.apart_from {
            add(&mut neighbours.apart_from, other, name);
            add(&mut neighbours.dependents, name, other);
        }
    }
    state.neighbours = neighbours;
}

fn add(
    map: &mut BTreeMap<ServiceName, BTreeSet<ServiceName>>,
    key: &ServiceName,
    value: &ServiceName,
) {
    map.entry(key.clone()).or_default().insert(value.clone());
}

/// The services that are to be apart from this one.
pub(super) fn apart_from<'a>(
    state: &'a State,
    name: &ServiceName,
) -> impl Iterator<Item = &'a ServiceName> + use<'a> {
    let others = state.neighbours.apart_from.get(name);
    others.into_iter().flatten()
}

/// The services whose places depend on where this one is.
pub(crate) fn dependents<'a>(
    state: &'a State,
    name: &ServiceName,
) -> impl Iterator<Item = &'a ServiceName> + use<'a> {
    let others = state.neighbours.dependents.get(name);
    others.into_iter().flatten()
}

/// Why the services that a configuration names, and those that name it, can never be as they are to be. A message for the user,
/// with the key.
pub(crate) fn obstacle(state: &State, config: &ServiceConfig) -> Option<String> {
    let placement = &config.placement;
    for (key, names) in [
        ("with", &placement.with),
        ("apart_from", &placement.apart_from),
    ] {
        let mut unknown = names
            .iter()
            .filter(|name| !state.services.contains_key(name));
        if let Some(unknown) = unknown.next() {
            return Some(format!(
                "placement.{key}: there is no service {unknown}: deploy it first, or remove it from the list"
            ));
        }
    }
    let graph = Graph { state, config };
    if let Some(path) = graph.path(&config.name, &config.name) {
        let path: Vec<&str> = path.iter().map(|name| name.as_str()).collect();
        return Some(format!(
            "placement.with: {} is to be with itself in the end ({}): none of them could be placed first",
            config.name,
            path.join(" with ")
        ));
    }
    graph.contradiction()
}

/// The names of the services that a service is on one worker with, by all their rules.
pub(super) fn together(state: &State, config: &ServiceConfig) -> BTreeSet<ServiceName> {
    let graph = Graph { state, config };
    graph.together(&config.name).into_iter().cloned().collect()
}

/// The services as they are configured, with one that is to be.
struct Graph<'a> {
    state: &'a State,
    config: &'a ServiceConfig,
}

impl<'a> Graph<'a> {
    fn config(&self, name: &ServiceName) -> Option<&'a ServiceConfig> {
        if *name == self.config.name {
            return Some(self.config);
        }
        Some(&self.state.services.get(name)?.current().config)
    }

    fn with(&self, name: &ServiceName) -> &'a [ServiceName] {
        self.config(name).map_or(&[], |it| &it.placement.with)
    }

    fn is_apart(&self, a: &ServiceName, b: &ServiceName) -> bool {
        let names = |of: &ServiceName, other: &ServiceName| {
            let config = self.config(of);
            config.is_some_and(|it| it.placement.apart_from.contains(other))
        };
        names(a, b) || names(b, a)
    }

    /// The way from one service to another by `with`, of at least one step.
    fn path(&self, from: &'a ServiceName, to: &ServiceName) -> Option<Vec<&'a ServiceName>> {
        let mut before: BTreeMap<&ServiceName, &ServiceName> = BTreeMap::new();
        let mut next = vec![from];
        while let Some(name) = next.pop() {
            for other in self.with(name) {
                if other == to {
                    let mut path = vec![other, name];
                    let mut at = name;
                    while at != from
                        && let Some(earlier) = before.get(at)
                    {
                        path.push(earlier);
                        at = earlier;
                    }
                    path.reverse();
                    return Some(path);
                }
                if other != from && !before.contains_key(other) {
                    before.insert(other, name);
                    next.push(other);
                }
            }
        }
        None
    }

    /// A service and all that it is with, directly or not.
    fn together(&self, name: &'a ServiceName) -> BTreeSet<&'a ServiceName> {
        let mut all = BTreeSet::from([name]);
        let mut next = vec![name];
        while let Some(name) = next.pop() {
            let others = self.with(name).iter();
            next.extend(others.filter(|other| all.insert(*other)));
        }
        all
    }

    /// Two services that are to be with a third one, or one with the other, and apart.
    fn contradiction(&self) -> Option<String> {
        let names = self
            .state
            .services
            .keys()
            .filter(|it| **it != self.config.name);
        let has_rules = |name: &&ServiceName| !self.with(name).is_empty();
        let names = std::iter::once(&self.config.name).chain(names.filter(has_rules));
        for name in names {
            let together = self.together(name);
            if !together.contains(&self.config.name) {
                continue;
            }
            for (index, a) in together.iter().enumerate() {
                let mut later = together.iter().skip(index + 1);
                if let Some(b) = later.find(|b| self.is_apart(a, b)) {
                    return Some(format!(
                        "placement.apart_from: {a} and {b} are to be apart, and {name} is to be on one worker with {}: remove one of both rules",
                        match (*a == name, *b == name) {
                            (true, _) => b.to_string(),
                            (_, true) => a.to_string(),
                            _ => "both of them".to_owned(),
                        }
                    ));
                }
            }
        }
        None
    }
}
