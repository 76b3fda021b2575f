//! The static configuration of a service.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    ids::{Digest, ServiceName},
    sandbox::{Capabilities, DEFAULT_PIDS},
    settings::{Problem, Validate},
    units::{Bytes, Span},
};

/// Most processes that one service may have.
pub const MAX_CONCURRENCY: u32 = 10_000;

/// What the sysadmin writes to have a service run. Immutable once it is part of a revision.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ServiceConfig {
    /// Unique name; also its host name below the balancer's domain.
    pub name: ServiceName,
    /// How many processes are kept alive: 1 to 10,000.
    pub concurrency: u32,
    /// `sha256:…`, `name:tag` or `name@sha256:…` of an image that the controller already stores, `host[:port]/name:tag` or
    /// `…@sha256:…` of one in another registry that it knows, or, for the command line and for requests that carry the image
    /// themselves, the archive's file name, or the name of an image within it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// TCP port on which each process listens, inside its own network namespace: 1 to 65535.
    pub port: u16,
    /// Host names that the balancer routes to this service, beside `<name>.<domain>`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
    /// Only requests whose path begins with this (on a `/` boundary) are routed to this service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_prefix: Option<String>,
    /// Environment of each process, beside the image's own.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Arguments in place of the image's `Cmd`; its `Entrypoint` stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub args: Option<Vec<String>>,
    /// `user`, `uid`, `user:group` or `uid:gid` in place of the image's `User`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Memory limit of each process; also what it reserves on its node.
    #[serde(default = "default_memory")]
    pub memory: Bytes,
    /// How much each process may write to its own file system.
    #[serde(default = "default_disk")]
    pub disk: Bytes,
    /// How many CPUs' time each process may use, such as `0.5`; unlimited when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpus: Option<f64>,
    /// How many processes and threads may exist in each container.
    #[serde(default = "default_pids")]
    pub pids: u32,
    /// Capabilities of programs that run as the container's root: `"web"` (CHOWN, DAC_OVERRIDE, FOWNER, NET_BIND_SERVICE,
    /// SETGID, SETUID) or a list of names. None where absent.
    #[serde(default, skip_serializing_if = "Capabilities::is_empty")]
    pub caps: Capabilities,
    /// Whether the root file system is read-only, with a tmpfs on `/tmp`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub read_only: bool,
    /// Size of that tmpfs, which counts as memory: 64 MiB where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tmp_size: Option<Bytes>,
    /// Size of `/dev/shm`, which counts as memory: 64 MiB where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shm_size: Option<Bytes>,
    /// How a process is found healthy; a TCP connect to `port` when absent.
    #[serde(default)]
    pub health: Health,
    /// How long a process may take to end after SIGTERM before SIGKILL.
    #[serde(default = "default_stop_timeout")]
    pub stop_timeout: Span,
}

/// How a process is found healthy. At most one of `http`, `tcp`, `exec`; TCP when none is given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Health {
    /// Path of a GET request that must answer with a status below 400.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<String>,
    /// A TCP connect to `port` must succeed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp: Option<bool>,
    /// A command that must exit with 0 inside the container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exec: Option<Vec<String>>,
    /// Time between two probes.
    #[serde(default = "default_interval")]
    pub interval: Span,
    /// A probe that takes longer has failed.
    #[serde(default = "default_timeout")]
    pub timeout: Span,
    /// How long a process may take to answer its first probe before it is restarted; and how long a
    /// once healthy one may go on failing.
    #[serde(default = "default_grace")]
    pub grace: Span,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            http: None,
            tcp: None,
            exec: None,
            interval: default_interval(),
            timeout: default_timeout(),
            grace: default_grace(),
        }
    }
}

/// The one probe that a [`Health`] asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probe<'a> {
    /// GET this path.
    Http(&'a str),
    /// Connect to the port.
    Tcp,
    /// Run this command inside the container.
    Exec(&'a [String]),
}

impl Health {
    /// The probe to run.
    pub fn probe(&self) -> Probe<'_> {
        match (&self.http, &self.exec) {
            (Some(path), _) => Probe::Http(path),
            (None, Some(command)) => Probe::Exec(command),
            (None, None) => Probe::Tcp,
        }
    }
}

fn default_memory() -> Bytes {
    Bytes::mib(256)
}
fn default_disk() -> Bytes {
    Bytes::mib(2048)
}
fn default_pids() -> u32 {
    DEFAULT_PIDS
}
fn default_stop_timeout() -> Span {
    Span::secs(10)
}
fn default_interval() -> Span {
    Span::secs(1)
}
fn default_timeout() -> Span {
    Span::secs(1)
}
fn default_grace() -> Span {
    Span::secs(30)
}

impl ServiceConfig {
    /// The stored image that `image` names, where it is a digest.
    pub fn image_digest(&self) -> Option<Digest> {
        self.image.as_deref()?.parse().ok()
    }

    /// Whether a change from `self` to `other` needs new processes: all but `concurrency` and what
    /// only the balancer reads.
    pub fn same_process(&self, other: &Self) -> bool {
        let routing_of = |config: &Self| Self {
            concurrency: 0,
            hosts: Vec::new(),
            path_prefix: None,
            ..config.clone()
        };
        routing_of(self) == routing_of(other)
    }
}

impl Validate for ServiceConfig {
    fn validate(&self) -> Result<(), Problem> {
        check_numbers(self)?;
        check_tmpfs(self)?;
        for host in &self.hosts {
            check_host(host)?;
        }
        if let Some(prefix) = &self.path_prefix {
            check_path("path_prefix", prefix)?;
        }
        for (name, value) in &self.env {
            check_env(name, value)?;
        }
        for text in self.args.iter().flatten().chain(self.user.as_ref()) {
            if text.contains('\0') {
                return Err(Problem::new(
                    "args",
                    "an argument cannot contain a NUL byte",
                ));
            }
        }
        self.health.validate()
    }
}

fn check_numbers(config: &ServiceConfig) -> Result<(), Problem> {
    if !(1..=MAX_CONCURRENCY).contains(&config.concurrency) {
        let message = format!(
            "{} processes cannot be kept alive: write 1 to {MAX_CONCURRENCY}, or remove the service",
            config.concurrency
        );
        return Err(Problem::new("concurrency", message));
    }
    if config.port == 0 {
        return Err(Problem::new(
            "port",
            "0 is not a port: write the one the program listens on",
        ));
    }
    if !(Bytes::mib(4)..=Bytes(1 << 50)).contains(&config.memory) {
        let message = format!("{} is out of range: at least 4 MiB", config.memory);
        return Err(Problem::new("memory", message));
    }
    if !(Bytes::mib(1)..=Bytes(1 << 50)).contains(&config.disk) {
        let message = format!("{} is out of range: at least 1 MiB", config.disk);
        return Err(Problem::new("disk", message));
    }
    if config
        .cpus
        .is_some_and(|cpus| !(0.01..=1024.0).contains(&cpus))
    {
        return Err(Problem::new("cpus", "write a number from 0.01 to 1024"));
    }
    if !(1..=4_194_304).contains(&config.pids) {
        return Err(Problem::new("pids", "write a number from 1 to 4194304"));
    }
    if config.stop_timeout > Span::secs(3600) {
        return Err(Problem::new("stop_timeout", "at most 1h"));
    }
    Ok(())
}

/// A tmpfs larger than all memory could never be filled.
fn check_tmpfs(config: &ServiceConfig) -> Result<(), Problem> {
    for (key, size) in [("tmp_size", config.tmp_size), ("shm_size", config.shm_size)] {
        if size.is_some_and(|size| !(Bytes(4096)..=config.memory).contains(&size)) {
            let message = format!("write a size from 4KiB to `memory`, {}", config.memory);
            return Err(Problem::new(key, message));
        }
    }
    if config.tmp_size.is_some() && !config.read_only {
        let message = "only with `read_only = true` is /tmp a file system of its own";
        return Err(Problem::new("tmp_size", message));
    }
    Ok(())
}

impl Validate for Health {
    fn validate(&self) -> Result<(), Problem> {
        let kinds = [
            self.http.is_some(),
            self.tcp == Some(true),
            self.exec.is_some(),
        ];
        if kinds.iter().filter(|given| **given).count() > 1 {
            return Err(Problem::new(
                "health",
                "give only one of http, tcp and exec",
            ));
        }
        if let Some(path) = &self.http {
            check_path("health.http", path)?;
        }
        if self
            .exec
            .as_ref()
            .is_some_and(|command| command.is_empty() || command[0].is_empty())
        {
            return Err(Problem::new("health.exec", "name the program to run"));
        }
        for (key, span, most) in [
            ("health.interval", self.interval, 3600),
            ("health.timeout", self.timeout, 600),
            ("health.grace", self.grace, 86_400),
        ] {
            if !(Span::millis(10)..=Span::secs(most)).contains(&span) {
                return Err(Problem::new(
                    key,
                    format!("write a duration from 10ms to {}", Span::secs(most)),
                ));
            }
        }
        Ok(())
    }
}

fn check_host(host: &str) -> Result<(), Problem> {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    if host.len() <= 253 && host.split('.').all(label) {
        return Ok(());
    }
    let message = format!(
        "{host:?} is not a host name: write for example \"www.example.org\", in lower case and without port"
    );
    Err(Problem::new("hosts", message))
}

fn check_path(key: &str, path: &str) -> Result<(), Problem> {
    let plain = path.bytes().all(|b| b.is_ascii_graphic() && b != b'#');
    if path.starts_with('/') && plain && path.len() <= 1024 {
        return Ok(());
    }
    Err(Problem::new(
        key,
        format!("{path:?} is not a path: it starts with '/' and has no spaces"),
    ))
}

fn check_env(name: &str, value: &str) -> Result<(), Problem> {
    if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
        let message =
            format!("{name:?} is not a variable that can be set: no '=' in the name, no NUL");
        return Err(Problem::new("env", message));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::parse;

    fn read(more: &str) -> Result<ServiceConfig, String> {
        let text = format!("name = \"hello\"\nconcurrency = 6\nport = 8080\n{more}");
        parse("hello.toml", &text).map_err(|error| error.to_string())
    }

    #[test]
    fn three_lines_are_enough_and_defaults_are_as_documented() {
        let config = read("").unwrap();
        assert_eq!(
            (config.memory, config.disk, config.pids, config.stop_timeout),
            (Bytes::mib(256), Bytes::mib(2048), 512, Span::secs(10))
        );
        assert_eq!(config.health.probe(), Probe::Tcp);
    }

    #[test]
    fn every_key_reads() {
        let config = read(
            "image = \"hello.tar\"\nhosts = [\"a.example\"]\npath_prefix = \"/x\"\nenv = { A = \"1\" }\nargs = [\"-v\"]\n\
             user = \"1000:1000\"\nmemory = \"64MiB\"\ndisk = \"1GiB\"\ncpus = 0.5\npids = 10\n\
             caps = \"web\"\nread_only = true\ntmp_size = \"8MiB\"\nshm_size = \"16MiB\"\nstop_timeout = \"1s\"\n\
             health = { http = \"/healthz\", interval = \"500ms\", timeout = \"2s\", grace = \"1m\" }",
        )
        .unwrap();
        assert_eq!(config.memory, Bytes::mib(64));
        assert_eq!(config.health.probe(), Probe::Http("/healthz"));
        let json = serde_json::to_string(&config).unwrap();
        assert_eq!(parse::<ServiceConfig>("json", &json).unwrap(), config);
    }

    #[test]
    fn values_without_sense_are_refused_with_advice() {
        for (more, part) in [
            ("hosts = [\"A b\"]", "host name"),
            ("path_prefix = \"x\"", "starts with '/'"),
            ("memory = \"1KiB\"", "4 MiB"),
            ("disk = \"1KiB\"", "1 MiB"),
            ("cpus = 0.0", "0.01"),
            ("pids = 0", "pids"),
            ("shm_size = \"1GiB\"", "4KiB to `memory`, 256.0 MiB"),
            ("read_only = true\ntmp_size = 0", "tmp_size: write a size"),
            ("tmp_size = \"1MiB\"", "read_only = true"),
            ("env = { \"A=B\" = \"1\" }", "variable"),
            ("health = { http = \"/\", exec = [\"x\"] }", "only one"),
            ("health = { exec = [] }", "name the program"),
            ("health = { interval = \"0s\" }", "10ms"),
            ("memry = 1", "did you mean \"memory\""),
            (
                "health = { intervall = \"1s\" }",
                "did you mean \"interval\"",
            ),
        ] {
            let message = read(more).unwrap_err();
            assert!(message.contains(part), "{more}: {message}");
        }
        for (text, part) in [
            (
                "name = \"a\"\nconcurrency = 0\nport = 1",
                "a.toml:2:1: concurrency: 0 processes",
            ),
            (
                "name = \"a\"\nconcurrency = 1\nport = 0",
                "a.toml:3:1: port: 0 is not a port",
            ),
            ("name = \"../a\"\nconcurrency = 1\nport = 1", "a.toml:1:"),
        ] {
            let message = parse::<ServiceConfig>("a.toml", text)
                .unwrap_err()
                .to_string();
            assert!(message.starts_with(part), "{message}");
        }
    }

    #[test]
    fn only_changes_that_a_process_sees_need_new_processes() {
        let config = read("").unwrap();
        let scaled = ServiceConfig {
            concurrency: 2,
            hosts: vec!["a.b".into()],
            ..config.clone()
        };
        assert!(config.same_process(&scaled));
        let bigger = ServiceConfig {
            memory: Bytes::mib(512),
            ..config.clone()
        };
        assert!(!config.same_process(&bigger));
        let looser = ServiceConfig {
            caps: read("caps = \"web\"").unwrap().caps,
            ..config.clone()
        };
        assert!(!config.same_process(&looser));
    }
}
