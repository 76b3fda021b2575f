//! The static configuration: read from `ctl.toml`, validated as a whole, in force until a valid one replaces it.
//!
//! - `file`: the keys, their defaults and ranges.
//! - [`limits`]: every bound on input.
//! - [`topology`]: the nodes.
//! - [`registries`]: where images may be pulled from.
//! - [`token`] reads secrets.
//! - [`reload`]: replaces the configuration at run time.

mod file;
pub mod limits;
pub mod registries;
pub mod reload;
#[cfg(test)]
pub(crate) mod tests;
pub mod token;
pub mod topology;

use std::{
    collections::BTreeSet,
    fs, io,
    net::{IpAddr, SocketAddr},
    ops::Range,
    path::{Path, PathBuf},
};

use reqwest::Url;
use toml::Spanned;
use tucano_api::{
    ids::BalancerName,
    names::ServiceSubnet,
    settings::{SettingsError, SettingsErrors, parse_within},
    units::Span,
};
use tucano_tls::{Mode, authority::Name};

pub use self::{
    file::RestartCommand, limits::Limits, registries::Registry, reload::ConfigManager,
    token::Token, topology::Topology,
};

/// The validated static configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Directory of all durable state.
    pub data_dir: PathBuf,
    /// The file with the keys of the secrets.
    pub secret_key_file: PathBuf,
    /// The planner's settings.
    pub planner: tucano_planner::Settings,
    /// Longest duration of a restart command.
    pub restart_timeout: Span,
    /// The sysadmin's token.
    pub token: Option<Token>,
    /// The token shared with the agents.
    pub agent_token: Option<Token>,
    /// How long the previous `agent_token` is valid after a reload.
    pub agent_token_overlap: Span,
    /// Where the API listens.
    pub listen: Vec<Listen>,
    /// Whether API and agents use TLS between machines; `None` if not set.
    pub tls: Option<Mode>,
    /// More names and addresses of the API, for its certificate.
    pub names: Vec<Name>,
    /// The balancers on other machines that may follow the routes, by the names in their certificates.
    pub balancers: BTreeSet<BalancerName>,
    /// How the balancer is run.
    pub balancer: Balancer,
    /// Destinations of alerts.
    pub webhooks: Vec<Url>,
    /// Every bound on input.
    pub limits: Limits,
    /// Registries that images may be pulled from.
    pub registries: Vec<Registry>,
    /// The nodes.
    pub topology: Topology,
}

/// Where the API listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listen {
    /// On this address.
    Address(SocketAddr),
    /// On the socket inherited as file descriptor 0.
    Stdin,
}

/// How the balancer is run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Balancer {
    /// Its listen addresses.
    pub listen: Vec<SocketAddr>,
    /// Whether the controller starts and supervises it.
    pub spawn: bool,
    /// Its program, if it is not beside the controller's.
    pub program: Option<PathBuf>,
    /// Additional arguments, such as its limits.
    pub arguments: Vec<String>,
}

impl Config {
    /// Reads and validates a file.
    ///
    /// # Errors
    /// Every problem, with file, line and advice.
    pub fn read(path: &Path) -> Result<Self, SettingsErrors> {
        let name = path.display().to_string();
        let text = read_bounded(path).map_err(|error| SettingsError {
            file: name.clone(),
            line: None,
            column: None,
            message: format!("cannot be read: {error}"),
        })?;
        let directory = path.parent().unwrap_or(Path::new(""));
        Self::parse(&name, directory, &text)
    }

    /// Validates a text; relative paths in it are relative to `directory`.
    ///
    /// # Errors
    /// As [`Config::read`].
    pub fn parse(name: &str, directory: &Path, text: &str) -> Result<Self, SettingsErrors> {
        let reader = Reader {
            name,
            directory,
            text,
        };
        // A TOML document never starts with a brace, and JSON has no positions for the checks below.
        if text.trim_start().starts_with('{') {
            let error = reader.error(None, "write TOML, not JSON".to_owned());
            return Err(error.into());
        }
        Ok(reader.check(parse_within::<file::File>(name, text, MAX_BYTES)?)?)
    }

    /// Whether the API may listen on this local address: other addresses than loopback need a token.
    ///
    /// # Errors
    /// Which token is missing.
    pub fn may_listen_on(&self, local: SocketAddr) -> Result<(), String> {
        // With only an agent_token, such a listener serves the agents and refuses the sysadmin's routes.
        let has_token = self.token.is_some() || self.agent_token.is_some();
        if has_token || local.ip().to_canonical().is_loopback() {
            return Ok(());
        }
        Err(format!(
            "the API would listen on {local} without a token: add token_file = \"...\" (or token = \"...\"), or listen on 127.0.0.1"
        ))
    }
}

/// Largest configuration, in bytes: some 100,000 nodes.
const MAX_BYTES: usize = 8 << 20;

fn read_bounded(path: &Path) -> io::Result<String> {
    use io::Read;
    let mut text = String::new();
    // One byte over the limit, so that the parser detects the excess.
    fs::File::open(path)?
        .take(MAX_BYTES as u64 + 1)
        .read_to_string(&mut text)?;
    Ok(text)
}

/// The file with the keys of the secrets in the data directory.
const SECRET_KEY_FILE: &str = "secrets.key";

/// A text being validated.
struct Reader<'a> {
    name: &'a str,
    directory: &'a Path,
    text: &'a str,
}

impl Reader<'_> {
    fn check(&self, file: file::File) -> Result<Config, SettingsError> {
        let topology = topology::check(&file.topology, |offset| self.position(offset).0)
            .map_err(|wrong| self.error(wrong.span, wrong.message))?;
        self.check_service_subnet(&file.service_subnet, &topology)?;
        let config = Config {
            data_dir: self.directory.join(&file.data_dir),
            secret_key_file: match &file.secret_key_file {
                Some(path) => self.directory.join(path),
                None => self.directory.join(&file.data_dir).join(SECRET_KEY_FILE),
            },
            restart_timeout: file.restart_timeout,
            token: self.token("token", file.token, file.token_file)?,
            agent_token: self.token("agent_token", file.agent_token, file.agent_token_file)?,
            agent_token_overlap: file.agent_token_overlap,
            listen: self.listen(&file.api.listen)?,
            tls: file.api.tls,
            names: self.names(&file.api.names)?,
            balancers: self.balancers(&file.api.balancers)?,
            balancer: Balancer {
                listen: self.addresses("balancer.listen", &file.balancer.listen)?,
                spawn: file.balancer.spawn,
                arguments: file.balancer.arguments,
                program: file.balancer.program.map(|path| self.directory.join(path)),
            },
            webhooks: file
                .alerts
                .webhooks
                .iter()
                .map(|url| self.webhook(url))
                .collect::<Result<_, _>>()?,
            registries: self.registries(file.registry)?,
            limits: file.limits,
            planner: tucano_planner::Settings {
                lease: file.lease,
                drain: file.drain,
                rebalance_after: file.rebalance_after,
                restart_attempts: file.restart_attempts,
                restart_backoff: file.restart_backoff,
                restart_grace: file.restart_grace,
                crash_alert_after: file.crash_alert_after,
                recovered_after: file.recovered_after,
                revisions_kept: file.revisions_kept,
                runs_kept: file.runs_kept,
                domain: file.domain,
                service_subnet: file.service_subnet.into_inner(),
            },
            topology,
        };
        self.check_tokens(&config, file.api.listen.span(), &file.topology)?;
        Ok(config)
    }

    /// No node may have an address that a service can have.
    fn check_service_subnet(
        &self,
        subnet: &Spanned<ServiceSubnet>,
        topology: &Topology,
    ) -> Result<(), SettingsError> {
        let ctl = (&topology.ctl.name, topology.ctl.ip);
        let workers = topology.workers.iter().map(|it| (&it.name, it.ip));
        let is_inside = |ip: IpAddr| match ip.to_canonical() {
            IpAddr::V4(ip) => subnet.get_ref().contains(ip),
            IpAddr::V6(_) => false,
        };
        let mut nodes = [ctl].into_iter().chain(workers);
        let Some((name, ip)) = nodes.find(|(_, ip)| is_inside(*ip)) else {
            return Ok(());
        };
        let message = format!(
            "service_subnet {} has the address {ip} of node {name}: write a network that nothing else uses, such as \"10.213.0.0/16\"",
            subnet.get_ref()
        );
        Err(self.error(Some(subnet.span()), message))
    }

    /// The API and agents that are reachable from other machines need a token.
    fn check_tokens(
        &self,
        config: &Config,
        listen: Range<usize>,
        nodes: &[file::Node],
    ) -> Result<(), SettingsError> {
        for address in &config.listen {
            if let Listen::Address(address) = address {
                config
                    .may_listen_on(*address)
                    .map_err(|message| self.error(Some(listen.clone()), message))?;
            }
        }
        let is_remote = |ip: &IpAddr| !ip.is_loopback();
        let remote = config
            .topology
            .workers
            .iter()
            .find(|worker| is_remote(&worker.ip));
        let (Some(remote), None) = (remote, &config.agent_token) else {
            return Ok(());
        };
        let span = nodes
            .iter()
            .find(|node| node.ip.get_ref().parse() == Ok(remote.ip))
            .map(|node| node.ip.span());
        let message = format!(
            "worker {} is on another machine and there is no agent_token: add agent_token_file = \"...\" (or agent_token = \"...\"), the same as the agents have",
            remote.name
        );
        Err(self.error(span, message))
    }

    fn token(
        &self,
        key: &str,
        inline: Option<Spanned<String>>,
        file: Option<Spanned<PathBuf>>,
    ) -> Result<Option<Token>, SettingsError> {
        let (span, token) = match (inline, file) {
            (None, None) => return Ok(None),
            (Some(_), Some(file)) => {
                let message = format!("{key} and {key}_file are both given: keep one of them");
                return Err(self.error(Some(file.span()), message));
            }
            (Some(token), None) => (token.span(), Token::new(token.get_ref())),
            (None, Some(path)) => {
                let token = Token::read(&self.directory.join(path.get_ref()));
                (path.span(), token)
            }
        };
        token
            .map(Some)
            .map_err(|problem| self.error(Some(span), format!("{key}: {problem}")))
    }

    fn listen(&self, listen: &Spanned<file::OneOrMany>) -> Result<Vec<Listen>, SettingsError> {
        if listen.get_ref().as_slice().is_empty() {
            let message = "api.listen is empty: write for example \"127.0.0.1:7070\"".to_owned();
            return Err(self.error(Some(listen.span()), message));
        }
        let mut parsed = Vec::new();
        for text in listen.get_ref().as_slice() {
            let one = match text.as_str() {
                "stdin" => Listen::Stdin,
                address => Listen::Address(self.address("api.listen", listen.span(), address)?),
            };
            if parsed.contains(&one) {
                let message = format!("api.listen names {text:?} twice: keep one");
                return Err(self.error(Some(listen.span()), message));
            }
            parsed.push(one);
        }
        Ok(parsed)
    }

    fn names(&self, names: &[Spanned<String>]) -> Result<Vec<Name>, SettingsError> {
        let parse = |name: &Spanned<String>| {
            Name::parse(name.get_ref()).ok_or_else(|| {
                let message = format!(
                    "api.names: {:?} is neither a host name nor an address: write for example \"ctl.example.org\"",
                    name.get_ref()
                );
                self.error(Some(name.span()), message)
            })
        };
        names.iter().map(parse).collect()
    }

    fn balancers(
        &self,
        names: &[Spanned<String>],
    ) -> Result<BTreeSet<BalancerName>, SettingsError> {
        let parse = |name: &Spanned<String>| {
            BalancerName::try_from(name.get_ref().clone())
                .map_err(|error| self.error(Some(name.span()), format!("api.balancers: {error}")))
        };
        names.iter().map(parse).collect()
    }

    fn addresses(
        &self,
        key: &str,
        listen: &Spanned<file::OneOrMany>,
    ) -> Result<Vec<SocketAddr>, SettingsError> {
        listen
            .get_ref()
            .as_slice()
            .iter()
            .map(|text| self.address(key, listen.span(), text))
            .collect()
    }

    fn address(
        &self,
        key: &str,
        span: Range<usize>,
        text: &str,
    ) -> Result<SocketAddr, SettingsError> {
        text.parse().map_err(|_| {
            let message = format!(
                "{key}: {text:?} is not an address and port: write for example \"127.0.0.1:7070\""
            );
            self.error(Some(span), message)
        })
    }

    fn webhook(&self, url: &Spanned<String>) -> Result<Url, SettingsError> {
        Url::parse(url.get_ref())
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
            .ok_or_else(|| {
                let message = "alerts.webhooks: not a URL: write for example \"https://alerts.example.org/hook\"";
                self.error(Some(url.span()), message.to_owned())
            })
    }

    fn error(&self, span: Option<Range<usize>>, message: String) -> SettingsError {
        let position = span
            .filter(|span| !span.is_empty())
            .map(|span| self.position(span.start));
        SettingsError {
            file: self.name.to_owned(),
            line: position.map(|(line, _)| line),
            column: position.map(|(_, column)| column),
            message,
        }
    }

    /// Line and column, 1-based, of a byte offset.
    fn position(&self, offset: usize) -> (usize, usize) {
        let before = &self.text[..self.text.floor_char_boundary(offset)];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        (
            before.matches('\n').count() + 1,
            before[line_start..].chars().count() + 1,
        )
    }
}
