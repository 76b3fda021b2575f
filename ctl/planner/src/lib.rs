//! The planner decides; it never acts. `step` takes an event and the time it happened and returns the
//! actions to carry out, in order. It knows no clock, no socket, no file, no randomness: the same events
//! give the same actions, so that a thousand nodes and every fault fit into a unit test.
//!
//! - [`model`]: what is durable (records) and what is said to and by the planner (events, actions).
//! - [`cluster`]: the state and `step`.
//! - `restore`: the state from its records; `configure`: new topology or settings.
//! - `nodes`: leases, restarts; `reports`: what agents say; `rivals`: two agents that claim to be the same
//!   worker's; `weight`: what a node's load means for routing.
//! - `services`: revisions; `rollout`: how many processes of which revision; `placement`: where;
//!   `rebalance`: moving them; `victims`: which ones go first.
//! - `processes`: the life of one process; `health`: what is told of its crashes.
//! - `routes`: what the balancer is to know; `view`: what people are shown, `reasons` in their words.
//! - `changes`: what a step has touched, and the actions that follow from it.
//!
//! Deliberately absent: any retry timer for desired sets (the next report shows whether one was lost), and
//! any memory of commands sent (generations say what an agent holds).

mod changes;
pub mod cluster;
mod configure;
mod health;
pub mod model;
mod nodes;
mod placement;
mod processes;
mod reasons;
mod rebalance;
mod reports;
mod restore;
mod rivals;
mod rollout;
mod routes;
mod services;
mod victims;
mod view;
mod weight;

pub use cluster::Cluster;
pub use model::{
    Action, Counters, Event, NodeRecord, ProcessRecord, Record, RevisionRecord, ServiceRecord,
    Settings, Snapshot, Trouble, Worker,
};
