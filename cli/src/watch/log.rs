//! Each change of a service's processes, reported once.

use std::collections::BTreeMap;

use tucano_api::state::ServiceView;

use super::describe;

/// The last line about each process, so that only changes are reported.
#[derive(Debug, Default)]
pub(super) struct ProgressLog {
    reported: BTreeMap<String, String>,
}

impl ProgressLog {
    /// The lines that are new since the last call.
    pub(super) fn changes(&mut self, view: &ServiceView) -> Vec<String> {
        let mut now = BTreeMap::new();
        for process in &view.active.processes {
            now.insert(process.report.id.to_string(), describe(process));
        }
        for pending in &view.active.pending {
            let line = format!("{} not placed yet: {}", pending.count, pending.reason);
            now.insert(format!("~{}", pending.reason), line);
        }
        let before = self.reported.keys().filter(|id| !id.starts_with('~'));
        let gone = before.filter(|id| !now.contains_key(*id));
        let mut changes: Vec<String> = gone.map(|id| format!("{id} is gone")).collect();
        let new = now
            .iter()
            .filter(|(id, line)| self.reported.get(*id) != Some(line));
        changes.extend(new.map(|(_, line)| line.clone()));
        self.reported = now;
        changes
    }
}
