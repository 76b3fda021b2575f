//! What crosses the wire between Tucano's programs: names, validated static configuration, and the
//! bodies of every request. No IO, no async, no clock.
//!
//! - [`ids`]: names and numbers that identify things; each parses once, strictly.
//! - [`units`]: sizes and durations as people write them.
//! - [`service`]: the static configuration of a service.
//! - [`application`]: services that are deployed together.
//! - [`image`]: what an image says of its processes.
//! - [`schedule`]: when a job runs; [`jobs`]: its runs, and what became of them.
//! - [`capabilities`]: the capabilities that it may ask for.
//! - [`settings`]: reading any static configuration; every error with its line, column and a suggestion.
//! - [`agent`]: controller → agent desired sets and agent → controller reports.
//! - [`routes`]: the table that discovery gives to the balancer; [`balancer`]: what balancers report back.
//! - [`names`]: the services that processes find by name, for the agents; [`network`]: the networks of their addresses.
//! - [`rollout`]: how far a deploy has come, and why it failed.
//! - [`state`]: what the controller shows of the cluster.
//! - [`reasons`]: why something is as it is, as data and in words.
//! - [`secrets`]: secrets without their values, and how those come to agents.
//! - [`volumes`]: the content that volumes get before processes have them.
//! - [`logs`]: which part of a process's output to show, and its lines.
//! - [`error`]: the error body of every API.

pub mod agent;
pub mod application;
pub mod balancer;
pub mod capabilities;
pub mod error;
pub mod ids;
pub mod image;
pub mod jobs;
pub mod logs;
pub mod names;
pub mod network;
pub mod reasons;
pub mod rollout;
pub mod routes;
pub mod schedule;
pub mod secrets;
pub mod service;
pub mod settings;
mod signal;
pub mod state;
pub mod units;
pub mod volumes;

/// Port that an agent listens on unless its configuration says otherwise.
pub const AGENT_PORT: u16 = 7071;
/// Port of the controller's API unless its configuration says otherwise.
pub const API_PORT: u16 = 7070;
/// The repository of the controller's registry that has every blob of every image: agents fetch from it, and
/// `tucano deploy` sends to it.
pub const IMAGES_REPOSITORY: &str = "tucano/images";
