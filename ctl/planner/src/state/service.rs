use std::collections::BTreeSet;

use tucano_api::{
    ids::{Digest, Revision},
    reasons::PendingReason,
    routes::ServiceRoute,
    service::ServiceConfig,
    units::Timestamp,
};

use super::process::Process;
use crate::model::{RevisionRecord, ServiceRecord};

/// Processes that are not placed.
#[derive(Debug, Clone)]
pub(crate) struct Unplaced {
    pub(crate) count: u32,
    pub(crate) reason: PendingReason,
}

/// A configured service.
#[derive(Debug, Clone)]
pub(crate) struct Service {
    /// Never without a revision.
    pub(crate) record: ServiceRecord,
    /// Numbers of all its processes, draining ones too.
    pub(crate) processes: BTreeSet<u64>,
    /// Processes that are not placed, with the reason.
    pub(crate) pending: Vec<Unplaced>,
    /// Its part of the route table, once it was computed.
    pub(crate) route: Option<ServiceRoute>,
    /// Whether one worker has at least two processes more than another.
    pub(crate) uneven: bool,
    /// Whether a process was stopped to make room for one of the current revision.
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
        last.expect("a service has at least one revision")
    }

    pub(crate) fn revision(&self, revision: Revision) -> Option<&RevisionRecord> {
        let mut revisions = self.record.revisions.iter();
        revisions.find(|record| record.revision == revision)
    }

    /// Whether a process runs what the current revision configures, in as far as it concerns processes.
    pub(crate) fn is_current(&self, process: &Process) -> bool {
        process.record.revision >= self.record.compatible_from
    }

    /// Changes the concurrency, which belongs to no revision.
    pub(crate) fn set_concurrency(&mut self, concurrency: u32) {
        if let Some(current) = self.record.revisions.last_mut() {
            current.config.concurrency = concurrency;
        }
    }

    /// Whether its processes have slots and volumes.
    pub(crate) fn has_volumes(&self) -> bool {
        !self.current().config.volume.is_empty()
    }

    pub(crate) fn concurrency(&self) -> usize {
        self.current().config.concurrency as usize
    }

    /// Adds a revision, or changes the concurrency, which belongs to none. False where nothing differs.
    pub(crate) fn revise(&mut self, config: ServiceConfig, image: Digest, now: Timestamp) -> bool {
        let current = self.current();
        let concurrency = config.concurrency;
        let scaled = ServiceConfig {
            concurrency,
            ..current.config.clone()
        };
        if scaled == config && current.image == image {
            let changed = current.config.concurrency != concurrency;
            self.set_concurrency(concurrency);
            return changed;
        }
        let revision = current.revision.next();
        let compatible = current.image == image && current.config.differs_in_routes_only(&config);
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

/// Host names that a service answers to, in lower case. The first is its own one below the domain. None without
/// a port for requests.
pub(crate) fn hosts(config: &ServiceConfig, domain: &str) -> Vec<String> {
    if config.http_port().is_none() {
        return Vec::new();
    }
    let own = match domain {
        "" => config.name.to_string(),
        domain => format!("{}.{domain}", config.name),
    };
    let mut hosts: Vec<String> = Vec::new();
    for host in std::iter::once(&own).chain(&config.hosts) {
        let host = host.to_ascii_lowercase();
        if !hosts.contains(&host) {
            hosts.push(host);
        }
    }
    hosts
}

/// The path prefix without a trailing `/`; `None` where it matches all paths.
pub(crate) fn path_prefix(config: &ServiceConfig) -> Option<&str> {
    let prefix = config.path_prefix.as_deref()?.trim_end_matches('/');
    (!prefix.is_empty()).then_some(prefix)
}

/// An entry for `count` processes that cannot be placed, if there are any.
pub(crate) fn pending(count: usize, reason: PendingReason) -> Vec<Unplaced> {
    let count = u32::try_from(count).unwrap_or(u32::MAX);
    if count == 0 {
        return Vec::new();
    }
    vec![Unplaced { count, reason }]
}
