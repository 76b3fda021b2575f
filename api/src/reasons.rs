//! Reasons, as data. They become words here, at the edge: programs read the data, people the words.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{ids::NodeName, units::Bytes};

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
}

/// What a worker has left to reserve.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WorkerMemory {
    /// The worker.
    pub node: NodeName,
    /// Memory that is not reserved.
    pub free: Bytes,
    /// Memory that can be reserved.
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
