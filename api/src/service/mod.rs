//! The static configuration of a service.
//!
//! - [`ConfigFile`]: its configuration files;
//! - [`Mount`]: what is mounted into its containers; [`Volume`]: what of it outlives them, and its [`Backup`];
//! - `needs`: the services that its processes may reach;
//! - [`SecretRef`]: its secrets; [`DeviceRequest`]: its devices;
//! - [`Port`]: on which ports they listen; [`Placement`]: which workers they may be on;
//! - [`Health`]: how its processes are probed;
//! - [`job`]: jobs and hooks, which end;
//! - [`Effect`]: what a change of a field means for running processes;
//! - `validate`: which values are accepted, and which make sense together.

pub mod backup;
mod changes;
pub mod device;
pub mod file;
mod health;
pub mod job;
pub mod mount;
pub mod needs;
pub mod placement;
pub mod port;
pub mod process;
pub mod secret;
mod targets;
#[cfg(test)]
mod tests;
mod validate;
pub mod volume;

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use backup::Backup;
pub use changes::{EFFECTS, Effect, effect_of};
pub use device::{AssignedDevice, DeviceRequest, NodeDevices};
pub use file::ConfigFile;
pub use health::{Health, ImageHealth, Probe};
pub use job::{Hook, Kind, Overlap};
pub use mount::Mount;
pub use placement::{Labels, Placement, lacks};
pub use port::{NamedPort, Port, PortHealth, Ports, Protocol};
pub use process::Ulimit;
pub use secret::SecretRef;
pub use targets::is_at_or_below;
pub use volume::Volume;

use crate::{
    capabilities::Capabilities,
    ids::{AppName, Digest, ServiceName},
    units::{Bytes, Span},
};

/// Most processes that one service may have.
pub const MAX_CONCURRENCY: u32 = 10_000;

/// Processes and threads of a container, unless `pids` says otherwise.
pub const DEFAULT_PIDS: u32 = 512;

/// The keys that an agent may not know, since the first version's did not. Agents report those that they know.
pub const AGENT_KEYS: [&str; 18] = [
    "init",
    "file",
    "mount",
    "volume",
    "secret",
    "mount.image",
    "ports",
    NEEDS_KEY,
    "kind",
    "entrypoint",
    "working_dir",
    "hostname",
    "stop_signal",
    "ulimits",
    "sysctls",
    "extra_hosts",
    "dns",
    "devices",
];

/// The key of [`ServiceConfig::needs`], which an agent does not report where its node cannot connect services.
pub const NEEDS_KEY: &str = "needs";

/// Size of a container's `/dev/shm`, unless `shm_size` says otherwise.
pub const DEFAULT_SHM: Bytes = Bytes::mib(64);

/// Size of `/tmp` of a container whose root is read-only, unless `tmp_size` says otherwise.
pub const DEFAULT_TMP: Bytes = Bytes::mib(64);

/// What the sysadmin writes to run a service. Immutable once it is part of a revision.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ServiceConfig {
    /// Unique name; also its host name below the balancer's domain.
    pub name: ServiceName,
    /// The application that it belongs to; none where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app: Option<AppName>,
    /// Whether its processes are kept alive, or run to completion. Only workers whose agents know this key run jobs.
    #[serde(default, skip_serializing_if = "Kind::is_service")]
    pub kind: Kind,
    /// How many processes are kept alive: 1 to 10,000. Absent (0) with `placement.everywhere` and for a job, and with nothing else.
    #[serde(default)]
    pub concurrency: u32,
    /// `sha256:…`, `name:tag` or `name@sha256:…` of an image that the controller already stores, `host[:port]/name:tag` or
    /// `…@sha256:…` of one in another registry that it knows, or, for the command line and for requests that carry the image
    /// themselves, the archive's file name, or the name of an image within it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// TCP port on which each process listens for HTTP, inside its own network namespace: 1 to 65535. Short for `ports.http`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Further ports, by name, or all of them. A service without ports gets no connections. Only workers whose agents know this
    /// key run a service that has it, or no port.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub ports: Ports,
    /// Host names that the balancer routes to this service, beside `<name>.<domain>`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
    /// Only requests whose path begins with this (on a `/` boundary) are routed to this service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_prefix: Option<String>,
    /// Environment of each process, beside the image's own.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// For the command line, which adds their variables to `env`: files of `NAME=value`, relative to the configuration.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env_file: Vec<String>,
    /// Program and first arguments in place of the image's `Entrypoint`, whose `Cmd` is not used then. Only workers whose agents
    /// know this key run the service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    /// Arguments in place of the image's `Cmd`; its `Entrypoint` stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub args: Option<Vec<String>>,
    /// `user`, `uid`, `user:group` or `uid:gid` in place of the image's `User`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Working directory in place of the image's; created if it is missing. Only workers whose agents know this key run the service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
    /// Host name of each container; the process's id when absent. Only workers whose agents know this key run the service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// Signal that asks a process to end, in place of the image's; SIGTERM where neither says. Only workers whose agents know
    /// this key run the service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
    /// Limits of resources of each program, by name: `nofile`, `memlock` and others. Only workers whose agents know this key run the
    /// service.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(value_type = BTreeMap<String, u64>)]
    pub ulimits: BTreeMap<String, Ulimit>,
    /// Kernel settings of the container's own namespaces. Only workers whose agents know this key run the service.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sysctls: BTreeMap<String, String>,
    /// Names and addresses in each container's `/etc/hosts`. Only workers whose agents know this key run the service.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(value_type = BTreeMap<String, String>)]
    pub extra_hosts: BTreeMap<String, IpAddr>,
    /// Name servers in place of the node's. Only workers whose agents know this key run the service.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub dns: Vec<Ipv4Addr>,
    /// Memory limit of each process; also what it reserves on its node.
    #[serde(default = "default_memory")]
    pub memory: Bytes,
    /// How much each process may write to its own file system.
    #[serde(default = "default_disk")]
    pub disk: Bytes,
    /// How many CPUs' time each process may use, such as `0.5`; unlimited when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpus: Option<f64>,
    /// How many CPUs each process reserves on its node, such as `0.5`; none when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpus_reserved: Option<f64>,
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
    /// Whether an init is the container's first process: it reaps processes whose parent has ended, forwards signals to the
    /// image's program, and ends with it. Only workers whose agents know this key run the service.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub init: bool,
    /// Text files that are mounted read-only into each container. Only workers whose agents know this key run the service.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub file: Vec<ConfigFile>,
    /// What is mounted into each container. Only workers whose agents know this key run the service.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mount: Vec<Mount>,
    /// Devices of the worker that each container has: `nvidia.com/gpu=1` for one of a kind, `nvidia.com/gpu=NAME` for a certain one,
    /// `/dev/…` for a device node. Only workers whose agents know this key run the service.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub devices: Vec<DeviceRequest>,
    /// File systems of each slot that outlive its processes. Only workers whose agents know this key run the service.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volume: Vec<Volume>,
    /// Secrets of each process. Only workers whose agents know this key run the service.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secret: Vec<SecretRef>,
    /// Services that its processes may reach, each by its name, and no others. Only workers that can connect services run the
    /// service.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub needs: Vec<ServiceName>,
    /// Whether connections to its address go to a process on the same worker, where there is one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub nearest: bool,
    /// Services that must have a healthy process before the first process of this one is started.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub start_after: Vec<ServiceName>,
    /// Size of `/dev/shm`, which counts as memory: 64 MiB where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shm_size: Option<Bytes>,
    /// Which workers its processes may be on.
    #[serde(default, skip_serializing_if = "Placement::is_default")]
    pub placement: Placement,
    /// How a process is found healthy; a TCP connect to `port` when absent.
    #[serde(default)]
    pub health: Health,
    /// How long a process that gets no new requests may finish those in flight, at most; the controller's `drain` when
    /// absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain: Option<Span>,
    /// How long a process may take to end after SIGTERM before SIGKILL.
    #[serde(default = "default_stop_timeout")]
    pub stop_timeout: Span,
    /// How often processes of a job's run may fail before the run has failed: 0 where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retries: Option<u32>,
    /// How long a run of a job may take; unlimited where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Span>,
    /// How many processes of a job's run there are at once, at most: 1 where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parallelism: Option<u32>,
    /// How many processes of a job's run have to succeed: 1 where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completions: Option<u32>,
    /// When a job runs, as crontab(5) has it, such as `0 3 * * *`; only when asked to where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<String>,
    /// The time zone of `schedule`, by its name in the IANA database: UTC where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timezone: Option<String>,
    /// What happens at a tick while an earlier run has not ended: `skip` where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overlap: Option<Overlap>,
    /// How late a tick may be and is still run: an hour where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub catch_up: Option<Span>,
    /// What runs once per revision before its first process is started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Hook>,
    /// What runs once per revision after its rollout is complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Hook>,
}

impl ServiceConfig {
    /// The stored image that `image` names, where it is a digest.
    pub fn image_digest(&self) -> Option<Digest> {
        self.image.as_deref()?.parse().ok()
    }

    /// The configuration as agents need it: an agent of an earlier version refuses keys that it does not know.
    pub fn for_agents(&self) -> Self {
        Self {
            app: None,
            env_file: Vec::new(),
            // An agent refuses 0, except of a job, which has no processes that are kept alive.
            concurrency: match self.placement.everywhere {
                true => 1,
                false => self.concurrency,
            },
            cpus_reserved: None,
            placement: Placement::default(),
            drain: None,
            start_after: Vec::new(),
            health: self.health.for_agents(),
            nearest: false,
            volume: self.volume.iter().map(Volume::for_agents).collect(),
            ..self.without_runs()
        }
    }

    /// The keys of this configuration that agents of the first version do not know, of [`AGENT_KEYS`].
    pub fn agent_keys(&self) -> impl Iterator<Item = &'static str> {
        let used = [
            self.init,
            !self.file.is_empty(),
            !self.mount.is_empty(),
            !self.volume.is_empty(),
            !self.secret.is_empty(),
            self.mount.iter().any(|mount| mount.image.is_some()),
            !self.ports.is_empty() || self.port.is_none(),
            !self.needs.is_empty(),
            self.is_job(),
            self.entrypoint.is_some(),
            self.working_dir.is_some(),
            self.hostname.is_some(),
            self.stop_signal.is_some(),
            !self.ulimits.is_empty(),
            !self.sysctls.is_empty(),
            !self.extra_hosts.is_empty(),
            !self.dns.is_empty(),
            !self.devices.is_empty(),
        ];
        AGENT_KEYS
            .into_iter()
            .zip(used)
            .filter_map(|(key, used)| used.then_some(key))
    }

    /// Thousandths of a CPU that each process reserves.
    pub fn reserved_millicpus(&self) -> u64 {
        let cpus = self.cpus_reserved.filter(|cpus| cpus.is_finite());
        (cpus.unwrap_or(0.0).max(0.0) * 1000.0).round() as u64
    }

    /// Directories of the worker that its containers have.
    pub fn host_paths(&self) -> impl Iterator<Item = &str> {
        self.mount.iter().filter_map(|mount| mount.host.as_deref())
    }

    /// The images that are mounted into its containers, as far as they are resolved.
    pub fn mounted_images(&self) -> impl Iterator<Item = &Digest> {
        self.mount.iter().filter_map(|mount| mount.digest.as_ref())
    }

    /// In what its processes are less restricted than by default, each as `key=value`.
    pub fn relaxed(&self) -> Vec<String> {
        let caps = (!self.caps.is_empty()).then(|| format!("caps={}", self.caps));
        let pids = (self.pids > DEFAULT_PIDS).then(|| format!("pids={}", self.pids));
        let shm = self.shm_size.filter(|size| *size > DEFAULT_SHM);
        let shm = shm.map(|size| format!("shm_size={}", size.to_string().replace(' ', "")));
        let hosts = self.host_paths().map(|path| format!("host={path}"));
        let devices = self.devices.iter().map(|device| format!("device={device}"));
        let limits = [caps, pids, shm].into_iter().flatten();
        limits.chain(hosts).chain(devices).collect()
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
