//! The command line of `tucano_oci`.
#![allow(missing_docs, reason = "the help texts are the documentation")]

mod fast;
mod limits;

use std::{ffi::OsString, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};

pub use self::limits::Limits;

/// Where containers' state is kept by default.
const ROOT: &str = "/run/tucano_oci";

/// Runs OCI containers.
#[derive(Debug, PartialEq, Parser)]
#[command(version)]
pub struct Arguments {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, PartialEq, Args)]
pub struct Global {
    /// Directory of the containers' state.
    #[arg(long, default_value = ROOT)]
    pub root: PathBuf,
    /// Log file for errors and warnings, in addition to stderr.
    #[arg(long)]
    pub log: Option<PathBuf>,
    /// Format of the log file.
    #[arg(long, value_enum, default_value_t)]
    pub log_format: LogFormat,
    /// Accepted for compatibility: this runtime has no debug messages.
    #[arg(long)]
    debug: bool,
    /// Create cgroups through systemd; `linux.cgroupsPath` is then `slice:prefix:name`.
    #[arg(long)]
    pub systemd_cgroup: bool,
    /// Continue without cgroups when they are out of reach. This runtime needs root, which always reaches them.
    #[arg(long, value_enum, default_value_t)]
    pub rootless: Rootless,
}

/// Format of the log file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// `time=… level=… msg=…`
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// Whether to run without privileges.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Rootless {
    True,
    False,
    #[default]
    Auto,
}

/// Output format of a list.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum ListFormat {
    /// A table for people.
    #[default]
    Table,
    /// JSON for programs.
    Json,
}

#[derive(Debug, PartialEq, Subcommand)]
#[expect(clippy::large_enum_variant, reason = "a program has one")]
pub enum Command {
    /// Create a container. It waits for `start`.
    Create(Create),
    /// Start a created container.
    Start {
        /// The container's id.
        id: String,
    },
    /// Create and start a container, and wait until it exits.
    Run(Run),
    /// Run a command in a container.
    Exec {
        #[command(flatten)]
        options: ExecOptions,
        /// The container's id.
        id: String,
        /// The program, by the container's PATH, and its arguments.
        #[arg(
            trailing_var_arg = true,
            allow_hyphen_values = true,
            required_unless_present = "process"
        )]
        command: Vec<String>,
    },
    /// Freeze a container's processes.
    Pause {
        /// The container's id.
        id: String,
    },
    /// Resume the processes of a paused container.
    Resume {
        /// The container's id.
        id: String,
    },
    /// List a container's processes.
    Ps {
        /// Output format. The table is printed by ps(1).
        #[arg(short, long, value_enum, default_value_t)]
        format: ListFormat,
        /// The container's id.
        id: String,
        /// Arguments for ps(1); `-ef` by default.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Change the resource limits of a container. Limits that are not named stay.
    Update {
        #[command(flatten)]
        limits: Box<Limits>,
        /// The container's id.
        id: String,
    },
    /// Report the resource usage of a container.
    Events {
        /// Print once, as one line of JSON. Otherwise print until the container exits, with an extra line for each OOM
        /// kill.
        #[arg(long)]
        stats: bool,
        /// Interval between two reports, such as 5s or 500ms.
        #[arg(long, value_parser = duration, default_value = "5s")]
        interval: Duration,
        /// The container's id.
        id: String,
    },
    /// Print a container's state.
    State {
        /// The container's id.
        id: String,
    },
    /// Send a signal to the container's init process.
    Kill {
        /// Send it to every process of the container.
        #[arg(short, long)]
        all: bool,
        /// The container's id.
        id: String,
        /// Signal name or number.
        #[arg(default_value = "TERM", allow_hyphen_values = true)]
        signal: String,
    },
    /// Delete a container that has exited.
    Delete {
        /// Kill the container if it runs. Succeed if it does not exist.
        #[arg(short, long)]
        force: bool,
        /// The container's id.
        id: String,
    },
    /// List containers.
    List {
        /// Output format.
        #[arg(short, long, value_enum, default_value_t)]
        format: ListFormat,
        /// Print only the ids.
        #[arg(short, long)]
        quiet: bool,
    },
    /// Print the features of this runtime (OCI runtime specification, "Features").
    Features,
    /// Write a default config.json.
    Spec {
        /// Directory to write it to.
        #[arg(short, long, default_value = ".")]
        bundle: PathBuf,
        /// For a container in a user namespace of the caller's ids.
        #[arg(long)]
        rootless: bool,
    },
    #[command(flatten)]
    AgentCommand(AgentCommand),
}

#[derive(Debug, PartialEq, Args)]
pub struct Create {
    #[command(flatten)]
    pub options: BundleOptions,
    /// The container's id.
    pub id: String,
}

#[derive(Debug, PartialEq, Args)]
pub struct Run {
    #[command(flatten)]
    pub options: BundleOptions,
    /// Do not wait until the container exits.
    #[arg(short, long)]
    pub detach: bool,
    /// Do not delete the container when it exits.
    #[arg(long)]
    pub keep: bool,
    /// The container's id.
    pub id: String,
}

/// Options of the commands that create a container from a bundle.
#[derive(Debug, PartialEq, Args)]
pub struct BundleOptions {
    /// Directory of the bundle.
    #[arg(short, long, default_value = ".")]
    pub bundle: PathBuf,
    /// File to write the pid of the container's init process to.
    #[arg(long)]
    pub pid_file: Option<PathBuf>,
    /// Listening Unix socket that receives a pidfd of the container's init process.
    #[arg(long)]
    pub pidfd_socket: Option<PathBuf>,
    /// Listening Unix socket that receives the container's terminal.
    #[arg(long)]
    pub console_socket: Option<PathBuf>,
    /// Number of inherited descriptors, from 3 on, to pass to the container.
    #[arg(long, default_value_t = 0)]
    pub preserve_fds: u32,
    /// Enter the root file system without `pivot_root`, which fails when the host's root is a ramdisk.
    #[arg(long)]
    pub no_pivot: bool,
    /// Keep the caller's session keyring.
    #[arg(long)]
    pub no_new_keyring: bool,
}

/// Options of a process that is executed in a container.
#[derive(Debug, PartialEq, Args)]
pub struct ExecOptions {
    /// File with the `process` object to run, as in config.json.
    #[arg(short, long)]
    pub process: Option<PathBuf>,
    /// `NAME=value`. Overrides the container's variable of that name.
    #[arg(short, long)]
    pub env: Vec<String>,
    /// Working directory.
    #[arg(long)]
    pub cwd: Option<PathBuf>,
    /// `uid` or `uid:gid`.
    #[arg(short, long)]
    pub user: Option<String>,
    /// Supplementary group.
    #[arg(short = 'g', long)]
    pub additional_gids: Vec<u32>,
    /// Capability to add to the container's own.
    #[arg(short, long)]
    pub cap: Vec<String>,
    /// AppArmor profile; the container's own by default.
    #[arg(long)]
    pub apparmor: Option<String>,
    /// SELinux label; the container's own by default.
    #[arg(long)]
    pub process_label: Option<String>,
    /// Existing sub-cgroup of the container's to run in; with a prefix `CONTROLLER:` on cgroup v1.
    #[arg(long = "cgroup")]
    pub cgroups: Vec<String>,
    /// Listening Unix socket that receives a pidfd of the process.
    #[arg(long)]
    pub pidfd_socket: Option<PathBuf>,
    /// Set no_new_privs.
    #[arg(long)]
    pub no_new_privs: bool,
    /// Allocate a terminal.
    #[arg(short, long)]
    pub tty: bool,
    /// Listening Unix socket that receives the terminal.
    #[arg(long)]
    pub console_socket: Option<PathBuf>,
    /// File to write the pid of the process to.
    #[arg(long)]
    pub pid_file: Option<PathBuf>,
    /// Number of inherited descriptors, from 3 on, to pass to the process.
    #[arg(long, default_value_t = 0)]
    pub preserve_fds: u32,
    /// Do not wait until the process exits.
    #[arg(short, long)]
    pub detach: bool,
    /// Allow it in a paused container.
    #[arg(long)]
    pub ignore_paused: bool,
}

#[derive(Debug, PartialEq, Args)]
pub struct Supervise {
    /// Overwritten with the container's state directory, as the process title.
    pub title_space: OsString,
}

#[derive(Debug, PartialEq, Args)]
pub struct ExecIn {
    /// State directory of the container.
    pub state_dir: PathBuf,
    /// Kill the command after this time in milliseconds.
    #[arg(long)]
    pub timeout_ms: Option<u64>,
    /// Discard the command's output and print the outcome as one line of JSON.
    #[arg(long)]
    pub report: bool,
    /// The program, by the container's PATH, and its arguments.
    #[arg(last = true, required = true)]
    pub command: Vec<String>,
}

/// Commands for the agent. Their containers have a supervisor and a state directory.
#[derive(Debug, PartialEq, Subcommand)]
pub enum AgentCommand {
    /// Wait on standard input (a socket) for the state directory of a container, then start that container (its
    /// launch.json) and supervise it in the background.
    #[command(hide = true)]
    Supervise(Supervise),
    /// Run a command in a supervised container and exit with its exit code (124 after the timeout).
    #[command(hide = true)]
    ExecIn(ExecIn),
    /// Run a command in a supervised container for a remote client, with or without a terminal. Standard input and
    /// output carry frames (see oci/session). The command is killed when standard input closes.
    #[command(hide = true)]
    Session {
        /// State directory of the container.
        state_dir: PathBuf,
    },
    /// Print the output of a supervised container from now on, and exit with its exit code.
    #[command(hide = true)]
    Attach {
        /// State directory of the container.
        state_dir: PathBuf,
    },
    /// Send a signal to a supervised container through its supervisor.
    #[command(hide = true)]
    Signal {
        /// State directory of the container.
        state_dir: PathBuf,
        /// Signal name or number.
        #[arg(default_value = "TERM")]
        signal: String,
    },
    /// Check whether containers can have user namespaces with layers on the file system of a directory.
    #[command(hide = true)]
    ProbeUserNamespaces {
        /// Directory for the check.
        directory: PathBuf,
    },
}

/// `5s`, `500ms`, `1m`, `2h`, or a number of seconds.
fn duration(text: &str) -> Result<Duration, String> {
    const UNITS: [(&str, f64); 4] = [("ms", 0.001), ("s", 1.0), ("m", 60.0), ("h", 3600.0)];
    let unit = UNITS.iter().find(|(unit, _)| text.ends_with(unit));
    let (number, scale) = unit.map_or((text, 1.0), |(unit, scale)| {
        (text.strip_suffix(unit).unwrap_or(text), *scale)
    });
    let seconds = number.parse::<f64>().ok().map(|number| number * scale);
    seconds
        .filter(|seconds| *seconds > 0.0)
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .ok_or_else(|| format!("{text:?} is not a positive duration, such as 5s or 500ms"))
}

#[cfg(test)]
mod tests;
