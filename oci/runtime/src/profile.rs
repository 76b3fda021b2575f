//! The sandbox that containers get unless someone asks for less: no capability, no new privileges, a list of allowed system
//! calls, hidden and read-only paths, and a limit on everything that a node could run out of.

mod syscalls;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use oci_spec::runtime::{LinuxSeccomp, Spec};
use rustix::process::{Resource, getrlimit};
use serde_json::{Value, json};

/// Ids that a container with a user namespace has.
pub const USER_NAMESPACE_IDS: u32 = 65_536;

/// Size of `/dev/shm` where nobody asks for another, in bytes.
pub const SHARED_MEMORY_BYTES: u64 = 64 << 20;

/// Size of `/tmp` where the root is read-only and nobody asks for another, in bytes.
pub const TMP_BYTES: u64 = 64 << 20;

/// When memory is short, the kernel takes containers before the node's own programs (proc_pid_oom_score_adj(5)).
const OOM_SCORE: i32 = 500;

/// Most files that one process may have open, unless the node itself has fewer.
pub const OPEN_FILES: u64 = 65_536;

/// Period in which a share of the CPU is counted, in microseconds.
const CPU_PERIOD_US: u64 = 100_000;

/// Smallest quota that the kernel takes, in microseconds.
const CPU_QUOTA_MIN_US: u64 = 1_000;

/// Hidden: hardware, and what tells about the node or its neighbours.
const MASKED: [&str; 13] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
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

/// Each CPU that tells its heat does so in a directory below its own.
const CPUS: &str = "/sys/devices/system/cpu";
const HEAT: &str = "thermal_throttle";

/// Readable: the kernel's settings.
const READ_ONLY: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

/// Why a sandbox cannot be described.
#[derive(Debug, thiserror::Error)]
#[error("the sandbox's specification cannot be made: {0}")]
pub struct Error(#[from] serde_json::Error);

/// What a sandbox is made for.
#[derive(Debug, Clone, Default)]
pub struct Sandbox {
    /// Program and arguments.
    pub args: Vec<String>,
    /// `NAME=value` each.
    pub env: Vec<String>,
    /// Working directory; made where missing. `/` where empty.
    pub cwd: String,
    /// Host name inside.
    pub hostname: String,
    /// Most memory, in bytes; no swap beyond it.
    pub memory_bytes: u64,
    /// Most CPU time per time: 0.5 is half a CPU. No limit where absent.
    pub cpus: Option<f64>,
    /// Most processes and threads.
    pub pids: u32,
    /// Its cgroup, relative to the starter's own.
    pub cgroup: String,
    /// A network namespace to join, as a path; a new, empty one where absent.
    pub network: Option<PathBuf>,
    /// First of the [`USER_NAMESPACE_IDS`] host ids that it gets as its own; no user namespace where absent.
    pub user_namespace: Option<u32>,
    /// Capabilities that its root has, by their names without `CAP_`; none where empty. A program that runs as anybody else
    /// gets none of them.
    pub capabilities: Vec<String>,
    /// Whether the root file system is read-only, with a tmpfs on `/tmp`.
    pub read_only: bool,
    /// Size of that tmpfs, in bytes; [`TMP_BYTES`] where absent.
    pub tmp_bytes: Option<u64>,
    /// Size of `/dev/shm`, in bytes; [`SHARED_MEMORY_BYTES`] where absent.
    pub shared_memory_bytes: Option<u64>,
    /// Files of the host shown inside, read-only: `(on the host, inside)`.
    pub files: Vec<(PathBuf, PathBuf)>,
}

impl Sandbox {
    /// The OCI specification of it.
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
                "rlimits": limits(),
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

    /// Neither inheritable nor ambient: no program gets any by being executed (CVE-2022-29162).
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
            "resources": self.resources(),
            // A service may listen on port 80 without a capability for it.
            "sysctl": { "net.ipv4.ip_unprivileged_port_start": "0" },
            "maskedPaths": masked_here(),
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

    fn resources(&self) -> Value {
        let mut resources = json!({
            "memory": { "limit": self.memory_bytes, "swap": self.memory_bytes },
            "pids": { "limit": self.pids },
        });
        if let Some(cpus) = self.cpus {
            let quota = (cpus * CPU_PERIOD_US as f64) as u64;
            resources["cpu"] = json!({
                "quota": quota.max(CPU_QUOTA_MIN_US), "period": CPU_PERIOD_US
            });
        }
        resources
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
        mounts.extend(self.files.iter().map(|(outside, inside)| {
            json!({
                "destination": inside, "type": "bind", "source": outside,
                "options": ["bind", "ro", "nosuid", "noexec", "nodev"],
            })
        }));
        mounts.into()
    }
}

/// The system calls allowed to who has these capabilities, and the answers to some others.
pub fn seccomp(capabilities: &[String]) -> Result<LinuxSeccomp, Error> {
    // To make it anew takes longer than all else of a specification: that of most containers is made once.
    static USUAL: OnceLock<LinuxSeccomp> = OnceLock::new();
    let known = USUAL.get().filter(|_| capabilities.is_empty());
    if let Some(known) = known {
        return Ok(known.clone());
    }
    let section = serde_json::from_value(syscalls::section(capabilities))?;
    if !capabilities.is_empty() {
        return Ok(section);
    }
    Ok(USUAL.get_or_init(|| section).clone())
}

/// What is hidden on this node, which is asked once: of the CPUs that can be added to a machine that runs, none tells its heat.
fn masked_here() -> &'static [String] {
    static HERE: OnceLock<Vec<String>> = OnceLock::new();
    HERE.get_or_init(|| masked(Path::new(CPUS)))
}

/// What is hidden where the CPUs are described in this directory.
fn masked(cpus: &Path) -> Vec<String> {
    let heat = fs::read_dir(cpus)
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path().join(HEAT)))
        .filter(|path| path.is_dir())
        .map(|path| path.display().to_string());
    MASKED.map(str::to_owned).into_iter().chain(heat).collect()
}

fn mount(kind: &str, destination: &str, options: &[&str]) -> Value {
    json!({ "destination": destination, "type": kind, "source": kind, "options": options })
}

/// No core dumps, which would fill the node's disk; and not more files than this node could give.
fn limits() -> Value {
    let most = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
    let files = most.min(OPEN_FILES);
    json!([
        { "type": "RLIMIT_CORE", "soft": 0, "hard": 0 },
        { "type": "RLIMIT_NOFILE", "soft": files, "hard": files },
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::LinuxNamespaceType;

    fn sandbox() -> Sandbox {
        Sandbox {
            args: vec!["/bin/x".into()],
            memory_bytes: 1 << 20,
            cpus: Some(0.5),
            pids: 9,
            cgroup: "tucano/x".into(),
            ..Sandbox::default()
        }
    }

    #[test]
    fn nothing_is_allowed_that_was_not_asked_for() {
        let spec = sandbox().spec().unwrap();
        let process = spec.process().as_ref().unwrap();
        assert_eq!(process.no_new_privileges(), Some(true));
        let capabilities = process.capabilities().as_ref().unwrap();
        let sets = [
            capabilities.bounding(),
            capabilities.effective(),
            capabilities.permitted(),
            capabilities.inheritable(),
            capabilities.ambient(),
        ];
        assert!(sets.iter().all(|set| set.iter().flatten().next().is_none()));
        assert_eq!(process.cwd(), &PathBuf::from("/"));
        assert_eq!(process.oom_score_adj(), Some(OOM_SCORE));
    }

    #[test]
    fn capabilities_that_were_asked_for_do_not_pass_to_other_programs() {
        let asked = Sandbox {
            capabilities: vec!["CHOWN".into(), "SYS_CHROOT".into()],
            ..sandbox()
        };
        let spec = asked.spec().unwrap();
        let process = spec.process().as_ref().unwrap();
        let capabilities = process.capabilities().as_ref().unwrap();
        for set in [
            capabilities.bounding(),
            capabilities.effective(),
            capabilities.permitted(),
        ] {
            assert_eq!(set.iter().flatten().count(), 2);
        }
        for set in [capabilities.inheritable(), capabilities.ambient()] {
            assert_eq!(set.iter().flatten().count(), 0);
        }
    }

    #[test]
    fn a_read_only_root_has_a_place_for_temporary_files() {
        let mounted = |sandbox: &Sandbox, place: &str| {
            let spec = sandbox.spec().unwrap();
            let mounts = spec.mounts().clone().unwrap();
            let found = mounts
                .into_iter()
                .find(|mount| mount.destination() == Path::new(place));
            found.map(|mount| mount.options().clone().unwrap().join(","))
        };
        assert_eq!(mounted(&sandbox(), "/tmp"), None);
        assert!(
            mounted(&sandbox(), "/dev/shm")
                .unwrap()
                .contains("size=67108864")
        );
        let strict = Sandbox {
            read_only: true,
            tmp_bytes: Some(4096),
            shared_memory_bytes: Some(8192),
            ..sandbox()
        };
        assert!(mounted(&strict, "/tmp").unwrap().contains("size=4096"));
        assert!(mounted(&strict, "/dev/shm").unwrap().contains("size=8192"));
        assert_eq!(
            strict.spec().unwrap().root().as_ref().unwrap().readonly(),
            Some(true)
        );
    }

    #[test]
    fn each_cpus_heat_is_hidden() {
        let cpus = tempfile::tempdir().unwrap();
        for directory in ["cpu0/thermal_throttle", "cpu1", "power"] {
            fs::create_dir_all(cpus.path().join(directory)).unwrap();
        }
        let hidden = masked(cpus.path());
        let heat = cpus.path().join("cpu0/thermal_throttle");
        assert_eq!(hidden[MASKED.len()..], [heat.display().to_string()]);
        assert!(hidden.contains(&"/proc/kcore".to_owned()));
    }

    #[test]
    fn limits_become_resources() {
        let spec = sandbox().spec().unwrap();
        let linux = spec.linux().as_ref().unwrap();
        let resources = linux.resources().as_ref().unwrap();
        let memory = resources.memory().as_ref().unwrap();
        assert_eq!(
            (memory.limit(), memory.swap()),
            (Some(1 << 20), Some(1 << 20))
        );
        let cpu = resources.cpu().as_ref().unwrap();
        assert_eq!((cpu.quota(), cpu.period()), (Some(50_000), Some(100_000)));
        assert_eq!(resources.pids().as_ref().unwrap().limit(), 9);
    }

    #[test]
    fn a_share_too_small_for_the_kernel_is_the_smallest() {
        let tiny = Sandbox {
            cpus: Some(0.000_1),
            ..sandbox()
        };
        assert_eq!(tiny.resources()["cpu"]["quota"], CPU_QUOTA_MIN_US);
    }

    #[test]
    fn the_user_namespace_is_mapped() {
        let kinds = |spec: &Spec| -> Vec<LinuxNamespaceType> {
            let linux = spec.linux().as_ref().unwrap();
            let all = linux.namespaces().as_ref().unwrap();
            all.iter().map(|namespace| namespace.typ()).collect()
        };
        assert!(!kinds(&sandbox().spec().unwrap()).contains(&LinuxNamespaceType::User));
        let mapped = Sandbox {
            user_namespace: Some(200_000),
            ..sandbox()
        };
        let spec = mapped.spec().unwrap();
        assert!(kinds(&spec).contains(&LinuxNamespaceType::User));
        let mappings = spec
            .linux()
            .as_ref()
            .unwrap()
            .uid_mappings()
            .clone()
            .unwrap();
        assert_eq!(
            (mappings[0].host_id(), mappings[0].size()),
            (200_000, 65_536)
        );
    }
}
