//! A simulated cluster: the planner with model agents, a network that loses, duplicates, delays and reorders messages,
//! and a disk. A validator checks every single step. Simulations are deterministic: a seed and a list of faults replay.
//!
//! - [`sim`]: the simulation; [`fixtures`]: what it is described with.
//! - [`agent`]: the model of an agent; [`balancer`]: that of a balancer; [`network`]; [`disk`].
//! - [`fault`]: what can go wrong, as a list that replays (and, with the feature `proptest`, shrinks).
//! - [`volumes`]: those of an agent; `volume_rules`: what the validator checks of slots and volumes; `name_rules`:
//!   what of services' addresses; `job_rules`: what of runs.
//! - `placement_rules`: what the validator checks of labels and neighbours; `spread_rules`: how evenly processes are placed.
//! - [`validator`]: the rules that no step may break. It panics where one is broken.

#![allow(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "a simulation panics where a rule is broken or its description is not valid"
)]

pub mod agent;
pub mod balancer;
mod device_rules;
pub mod disk;
mod drains;
pub mod fault;
pub mod fixtures;
mod job_rules;
mod name_rules;
pub mod network;
mod placement_rules;
pub mod sim;
mod spread_rules;
pub mod validator;
mod volume_rules;
pub mod volumes;

pub use fixtures::{
    backup, config, image, ip, job, labelled, labels, name, node, placed, process, settings,
    with_memory, with_volumes, worker, workers,
};
pub use sim::{Options, START, Sim, alerts, new_disk, of_kind};
