//! Ways out of a container that other runtimes had, each tried against this one, as a bundle's container sees it. Each test says how
//! a runtime that does not take care would fail it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod devices;
#[path = "../bundles/harness.rs"]
#[allow(dead_code, reason = "shared with the tests of the command")]
mod harness;
mod host;
mod links;
mod outside;
mod procfs;
mod races;
mod runtime;
mod users;
