//! The command line as callers of runc use it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod devices;
mod docker;
mod drivers;
mod harness;
mod hooks;
mod join;
mod life;
mod limits;
mod mounts;
mod namespaces;
mod numbers;
mod process;
mod refused;
mod streams;
