//! The words of the rules of placement.

use std::fmt;

use super::{
    PendingReason, WorkerArchitecture, WorkerCpus, WorkerDevices, WorkerLabels, first, short,
};
use crate::service::Labels;

pub(super) fn describe(reason: &PendingReason, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match reason {
        PendingReason::NoLabels { labels, workers } => write!(
            f,
            "`placement.labels`: no worker has {} ({})",
            text(labels),
            first(workers)
        ),
        PendingReason::NoArchitecture { images, workers } => write!(
            f,
            "its image is for {}, and no worker that fits otherwise runs that ({})",
            images.join(" and "),
            first(workers)
        ),
        PendingReason::NotWith {
            service,
            configured: false,
            ..
        } => write!(
            f,
            "`placement.with`: service {service} is not configured, deploy it"
        ),
        PendingReason::NotWith { service, nodes, .. } => write!(
            f,
            "`placement.with`: no worker that fits otherwise has a process of {service} ({})",
            first(nodes)
        ),
        PendingReason::NotApart { service, nodes } => write!(
            f,
            "`placement.apart_from`: every worker that fits otherwise has a process of {service} ({})",
            first(nodes)
        ),
        PendingReason::NoCpus {
            needed_millicpus,
            workers,
        } => write!(
            f,
            "`cpus_reserved`: no worker has {} CPUs left to reserve ({})",
            cpus(*needed_millicpus),
            first(workers)
        ),
        PendingReason::NoMemoryOrCpus {
            memory,
            millicpus,
            nodes,
        } => write!(
            f,
            "no worker has both {} of memory and {} CPUs left to reserve ({})",
            short(*memory),
            cpus(*millicpus),
            first(nodes)
        ),
        PendingReason::NoDeviceNode { paths, nodes } => write!(
            f,
            "`devices`: no worker that fits otherwise has {} and lists it in `device_paths` of its agent.toml ({})",
            paths.join(", "),
            first(nodes)
        ),
        PendingReason::NoDevices { wanted, workers } => write!(
            f,
            "`devices`: no worker that fits otherwise has {} free ({})",
            wanted.join(", "),
            first(workers)
        ),
        _ => Ok(()),
    }
}

/// Labels as `zone=a, gpu=l4`.
pub(crate) fn text(labels: &Labels) -> String {
    let labels = labels.iter().map(|(name, value)| format!("{name}={value}"));
    labels.collect::<Vec<_>>().join(", ")
}

/// Thousandths of a CPU as CPUs: `0.25`, `4`.
fn cpus(thousandths: u64) -> String {
    let text = format!("{}.{:03}", thousandths / 1000, thousandths % 1000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

impl fmt::Display for WorkerLabels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (node, label) = (&self.node, &self.label);
        match &self.value {
            Some(value) => write!(f, "{node}: {label}={value}"),
            None => write!(f, "{node}: no {label}"),
        }
    }
}

impl fmt::Display for WorkerArchitecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.node, self.architecture)
    }
}

impl fmt::Display for WorkerDevices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            node,
            kind,
            free,
            all,
        } = self;
        match all {
            0 => write!(f, "{node}: no {kind}"),
            _ => write!(f, "{node}: {free} free of {all} {kind}"),
        }
    }
}

impl fmt::Display for WorkerCpus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (free, all) = (cpus(self.free_millicpus), cpus(self.all_millicpus));
        write!(f, "{}: {free} free of {all}", self.node)
    }
}
