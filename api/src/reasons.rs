//! Reasons, as data. They become words here, at the edge: programs read the data, people the words.

mod placement;

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    ids::{DeviceKind, LabelName, LabelValue, NodeName, ProcessId, ServiceName, VolumeId},
    service::Labels,
    units::{Bytes, Timestamp},
};

/// Workers that a message names; further ones are counted.
const MAX_NAMED: usize = 5;

/// Why processes of a service are not placed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "code", rename_all = "snake_case")]
pub enum PendingReason {
    /// The topology has no worker.
    NoWorkers,
    /// No worker is alive.
    NoneAlive,
    /// Every worker that is alive is on hold.
    AllOnHold,
    /// No worker has enough memory left to reserve.
    NoMemory {
        /// What a process reserves.
        needed: Bytes,
        /// The workers that can be placed on.
        workers: Vec<WorkerMemory>,
    },
    /// No worker's agent knows all keys of the configuration.
    UnknownKeys {
        /// The keys that some agents do not know.
        keys: Vec<String>,
        /// The workers that can be placed on, were it not for that.
        nodes: Vec<NodeName>,
    },
    /// No worker has the labels that the service's placement wants.
    NoLabels {
        /// Those labels.
        #[schema(value_type = std::collections::BTreeMap<String, String>)]
        labels: Labels,
        /// The workers, with what they have instead.
        workers: Vec<WorkerLabels>,
    },
    /// The image does not run on the architecture of any worker that has the labels.
    NoArchitecture {
        /// The architectures that it runs on.
        images: Vec<String>,
        /// Those workers, with their architectures.
        workers: Vec<WorkerArchitecture>,
    },
    /// No worker that fits otherwise has a process of a service that this one is to be with.
    NotWith {
        /// That service.
        service: ServiceName,
        /// Whether it is configured.
        configured: bool,
        /// The workers that fit otherwise.
        nodes: Vec<NodeName>,
    },
    /// Every worker that fits otherwise has a process of a service that this one is apart from.
    NotApart {
        /// That service, by its own placement or by this one's.
        service: ServiceName,
        /// Those workers.
        nodes: Vec<NodeName>,
    },
    /// No worker has enough CPUs left to reserve.
    NoCpus {
        /// What a process reserves, in thousandths of a CPU.
        needed_millicpus: u64,
        /// The workers that can be placed on.
        workers: Vec<WorkerCpus>,
    },
    /// Every worker that can be placed on has too little memory or too few CPUs left to reserve.
    NoMemoryOrCpus {
        /// The memory that a process reserves.
        memory: Bytes,
        /// The CPUs that it reserves, in thousandths.
        millicpus: u64,
        /// Those workers.
        nodes: Vec<NodeName>,
    },
    /// No worker that knows the configuration lists the directories that the service's containers have.
    NoHostPath {
        /// The directories.
        paths: Vec<String>,
        /// Those workers.
        nodes: Vec<NodeName>,
    },
    /// No worker that fits otherwise gives containers the device nodes.
    NoDeviceNode {
        /// The device nodes.
        paths: Vec<String>,
        /// Those workers.
        nodes: Vec<NodeName>,
    },
    /// No worker that fits otherwise has the devices free.
    NoDevices {
        /// What each process has, as `devices` of the configuration says it.
        wanted: Vec<String>,
        /// Those workers, with what they have of it.
        workers: Vec<WorkerDevices>,
    },
    /// No worker has room for the volumes.
    NoVolumeRoom {
        /// What the volumes of a slot, or their growth, take.
        needed: Bytes,
        /// The workers that could have them; none where no worker has a place for volumes.
        workers: Vec<WorkerMemory>,
    },
    /// The slot's volume is on a worker that is not there.
    VolumeAway {
        /// The volume.
        volume: VolumeId,
        /// Its worker.
        node: NodeName,
        /// Since when the worker is not there.
        since: Timestamp,
        /// Why it is not.
        cause: Absence,
    },
    /// The slot's volume is not where it was, or cannot be used.
    VolumeMissing {
        /// The volume.
        volume: VolumeId,
        /// Its worker.
        node: NodeName,
        /// What is wrong, in words for a person.
        problem: String,
    },
    /// Another volume of the name is where the slot's volume would be created.
    OtherVolume {
        /// The name of both.
        volume: VolumeId,
        /// The worker.
        node: NodeName,
        /// Whether the other one is being removed.
        removing: bool,
    },
    /// The slot's volumes are being moved to another worker.
    VolumeMoving {
        /// One of them.
        volume: VolumeId,
        /// The worker that they were on.
        from: NodeName,
        /// The other worker.
        to: NodeName,
    },
    /// The slot's volume gets the content of a backup.
    VolumeRestoring {
        /// The volume.
        volume: VolumeId,
        /// Its worker.
        node: NodeName,
        /// Why it did not get it, in words for a person.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        problem: Option<String>,
    },
    /// The slot's process before is not gone yet.
    SlotTaken {
        /// The slot.
        slot: u32,
        /// That process, where it is known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        process: Option<ProcessId>,
        /// The worker that it runs on, or may run on.
        node: NodeName,
    },
    /// What runs before the first process of the revision has not succeeded.
    Before {
        /// The number of its run; 0 where that is not begun yet.
        run: u64,
        /// What became of it, where it has not succeeded.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        problem: Option<String>,
    },
    /// It is started for the first time once these services have a healthy process.
    StartsAfter {
        /// The services that have none yet.
        services: Vec<ServiceName>,
    },
    /// There is a place as soon as processes that are stopping are gone.
    Stopping,
    /// Only so many processes are replaced at once.
    Rolling {
        /// How many.
        at_once: u64,
    },
    /// The controller has just started, and workers have not reported yet.
    Awaiting {
        /// Those workers.
        nodes: Vec<NodeName>,
    },
    /// A reason that came later than this program.
    #[serde(other)]
    Unknown,
}

/// A label of a worker that is not the one that is wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WorkerLabels {
    /// The worker.
    pub node: NodeName,
    /// The first label that is wanted and that it does not have.
    pub label: LabelName,
    /// What it has instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<LabelValue>,
}

/// The architecture of a worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WorkerArchitecture {
    /// The worker.
    pub node: NodeName,
    /// The architecture of images that it runs, such as `arm64`.
    pub architecture: String,
}

/// What CPUs a worker has left to reserve.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WorkerCpus {
    /// The worker.
    pub node: NodeName,
    /// What is not reserved, in thousandths of a CPU.
    pub free_millicpus: u64,
    /// All of them.
    pub all_millicpus: u64,
}

/// What a worker has of the devices that a service asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WorkerDevices {
    /// The worker.
    pub node: NodeName,
    /// The kind that it has too few of, or of which a certain one is not free.
    pub kind: DeviceKind,
    /// How many devices of that kind no process has.
    pub free: u32,
    /// How many it has.
    pub all: u32,
}

/// Why a worker is not there, although volumes are on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Absence {
    /// It does not report.
    Silent,
    /// It is on hold.
    OnHold,
    /// It has left the topology.
    Left,
}

impl Absence {
    /// The cause with its beginning, as in `is on w2, which does not report since 2026-11-30 07:00:00 UTC`.
    pub fn since(self, since: Timestamp) -> String {
        let what = match self {
            Self::Silent => "does not report",
            Self::OnHold => "is on hold",
            Self::Left => "is not in the topology",
        };
        format!("{what} since {since}")
    }

    /// What to do about it.
    pub const fn advice(self) -> &'static str {
        match self {
            Self::Silent => "bring it back",
            Self::OnHold => "release it, `tucano adopt` shows what runs there",
            Self::Left => "add it to the topology again",
        }
    }
}

/// What a worker has left to reserve.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WorkerMemory {
    /// The worker.
    pub node: NodeName,
    /// What is not reserved, of its memory or of its place for volumes.
    pub free: Bytes,
    /// What can be reserved.
    pub reservable: Bytes,
}

impl fmt::Display for PendingReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoWorkers => f.write_str("the topology has no worker"),
            Self::NoneAlive => f.write_str("no worker is alive"),
            Self::AllOnHold => f.write_str(
                "every worker that is alive is on hold: `tucano adopt` takes over what runs there",
            ),
            Self::NoMemory { needed, workers } => write!(
                f,
                "no worker has {} of memory left to reserve ({})",
                short(*needed),
                first(workers)
            ),
            Self::UnknownKeys { keys, nodes } => write!(
                f,
                "no worker's agent knows {} of its configuration: upgrade the agent of {}",
                keys.iter()
                    .map(|key| format!("`{key}`"))
                    .collect::<Vec<_>>()
                    .join(", "),
                first(nodes)
            ),
            Self::NoLabels { .. }
            | Self::NoArchitecture { .. }
            | Self::NotWith { .. }
            | Self::NotApart { .. }
            | Self::NoCpus { .. }
            | Self::NoDeviceNode { .. }
            | Self::NoDevices { .. }
            | Self::NoMemoryOrCpus { .. } => placement::describe(self, f),
            Self::Unknown => f.write_str("for a reason that this version does not know"),
            Self::NoHostPath { paths, nodes } => write!(
                f,
                "no worker lists {} in `host_paths` of its agent.toml ({})",
                paths.join(", "),
                first(nodes)
            ),
            Self::NoVolumeRoom { workers, .. } if workers.is_empty() => {
                f.write_str("no worker has a place for volumes")
            }
            Self::NoVolumeRoom { needed, workers } => write!(
                f,
                "no worker has room for {} of volumes ({})",
                short(*needed),
                first(workers)
            ),
            Self::VolumeAway {
                volume,
                node,
                since,
                cause,
            } => write!(
                f,
                "volume {volume} is on {node}, which {}: {}",
                cause.since(*since),
                cause.advice()
            ),
            Self::VolumeMissing {
                volume,
                node,
                problem,
            } => write!(
                f,
                "volume {volume} on {node} cannot be used: {problem}. It is not made again"
            ),
            Self::OtherVolume {
                volume,
                node,
                removing: true,
            } => write!(
                f,
                "waits until another volume {volume} is removed from {node}"
            ),
            Self::OtherVolume { volume, node, .. } => write!(
                f,
                "another volume {volume} is on {node}, which no service uses: remove it with `tucano volume rm {volume} --on {node}`"
            ),
            Self::VolumeMoving { volume, from, to } => {
                write!(f, "volume {volume} is being moved from {from} to {to}")
            }
            Self::VolumeRestoring {
                volume,
                node,
                problem: None,
            } => write!(f, "volume {volume} is being restored on {node}"),
            Self::VolumeRestoring {
                volume,
                node,
                problem: Some(problem),
            } => write!(
                f,
                "volume {volume} was not restored on {node}: {problem}. Try `tucano volume restore {volume}` again"
            ),
            Self::SlotTaken {
                slot,
                process,
                node,
            } => match process {
                Some(process) => write!(f, "slot {slot} waits until {process} is gone from {node}"),
                None => write!(
                    f,
                    "slot {slot} waits until {node} has reported what still runs on it"
                ),
            },
            Self::StartsAfter { services } => write!(
                f,
                "waits for a healthy process of {} (`start_after`)",
                first(services)
            ),
            Self::Stopping => f.write_str("waits for memory that stopping processes still have"),
            Self::Rolling { at_once } => {
                let are = if *at_once == 1 {
                    "process is"
                } else {
                    "processes are"
                };
                write!(
                    f,
                    "waits for its turn: at most {at_once} {are} replaced at once"
                )
            }
            Self::Before { run: 0, .. } => f.write_str("`before` has not begun yet"),
            Self::Before { run, problem: None } => write!(f, "`before` runs first, as run {run}"),
            Self::Before {
                run,
                problem: Some(problem),
            } => write!(
                f,
                "`before`, run {run}, {problem}: deploy again when that is mended"
            ),
            Self::Awaiting { nodes } => write!(
                f,
                "the controller has just started and waits for reports of {}",
                first(nodes)
            ),
        }
    }
}

impl fmt::Display for WorkerMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (free, all) = (short(self.free), short(self.reservable));
        write!(f, "{}: {free} free of {all}", self.node)
    }
}

/// A size without a trailing zero: `256 MiB`, `1.5 GiB`.
fn short(bytes: Bytes) -> String {
    bytes.to_string().replace(".0 ", " ")
}

/// The first items, and how many more there are.
fn first(items: &[impl fmt::Display]) -> String {
    let named: Vec<String> = items
        .iter()
        .take(MAX_NAMED)
        .map(ToString::to_string)
        .collect();
    let named = named.join(", ");
    match items.len().saturating_sub(MAX_NAMED) {
        0 => named,
        more => format!("{named} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_absent_volume_says_where_it_is_and_since_when() {
        let reason = PendingReason::VolumeAway {
            volume: "db/data/1".parse().unwrap(),
            node: "w2".parse().unwrap(),
            since: Timestamp(1_700_000_000_000),
            cause: Absence::Silent,
        };
        assert_eq!(
            reason.to_string(),
            "volume db/data/1 is on w2, which does not report since 2023-11-14 22:13:20 UTC: bring it back"
        );
    }

    #[test]
    fn a_reason_that_came_later_is_not_an_error() {
        let text = "{\"code\":\"moon_phase\",\"phase\":3}";
        let reason: PendingReason = serde_json::from_str(text).unwrap();
        assert_eq!(reason, PendingReason::Unknown);
        assert!(reason.to_string().contains("does not know"));
    }

    #[test]
    fn a_reason_has_words_and_survives_json() {
        let reason = PendingReason::NoMemory {
            needed: Bytes::mib(256),
            workers: vec![WorkerMemory {
                node: "w1".parse().unwrap(),
                free: Bytes::mib(88),
                reservable: Bytes::mib(600),
            }],
        };
        assert_eq!(
            reason.to_string(),
            "no worker has 256 MiB of memory left to reserve (w1: 88 MiB free of 600 MiB)"
        );
        let text = serde_json::to_string(&reason).unwrap();
        assert!(text.starts_with("{\"code\":\"no_memory\""), "{text}");
        assert_eq!(
            serde_json::from_str::<PendingReason>(&text).unwrap(),
            reason
        );
    }
}
