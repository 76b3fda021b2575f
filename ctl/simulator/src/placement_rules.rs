//! The rules of placement, judged by records and reports alone:
//!
//! - A process is started only on a worker that has all labels, a process of each service that it is to be with, and nothing of
//!   one that it is apart from, whichever of both says so.
//! - A service with one process on each worker never has two current ones on one.
//!
//! That no worker's CPUs are reserved twice is checked where containers run.

use std::collections::{BTreeMap, BTreeSet};

use tucano_api::{
    agent::NodeReport,
    ids::{NodeName, ServiceName},
    service::{Placement, lacks},
    state::ServiceView,
};
use tucano_planner::{Cluster, ProcessRecord};

/// What the rules have to know of the step before.
#[derive(Debug, Clone, Default)]
pub(crate) struct PlacementRules {
    /// Workers with processes of each service that were not draining.
    serving: BTreeMap<ServiceName, BTreeSet<NodeName>>,
}

impl PlacementRules {
    /// Checks what a step has started.
    pub(crate) fn check(
        &mut self,
        cluster: &Cluster,
        started: &[ProcessRecord],
        reports: &BTreeMap<NodeName, NodeReport>,
    ) {
        let services = cluster.services();
        let placements: BTreeMap<&ServiceName, &Placement> = services
            .iter()
            .map(|it| (&it.configured.name, &it.configured.config.placement))
            .collect();
        if placements.values().all(|it| it.is_default()) {
            self.serving.clear();
            return;
        }
        let mut records = cluster.snapshot().processes;
        // Processes of runs follow the rules of their services, and are in nobody's way.
        let runs: BTreeSet<_> = records
            .iter()
            .filter(|it| it.run.is_some())
            .map(|it| it.id.clone())
            .collect();
        records.retain(|it| it.run.is_none());
        let mut now: BTreeMap<ServiceName, BTreeSet<NodeName>> = BTreeMap::new();
        for record in records.iter().filter(|it| it.draining_since.is_none()) {
            let nodes = now.entry(record.service.clone()).or_default();
            nodes.insert(record.node.clone());
        }
        for process in started {
            let Some(placement) = placements.get(&process.service) else {
                continue;
            };
            let node = cluster.node(&process.node).expect("placed in the topology");
            assert!(
                !lacks(&node.labels, &placement.labels),
                "{process:?} {node:?}"
            );
            for other in &placement.with {
                let serves = |of: &BTreeMap<ServiceName, BTreeSet<NodeName>>| {
                    of.get(other).is_some_and(|it| it.contains(&process.node))
                };
                assert!(
                    serves(&self.serving) || serves(&now),
                    "{process:?} without {other}"
                );
            }
            let is_apart = |other: &ServiceName| {
                let theirs = placements.get(other);
                placement.apart_from.contains(other)
                    || theirs.is_some_and(|it| it.apart_from.contains(&process.service))
            };
            let mut there = records.iter().filter(|it| it.node == process.node);
            assert!(
                !there.any(|it| is_apart(&it.service)),
                "{process:?} beside another"
            );
            let reported = reports.get(&process.node).map(|it| &it.processes);
            let reported = reported.into_iter().flatten();
            let mut reported = reported.filter(|it| !runs.contains(&it.id));
            assert!(
                !reported.any(|it| is_apart(&it.service)),
                "{process:?} beside another"
            );
        }
        for service in services
            .iter()
            .filter(|it| it.configured.config.placement.everywhere)
        {
            check_each(service);
        }
        self.serving = now;
    }
}

/// One current process for each worker.
fn check_each(service: &ServiceView) {
    let processes = service.active.processes.iter();
    let mut seen = BTreeSet::new();
    for process in processes.filter(|it| it.current && !it.draining) {
        assert!(seen.insert(&process.node), "{service:#?}");
    }
}
