//! New static configuration: workers come, leave or move, settings change.

use std::collections::{BTreeMap, BTreeSet};

use tucano_api::{agent::DesiredSet, ids::NodeName};

use crate::{
    cluster::Cluster,
    model::{Settings, Worker},
    nodes::Node,
};

impl Cluster {
    pub(crate) fn configure(&mut self, workers: Vec<Worker>, settings: Settings) {
        self.settings = settings;
        let names: BTreeSet<NodeName> = workers.iter().map(|worker| worker.name.clone()).collect();
        for index in 0..self.nodes.len() {
            if !names.contains(&self.nodes[index].record.name) {
                self.dismiss(index);
            }
        }
        self.arrange(workers);
        self.changes.prune.extend(self.services.keys().cloned());
        self.changes.reroute.extend(self.services.keys().cloned());
        self.changes.reconcile.extend(self.services.keys().cloned());
    }

    /// A worker has left the topology: what it runs is placed elsewhere, and its agent, whose reports will
    /// not be accepted any more, is told to end it.
    fn dismiss(&mut self, index: usize) {
        let was_alive = self.nodes[index].is_alive();
        self.forget_processes_of(index);
        let record = &self.nodes[index].record;
        let name = record.name.clone();
        let last = record.generation.next();
        if was_alive {
            self.changes.farewells.push(DesiredSet {
                node: name.clone(),
                generation: last,
                processes: Vec::new(),
            });
            self.alive_nodes_changed();
        }
        self.retire_generation(last);
        self.stop_waiting_for(&name);
        self.changes.nodes.insert(name);
    }

    /// Puts the nodes into the topology's order, new ones among them.
    fn arrange(&mut self, workers: Vec<Worker>) {
        let nodes = std::mem::take(&mut self.nodes);
        let mut known: BTreeMap<NodeName, Node> = nodes
            .into_iter()
            .map(|node| (node.record.name.clone(), node))
            .collect();
        self.node_index.clear();
        for worker in workers {
            let name = worker.name.clone();
            if self.node_index.contains_key(&name) {
                continue;
            }
            let node = match known.remove(&name) {
                Some(node) => Node { worker, ..node },
                None => {
                    self.changes.nodes.insert(name.clone());
                    Node::new(worker, self.counters.first_generation, self.now)
                }
            };
            self.node_index.insert(name, self.nodes.len());
            self.nodes.push(node);
        }
        for process in self.processes.values_mut() {
            if let Some(index) = self.node_index.get(&process.record.node) {
                process.node = *index;
            }
        }
    }
}
