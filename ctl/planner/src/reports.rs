//! What agents say: each report is the whole actual set of its node.

use std::collections::{BTreeMap, BTreeSet};

use tucano_api::{
    agent::{NodeReport, ProcessReport},
    ids::{Generation, NodeName, ProcessId, ServiceName},
    state::NodeCondition,
};

use crate::{cluster::Cluster, nodes::Node};

/// How far a controller that has lost its memory steps ahead of an agent.
const LEAP: u64 = 1000;

impl Cluster {
    pub(crate) fn take_report(&mut self, name: &NodeName, mut report: NodeReport) {
        let Some(index) = self.node_index.get(name).copied() else {
            return;
        };
        if self.nodes[index].is_late(&report) {
            return;
        }
        if self.nodes[index].is_superseded(&report.agent_id) {
            return self.contest(index, &report);
        }
        self.pause_forgiven = false;
        let before = self.nodes[index].condition();
        let generation = report.generation;
        let processes = std::mem::take(&mut report.processes);
        self.take_node(index, report);
        if before != NodeCondition::Alive {
            self.welcome(index, before);
        }
        self.take_processes(
            index,
            generation >= self.nodes[index].record.generation,
            processes,
        );
        self.compare_generation(index, generation);
    }

    fn take_node(&mut self, index: usize, report: NodeReport) {
        let node = &mut self.nodes[index];
        let reservable = node.reservable();
        node.leased_at = self.now;
        node.succeed(&report.agent_id);
        node.last_heard = Some((report.agent_id.clone(), report.sequence));
        let reweighted = node.load.observe(&report.metrics);
        node.report = Some(report);
        if node.reservable() != reservable {
            self.changes.capacity = true;
        }
        if reweighted {
            self.reroute_services_on(index);
        }
    }

    /// `settled`: the agent holds the present desired set, so that what it does not name does not exist.
    fn take_processes(&mut self, index: usize, settled: bool, reports: Vec<ProcessReport>) {
        let mut desired = BTreeMap::new();
        let mut strays = Vec::new();
        for report in reports {
            let number = report.id.number();
            let process = self.process(&report.id);
            if process.is_some_and(|process| process.node == index) {
                desired.insert(number, report);
            } else {
                strays.push(report);
            }
        }
        let node = &mut self.nodes[index];
        if !settled {
            let named: BTreeSet<ProcessId> = strays.iter().map(|stray| stray.id.clone()).collect();
            let known = std::mem::take(&mut node.strays);
            strays.extend(known.into_iter().filter(|stray| !named.contains(&stray.id)));
        }
        node.strays = strays;
        let numbers: Vec<u64> = node.processes.iter().copied().collect();
        for number in numbers {
            self.observe(number, desired.remove(&number));
        }
    }

    /// An agent that is behind is sent its set again. One that is ahead has got sets that this controller does
    /// not remember: its own must be newer to be taken, also newer than what the agent may have got since.
    fn compare_generation(&mut self, index: usize, held: Generation) {
        let record = &mut self.nodes[index].record;
        if held > record.generation {
            record.generation = Generation(held.0.saturating_add(LEAP));
            self.changes.reassign.insert(record.name.clone());
        } else if held < record.generation {
            self.changes.resend.insert(record.name.clone());
        }
    }

    pub(crate) fn reroute_services_on(&mut self, index: usize) {
        let processes = self.nodes[index].processes.iter();
        let names: Vec<ServiceName> = processes
            .filter_map(|number| Some(self.processes.get(number)?.record.service.clone()))
            .collect();
        self.changes.reroute.extend(names);
    }
}

impl Node {
    /// Whether the report was overtaken by a later one of the same agent, or came twice.
    fn is_late(&self, report: &NodeReport) -> bool {
        self.last_heard
            .as_ref()
            .is_some_and(|(agent, last)| *agent == report.agent_id && report.sequence <= *last)
    }
}
