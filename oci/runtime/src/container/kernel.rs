//! Per-namespace and per-process kernel settings: host name, sysctls, resource limits, OOM score.

use std::{fs, io, os::unix::fs::MetadataExt};

use oci_spec::runtime::{LinuxNamespaceType, PosixRlimitType, Process, Spec};
use rustix::process::{Resource, Rlimit};

use super::namespaces::lists;
use crate::channel::{Failure, Step};

/// Sysctls other than `net.` that are per namespace (ipc). All others would change the host.
const NAMESPACED: [&str; 9] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
    "fs.mqueue.",
];

/// Sets the names of the UTS namespace, if it is a new one.
pub(crate) fn set_names(spec: &Spec) -> Result<(), Failure> {
    if !lists(spec, LinuxNamespaceType::Uts) {
        return Ok(());
    }
    if let Some(name) = spec.hostname() {
        rustix::system::sethostname(name.as_bytes()).step("hostname")?;
    }
    if let Some(name) = spec.domainname() {
        rustix::system::setdomainname(name.as_bytes()).step("domainname")?;
    }
    Ok(())
}

/// Writes sysctls through the host's `/proc`, which the image cannot have tampered with: the writer's namespaces
/// decide which ones are changed. Called before the root is changed. `host_network` is the inode of the starter's
/// network namespace.
pub(crate) fn set_sysctls(spec: &Spec, host_network: u64) -> Result<(), Failure> {
    let sysctls = spec
        .linux()
        .as_ref()
        .and_then(|linux| linux.sysctl().as_ref());
    for (name, value) in sysctls.into_iter().flatten() {
        let step = format!("sysctl {name}");
        check(spec, name, host_network).step(&step)?;
        fs::write(format!("/proc/sys/{}", name.replace('.', "/")), value).step(&step)?;
    }
    Ok(())
}

fn check(spec: &Spec, name: &str, host_network: u64) -> Result<(), String> {
    if name.contains('/') || name.contains("..") {
        return Err("not a name of the form a.b.c".into());
    }
    if name.starts_with("net.") {
        let own = network_inode().map_err(|error| error.to_string())?;
        return if own == host_network {
            Err(
                "it would change the host: the container has no network namespace of its own"
                    .into(),
            )
        } else {
            Ok(())
        };
    }
    let namespaced = NAMESPACED
        .iter()
        .any(|known| name == *known || (known.ends_with('.') && name.starts_with(known)));
    let of_ipc = namespaced && lists(spec, LinuxNamespaceType::Ipc);
    let of_uts = name == "kernel.domainname" && lists(spec, LinuxNamespaceType::Uts);
    if of_ipc || of_uts {
        return Ok(());
    }
    Err("it would change the host: it is not of a namespace of the container's".into())
}

/// Inode of this process's network namespace.
pub(crate) fn network_inode() -> io::Result<u64> {
    Ok(fs::metadata("/proc/self/ns/net")?.ino())
}

/// Sets the OOM score. Written with CAP_SYS_RESOURCE, it is also the lowest that the container can set itself
/// (proc_pid_oom_score_adj(5)). Lowering takes that capability; a host that forbids it does not fail the start.
pub(crate) fn set_oom_score(process: &Process) -> Result<(), Failure> {
    let Some(score) = process.oom_score_adj() else {
        return Ok(());
    };
    match fs::write("/proc/self/oom_score_adj", score.to_string()) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        other => other.step("oom_score_adj"),
    }
}

/// Sets the resource limits.
pub(crate) fn set_limits(process: &Process) -> Result<(), Failure> {
    for limit in process.rlimits().iter().flatten() {
        let value = |number: u64| (number != u64::MAX).then_some(number);
        let wanted = Rlimit {
            current: value(limit.soft()),
            maximum: value(limit.hard()),
        };
        rustix::process::setrlimit(resource(limit.typ()), wanted)
            .map_err(|error| format!("{} of {}: {error}", limit.typ(), limit.hard()))
            .step("rlimits")?;
    }
    Ok(())
}

fn resource(kind: PosixRlimitType) -> Resource {
    match kind {
        PosixRlimitType::RlimitCpu => Resource::Cpu,
        PosixRlimitType::RlimitFsize => Resource::Fsize,
        PosixRlimitType::RlimitData => Resource::Data,
        PosixRlimitType::RlimitStack => Resource::Stack,
        PosixRlimitType::RlimitCore => Resource::Core,
        PosixRlimitType::RlimitRss => Resource::Rss,
        PosixRlimitType::RlimitNproc => Resource::Nproc,
        PosixRlimitType::RlimitNofile => Resource::Nofile,
        PosixRlimitType::RlimitMemlock => Resource::Memlock,
        PosixRlimitType::RlimitAs => Resource::As,
        PosixRlimitType::RlimitLocks => Resource::Locks,
        PosixRlimitType::RlimitSigpending => Resource::Sigpending,
        PosixRlimitType::RlimitMsgqueue => Resource::Msgqueue,
        PosixRlimitType::RlimitNice => Resource::Nice,
        PosixRlimitType::RlimitRtprio => Resource::Rtprio,
        PosixRlimitType::RlimitRttime => Resource::Rttime,
    }
}

#[cfg(test)]
mod tests;
