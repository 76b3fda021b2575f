//! The planner's rules, each as a sentence, and a simulated cluster (`tucano_simulator`) under random faults.
//!
//! - `invariants`: what no step may break, under any faults. `convergence`: what holds once the faults have ended.
//! - All other modules: one rule a test.

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "a test program has no API and fails by panics"
)]

mod alerts;
mod backups;
mod convergence;
mod devices;
mod drains;
mod duplicates;
mod hooks;
mod identity;
mod invariants;
mod jobs;
mod large;
mod leases;
mod live_changes;
mod names;
mod placement;
mod reachability;
mod rebalance;
mod reports;
mod restarts;
mod restore;
mod rollout;
mod routes;
mod rules;
mod secrets;
mod services;
mod silence;
mod ticks;
mod topology;
mod totality;
mod volume_moves;
mod volume_orphans;
mod volume_removal;
mod volumes;
