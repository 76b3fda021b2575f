//! The command line of `tucano_agentd`.

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use tucano_daemon::log::LogFormat;

use crate::settings::{DEFAULT_CGROUP, check_cgroup};

/// Runs the processes that the controller assigns to this node, and reports on them.
#[derive(Debug, Parser)]
#[command(name = "tucano_agentd", version)]
pub struct Arguments {
    /// The agent's configuration.
    #[arg(long, default_value = "/etc/tucano/agent.toml")]
    pub config: PathBuf,
    /// Parent of the processes' cgroups, unless the configuration sets `cgroup`.
    #[arg(long, value_name = "PATH", default_value = DEFAULT_CGROUP, value_parser = cgroup)]
    pub cgroup: String,
    /// Only check the configuration.
    #[arg(long)]
    pub check: bool,
    /// Format of the log on stderr.
    #[arg(long, value_enum, default_value = "text")]
    pub log_format: LogFormat,
    #[command(subcommand)]
    /// Helper mode that the agent starts itself in.
    pub step: Option<Step>,
}

/// Helper modes of the program, each in a process of its own.
#[derive(Debug, Subcommand)]
pub enum Step {
    /// Unpacks the layer on stdin into the working directory, and is confined to it.
    #[command(hide = true)]
    UnpackLayer {
        /// Description of the layer.
        request: String,
    },
    /// Copies or compares the volume on stdin, and is confined to the working directory.
    #[command(hide = true)]
    CopyVolume {
        /// What to do.
        request: String,
    },
}

fn cgroup(path: &str) -> Result<String, &'static str> {
    check_cgroup(path).map(|()| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parent_of_cgroups_is_an_argument() {
        let parse =
            |words: &[&str]| Arguments::try_parse_from([&["tucano_agentd"], words].concat());
        assert_eq!(parse(&[]).unwrap().cgroup, DEFAULT_CGROUP);
        let path = "/system.slice/tucano-processes.service";
        assert_eq!(parse(&["--cgroup", path]).unwrap().cgroup, path);
        for bad in ["..", "/", "/a//b", "/a/../b", "a b"] {
            assert!(parse(&["--cgroup", bad]).is_err(), "{bad}");
        }
    }
}
