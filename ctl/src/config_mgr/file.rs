//! The syntax of `ctl.toml`: every key, its default and its range.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use toml::Spanned;
use tucano_api::{
    names::ServiceSubnet,
    service::Labels,
    settings::{Problem, Validate},
    units::Span,
};
use tucano_tls::Mode;
use utoipa::ToSchema;

use super::{limits::Limits, registries};

/// The whole file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct File {
    pub(super) data_dir: PathBuf,
    pub(super) secret_key_file: Option<PathBuf>,
    pub(super) domain: String,
    pub(super) service_subnet: Spanned<ServiceSubnet>,
    pub(super) lease: Span,
    pub(super) drain: Span,
    pub(super) rebalance_after: Span,
    pub(super) restart_attempts: u32,
    pub(super) restart_backoff: Span,
    pub(super) restart_grace: Span,
    pub(super) restart_timeout: Span,
    pub(super) crash_alert_after: u32,
    pub(super) recovered_after: Span,
    pub(super) revisions_kept: usize,
    pub(super) runs_kept: usize,
    pub(super) token: Option<Spanned<String>>,
    pub(super) token_file: Option<Spanned<PathBuf>>,
    pub(super) agent_token: Option<Spanned<String>>,
    pub(super) agent_token_file: Option<Spanned<PathBuf>>,
    pub(super) agent_token_overlap: Span,
    pub(super) api: Api,
    pub(super) balancer: Balancer,
    pub(super) alerts: Alerts,
    pub(super) limits: Limits,
    pub(super) registry: Vec<registries::Entry>,
    pub(super) topology: Vec<Node>,
}

impl Default for File {
    fn default() -> Self {
        let planner = tucano_planner::Settings::default();
        Self {
            data_dir: PathBuf::from("/var/lib/tucano/ctl"),
            secret_key_file: None,
            domain: planner.domain,
            service_subnet: Spanned::new(0..0, planner.service_subnet),
            lease: planner.lease,
            drain: planner.drain,
            rebalance_after: planner.rebalance_after,
            restart_attempts: planner.restart_attempts,
            restart_backoff: planner.restart_backoff,
            restart_grace: planner.restart_grace,
            restart_timeout: Span::secs(60),
            crash_alert_after: planner.crash_alert_after,
            recovered_after: planner.recovered_after,
            revisions_kept: planner.revisions_kept,
            runs_kept: planner.runs_kept,
            token: None,
            token_file: None,
            agent_token: None,
            agent_token_file: None,
            agent_token_overlap: Span::secs(24 * 3600),
            api: Api::default(),
            balancer: Balancer::default(),
            alerts: Alerts::default(),
            limits: Limits::default(),
            registry: Vec::new(),
            topology: Vec::new(),
        }
    }
}

/// `[api]`: the listeners for the sysadmin and the agents.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Api {
    pub(super) listen: Spanned<OneOrMany>,
    pub(super) tls: Option<Mode>,
    pub(super) names: Vec<Spanned<String>>,
    pub(super) balancers: Vec<Spanned<String>>,
}

impl Default for Api {
    fn default() -> Self {
        let address = format!("127.0.0.1:{}", tucano_api::API_PORT);
        Self {
            listen: Spanned::new(0..0, OneOrMany::One(address)),
            tls: None,
            names: Vec::new(),
            balancers: Vec::new(),
        }
    }
}

/// `[balancer]`: the listeners for users of the services.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Balancer {
    pub(super) listen: Spanned<OneOrMany>,
    pub(super) spawn: bool,
    pub(super) program: Option<PathBuf>,
    pub(super) arguments: Vec<String>,
}

impl Default for Balancer {
    fn default() -> Self {
        Self {
            listen: Spanned::new(0..0, OneOrMany::One("127.0.0.1:8080".to_owned())),
            spawn: true,
            program: None,
            arguments: Vec::new(),
        }
    }
}

/// `[alerts]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Alerts {
    pub(super) webhooks: Vec<Spanned<String>>,
}

/// One `[[topology]]` entry.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Node {
    pub(super) kind: Spanned<NodeKind>,
    pub(super) ip: Spanned<String>,
    pub(super) name: Option<Spanned<String>>,
    pub(super) labels: Option<Spanned<Labels>>,
    pub(super) restart: Option<RestartCommand>,
}

/// The kind of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum NodeKind {
    Ctl,
    Worker,
}

/// How a worker is restarted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(
    untagged,
    expecting = "write the command as a list such as [\"ssh\", \"w1\", \"reboot\"], or as one string for sh -c"
)]
pub enum RestartCommand {
    /// Program and arguments.
    List(Vec<String>),
    /// A line for `sh -c`.
    Shell(String),
}

impl RestartCommand {
    /// Program and arguments.
    pub fn argv(&self) -> Vec<String> {
        match self {
            Self::List(argv) => argv.clone(),
            Self::Shell(line) => vec!["sh".to_owned(), "-c".to_owned(), line.clone()],
        }
    }
}

/// A list; a single element may be written without brackets.
#[derive(Debug, Deserialize)]
#[serde(
    untagged,
    expecting = "write an address such as \"127.0.0.1:7070\", or a list of them"
)]
pub(super) enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl OneOrMany {
    pub(super) fn as_slice(&self) -> &[String] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(many) => many,
        }
    }
}

impl Validate for File {
    fn problems(&self) -> Vec<Problem> {
        const DAY: u64 = 86_400;
        let spans = [
            ("lease", self.lease, 100, 3600),
            ("drain", self.drain, 0, 3600),
            ("rebalance_after", self.rebalance_after, 0, DAY),
            ("restart_backoff", self.restart_backoff, 1, 3600),
            ("restart_grace", self.restart_grace, 1, DAY),
            ("restart_timeout", self.restart_timeout, 1, DAY),
            ("recovered_after", self.recovered_after, 0, DAY),
            ("agent_token_overlap", self.agent_token_overlap, 0, 30 * DAY),
        ];
        let spans = spans
            .map(|(key, span, least_ms, most_secs)| check_span(key, span, least_ms, most_secs));
        let attempts = u64::from(self.restart_attempts);
        let others = [
            check_range("restart_attempts", attempts, 0, 100),
            check_range(
                "crash_alert_after",
                u64::from(self.crash_alert_after),
                1,
                1000,
            ),
            check_range("revisions_kept", self.revisions_kept as u64, 1, 1000),
            check_range("runs_kept", self.runs_kept as u64, 1, 1000),
            check_domain(&self.domain),
        ];
        let checks = spans.into_iter().chain(others);
        let mut problems: Vec<Problem> = checks.filter_map(Result::err).collect();
        problems.extend(self.limits.problems());
        problems
    }
}

/// Refuses a duration outside `least_ms..=most_secs`.
pub(super) fn check_span(
    key: &str,
    span: Span,
    least_ms: u64,
    most_secs: u64,
) -> Result<(), Problem> {
    let (least, most) = (Span::millis(least_ms), Span::secs(most_secs));
    if (least..=most).contains(&span) {
        return Ok(());
    }
    let message = format!("{span} is out of range: write a duration from {least} to {most}");
    Err(Problem::new(key, message))
}

/// Refuses a number outside `least..=most`.
pub(super) fn check_range(key: &str, value: u64, least: u64, most: u64) -> Result<(), Problem> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    let message = format!("{value} is out of range: write a number from {least} to {most}");
    Err(Problem::new(key, message))
}

fn check_domain(domain: &str) -> Result<(), Problem> {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    if domain.len() <= 190 && domain.split('.').all(is_label) {
        return Ok(());
    }
    let message = format!(
        "{domain:?} is not a domain: write for example \"apps.example.org\", in lower case, without a leading dot"
    );
    Err(Problem::new("domain", message))
}
