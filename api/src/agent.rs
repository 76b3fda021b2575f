//! Controller → agent: the whole desired set. Agent → controller: the whole actual set.
//!
//! Both are levels: a lost, doubled, late or reordered one heals with the next.

mod exit;

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, SocketAddr},
};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use exit::Exit;

use crate::{
    ids::{
        ClusterId, Digest, Epoch, Generation, NodeName, PortName, ProcessId, Revision, ServiceName,
        VolumeId,
    },
    jobs::DesiredRun,
    names::{ServiceAddress, ServiceSubnet},
    service::{AssignedDevice, NodeDevices, Placement, ServiceConfig},
    units::{Bytes, Span, Timestamp},
    volumes::{
        BackupOrder, BackupReport, FillReport, LoadReport, VolumeExport, VolumeFill, VolumeLoad,
    },
};

/// What identifies a desired set besides its generation. Absent in sets of controllers, and in reports of agents, that do
/// not know it yet.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SetIdentity {
    /// The cluster that it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<ClusterId>,
    /// The epoch of its generation.
    #[serde(default)]
    pub epoch: Epoch,
    /// Digest of its processes: the same generation with another digest is another set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
}

impl SetIdentity {
    /// Whether its sender does not know identities: then generations alone are compared.
    pub fn is_legacy(&self) -> bool {
        *self == Self::default()
    }
}

/// Everything that is to run on one node: body of `PUT /v1/desired` on the agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DesiredSet {
    /// The node it is for, by its canonical name; an agent of another name refuses it.
    pub node: NodeName,
    /// Grows with each change; an agent refuses one lower than it has seen.
    pub generation: Generation,
    /// Its cluster, epoch and digest.
    #[serde(flatten)]
    pub identity: SetIdentity,
    /// The cluster whose processes this cluster has adopted on this node: an agent that belongs to it changes over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adopts: Option<ClusterId>,
    /// The processes that are to run, ordered by id.
    pub processes: Vec<DesiredProcess>,
    /// Volumes to remove, which no process uses. Each stays here until the agent no longer reports it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub removed_volumes: Vec<VolumeInstance>,
    /// Volumes to fill. What an agent has begun to fill and is not among them is given up.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fills: Vec<VolumeFill>,
    /// Volumes that other workers may read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exports: Vec<VolumeExport>,
    /// Backups to make. One that is not among them any more is given up.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub backups: Vec<BackupOrder>,
}

impl DesiredSet {
    /// A set of a node of which nothing is desired, older than every other one.
    pub fn empty(node: NodeName) -> Self {
        Self {
            node,
            generation: Generation(0),
            identity: SetIdentity::default(),
            adopts: None,
            processes: Vec::new(),
            removed_volumes: Vec::new(),
            fills: Vec::new(),
            exports: Vec::new(),
            backups: Vec::new(),
        }
    }
}

/// One volume, and which one of that name: a volume that is created after another one of its name was removed or given up has
/// another instance.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
pub struct VolumeInstance {
    /// Its name.
    pub id: VolumeId,
    /// Unique in the cluster.
    pub instance: u64,
}

/// The name and the instance, such as `db/data/1#7`.
impl fmt::Display for VolumeInstance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.id, self.instance)
    }
}

/// A volume of a desired process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DesiredVolume {
    /// Which one. Its path and size are in the process's configuration, under its name.
    #[serde(flatten)]
    pub volume: VolumeInstance,
    /// Whether the agent creates it where it has none: false once it was reported.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub may_create: bool,
    /// What is loaded into it before it counts as restored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load: Option<VolumeLoad>,
}

/// One process that is to run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DesiredProcess {
    /// Its identity.
    pub id: ProcessId,
    /// The revision it is started from.
    pub revision: Revision,
    /// Digest of the image's manifest.
    pub image: Digest,
    /// That revision's static configuration.
    pub config: ServiceConfig,
    /// Its slot of a service with volumes, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot: Option<u32>,
    /// The volumes of that slot, in the order of the configuration.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<DesiredVolume>,
    /// The devices that are its own, for those of its configuration that are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<AssignedDevice>,
    /// The run that it belongs to, where it runs to completion.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<DesiredRun>,
    /// The addresses of its service and its slot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<ServiceAddress>,
    /// What the agent keeps for a controller that adopts the process.
    #[serde(default, skip_serializing_if = "Kept::is_default")]
    pub kept: Kept,
}

/// Parts of a service's configuration that no agent needs: [`ServiceConfig::for_agents`] leaves them out.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct Kept {
    /// Which workers it may be on.
    #[serde(skip_serializing_if = "Placement::is_default")]
    pub placement: Placement,
    /// How many CPUs it reserves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpus_reserved: Option<f64>,
    /// Whether connections go to the nearest process.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub nearest: bool,
}

impl Kept {
    /// What an agent keeps of a configuration.
    pub fn of(config: &ServiceConfig) -> Self {
        Self {
            placement: config.placement.clone(),
            cpus_reserved: config.cpus_reserved,
            nearest: config.nearest,
        }
    }

    /// Whether there is nothing to keep.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// The configuration that an agent has, with what it has kept.
    pub fn restore(&self, config: &ServiceConfig) -> ServiceConfig {
        let concurrency = match self.placement.everywhere {
            true => 0,
            false => config.concurrency,
        };
        ServiceConfig {
            placement: self.placement.clone(),
            cpus_reserved: self.cpus_reserved,
            nearest: self.nearest,
            concurrency,
            ..config.clone()
        }
    }
}

impl DesiredProcess {
    /// The images that it needs: its own, and those that are mounted into its container.
    pub fn images(&self) -> impl Iterator<Item = &Digest> {
        std::iter::once(&self.image).chain(self.config.mounted_images())
    }
}

/// Blobs that an agent may soon need: body of `POST /v1/prefetch` on the agent. A hint: the agent may ignore it, and it
/// removes again what no process turns out to need.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Prefetch {
    /// Most important first.
    pub blobs: Vec<PrefetchedBlob>,
    /// Blobs of an image that was refused: what was prefetched of them is removed, unless other images need it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub withdrawn: Vec<Digest>,
}

/// A blob that may be a layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PrefetchedBlob {
    /// Its digest.
    pub digest: Digest,
    /// Its length.
    pub bytes: u64,
}

/// Everything an agent knows: body of `POST /v1/reports` on the controller.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct NodeReport {
    /// The node's name as the agent's configuration has it; found by `ip` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeName>,
    /// The node's address, as in the topology.
    #[schema(value_type = String)]
    pub ip: IpAddr,
    /// Port on which the agent takes desired sets.
    pub agent_port: u16,
    /// Random, new with each start of the agent.
    pub agent_id: String,
    /// Counts the reports of this `agent_id`; an older one that arrives late is dropped.
    pub sequence: u64,
    /// The agent's version.
    #[serde(default)]
    pub version: String,
    /// The architecture of images it can run, in OCI (Go) terms, such as `amd64`.
    #[serde(default)]
    pub architecture: String,
    /// Whether it changes limits and probes of running processes. Agents of earlier versions replace the processes.
    #[serde(default)]
    pub live_changes: bool,
    /// The keys of services' configurations that it knows beyond those of the first version: some of
    /// [`AGENT_KEYS`](crate::service::AGENT_KEYS).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<String>,
    /// Directories that containers may have, with all below them: its `host_paths`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub host_paths: Vec<String>,
    /// The devices that it describes for containers, as far as they are there.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(value_type = BTreeMap<String, BTreeMap<String, Vec<String>>>)]
    pub devices: NodeDevices,
    /// Device nodes that containers may have: those of its `device_paths` that are there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub device_paths: Vec<String>,
    /// The volumes on the node; absent where it has no place for any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volumes: Option<NodeVolumes>,
    /// Generation of the desired set that the agent holds; 0 before the first.
    pub generation: Generation,
    /// Cluster, epoch and digest of that set.
    #[serde(flatten)]
    pub identity: SetIdentity,
    /// The processes of that set, where the controller has asked for them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<Vec<DesiredProcess>>,
    /// The node as a whole.
    #[serde(default)]
    pub metrics: NodeMetrics,
    /// Kernel features that the node lacks, such as pressure information, and what that means for its processes.
    #[serde(default)]
    pub notes: Vec<String>,
    /// [`Apis::tag`] of the addresses that the node's firewall closes to its processes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub apis: Option<String>,
    /// Every process that exists on the node, wanted or not, ordered by id.
    pub processes: Vec<ProcessReport>,
}

/// The volumes on a node.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct NodeVolumes {
    /// What all of them together can hold: what they use, and what is free where they are.
    pub capacity: Bytes,
    /// How the sizes of new ones are enforced.
    pub enforcement: Enforcement,
    /// Every volume that exists there, ordered by id.
    #[serde(default)]
    pub all: Vec<VolumeReport>,
    /// Whether the agent fills volumes, and lets other workers read its own. Agents of earlier versions do not.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub can_copy: bool,
    /// The fills that it has begun, ordered by id.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fills: Vec<FillReport>,
    /// Whether the agent makes backups, and restores them. Agents of earlier versions do not.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub can_back_up: bool,
    /// The directories that may have repositories of backups, with all below them: its `backup_paths`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub backup_paths: Vec<String>,
    /// The backups of the orders that it has.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub backups: Vec<BackupReport>,
}

/// How the size of a volume is enforced.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Enforcement {
    /// By a file system of that size in a file.
    #[default]
    LoopFile,
    /// By a project quota of the file system that the volumes are on.
    ProjectQuota,
}

/// One volume as its agent sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VolumeReport {
    /// Which one.
    #[serde(flatten)]
    pub volume: VolumeInstance,
    /// Its present size.
    pub size: Bytes,
    /// What is written to it; absent before it was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used: Option<Bytes>,
    /// How its size is enforced; absent where that is unknown, and in reports of agents that enforce all sizes as
    /// [`NodeVolumes::enforcement`] says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enforcement: Option<Enforcement>,
    /// Why it cannot be used, in words for a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// What is being loaded into it, or was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load: Option<LoadReport>,
}

/// An agent asks for a certificate of its node's address: body of `POST /v1/certificates` on the controller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CertificateRequest {
    /// As in reports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeName>,
    /// As in reports.
    #[schema(value_type = String)]
    pub ip: IpAddr,
    /// The agent's key, which signs this (PKCS #10, in PEM).
    pub request: String,
}

/// Answer to a [`CertificateRequest`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Certificate {
    /// Of the agent's key, by the cluster's authority, in PEM.
    pub certificate: String,
}

/// Which agent answers at a node's address: body of `GET /v1/identity` on the agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Identity {
    /// As in the agent's reports.
    pub agent_id: String,
}

/// Answer to a report.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ReportAccepted {
    /// The node's canonical name.
    pub node: NodeName,
    /// Generation of the desired set that the controller has for this node.
    pub generation: Generation,
    /// How long the controller waits for the next report before it counts the node as not alive.
    pub lease: Span,
    /// The addresses that the node must close to its processes, where they differ from those it reported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub apis: Option<Apis>,
    /// Whether the next report is to name the processes of the desired set that the agent holds.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub send_held: bool,
    /// The node's desired set, where it could not be sent to the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub desired: Option<Box<DesiredSet>>,
}

/// The addresses of the cluster's own APIs, which no process may reach, on whichever node it runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Apis {
    /// Differs whenever the list does.
    pub tag: String,
    /// All of them.
    pub addresses: Vec<ApiAddress>,
    /// Addresses of the workers, whose node ports are for the cluster's machines and not for processes. Empty from older
    /// controllers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub workers: Vec<IpAddr>,
    /// The network of services' addresses, which processes reach by their services' `needs` only. Absent from older controllers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub services: Option<ServiceSubnet>,
}

/// The API of one program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub struct ApiAddress {
    /// Its node's address.
    #[schema(value_type = String)]
    pub ip: IpAddr,
    /// Its port; absent while its agent has not reported since the controller started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
}

/// Resources of a node.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct NodeMetrics {
    /// Number of CPUs.
    pub cpus: u32,
    /// Share of all CPUs' time in use since the last report: 0.0 to 1.0.
    pub cpu_used: f64,
    /// Load averages over 1, 5 and 15 minutes.
    pub load: [f64; 3],
    /// All memory.
    pub memory_total: Bytes,
    /// Memory that could be given to new processes.
    pub memory_available: Bytes,
    /// Memory that the controller may reserve for processes on this node.
    pub memory_reservable: Bytes,
    /// Size of the file system that holds the agent's data.
    pub disk_total: Bytes,
    /// What is free of it.
    pub disk_available: Bytes,
    /// Pressure stall information, where the kernel has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pressure: Option<Pressure>,
}

/// Share of time, in percent over the last 10 s, in which some task waited (PSI, `some avg10`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct Pressure {
    /// For a CPU.
    pub cpu: f64,
    /// For memory.
    pub memory: f64,
    /// For IO.
    pub io: f64,
}

/// Where a process stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ProcessState {
    /// Assigned, and not yet reported by its node.
    Assigned,
    /// Its image is being fetched and unpacked.
    Pulling,
    /// Running, and has not answered a probe yet.
    Starting,
    /// Running and answering its probe.
    Healthy,
    /// Running, and no longer answering its probe.
    Unhealthy,
    /// Ended or could not be started; will be started again after a delay.
    BackOff,
    /// Told to end.
    Stopping,
    /// Of a run: it has ended, or could not be started, and is not started again.
    Ended,
}

/// One process as its agent sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ProcessReport {
    /// Its identity.
    pub id: ProcessId,
    /// Its service.
    pub service: ServiceName,
    /// The revision it runs. Where a change needs no new process, the new revision is reported once all of it is in force.
    pub revision: Revision,
    /// Where it stands.
    pub state: ProcessState,
    /// Why it is not healthy, in words for a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The node's port that is forwarded to the process's main port, usually its `port`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_port: Option<u16>,
    /// The node's ports that are forwarded to its named ports, by their names; absent where `node_port` is all.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub ports: BTreeMap<PortName, u16>,
    /// When it was last started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// How often it ended and was started again.
    #[serde(default)]
    pub restarts: u32,
    /// How often in a row it ended or could not be started; a time of health ends the row.
    #[serde(default)]
    pub attempts: u32,
    /// TCP addresses that it listens on, inside its network namespace: while its probe fails, if they could be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<String>>)]
    pub listening: Option<Vec<SocketAddr>>,
    /// The size of what its file system held at the last measurement. Large file systems are measured less often; absent before the
    /// first measurement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_used: Option<Bytes>,
    /// How it last ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_exit: Option<Exit>,
    /// How it is less restricted than by default, each as `key=value`: by its service's configuration, or because its node lacks a
    /// feature.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub relaxed: Vec<String>,
    /// The devices that are its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<AssignedDevice>,
    /// Read from its cgroup, while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics: Option<ProcessMetrics>,
    /// The last lines of its output, where it belongs to a run and has ended.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub last_lines: Vec<String>,
}

/// What a process's cgroup counts.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct ProcessMetrics {
    /// CPU time used, in microseconds.
    pub cpu_usage_us: u64,
    /// Scheduling periods in which it was throttled.
    pub throttled_periods: u64,
    /// Time for which it was throttled, in microseconds.
    pub throttled_us: u64,
    /// Memory in use.
    pub memory_current: Bytes,
    /// What of it the kernel can reclaim: the page cache.
    pub memory_reclaimable: Bytes,
    /// Most memory ever in use.
    pub memory_peak: Bytes,
    /// Memory limit.
    pub memory_limit: Bytes,
    /// How often the kernel killed in it for lack of memory.
    pub oom_kills: u64,
    /// Processes and threads.
    pub pids_current: u64,
    /// Most processes and threads that may exist.
    pub pids_limit: u64,
    /// How often a fork was refused because of that limit.
    pub pids_refused: u64,
    /// Bytes read from block devices.
    pub io_read_bytes: u64,
    /// Bytes written to block devices.
    pub io_write_bytes: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of an agent that is older than most fields, or newer than this program.
    #[test]
    fn a_report_needs_no_more_than_identity_and_processes() {
        let report = serde_json::json!({
            "ip": "10.0.0.11", "agent_port": 7071, "agent_id": "a", "sequence": 1, "generation": 2,
            "metrics": { "cpus": 2, "a_newer_field": 1 },
            "processes": [{ "id": "hello-1", "service": "hello", "revision": 1, "state": "healthy" }],
            "another_newer_field": {},
        });
        let report: NodeReport = serde_json::from_value(report).unwrap();
        assert_eq!((report.metrics.cpus, report.processes.len()), (2, 1));
        assert_eq!(report.processes[0].listening, None);
    }
}
