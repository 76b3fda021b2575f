//! Records that could not be stored yet, and the actions that depend on them.

use std::collections::BTreeMap;

use tucano_planner::{Action, Record};

/// Pending records and actions. Only the newest level of each kind is kept, so that the size is bounded.
#[derive(Debug, Default)]
pub(super) struct PendingWrites {
    records: BTreeMap<(u8, String), Record>,
    actions: Vec<Action>,
}

impl PendingWrites {
    pub(super) fn is_empty(&self) -> bool {
        self.records.is_empty() && self.actions.is_empty()
    }

    /// Adds the result of a later step.
    pub(super) fn push(&mut self, records: Vec<Record>, actions: Vec<Action>) {
        for record in records {
            self.records.insert(key(&record), record);
        }
        for action in actions {
            self.actions.retain(|earlier| !supersedes(&action, earlier));
            self.actions.push(action);
        }
    }

    /// The records to store.
    pub(super) fn records(&self) -> Vec<Record> {
        self.records.values().cloned().collect()
    }

    /// The actions that wait for the records.
    pub(super) fn actions(&self) -> &[Action] {
        &self.actions
    }

    /// Clears the records, which are stored, and returns the actions.
    pub(super) fn release(&mut self) -> Vec<Action> {
        self.records.clear();
        std::mem::take(&mut self.actions)
    }
}

/// A record and its removal share a key: the later one wins.
fn key(record: &Record) -> (u8, String) {
    match record {
        Record::Service(service) => (0, service.name.to_string()),
        Record::ServiceGone(name) => (0, name.to_string()),
        Record::Process(process) => (1, process.id.to_string()),
        Record::ProcessGone(id) => (1, id.to_string()),
        Record::Node(node) => (2, node.name.to_string()),
        Record::NodeGone(name) => (2, name.to_string()),
        Record::Secret(secret) => (3, secret.name.to_string()),
        Record::SecretGone(name) => (3, name.to_string()),
        Record::Counters(_) => (4, String::new()),
        Record::Volume(record) => (5, record.volume.to_string()),
        Record::VolumeGone(volume) => (5, volume.to_string()),
        Record::Backups(backups) => (6, backups.id.to_string()),
        Record::Job(job) => (7, job.service.to_string()),
        Record::JobGone(name) => (7, name.to_string()),
        Record::Run(run) => (8, run.id()),
        Record::RunGone { service, number } => (8, format!("{service}/{number}")),
    }
}

/// Desired sets and routes are levels: the newest replaces earlier ones.
fn supersedes(later: &Action, earlier: &Action) -> bool {
    match (later, earlier) {
        (Action::Assign(later), Action::Assign(earlier)) => later.node == earlier.node,
        (Action::Publish(_), Action::Publish(_)) => true,
        (Action::Restart { node: later, .. }, Action::Restart { node: earlier, .. }) => {
            later == earlier
        }
        (Action::Alert(later), Action::Alert(earlier)) => {
            (later.kind, &later.subject) == (earlier.kind, &earlier.subject)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests;
