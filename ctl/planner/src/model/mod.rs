//! The planner's input and output: settings, events, actions, and the durable records.

mod event;
mod record;
mod settings;

pub use event::{Action, Event};
pub use record::{
    Counters, CrashHistory, Fill, FillStage, Hold, Identity, NodeRecord, ProcessRecord, Record,
    RevisionRecord, Sealed, SealedVersion, SecretRecord, ServiceRecord, SetVersion, Snapshot,
    VolumeRecord,
};
pub use settings::{Settings, Worker};
