//! What all tasks of `cargo xtask` share. It depends on nothing, so that the first command in a fresh clone answers within seconds;
//! tasks that need more are in `xtask_tasks` ([tasks/](../tasks)), which the first build compiles along with the programs.
//!
//! - [`packages`]: what the system must have, and why; [`apt`]: installing what is missing;
//! - [`needs`]: what a crate's tests need of that, read from their source;
//! - [`ports`]: addresses that are free; [`run`]: running cargo and other programs.

pub mod apt;
pub mod error;
pub mod needs;
pub mod packages;
pub mod ports;
pub mod run;

pub use error::{Context, Error, Result};
