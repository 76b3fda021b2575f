//! The cluster as the controller's API shows it.

use std::{collections::BTreeMap, net::IpAddr};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    agent::{Enforcement, NodeMetrics, ProcessReport, VolumeInstance},
    ids::{ClusterId, DeviceKind, Digest, Generation, NodeName, ProcessId, Revision, ServiceName},
    jobs::{HookView, Trigger},
    reasons::PendingReason,
    rollout::Failure,
    service::{Labels, ServiceConfig},
    units::{Bytes, Timestamp},
    volumes::Snapshot,
};

/// The controller's run-time state: body of `GET /v1/state`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct State {
    /// Workers whose lease has not run out, ordered by name.
    pub alive_nodes: Vec<AliveNode>,
    /// Workers that died and could not be restarted, ordered by name.
    pub dead_nodes: Vec<DeadNode>,
    /// Every configured service, ordered by name.
    pub configured_services: Vec<ConfiguredService>,
    /// What runs of them, ordered by name.
    pub active_services: Vec<ActiveService>,
}

/// A worker that reports.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AliveNode {
    /// Its name.
    pub name: NodeName,
    /// Its address.
    #[schema(value_type = String)]
    pub ip: IpAddr,
    /// When its last report came.
    pub reported_at: Timestamp,
    /// Generation of the desired set that the controller has for it.
    pub generation_desired: Generation,
    /// Generation that its agent holds.
    pub generation_seen: Generation,
    /// Its agent's version.
    pub version: String,
    /// The architecture of images that it runs, such as `amd64`; empty where its agent does not tell.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub architecture: String,
    /// What its processes reserve of its CPUs, in thousandths of one.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub reserved_millicpus: u64,
    /// Its devices that are each one process's at a time, by kind.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(value_type = BTreeMap<String, DevicesOfKind>)]
    pub devices: BTreeMap<DeviceKind, DevicesOfKind>,
    /// Number of processes assigned to it.
    pub processes: u32,
    /// Its resources.
    pub metrics: NodeMetrics,
    /// Kernel features that it lacks.
    pub notes: Vec<String>,
    /// Its volumes; absent where it has no place for any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volumes: Option<VolumesOfNode>,
}

/// The devices of a kind on a worker.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DevicesOfKind {
    /// How many there are.
    pub all: u32,
    /// How many of them no process has.
    pub free: u32,
}

/// The volumes on a worker, all together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct VolumesOfNode {
    /// Their sizes.
    pub size: Bytes,
    /// What is written to them.
    pub used: Bytes,
    /// What all volumes together can hold there.
    pub capacity: Bytes,
    /// How the sizes of new ones are enforced.
    pub enforcement: Enforcement,
}

/// A worker that died and could not be restarted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DeadNode {
    /// Its name.
    pub name: NodeName,
    /// Its address.
    #[schema(value_type = String)]
    pub ip: IpAddr,
    /// When it was counted as dead.
    pub since: Timestamp,
    /// What was tried, and how that ended.
    pub reason: String,
}

/// Condition of a node of the topology.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum NodeCondition {
    /// The controller's own node.
    Ctl,
    /// Has not reported since the controller started.
    Unknown,
    /// Reports.
    Alive,
    /// Its lease ran out; its `restart` command is being tried, if it has one.
    Missing,
    /// Died and could not be restarted.
    Dead,
}

/// Why a node is on hold: nothing is changed on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum HoldCause {
    /// Its agent belongs to another cluster.
    OtherCluster,
    /// Its agent holds a newer set, or processes that this controller has not started: the controller's database is new
    /// or an older copy.
    Ahead,
    /// Its agent holds another set of the same generation.
    Diverged,
}

impl std::fmt::Display for HoldCause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::OtherCluster => "its agent belongs to another cluster",
            Self::Ahead => "its agent holds a newer desired set than this controller's database",
            Self::Diverged => "its agent holds another desired set of the same generation",
        })
    }
}

/// What can be adopted: body of `GET /v1/adoption`, and the answer to `POST /v1/adoption`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Adoption {
    /// The nodes on hold, in the topology's order.
    pub nodes: Vec<AdoptableNode>,
    /// The services that their processes belong to, ordered by name.
    pub services: Vec<AdoptableService>,
}

/// A node on hold.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AdoptableNode {
    /// Its name.
    pub name: NodeName,
    /// Why it is on hold.
    pub cause: HoldCause,
    /// The cluster that its agent belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<ClusterId>,
    /// The processes of the set that its agent holds.
    pub processes: Vec<ProcessId>,
    /// Why it cannot be adopted, if it cannot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub obstacle: Option<String>,
}

/// A service that is found on nodes on hold.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct AdoptableService {
    /// Its name.
    pub name: ServiceName,
    /// Its revisions that agents hold, oldest first.
    pub revisions: Vec<Revision>,
    /// Its processes.
    pub processes: u32,
    /// The concurrency that it gets or has.
    pub concurrency: u32,
    /// Whether the controller has it configured.
    pub configured: bool,
}

/// A node of the topology: element of `GET /v1/nodes`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct NodeView {
    /// Its name.
    pub name: NodeName,
    /// Its address.
    #[schema(value_type = String)]
    pub ip: IpAddr,
    /// Its labels.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    #[schema(value_type = std::collections::BTreeMap<String, String>)]
    pub labels: Labels,
    /// Its condition.
    pub condition: NodeCondition,
    /// Since when.
    pub since: Timestamp,
    /// More of it, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Why it is on hold: nothing is changed on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<HoldCause>,
    /// What it reports, while it is alive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alive: Option<AliveNode>,
}

/// A service as configured: its current revision.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ConfiguredService {
    /// Its name; `active_services` refers to it by this.
    pub name: ServiceName,
    /// Number of the current revision.
    pub revision: Revision,
    /// Digest of the image's manifest.
    pub image: Digest,
    /// The static configuration.
    pub config: ServiceConfig,
    /// When this revision was configured.
    pub configured_at: Timestamp,
}

/// What runs of a service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ActiveService {
    /// The service.
    pub name: ServiceName,
    /// Path of the `configured_services` record it belongs to: `/v1/configured_services/<name>`.
    pub configured_service: String,
    /// Number of healthy processes that serve, at most the concurrency. During a rollout also those of an older revision.
    pub healthy: u32,
    /// How many processes it is to have at present, where its configuration has no number: with `placement.everywhere`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wanted: Option<u32>,
    /// Every process, ordered by id.
    pub processes: Vec<ProcessView>,
    /// Processes that could not be placed.
    pub pending: Vec<Pending>,
    /// Processes that are no longer desired and still exist, in state `stopping`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stopping: Vec<ProcessView>,
    /// The processes of its runs: of a job, of hooks, and of commands that somebody runs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub runs: Vec<RunProcess>,
}

/// A process that runs to completion.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RunProcess {
    /// The number of its run.
    pub run: u64,
    /// Why the run was begun.
    pub trigger: Trigger,
    /// The process.
    #[serde(flatten)]
    pub process: ProcessView,
}

/// A process, wherever it runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ProcessView {
    /// The node it is placed on.
    pub node: NodeName,
    /// Whether it runs what the service's current revision says.
    pub current: bool,
    /// Whether the balancer sends it requests.
    pub routed: bool,
    /// Whether it is being replaced: it gets no new requests and will be stopped.
    pub draining: bool,
    /// Whether its limits or its probe are being changed while it runs.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub changing: bool,
    /// As its agent reports it; state `assigned` before its first report.
    #[serde(flatten)]
    pub report: ProcessReport,
}

/// Processes that wait for a place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Pending {
    /// How many.
    pub count: u32,
    /// Why, in words for a person.
    pub reason: String,
    /// The same as data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<PendingReason>,
}

impl Pending {
    /// So many processes, for this reason.
    pub fn new(count: u32, cause: PendingReason) -> Self {
        Self {
            count,
            reason: cause.to_string(),
            cause: Some(cause),
        }
    }
}

/// A volume: element of `GET /v1/volumes`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VolumeView {
    /// Which one.
    #[serde(flatten)]
    pub volume: VolumeInstance,
    /// The worker that it is on.
    pub node: NodeName,
    /// Its size.
    pub size: Bytes,
    /// What is written to it, by the worker's last report.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used: Option<Bytes>,
    /// How its size is enforced, while its worker reports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enforcement: Option<Enforcement>,
    /// The process that has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<ProcessId>,
    /// Whether its service is configured with a volume of this name.
    pub configured: bool,
    /// Where it is being moved to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moving: Option<MoveView>,
    /// Its restoration from a backup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restoring: Option<MoveView>,
    /// Its backups, where its service is configured with any, or there were some.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup: Option<BackupView>,
    /// What is the matter with it.
    #[serde(flatten)]
    pub state: VolumeState,
}

/// The backups of a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BackupView {
    /// The newest one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<Snapshot>,
    /// Counts the backups that were begun.
    pub number: u64,
    /// Since when the last of them is being made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ordered_at: Option<Timestamp>,
    /// When it failed, where it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_at: Option<Timestamp>,
    /// Why, in words for a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// When the next one is due.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<Timestamp>,
}

/// Body of `POST /v1/volumes/{service}/{name}/{slot}/restore`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct VolumeRestore {
    /// The id of the backup; the newest that is known if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The worker that the volume is to be on; where it is, or any that can have it, if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on: Option<NodeName>,
    /// The worker whose volume is given up although it may come back. What it has is kept there and never used by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lost: Option<NodeName>,
    /// Whether a volume that can be used is replaced.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub replace: bool,
}

/// The move of a volume to another worker, or its restoration there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MoveView {
    /// The worker.
    pub to: NodeName,
    /// The bytes that it has of the volume's content.
    pub done: Bytes,
    /// All of them, once they are counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<Bytes>,
    /// Why the copy does not go on, in words for a person. It is tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// Body of `POST /v1/volumes/{service}/{name}/{slot}/move`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct VolumeMove {
    /// The worker that the volume, and the others of its slot, are to be on. The one that they are on gives a move up.
    pub to: NodeName,
}

/// What a volume is doing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum VolumeState {
    /// It is assigned, and its worker has not reported it yet.
    Creating,
    /// A process has it.
    InUse,
    /// No process has it.
    Idle,
    /// Its worker is not there.
    Away {
        /// Since when.
        since: Timestamp,
    },
    /// Its worker does not have it any more, or it cannot be used there.
    Missing {
        /// What is wrong, in words for a person.
        problem: String,
    },
    /// It is being removed.
    Removing,
    /// Its worker reports it, and the controller has no record of it: it was given up, or belongs to an earlier database. No process
    /// gets it, and it takes room.
    Orphan,
}

/// One service, as configured and as it runs: element of `GET /v1/services`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ServiceView {
    /// As configured.
    pub configured: ConfiguredService,
    /// As it runs.
    pub active: ActiveService,
    /// What runs, or has run, before or after the rollout of the revision that was configured last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hook: Option<HookView>,
}

impl ServiceView {
    /// How many processes it is to have.
    pub fn wanted(&self) -> u32 {
        let configured = self.configured.config.concurrency;
        self.active.wanted.unwrap_or(configured)
    }
}

/// Answer to a deploy or a change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Deployed {
    /// The service.
    pub name: ServiceName,
    /// The revision that is now configured.
    pub revision: Revision,
    /// Digest of the image's manifest.
    pub image: Digest,
    /// Whether this request changed anything.
    pub changed: bool,
    /// What the sysadmin should know of the image, such as a health check of its own that is not used.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// With `wait=true`: whether all processes became healthy in time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthy: Option<bool>,
    /// With `wait=true`: each process that is not healthy, and each that is pending, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unhealthy: Vec<String>,
    /// With `wait=true`: why processes are not healthy, with the last lines of their output; of those with the same reason, one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failures: Vec<Failure>,
    /// With `wait=true` and a status of 503: that the processes did not become healthy. The deploy stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// With a status of 503: `not_healthy`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
}

/// Change to a configured service: body of `PATCH /v1/services/{name}`. Any key of [`ServiceConfig`] but `name`;
/// `null` puts a key back to its default.
pub type ServicePatch = serde_json::Map<String, serde_json::Value>;

/// What an alert is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AlertKind {
    /// A worker of the topology does not report.
    NodeMissing,
    /// It could not be restarted.
    NodeDead,
    /// It reports again.
    NodeBack,
    /// Two agents claim to be it.
    NodeContested,
    /// Its agent holds a desired set that this controller has not issued: nothing is changed on it.
    NodeHeld,
    /// It is managed again.
    NodeReleased,
    /// Its agent reports, but cannot be reached.
    NodeUnreachable,
    /// Its agent can be reached again.
    NodeReachable,
    /// Many workers have stopped reporting at once: their processes are kept for one further lease.
    MassSilence,
    /// That is over.
    MassSilenceEnded,
    /// Traffic between the machines is plain HTTP, and the configuration does not allow that explicitly.
    WireUnprotected,
    /// Stored secrets cannot be decrypted.
    SecretsUnreadable,
    /// A process waits for a volume whose worker is not there.
    VolumeAway,
    /// A volume is not where it was, or cannot be used.
    VolumeMissing,
    /// A volume that was away or missing can be used again.
    VolumeBack,
    /// A volume was to be moved to another worker, and stays where it is.
    VolumeNotMoved,
    /// A volume was to be restored from a backup, and was not.
    VolumeNotRestored,
    /// A volume could not be backed up.
    BackupFailed,
    /// A volume whose last backup had failed is backed up again.
    BackupStored,
    /// A run of a job's schedule has not succeeded.
    JobFailed,
    /// A run of a job's schedule has succeeded after one that had not.
    JobRecovered,
    /// What runs before or after the rollout of a revision has not succeeded.
    HookFailed,
    /// A process keeps crashing.
    ProcessCrashing,
    /// A process was killed for reaching its memory limit.
    ProcessOomKilled,
    /// A process has reached its limit of processes and threads.
    ProcessAtPidsLimit,
    /// A process that crashed, was killed, or was at a limit has been healthy and below it for a while again.
    ProcessRecovered,
}

/// One change of state that needs the sysadmin's attention, or no longer does: body of the webhook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Alert {
    /// What happened.
    pub kind: AlertKind,
    /// Name of the node or process.
    pub subject: String,
    /// The same in words, with what the controller does about it.
    pub message: String,
    /// When.
    pub at: Timestamp,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}
