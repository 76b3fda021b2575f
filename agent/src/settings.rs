//! The agent's static configuration, `agent.toml`.

use std::{
    fmt, fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;
use tucano_api::{
    AGENT_PORT,
    ids::NodeName,
    settings::{MAX_SETTINGS_BYTES, Problem, SettingsError, Validate, parse},
    units::{Bytes, Span},
};
use tucano_tls::{CA_FILE, Mode, Trust};

use crate::runner::network::{PortRange, Subnet};

/// Parent of the processes' cgroups, where neither the configuration nor the command line names one.
pub const DEFAULT_CGROUP: &str = "tucano";

/// Everything that `agent.toml` says; absent keys have their defaults.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Address of the controller's API, such as `https://10.0.0.1:7070`.
    pub controller: String,
    /// Whether what goes to and from other machines is TLS; nothing where `controller` says it.
    #[serde(default)]
    pub tls: Option<Mode>,
    /// The certificate of the cluster's authority.
    #[serde(default = "default_ca_file")]
    pub ca_file: PathBuf,
    /// What that file has, where it is needed, or there.
    #[serde(skip)]
    pub trust: Option<Trust>,
    /// What the agent presents to the controller and expects from it.
    #[serde(default)]
    pub token: Option<Token>,
    /// File that holds the token instead.
    #[serde(default)]
    pub token_file: Option<PathBuf>,
    /// Everything the agent keeps on disk.
    #[serde(default = "default_data_dir")]
    pub data_dir: PathBuf,
    /// Time between two reports when nothing changes.
    #[serde(default = "default_publish_interval")]
    pub publish_interval: Span,
    /// The node's address as in the topology; else the local address of the connection to the controller.
    #[serde(default)]
    pub ip: Option<IpAddr>,
    /// The node's name as in the topology; else the controller finds it by `ip`.
    #[serde(default)]
    pub name: Option<NodeName>,
    /// Where the controller reaches the agent.
    #[serde(default = "default_listen")]
    pub listen: SocketAddr,
    /// Addresses of the processes' own network.
    #[serde(default)]
    pub subnet: Subnet,
    /// Name of the bridge that the processes are attached to.
    #[serde(default = "default_bridge")]
    pub bridge: String,
    /// Ports of the node that may be forwarded to processes.
    #[serde(default)]
    pub ports: PortRange,
    /// Parent of the processes' cgroups: below the agent's own, or with a leading slash below where cgroups are mounted.
    #[serde(default)]
    pub cgroup: Option<String>,
    /// Memory kept for the system.
    #[serde(default = "default_memory_reserved")]
    pub memory_reserved: Bytes,
    /// Memory that the controller may reserve for processes, instead of all but `memory_reserved`.
    #[serde(default)]
    pub memory_reservable: Option<Bytes>,
    /// Layers and blobs that no process has referred to for this long are removed.
    #[serde(default = "default_unused_images_kept")]
    pub unused_images_kept: Span,
    /// How long stored processes wait to be started after the agent's start for a controller that does not answer.
    #[serde(default = "default_controller_wait")]
    pub controller_wait: Span,
    /// Whether services get the capabilities they ask for even where user namespaces do not work, and they are the node's own.
    #[serde(default)]
    pub caps_without_user_namespaces: bool,
    /// The program that starts containers; else `tucano_oci` beside the agent's own.
    #[serde(default)]
    pub runtime: Option<PathBuf>,
    /// Bounds of what is kept of each process's stdout and stderr.
    #[serde(default)]
    pub logs: Logs,
    /// How images are kept on the node.
    #[serde(default)]
    pub images: ImageSettings,
    /// Every other bound.
    #[serde(default)]
    pub limits: Limits,
}

/// How images are kept on the node.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ImageSettings {
    /// What layers are unpacked to.
    pub unpack: Unpack,
    /// How long an unpacked layer is believed to be as it was when it was last looked at: before a start after that, or
    /// after a start of the agent, all of it is read and checked.
    pub check_again: Span,
}

impl Default for ImageSettings {
    fn default() -> Self {
        Self {
            unpack: Unpack::Auto,
            check_again: Span::secs(24 * 3600),
        }
    }
}

/// What layers are unpacked to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unpack {
    /// EROFS images if the kernel mounts them, else directories.
    Auto,
    /// Directories of files.
    Directories,
    /// EROFS images; the agent does not start if the kernel does not mount them.
    Erofs,
}

/// Bounds of what is kept of each of a process's two output streams.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Logs {
    /// Largest file; it is rotated when full.
    pub file_bytes: Bytes,
    /// Number of files kept of each stream, the current one among them.
    pub files: u32,
}

impl Default for Logs {
    fn default() -> Self {
        Self {
            file_bytes: Bytes::mib(10),
            files: 3,
        }
    }
}

/// Bounds on what the agent does and accepts.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Most processes that a desired set may hold.
    pub processes: usize,
    /// Largest body of a request.
    pub body_bytes: Bytes,
    /// Containers started at the same time.
    pub starts: usize,
    /// Networks of processes (each a namespace with its address and link) that are kept ready for the next starts, while there
    /// are processes.
    pub ready_networks: usize,
    /// Supervisors of containers that are kept ready for the next starts, while there are processes.
    pub ready_supervisors: usize,
    /// Layers fetched and unpacked at the same time.
    pub layer_pulls: usize,
    /// Connections that the kernel is to have room for, at the least (`nf_conntrack_max`).
    pub tracked_connections: u64,
    /// Most layers that are fetched, or wait for it, before they are needed.
    pub prefetches: usize,
    /// Time without a byte after which a transfer is given up.
    pub stalled_transfer: Span,
    /// Shortest time between two measurements of what a process has written to its disk.
    pub disk_interval: Span,
    /// Clients that may follow logs at the same time.
    pub followers: usize,
    /// Commands that may run in containers for others at the same time.
    pub sessions: usize,
    /// Most lines that one request for logs may ask for.
    pub log_lines: usize,
    /// Most bytes of past output that one request for logs gives.
    pub log_bytes: Bytes,
    /// Largest image, unpacked.
    pub layer_bytes: Bytes,
    /// Connections that may be before their first request at the same time.
    pub handshakes: usize,
    /// Longest time until a connection is ready for one.
    pub handshake_timeout: Span,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            processes: 1000,
            body_bytes: Bytes::mib(16),
            starts: 8,
            ready_networks: 8,
            ready_supervisors: 8,
            layer_pulls: 3,
            tracked_connections: 131_072,
            prefetches: 32,
            stalled_transfer: Span::secs(30),
            disk_interval: Span::secs(1),
            followers: 64,
            sessions: 32,
            log_lines: 10_000,
            log_bytes: Bytes::mib(4),
            layer_bytes: Bytes(32 << 30),
            handshakes: 64,
            handshake_timeout: Span::secs(10),
        }
    }
}

/// A shared secret; never shown.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Token(String);

impl Token {
    /// The secret itself.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Token {
    fn from(secret: &str) -> Self {
        Self(secret.to_owned())
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(redacted)")
    }
}

/// Why the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file cannot be read.
    #[error("cannot read the configuration {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Its content makes no sense.
    #[error(transparent)]
    Invalid(#[from] SettingsError),
    /// The file with the token cannot be read.
    #[error("cannot read token_file {path}: {source}")]
    Token {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file with the authority's certificate is of no use.
    #[error("ca_file: {0}")]
    Ca(#[from] tucano_tls::Error),
    /// It is not there.
    #[error(
        "ca_file {path} is not there: copy the controller's {CA_FILE} to it (or <data_dir>/tls/ca.pem, where the controller \
         runs without packages), as you do with its agent-token"
    )]
    NoCa {
        /// The file.
        path: PathBuf,
    },
    /// It holds no token.
    #[error("token_file {path} is empty: write the agent_token of the controller into it")]
    EmptyToken {
        /// The file.
        path: PathBuf,
    },
}

impl Settings {
    /// Reads the file and the token's file.
    pub fn load(path: &Path) -> Result<Self, LoadError> {
        let text = read_bounded(path).map_err(|source| LoadError::Read {
            path: path.to_owned(),
            source,
        })?;
        let mut settings: Self = parse(&path.display().to_string(), &text)?;
        if let Some(file) = &settings.token_file {
            settings.token = Some(read_token(file)?);
        }
        settings.trust = settings.read_trust()?;
        Ok(settings)
    }

    fn read_trust(&self) -> Result<Option<Trust>, LoadError> {
        let trust = match self.wire() {
            Mode::On => Trust::read(&self.ca_file)?,
            Mode::Off => None,
        };
        let is_needed = self.controller.starts_with("https:");
        match trust {
            None if is_needed => Err(LoadError::NoCa {
                path: self.ca_file.clone(),
            }),
            other => Ok(other),
        }
    }

    /// Whether what goes to and from other machines is TLS.
    pub fn wire(&self) -> Mode {
        let is_plain = self.controller.starts_with("http:") && !is_loopback(&self.controller);
        let default = if is_plain { Mode::Off } else { Mode::On };
        self.tls.unwrap_or(default)
    }

    /// What there is to say of a wire that is plain HTTP, and nobody has said that it is to be.
    pub fn plain_wire(&self) -> Option<String> {
        let is_meant = self.tls.is_some() || self.wire() == Mode::On;
        (!is_meant).then(|| {
            format!(
                "what goes between this node and the controller is plain HTTP: write controller = {:?} and a ca_file into \
                 agent.toml, or tls = \"off\" where something else protects the network",
                self.controller.replacen("http:", "https:", 1)
            )
        })
    }

    /// Longest time that one report may take.
    pub fn report_timeout(&self) -> Duration {
        self.publish_interval.0.max(Duration::from_secs(1))
    }
}

impl Validate for Settings {
    fn validate(&self) -> Result<(), Problem> {
        check_controller(&self.controller)?;
        self.check_tls()?;
        self.check_token()?;
        self.check_names()?;
        if !(Span::millis(50)..=Span::secs(3600)).contains(&self.publish_interval) {
            return Err(Problem::new(
                "publish_interval",
                "write a duration from 50ms to 1h",
            ));
        }
        if !self.data_dir.is_absolute() {
            return Err(Problem::new(
                "data_dir",
                "write an absolute path, such as \"/var/lib/tucano/agent\"",
            ));
        }
        if self.images.check_again < Span::secs(1) {
            return Err(Problem::new(
                "images.check_again",
                "write a duration of at least 1s",
            ));
        }
        if self.logs.files == 0 || self.logs.file_bytes < Bytes(4096) {
            return Err(Problem::new(
                "logs",
                "keep at least 1 file of at least 4KiB",
            ));
        }
        self.limits.validate()
    }
}

impl Settings {
    fn check_tls(&self) -> Result<(), Problem> {
        let is_tls = self.controller.starts_with("https:");
        let message = match self.tls {
            Some(Mode::On) if !is_tls && !is_loopback(&self.controller) => {
                "is \"on\", and yet controller is an http:// address: write https:// there"
            }
            Some(Mode::Off) if is_tls => {
                "is \"off\", and yet controller is an https:// address: write http:// there, or remove this"
            }
            _ => return Ok(()),
        };
        Err(Problem::new("tls", message))
    }

    fn check_token(&self) -> Result<(), Problem> {
        match (&self.token, &self.token_file) {
            (Some(_), Some(_)) => Err(Problem::new(
                "token_file",
                "give either token or token_file, not both",
            )),
            (Some(Token(secret)), None)
                if secret.is_empty() || !secret.bytes().all(|b| b.is_ascii_graphic()) =>
            {
                Err(Problem::new(
                    "token",
                    "write at least one character, without spaces",
                ))
            }
            (None, None) if !self.listen.ip().is_loopback() => Err(Problem::new(
                "token",
                "is missing: write the controller's agent_token, or listen on loopback only",
            )),
            _ => Ok(()),
        }
    }

    fn check_names(&self) -> Result<(), Problem> {
        let simple = |text: &str| {
            text.bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
        };
        if !(1..=15).contains(&self.bridge.len()) || !simple(&self.bridge) {
            return Err(Problem::new(
                "bridge",
                "write 1 to 15 letters, digits, '-' and '_'",
            ));
        }
        match &self.cgroup {
            Some(path) => check_cgroup(path).map_err(|advice| Problem::new("cgroup", advice)),
            None => Ok(()),
        }
    }
}

/// Each takes some memory, or some of the kernel's.
const MOST_READY: usize = 256;

impl Validate for Limits {
    fn validate(&self) -> Result<(), Problem> {
        for (key, value, most) in [
            ("processes", self.processes, 4000),
            ("starts", self.starts, 1024),
            ("layer_pulls", self.layer_pulls, 64),
            ("prefetches", self.prefetches, 1024),
            ("followers", self.followers, 4096),
            ("sessions", self.sessions, 1024),
            ("log_lines", self.log_lines, 1_000_000),
            ("handshakes", self.handshakes, 10_000),
        ] {
            if !(1..=most).contains(&value) {
                return Err(Problem::new(
                    format!("limits.{key}"),
                    format!("write a number from 1 to {most}"),
                ));
            }
        }
        if self.tracked_connections > 1 << 24 {
            return Err(Problem::new(
                "limits.tracked_connections",
                "write a number up to 16777216, or 0 to leave it as the system has it",
            ));
        }
        for (key, value) in [
            ("ready_networks", self.ready_networks),
            ("ready_supervisors", self.ready_supervisors),
        ] {
            if value > MOST_READY {
                return Err(Problem::new(
                    format!("limits.{key}"),
                    format!("write a number from 0 to {MOST_READY}"),
                ));
            }
        }
        if !(Span::millis(10)..=Span::secs(3600)).contains(&self.disk_interval) {
            return Err(Problem::new(
                "limits.disk_interval",
                "write a duration from 10ms to 1h",
            ));
        }
        if !(Span::millis(100)..=Span::secs(600)).contains(&self.handshake_timeout) {
            return Err(Problem::new(
                "limits.handshake_timeout",
                "write a duration from 100ms to 10m",
            ));
        }
        if !(Bytes(4096)..=Bytes::mib(256)).contains(&self.body_bytes) {
            return Err(Problem::new(
                "limits.body_bytes",
                "write a size from 4KiB to 256MiB",
            ));
        }
        Ok(())
    }
}

fn check_controller(url: &str) -> Result<(), Problem> {
    let usable = reqwest::Url::parse(url).is_ok_and(|url| {
        ["http", "https"].contains(&url.scheme()) && url.has_host() && url.path() == "/"
    });
    if usable && !url.ends_with('/') {
        return Ok(());
    }
    let message = format!("{url:?} is not usable: write for example \"https://10.0.0.1:7070\"");
    Err(Problem::new("controller", message))
}

fn read_token(path: &Path) -> Result<Token, LoadError> {
    let text = read_bounded(path).map_err(|source| LoadError::Token {
        path: path.to_owned(),
        source,
    })?;
    let secret = text.trim();
    if secret.is_empty() || !secret.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(LoadError::EmptyToken {
            path: path.to_owned(),
        });
    }
    Ok(Token::from(secret))
}

/// Whether an address is this machine's own, whatever a name server says.
pub(crate) fn is_loopback(url: &str) -> bool {
    let url = reqwest::Url::parse(url).ok();
    let host = url
        .as_ref()
        .and_then(reqwest::Url::host_str)
        .unwrap_or_default();
    let ip = host.trim_matches(['[', ']']).parse::<IpAddr>();
    host == "localhost" || ip.is_ok_and(|ip| ip.to_canonical().is_loopback())
}

/// Parents of cgroups are named as systemd names its units, and never lead upwards.
pub(crate) fn check_cgroup(path: &str) -> Result<(), &'static str> {
    let plain = |part: &str| {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-_.@:\\".contains(&b);
        !part.is_empty() && !part.starts_with('.') && part.bytes().all(allowed)
    };
    let below = path.strip_prefix('/').unwrap_or(path);
    if path.len() <= 200 && below.split('/').all(plain) {
        return Ok(());
    }
    Err("write a path such as \"tucano\" or \"/system.slice/tucano-processes.service\"")
}

/// A file's text, not read further than a configuration may be long.
fn read_bounded(path: &Path) -> std::io::Result<String> {
    use std::io::Read;
    let mut text = String::new();
    fs::File::open(path)?
        .take(MAX_SETTINGS_BYTES as u64 + 1)
        .read_to_string(&mut text)?;
    Ok(text)
}

fn default_ca_file() -> PathBuf {
    CA_FILE.into()
}
fn default_data_dir() -> PathBuf {
    "/var/lib/tucano/agent".into()
}
fn default_publish_interval() -> Span {
    Span::secs(1)
}
fn default_listen() -> SocketAddr {
    (Ipv4Addr::UNSPECIFIED, AGENT_PORT).into()
}
fn default_bridge() -> String {
    "tucano0".into()
}
fn default_memory_reserved() -> Bytes {
    Bytes::mib(128)
}
fn default_unused_images_kept() -> Span {
    Span::secs(600)
}
fn default_controller_wait() -> Span {
    Span::secs(10)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Settings, String> {
        parse("agent.toml", text).map_err(|error| error.to_string())
    }

    #[test]
    fn two_lines_are_enough() {
        let settings = read("controller = \"http://10.0.0.1:7070\"\ntoken = \"s\"").unwrap();
        assert_eq!(settings.listen.port(), AGENT_PORT);
        assert_eq!(settings.publish_interval, Span::secs(1));
        assert_eq!(settings.subnet.to_string(), "172.31.0.0/16");
        assert_eq!(settings.ports.to_string(), "20000-29999");
        assert_eq!(
            (settings.logs.files, settings.limits.log_lines),
            (3, 10_000)
        );
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_advice() {
        let base = "controller = \"http://10.0.0.1:7070\"\ntoken = \"s\"\n";
        for (more, part) in [
            ("lisen = \"0.0.0.0:1\"", "did you mean \"listen\""),
            (
                "publish_interval = \"1ms\"",
                "agent.toml:3:1: publish_interval: write a duration",
            ),
            ("data_dir = \"x\"", "absolute path"),
            ("bridge = \"a bridge\"", "bridge: write 1 to 15"),
            ("cgroup = \"../up\"", "cgroup: write a path"),
            ("cgroup = \"/\"", "cgroup: write a path"),
            ("subnet = \"10.0.0.0/31\"", "subnet"),
            ("subnet = \"10.0.0.1/16\"", "10.0.0.0/16"),
            ("ports = \"9-3\"", "ports"),
            ("token_file = \"/x\"", "either token or token_file"),
            (
                "[limits]\nprocesses = 0",
                "limits.processes: write a number from 1 to",
            ),
            ("[limits]\nready_networks = 257", "from 0 to 256"),
            ("[limits]\nready_supervisors = 257", "from 0 to 256"),
            (
                "[limits]\nhandshakes = 0",
                "limits.handshakes: write a number",
            ),
            ("[limits]\nhandshake_timeout = \"1ms\"", "from 100ms"),
            ("tls = \"on\"", "write https:// there"),
            ("[limits]\nbody_bytes = \"1KiB\"", "limits.body_bytes"),
            (
                "[limits]\ntracked_connections = 100000000",
                "limits.tracked_connections: write a number up to",
            ),
            ("[logs]\nfiles = 0", "keep at least 1 file"),
            ("[images]\nunpack = \"tar\"", "the values are auto, directories"),
            ("[images]\ncheck_again = \"1ms\"", "images.check_again"),
        ] {
            let message = read(&format!("{base}{more}")).unwrap_err();
            assert!(message.contains(part), "{more}: {message}");
        }
    }

    #[test]
    fn a_controller_that_is_no_http_address_is_refused() {
        for url in [
            "10.0.0.1:7070",
            "ftp://10.0.0.1",
            "http://a/b",
            "http://a:1/",
        ] {
            let message = read(&format!("controller = \"{url}\"\ntoken = \"s\"")).unwrap_err();
            assert!(
                message.contains("https://10.0.0.1:7070"),
                "{url}: {message}"
            );
        }
    }

    #[test]
    fn the_address_of_the_controller_says_what_goes_over_the_wire() {
        for (controller, tls, expected, is_told) in [
            ("https://10.0.0.1:7070", "", Mode::On, false),
            ("https://ctl.example", "tls = \"on\"", Mode::On, false),
            ("http://127.0.0.1:7070", "", Mode::On, false),
            ("http://[::1]:7070", "tls = \"on\"", Mode::On, false),
            ("http://localhost:7070", "tls = \"off\"", Mode::Off, false),
            ("http://10.0.0.1:7070", "", Mode::Off, true),
            ("http://10.0.0.1:7070", "tls = \"off\"", Mode::Off, false),
        ] {
            let settings = read(&format!(
                "controller = \"{controller}\"\ntoken = \"s\"\n{tls}"
            ));
            let settings = settings.unwrap();
            assert_eq!(settings.wire(), expected, "{controller} {tls}");
            let told = settings.plain_wire();
            assert_eq!(told.is_some(), is_told, "{controller} {tls}");
            assert!(told.is_none_or(|told| told.contains("https://10.0.0.1:7070")));
        }
        let message = read("controller = \"https://a\"\ntoken = \"s\"\ntls = \"off\"").unwrap_err();
        assert!(message.contains("write http:// there"), "{message}");
    }

    #[test]
    fn without_the_authoritys_certificate_there_is_no_tls() {
        let directory = tempfile::tempdir().unwrap();
        let (ca, file) = (
            directory.path().join("ca.pem"),
            directory.path().join("agent.toml"),
        );
        let load = |controller: &str| {
            let text = format!("controller = \"{controller}\"\ntoken = \"s\"\nca_file = {ca:?}");
            fs::write(&file, text).unwrap();
            Settings::load(&file).map_err(|error| error.to_string())
        };
        let message = load("https://10.0.0.1:7070").unwrap_err();
        assert!(
            message.contains("copy the controller's /etc/tucano/ca.pem"),
            "{message}"
        );
        for plain in ["http://10.0.0.1:7070", "http://127.0.0.1:7070"] {
            assert!(load(plain).unwrap().trust.is_none());
        }
        let authority = tucano_tls::Authority::open(&directory.path().join("tls")).unwrap();
        fs::write(&ca, authority.pem()).unwrap();
        for tls in ["https://10.0.0.1:7070", "http://127.0.0.1:7070"] {
            assert!(load(tls).unwrap().trust.is_some());
        }
        fs::write(&ca, "x").unwrap();
        let message = load("https://10.0.0.1:7070").unwrap_err();
        assert!(
            message.contains("ca.pem: there is no certificate"),
            "{message}"
        );
    }

    #[test]
    fn without_a_token_only_loopback_is_listened_on() {
        let open = "controller = \"http://127.0.0.1:7070\"\n";
        let message = read(open).unwrap_err();
        assert!(message.contains("agent_token"), "{message}");
        assert!(read(&format!("{open}listen = \"127.0.0.1:7071\"")).is_ok());
    }

    #[test]
    fn a_token_is_read_from_its_file_and_never_shown() {
        let directory = tempfile::tempdir().unwrap();
        let token = directory.path().join("token");
        let file = directory.path().join("agent.toml");
        fs::write(&token, "s3cret\n").unwrap();
        let text = format!("controller = \"http://a:1\"\ntoken_file = {token:?}");
        fs::write(&file, text).unwrap();
        let settings = Settings::load(&file).unwrap();
        assert_eq!(settings.token.as_ref().unwrap().reveal(), "s3cret");
        assert!(!format!("{settings:?}").contains("s3cret"));

        fs::write(&token, " \n").unwrap();
        let message = Settings::load(&file).unwrap_err().to_string();
        assert!(message.contains("is empty"), "{message}");
        fs::remove_file(&token).unwrap();
        let message = Settings::load(&file).unwrap_err().to_string();
        assert!(message.contains("cannot read token_file"), "{message}");
    }

    /// The package's configuration. Whole: with everything that is commented out, too.
    fn packaged(whole: bool) -> Settings {
        let setting = |line: &'static str| {
            let shown = line.strip_prefix('#').filter(|rest| !rest.starts_with(' '));
            shown.filter(|_| whole).unwrap_or(line)
        };
        let lines: Vec<_> = include_str!("../../dist/agent/agent.toml")
            .lines()
            .map(setting)
            .collect();
        read(&lines.join("\n")).unwrap()
    }

    #[test]
    fn the_packages_configuration_listens_on_loopback_alone_and_has_a_token() {
        let settings = packaged(false);
        assert!(settings.listen.ip().is_loopback());
        assert!(settings.token_file.is_some());
        assert_eq!(settings.cgroup, None);
    }

    #[test]
    fn what_the_packages_configuration_shows_in_comments_is_valid_and_the_default() {
        let (settings, default) = (packaged(true), packaged(false));
        assert!(settings.ip.is_some() && settings.name.is_some());
        assert_eq!(settings.data_dir, default.data_dir);
        assert_eq!(settings.ports.to_string(), default.ports.to_string());
        assert_eq!(settings.memory_reserved, default.memory_reserved);
        assert_eq!(settings.logs.file_bytes, default.logs.file_bytes);
        assert_eq!(settings.limits.processes, default.limits.processes);
    }
}
