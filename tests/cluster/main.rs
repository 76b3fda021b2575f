//! The main job on virtual hosts: deploy, place, limit, remove.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod apis;
mod application;
mod deploy;
mod exec;
mod jobs;
mod limits;
mod live_changes;
mod mounts;
mod names;
mod partitions;
mod placement;
mod remove;
mod restores;
mod secrets;
mod tls;
mod volume_moves;
mod volumes;
