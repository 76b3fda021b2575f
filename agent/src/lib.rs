//! The agent on each worker: **monitor** collects and reports, **runner** starts and stops processes.
//!
//! - [`settings`]: the static configuration, `agent.toml`.
//! - [`runner`]: one task that owns the state, a pure plan, and the steps that carry it out. What the agent keeps on disk is
//!   listed in [`runner::state`].
//! - [`monitor`]: metrics of the node and of each process, reported whole.
//! - [`http`]: what the controller asks of the agent.
//! - [`tls`]: the agent's certificate, and the door that connections come in by.
//! - [`logs`]: the processes' kept output.
//! - [`agent`]: all of it put together.

pub mod agent;
pub mod arguments;
pub mod clock;
pub mod confined;
mod controllers;
mod errors;
pub mod files;
pub mod http;
mod lacking;
pub mod logs;
pub mod monitor;
pub mod runner;
pub mod settings;
pub mod tls;
