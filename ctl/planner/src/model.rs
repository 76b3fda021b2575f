//! What is said to the planner and by it, and what of it is durable.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use tucano_api::{
    agent::{DesiredSet, NodeReport},
    ids::{Digest, Generation, NodeName, ProcessId, Revision, ServiceName},
    routes::ServiceRoute,
    service::ServiceConfig,
    state::{Alert, NodeCondition},
    units::{Span, Timestamp},
};

/// What the sysadmin can set of the planner's behaviour.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// A worker that has not reported for this long is not alive.
    pub lease: Span,
    /// How long a process that gets no new requests any more may finish those it has.
    pub drain: Span,
    /// How long the set of alive workers must have been stable before processes are moved to even it out.
    pub rebalance_after: Span,
    /// How often a worker's `restart` command is tried before it is dead.
    pub restart_attempts: u32,
    /// Time between the first two tries; doubles with each further one.
    pub restart_backoff: Span,
    /// How long a worker may take to report after a restart command that succeeded.
    pub restart_grace: Span,
    /// A process that has ended this often in a row is reported as crashing.
    pub crash_alert_after: u32,
    /// How long a process must be healthy to count as recovered.
    pub recovered_after: Span,
    /// How many revisions of each service are kept, the current one among them.
    pub revisions_kept: usize,
    /// Domain below which every service has a host name: `<name>.<domain>`.
    pub domain: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            lease: Span::secs(6),
            drain: Span::secs(2),
            rebalance_after: Span::secs(30),
            restart_attempts: 3,
            restart_backoff: Span::secs(5),
            restart_grace: Span::secs(60),
            crash_alert_after: 3,
            recovered_after: Span::secs(30),
            revisions_kept: 5,
            domain: "localhost".to_owned(),
        }
    }
}

/// A worker of the topology.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Worker {
    /// Its canonical name.
    pub name: NodeName,
    /// Its address.
    pub ip: IpAddr,
    /// Whether the topology has a `restart` command for it.
    pub can_restart: bool,
}

/// Everything that can happen.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The static configuration was read: all workers in the topology's order, and the settings.
    Configured {
        /// The workers.
        workers: Vec<Worker>,
        /// The settings.
        settings: Settings,
    },
    /// A service was deployed or changed; a no-op where nothing differs from the current revision.
    ServiceConfigured {
        /// Its configuration.
        config: Box<ServiceConfig>,
        /// Digest of its image's manifest.
        image: Digest,
    },
    /// A service was removed.
    ServiceRemoved {
        /// Its name.
        name: ServiceName,
    },
    /// A worker reported. `node` is its canonical name.
    NodeReported {
        /// Its name.
        node: NodeName,
        /// All it said.
        report: Box<NodeReport>,
    },
    /// A restart command ended.
    RestartFinished {
        /// The worker it was for.
        node: NodeName,
        /// How it ended; the error in words for a person.
        result: Result<(), String>,
    },
    /// Time passed.
    Tick,
}

/// Everything the planner can ask for. To be carried out in order; whatever follows a `Persist` must not
/// leave the controller before that is on disk.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Write these records, all or none, and sync.
    Persist(Vec<Record>),
    /// Send this desired set to its node's agent.
    Assign(DesiredSet),
    /// These are all the routes now.
    Publish(Vec<ServiceRoute>),
    /// Run this worker's restart command; answer with [`Event::RestartFinished`].
    Restart {
        /// The worker.
        node: NodeName,
        /// Which try this is, from 1.
        attempt: u32,
    },
    /// Tell the sysadmin.
    Alert(Alert),
}

/// A durable piece of the cluster's state, to be put or deleted under its key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Record {
    /// A service.
    Service(Box<ServiceRecord>),
    /// A service is removed.
    ServiceGone(ServiceName),
    /// A process.
    Process(ProcessRecord),
    /// A process is not to run any more.
    ProcessGone(ProcessId),
    /// A worker.
    Node(NodeRecord),
    /// A worker has left the topology.
    NodeGone(NodeName),
    /// The cluster's counters.
    Counters(Counters),
}

/// A service and its last revisions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServiceRecord {
    /// Its name.
    pub name: ServiceName,
    /// Its last revisions, oldest first, never empty; the last one is current.
    pub revisions: Vec<RevisionRecord>,
    /// Processes of this revision or a later one need no replacement: what changed since then does not
    /// concern them (`ServiceConfig::same_process`).
    pub compatible_from: Revision,
}

/// One immutable pair of static configuration and image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RevisionRecord {
    /// Its number.
    pub revision: Revision,
    /// The static configuration.
    pub config: ServiceConfig,
    /// Digest of the image's manifest.
    pub image: Digest,
    /// When it was configured.
    pub configured_at: Timestamp,
}

/// A process that has been placed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessRecord {
    /// Its identity.
    pub id: ProcessId,
    /// Its service.
    pub service: ServiceName,
    /// The revision it was started from.
    pub revision: Revision,
    /// Where it runs.
    pub node: NodeName,
    /// The process that it takes over from once it is healthy, when it was placed to even out the workers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaces: Option<ProcessId>,
    /// Since when it gets no new requests; it is stopped when the drain time has passed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub draining_since: Option<Timestamp>,
    /// What the sysadmin was told of it, so that nothing is told twice.
    #[serde(default, skip_serializing_if = "Trouble::is_none")]
    pub trouble: Trouble,
}

/// What is remembered of a process's crashes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    /// Its count of restarts when it was last healthy for long enough to count as recovered.
    #[serde(default)]
    pub forgiven_restarts: u32,
    /// When the kernel last killed it for lack of memory, by its agent's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oom_killed_at: Option<Timestamp>,
    /// Whether it was reported as crashing since it last recovered.
    #[serde(default)]
    pub crash_told: bool,
    /// Whether it was reported as killed for lack of memory since it last recovered.
    #[serde(default)]
    pub oom_told: bool,
}

impl Trouble {
    /// Whether there is nothing to remember.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// Whether the sysadmin was told of it and waits to hear that it has recovered.
    pub fn is_told(&self) -> bool {
        self.crash_told || self.oom_told
    }
}

/// What must be remembered of a worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// Its name.
    pub name: NodeName,
    /// Generation of its desired set.
    pub generation: Generation,
    /// Its condition when the record was written; an alive one is heard of again or missed after a restart.
    pub condition: NodeCondition,
    /// Since when.
    pub since: Timestamp,
    /// More of it, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// How often its restart was tried since it was last alive.
    #[serde(default)]
    pub restart_attempts: u32,
}

/// The cluster's counters.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Number of the last process that was placed; never goes back, so that no process id is used twice.
    pub last_process: u64,
    /// The worker that was last placed on: the rotation goes on with the one after it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_placed_on: Option<NodeName>,
    /// Generation that workers new to the topology begin with: above that of any worker that has left it, so
    /// that none, when it comes back, takes an old set for a new one.
    #[serde(default)]
    pub first_generation: Generation,
}

/// All durable state, as read at start-up.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The services.
    pub services: Vec<ServiceRecord>,
    /// The processes.
    pub processes: Vec<ProcessRecord>,
    /// The workers.
    pub nodes: Vec<NodeRecord>,
    /// The counters.
    pub counters: Counters,
}
