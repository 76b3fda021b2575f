//! The command line of `tucano_oci`.
#![allow(missing_docs, reason = "the help texts are the documentation")]

mod usual;

use std::{ffi::OsString, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};
use serde_json::Value;

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
    /// File that errors are written to, beside stderr.
    #[arg(long)]
    pub log: Option<PathBuf>,
    /// How they are written to it.
    #[arg(long, value_enum, default_value_t)]
    pub log_format: LogFormat,
    /// Accepted for callers' sake: there are no messages for debugging.
    #[arg(long)]
    debug: bool,
    /// Make cgroups through systemd: `linux.cgroupsPath` is `slice:prefix:name` then.
    #[arg(long)]
    pub systemd_cgroup: bool,
    /// Go on where cgroups are out of reach: they never are for root, as whom alone this program runs.
    #[arg(long, value_enum, default_value_t)]
    pub rootless: Rootless,
}

/// A log file's lines.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// `time=… level=… msg=…`
    #[default]
    Text,
    /// An object each.
    Json,
}

/// Whether to do without privileges.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Rootless {
    True,
    False,
    #[default]
    Auto,
}

/// How a list is printed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum ListFormat {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
}

#[derive(Debug, PartialEq, Subcommand)]
pub enum Command {
    /// Create a container, which waits to be started.
    Create(Create),
    /// Start a created container.
    Start {
        /// The container's id.
        id: String,
    },
    /// Create and start a container, and wait for its end.
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
    /// Let a paused container's processes go on.
    Resume {
        /// The container's id.
        id: String,
    },
    /// List a container's processes.
    Ps {
        /// How: for people by ps(1).
        #[arg(short, long, value_enum, default_value_t)]
        format: ListFormat,
        /// The container's id.
        id: String,
        /// Arguments of ps(1); `-ef` where there are none.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Change a container's limits: those that are given.
    Update {
        #[command(flatten)]
        limits: Box<Limits>,
        /// The container's id.
        id: String,
    },
    /// Tell what a container uses.
    Events {
        /// Once, as one line of JSON; else until its end, with a line whenever it runs out of memory.
        #[arg(long)]
        stats: bool,
        /// Time between two lines, such as 5s or 500ms.
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
    /// Send a signal to a container's first process.
    Kill {
        /// To all of its processes.
        #[arg(short, long)]
        all: bool,
        /// The container's id.
        id: String,
        /// Its name or number.
        #[arg(default_value = "TERM", allow_hyphen_values = true)]
        signal: String,
    },
    /// Remove what an ended container left.
    Delete {
        /// Kill it if it runs, and say nothing if there is none.
        #[arg(short, long)]
        force: bool,
        /// The container's id.
        id: String,
    },
    /// List containers.
    List {
        /// How.
        #[arg(short, long, value_enum, default_value_t)]
        format: ListFormat,
        /// Their ids only.
        #[arg(short, long)]
        quiet: bool,
    },
    /// Tell what this runtime can do (OCI runtime specification, "Features").
    Features,
    /// Write a configuration to begin with.
    Spec {
        /// Directory that it is written to.
        #[arg(short, long, default_value = ".")]
        bundle: PathBuf,
    },
    #[command(flatten)]
    Own(Own),
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
    /// Do not wait for its end.
    #[arg(short, long)]
    pub detach: bool,
    /// Do not delete it at its end.
    #[arg(long)]
    pub keep: bool,
    /// The container's id.
    pub id: String,
}

/// What a container is made from, and with what.
#[derive(Debug, PartialEq, Args)]
pub struct BundleOptions {
    /// The bundle's directory.
    #[arg(short, long, default_value = ".")]
    pub bundle: PathBuf,
    /// File to write the number of its first process to.
    #[arg(long)]
    pub pid_file: Option<PathBuf>,
    /// Listening socket to send its terminal to.
    #[arg(long)]
    pub console_socket: Option<PathBuf>,
    /// How many descriptors, from 3 on, to pass to it.
    #[arg(long, default_value_t = 0)]
    pub preserve_fds: u32,
    /// Enter the root without `pivot_root`, which does not work where the host's root is a ramdisk.
    #[arg(long)]
    pub no_pivot: bool,
    /// Leave it in the session keyring of the caller.
    #[arg(long)]
    pub no_new_keyring: bool,
}

/// What a command in a container is, and has.
#[derive(Debug, PartialEq, Args)]
pub struct ExecOptions {
    /// File with the `process` to run, as in config.json.
    #[arg(short, long)]
    pub process: Option<PathBuf>,
    /// `NAME=value`, added to the container's own.
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
    /// Capability, added to the container's own.
    #[arg(short, long)]
    pub cap: Vec<String>,
    /// AppArmor's profile for it; the container's own where absent.
    #[arg(long)]
    pub apparmor: Option<String>,
    /// SELinux's label for it; the container's own where absent.
    #[arg(long)]
    pub process_label: Option<String>,
    /// It can never gain privileges.
    #[arg(long)]
    pub no_new_privs: bool,
    /// With a terminal.
    #[arg(short, long)]
    pub tty: bool,
    /// Listening socket to send the terminal to.
    #[arg(long)]
    pub console_socket: Option<PathBuf>,
    /// File to write its number to.
    #[arg(long)]
    pub pid_file: Option<PathBuf>,
    /// How many descriptors, from 3 on, to pass to it.
    #[arg(long, default_value_t = 0)]
    pub preserve_fds: u32,
    /// Do not wait for its end.
    #[arg(short, long)]
    pub detach: bool,
    /// In a paused container too.
    #[arg(long)]
    pub ignore_paused: bool,
}

/// Limits, each as in `linux.resources`. Memory is in bytes, or with one of the units b, k, m, g and t; -1 is no limit.
#[derive(Debug, Default, PartialEq, Args)]
pub struct Limits {
    /// File with `linux.resources` as JSON (`-`: stdin), which the other options come on top of.
    #[arg(short, long)]
    pub resources: Option<PathBuf>,
    /// Share of disks, 10 to 1000.
    #[arg(long)]
    pub blkio_weight: Option<u16>,
    /// Period of the CPU quota, in microseconds.
    #[arg(long)]
    pub cpu_period: Option<u64>,
    /// CPU time in each period, in microseconds.
    #[arg(long, allow_hyphen_values = true)]
    pub cpu_quota: Option<i64>,
    /// CPU time that can be saved up, in microseconds.
    #[arg(long)]
    pub cpu_burst: Option<u64>,
    /// Share of the CPU, 1024 being usual.
    #[arg(long, alias = "cpu-shares")]
    pub cpu_share: Option<u64>,
    /// Period of the real-time quota, in microseconds.
    #[arg(long)]
    pub cpu_rt_period: Option<u64>,
    /// Real-time CPU time in each period, in microseconds.
    #[arg(long, allow_hyphen_values = true)]
    pub cpu_rt_runtime: Option<i64>,
    /// 1: only CPU time that nobody else wants.
    #[arg(long)]
    pub cpu_idle: Option<i64>,
    /// CPUs, such as 0-2,5.
    #[arg(long)]
    pub cpuset_cpus: Option<String>,
    /// Memory nodes.
    #[arg(long)]
    pub cpuset_mems: Option<String>,
    /// Memory.
    #[arg(long, value_parser = bytes, allow_hyphen_values = true)]
    pub memory: Option<i64>,
    /// Memory that it is brought back to when the host lacks some.
    #[arg(long, value_parser = bytes, allow_hyphen_values = true)]
    pub memory_reservation: Option<i64>,
    /// Memory and swap together.
    #[arg(long, value_parser = bytes, allow_hyphen_values = true)]
    pub memory_swap: Option<i64>,
    /// Processes and threads.
    #[arg(long, allow_hyphen_values = true)]
    pub pids_limit: Option<i64>,
}

impl Limits {
    /// Those that are given, by section and name in the specification.
    pub fn fields(&self) -> Vec<(&'static str, &'static str, Value)> {
        let fields = [
            ("blockIO", "weight", self.blkio_weight.map(Value::from)),
            ("cpu", "period", self.cpu_period.map(Value::from)),
            ("cpu", "quota", self.cpu_quota.map(Value::from)),
            ("cpu", "burst", self.cpu_burst.map(Value::from)),
            ("cpu", "shares", self.cpu_share.map(Value::from)),
            ("cpu", "realtimePeriod", self.cpu_rt_period.map(Value::from)),
            (
                "cpu",
                "realtimeRuntime",
                self.cpu_rt_runtime.map(Value::from),
            ),
            ("cpu", "idle", self.cpu_idle.map(Value::from)),
            ("cpu", "cpus", self.cpuset_cpus.clone().map(Value::from)),
            ("cpu", "mems", self.cpuset_mems.clone().map(Value::from)),
            ("memory", "limit", self.memory.map(Value::from)),
            (
                "memory",
                "reservation",
                self.memory_reservation.map(Value::from),
            ),
            ("memory", "swap", self.memory_swap.map(Value::from)),
            ("pids", "limit", self.pids_limit.map(Value::from)),
        ];
        fields
            .into_iter()
            .filter_map(|(section, name, value)| Some((section, name, value?)))
            .collect()
    }
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
        .ok_or_else(|| format!("{text:?} is no time above zero: such as 5s or 500ms"))
}

/// `512`, `64k`, `1.5g`, `10MB`; `-1`.
fn bytes(text: &str) -> Result<i64, String> {
    const UNITS: [(char, u32); 5] = [('b', 0), ('k', 10), ('m', 20), ('g', 30), ('t', 40)];
    if text == "-1" {
        return Ok(-1);
    }
    let lower = text.trim().to_lowercase();
    let plain = lower.strip_suffix('b').unwrap_or(&lower);
    let plain = plain.strip_suffix('i').unwrap_or(plain);
    let unit = UNITS.iter().find(|(letter, _)| plain.ends_with(*letter));
    let (number, shift) = match unit {
        Some((letter, shift)) => (plain.trim_end_matches(*letter), *shift),
        None => (plain, 0),
    };
    let value = number
        .trim()
        .parse::<f64>()
        .ok()
        .filter(|number| *number >= 0.0);
    let value = value.map(|number| number * f64::from(shift).exp2());
    value
        .filter(|bytes| *bytes <= i64::MAX as f64)
        .map(|bytes| bytes as i64)
        .ok_or_else(|| format!("{text:?} is no amount of memory: such as 512, 64k or 1.5g"))
}

#[derive(Debug, PartialEq, Args)]
pub struct Supervise {
    /// Written over with the container's home directory, for lists of processes.
    pub room: OsString,
}

#[derive(Debug, PartialEq, Args)]
pub struct ExecIn {
    /// The container's home directory.
    pub home: PathBuf,
    /// Kill it after this time, in milliseconds.
    #[arg(long)]
    pub timeout_ms: Option<u64>,
    /// Discard the command's output and tell the outcome as one JSON line on stdout.
    #[arg(long)]
    pub report: bool,
    /// The program, by the container's PATH, and its arguments.
    #[arg(last = true, required = true)]
    pub command: Vec<String>,
}

/// Commands for the agent: containers with a supervisor and a home directory.
#[derive(Debug, PartialEq, Subcommand)]
pub enum Own {
    /// Start the container of the home directory (its launch.json) that standard input, a socket, tells of, and stay with it, in the
    /// background.
    #[command(hide = true)]
    Supervise(Supervise),
    /// Run a command in a supervised container; its exit code is this program's (124: not ended in time).
    #[command(hide = true)]
    ExecIn(ExecIn),
    /// Run what standard input asks for in a supervised container, with a terminal or without, until it ends or standard input
    /// does. Both streams are frames (see oci/session).
    #[command(hide = true)]
    Session {
        /// The container's home directory.
        home: PathBuf,
    },
    /// Show what a supervised container writes, from now on until its end; its exit code is this program's.
    #[command(hide = true)]
    Attach {
        /// The container's home directory.
        home: PathBuf,
    },
    /// Send a signal to a supervised container, through its supervisor.
    #[command(hide = true)]
    Signal {
        /// The container's home directory.
        home: PathBuf,
        /// Its name or number.
        #[arg(default_value = "TERM")]
        signal: String,
    },
    /// Succeed if containers can have user namespaces, with layers in this directory's file system.
    #[command(hide = true)]
    ProbeUserNamespaces {
        /// A directory to try it in.
        directory: PathBuf,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_lines_of_known_callers_are_understood() {
        use clap::CommandFactory;
        Arguments::command().debug_assert();
        for line in [
            "tucano_oci --root /r --log /l --log-format json create --bundle /b --pid-file /p --console-socket /c x",
            "tucano_oci --root=/r --debug start x",
            "tucano_oci --rootless=false kill --all x 9",
            "tucano_oci kill x KILL",
            "tucano_oci exec --pid-file /p --process /j --detach --console-socket /c x",
            "tucano_oci exec -t -u 1:2 -e A=1 -e B=2 --cwd /x x sh -c -- exit",
            "tucano_oci ps --format json x",
            "tucano_oci events --stats x",
            "tucano_oci events --interval 1s x",
            "tucano_oci update --resources - x",
            "tucano_oci update --memory 64m --memory-swap -1 --cpu-quota -1 --pids-limit 5 --cpu-share 2 x",
            "tucano_oci delete --force x",
            "tucano_oci run -d --no-new-keyring --preserve-fds 2 -b /b x",
            "tucano_oci list -q --format json",
        ] {
            let parsed = Arguments::try_parse_from(line.split(' '));
            assert!(parsed.is_ok(), "{line}");
        }
    }

    #[test]
    fn amounts_of_memory_have_units() {
        for (text, expected) in [
            ("512", 512),
            ("-1", -1),
            ("64k", 64 << 10),
            ("1.5g", 3 << 29),
            ("10MB", 10 << 20),
            ("2GiB", 2 << 30),
            ("7b", 7),
        ] {
            assert_eq!(bytes(text).unwrap(), expected, "{text}");
        }
        for bad in ["", "x", "-2", "1q", "nan", "1e300"] {
            assert!(bytes(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn times_have_units() {
        assert_eq!(duration("5s").unwrap(), Duration::from_secs(5));
        assert_eq!(duration("500ms").unwrap(), Duration::from_millis(500));
        assert_eq!(duration("2m").unwrap(), Duration::from_secs(120));
        for bad in ["", "s", "0s", "-1s", "nan", "1e99h"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
