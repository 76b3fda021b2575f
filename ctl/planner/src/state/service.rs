use std::collections::BTreeSet;

use tucano_api::{
    ids::{Digest, Revision},
    reasons::PendingReason,
    routes::ServiceRoute,
    service::ServiceConfig,
    units::Timestamp,
};

use super::process::Process;
use crate::model::{Platforms, RevisionRecord, ServiceRecord};

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
    /// How many workers have a process, or may have one, where there is one on each.
    pub(crate) everywhere: usize,
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
            everywhere: 0,
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

    /// How many processes it is to have.
    pub(crate) fn concurrency(&self) -> usize {
        match self.is_everywhere() {
            true => self.everywhere,
            false => self.current().config.concurrency as usize,
        }
    }

    /// Whether it has one process on each worker.
    pub(crate) fn is_everywhere(&self) -> bool {
        self.current().config.placement.everywhere
    }

    /// Adds a revision, or changes the concurrency, which belongs to none. False where nothing differs.
    pub(crate) fn revise(
        &mut self,
        config: ServiceConfig,
        image: Digest,
        platforms: Platforms,
        now: Timestamp,
    ) -> bool {
        let current = self.current();
        let concurrency = config.concurrency;
        let scaled = ServiceConfig {
            concurrency,
            ..current.config.clone()
        };
        let same_platforms = current.platforms == platforms;
        if scaled == config && current.image == image && same_platforms {
            let changed = current.config.concurrency != concurrency;
            self.set_concurrency(concurrency);
            return changed;
        }
        let revision = current.revision.next();
        let new = RevisionRecord {
            revision,
            config,
            image,
            platforms,
            configured_at: now,
        };
        let compatible =
            current.has_image_of(&new) && current.config.differs_in_routes_only(&new.config);
        if !compatible {
            self.record.compatible_from = revision;
        }
        self.record.revisions.push(new);
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
