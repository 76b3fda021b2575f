//! The agent's static configuration, `agent.toml`.
//!
//! - [`Settings`]: the file; [`Settings::load`] reads it and the files that it names.
//! - [`ImageSettings`], [`Logs`], [`Limits`]: its tables.

mod limits;
mod load;
mod sections;
#[cfg(test)]
mod tests;
mod token;

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Component, Path, PathBuf},
    time::Duration,
};

pub use limits::Limits;
pub use load::LoadError;
pub use sections::{BackupSettings, ImageSettings, Logs, Unpack, VolumeSettings};
use serde::Deserialize;
pub use token::Token;
use tucano_api::{
    AGENT_PORT,
    ids::NodeName,
    service::DeviceRequest,
    settings::{Problem, Validate},
    units::{Bytes, Span},
};
use tucano_tls::{CA_FILE, Mode, Trust};

use crate::{
    address::is_loopback,
    runner::{
        network::{Cidr, PortRange, Subnet},
        resolver,
    },
};

/// Default parent of the processes' cgroups.
pub const DEFAULT_CGROUP: &str = "tucano";

/// The content of `agent.toml`; absent keys have their defaults.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Address of the controller's API, such as `https://10.0.0.1:7070`.
    pub controller: String,
    /// Whether traffic with other machines is TLS; by default the scheme of `controller` decides.
    #[serde(default)]
    pub tls: Option<Mode>,
    /// The certificate of the cluster's authority.
    #[serde(default = "default_ca_file")]
    pub ca_file: PathBuf,
    /// The content of `ca_file`, where TLS is on and the file exists.
    #[serde(skip)]
    pub trust: Option<Trust>,
    /// Shared secret of the controller and its agents.
    #[serde(default)]
    pub token: Option<Token>,
    /// File with the token, instead of `token`.
    #[serde(default)]
    pub token_file: Option<PathBuf>,
    /// How long the previous token is valid after the file has changed.
    #[serde(default = "default_token_overlap")]
    pub token_overlap: Span,
    /// Directory of all files that the agent keeps.
    #[serde(default = "default_data_dir")]
    pub data_dir: PathBuf,
    /// Time between two reports when nothing changes.
    #[serde(default = "default_publish_interval")]
    pub publish_interval: Span,
    /// The node's address in the topology; by default the local address of the route to the controller.
    #[serde(default)]
    pub ip: Option<IpAddr>,
    /// The node's name in the topology; by default the controller looks the node up by `ip`.
    #[serde(default)]
    pub name: Option<NodeName>,
    /// Listening address of the agent's API.
    #[serde(default = "default_listen")]
    pub listen: SocketAddr,
    /// Subnet of the processes' network.
    #[serde(default)]
    pub subnet: Subnet,
    /// Name of the bridge that connects the processes.
    #[serde(default = "default_bridge")]
    pub bridge: String,
    /// Ports of the node that are forwarded to processes.
    #[serde(default)]
    pub ports: PortRange,
    /// Further clients of node ports, as addresses or ranges; the cluster's machines always are.
    #[serde(default)]
    pub node_port_clients: BTreeSet<Cidr>,
    /// How long another node may not answer before connections to its processes go to other nodes; 0 for ever.
    #[serde(default = "default_suspect_after")]
    pub suspect_after: Span,
    /// Name servers of processes; by default those of the node that are reachable from a container.
    #[serde(default)]
    pub dns: Vec<Ipv4Addr>,
    /// Parent of the processes' cgroups: relative to the agent's own cgroup, or with a leading slash to the hierarchy's root.
    #[serde(default)]
    pub cgroup: Option<String>,
    /// Memory that is not available to processes.
    #[serde(default = "default_memory_reserved")]
    pub memory_reserved: Bytes,
    /// Memory that the controller may reserve for processes; by default the total less `memory_reserved`.
    #[serde(default)]
    pub memory_reservable: Option<Bytes>,
    /// Layers and blobs that no process used for this long are removed.
    #[serde(default = "default_unused_images_kept")]
    pub unused_images_kept: Span,
    /// How long a starting agent waits for the controller before it starts processes of the stored desired set.
    #[serde(default = "default_controller_wait")]
    pub controller_wait: Span,
    /// Whether services get their `caps` on a node without user namespaces, where these capabilities apply to the node itself.
    #[serde(default)]
    pub caps_without_user_namespaces: bool,
    /// Directories of the node that services may have in their containers, with all below them.
    #[serde(default)]
    pub host_paths: Vec<PathBuf>,
    /// Directories whose files describe devices for containers (Container Device Interface); of two descriptions of a device the later
    /// directory's counts.
    #[serde(default = "default_cdi_dirs")]
    pub cdi_dirs: Vec<PathBuf>,
    /// Device nodes that services may have in their containers.
    #[serde(default)]
    pub device_paths: Vec<PathBuf>,
    /// Directories of the node that may have repositories of backups, with all below them.
    #[serde(default)]
    pub backup_paths: Vec<PathBuf>,
    /// Path of the container runtime; by default `tucano_oci` beside `tucano_agentd`.
    #[serde(default)]
    pub runtime: Option<PathBuf>,
    /// Retention of the processes' output.
    #[serde(default)]
    pub logs: Logs,
    /// Storage of images.
    #[serde(default)]
    pub images: ImageSettings,
    /// The volumes of services.
    #[serde(default)]
    pub volumes: VolumeSettings,
    /// Backups of volumes.
    #[serde(default)]
    pub backups: BackupSettings,
    /// All other limits.
    #[serde(default)]
    pub limits: Limits,
}

impl Settings {
    /// Whether traffic with other machines is TLS.
    pub fn tls_mode(&self) -> Mode {
        let is_plain = self.controller.starts_with("http:") && !is_loopback(&self.controller);
        let default = if is_plain { Mode::Off } else { Mode::On };
        self.tls.unwrap_or(default)
    }

    /// A warning where traffic is plain HTTP without an explicit `tls = "off"`.
    pub fn plaintext_warning(&self) -> Option<String> {
        let is_explicit = self.tls.is_some() || self.tls_mode() == Mode::On;
        (!is_explicit).then(|| {
            format!(
                "traffic between this node and the controller is plain HTTP: set controller = {:?} and ca_file in agent.toml, or \
                 tls = \"off\" where the network is protected otherwise",
                self.controller.replacen("http:", "https:", 1)
            )
        })
    }

    /// Time limit of one report.
    pub fn report_timeout(&self) -> Duration {
        self.publish_interval.0.max(Duration::from_secs(1))
    }
}

impl Validate for Settings {
    fn problems(&self) -> Vec<Problem> {
        let checks = [
            check_controller(&self.controller),
            self.check_tls(),
            self.check_token(),
            self.check_bridge(),
            self.check_cgroup(),
            self.check_dns(),
            self.check_volumes(),
        ];
        let mut problems: Vec<Problem> = checks.into_iter().filter_map(Result::err).collect();
        if !(Span::millis(50)..=Span::secs(3600)).contains(&self.publish_interval) {
            problems.push(Problem::new(
                "publish_interval",
                "write a duration from 50ms to 1h",
            ));
        }
        let suspect_after = self.suspect_after;
        let is_off = suspect_after == Span::default();
        if !is_off && !(Span::millis(100)..=Span::secs(60)).contains(&suspect_after) {
            problems.push(Problem::new(
                "suspect_after",
                "write a duration from 100ms to 1m, or \"0s\" to suspect no node",
            ));
        }
        if !self.data_dir.is_absolute() {
            problems.push(Problem::new(
                "data_dir",
                "write an absolute path, such as \"/var/lib/tucano/agent\"",
            ));
        }
        if self.images.check_again < Span::secs(1) {
            problems.push(Problem::new(
                "images.check_again",
                "write a duration of at least 1s",
            ));
        }
        if self.logs.files == 0 || self.logs.file_bytes < Bytes(4096) {
            problems.push(Problem::new(
                "logs",
                "keep at least 1 file of at least 4KiB",
            ));
        }
        problems.extend(path_problems("host_paths", &self.host_paths, "/srv/media"));
        problems.extend(path_problems("cdi_dirs", &self.cdi_dirs, "/etc/cdi"));
        let is_node = |path: &&PathBuf| {
            path.to_string_lossy()
                .parse()
                .is_ok_and(|it| matches!(it, DeviceRequest::Node(_)))
        };
        if let Some(wrong) = self.device_paths.iter().find(|path| !is_node(path)) {
            let message =
                format!("{wrong:?} is not usable: write device nodes, such as \"/dev/fuse\"");
            problems.push(Problem::new("device_paths", message));
        }
        problems.extend(path_problems(
            "backup_paths",
            &self.backup_paths,
            "/srv/backups",
        ));
        problems.extend(self.backups.problems());
        problems.extend(self.limits.problems());
        problems
    }
}

impl Settings {
    /// The directory of the volumes.
    pub fn volumes_path(&self) -> PathBuf {
        let configured = self.volumes.path.clone();
        configured.unwrap_or_else(|| self.data_dir.join("volumes"))
    }

    fn check_volumes(&self) -> Result<(), Problem> {
        match &self.volumes.path {
            Some(path) if !is_plain(path) => {
                let message =
                    "write an absolute path without `.` and `..`, such as \"/srv/tucano-volumes\"";
                Err(Problem::new("volumes.path", message))
            }
            _ => Ok(()),
        }
    }

    fn check_tls(&self) -> Result<(), Problem> {
        let is_tls = self.controller.starts_with("https:");
        let message = match self.tls {
            Some(Mode::On) if !is_tls && !is_loopback(&self.controller) => {
                "is \"on\" but the URL of controller begins with http://: write https:// there"
            }
            Some(Mode::Off) if is_tls => {
                "is \"off\" but the URL of controller begins with https://: write http:// there, or remove this key"
            }
            _ => return Ok(()),
        };
        Err(Problem::new("tls", message).depending_on("controller"))
    }

    fn check_token(&self) -> Result<(), Problem> {
        match (&self.token, &self.token_file) {
            (Some(_), Some(_)) => Err(Problem::new(
                "token_file",
                "give either token or token_file, not both",
            )),
            (Some(token), None) if !token.is_valid() => Err(Problem::new(
                "token",
                "write at least one character, without spaces",
            )),
            (None, None) if !self.listen.ip().is_loopback() => Err(Problem::new(
                "token",
                "is missing: set it to the controller's agent_token, or listen on loopback only",
            )
            .depending_on("token_file")
            .depending_on("listen")),
            _ => Ok(()),
        }
    }

    fn check_dns(&self) -> Result<(), Problem> {
        let unusable = self.dns.iter().find(|ip| !resolver::is_usable(**ip));
        if let Some(ip) = unusable {
            let message = format!(
                "{ip} is not reachable from a container, which has a loopback interface of its own"
            );
            return Err(Problem::new("dns", message));
        }
        if self.dns.len() > 3 {
            return Err(Problem::new("dns", "write at most 3 addresses"));
        }
        Ok(())
    }

    fn check_bridge(&self) -> Result<(), Problem> {
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
        Ok(())
    }

    fn check_cgroup(&self) -> Result<(), Problem> {
        match &self.cgroup {
            Some(path) => check_cgroup(path).map_err(|advice| Problem::new("cgroup", advice)),
            None => Ok(()),
        }
    }
}

fn path_problems(key: &str, paths: &[PathBuf], example: &str) -> Vec<Problem> {
    let wrong = paths
        .iter()
        .filter(|path| !is_plain(path) || path.parent().is_none());
    let problems = wrong.map(|path| {
        let message = format!(
            "{path:?} is not usable: write absolute paths below the root, without `.` and `..`, such as {example:?}"
        );
        Problem::new(key, message)
    });
    problems.collect()
}

/// Whether a path is absolute and leads nowhere but down.
fn is_plain(path: &Path) -> bool {
    let down = |part: Component<'_>| matches!(part, Component::RootDir | Component::Normal(_));
    path.is_absolute() && path.components().all(down) && !path.as_os_str().is_empty()
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

/// Accepts the characters of systemd's unit names, and no parent directory.
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

fn default_ca_file() -> PathBuf {
    CA_FILE.into()
}
fn default_token_overlap() -> Span {
    Span::secs(24 * 3600)
}

/// Where the specification has them: the second is for those that are written at each boot.
fn default_cdi_dirs() -> Vec<PathBuf> {
    vec!["/etc/cdi".into(), "/var/run/cdi".into()]
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
fn default_suspect_after() -> Span {
    Span::millis(600)
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
