//! Secrets: which versions exist, which revisions have them, and which of a worker's processes need them. Values are sealed; the
//! planner cannot read them.

use std::collections::BTreeSet;

use tucano_api::{
    ids::{NodeName, ProcessId, SecretName, ServiceName},
    secrets::{SecretUser, SecretVersion, SecretView},
    service::ServiceConfig,
    volumes::{FillSource, Repository},
};

use crate::{
    backups,
    model::{Sealed, SealedVersion, SecretRecord},
    services,
    state::State,
    volumes,
};

/// Gives each secret of a configuration that has no version its newest one. Returns the secrets that do not exist.
pub(crate) fn resolve(state: &State, config: &mut ServiceConfig) -> Vec<SecretName> {
    let mut missing = Vec::new();
    for secret in &mut config.secret {
        let record = state.secrets.get(&secret.name);
        let version = secret.version;
        let found = match (record, version) {
            (Some(record), None) => record.newest().map(|newest| newest.version),
            (Some(record), Some(version)) => record.version(version).map(|it| it.version),
            (None, _) => None,
        };
        match found {
            Some(version) => secret.version = Some(version),
            // Once, although it may be a file and a variable.
            None if missing.contains(&secret.name) => {}
            None => missing.push(secret.name.clone()),
        }
    }
    // Backups use the newest version, whatever the revision.
    for name in config.backup_secrets() {
        if !state.secrets.contains_key(name) && !missing.contains(name) {
            missing.push(name.clone());
        }
    }
    missing
}

/// The number of the next version of any secret. It is larger than every number before, also of another controller that had this
/// cluster: agents keep values by their numbers. It has no other meaning.
pub(crate) fn next_version(state: &State) -> u64 {
    let now_seconds = state.now.0 / 1000;
    let revisions = state.services.values();
    let revisions = revisions.flat_map(|it| it.record.revisions.iter().chain(&it.record.held));
    let referenced = revisions.flat_map(|it| it.config.secret.iter().filter_map(|it| it.version));
    let last = referenced.max().unwrap_or(0);
    last.max(state.counters.last_secret_version)
        .max(now_seconds.saturating_sub(1))
        .saturating_add(1)
}

/// Adds a version. The services whose current revision has the secret get a revision with it.
pub(crate) fn set(state: &mut State, name: SecretName, version: u64, sealed: Sealed) {
    if version <= state.counters.last_secret_version {
        return;
    }
    state.counters.last_secret_version = version;
    state.changes.counters = true;
    let record = state
        .secrets
        .entry(name.clone())
        .or_insert_with(|| SecretRecord {
            name: name.clone(),
            versions: Vec::new(),
        });
    record.versions.push(SealedVersion {
        version,
        sealed,
        set_at: state.now,
    });
    for service in current_users(state, &name) {
        let Some(current) = state.services.get(&service).map(|it| it.newest().clone()) else {
            continue;
        };
        let mut config = current.config;
        if config.secret.iter().all(|it| it.name != name) {
            // Its backups use the new value without a new revision.
            continue;
        }
        for secret in config.secret.iter_mut().filter(|it| it.name == name) {
            secret.version = Some(version);
        }
        services::configure(state, config, current.image, current.platforms);
    }
    prune(state, [name]);
}

/// Removes a secret. Revisions that have it can no longer be rolled back to.
pub(crate) fn remove(state: &mut State, name: &SecretName) {
    if state.secrets.remove(name).is_some() {
        state.changes.secrets.insert(name.clone());
    }
}

/// Replaces sealed values by the same ones, sealed with another key. A version that is no longer there stays away.
pub(crate) fn reseal(state: &mut State, records: Vec<SecretRecord>) {
    for resealed in records {
        let Some(record) = state.secrets.get_mut(&resealed.name) else {
            continue;
        };
        for version in &mut record.versions {
            if let Some(new) = resealed.version(version.version) {
                version.sealed = new.sealed.clone();
            }
        }
        state.changes.secrets.insert(resealed.name);
    }
}

/// Drops the versions of these secrets that are neither the newest nor in a revision.
pub(crate) fn prune(state: &mut State, names: impl IntoIterator<Item = SecretName>) {
    for name in names {
        let used: BTreeSet<u64> = users(state, &name).map(|user| user.version).collect();
        let Some(record) = state.secrets.get_mut(&name) else {
            continue;
        };
        let newest = record.newest().map(|it| it.version);
        record
            .versions
            .retain(|it| Some(it.version) == newest || used.contains(&it.version));
        state.changes.secrets.insert(name);
    }
}

/// Every secret, by name.
pub(crate) fn show(state: &State) -> Vec<SecretView> {
    let views = state.secrets.values().filter_map(|record| {
        let newest = record.newest()?;
        Some(SecretView {
            name: record.name.clone(),
            version: newest.version,
            set_at: newest.set_at,
            users: users(state, &record.name).collect(),
        })
    });
    views.collect()
}

/// The revisions that have a secret.
pub(crate) fn users(state: &State, name: &SecretName) -> impl Iterator<Item = SecretUser> {
    let revisions = state.services.values().flat_map(|service| {
        let current = service.newest().revision;
        let revisions = service.record.revisions.iter().chain(&service.record.held);
        revisions
            .map(move |revision| (&service.record.name, revision, revision.revision == current))
    });
    revisions.filter_map(move |(service, revision, current)| {
        let mut secrets = revision.config.secret.iter();
        // One that has a removed version cannot start in any case.
        let is_stored = |version: Option<u64>| {
            let record = state.secrets.get(name);
            version.is_some_and(|version| record.is_some_and(|it| it.version(version).is_some()))
        };
        let secret = secrets.find(|it| it.name == *name && is_stored(it.version));
        let of_backup = || {
            let mut secrets = revision.config.backup_secrets();
            let record = state.secrets.get(name);
            let newest = record.and_then(|record| record.newest())?;
            secrets.any(|it| it == name).then_some(newest.version)
        };
        let version = secret.and_then(|it| it.version).or_else(of_backup)?;
        Some(SecretUser {
            service: service.clone(),
            revision: revision.revision,
            current,
            version,
        })
    })
}

/// Whether a process on this worker needs a version of a secret.
pub(crate) fn is_needed(state: &State, node: &NodeName, wanted: &SecretVersion) -> bool {
    let Some(index) = state.node_index.get(node) else {
        return false;
    };
    let repositories = repositories(state, node);
    let mut secrets = repositories.iter().flat_map(Repository::secrets);
    if secrets.any(|secret| secret == wanted) {
        return true;
    }
    let numbers = state.nodes[*index].all_processes();
    let mut processes = state.processes(&numbers);
    processes.any(|process| {
        let revision = state.revision_of(&process.record);
        revision.is_some_and(|revision| {
            let mut secrets = revision.config.secret.iter();
            secrets.any(|it| it.name == wanted.name && it.version == Some(wanted.version))
        })
    })
}

/// The repositories of backups that a worker reads or writes.
fn repositories(state: &State, node: &NodeName) -> Vec<Repository> {
    let fills = volumes::fills::of_node(state, node).into_iter();
    let restored = fills.filter_map(|fill| match fill.from {
        FillSource::Snapshot { repository, .. } => Some(repository),
        FillSource::Volume { .. } => None,
    });
    let loads = state.volumes.on(node);
    let loads = loads.filter_map(|record| volumes::restores::load(state, record));
    let orders = backups::orders(state, node).into_iter();
    let orders = orders.map(|order| order.repository);
    let restored = restored.chain(loads.map(|load| load.repository));
    restored.chain(orders).collect()
}

/// A process whose revision has a secret.
pub(crate) fn process_with(state: &State, name: &SecretName) -> Option<ProcessId> {
    let mut processes = state.processes.values();
    let found = processes.find(|process| {
        let revision = state.revision_of(&process.record);
        revision.is_some_and(|it| it.config.secret.iter().any(|it| it.name == *name))
    });
    found.map(|process| process.record.id.clone())
}

fn current_users(state: &State, name: &SecretName) -> Vec<ServiceName> {
    let users = users(state, name).filter(|user| user.current);
    users.map(|user| user.service).collect()
}
