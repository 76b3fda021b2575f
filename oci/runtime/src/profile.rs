//! The default sandbox of containers: no capabilities, no_new_privs, a list of allowed system calls, masked and
//! read-only paths, and a limit for every resource that a node could run out of.

mod syscalls;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use oci_spec::runtime::{LinuxSeccomp, Spec};
use rustix::process::{Resource, getrlimit};
use serde_json::{Value, json};

use crate::container::mounts::options::DIRECT_SOURCE;

/// Number of ids in a container's user namespace.
pub const USER_NAMESPACE_IDS: u32 = 65_536;

/// Default size of `/dev/shm` in bytes.
pub const SHARED_MEMORY_BYTES: u64 = 64 << 20;

/// Default size of `/tmp` on a read-only root, in bytes.
pub const TMP_BYTES: u64 = 64 << 20;

/// The OOM killer prefers containers to the node's own programs (proc_pid_oom_score_adj(5)).
const OOM_SCORE: i32 = 500;

/// Limit of open files per process, unless the node's own limit is lower.
pub const OPEN_FILES: u64 = 65_536;

/// Limit of queued signals and POSIX timers of a user, unless the node's own limit is lower.
const PENDING_SIGNALS: u64 = 16_384;

/// Limit of the POSIX message queues of a user in bytes: the kernel's default.
const MESSAGE_QUEUE_BYTES: u64 = 819_200;

/// Period of the CPU quota in microseconds.
const CPU_PERIOD_US: u64 = 100_000;

/// Smallest quota that the kernel accepts, in microseconds.
const CPU_QUOTA_MIN_US: u64 = 1_000;

/// Masked paths: hardware, and information about the node or other containers.
const MASKED: [&str; 16] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/config.gz",
    "/proc/interrupts",
    "/proc/iomem",
    "/proc/kallsyms",
    "/proc/kcore",
    "/proc/keys",
    "/proc/kmsg",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

/// CPUs with a thermal sensor have a directory for its events.
const CPUS: &str = "/sys/devices/system/cpu";
const THERMAL: &str = "thermal_throttle";

/// Read-only paths: kernel settings.
const READ_ONLY: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// Why a specification cannot be built.
#[derive(Debug, thiserror::Error)]
#[error("the sandbox's specification cannot be made: {0}")]
pub struct Error(#[from] serde_json::Error);

/// Parameters of a sandbox.
#[derive(Debug, Clone, Default)]
pub struct Sandbox {
    /// Program and arguments.
    pub args: Vec<String>,
    /// `NAME=value` each.
    pub env: Vec<String>,
    /// Working directory, created if missing; `/` if empty.
    pub cwd: String,
    /// Host name.
    pub hostname: String,
    /// Memory limit in bytes; swap is not available beyond it.
    pub memory_bytes: u64,
    /// CPU limit: 0.5 is half a CPU. Unlimited if absent.
    pub cpus: Option<f64>,
    /// Limit of processes and threads.
    pub pids: u32,
    /// Limits of resources, in place of the usual ones.
    pub limits: Vec<ResourceLimit>,
    /// Kernel settings of its own namespaces, beside the usual ones or in their place.
    pub sysctls: BTreeMap<String, String>,
    /// Cgroup, relative to the starter's own.
    pub cgroup: String,
    /// Path of a network namespace to join; a new, empty one if absent.
    pub network: Option<PathBuf>,
    /// First of the [`USER_NAMESPACE_IDS`] host ids of its user namespace; no user namespace if absent.
    pub user_namespace: Option<u32>,
    /// Capabilities of its root user, without `CAP_`. Programs that run as other users get none.
    pub capabilities: Vec<String>,
    /// Read-only root file system, with a tmpfs on `/tmp`.
    pub read_only: bool,
    /// Size of that tmpfs in bytes; [`TMP_BYTES`] if absent.
    pub tmp_bytes: Option<u64>,
    /// Size of `/dev/shm` in bytes; [`SHARED_MEMORY_BYTES`] if absent.
    pub shared_memory_bytes: Option<u64>,
    /// File systems in memory: their paths in the container, and their sizes in bytes.
    pub tmpfs: Vec<(PathBuf, u64)>,
    /// Directories of the host to mount.
    pub directories: Vec<HostDirectory>,
    /// Files of the host to mount read-only.
    pub files: Vec<HostFile>,
}

/// A limit of a resource of each program (setrlimit(2)); `None` is unlimited.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResourceLimit {
    /// Its name in capitals, without `RLIMIT_`.
    pub name: String,
    /// What holds.
    pub soft: Option<u64>,
    /// Up to what a program may raise it.
    pub hard: Option<u64>,
}

/// A file of the host that a container sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostFile {
    /// Its path on the host.
    pub source: PathBuf,
    /// Its path in the container.
    pub destination: PathBuf,
    /// Whether it can be executed there.
    pub is_executable: bool,
}

/// A directory of the host that a container sees. Its files have the ids of the container: with a user namespace the ids are mapped
/// by the mount, and the files stay as they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostDirectory {
    /// Its path on the host, without symbolic links: one that is there at the start is not followed.
    pub source: PathBuf,
    /// Its path in the container.
    pub destination: PathBuf,
    /// Whether nothing can be written to it there.
    pub is_read_only: bool,
}

impl Sandbox {
    /// Builds the OCI specification.
    pub fn spec(&self) -> Result<Spec, Error> {
        let cwd = if self.cwd.is_empty() { "/" } else { &self.cwd };
        let spec = json!({
            "ociVersion": "1.2.0",
            "hostname": self.hostname,
            "root": { "path": "rootfs", "readonly": self.read_only },
            "process": {
                "user": { "uid": 0, "gid": 0 },
                "args": self.args,
                "env": self.env,
                "cwd": cwd,
                "capabilities": self.capabilities(),
                "oomScoreAdj": OOM_SCORE,
                "noNewPrivileges": true,
                "rlimits": limits(&self.limits),
            },
            "mounts": self.mounts(),
            "linux": self.linux(),
        });
        let mut spec: Spec = serde_json::from_value(spec)?;
        if let Some(linux) = spec.linux_mut() {
            linux.set_seccomp(Some(seccomp(&self.capabilities)?));
        }
        Ok(spec)
    }

    /// Neither inheritable nor ambient: executing a file never grants capabilities (CVE-2022-29162).
    fn capabilities(&self) -> Value {
        if self.capabilities.is_empty() {
            return json!({});
        }
        let names = self.capabilities.iter().map(|name| format!("CAP_{name}"));
        let names: Vec<_> = names.collect();
        json!({ "bounding": names, "effective": names, "permitted": names })
    }

    fn linux(&self) -> Value {
        let mut linux = json!({
            "cgroupsPath": self.cgroup,
            "namespaces": self.namespaces(),
            "resources": resources(self.memory_bytes, self.cpus, self.pids),
            "sysctl": self.sysctls(),
            "maskedPaths": masked_paths(),
            "readonlyPaths": READ_ONLY,
        });
        if let Some(base) = self.user_namespace {
            let mapping = json!([{
                "containerID": 0, "hostID": base, "size": USER_NAMESPACE_IDS
            }]);
            linux["uidMappings"] = mapping.clone();
            linux["gidMappings"] = mapping;
        }
        linux
    }

    fn sysctls(&self) -> BTreeMap<&str, &str> {
        let usual = [
            // Services may listen on ports below 1024 without a capability.
            ("net.ipv4.ip_unprivileged_port_start", "0"),
            // Every group may ping, by sockets that send echo requests alone (icmp(7)).
            ("net.ipv4.ping_group_range", "0 2147483647"),
        ];
        let own = self.sysctls.iter();
        let own = own.map(|(name, value)| (name.as_str(), value.as_str()));
        usual.into_iter().chain(own).collect()
    }

    fn namespaces(&self) -> Value {
        let mut all: Vec<Value> = ["pid", "mount", "ipc", "uts", "cgroup"]
            .map(|kind| json!({ "type": kind }))
            .into();
        all.push(match &self.network {
            Some(path) => json!({ "type": "network", "path": path }),
            None => json!({ "type": "network" }),
        });
        all.extend(self.user_namespace.map(|_| json!({ "type": "user" })));
        all.into()
    }

    fn mounts(&self) -> Value {
        let size = |wanted: Option<u64>, usual| format!("size={}", wanted.unwrap_or(usual));
        let shared_memory = size(self.shared_memory_bytes, SHARED_MEMORY_BYTES);
        let mut mounts = vec![
            mount("proc", "/proc", &["nosuid", "noexec", "nodev"]),
            mount(
                "tmpfs",
                "/dev",
                &["nosuid", "strictatime", "mode=755", "size=65536k"],
            ),
            mount(
                "devpts",
                "/dev/pts",
                &[
                    "nosuid",
                    "noexec",
                    "newinstance",
                    "ptmxmode=0666",
                    "mode=0620",
                    "gid=5",
                ],
            ),
            mount(
                "tmpfs",
                "/dev/shm",
                &["nosuid", "noexec", "nodev", "mode=1777", &shared_memory],
            ),
            mount("mqueue", "/dev/mqueue", &["nosuid", "noexec", "nodev"]),
            mount("sysfs", "/sys", &["nosuid", "noexec", "nodev", "ro"]),
            mount(
                "cgroup",
                "/sys/fs/cgroup",
                &["nosuid", "noexec", "nodev", "relatime", "ro"],
            ),
        ];
        if self.read_only {
            let size = size(self.tmp_bytes, TMP_BYTES);
            let options = ["nosuid", "nodev", "mode=1777", &size];
            mounts.push(mount("tmpfs", "/tmp", &options));
        }
        mounts.extend(self.tmpfs.iter().map(|(path, bytes)| {
            json!({
                "destination": path, "type": "tmpfs", "source": "tmpfs",
                "options": ["nosuid", "nodev", "noexec", "mode=1777", format!("size={bytes}")],
            })
        }));
        mounts.extend(self.directories.iter().map(|directory| {
            let mut options = vec!["bind", "private", "nosuid", "nodev", DIRECT_SOURCE];
            options.extend(directory.is_read_only.then_some("ro"));
            options.extend(self.user_namespace.map(|_| "idmap"));
            json!({
                "destination": directory.destination, "type": "bind", "source": directory.source, "options": options,
            })
        }));
        mounts.extend(self.files.iter().map(|file| {
            let mut options = vec!["bind", "ro", "nosuid", "nodev"];
            options.extend((!file.is_executable).then_some("noexec"));
            json!({
                "destination": file.destination, "type": "bind", "source": file.source, "options": options,
            })
        }));
        mounts.into()
    }
}

/// The limits of a sandbox: memory in bytes, CPUs, and processes and threads.
pub(crate) fn resources(memory_bytes: u64, cpus: Option<f64>, pids: u32) -> Value {
    let mut resources = json!({
        "memory": { "limit": memory_bytes, "swap": memory_bytes },
        "pids": { "limit": pids },
    });
    if let Some(cpus) = cpus {
        let quota = (cpus * CPU_PERIOD_US as f64) as u64;
        resources["cpu"] = json!({
            "quota": quota.max(CPU_QUOTA_MIN_US), "period": CPU_PERIOD_US
        });
    }
    resources
}

/// The seccomp section for a process with these capabilities.
pub fn seccomp(capabilities: &[String]) -> Result<LinuxSeccomp, Error> {
    // Building it takes longer than the rest of a specification, so the one without capabilities is cached.
    static CACHED: OnceLock<LinuxSeccomp> = OnceLock::new();
    let known = CACHED.get().filter(|_| capabilities.is_empty());
    if let Some(known) = known {
        return Ok(known.clone());
    }
    let section = serde_json::from_value(syscalls::section(capabilities))?;
    if !capabilities.is_empty() {
        return Ok(section);
    }
    Ok(CACHED.get_or_init(|| section).clone())
}

/// Masked paths of this node, determined once: CPUs that are added later have no thermal events.
fn masked_paths() -> &'static [String] {
    static CACHED: OnceLock<Vec<String>> = OnceLock::new();
    CACHED.get_or_init(|| masked(Path::new(CPUS)))
}

/// Masked paths, for CPUs described in this directory.
fn masked(cpus: &Path) -> Vec<String> {
    let thermal = fs::read_dir(cpus)
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path().join(THERMAL)))
        .filter(|path| path.is_dir())
        .map(|path| path.display().to_string());
    MASKED
        .map(str::to_owned)
        .into_iter()
        .chain(thermal)
        .collect()
}

fn mount(kind: &str, destination: &str, options: &[&str]) -> Value {
    json!({ "destination": destination, "type": kind, "source": kind, "options": options })
}

/// No core dumps, which would fill the node's disk, and no more open files than the node allows.
fn limits(own: &[ResourceLimit]) -> Value {
    let most = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
    let files = most.min(OPEN_FILES);
    let most = getrlimit(Resource::Sigpending).maximum.unwrap_or(u64::MAX);
    let signals = most.min(PENDING_SIGNALS);
    let usual = [
        ("CORE", 0),
        ("NOFILE", files),
        ("SIGPENDING", signals),
        ("MSGQUEUE", MESSAGE_QUEUE_BYTES),
    ];
    let is_own = |name: &str| own.iter().any(|limit| limit.name == name);
    let usual = usual.into_iter().filter(|(name, _)| !is_own(name));
    let usual = usual.map(|(name, most)| (name, most, most));
    let own = own.iter().map(|limit| {
        let most = |amount: Option<u64>| amount.unwrap_or(u64::MAX);
        (limit.name.as_str(), most(limit.soft), most(limit.hard))
    });
    let all = usual.chain(own).map(|(name, soft, hard)| {
        json!({ "type": format!("RLIMIT_{name}"), "soft": soft, "hard": hard })
    });
    all.collect()
}

#[cfg(test)]
mod tests;
