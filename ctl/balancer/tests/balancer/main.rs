//! The balancer over real sockets: a controller on a unix socket, processes on TCP ports, clients that
//! write bytes.

#![allow(clippy::unwrap_used, reason = "in a test, what is not there ends it")]

mod support;

mod bad_requests_are_refused;
mod clients_are_bounded;
mod processes_that_fail_are_avoided;
mod requests_are_routed;
mod routes_are_followed;
mod the_program_starts_and_ends;
mod upgrades_are_tunnelled;
mod what_passes_through;
