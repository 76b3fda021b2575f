//! Commands and options.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{
    ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum,
    error::ErrorKind, parser::ValueSource,
};
use tucano_api::{
    ids::{AppName, BalancerName, NodeName, SecretName, ServiceName, VolumeId},
    logs::Since,
    service::MAX_CONCURRENCY,
    units::Span,
};

use crate::{client::Token, exit::EXIT_CODES};

/// Runs services on your own machines: deploy an image, and Tucano keeps its processes alive and reachable.
#[derive(Debug, Parser)]
#[command(name = "tucano", version, after_help = EXIT_CODES, max_term_width = 100)]
pub struct Arguments {
    /// Options of every command.
    #[command(flatten)]
    pub global: Global,
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// The command line's definition. Commands that do not connect to a controller do not show the options for that.
pub fn command() -> clap::Command {
    let command = Arguments::command();
    let hidden = |names: &[&str]| {
        let arguments = command.get_arguments();
        let arguments = arguments.filter(|argument| names.contains(&argument.get_id().as_str()));
        let arguments = arguments.map(|argument| argument.clone().global(false).hide(true));
        arguments.collect::<Vec<_>>()
    };
    let hidden: Vec<_> = UNUSED
        .iter()
        .map(|(name, names)| (name, hidden(names)))
        .collect();
    hidden
        .into_iter()
        .fold(command, |command, (name, arguments)| {
            command.mut_subcommand(name, |subcommand| subcommand.args(arguments))
        })
}

/// Parses a command line.
///
/// # Errors
/// A usage error, or help or version, which clap reports as errors too.
pub fn try_parse_from<T: Into<std::ffi::OsString> + Clone>(
    line: impl IntoIterator<Item = T>,
) -> Result<Arguments, clap::Error> {
    let mut command = command();
    let matches = command.try_get_matches_from_mut(line)?;
    if let Some(message) = unused_option(&matches) {
        return Err(command.error(ErrorKind::UnknownArgument, message));
    }
    Arguments::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
}

/// A global option on the command line that the command does not use.
fn unused_option(matches: &ArgMatches) -> Option<String> {
    let (name, own) = matches.subcommand()?;
    let (_, unused) = UNUSED.iter().find(|(command, _)| *command == name)?;
    let given = unused.iter().find(|option| {
        [matches, own]
            .iter()
            .any(|matches| matches.value_source(option) == Some(ValueSource::CommandLine))
    })?;
    let option = given.replace('_', "-");
    Some(format!("`tucano {name}` has no option '--{option}'"))
}

/// Global options that a command does not use: `check` connects to no controller, and `dev` starts its own.
const UNUSED: [(&str, &[&str]); 2] = [
    ("check", &["api", "token", "token_file", "ca_file"]),
    ("dev", &["token", "token_file", "ca_file"]),
];

/// Options of every command.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Address of the controller's API.
    #[arg(
        long,
        global = true,
        env = "TUCANO_API",
        default_value = "http://127.0.0.1:7070",
        value_name = "URL"
    )]
    pub api: String,
    /// Token for the controller. Other users can see it on a command line: prefer the environment or --token-file.
    #[arg(
        long,
        global = true,
        env = "TUCANO_TOKEN",
        hide_env_values = true,
        value_name = "TOKEN"
    )]
    pub token: Option<Token>,
    /// File that holds the token.
    #[arg(long, global = true, value_name = "FILE", conflicts_with = "token")]
    pub token_file: Option<PathBuf>,
    /// Certificate of the cluster's authority, for an https:// address [default: /etc/tucano/ca.pem if it exists, else the
    /// system's authorities].
    #[arg(long, global = true, env = "TUCANO_CA_FILE", value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
    /// Print JSON instead of tables and messages.
    #[arg(long, global = true)]
    pub json: bool,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Deploy a service: upload its image and configuration, and wait until its processes are healthy.
    Deploy(Deploy),
    /// Show what a deploy would change: which keys, what that means for running processes, and which processes it would replace.
    Plan(Deploy),
    /// Write a configuration for an image, of what the image says of itself, with comments. A file that exists is left as it is.
    Init(Init),
    /// Show processes, those of runs too: their nodes, their states, and why they are not healthy.
    Ps {
        /// Show only the processes of this service.
        service: Option<ServiceName>,
        /// Show only processes of services that belong to this application.
        #[arg(long, value_name = "NAME", conflicts_with = "service")]
        app: Option<AppName>,
    },
    /// Show the configured services; of one, also whom its processes may reach, and whose may reach it.
    Services {
        /// Show this service, and its paths from and to others.
        service: Option<ServiceName>,
        /// Show only services that belong to this application.
        #[arg(long, value_name = "NAME", conflicts_with = "service")]
        app: Option<AppName>,
    },
    /// Show the nodes of the topology.
    Nodes,
    /// Show what runs on nodes that are on hold, because the controller's database does not know it, and take it over.
    Adopt {
        /// Take it over: configure its services here and manage the nodes again. No process is ended.
        #[arg(long)]
        yes: bool,
    },
    /// Change how many processes of a service are kept alive.
    Scale {
        /// The service.
        name: ServiceName,
        /// The number of processes.
        #[arg(value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_CONCURRENCY)))]
        concurrency: u32,
        /// Whether, and how long, to wait for it.
        #[command(flatten)]
        wait: Wait,
    },
    /// Show the revisions of a service that `rollback` can return to.
    Revisions {
        /// The service.
        name: ServiceName,
    },
    /// Return to an earlier revision of a service, which creates a new revision equal to it.
    Rollback {
        /// The service.
        name: ServiceName,
        /// The number of the revision [default: the last one that differs from the current one].
        revision: Option<u64>,
        /// Whether, and how long, to wait for it.
        #[command(flatten)]
        wait: Wait,
    },
    /// Replace the processes of a service by new ones of the same revision, as a rollout does it.
    Restart {
        /// The service.
        name: ServiceName,
        /// Whether, and how long, to wait for it.
        #[command(flatten)]
        wait: Wait,
    },
    /// Show the jobs, when they run next and what became of their last runs, or the runs of one job or service.
    Jobs {
        /// The job, or the service whose hooks and commands are shown.
        name: Option<ServiceName>,
    },
    /// Run a job now, or a command in the image, environment and secrets of a job or service; show its output.
    #[command(after_help = RUN_EXIT_CODES)]
    Run(RunArguments),
    /// Show the output of a service's processes, or of one process.
    Logs(Logs),
    /// Run a command in a process's container, such as a shell.
    #[command(after_help = EXEC_EXIT_CODES)]
    Exec(Exec),
    /// Remove a service, or all of an application, and wait until their processes have ended. Their volumes are kept.
    Rm {
        /// The service.
        #[arg(required_unless_present = "app")]
        name: Option<ServiceName>,
        /// Remove all services of this application.
        #[arg(long, value_name = "NAME", conflicts_with = "name")]
        app: Option<AppName>,
        /// Remove its volumes too, with all that is in them. Asks first.
        #[arg(long)]
        volumes: bool,
        /// Do not ask.
        #[arg(long, requires = "volumes")]
        yes: bool,
        /// Whether, and how long, to wait for it.
        #[command(flatten)]
        wait: Wait,
    },
    /// Set, list and remove secrets, which services have as files or variables.
    #[command(subcommand)]
    Secret(SecretCommand),
    /// Show and remove volumes, which outlive their services.
    #[command(subcommand)]
    Volume(Volume),
    /// Print the certificate of a balancer on another machine, one of `balancers` in [api] of ctl.toml.
    BalancerCertificate {
        /// The balancer's name.
        name: BalancerName,
        /// The request that the balancer has made: request.pem in its --identity directory.
        #[arg(long, value_name = "FILE")]
        request: PathBuf,
    },
    /// Print the controller's run-time state as JSON.
    State,
    /// Validate the configuration of a service, of a controller (ctl.toml) or of an agent (agent.toml).
    Check {
        /// The file.
        file: PathBuf,
    },
    /// Run a whole cluster on this machine: a controller, and workers on virtual hosts. Needs root.
    Dev(Dev),
}

/// The commands of `secret`.
#[derive(Debug, Subcommand)]
pub enum SecretCommand {
    /// Give a secret a value, read from standard input, byte for byte. The processes of services that have it are replaced.
    #[command(after_help = SECRET_EXAMPLES)]
    Set {
        /// The secret.
        name: SecretName,
        /// Read the value from a file.
        #[arg(long, value_name = "FILE", conflicts_with = "from_command")]
        from_file: Option<PathBuf>,
        /// Read the value from the output of a shell command, such as one of a password manager, without its last line break.
        #[arg(long, value_name = "COMMAND")]
        from_command: Option<String>,
        /// Set it although stored secrets cannot be read, because their key is lost for good.
        #[arg(long)]
        key_lost: bool,
    },
    /// Show the secrets and the services that have them, never their values.
    Ls,
    /// Remove a secret that no service has.
    Rm {
        /// The secret.
        name: SecretName,
        /// Remove it although earlier revisions of services have it, which can then no longer be rolled back to.
        #[arg(long)]
        force: bool,
    },
    /// Encrypt all stored secrets with a new key, in place of the controller's present one. No value changes.
    Rekey,
}

const SECRET_EXAMPLES: &str = "\
Examples:
  tucano secret set db-password                                # asks for it
  printf %s \"$PASSWORD\" | tucano secret set db-password
  tucano secret set tls-key --from-file key.pem
  tucano secret set db-password --from-command 'pass show db'";

/// The commands of `volume`.
#[derive(Debug, Subcommand)]
pub enum Volume {
    /// Show all volumes: their nodes, what is written to them, and the processes that have them.
    Ls,
    /// Move the volumes of a slot to another worker: its process is stopped, they are copied and compared, it starts there, and they
    /// are removed here. The worker that they are on keeps them there while they are copied.
    Move {
        /// One of the volumes, such as db/data/1.
        volume: VolumeId,
        /// The worker.
        #[arg(value_name = "NODE")]
        to: NodeName,
        /// Do not wait.
        #[arg(long)]
        no_wait: bool,
    },
    /// Remove a volume, with all that is in it. Asks first. Refused while a process has it, or its service needs it.
    Rm {
        /// The volume, such as db/data/1.
        volume: VolumeId,
        /// The one that this worker has and the controller has no record of (state orphan).
        #[arg(long, value_name = "NODE")]
        on: Option<NodeName>,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
    /// Back a volume up now, to where its service's configuration says, and wait until that is done.
    Backup {
        /// The volume, such as db/data/1.
        volume: VolumeId,
        /// Whether, and how long, to wait for it.
        #[command(flatten)]
        wait: Wait,
    },
    /// Show the backups of a volume that the controller knows of, oldest first. The repository, which restic can open, may have more.
    Backups {
        /// The volume, such as db/data/1.
        volume: VolumeId,
    },
    /// Give a volume the content of a backup. Its slot has no process until it has that.
    Restore(Restore),
}

/// Arguments of `volume restore`.
#[derive(Debug, Args)]
pub struct Restore {
    /// The volume, such as db/data/1.
    pub volume: VolumeId,
    /// The id of the backup, or how it begins, in place of the newest one.
    #[arg(long, value_name = "ID")]
    pub from: Option<String>,
    /// The worker that the volume is to be on, in place of where it is, or of any.
    #[arg(long, value_name = "NODE")]
    pub on: Option<NodeName>,
    /// Give up what this worker has of the volume, although the worker may come back. It is kept there, and never used by itself.
    #[arg(long, value_name = "NODE")]
    pub lost: Option<NodeName>,
    /// Replace a volume that can be used, with all that is in it.
    #[arg(long)]
    pub replace: bool,
    /// Do not ask.
    #[arg(long)]
    pub yes: bool,
    /// Whether, and how long, to wait for it.
    #[command(flatten)]
    pub wait: Wait,
}

/// Arguments of `deploy`.
#[derive(Debug, Args)]
pub struct Deploy {
    /// The service's configuration (TOML or JSON), or a directory with a service.toml; or an application: a Compose file, or a
    /// directory with one, or one with several configurations.
    pub file: PathBuf,
    /// Deploy also the services of this profile of a Compose file; `*` is all of them. Can be repeated [default: the variable
    /// COMPOSE_PROFILES].
    #[arg(long, value_name = "NAME")]
    pub profile: Vec<String>,
    /// The image, in place of the configuration's: an archive (tar), an OCI layout directory, or the name:tag or digest of an
    /// image that the controller has or can pull.
    #[arg(long, value_name = "IMAGE")]
    pub image: Option<PathBuf>,
    /// Deploy only if this is the newest revision of the service, 0 if there is to be none: refused, with exit code 8, if somebody
    /// else was faster.
    #[arg(long, value_name = "REVISION")]
    pub if_changed_from: Option<u64>,
    /// Whether, and how long, to wait for it.
    #[command(flatten)]
    pub wait: Wait,
}

/// Arguments of `init`.
#[derive(Debug, Args)]
pub struct Init {
    /// An archive (tar) or an OCI layout directory; or the name:tag or digest of an image that the controller has or can pull.
    #[arg(value_name = "IMAGE|ARCHIVE")]
    pub image: String,
    /// The file to write, `-` for standard output [default: NAME.toml in this directory].
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// The service's name [default: made from the image's].
    #[arg(long, value_name = "NAME")]
    pub name: Option<ServiceName>,
}

/// Whether, and how long, to wait.
#[derive(Debug, Clone, Copy, Args)]
pub struct Wait {
    /// Do not wait.
    #[arg(long)]
    pub no_wait: bool,
    /// How long to wait, such as 90s or 5m.
    #[arg(long, default_value = "2m", value_name = "TIME", value_parser = duration)]
    pub timeout: Duration,
}

/// Arguments of `logs`.
#[derive(Debug, Args)]
pub struct Logs {
    /// A service, or a process such as hello-3.
    #[arg(value_name = "SERVICE|PROCESS")]
    pub name: String,
    /// Continue with new output as it is written.
    #[arg(short, long)]
    pub follow: bool,
    /// Show only the last lines of each process.
    #[arg(long, value_name = "LINES")]
    pub tail: Option<u64>,
    /// Show only lines that are not older: a duration such as 10m, or a time such as 2026-07-01T12:00:00Z.
    #[arg(long, value_name = "TIME", value_parser = since)]
    pub since: Option<Since>,
    /// Show the time of each line, in UTC; - where it is not known.
    #[arg(short, long)]
    pub timestamps: bool,
    /// The output to show.
    #[arg(long, value_enum, default_value = "both")]
    pub stream: Stream,
}

const EXEC_EXIT_CODES: &str = "\
The exit code is that of the command: 128 plus the number of the signal that ended it, if one did.
It is 125 if the command could not be run.

Examples:
  tucano exec web -- sh
  tucano exec web-3 -- cat /etc/hosts
  tucano exec web -- tar -cf - /data > data.tar";

/// Arguments of `exec`.
#[derive(Debug, Args)]
pub struct Exec {
    /// A process such as hello-3, or a service, of which a healthy process is used.
    #[arg(value_name = "SERVICE|PROCESS")]
    pub name: String,
    /// Allocate a terminal, even if standard input or output is not one.
    #[arg(short, long, visible_alias = "tty")]
    pub terminal: bool,
    /// Allocate no terminal, even if standard input and output are one.
    #[arg(
        short = 'T',
        long,
        visible_alias = "no-tty",
        conflicts_with = "terminal"
    )]
    pub no_terminal: bool,
    /// Accepted for compatibility: standard input is always forwarded.
    #[arg(short, long, hide = true)]
    pub interactive: bool,
    /// The program, looked up in the container's PATH, and its arguments.
    #[arg(last = true, required = true)]
    pub command: Vec<String>,
}

const RUN_EXIT_CODES: &str = "\
The exit code is that of the run's last process: 128 plus the number of the signal that ended it, if one did.
It is 125 if the run has none, and 130 after Ctrl-C, which stops the run.

Examples:
  tucano run nightly                   # a job, now
  tucano run web -- ./manage check     # a command in the image of a service
  tucano run task.toml                 # a configuration that is not deployed";

/// Arguments of `run`.
#[derive(Debug, Args)]
pub struct RunArguments {
    /// A job or a service, or the path of a configuration: as a job of its own, which is removed after the run.
    #[arg(value_name = "SERVICE|FILE")]
    pub target: String,
    /// Do not wait for the run, and do not show its output.
    #[arg(short, long)]
    pub detach: bool,
    /// The arguments in place of the configuration's `args`; the image's `Entrypoint` stays.
    #[arg(last = true)]
    pub command: Vec<String>,
}

/// Outputs of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// Both.
    Both,
}

/// Arguments of `dev`.
#[derive(Debug, Clone, Args)]
pub struct Dev {
    /// The number of workers.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=200))]
    pub workers: u32,
    // `--api` is a global option; for `dev` it is the address to listen on.
    /// Address that the balancer listens on: a loopback address.
    #[arg(long, default_value = "127.0.0.1:8080", value_name = "ADDRESS")]
    pub balancer: SocketAddr,
    /// Directory for the data of the cluster, which is kept when the cluster ends [default: a directory below
    /// $XDG_STATE_HOME or /var/lib, which is removed].
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Deploy this when the cluster is up: a directory with a service.toml, an OCI layout directory, or an OCI archive.
    #[arg(long, value_name = "DIR-OR-TAR")]
    pub deploy: Vec<PathBuf>,
    /// Do not print what to try.
    #[arg(short, long)]
    pub quiet: bool,
}

fn since(text: &str) -> Result<Since, String> {
    text.parse()
}

fn duration(text: &str) -> Result<Duration, String> {
    text.parse::<Span>().map(|span| span.0)
}

#[cfg(test)]
mod tests;
