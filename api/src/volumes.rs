//! The content of volumes, between controller and agents: copies of other workers' volumes, backups, and what is restored from them.
//!
//! These are levels too. A fill stays in the desired set of its worker until the worker reports the volume as one of its own, and an
//! order of a backup until the worker reports its end.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    agent::VolumeInstance,
    ids::{NodeName, ProcessId},
    secrets::SecretVersion,
    units::{Bytes, Span, Timestamp},
};

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
    /// The instance on this worker whose place it takes, in which it is removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaces: Option<u64>,
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
    /// A backup of the volume's files.
    Snapshot {
        /// Where it is.
        repository: Repository,
        /// Its id.
        snapshot: String,
    },
}

/// A repository of backups.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Repository {
    /// `s3://bucket/prefix` or `file:///directory`.
    pub location: String,
    /// The secret with its password.
    pub password: SecretVersion,
    /// The secret with the access key of the bucket, as `ID:KEY`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_key: Option<SecretVersion>,
    /// The URL of an S3 server that is not Amazon's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// The region of the bucket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// The id that it had with an earlier backup of the volume: another repository at the location is not used. Only without one may it
    /// be created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
}

impl Repository {
    /// The secrets that it takes to reach it.
    pub fn secrets(&self) -> impl Iterator<Item = &SecretVersion> {
        std::iter::once(&self.password).chain(&self.access_key)
    }
}

/// A backup to make. The agent begins it once, and reports its end until the order is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BackupOrder {
    /// The volume.
    #[serde(flatten)]
    pub volume: VolumeInstance,
    /// Counts the backups of the volume.
    pub number: u64,
    /// Where it is stored.
    pub repository: Repository,
    /// How many of the volume's backups stay.
    pub keep: u32,
    /// The command whose output is stored in place of the files.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dump: Vec<String>,
    /// The process that has the volume: `dump` runs in its container; else it is frozen for a moment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<ProcessId>,
    /// How long at most.
    pub freeze_at_most: Span,
}

/// A stored output of `dump` that is loaded into a new volume once its process is healthy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VolumeLoad {
    /// Where it is.
    pub repository: Repository,
    /// Its id.
    pub snapshot: String,
    /// The command that reads it, in the container.
    pub command: Vec<String>,
}

/// How far a load is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LoadReport {
    /// The snapshot.
    pub snapshot: String,
    /// The bytes that the command has read.
    #[serde(default)]
    pub done: Bytes,
    /// Whether the command has ended with success. An agent that was restarted still knows that.
    #[serde(default)]
    pub loaded: bool,
    /// Why it was not loaded, in words for a person. It is not tried again: the command may have changed the volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A backup as its agent sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BackupReport {
    /// The volume.
    #[serde(flatten)]
    pub volume: VolumeInstance,
    /// As in the order.
    pub number: u64,
    /// The bytes that were read so far.
    #[serde(default)]
    pub done: Bytes,
    /// How it has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<BackupEnd>,
}

/// How a backup has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum BackupEnd {
    /// It is in the repository.
    Stored(Snapshot),
    /// It is not.
    Failed {
        /// Why, in words for a person.
        error: String,
    },
}

/// A backup in its repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Snapshot {
    /// Its id.
    pub id: String,
    /// When the data was as it is there.
    pub at: Timestamp,
    /// The repository.
    pub location: String,
    /// The repository's id.
    pub repository: String,
    /// The bytes of data.
    pub bytes: Bytes,
    /// What the repository has grown by.
    pub added: Bytes,
    /// How the data was kept from changing.
    pub consistency: Consistency,
}

/// How the data of a backup was kept from changing while it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Consistency {
    /// It is the output of a command.
    Dump,
    /// No process had the volume.
    Unused,
    /// The process was frozen while the last differences were read.
    Frozen,
    /// A snapshot of the file system below was read.
    Reflink,
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
