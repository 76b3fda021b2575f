//! The command line of `tucano_agentd`.

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use tucano_daemon::log::LogFormat;

use crate::settings::{DEFAULT_CGROUP, check_cgroup};

/// Runs what the controller wants on this node, and reports what runs.
#[derive(Debug, Parser)]
#[command(name = "tucano_agentd", version)]
pub struct Arguments {
    /// The agent's configuration.
    #[arg(long, default_value = "/etc/tucano/agent.toml")]
    pub config: PathBuf,
    /// Parent of the processes' cgroups where the configuration has no `cgroup`.
    #[arg(long, value_name = "PATH", default_value = DEFAULT_CGROUP, value_parser = cgroup)]
    pub cgroup: String,
    /// Only say whether the configuration is usable.
    #[arg(long)]
    pub check: bool,
    /// How the log on stderr looks.
    #[arg(long, value_enum, default_value = "text")]
    pub log_format: LogFormat,
    #[command(subcommand)]
    /// What the agent starts itself for; without one it is the agent.
    pub step: Option<Step>,
}

/// What the agent lets a process of its own do.
#[derive(Debug, Subcommand)]
pub enum Step {
    /// Unpacks the layer that comes on stdin into the working directory, confined to it.
    #[command(hide = true)]
    UnpackLayer {
        /// The layer, as the agent describes it.
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
    fn a_unit_may_say_where_the_processes_cgroups_are() {
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
