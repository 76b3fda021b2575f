//! Things die: nodes, the network, each of Tucano's programs.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod full_disk;
mod kill;
mod kills;
mod node_loss;
mod storm;
