use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use tucano_api::{
    agent::{DesiredSet, NodeReport},
    ids::{Digest, NodeName, ProcessId, SecretName, ServiceName, VolumeId},
    names::NamedService,
    routes::ServiceRoute,
    service::ServiceConfig,
    state::Alert,
};

use super::{Platforms, Record, Sealed, SecretRecord, Settings, Worker};

/// What can happen.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The static configuration was read: all workers in the topology's order, and the settings.
    Configured {
        /// The workers.
        workers: Vec<Worker>,
        /// The settings.
        settings: Settings,
    },
    /// A service was deployed or changed. A no-op where nothing differs from the current revision.
    ServiceConfigured {
        /// Its configuration.
        config: Box<ServiceConfig>,
        /// Digest of its image's manifest.
        image: Digest,
        /// Its manifests by architecture; empty where `image` is for all workers.
        platforms: Platforms,
    },
    /// Services were deployed together, as an application: all of them in one step, so that they may need each other.
    ServicesConfigured {
        /// The services, each of which is named once.
        services: Vec<Configured>,
    },
    /// Somebody has all processes of a service replaced by new ones of the same revision.
    ServiceRestarted {
        /// Its name.
        name: ServiceName,
    },
    /// A service was removed.
    ServiceRemoved {
        /// Its name.
        name: ServiceName,
        /// Whether its volumes are removed as well.
        volumes: bool,
    },
    /// A volume that no process has is removed. A no-op where [`Cluster::volume_obstacle`](crate::Cluster::volume_obstacle) names
    /// an obstacle.
    VolumeRemoved {
        /// The volume.
        id: VolumeId,
    },
    /// The volumes of a slot are to be on another worker, or to stay where they are although they are being moved. A no-op where
    /// [`Cluster::move_obstacle`](crate::Cluster::move_obstacle) names an obstacle.
    VolumeMoved {
        /// One of the slot's volumes.
        id: VolumeId,
        /// The worker.
        to: NodeName,
    },
    /// Somebody wants a backup of a volume now. A no-op where [`Cluster::backup_obstacle`](crate::Cluster::backup_obstacle) names an
    /// obstacle.
    BackupRequested {
        /// The volume.
        id: VolumeId,
    },
    /// A volume is to have the content of a backup. A no-op where [`Cluster::restore_obstacle`](crate::Cluster::restore_obstacle)
    /// names an obstacle.
    VolumeRestored(Restoration),
    /// A volume that a worker reports and no record tells of was removed there.
    OrphanRemoved {
        /// Its name.
        id: VolumeId,
        /// The worker.
        node: NodeName,
    },
    /// A secret has a new value.
    SecretSet {
        /// Its name.
        name: SecretName,
        /// The number of its version: a larger one than any before.
        version: u64,
        /// The value.
        sealed: Sealed,
    },
    /// A secret was removed.
    SecretRemoved {
        /// Its name.
        name: SecretName,
    },
    /// Values of secrets were encrypted with another key.
    SecretsResealed {
        /// With the new texts.
        records: Vec<SecretRecord>,
    },
    /// A worker reported. `node` is its canonical name.
    NodeReported {
        /// Its name.
        node: NodeName,
        /// The report.
        report: Box<NodeReport>,
    },
    /// A restart command ended.
    RestartFinished {
        /// The worker it was for.
        node: NodeName,
        /// Its result; the error is a message for the user.
        result: Result<(), String>,
    },
    /// Connections to a worker's agent began to fail, or succeed again. Its reports may come all the same.
    AgentReachable {
        /// The worker.
        node: NodeName,
        /// Whether they succeed.
        reachable: bool,
    },
    /// No balancer has a request in flight to these draining processes, and none will send one.
    Drained {
        /// The processes.
        processes: Vec<ProcessId>,
    },
    /// Somebody wants a run of a job, or of a command in a service's image. A no-op where
    /// [`Cluster::run_obstacle`](crate::Cluster::run_obstacle) names an obstacle.
    RunRequested {
        /// The service.
        service: ServiceName,
        /// The arguments in place of the configuration's.
        command: Option<Vec<String>>,
    },
    /// Somebody wants a run to end.
    RunStopped {
        /// The service.
        service: ServiceName,
        /// The number of the run.
        number: u64,
    },
    /// The sysadmin has decided that the processes on nodes on hold are adopted.
    Adopt,
    /// Time passed.
    Tick,
}

/// A service as it is deployed.
#[derive(Debug, Clone, PartialEq)]
pub struct Configured {
    /// Its configuration.
    pub config: Box<ServiceConfig>,
    /// Digest of its image's manifest.
    pub image: Digest,
    /// Its manifests by architecture; empty where `image` is for all workers.
    pub platforms: Platforms,
}

/// Which backup a volume is to have the content of, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restoration {
    /// The volume.
    pub id: VolumeId,
    /// The id of the backup; the newest that is known if absent.
    pub from: Option<String>,
    /// The worker that the volume is to be on; where it is, or any that can have it, if absent.
    pub on: Option<NodeName>,
    /// The worker whose volume is given up although it may come back.
    pub lost: Option<NodeName>,
    /// Whether a volume that can be used is replaced.
    pub replace: bool,
}

/// What has changed of the services that processes find by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NamesUpdate {
    /// Services that are new, changed, or (`None`) gone.
    pub services: BTreeMap<ServiceName, Option<Arc<NamedService>>>,
    /// The services that nodes need, where that has changed.
    pub needs: BTreeMap<NodeName, BTreeSet<ServiceName>>,
}

/// What the planner can ask for. Actions are carried out in order; nothing that follows a `Persist` may leave the
/// controller before the records are on disk.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Write these records in one transaction, and sync.
    Persist(Vec<Record>),
    /// Send this desired set to its node's agent.
    Assign(DesiredSet),
    /// Publish the routes of all services.
    Publish(Vec<ServiceRoute>),
    /// Tell the nodes what has changed of the services that their processes need.
    Names(NamesUpdate),
    /// Run this worker's restart command; its end is an [`Event::RestartFinished`].
    Restart {
        /// The worker.
        node: NodeName,
        /// Number of the attempt, from 1.
        attempt: u32,
    },
    /// Send an alert.
    Alert(Alert),
}
