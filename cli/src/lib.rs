//! The command line: arguments → API → tables. `tucano dev` also runs a whole cluster on this machine.
//!
//! - [`args`]: what can be said; [`exit`]: how it can end, each end with an exit code of its own;
//! - [`client`]: requests to the controller; [`image`]: which configuration and image a path means, and uploading them;
//! - [`watch`]: a service's way to healthy; [`commands`]: one module for each group of commands;
//! - [`table`], [`output`]: stdout is data, stderr is talk;
//! - [`dev`]: controller, balancer and workers on virtual hosts.
//!
//! What is deliberately absent: decisions about the cluster. The command line sends what it is told, shows what it is
//! answered, and keeps no file but what `tucano dev` needs.

pub mod args;
pub mod client;
pub mod commands;
pub mod dev;
pub mod exit;
pub mod image;
pub mod output;
pub mod table;
pub mod watch;

pub use args::Arguments;
pub use exit::Error;

/// Does what the arguments say.
///
/// # Errors
/// Each with the exit code that `tucano --help` documents.
pub async fn run(arguments: Arguments) -> Result<(), Error> {
    commands::run(arguments).await
}
