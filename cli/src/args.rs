//! What can be said on the command line.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};
use tucano_api::{ids::ServiceName, service::MAX_CONCURRENCY, units::Span};

use crate::{client::Token, exit::EXIT_CODES};

/// Runs services on your machines: deploy an image, and its processes are kept alive and reachable.
#[derive(Debug, Parser)]
#[command(name = "tucano", version, after_help = EXIT_CODES, max_term_width = 100)]
pub struct Arguments {
    /// How to reach the controller.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Debug, Clone, Args)]
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
    /// Token for the controller; better in the environment or a file, where other users do not see it.
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
    /// Certificate of the cluster's authority, which vouches for the controller of an https:// address. Otherwise that is
    /// /etc/tucano/ca.pem, if there is one, or else the system's authorities.
    #[arg(long, global = true, env = "TUCANO_CA_FILE", value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
    /// Print the API's JSON instead of a table.
    #[arg(long, global = true)]
    pub json: bool,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Deploy a service: upload its image and configuration, and wait until its processes are healthy.
    Deploy(Deploy),
    /// Show processes: where they run, how they are, and why.
    Ps {
        /// Only those of this service.
        service: Option<ServiceName>,
    },
    /// Show the configured services.
    Services,
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
        /// How many processes.
        #[arg(value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_CONCURRENCY)))]
        concurrency: u32,
        /// Whether, and how long, to wait for it.
        #[command(flatten)]
        wait: Wait,
    },
    /// Show the revisions of a service that are kept: those that `rollback` can go back to.
    Revisions {
        /// The service.
        name: ServiceName,
    },
    /// Go back to an earlier revision of a service: a new revision is made that is as that one was.
    Rollback {
        /// The service.
        name: ServiceName,
        /// The revision; the last one that differs from the current one when absent.
        revision: Option<u64>,
        /// Whether, and how long, to wait for it.
        #[command(flatten)]
        wait: Wait,
    },
    /// Show what a service's processes, or one process, wrote on standard output and standard error.
    Logs(Logs),
    /// Run a command in a service's process: a shell, for example, where its image has one.
    #[command(after_help = EXEC_EXIT_CODES)]
    Exec(Exec),
    /// Remove a service, and wait until nothing of it runs.
    Rm {
        /// The service.
        name: ServiceName,
        /// Whether, and how long, to wait for it.
        #[command(flatten)]
        wait: Wait,
    },
    /// Print the controller's run-time state as JSON.
    State,
    /// Validate a configuration: of a service, a controller (ctl.toml) or an agent (agent.toml).
    Check {
        /// The file.
        file: PathBuf,
    },
    /// Run a whole cluster on this machine: a controller, and workers on virtual hosts. Needs root.
    Dev(Dev),
}

/// Arguments of `deploy`.
#[derive(Debug, Args)]
pub struct Deploy {
    /// The service's configuration (TOML or JSON), or a directory with a service.toml.
    pub file: PathBuf,
    /// The image, instead of the configuration's: an archive (tar), an OCI layout directory, or the name:tag or digest of
    /// one that the controller has or can pull.
    #[arg(long, value_name = "IMAGE")]
    pub image: Option<PathBuf>,
    /// Whether, and how long, to wait for it.
    #[command(flatten)]
    pub wait: Wait,
}

/// Whether, and how long, to wait.
#[derive(Debug, Clone, Copy, Args)]
pub struct Wait {
    /// Do not wait for the processes.
    #[arg(long)]
    pub no_wait: bool,
    /// How long to wait for the processes, such as 90s or 5m.
    #[arg(long, default_value = "2m", value_name = "TIME", value_parser = duration)]
    pub timeout: Duration,
}

/// Arguments of `logs`.
#[derive(Debug, Args)]
pub struct Logs {
    /// A service, or a process such as hello-3.
    #[arg(value_name = "SERVICE|PROCESS")]
    pub name: String,
    /// Go on with what is written from now on.
    #[arg(short, long)]
    pub follow: bool,
    /// Only the last lines, of each process.
    #[arg(long, value_name = "LINES")]
    pub tail: Option<u64>,
    /// Which output.
    #[arg(long, value_enum, default_value = "both")]
    pub stream: Stream,
}

const EXEC_EXIT_CODES: &str = "\
The exit code is the command's own (128 and the signal's number where one ended it), or 125 where it could not be run.

  tucano exec web -- sh
  tucano exec web-3 -- cat /etc/hosts
  tucano exec web -- tar -cf - /data > data.tar";

/// Arguments of `exec`.
#[derive(Debug, Args)]
pub struct Exec {
    /// A service, of which a healthy process is chosen, or a process such as hello-3.
    #[arg(value_name = "SERVICE|PROCESS")]
    pub name: String,
    /// Give it a terminal also where standard input or output is none.
    #[arg(short, long, visible_alias = "tty")]
    pub terminal: bool,
    /// Give it no terminal, also where standard input and output are one.
    #[arg(
        short = 'T',
        long,
        visible_alias = "no-tty",
        conflicts_with = "terminal"
    )]
    pub no_terminal: bool,
    /// Standard input is passed on anyway.
    #[arg(short, long, hide = true)]
    pub interactive: bool,
    /// The program, by the container's PATH, and its arguments.
    #[arg(last = true, required = true)]
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
    /// How many workers.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=200))]
    pub workers: u32,
    // `--api` is every command's; here it says where to listen.
    /// Where the balancer listens: a loopback address.
    #[arg(long, default_value = "127.0.0.1:8080", value_name = "ADDRESS")]
    pub balancer: SocketAddr,
    /// Directory for everything the cluster keeps; it is kept when the cluster ends. Otherwise a directory below
    /// $XDG_STATE_HOME or /var/lib is used, and removed.
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Deploy this when the cluster is up: a directory with a service.toml, an OCI layout directory, or an OCI archive.
    #[arg(long, value_name = "DIR-OR-TAR")]
    pub deploy: Vec<PathBuf>,
    /// Do not print what to try.
    #[arg(short, long)]
    pub quiet: bool,
}

fn duration(text: &str) -> Result<Duration, String> {
    text.parse::<Span>().map(|span| span.0)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Result<Arguments, clap::Error> {
        Arguments::try_parse_from(line.split(' '))
    }

    #[test]
    fn the_definition_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn options_may_stand_before_and_after_the_command() {
        for line in [
            "tucano --json --api http://a:1 ps hello",
            "tucano ps hello --json --api http://a:1",
        ] {
            let arguments = parse(line).unwrap();
            assert!(arguments.global.json, "{line}");
            assert_eq!(arguments.global.api, "http://a:1");
            assert!(
                matches!(arguments.command, Command::Ps { service: Some(name) } if name.as_str() == "hello")
            );
        }
    }

    #[test]
    fn defaults_are_as_documented() {
        let Command::Deploy(deploy) = parse("tucano deploy a.toml").unwrap().command else {
            panic!("deploy is another command");
        };
        assert_eq!(
            (deploy.wait.no_wait, deploy.wait.timeout),
            (false, Duration::from_secs(120))
        );
        let Command::Dev(dev) = parse("tucano dev").unwrap().command else {
            panic!("dev is another command");
        };
        assert_eq!(
            (dev.workers, dev.balancer),
            (3, "127.0.0.1:8080".parse().unwrap())
        );
    }

    #[test]
    fn what_makes_no_sense_is_a_usage_error() {
        for line in [
            "tucano",
            "tucano fly",
            "tucano scale hello 0",
            "tucano scale hello 10001",
            "tucano scale Hello 1",
            "tucano deploy",
            "tucano deploy a --timeout soon",
            "tucano logs a --stream stdin",
            "tucano exec a",
            "tucano exec a -tT -- sh",
            "tucano dev --workers 0",
            "tucano ps --token a --token-file b",
        ] {
            assert_eq!(parse(line).unwrap_err().exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn exec_is_said_as_people_know_it() {
        let Command::Exec(exec) = parse("tucano exec -it web -- sh -c x").unwrap().command else {
            panic!("exec is another command");
        };
        assert!(exec.terminal && !exec.no_terminal);
        assert_eq!(exec.command, ["sh", "-c", "x"]);
    }

    #[test]
    fn a_token_is_never_shown() {
        let arguments = parse("tucano ps --token secret").unwrap();
        assert!(!format!("{arguments:?}").contains("secret"));
    }
}
