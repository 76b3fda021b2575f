//! End-to-end tests over real sockets: a controller on a unix socket, processes on TCP ports, clients that
//! write raw bytes.

#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod support;

mod client_limits;
mod desync;
mod drains;
mod early_responses;
mod failover;
mod forwarding;
mod malformed_requests;
mod program;
mod route_updates;
mod routing;
mod threads;
mod upgrades;
mod waiting;
