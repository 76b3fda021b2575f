//! Limits that are plain values in files: cpuset, huge pages, rdma, network classes, and the parts of cpu and memory
//! that cgroups-rs does not cover. The mapping to files is pure.

use std::{fs, path::Path};

use oci_spec::runtime::{LinuxCpu, LinuxMemory, LinuxNetwork, LinuxRdma, LinuxResources};

use super::{Cgroup, Error};

/// Controllers whose files the `unified` map may name. Files of `cgroup.` itself move processes and the like.
const UNIFIED: [&str; 8] = [
    "cpu", "cpuset", "hugetlb", "io", "memory", "misc", "pids", "rdma",
];

/// A value for a file.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Setting {
    controller: &'static str,
    file: String,
    value: String,
}

/// Controllers beyond the usual ones that these limits need.
pub(super) fn controllers(resources: Option<&LinuxResources>) -> Vec<&'static str> {
    const USUAL: [&str; 5] = ["cpu", "io", "memory", "pids", ""];
    let Some(resources) = resources else {
        return Vec::new();
    };
    // A controller that v2 lacks has no file there and is refused when its limit is applied.
    let of_v1 = settings(resources, false).unwrap_or_default();
    let of_v2 = settings(resources, true).unwrap_or_default();
    let mut names: Vec<_> = of_v1
        .iter()
        .chain(&of_v2)
        .map(|setting| setting.controller)
        .filter(|name| !USUAL.contains(name))
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// Writes every setting. Called before the cgroup has processes: a v1 cpuset accepts none until it has CPUs.
pub(super) fn apply(cgroup: &Cgroup, resources: &LinuxResources) -> Result<(), Error> {
    let unified = cgroup.is_unified();
    let all = settings(resources, unified).map_err(|reason| Error::Limit {
        what: "the resources",
        path: cgroup.directory("").unwrap_or(Path::new("")).to_owned(),
        reason,
    })?;
    for setting in all {
        let directory = super::limits::required(cgroup, setting.controller)?;
        fs::write(directory.join(&setting.file), &setting.value).map_err(|source| {
            Error::Setting {
                file: directory.join(&setting.file),
                value: setting.value.clone(),
                source,
            }
        })?;
    }
    Ok(())
}

/// Ends a cgroup's being idle, if that is asked for. First of all: an idle one takes no shares. A kernel without idle
/// cgroups has none.
pub(super) fn end_idle(cgroup: &Cgroup, cpu: &LinuxCpu) -> Result<(), Error> {
    let file = super::limits::required(cgroup, "cpu")?.join("cpu.idle");
    if cpu.idle() != Some(0) || !file.exists() {
        return Ok(());
    }
    let value = "0".to_owned();
    fs::write(&file, &value).map_err(|source| Error::Setting {
        file,
        value,
        source,
    })
}

/// Copies the CPUs and memory nodes of the parent to a new v1 cpuset, which starts empty.
pub(super) fn inherit_cpuset(directory: &Path) -> Result<(), Error> {
    for name in ["cpuset.cpus", "cpuset.mems"] {
        inherit(directory, name)?;
    }
    Ok(())
}

fn inherit(directory: &Path, name: &str) -> Result<String, Error> {
    let file = directory.join(name);
    let own = fs::read_to_string(&file).map_err(|source| Error::Read {
        path: file.clone(),
        source,
    })?;
    let own = own.trim().to_owned();
    let Some(parent) = directory.parent().filter(|_| own.is_empty()) else {
        return Ok(own);
    };
    let value = inherit(parent, name)?;
    fs::write(&file, &value).map_err(|source| Error::Setting {
        file,
        value: value.clone(),
        source,
    })?;
    Ok(value)
}

fn settings(resources: &LinuxResources, unified: bool) -> Result<Vec<Setting>, String> {
    let mut all = Vec::new();
    let mut add = |controller: &'static str, file: String, value: String| {
        all.push(Setting {
            controller,
            file,
            value,
        });
    };
    if let Some(cpu) = resources.cpu() {
        for (controller, file, value) in of_cpu(cpu, unified)? {
            add(controller, file.to_owned(), value);
        }
    }
    if let Some(memory) = resources.memory() {
        for (file, value) in of_memory(memory, unified)? {
            add("memory", file.to_owned(), value);
        }
    }
    for limit in resources.hugepage_limits().iter().flatten() {
        let (size, suffix) = (
            limit.page_size(),
            if unified { "max" } else { "limit_in_bytes" },
        );
        if size.contains('/') {
            return Err(format!("{size:?} is not a size of huge pages"));
        }
        let file = format!("hugetlb.{size}.{suffix}");
        add("hugetlb", file, limited(limit.limit(), unified));
    }
    for (device, limits) in resources.rdma().iter().flatten() {
        add("rdma", "rdma.max".to_owned(), of_rdma(device, limits));
    }
    if let Some(network) = resources.network() {
        for (controller, file, value) in of_network(network, unified)? {
            add(controller, file.to_owned(), value);
        }
    }
    for (file, value) in resources.unified().iter().flatten() {
        add(of_unified(file, unified)?, file.clone(), value.clone());
    }
    Ok(all)
}

type Files = Vec<(&'static str, &'static str, String)>;

/// Fields of `cpu` other than shares, quota, period and burst.
fn of_cpu(cpu: &LinuxCpu, unified: bool) -> Result<Files, String> {
    let mut files = Vec::new();
    let text = |list: &Option<String>| list.clone().filter(|list| !list.is_empty());
    files.extend(text(cpu.cpus()).map(|list| ("cpuset", "cpuset.cpus", list)));
    files.extend(text(cpu.mems()).map(|list| ("cpuset", "cpuset.mems", list)));
    let idle = cpu.idle().filter(|idle| *idle != 0);
    files.extend(idle.map(|idle| ("cpu", "cpu.idle", idle.to_string())));
    let period = cpu.realtime_period().filter(|time| *time != 0);
    let runtime = cpu.realtime_runtime().filter(|time| *time != 0);
    if unified && (period.is_some() || runtime.is_some()) {
        return Err("realtimePeriod and realtimeRuntime are of cgroup v1 only".into());
    }
    files.extend(period.map(|time| ("cpu", "cpu.rt_period_us", time.to_string())));
    files.extend(runtime.map(|time| ("cpu", "cpu.rt_runtime_us", time.to_string())));
    Ok(files)
}

/// Fields of `memory` other than limit, reservation and swap. Callers write zero for a limit that they do not set.
#[allow(deprecated, reason = "specifications still have them")]
fn of_memory(memory: &LinuxMemory, unified: bool) -> Result<Vec<(&'static str, String)>, String> {
    if memory.kernel().is_some_and(|limit| limit > 0) {
        return Err(
            "memory.kernel is not supported: kernels since 5.16 do not limit it apart".into(),
        );
    }
    let tcp = memory.kernel_tcp().filter(|limit| *limit != 0);
    // Docker writes all bits set for a value that is not set.
    let swappiness = memory.swappiness().filter(|value| *value != u64::MAX);
    let no_killer = memory.disable_oom_killer() == Some(true);
    let has_tcp = tcp.is_some_and(|limit| limit > 0);
    if unified && (has_tcp || no_killer || swappiness.is_some_and(|value| value != 0)) {
        return Err("kernelTCP, swappiness and disableOOMKiller are of cgroup v1 only".into());
    }
    if unified {
        return Ok(Vec::new());
    }
    let tcp = tcp.map(|limit| ("memory.kmem.tcp.limit_in_bytes", limit.to_string()));
    let swappiness = swappiness.map(|value| ("memory.swappiness", value.to_string()));
    let no_killer = no_killer.then(|| ("memory.oom_control", "1".to_owned()));
    Ok([tcp, swappiness, no_killer].into_iter().flatten().collect())
}

fn limited(limit: i64, unified: bool) -> String {
    match limit {
        ..0 if unified => "max".to_owned(),
        limit => limit.to_string(),
    }
}

fn of_rdma(device: &str, limits: &LinuxRdma) -> String {
    let handles = limits.hca_handles().map(|n| format!(" hca_handle={n}"));
    let objects = limits.hca_objects().map(|n| format!(" hca_object={n}"));
    format!(
        "{device}{}{}",
        handles.unwrap_or_default(),
        objects.unwrap_or_default()
    )
}

fn of_network(network: &LinuxNetwork, unified: bool) -> Result<Files, String> {
    let class = network.class_id().filter(|class| *class != 0);
    let priorities = network.priorities().iter().flatten();
    let mut files: Files = class
        .map(|class| ("net_cls", "net_cls.classid", class.to_string()))
        .into_iter()
        .collect();
    files.extend(priorities.map(|one| {
        let value = format!("{} {}", one.name(), one.priority());
        ("net_prio", "net_prio.ifpriomap", value)
    }));
    if unified && !files.is_empty() {
        return Err("network classes and priorities are of cgroup v1 only".into());
    }
    Ok(files)
}

fn of_unified(file: &str, unified: bool) -> Result<&'static str, String> {
    if !unified {
        return Err("`unified` is for hosts with cgroup v2 alone".into());
    }
    let controller = file.split_once('.').map(|(controller, _)| controller);
    UNIFIED
        .into_iter()
        .find(|known| Some(*known) == controller && !file.contains('/'))
        .ok_or_else(|| {
            format!("`unified` names {file:?}, which is not a file of a known controller")
        })
}

#[cfg(test)]
mod tests;
