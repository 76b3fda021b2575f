//! The planner decides; it never acts. `step` takes an event and the time it happened and returns the
//! actions to carry out, in order. It knows no clock, no socket, no file, no randomness: the same events
//! give the same actions, so that a thousand nodes and every fault fit into a unit test.
//!
//! - [`model`]: what is durable (records) and what is said to and by the planner (events, actions).
//! - [`cluster`]: the state and `step`.

pub mod cluster;
pub mod model;

pub use cluster::Cluster;
pub use model::{
    Action, Counters, Event, NodeRecord, ProcessRecord, Record, RevisionRecord, ServiceRecord,
    Settings, Snapshot, Worker,
};
