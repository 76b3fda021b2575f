//! The agent on each worker: **monitor** collects and reports, **runner** starts and stops processes.
//!
//! - [`settings`]: the static configuration, `agent.toml`.
//! - [`runner`]: one task that owns the state, a pure plan, and the steps that execute it. [`runner::state`] lists the agent's
//!   files.
//! - [`monitor`]: reports with the metrics of the node and of each process.
//! - [`http`]: the agent's API, for the controller.
//! - [`credentials`]: what the agent presents to the controller.
//! - [`tls`]: the agent's certificate, and the listener of its API.
//! - [`logs`]: the processes' stored output.
//! - [`devices`]: devices that containers may have.
//! - [`volumes`]: file systems that outlive their processes.
//! - [`backups`]: their content in repositories, and back.
//! - [`agent`]: builds and runs all of these.

mod address;
pub mod agent;
mod answers;
pub mod arguments;
pub mod backups;
mod cgroup_controllers;
pub mod clock;
mod conditions;
pub mod confined;
pub mod credentials;
pub mod devices;
mod errors;
pub mod files;
pub mod fills;
pub mod http;
pub mod logs;
pub mod monitor;
pub mod names;
pub mod runner;
pub mod settings;
pub mod tls;
pub mod volumes;
