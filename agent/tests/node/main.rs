//! The agent's program on a node of its own: a network namespace of the test, with a fake controller.

#![allow(
    clippy::unwrap_used,
    reason = "these are tests, and their helpers are too"
)]

mod api;
mod backups;
mod controller;
mod devices;
mod dumps;
mod files;
mod images;
mod lifecycle;
mod live_changes;
mod mounts;
mod names;
mod network;
mod node;
mod ports;
mod process;
mod restart;
mod secrets;
mod spoofing;
mod tls;
mod trouble;
mod volumes;
