//! Services and their revisions.

use std::collections::BTreeSet;

use tucano_api::{
    ids::{Digest, Revision, ServiceName},
    routes::ServiceRoute,
    service::ServiceConfig,
    state::Pending,
    units::Timestamp,
};

use crate::{
    cluster::Cluster,
    model::{RevisionRecord, ServiceRecord},
    processes::Process,
    routes::{hosts, path_prefix},
};

/// A configured service.
#[derive(Debug, Clone)]
pub(crate) struct Service {
    /// Its revisions are never empty.
    pub(crate) record: ServiceRecord,
    /// Numbers of all its processes, draining ones too.
    pub(crate) processes: BTreeSet<u64>,
    /// What could not be placed.
    pub(crate) pending: Vec<Pending>,
    /// Its part of the route table, once it was made.
    pub(crate) route: Option<ServiceRoute>,
    /// Whether some worker has more than one process more than another.
    pub(crate) uneven: bool,
    /// Whether a process was stopped so that one of the current revision fits.
    pub(crate) making_room: bool,
}

impl Service {
    pub(crate) fn new(record: ServiceRecord) -> Self {
        Self {
            record,
            processes: BTreeSet::new(),
            pending: Vec::new(),
            route: None,
            uneven: false,
            making_room: false,
        }
    }

    /// The current revision.
    pub(crate) fn current(&self) -> &RevisionRecord {
        let last = self.record.revisions.last();
        last.expect("a service has at least the revision it was made with")
    }

    pub(crate) fn revision(&self, revision: Revision) -> Option<&RevisionRecord> {
        let mut revisions = self.record.revisions.iter();
        revisions.find(|record| record.revision == revision)
    }

    /// Whether a process runs what the current revision says, in as far as it concerns processes.
    pub(crate) fn is_current(&self, process: &Process) -> bool {
        process.record.revision >= self.record.compatible_from
    }

    pub(crate) fn concurrency(&self) -> usize {
        self.current().config.concurrency as usize
    }

    /// Adds a revision. Whether something differs from the current one.
    fn revise(&mut self, config: ServiceConfig, image: Digest, now: Timestamp) -> bool {
        let current = self.current();
        if current.config == config && current.image == image {
            return false;
        }
        let revision = current.revision.next();
        let compatible = current.image == image && current.config.same_process(&config);
        if !compatible {
            self.record.compatible_from = revision;
        }
        self.record.revisions.push(RevisionRecord {
            revision,
            config,
            image,
            configured_at: now,
        });
        true
    }
}

impl Cluster {
    /// Why this configuration cannot be put into force beside the others: another service answers to the same
    /// host and path. In words for a person.
    pub fn conflict(&self, config: &ServiceConfig) -> Option<String> {
        let wanted = hosts(config, &self.settings.domain);
        let others = self
            .services
            .values()
            .map(|service| &service.current().config);
        others
            .filter(|other| other.name != config.name)
            .filter(|other| path_prefix(other) == path_prefix(config))
            .find_map(|other| {
                let taken = hosts(other, &self.settings.domain);
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

    pub(crate) fn configure_service(&mut self, config: ServiceConfig, image: Digest) {
        let name = config.name.clone();
        match self.services.get_mut(&name) {
            Some(service) => {
                if !service.revise(config, image, self.now) {
                    return;
                }
            }
            None => self.add_service(config, image),
        }
        self.changes.prune.insert(name.clone());
        self.changes.services.insert(name.clone());
        self.changes.reconcile.insert(name.clone());
        self.changes.reroute.insert(name);
    }

    pub(crate) fn remove_service(&mut self, name: &ServiceName) {
        let Some(service) = self.services.remove(name) else {
            return;
        };
        for number in service.processes {
            self.forget(number);
        }
        self.changes.services.insert(name.clone());
        self.changes.publish = true;
    }

    /// Drops what exceeds the number of revisions to keep, but none that a process still runs.
    pub(crate) fn drop_revisions(&mut self, name: &ServiceName) {
        let Some(service) = self.services.get_mut(name) else {
            return;
        };
        let kept = self.settings.revisions_kept.max(1);
        let revisions = &mut service.record.revisions;
        let Some(excess) = revisions.len().checked_sub(kept).filter(|n| *n > 0) else {
            return;
        };
        let in_use: BTreeSet<Revision> = service
            .processes
            .iter()
            .filter_map(|number| Some(self.processes.get(number)?.record.revision))
            .collect();
        let first_kept = revisions[excess].revision;
        let before = revisions.len();
        revisions.retain(|r| r.revision >= first_kept || in_use.contains(&r.revision));
        if revisions.len() != before {
            self.changes.services.insert(name.clone());
        }
    }

    fn add_service(&mut self, config: ServiceConfig, image: Digest) {
        let record = ServiceRecord {
            name: config.name.clone(),
            compatible_from: Revision(1),
            revisions: vec![RevisionRecord {
                revision: Revision(1),
                config,
                image,
                configured_at: self.now,
            }],
        };
        self.services
            .insert(record.name.clone(), Service::new(record));
    }
}
