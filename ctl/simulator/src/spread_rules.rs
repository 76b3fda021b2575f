//! How evenly processes are placed, judged by what was started in a step: over the workers, or over the values of a label.

use std::collections::{BTreeMap, BTreeSet};

use tucano_api::{
    agent::NodeReport,
    ids::{LabelName, LabelValue, NodeName},
    service::{ServiceConfig, is_at_or_below, lacks},
    state::{AliveNode, ServiceView},
};
use tucano_planner::{Cluster, ProcessRecord};

use crate::validator::counted;

/// What was placed went to a worker that had the fewest among those that had room all the time.
pub(crate) fn check(
    service: &ServiceView,
    cluster: &Cluster,
    started: &[ProcessRecord],
    freed: &BTreeSet<NodeName>,
    reports: &BTreeMap<NodeName, NodeReport>,
) {
    let mut own = started
        .iter()
        .filter(|it| it.service == service.configured.name);
    let offered = |process: &ProcessRecord| {
        let report = reports.get(&process.node);
        report.is_some_and(|it| offers(it, &service.configured.config))
    };
    assert!(own.all(offered), "{started:#?}");
    let placement = &service.configured.config.placement;
    let is_free = placement.with.is_empty() && !placement.everywhere && !has_apart(cluster);
    let config = &service.configured.config;
    // Which devices are free is a rule of its own.
    if !config.volume.is_empty() || config.has_own_devices() || !is_free {
        return;
    }
    let mut counts: BTreeMap<&NodeName, usize> = BTreeMap::new();
    for process in counted(service) {
        *counts.entry(&process.node).or_default() += 1;
    }
    let memory = service.configured.config.memory.0;
    let usable = cluster
        .nodes()
        .into_iter()
        .filter(|node| node.hold.is_none());
    let alive = usable.filter_map(|node| node.alive);
    let eligible: Vec<NodeName> = alive
        .filter(|node| {
            let taken = cluster.reserved(&node.name) + cluster.claimed(&node.name);
            taken + memory <= node.metrics.memory_reservable.0
        })
        .filter(|node| has_cpus(cluster, node, service))
        .map(|node| node.name)
        .filter(|name| {
            let node = cluster.node(name).expect("it is alive");
            let report = reports.get(name);
            let runs = report.is_some_and(|it| runs_image(cluster, service, &it.architecture));
            runs && !lacks(&node.labels, &placement.labels)
        })
        .filter(|name| {
            reports
                .get(name)
                .is_some_and(|it| offers(it, &service.configured.config))
        })
        .filter(|name| !freed.contains(name))
        .collect();
    if let Some(label) = &placement.spread {
        return check_zones(cluster, label, &counts, &eligible, service, started);
    }
    let fewest = eligible
        .iter()
        .map(|node| counts.get(node).copied().unwrap_or(0))
        .min();
    for process in started.iter().filter(|it| is_spread(it, service)) {
        // A process that was started and superseded in one step is not counted.
        let there = counts.get(&process.node).copied().unwrap_or(0);
        assert!(
            fewest.is_none_or(|fewest| there <= fewest + 1),
            "{counts:?} {started:#?}"
        );
    }
}

/// Whether it is one of the service's own processes: those of runs are not spread.
fn is_spread(process: &ProcessRecord, service: &ServiceView) -> bool {
    process.service == service.configured.name && process.run.is_none()
}

/// What was placed went to a zone that had the fewest among those with a worker that had room all the time.
fn check_zones(
    cluster: &Cluster,
    label: &LabelName,
    counts: &BTreeMap<&NodeName, usize>,
    eligible: &[NodeName],
    service: &ServiceView,
    started: &[ProcessRecord],
) {
    let zone = |node: &NodeName| cluster.node(node)?.labels.get(label).cloned();
    let mut sums: BTreeMap<Option<LabelValue>, usize> = BTreeMap::new();
    for (node, count) in counts {
        *sums.entry(zone(node)).or_default() += count;
    }
    // A move within a zone changes nothing: the process that is replaced counts no more.
    let replaced: Vec<_> = started
        .iter()
        .filter_map(|it| it.replaces.as_ref())
        .collect();
    for process in counted(service).filter(|it| replaced.contains(&&it.report.id)) {
        *sums.entry(zone(&process.node)).or_default() -= 1;
    }
    let sum = |node: &NodeName| sums.get(&zone(node)).copied().unwrap_or(0);
    let fewest = eligible.iter().map(sum).min();
    for process in started.iter().filter(|it| is_spread(it, service)) {
        let there = sum(&process.node);
        assert!(
            fewest.is_none_or(|fewest| there <= fewest + 1),
            "{sums:?} {started:#?}"
        );
    }
}

/// Whether the image of a service is for an architecture, as far as that is recorded.
fn runs_image(cluster: &Cluster, service: &ServiceView, architecture: &str) -> bool {
    let services = cluster.snapshot().services;
    let mut services = services.iter();
    let record = services.find(|it| it.name == service.configured.name);
    let current = record.and_then(|it| it.revisions.last());
    current.is_some_and(|it| it.platforms.is_empty() || it.platforms.contains_key(architecture))
}

fn has_apart(cluster: &Cluster) -> bool {
    let services = cluster.services();
    let mut placements = services.iter().map(|it| &it.configured.config.placement);
    placements.any(|it| !it.apart_from.is_empty())
}

/// Whether the agent knows all keys of a configuration, and has the directories and device nodes that it mounts.
fn offers(report: &NodeReport, config: &ServiceConfig) -> bool {
    let knows = |key: &str| report.keys.iter().any(|it| it == key);
    let has = |path: &str| report.host_paths.iter().any(|it| is_at_or_below(path, it));
    let is_listed = |path: &str| report.device_paths.iter().any(|it| it == path);
    config.agent_keys().all(knows)
        && config.host_paths().all(has)
        && config.device_nodes().all(is_listed)
}

/// Whether a worker has the CPUs for one more process of a service.
fn has_cpus(cluster: &Cluster, node: &AliveNode, service: &ServiceView) -> bool {
    let needed = service.configured.config.reserved_millicpus();
    needed == 0
        || cluster.reserved_millicpus(&node.name) + needed <= u64::from(node.metrics.cpus) * 1000
}
