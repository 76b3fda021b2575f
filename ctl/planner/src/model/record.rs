use std::{collections::BTreeMap, fmt, net::Ipv4Addr, sync::Arc};

use serde::{Deserialize, Serialize};
use tucano_api::{
    agent::VolumeInstance,
    ids::{
        ClusterId, Digest, Epoch, Generation, NodeName, ProcessId, Revision, SecretName,
        ServiceName, VolumeId,
    },
    jobs::Run,
    secrets::SecretVersion,
    service::{AssignedDevice, ServiceConfig},
    state::{HoldCause, NodeCondition},
    units::{Bytes, Timestamp},
    volumes,
};

/// A durable piece of the cluster's state, to be written or deleted under its key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Record {
    /// A service.
    Service(Box<ServiceRecord>),
    /// A service was removed.
    ServiceGone(ServiceName),
    /// A process.
    Process(ProcessRecord),
    /// A process is no longer desired.
    ProcessGone(ProcessId),
    /// A worker.
    Node(NodeRecord),
    /// A worker has left the topology.
    NodeGone(NodeName),
    /// A secret.
    Secret(SecretRecord),
    /// A secret was removed.
    SecretGone(SecretName),
    /// A volume.
    Volume(VolumeRecord),
    /// The backups of a volume.
    Backups(BackupRecord),
    /// A volume was removed.
    VolumeGone(VolumeInstance),
    /// The runs of a service, all together.
    Job(JobRecord),
    /// A service was removed, with its runs.
    JobGone(ServiceName),
    /// A run.
    Run(Box<Run>),
    /// A run is not kept any more.
    RunGone {
        /// Its service.
        service: ServiceName,
        /// Its number.
        number: u64,
    },
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
    /// Processes of this revision or a later one are current: only concurrency and routes have changed since then. Ones of
    /// earlier revisions become current where their agents can change them as they run, and are replaced elsewhere.
    pub compatible_from: Revision,
    /// Processes with a smaller number are old: they were there when somebody had them replaced.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub replaced_below: u64,
    /// Revisions that are not in force: the one to come, and earlier ones of which something still runs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub held: Vec<RevisionRecord>,
    /// The one of those that comes into force when its `before` has succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upcoming: Option<Revision>,
    /// The largest number of a revision that was held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_held: Option<Revision>,
    /// Its address. Absent in records of earlier versions, until the first step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<Ipv4Addr>,
    /// The addresses of its slots.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub slot_addresses: BTreeMap<u32, Ipv4Addr>,
    /// Whether its first process waits for other services.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub awaits_start: bool,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl ServiceRecord {
    /// Whether a process runs what the current revision configures, in as far as it concerns processes, and is not to be replaced.
    pub fn is_current(&self, process: &ProcessRecord) -> bool {
        process.revision >= self.compatible_from && !self.is_to_be_replaced(process)
    }

    /// Whether it was there when somebody had the processes replaced.
    pub fn is_to_be_replaced(&self, process: &ProcessRecord) -> bool {
        process.id.number() < self.replaced_below
    }
}

/// The manifest of an image for each architecture that it runs on, in OCI (Go) terms, such as `amd64`.
pub type Platforms = BTreeMap<String, Digest>;

/// One immutable pair of static configuration and image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RevisionRecord {
    /// Its number.
    pub revision: Revision,
    /// The static configuration.
    pub config: ServiceConfig,
    /// Digest of the image's manifest.
    pub image: Digest,
    /// Its manifests by architecture. Empty in records of earlier versions: then `image` runs on every worker.
    #[serde(default, skip_serializing_if = "Platforms::is_empty")]
    pub platforms: Platforms,
    /// When it was configured.
    pub configured_at: Timestamp,
}

/// A secret and its versions that are in use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretRecord {
    /// Its name.
    pub name: SecretName,
    /// Its versions, oldest first.
    pub versions: Vec<SealedVersion>,
}

impl SecretRecord {
    /// The newest version.
    pub fn newest(&self) -> Option<&SealedVersion> {
        self.versions.last()
    }

    /// Every version, with what identifies it.
    pub fn identified(&self) -> impl Iterator<Item = (SecretVersion, &SealedVersion)> {
        self.versions.iter().map(|it| {
            let (name, version) = (self.name.clone(), it.version);
            (SecretVersion { name, version }, it)
        })
    }

    /// The version of this number.
    pub fn version(&self, version: u64) -> Option<&SealedVersion> {
        self.versions.iter().find(|it| it.version == version)
    }
}

/// A version of a secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedVersion {
    /// Its number.
    pub version: u64,
    /// Its value.
    pub sealed: Sealed,
    /// When it was set.
    pub set_at: Timestamp,
}

/// An encrypted value, as text. Copies share it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct Sealed(Arc<str>);

impl Sealed {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<String> for Sealed {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

impl From<Sealed> for String {
    fn from(sealed: Sealed) -> Self {
        sealed.0.as_ref().to_owned()
    }
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sealed({} bytes)", self.0.len())
    }
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
    /// Its slot, if it was started for a service with volumes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot: Option<u32>,
    /// The process that it replaces once it is healthy, where it was placed to rebalance the workers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaces: Option<ProcessId>,
    /// Since when it gets no new requests; it is stopped at the end of the drain time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub draining_since: Option<Timestamp>,
    /// Its crashes and the alerts that were sent about them, so that none is sent twice.
    #[serde(
        default,
        rename = "trouble",
        skip_serializing_if = "CrashHistory::is_empty"
    )]
    pub crashes: CrashHistory,
    /// The number of its service's run that it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<u64>,
    /// The devices that are its own until it is gone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<AssignedDevice>,
}

/// The runs of a service, all together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobRecord {
    /// The service.
    pub service: ServiceName,
    /// Number of its last run; never decreases.
    #[serde(default)]
    pub last_run: u64,
    /// The last tick of its schedule that was decided about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claimed: Option<Timestamp>,
    /// How often ticks were left out.
    #[serde(default)]
    pub left_out: u64,
    /// The hooks of its revisions, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hooks: Vec<HookRecord>,
}

impl JobRecord {
    /// Of a service without runs.
    pub fn new(service: ServiceName) -> Self {
        Self {
            service,
            last_run: 0,
            claimed: None,
            left_out: 0,
            hooks: Vec::new(),
        }
    }
}

/// A hook of a revision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookRecord {
    /// The revision.
    pub revision: Revision,
    /// Whether it runs after the rollout, and not before.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub after: bool,
    /// The number of its run, once that is begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<u64>,
}

/// The crashes of a process and the alerts about them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CrashHistory {
    /// Its count of restarts when it last recovered.
    #[serde(default, rename = "forgiven_restarts")]
    pub baseline_restarts: u32,
    /// When the kernel last killed it for exceeding its memory limit, by its agent's clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oom_killed_at: Option<Timestamp>,
    /// Whether an alert about crashes was sent since it last recovered.
    #[serde(default, rename = "crash_told")]
    pub crash_alerted: bool,
    /// Whether an alert about its memory limit was sent since it last recovered.
    #[serde(default, rename = "oom_told")]
    pub oom_alerted: bool,
    /// Whether an alert about its limit of processes and threads was sent since it last recovered.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub pids_alerted: bool,
}

impl CrashHistory {
    /// Whether it has no crashes.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether an alert was sent that its recovery has to follow.
    pub fn is_alerted(&self) -> bool {
        self.crash_alerted || self.oom_alerted || self.pids_alerted
    }
}

/// A volume of a slot. It outlives its service, and never moves by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeRecord {
    /// Which one.
    #[serde(flatten)]
    pub volume: VolumeInstance,
    /// The worker that it is on.
    pub node: NodeName,
    /// Its size: the largest that was configured.
    pub size: Bytes,
    /// Whether its worker has reported it: from then on it is never created again.
    #[serde(default)]
    pub confirmed: bool,
    /// Whether its worker is to remove it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub removing: bool,
    /// Since when its worker is not there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub away_since: Option<Timestamp>,
    /// Why it cannot be used, although its worker reports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// Whether an alert about its absence was sent.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub alerted: bool,
    /// The content that it gets before its slot has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fill: Option<Fill>,
    /// What is loaded into it once its process is healthy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load: Option<Load>,
}

/// The content that a volume gets before its slot has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fill {
    /// Where it comes from.
    pub from: FillFrom,
    /// How far it is.
    pub stage: FillStage,
}

/// Where the content of a volume comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum FillFrom {
    /// An earlier volume of its name.
    Volume {
        /// The worker that has it.
        node: NodeName,
        /// Its instance.
        instance: u64,
    },
    /// A backup of the volume's files.
    Snapshot {
        /// Its id.
        id: String,
        /// The instance on the same worker whose place it takes.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        replaces: Option<u64>,
        /// Whether it is the output of a command, which another one loads.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        load: bool,
    },
}

impl FillFrom {
    /// The worker that it is copied from.
    pub fn node(&self) -> Option<&NodeName> {
        match self {
            Self::Volume { node, .. } => Some(node),
            Self::Snapshot { .. } => None,
        }
    }
}

/// What is loaded into a volume before its process gets requests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Load {
    /// Id of the backup.
    pub snapshot: String,
    /// Why it was not loaded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// The backups of the volumes of one name, whichever worker they are on. They outlive the volumes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupRecord {
    /// The name.
    pub id: VolumeId,
    /// The number of the last order.
    #[serde(default)]
    pub number: u64,
    /// Since when that order is given, while it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ordered_at: Option<Timestamp>,
    /// Whether somebody has asked for a backup that is not ordered yet.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub requested: bool,
    /// The newest backups, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub snapshots: Vec<volumes::Snapshot>,
    /// How the last backup failed, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<BackupFailure>,
}

/// A backup that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupFailure {
    /// When.
    pub at: Timestamp,
    /// Why, as a message for the user.
    pub error: String,
    /// How often in a row.
    pub times: u32,
}

/// How far the content of a volume is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FillStage {
    /// The slot still has a process.
    Waiting,
    /// It is being copied.
    Copying,
    /// It is whole: it is its slot's, and its worker makes it a volume.
    Installing,
}

/// A worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// Its name.
    pub name: NodeName,
    /// Generation of its desired set.
    pub generation: Generation,
    /// Its condition when the record was written. After the controller's restart an alive one has a lease to report.
    pub condition: NodeCondition,
    /// Since when.
    pub since: Timestamp,
    /// Why, as a message for the user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Attempts to restart it since it was last alive.
    #[serde(default)]
    pub restart_attempts: u32,
    /// The newest desired set that may have been sent to its agent. Absent where none was, and in records of earlier
    /// versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sent: Option<SetVersion>,
    /// Its own epoch, where that is higher than the cluster's.
    #[serde(default)]
    pub epoch: Epoch,
    /// The cluster whose processes were adopted on it, until its agent has changed over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adopts: Option<ClusterId>,
    /// Why no desired set is sent to its agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<Hold>,
}

/// Identifies a node's desired set within its cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetVersion {
    /// Its epoch.
    pub epoch: Epoch,
    /// Its generation.
    pub generation: Generation,
    /// Digest of its processes, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
}

/// A node that is not managed, because its agent holds a set that this controller does not know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// Why.
    pub cause: HoldCause,
    /// The set that the agent held.
    pub version: SetVersion,
    /// The cluster that it belonged to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<ClusterId>,
}

/// The cluster's identity, created with the database.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Its id. Absent only in tests and simulations of controllers without one.
    pub cluster: Option<ClusterId>,
    /// The epoch that new desired sets belong to.
    pub epoch: Epoch,
}

/// The cluster's counters.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Number of the last process that was placed; never decreases, so that no process id is used twice.
    pub last_process: u64,
    /// The worker that was last placed on: the rotation continues with the next one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_placed_on: Option<NodeName>,
    /// Generation that workers new to the topology begin with: above that of any worker that has left it, so that one
    /// that is added again does not take an old set for a new one.
    #[serde(default)]
    pub first_generation: Generation,
    /// The largest number of a secret's version.
    #[serde(default)]
    pub last_secret_version: u64,
    /// Instance of the last volume; never decreases, so that none is used twice.
    #[serde(default)]
    pub last_volume: u64,
    /// The address that a service got last: the next one gets one after it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_address: Option<Ipv4Addr>,
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
    /// The secrets.
    #[serde(default)]
    pub secrets: Vec<SecretRecord>,
    /// The volumes.
    #[serde(default)]
    pub volumes: Vec<VolumeRecord>,
    /// The backups of volumes.
    #[serde(default)]
    pub backups: Vec<BackupRecord>,
    /// The runs of services, all together.
    #[serde(default)]
    pub jobs: Vec<JobRecord>,
    /// The runs.
    #[serde(default)]
    pub runs: Vec<Run>,
    /// The counters.
    pub counters: Counters,
    /// The cluster's identity.
    #[serde(default)]
    pub identity: Identity,
}
