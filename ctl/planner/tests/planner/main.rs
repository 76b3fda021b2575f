//! The planner's rules, each as a sentence; and a simulated cluster under random faults.
//!
//! - `kit`: the simulated cluster: model agents, a network that loses, doubles, delays and reorders, a disk,
//!   and the validator that looks at every single step.
//! - `never`: what must not happen in any step, under any faults. `finally`: what must be so after they cease.
//! - All other modules: one rule a test.

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "a test program: it has no API, and fails where something is not as expected"
)]

mod alerts;
mod finally;
mod kit;
mod large;
mod leases;
mod never;
mod placement;
mod rebalance;
mod reports;
mod restarts;
mod restore;
mod rivals;
mod rollout;
mod routes;
mod services;
mod topology;
mod totality;
