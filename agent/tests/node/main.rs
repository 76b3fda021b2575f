//! The real agent on a node of its own: a network namespace that the test makes, with a controller that only the test sees.

#![allow(
    clippy::unwrap_used,
    reason = "these are tests, and their helpers are too"
)]

mod api;
mod controller;
mod images;
mod lifecycle;
mod network;
mod node;
mod restart;
mod spoofing;
mod tls;
mod trouble;
