//! The planner's input and output: settings, events, actions, and the durable records.

mod event;
mod record;
mod settings;

pub use event::{Action, Configured, Event, NamesUpdate, Restoration};
pub use record::{
    BackupFailure, BackupRecord, Counters, CrashHistory, Fill, FillFrom, FillStage, Hold,
    HookRecord, Identity, JobRecord, Load, NodeRecord, Platforms, ProcessRecord, Record,
    RevisionRecord, Sealed, SealedVersion, SecretRecord, ServiceRecord, SetVersion, Snapshot,
    VolumeRecord,
};
pub use settings::{Settings, Worker};
