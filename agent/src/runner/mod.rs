//! Runner: makes the processes on this node match the desired set.
//!
//! One task, [`Runner`], owns all state. It plans ([`plan`], pure), has a [`Node`] carry out each step in a task of its own, and
//! receives the results as events. Storing the state on disk is the only slow operation that it waits for itself.
//!
//! - [`lifecycle`], [`plan`]: the pure part;
//! - [`node`]: what a step may do to the machine: done by [`execute::Executor`], and recorded by a fake in tests;
//! - [`adopt`]: what an earlier agent left behind;
//! - [`freezer`]: processes that are frozen for a moment;
//! - [`secrets`]: values in memory, for processes that have them;
//! - [`state`]: the files that the agent keeps.

mod acceptance;
pub mod adopt;
pub mod container;
mod disk;
mod events;
pub mod execute;
pub mod freezer;
mod handle;
pub mod images;
mod launch;
pub mod lifecycle;
mod listening;
mod live_changes;
mod machine;
mod mounted;
pub mod network;
pub mod node;
pub mod plan;
pub mod probe;
mod process;
pub mod resolver;
pub mod secrets;
pub mod state;
mod steps;
pub mod supervisors;
mod task;
#[cfg(test)]
mod tests;
mod workspace;

pub use events::{Event, EventSender};
pub use handle::{DesiredSetError, Handle, Snapshot};
pub use machine::{Containers, Presence};
pub use node::Node;
pub use process::Process;
pub use task::{InitialState, Runner};
pub use workspace::Workspace;
