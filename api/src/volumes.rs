//! The content that volumes get before processes have them, between controller and agents: copies of other workers' volumes.
//!
//! These are levels too. A fill stays in the desired set of its worker until the worker reports the volume as one of its own.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{agent::VolumeInstance, ids::NodeName, units::Bytes};

/// A volume that a worker is to fill. No process has it before it is installed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VolumeFill {
    /// Which one.
    #[serde(flatten)]
    pub volume: VolumeInstance,
    /// Its size.
    pub size: Bytes,
    /// Where its content comes from.
    pub from: FillSource,
    /// Whether it becomes a volume of the worker once it has all of its content. Before, it may still be given up.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub install: bool,
}

/// Where the content of a volume comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum FillSource {
    /// Another worker's volume of the same name, which no process has meanwhile.
    Volume {
        /// Its instance.
        instance: u64,
        /// The worker.
        node: NodeName,
        /// The API of that worker's agent.
        #[schema(value_type = String)]
        address: SocketAddr,
    },
}

/// A volume that another worker may read, and that no process has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VolumeExport {
    /// Which one.
    #[serde(flatten)]
    pub volume: VolumeInstance,
    /// The worker that may read it.
    pub to: NodeName,
}

/// How far a fill is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FillReport {
    /// Which one.
    #[serde(flatten)]
    pub volume: VolumeInstance,
    /// The bytes of content that it has.
    #[serde(default)]
    pub done: Bytes,
    /// All bytes of content, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<Bytes>,
    /// Whether it has all of its content, compared with the source and on the disk.
    #[serde(default)]
    pub whole: bool,
    /// Why it does not go on, in words for a person. The agent tries again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// Whether the problem stays: the agent has given up.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub failed: bool,
}
