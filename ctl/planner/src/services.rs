//! Configuring and removing services, and their revisions.

use std::collections::{BTreeMap, BTreeSet};

use tucano_api::{
    ids::{Digest, Revision, SecretName, ServiceName},
    service::ServiceConfig,
};

use crate::{
    jobs, lifecycle,
    model::{Configured, Platforms, RevisionRecord, ServiceRecord},
    rules, secrets, slots,
    state::{Revised, Service, State, hosts, path_prefix},
    volumes,
};

/// Why this configuration cannot be accepted beside the others: another service has the same host and path prefix. A
/// message for the user.
pub(crate) fn conflict(state: &State, config: &ServiceConfig) -> Option<String> {
    if let Some(service) = state.services.get(&config.name)
        && jobs::is_job(service) != config.is_job()
    {
        let name = &config.name;
        return Some(format!(
            "kind: {name} is configured, and a service does not become a job, nor a job a service: remove {name} first"
        ));
    }
    if config.is_job() {
        return None;
    }
    let wanted = hosts(config, &state.settings.domain);
    let others = state.services.values().flat_map(|service| {
        let upcoming = service.upcoming();
        std::iter::once(service.current()).chain(upcoming)
    });
    others
        .map(|record| &record.config)
        .filter(|other| other.name != config.name && !other.is_job())
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

/// Adds services, or revisions of them.
pub(crate) fn configure_all(state: &mut State, services: Vec<Configured>) {
    for Configured {
        config,
        image,
        platforms,
    } in services
    {
        configure(state, *config, image, platforms);
    }
}

/// Adds a service or a revision of it.
pub(crate) fn configure(
    state: &mut State,
    config: ServiceConfig,
    image: Digest,
    platforms: Platforms,
) {
    let name = config.name.clone();
    let undone = jobs::hooks::undone(state, &name);
    let revised = match state.services.get_mut(&name) {
        // The one of this name is another thing, and stays what it is.
        Some(service) if jobs::is_job(service) != config.is_job() => return,
        Some(service) => service.revise(config, (image, platforms), &undone, state.now),
        None => {
            add(state, config, image, platforms);
            Revised::Revision(Revision(1))
        }
    };
    match revised {
        Revised::Same => {
            jobs::hooks::retry(state, &name);
            return;
        }
        Revised::Revision(revision) => jobs::hooks::configured(state, &name, revision),
        Revised::Scaled => {}
    }
    neighbours_changed(state, &name);
    state.changes.prune.insert(name.clone());
    state.changes.services.insert(name.clone());
    state.changes.unaddressed.insert(name.clone());
    state.changes.reconcile.insert(name.clone());
    state.changes.reroute.insert(name);
}

/// Has all processes replaced by ones of the current revision, as a rollout does it. A job has none between its runs.
pub(crate) fn restart(state: &mut State, name: &ServiceName) {
    let next = state.counters.last_process.saturating_add(1);
    let service = state.services.get_mut(name);
    let Some(service) = service.filter(|it| !jobs::is_job(it)) else {
        return;
    };
    service.record.replaced_below = next;
    state.changes.services.insert(name.clone());
    state.changes.reconcile.insert(name.clone());
    state.changes.reroute.insert(name.clone());
}

/// Removes a service with all its processes at once. Its volumes stay, unless they are to be removed too.
pub(crate) fn remove(state: &mut State, name: &ServiceName, with_volumes: bool) {
    let Some(service) = state.services.remove(name) else {
        return;
    };
    for number in service.processes.into_iter().chain(service.runs) {
        lifecycle::remove(state, number);
    }
    jobs::remove(state, name);
    let revisions = [service.record.revisions, service.record.held].concat();
    let secrets = secrets_of(&revisions);
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
    let of_runs: BTreeSet<Revision> = jobs::revisions_in_use(state, name).collect();
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
        .chain(of_runs)
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
        replaced_below: 0,
        held: Vec::new(),
        upcoming: None,
        last_held: None,
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
