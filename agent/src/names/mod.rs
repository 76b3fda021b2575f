//! The services that this node's processes find by name.
//!
//! - [`follow`]: what the controller says of them;
//! - [`answer`]: which look-up has which answer (pure); [`server`]: the name server of processes;
//! - [`forward`]: look-ups of other names, which the node's own name servers answer.

pub mod answer;
pub mod follow;
mod forward;
pub mod server;
