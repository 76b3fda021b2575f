//! The command line: arguments → API → tables. `tucano dev` also runs a whole cluster on this machine.
//!
//! - [`args`]: commands and options; [`exit`]: errors, each kind with an exit code of its own;
//! - [`client`]: requests to the controller; [`image`]: a service's configuration and image, and their upload;
//! - [`watch`]: waits until a service is healthy; [`commands`]: one module for each group of commands;
//! - [`table`], [`output`]: results go to standard output, progress and errors to standard error;
//! - [`dev`]: controller, balancer and workers on virtual hosts.
//!
//! What is deliberately absent: decisions about the cluster. The command line sends requests, prints answers, and keeps no
//! state except that of `tucano dev`.

pub mod args;
pub mod client;
pub mod commands;
pub(crate) mod compose;
pub mod dev;
pub mod exit;
pub mod image;
pub mod output;
pub mod table;
pub mod watch;

pub use args::Arguments;
pub use exit::Error;

/// Runs the command of the arguments.
///
/// # Errors
/// Each with the exit code that `tucano --help` documents.
pub async fn run(arguments: Arguments) -> Result<(), Error> {
    commands::run(arguments).await
}
