//! The planner decides and never acts. `step` takes an event and the time it happened, and returns the actions to carry
//! out, in order. The planner has no clock, socket, file or randomness: the same events give the same actions, so that a
//! thousand nodes and every fault fit into a unit test.
//!
//! Each layer uses the layers below it:
//!
//! - [`cluster`]: `restore` and `step`; `queries`: what is shown of the cluster.
//! - Events: `topology` (new static configuration), `services` (configured and removed), `reports` (of agents),
//!   `duplicates` (two agents that report as one worker), `restarts` (of missing workers), `leases`, `silence` (of many
//!   workers at once), `readmission` (of what still runs on a lost one) and `health`, `holds` (nodes that hold sets of another controller) `adoption` (of what runs on
//!   those), `reachability` (agents that report but cannot be reached).
//! - `secrets`: which versions of them exist, and who needs them.
//! - `reconcile`: brings services nearer to their configuration; `rollout`: how many processes of which revision;
//!   `everywhere`: one on each worker; `slots`: the same for services with volumes; `rebalance`: moving processes.
//! - `jobs`: what runs to completion: jobs, hooks, and runs that are asked for.
//! - `volumes`: where volumes are, and whether they are there.
//! - `rules`: which workers a service's processes may be on.
//! - `placement`: where a process runs; `removal`: which one is stopped; `lifecycle`: starting and stopping one.
//! - `names`: the services that processes find by name: addresses, and which node needs which.
//! - `devices`: which devices a process gets;
//! - `restore` (the state from its records), `routes` and `actions` (what follows from a step's changes), `messages`.
//! - [`followers`]: which draining processes the balancers have confirmed to be drained.
//! - `state`: the data that a step works on.
//! - [`model`]: durable records, events and actions.
//!
//! Deliberately absent: any retry timer for desired sets (the next report shows whether one was lost), and any memory of
//! commands sent (generations say what an agent holds).

mod actions;
mod adoption;
mod backups;
pub mod cluster;
mod devices;
mod duplicates;
mod everywhere;
pub mod followers;
mod health;
mod holds;
mod jobs;
mod leases;
mod lifecycle;
mod live_changes;
mod messages;
pub mod model;
mod names;
mod placement;
mod queries;
mod reachability;
mod readmission;
mod rebalance;
mod reconcile;
mod removal;
mod reports;
mod restarts;
mod restore;
mod rollout;
mod routes;
mod rules;
mod secrets;
mod services;
mod silence;
mod slots;
mod state;
mod topology;
mod volumes;

pub use cluster::Cluster;
pub use followers::Followers;
pub use model::{
    Action, BackupFailure, BackupRecord, Configured, Counters, CrashHistory, Event, Fill, FillFrom,
    FillStage, Hold, HookRecord, Identity, JobRecord, Load, NamesUpdate, NodeRecord, Platforms,
    ProcessRecord, Record, Restoration, RevisionRecord, Sealed, SealedVersion, SecretRecord,
    ServiceRecord, SetVersion, Settings, Snapshot, VolumeRecord, Worker,
};
