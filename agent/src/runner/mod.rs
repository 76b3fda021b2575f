//! Runner: makes what runs on this node what the controller desires.
//!
//! One task, [`Runner`], owns all state. It plans ([`plan`], pure), has the steps carried out by tasks of their own
//! ([`execute`]), and takes their results as events; nothing slow ever happens in it but keeping state on disk.

pub mod adopt;
pub mod container;
mod disk;
mod events;
pub mod execute;
mod handle;
pub mod images;
pub mod lifecycle;
pub mod network;
pub mod plan;
pub mod probe;
mod process;
pub mod state;
mod steps;
pub mod supervisors;
mod task;

pub use handle::{Handle, Refused, Snapshot};
pub use process::Process;
pub use task::{Beginning, Runner};
