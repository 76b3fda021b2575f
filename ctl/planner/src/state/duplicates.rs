use std::collections::VecDeque;

use tucano_api::units::Timestamp;

/// Limit of superseded agents that are remembered for each worker.
const MAX_SUPERSEDED: usize = 8;

/// The other agents that report as the same worker.
#[derive(Debug, Clone, Default)]
pub(crate) struct DuplicateAgents {
    /// Ids of agents that another one has replaced, oldest first.
    superseded: VecDeque<String>,
    /// The superseded agent that reported last, and its sequence number.
    last: Option<(String, u64)>,
    /// Until when no further alert is sent.
    quiet_until: Option<Timestamp>,
}

impl DuplicateAgents {
    pub(crate) fn is_superseded(&self, agent: &str) -> bool {
        self.superseded.iter().any(|other| other == agent)
    }

    /// Records that `agent` has replaced `previous`.
    pub(crate) fn supersede(&mut self, previous: String, agent: &str) {
        self.superseded
            .retain(|other| other != agent && *other != previous);
        self.superseded.push_back(previous);
        if self.superseded.len() > MAX_SUPERSEDED {
            self.superseded.pop_front();
        }
    }

    /// Records a report of a superseded agent. Whether it shows that the agent is running: a single report may have
    /// been in flight when the agent ended, a second and later one cannot.
    pub(crate) fn observe(&mut self, agent: &str, sequence: u64) -> bool {
        let running = self
            .last
            .as_ref()
            .is_some_and(|(last, before)| last == agent && *before < sequence);
        self.last = Some((agent.to_owned(), sequence));
        running
    }

    /// Whether an alert is due. It is not repeated before `quiet_until`, which each call moves.
    pub(crate) fn alert_is_due(&mut self, now: Timestamp, quiet_until: Timestamp) -> bool {
        let due = self.quiet_until.is_none_or(|until| until <= now);
        self.quiet_until = Some(quiet_until);
        due
    }
}
