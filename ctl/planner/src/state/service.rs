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
    /// Numbers of the processes of its runs.
    pub(crate) runs: BTreeSet<u64>,
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
            runs: BTreeSet::new(),
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
        let mut revisions = self.record.revisions.iter().chain(&self.record.held);
        revisions.find(|record| record.revision == revision)
    }

    /// Whether a process runs what the current revision configures, in as far as it concerns processes, and is not to be replaced.
    pub(crate) fn is_current(&self, process: &Process) -> bool {
        self.record.is_current(&process.record)
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

    /// The revision that comes into force when its `before` has succeeded.
    pub(crate) fn upcoming(&self) -> Option<&RevisionRecord> {
        let upcoming = self.record.upcoming?;
        let mut held = self.record.held.iter();
        held.find(|record| record.revision == upcoming)
    }

    /// The revision that was configured last, whether it is in force or not.
    pub(crate) fn newest(&self) -> &RevisionRecord {
        self.upcoming().unwrap_or_else(|| self.current())
    }

    /// Adds a revision, or changes the concurrency, which belongs to none. `undone` are kept revisions whose `before` has not
    /// succeeded.
    pub(crate) fn revise(
        &mut self,
        config: ServiceConfig,
        (image, platforms): (Digest, Platforms),
        undone: &BTreeSet<Revision>,
        now: Timestamp,
    ) -> Revised {
        let is_same = |record: &RevisionRecord| {
            let scaled = ServiceConfig {
                concurrency: config.concurrency,
                ..record.config.clone()
            };
            scaled == config && record.image == image && record.platforms == platforms
        };
        let mut in_force = std::iter::once(self.current()).chain(self.upcoming());
        let scaled = in_force.any(|it| it.config.concurrency != config.concurrency);
        if self.upcoming().is_some_and(is_same) {
            self.scale(config.concurrency);
            return if scaled {
                Revised::Scaled
            } else {
                Revised::Same
            };
        }
        if is_same(self.current()) {
            self.scale(config.concurrency);
            // What was to come is given up.
            let given_up = self.record.upcoming.take().is_some();
            return if scaled || given_up {
                Revised::Scaled
            } else {
                Revised::Same
            };
        }
        let mut earlier = self.record.revisions.iter();
        let is_rollback = earlier.any(|it| is_same(it) && !undone.contains(&it.revision));
        let last = self
            .current()
            .revision
            .max(self.record.last_held.unwrap_or_default());
        let revision = last.next();
        let record = RevisionRecord {
            revision,
            config,
            image,
            platforms,
            configured_at: now,
        };
        let current = self.current();
        let compatible =
            current.has_image_of(&record) && current.config.differs_in_routes_only(&record.config);
        let is_held = record.config.before.is_some() && !compatible && !is_rollback;
        self.record.upcoming = None;
        if is_held {
            self.record.held.push(record);
            self.record.upcoming = Some(revision);
            self.record.last_held = Some(revision);
        } else {
            self.add(record, compatible);
        }
        match compatible || is_rollback {
            true => Revised::Scaled,
            false => Revised::Revision(revision),
        }
    }

    /// Brings the revision that was held back into force.
    pub(crate) fn promote(&mut self) {
        let Some(upcoming) = self.record.upcoming.take() else {
            return;
        };
        let mut held = self.record.held.iter();
        if let Some(index) = held.position(|it| it.revision == upcoming) {
            let record = self.record.held.remove(index);
            self.add(record, false);
        }
    }

    /// Drops held revisions that neither come nor are in use. Whether there were any.
    pub(crate) fn forget_held(&mut self, in_use: &BTreeSet<Revision>) -> bool {
        let before = self.record.held.len();
        let upcoming = self.record.upcoming;
        let is_kept =
            |it: &RevisionRecord| Some(it.revision) == upcoming || in_use.contains(&it.revision);
        self.record.held.retain(is_kept);
        self.record.held.len() != before
    }

    fn add(&mut self, record: RevisionRecord, compatible: bool) {
        if !compatible {
            self.record.compatible_from = record.revision;
        }
        self.record.revisions.push(record);
    }

    /// Changes the concurrency of the current revision and of the one to come.
    fn scale(&mut self, concurrency: u32) {
        self.set_concurrency(concurrency);
        for held in &mut self.record.held {
            held.config.concurrency = concurrency;
        }
    }
}

/// What came of a configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Revised {
    /// Nothing differs.
    Same,
    /// Something differs, for which nothing has to run before or after.
    Scaled,
    /// There is a revision whose processes are new.
    Revision(Revision),
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
