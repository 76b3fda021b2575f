//! The command line of `tucano_ctld`.

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use tucano_daemon::log::LogFormat;

const AFTER_HELP: &str = "\
Exit codes: 0 stopped by a signal, or the configuration is valid; 2 wrong usage; 3 invalid configuration;
4 the data directory is in use; 5 an address is in use; 1 any other error.

SIGHUP reloads the configuration. SIGTERM and SIGINT stop the controller and its balancer; containers keep running.";

/// Controller of a Tucano cluster.
#[derive(Debug, Parser)]
#[command(name = "tucano_ctld", version, after_help = AFTER_HELP)]
pub struct Arguments {
    /// Static configuration.
    #[arg(long, value_name = "FILE", default_value = "/etc/tucano/ctl.toml")]
    pub config: PathBuf,
    /// Validate the configuration and exit.
    #[arg(long)]
    pub check: bool,
    /// Copy the certificate of the cluster's authority to this world-readable file and exit.
    #[arg(long, value_name = "FILE", conflicts_with = "check")]
    pub write_ca: Option<PathBuf>,
    /// What to do instead of running the controller.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Format of the log on stderr; RUST_LOG sets the level.
    #[arg(long, value_enum, default_value = "text")]
    pub log_format: LogFormat,
}

/// What to do instead of running the controller.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Write the controller's state and the authority's keys to a new file that only its owner can read. The controller
    /// may run meanwhile. Images are not part of it.
    Backup {
        /// The file.
        file: PathBuf,
    },
    /// Restore a backup into a data directory without a database. The controller must not run. Workers that were changed
    /// after the backup are on hold until `tucano adopt`.
    Restore {
        /// The file.
        file: PathBuf,
    },
}
