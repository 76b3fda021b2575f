//! The controller as a program, with fake agents.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests fail the test, as tests themselves do"
)]

mod access;
mod agent;
mod alerting;
mod applications;
mod auditing;
mod bad_input;
mod balancer;
mod configuration;
mod ctl;
mod declared;
mod deploys;
mod drains;
mod durability;
mod exec;
mod image;
mod mounts;
mod nodes;
mod observing;
mod prefetching;
mod pulling;
mod registry;
mod remote_balancer;
mod secrets;
mod service_manager;
mod tls;
mod volumes;
