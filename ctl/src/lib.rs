//! The controller: decides what runs where, and has it done.
//!
//! ```text
//!  sysadmin ──► http ──► deployer ───┐                    ┌──► agent_mgr ──► agents
//!               http ──► config_mgr ─┼──► brain (planner) ┼──► discovery ──► balancer
//!  agents ────► http ──► agent_mgr ──┘        │           └──► alerts ─────► sysadmin
//!                                           store
//! ```
//!
//! - [`config_mgr`]: the static configuration, read and reloaded.
//! - [`deployer`]: services and their images.
//! - [`agent_mgr`]: reports in, desired sets out, restarts.
//! - [`brain`]: the one task that owns the cluster's state.
//! - [`store`]: what is durable.
//! - [`discovery`], [`balancer`]: the routes, and the process that follows them.
//! - [`alerts`]: telling the sysadmin.
//! - [`http`]: all of it as an API; [`tls`]: who may be sure of whom.
//! - [`controller`]: the wiring.
//!
//! In the data directory: `lock`, `state.sqlite3` (with `-wal` and `-shm`), `images/`, `tls/`, `ctl.sock`, and the balancer's
//! `balancer.lock` and `routes.json`.
//!
//! Deliberately absent: no decision about the cluster is taken here. Whatever happens becomes an event for the planner,
//! and whatever is done is an action of its.

pub mod agent_mgr;
pub mod alerts;
pub mod arguments;
pub mod balancer;
pub mod body;
pub mod brain;
pub mod config_mgr;
pub mod controller;
pub mod deployer;
pub mod discovery;
pub mod http;
pub mod store;
pub mod tls;

pub use config_mgr::Config;
pub use controller::{Controller, StartError};
