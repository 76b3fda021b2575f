//! Configuring and removing services, and their revisions.

use std::collections::{BTreeMap, BTreeSet};

use tucano_api::{
    ids::{Digest, Revision, SecretName, ServiceName},
    service::ServiceConfig,
};

use crate::{
    lifecycle,
    model::{Platforms, RevisionRecord, ServiceRecord},
    rules, secrets, slots,
    state::{Service, State, hosts, path_prefix},
    volumes,
};

/// Why this configuration cannot be accepted beside the others: another service has the same host and path prefix. A
/// message for the user.
pub(crate) fn conflict(state: &State, config: &ServiceConfig) -> Option<String> {
    let wanted = hosts(config, &state.settings.domain);
    let others = state
        .services
        .values()
        .map(|service| &service.current().config);
    others
        .filter(|other| other.name != config.name)
        .filter(|other| path_prefix(other) == path_prefix(config))
        .find_map(|other| {
            let taken = hosts(other, &state.settings.domain);
            let host = wanted.iter().find(|host| taken.contains(host))?;
            Some(format!(
                "host {host:?} with path prefix {:?} already belongs to service {}: \
                 give {} another host or path_prefix, or remove {} first",
                path_prefix(config).unwrap_or("/"),
                other.name,
                config.name,
                other.name,
            ))
        })
}

/// Adds a service or a revision of it.
pub(crate) fn configure(
    state: &mut State,
    config: ServiceConfig,
    image: Digest,
    platforms: Platforms,
) {
    let name = config.name.clone();
    match state.services.get_mut(&name) {
        Some(service) => {
            if !service.revise(config, image, platforms, state.now) {
                return;
            }
        }
        None => add(state, config, image, platforms),
    }
    neighbours_changed(state, &name);
    state.changes.prune.insert(name.clone());
    state.changes.services.insert(name.clone());
    state.changes.unaddressed.insert(name.clone());
    state.changes.reconcile.insert(name.clone());
    state.changes.reroute.insert(name);
}

/// Removes a service with all its processes at once. Its volumes stay, unless they are to be removed too.
pub(crate) fn remove(state: &mut State, name: &ServiceName, with_volumes: bool) {
    let Some(service) = state.services.remove(name) else {
        return;
    };
    for number in service.processes {
        lifecycle::remove(state, number);
    }
    let secrets = secrets_of(&service.record.revisions);
    secrets::prune(state, secrets);
    for node in &mut state.nodes {
        node.lost.retain(|_, process| process.service != *name);
    }
    slots::release(state, name);
    state.awaiting_start.remove(name);
    state.changes.renamed.insert(name.clone());
    neighbours_changed(state, name);
    if with_volumes {
        volumes::remove_all_of(state, name);
    }
    state.changes.services.insert(name.clone());
    state.changes.publish = true;
}

/// Drops the oldest revisions beyond the number to keep, except those that a process runs.
pub(crate) fn prune_revisions(state: &mut State, name: &ServiceName) {
    let Some(service) = state.services.get_mut(name) else {
        return;
    };
    let kept = state.settings.revisions_kept.max(1);
    let revisions = &mut service.record.revisions;
    let Some(excess) = revisions.len().checked_sub(kept).filter(|n| *n > 0) else {
        return;
    };
    let processes = service.processes.iter();
    let in_use: BTreeSet<Revision> = processes
        .filter_map(|number| Some(state.processes.get(number)?.record.revision))
        .collect();
    let first_kept = revisions[excess].revision;
    let is_kept = |it: &RevisionRecord| it.revision >= first_kept || in_use.contains(&it.revision);
    let (kept, dropped): (Vec<_>, Vec<_>) = revisions.drain(..).partition(is_kept);
    *revisions = kept;
    if !dropped.is_empty() {
        state.changes.services.insert(name.clone());
        secrets::prune(state, secrets_of(&dropped));
    }
}

fn secrets_of(revisions: &[RevisionRecord]) -> BTreeSet<SecretName> {
    let secrets = revisions.iter().flat_map(|it| &it.config.secret);
    secrets.map(|secret| secret.name.clone()).collect()
}

/// The rules of this service, or of those that name it, are others now.
pub(crate) fn neighbours_changed(state: &mut State, name: &ServiceName) {
    let before: Vec<ServiceName> = rules::dependents(state, name).cloned().collect();
    rules::index(state);
    let after: Vec<ServiceName> = rules::dependents(state, name).cloned().collect();
    state.changes.reconcile.extend(before);
    state.changes.reconcile.extend(after);
}

fn add(state: &mut State, config: ServiceConfig, image: Digest, platforms: Platforms) {
    let record = ServiceRecord {
        name: config.name.clone(),
        compatible_from: Revision(1),
        address: None,
        slot_addresses: BTreeMap::new(),
        awaits_start: !config.start_after.is_empty(),
        revisions: vec![RevisionRecord {
            revision: Revision(1),
            config,
            image,
            platforms,
            configured_at: state.now,
        }],
    };
    state
        .services
        .insert(record.name.clone(), Service::new(record));
}
