//! The command line of `tucano_ctld`.

use std::path::PathBuf;

use clap::Parser;
use tucano_daemon::log::LogFormat;

const AFTER_HELP: &str = "\
Exit codes: 0 ended as asked, or the configuration is valid; 2 wrong usage; 3 invalid configuration;
4 the data directory is in use; 5 an address is in use; 1 anything else.

SIGHUP reloads the configuration. SIGTERM and SIGINT end the controller and its balancer; containers run on.";

/// Controller of a Tucano cluster.
#[derive(Debug, Parser)]
#[command(name = "tucano_ctld", version, after_help = AFTER_HELP)]
pub struct Arguments {
    /// Static configuration.
    #[arg(long, value_name = "FILE", default_value = "/etc/tucano/ctl.toml")]
    pub config: PathBuf,
    /// Only validate the configuration.
    #[arg(long)]
    pub check: bool,
    /// Only copy the certificate of the cluster's authority to this file, for everybody to read.
    #[arg(long, value_name = "FILE", conflicts_with = "check")]
    pub write_ca: Option<PathBuf>,
    /// How to write the log, which goes to stderr; RUST_LOG sets what is in it.
    #[arg(long, value_enum, default_value = "text")]
    pub log_format: LogFormat,
}
