//! The state from its records. Whatever does not fit together is dropped, and the first step deletes it.

use std::collections::{BTreeMap, BTreeSet};

use tucano_api::{
    ids::NodeName,
    state::NodeCondition,
    units::{Span, Timestamp},
};

use crate::{
    cluster::Cluster,
    model::{NodeRecord, ProcessRecord, ServiceRecord, Snapshot, Worker},
    nodes::{Node, Revival, back_off},
    processes::Process,
    services::Service,
};

impl Cluster {
    pub(crate) fn take_in(&mut self, snapshot: Snapshot, workers: Vec<Worker>) {
        self.counters = snapshot.counters;
        self.take_in_nodes(snapshot.nodes, workers);
        for record in snapshot.services {
            self.take_in_service(record);
        }
        for record in snapshot.processes {
            self.take_in_process(record);
        }
        self.changes.reconcile.extend(self.services.keys().cloned());
        self.changes.reroute.extend(self.services.keys().cloned());
        self.changes.publish = true;
    }

    fn take_in_nodes(&mut self, records: Vec<NodeRecord>, workers: Vec<Worker>) {
        let expected: BTreeSet<NodeName> =
            workers.iter().map(|worker| worker.name.clone()).collect();
        let mut known = BTreeMap::new();
        for record in records {
            if expected.contains(&record.name) {
                known.insert(record.name.clone(), record);
            } else {
                // Its agent may hold the set of this one, and must be told of another should it come back.
                self.retire_generation(record.generation.next());
                self.changes.nodes.insert(record.name);
            }
        }
        for worker in workers {
            if self.node_index.contains_key(&worker.name) {
                continue;
            }
            let node = match known.remove(&worker.name) {
                Some(record) => self.take_in_node(worker, record),
                None => {
                    self.changes.nodes.insert(worker.name.clone());
                    Node::new(worker, self.counters.first_generation, self.now)
                }
            };
            if node.has_lease() {
                self.awaited.insert(node.record.name.clone());
            }
            self.node_index
                .insert(node.record.name.clone(), self.nodes.len());
            self.nodes.push(node);
        }
    }

    /// A missing worker's attempts go on where they were; how the one under way ended is not known.
    fn take_in_node(&self, worker: Worker, mut record: NodeRecord) -> Node {
        record.since = record.since.min(self.now);
        let attempts = record.restart_attempts;
        let missing = record.condition == NodeCondition::Missing;
        let mut node = Node::restored(worker, record, self.now);
        if missing {
            let wait = match attempts {
                0 => Span::secs(0),
                tried => back_off(self.settings.restart_backoff, tried),
            };
            node.revival = if attempts < self.settings.restart_attempts {
                Revival::BackOff(self.now.after(wait))
            } else {
                Revival::Grace(self.now.after(self.settings.restart_grace))
            };
        }
        node
    }

    fn take_in_service(&mut self, record: ServiceRecord) {
        if record.revisions.is_empty() {
            self.changes.services.insert(record.name);
            return;
        }
        let name = record.name.clone();
        self.services.insert(name, Service::new(record));
    }

    fn take_in_process(&mut self, mut record: ProcessRecord) {
        let number = record.id.number();
        if number > self.counters.last_process {
            self.counters.last_process = number;
            self.changes.counters = true;
        }
        let Some((node, memory)) = self.place_of(&record) else {
            self.changes.processes.insert(record.id);
            return;
        };
        record.draining_since = record
            .draining_since
            .map(|since: Timestamp| since.min(self.now));
        if record.draining_since.is_some() {
            self.draining.insert(number);
        }
        self.nodes[node].take_on(number, memory);
        if let Some(service) = self.services.get_mut(&record.service) {
            service.processes.insert(number);
        }
        let process = Process {
            record,
            node,
            memory,
            report: None,
            healthy_since: None,
        };
        if process.record.trouble.is_told() {
            self.watched.insert(number);
        }
        self.processes.insert(number, process);
    }

    /// The node that a process is on and the memory it reserves, if all that its record refers to is there.
    fn place_of(&self, record: &ProcessRecord) -> Option<(usize, u64)> {
        let node = *self.node_index.get(&record.node)?;
        let service = self.services.get(&record.service)?;
        let revision = service.revision(record.revision)?;
        let is_free = !self.processes.contains_key(&record.id.number());
        let is_expected = self.nodes[node].has_lease();
        (is_free && is_expected).then_some((node, revision.config.memory.0))
    }
}
