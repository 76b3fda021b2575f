//! The command line of `tucano_balancerd`.

use std::{net::SocketAddr, path::PathBuf, str::FromStr};

use clap::Parser;
use tucano_daemon::log::LogFormat;

use crate::{follow::controller::Address, limits::Limits};

/// Tucano's HTTP load balancer: forwards requests to the processes of services.
///
/// It follows the controller's route table and keeps serving the last one while the controller is down.
#[derive(Debug, Clone, Parser)]
#[command(name = "tucano_balancerd", version)]
pub struct Settings {
    /// The controller, which serves the route table: its unix socket, or https://HOST:PORT of its API
    #[arg(long, value_name = "SOCKET|URL")]
    pub follow: Address,
    /// Directory of this balancer's key and certificate, which it needs to follow a controller on another machine
    #[arg(long, value_name = "DIR")]
    pub identity: Option<PathBuf>,
    /// Certificate of the cluster's authority, a copy of the controller's ca.pem
    #[arg(long, value_name = "FILE", default_value = tucano_tls::CA_FILE)]
    pub ca: PathBuf,
    /// Where to listen: IP:PORT, or "stdin" for a listening socket inherited as descriptor 0
    #[arg(long, required = true, value_name = "ADDR|stdin")]
    pub listen: Vec<Listen>,
    /// Lock file that holds this balancer's process id; a second balancer with the same lock exits at once
    #[arg(long, value_name = "FILE")]
    pub lock: Option<PathBuf>,
    /// Run in a child process and end as soon as that one drains, so that a service manager can start the next balancer at
    /// once; requests in flight are finished by the child
    #[arg(long, requires = "lock")]
    pub detach_draining: bool,
    /// File in which the last route table is cached, for starting while the controller is down
    #[arg(long, value_name = "FILE")]
    pub routes: Option<PathBuf>,
    /// Unix socket that serves GET /metrics (Prometheus text) and GET /healthz
    #[arg(long, value_name = "SOCKET")]
    pub admin: Option<PathBuf>,
    /// Trust the X-Forwarded-* headers that clients send; only behind another proxy that sets them
    #[arg(long)]
    pub trust_forwarded: bool,
    /// Threads that serve clients, each with connections of its own; the number of processors if this is not given
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
    /// Format of log lines, which go to stderr
    #[arg(long, value_enum, default_value = "text")]
    pub log_format: LogFormat,
    /// Limits
    #[command(flatten)]
    pub limits: Limits,
}

impl Settings {
    /// The number of threads that serve clients.
    pub fn threads(&self) -> usize {
        match self.threads {
            Some(threads) => usize::from(threads),
            None => std::thread::available_parallelism().map_or(1, usize::from),
        }
    }
}

/// A listening address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// An address to bind.
    Address(SocketAddr),
    /// A listening socket inherited as file descriptor 0.
    Stdin,
}

impl FromStr for Listen {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        if text == "stdin" {
            return Ok(Self::Stdin);
        }
        text.parse()
            .map(Self::Address)
            .map_err(|_| "write IP:PORT, such as 0.0.0.0:80 or [::]:80, or stdin".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Settings, clap::Error> {
        let base = ["tucano_balancerd", "--follow", "/run/ctl.sock"];
        Settings::try_parse_from(base.iter().chain(arguments))
    }

    #[test]
    fn flag_defaults_match_the_library() {
        let settings = parse(&["--listen", "127.0.0.1:8080"]).unwrap();
        assert_eq!(settings.limits, Limits::default());
        assert!(!settings.trust_forwarded);
    }

    #[test]
    fn listeners_are_addresses_or_stdin() {
        let settings = parse(&["--listen", "[::]:80", "--listen", "stdin"]).unwrap();
        let address = Listen::Address("[::]:80".parse().unwrap());
        assert_eq!(settings.listen, [address, Listen::Stdin]);
        let error = parse(&["--listen", "localhost:80"])
            .unwrap_err()
            .to_string();
        assert!(error.contains("write IP:PORT"), "{error}");
    }

    #[test]
    fn unusable_values_are_refused() {
        for bad in [
            &["--listen", "stdin", "--max-connections", "0"],
            &["--listen", "stdin", "--head-bytes", "1KiB"],
            &["--listen", "stdin", "--tries", "none"],
        ] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
        assert!(parse(&[]).is_err(), "no listener");
    }
}
