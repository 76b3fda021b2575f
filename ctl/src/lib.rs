//! The controller: decides what runs where and carries it out.
//!
//! ```text
//!  sysadmin ──► http ──► deployer ───┐                         ┌──► agent_mgr ──► agents
//!               http ──► config_mgr ─┼──► state_loop (planner) ┼──► discovery ──► balancer
//!  agents ────► http ──► agent_mgr ──┘        │                └──► alerts ─────► sysadmin
//!                                           store
//! ```
//!
//! - [`config_mgr`]: the static configuration and its reload.
//! - [`deployer`]: services and their images.
//! - [`secrets`]: secrets, encrypted at rest.
//! - [`agent_mgr`]: reports in, desired sets out, node restarts.
//! - [`state_loop`]: the task that owns the cluster's state.
//! - [`store`]: durable state.
//! - [`discovery`], [`balancer`]: the routes, and the process that follows them.
//! - [`alerts`]: notifications for the sysadmin.
//! - [`http`]: the API; [`tls`], [`certified_nodes`]: authority, certificates, and the nodes that use them.
//! - [`controller`]: the wiring.
//!
//! In the data directory: `lock`, `state.sqlite3` (with `-wal` and `-shm`), `secrets.key`, `images/`, `tls/`, `ctl.sock`, and the balancer's
//! `balancer.lock` and `routes.json`.
//!
//! Deliberately absent: decisions about the cluster. Everything that happens becomes an event for the planner, and
//! everything that is done is one of its actions.

pub mod agent_mgr;
pub mod alerts;
pub mod arguments;
pub mod balancer;
pub mod body;
pub mod certified_nodes;
pub mod config_mgr;
pub mod controller;
pub mod deployer;
pub mod discovery;
pub mod http;
pub mod secrets;
pub mod state_loop;
pub mod store;
pub mod tls;

pub use config_mgr::Config;
pub use controller::{Controller, StartError};
